//! A connection to the API server.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper::Uri;
use hyper::header::HeaderValue;
use hyper::http::uri::Scheme;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::TokioExecutor;
use kube::Config;
use kube::client::{Body, ClientBuilder, ConfigExt as _};
use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use rustix::io::Errno;
use tower::util::MapRequestLayer;
use tower::{BoxError, ServiceExt as _};

use super::contacts::Contacts;
use super::credentials::{self, Token};
use crate::input;

/// A peer that has gone without a word is noticed after 10 + 3 x 5 seconds of silence, whether or
/// not something that was sent to it waits for an acknowledgement.
const KEEPALIVE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 3;
const UNACKNOWLEDGED: Duration = Duration::from_secs(25);
/// What a connection keeps to read into, once a list has filled it.
const READ_BUFFER: usize = 1 << 16;
/// Connecting is tried again after this long. The kernel repeats a request to connect after 1, 3 and
/// 7 seconds: a new one after 3 finds a host that is back sooner.
const CONNECT: Duration = Duration::from_secs(3);

/// A client, and the server that it is for.
pub(super) struct Client {
    pub(super) http: kube::Client,
    pub(super) url: Uri,
}

/// How to reach the API server. Without a kubeconfig and a server: as a pod does.
#[derive(Debug, Clone, Default)]
pub struct Connection {
    /// A kubeconfig; its current context is used.
    pub kubeconfig: Option<PathBuf>,
    /// URL of the API server, in place of the kubeconfig's.
    pub server: Option<String>,
    /// Where it leads to.
    pub contacts: Contacts,
}

/// Why there is no connection to try.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kubeconfig cannot be read or used.
    #[error("use kubeconfig {}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Unquoted,
    },
    /// There is no kubeconfig, and this is no pod.
    #[error(
        "nothing names files or an API server, and this is not a pod: add --manifests, --kubeconfig or \
         --config as the proxy of this node has it"
    )]
    NotNamed,
    /// There is no kubeconfig, and the service account of this pod cannot be used.
    #[error("use the service account of this pod")]
    InCluster(#[source] Box<InClusterError>),
    /// The server's URL is none.
    #[error("use {url:?} as the URL of the API server")]
    Server {
        /// As given.
        url: String,
        /// What is wrong with it.
        source: hyper::http::uri::InvalidUri,
    },
    /// The file of the token is empty. The server would see an anonymous client.
    #[error(
        "the token file {} is empty: nobody could be authenticated with it. What writes it (the \
         kubelet in a pod) has to write a token",
        .0.display()
    )]
    EmptyToken(PathBuf),
    /// A file is none, or cannot be read.
    #[error("read {}", path.display())]
    File {
        /// Named in the kubeconfig, or of the service account.
        path: PathBuf,
        /// What is wrong with it.
        source: std::io::Error,
    },
    /// Certificates, keys or tokens cannot be used.
    #[error("prepare the connection to {server}")]
    Client {
        /// The server's URL.
        server: Uri,
        /// What is wrong.
        #[source]
        source: Box<kube::Error>,
    },
}

/// What is wrong with a kubeconfig, without its words: some of them are secrets.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unquoted(String);

impl Unquoted {
    /// The first line, in which the place stands, and `...` for what it quotes. The lines below it
    /// show a part of the file.
    fn new(error: &KubeconfigError) -> Self {
        let text = crate::text::causes(error);
        let line = text.lines().next().unwrap_or_default();
        let parts = line.split(['"', '`', '\'']).enumerate();
        Self(parts.map(|(n, part)| if n % 2 == 0 { part } else { "\"...\"" }).collect())
    }
}

/// The client would end the process over a token that no header can carry.
fn check_tokens(kubeconfig: &Kubeconfig) -> Result<(), Unquoted> {
    for user in &kubeconfig.auth_infos {
        let fields = serde_json::to_value(&user.auth_info).unwrap_or_default();
        let token = fields.get("token").and_then(serde_json::Value::as_str).unwrap_or_default();
        if HeaderValue::from_str(token).is_err() {
            let text =
                format!("the token of user {} has characters that no header may have", user.name);
            return Err(Unquoted(text));
        }
    }
    Ok(())
}

/// A kubeconfig that cannot be read: its own fault, unless this process may open nothing at all.
fn unread(path: &Path, error: std::io::Error) -> Error {
    let path = path.to_owned();
    match Errno::from_io_error(&error) {
        Some(Errno::MFILE | Errno::NFILE) => Error::File { path, source: error },
        _ => Error::Kubeconfig { path, source: Unquoted(error.to_string()) },
    }
}

fn file((path, source): (PathBuf, std::io::Error)) -> Error {
    Error::File { path, source }
}

impl Connection {
    async fn config(&self) -> Result<Config, Error> {
        let server = match &self.server {
            Some(url) => Some(
                url.parse::<Uri>().map_err(|source| Error::Server { url: url.clone(), source })?,
            ),
            None => None,
        };
        let mut config = match (&self.kubeconfig, &server) {
            (Some(path), _) => {
                let failed = |error| match error {
                    KubeconfigError::ReadConfig(error, _) => unread(path, error),
                    error => {
                        Error::Kubeconfig { path: path.clone(), source: Unquoted::new(&error) }
                    }
                };
                input::read(path, credentials::MAX_BYTES).map_err(|error| unread(path, error))?;
                let kubeconfig = Kubeconfig::read_from(path).map_err(failed)?;
                credentials::check(&kubeconfig).map_err(file)?;
                check_tokens(&kubeconfig)
                    .map_err(|source| Error::Kubeconfig { path: path.clone(), source })?;
                let options = KubeConfigOptions::default();
                Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(failed)?
            }
            (None, Some(server)) => Config::new(server.clone()),
            (None, None) => {
                credentials::check_pod().map_err(file)?;
                Config::incluster().map_err(|source| match source {
                    InClusterError::ReadEnvironmentVariable(_) => Error::NotNamed,
                    source => Error::InCluster(Box::new(source)),
                })?
            }
        };
        if let Some(server) = server {
            config.cluster_url = server;
        }
        Ok(config)
    }

