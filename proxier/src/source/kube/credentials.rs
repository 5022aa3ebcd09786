//! Files that a kubeconfig names. The kube crate would read them without a bound, and the token while
//! it sends a request.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::header::{AUTHORIZATION, HeaderValue};
use kube::Config;
use kube::config::{AuthInfo, Kubeconfig};
use tokio::time::Instant;

use super::Error;
use crate::input;

/// Largest kubeconfig, certificate or token.
pub(super) const MAX_BYTES: u64 = 1 << 20;
/// A token is read again after this long, as client-go does.
const TOKEN_AGE: Duration = Duration::from_mins(1);

/// Where a pod finds what belongs to its service account.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The first file that is none, or too large, and what is wrong with it. What is missing is left to who
/// needs it.
pub(super) fn check(kubeconfig: &Kubeconfig) -> Result<(), (PathBuf, io::Error)> {
    let clusters = kubeconfig.clusters.iter().filter_map(|named| named.cluster.as_ref());
    let users = kubeconfig.auth_infos.iter().filter_map(|named| named.auth_info.as_ref());
    let files = clusters.map(|cluster| &cluster.certificate_authority).chain(users.flat_map(
        |user: &AuthInfo| [&user.client_certificate, &user.client_key, &user.token_file],
    ));
    files.flatten().try_for_each(|file| check_file(Path::new(file)))
}

/// The same of what a pod has.
pub(super) fn check_pod() -> Result<(), (PathBuf, io::Error)> {
    ["token", "ca.crt"]
        .iter()
        .try_for_each(|file| check_file(&Path::new(SERVICE_ACCOUNT).join(file)))
}

fn check_file(path: &Path) -> Result<(), (PathBuf, io::Error)> {
    match input::read(path, MAX_BYTES) {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::FileTooLarge | io::ErrorKind::InvalidInput
            ) =>
        {
            Err((path.to_owned(), error))
        }
        _ => Ok(()),
    }
}

/// The token in a file. It is read again aside when it is old; until that has ended, and where it fails,
/// the old one is used.
#[derive(Debug)]
pub(super) struct Token {
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    header: HeaderValue,
    /// When the last attempt to read it began.
    tried: Instant,
    reading: bool,
}

impl Token {
    /// Takes a token file out of a configuration, if it is what the client would use.
    pub(super) fn take(config: &mut Config) -> Result<Option<Arc<Self>>, Error> {
        let auth = &mut config.auth_info;
        let other = auth.auth_provider.is_some()
            || auth.username.is_some() && auth.password.is_some()
            || auth.token.is_some();
        let Some(path) = auth.token_file.take_if(|_| !other).map(PathBuf::from) else {
            return Ok(None);
        };
        let header = read(&path).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => Error::EmptyToken(path.clone()),
            _ => Error::File { path: path.clone(), source },
        })?;
        let state = State { header, tried: Instant::now(), reading: false };
        Ok(Some(Arc::new(Self { path, state: Mutex::new(state) })))
    }

    /// Adds the token to a request.
    pub(super) fn sign<B>(self: &Arc<Self>, mut request: hyper::Request<B>) -> hyper::Request<B> {
        request.headers_mut().insert(AUTHORIZATION, self.header());
        request
    }

    fn header(self: &Arc<Self>) -> HeaderValue {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.tried.elapsed() >= TOKEN_AGE && !state.reading {
            state.tried = Instant::now();
            state.reading = true;
            let this = Arc::clone(self);
            tokio::spawn(async move {
                let path = this.path.clone();
                let read = input::aside(move || read(&path)).await.and_then(|read| read);
                let mut state = this.state.lock().unwrap_or_else(PoisonError::into_inner);
                state.reading = false;
                match read {
                    Ok(header) => state.header = header,
                    Err(error) => tracing::warn!(
                        path = %this.path.display(),
                        %error,
                        "cannot read the token again, the old one is used"
                    ),
                }
            });
        }
        state.header.clone()
    }
}

fn read(path: &Path) -> io::Result<HeaderValue> {
    let token = input::read_text(path, MAX_BYTES)?;
    if token.trim().is_empty() {
        // The server would see an anonymous client.
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it is empty"));
    }
    let mut header = HeaderValue::try_from(format!("Bearer {}", token.trim()))
        .map_err(|_| io::Error::other("the token has characters that no header may have"))?;
    header.set_sensitive(true);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_token_is_read_again_and_the_old_one_is_used_until_then() {
        let path = std::env::temp_dir().join(format!("proxier-token-{}", std::process::id()));
        std::fs::write(&path, "one\n").unwrap();
        let mut config = Config::new("https://192.0.2.1".parse().unwrap());
        config.auth_info.token_file = Some(path.display().to_string());
        let token = Token::take(&mut config).unwrap().unwrap();
        assert_eq!(config.auth_info.token_file, None);
        let header = || token.header().to_str().unwrap().to_owned();
        std::fs::write(&path, "two").unwrap();
        assert_eq!(header(), "Bearer one");
        tokio::time::advance(TOKEN_AGE).await;
        assert_eq!(header(), "Bearer one");
        let read = || async {
            while token.state.lock().unwrap().reading {
                tokio::task::yield_now().await;
            }
        };
        read().await;
        assert_eq!(header(), "Bearer two");
        // What is no token keeps the old one.
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        tokio::time::advance(TOKEN_AGE).await;
        header();
        read().await;
        assert_eq!(header(), "Bearer two");
        std::fs::remove_file(&path).unwrap();
        config.auth_info.token_file = Some("/dev/zero".to_owned());
        let error = format!("{:#}", anyhow::Error::new(Token::take(&mut config).unwrap_err()));
        assert_eq!(error, "read /dev/zero: it is a device, not a file");
    }
}
