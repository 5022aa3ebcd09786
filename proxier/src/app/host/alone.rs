//! One daemon for each network namespace.
//!
//! The namespace is what a daemon programs, and an abstract Unix socket belongs to it: it needs no file, so it
//! works in a container with a read-only root, and the kernel closes it with the process.

use std::io;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::Duration;

use anyhow::{Context as _, bail};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, UCred, sockopt};
use rustix::process::geteuid;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{info, warn};

/// The socket's name.
const NAME: &[u8] = b"proxier";
/// The pause where the other's socket takes no connection.
const AGAIN: Duration = Duration::from_millis(500);

/// Held while a daemon may program this network namespace.
#[derive(Debug)]
pub(in crate::app) struct Alone {
    /// Nobody is accepted: who wants to know is told by the kernel.
    _socket: Option<UnixListener>,
}

impl Alone {
    /// How long a daemon that is about to end may take: as after a signal, and a little more.
    pub(in crate::app) const PATIENCE: Duration = Duration::from_secs(15);
    /// Longer than any daemon runs.
    pub(in crate::app) const UNTIL_IT_ENDS: Duration = Duration::from_hours(24 * 365);

    /// Waits for a daemon to end; says which one runs when it does not end in time.
    pub(in crate::app) async fn wait(patience: Duration) -> anyhow::Result<Self> {
        Self::wait_for(NAME, patience).await
    }

    /// The daemon that programs this network namespace, if one can be told.
    pub(in crate::app) fn daemon() -> Option<String> {
        Self::holder(NAME)
    }

    fn holder(name: &[u8]) -> Option<String> {
        let owner = sockopt::socket_peercred(connect(name).ok()?).ok()?;
        (owner.uid.is_root() || owner.uid == geteuid()).then(|| process(owner))
    }

    async fn wait_for(name: &[u8], patience: Duration) -> anyhow::Result<Self> {
        let address = SocketAddr::from_abstract_name(name).context("name a socket")?;
        let deadline = Instant::now() + patience;
        let mut said = false;
        loop {
            match UnixListener::bind_addr(&address) {
                Ok(socket) => return Ok(Self { _socket: Some(socket) }),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(error).context("find out whether another proxier runs"),
            }
            let other = match connect(name) {
                Ok(other) => other,
                // Gone meanwhile, or asked by too many.
                Err(_) if Instant::now() < deadline => {
                    sleep_until((Instant::now() + AGAIN).min(deadline)).await;
                    continue;
                }
                // Every process of the host can take a name or crowd its owner: that must stop nobody.
                Err(error) => {
                    warn!(%error, "cannot find out whether another proxier runs here: not looked for");
                    return Ok(Self { _socket: None });
                }
            };
            let owner = sockopt::socket_peercred(&other).context("ask who runs")?;
            // Every user of the host can take a name.
            if !owner.uid.is_root() && owner.uid != geteuid() {
                warn!(
                    "{} of user {} holds the name by which a second proxier is found: not looked for",
                    process(owner),
                    owner.uid.as_raw()
                );
                return Ok(Self { _socket: None });
            }
            if !said {
                said = true;
                info!("{} is still running here, waiting for its end", process(owner));
            }
            if !ends(other, deadline).await? {
                bail!(
                    "another proxier, {}, programs this network namespace and does not end: two would \
                     undo each other's work; stop it first",
                    process(owner)
                );
            }
        }
    }
}

/// Without waiting for room in the other's queue.
fn connect(name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new_abstract_name(name)?)?;
    Ok(socket)
}

/// Whether the other end of a connection goes away in time.
async fn ends(other: OwnedFd, deadline: Instant) -> anyhow::Result<bool> {
    let stream = tokio::net::UnixStream::from_std(UnixStream::from(other))
        .context("follow another proxier")?;
    // It never writes: whatever comes is the end.
    Ok(timeout_at(deadline, stream.readable()).await.is_ok())
}

/// A process of another container has no number here.
fn process(owner: UCred) -> String {
    match owner.pid.as_raw_nonzero().get() {
        pid if pid > 0 => format!("process {pid}"),
        _ => "a process of another container".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_second_says_who_runs_and_follows_when_the_first_has_ended() {
        let name = format!("proxier-test-{}", std::process::id());
        let name = name.as_bytes();
        let first = Alone::wait_for(name, Duration::ZERO).await.unwrap();
        let error = Alone::wait_for(name, Duration::ZERO).await.unwrap_err();
        let who = format!("process {}", std::process::id());
        assert_eq!(Alone::holder(name), Some(who.clone()));
        assert!(error.to_string().contains(&who), "{error:#}");

        let second = tokio::spawn({
            let name = name.to_owned();
            async move { Alone::wait_for(&name, Duration::from_hours(1)).await }
        });
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        drop(first);
        second.await.unwrap().unwrap();
        assert_eq!(Alone::holder(name), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_somebody_only_holds_stops_nobody() {
        let name = format!("proxier-test-held-{}", std::process::id());
        let held = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        let address = SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap();
        rustix::net::bind(&held, &address).unwrap();
        Alone::wait_for(name.as_bytes(), Alone::PATIENCE).await.unwrap();
    }
}