    /// Whether the configuration can be used. Nothing is sent to the server.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn check(&self) -> Result<(), Error> {
        self.client().await.map(drop)
    }

    /// The URL of the server.
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub async fn url(&self) -> Result<String, Error> {
        self.aside(async |this| Ok(this.config().await?.cluster_url.to_string())).await
    }

    /// A client with fresh certificates and tokens.
    pub(super) async fn client(&self) -> Result<Client, Error> {
        self.aside(async |this| this.read_client().await).await
    }

    /// Does something that reads files aside.
    async fn aside<T: Send + 'static>(
        &self,
        read: impl AsyncFnOnce(Self) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (this, runtime) = (self.clone(), tokio::runtime::Handle::current());
        let read = input::aside(move || runtime.block_on(read(this))).await;
        read.map_err(|error| file((self.kubeconfig.clone().unwrap_or_default(), error)))?
    }

    /// Reads files.
    ///
    /// It is not the stack that the kube crate builds by default: that one has no keep-alive, writes
    /// an error to the log for each failed request, and retries by itself behind our back. Proxies
    /// of the environment (`HTTPS_PROXY`) are not used: the service proxy must not depend on one.
    async fn read_client(&self) -> Result<Client, Error> {
        let mut config = self.config().await?;
        let token = Token::take(&mut config)?;
        let failed =
            |source| Error::Client { server: config.cluster_url.clone(), source: Box::new(source) };
        self.contacts.of_url(&config.cluster_url);
        let mut tcp = HttpConnector::new_with_resolver(self.contacts.resolver());
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT));
        tcp.set_keepalive(Some(KEEPALIVE));
        tcp.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
        tcp.set_keepalive_retries(Some(KEEPALIVE_PROBES));
        tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
        let http = if config.cluster_url.scheme() == Some(&Scheme::HTTP) {
            stack(&config, token, tcp)
        } else {
            config
                .rustls_https_connector_with_connector(tcp)
                .and_then(|tls| stack(&config, token, tls))
        };
        Ok(Client { http: http.map_err(failed)?, url: config.cluster_url })
    }
}

/// A client on a way to connect: the server's URL and the authentication are added.
fn stack<C>(config: &Config, token: Option<Arc<Token>>, connector: C) -> kube::Result<kube::Client>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let http = HttpClient::builder(TokioExecutor::new())
        .http1_max_buf_size(READ_BUFFER)
        .build::<_, Body>(connector);
    let stack = ClientBuilder::new(http.map_err(BoxError::from), "")
        .with_layer(&config.extra_headers_layer()?);
    if let Some(token) = token {
        let sign = MapRequestLayer::new(move |request| token.sign(request));
        return Ok(stack.with_layer(&sign).with_layer(&config.base_uri_layer()).build());
    }
    Ok(match config.auth_layer()? {
        Some(auth) => stack.with_layer(&auth).with_layer(&config.base_uri_layer()).build(),
        None => stack.with_layer(&config.base_uri_layer()).build(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::chain;

    #[tokio::test]
    async fn a_configuration_that_cannot_be_used_says_which_and_why() {
        let connection =
            Connection { kubeconfig: Some("/nonexistent/config".into()), ..Connection::default() };
        let text = chain(&connection.check().await.err().unwrap());
        assert!(text.starts_with("use kubeconfig /nonexistent/config: "), "{text}");
        assert_eq!(text.matches("No such file").count(), 1, "{text}");
        // Nothing but a file, and not too much of it.
        let connection =
            Connection { kubeconfig: Some("/dev/zero".into()), ..Connection::default() };
        let text = chain(&connection.check().await.err().unwrap());
        assert!(text.ends_with("it is a device, not a file"), "{text}");
        let path = std::env::temp_dir().join(format!("proxier-client-{}", std::process::id()));
        for file in ["certificate-authority", "tokenFile", "client-key"] {
            let (cluster, user) = match file {
                "certificate-authority" => (", certificate-authority: /dev/zero", String::new()),
                file => ("", format!("{file}: /dev/zero")),
            };
            let text = format!(
                "clusters: [{{name: a, cluster: {{server: 'https://192.0.2.1'{cluster}}}}}]\n\
                 users: [{{name: a, user: {{{user}}}}}]\n\
                 contexts: [{{name: a, context: {{cluster: a, user: a}}}}]\ncurrent-context: a\n"
            );
            std::fs::write(&path, text).unwrap();
            let connection = Connection { kubeconfig: Some(path.clone()), ..Connection::default() };
            let text = chain(&connection.check().await.err().unwrap());
            assert_eq!(text, "read /dev/zero: it is a device, not a file", "{file}");
        }
        std::fs::remove_file(&path).unwrap();
        let connection = Connection { server: Some("not a url".into()), ..Connection::default() };
        let text = chain(&connection.check().await.err().unwrap());
        assert!(text.starts_with("use \"not a url\" as the URL"), "{text}");
    }
}
