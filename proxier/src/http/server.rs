//! Listening, accepting, and conversations that end.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::body::Body;
use super::pace::Paced;

pub(super) type Response = hyper::Response<Body>;

/// Answers requests.
pub(super) trait Handler: Send + Sync + 'static {
    /// The answer to one request. To a HEAD request, only its head is sent.
    fn answer(&self, request: &Request<Incoming>) -> impl Future<Output = Response> + Send;
}

/// What a server puts up with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Connections at the same time, from this node and from elsewhere each, so that nobody outside can keep
    /// out the kubelet. The next one takes the place of the oldest, so that clients that never finish
    /// cannot keep out those that do; of those, the oldest of the address that has the most.
    pub(super) connections: usize,
    /// From one answer, or the start, to the end of the next request's head.
    pub(super) head: Duration,
    /// Age of a connection; an answer that is under way may take [`LAST_ANSWER`] longer.
    pub(super) age: Duration,
}

/// Room for connections, as much for those from this node as for those from elsewhere.
#[derive(Debug, Clone)]
pub(super) struct Room {
    most: usize,
    near: Arc<Mutex<Connections>>,
    far: Arc<Mutex<Connections>>,
}

/// Who is connected, the oldest first.
type Connections = VecDeque<(IpAddr, AbortHandle)>;

/// Bytes of a request's head.
const HEAD_BYTES: usize = 8192;
/// Header lines of a request.
const HEAD_LINES: usize = 64;
/// Connections that the kernel keeps while nobody accepts them.
const BACKLOG: u32 = 128;
/// How long a client may take nothing of its answer.
pub(super) const STALL: Duration = Duration::from_secs(10);
/// Bytes that the kernel keeps of what a connection has not taken yet; it counts twice as much. They are
/// memory of this process's cgroup, and would be megabytes.
const SEND_BUFFER: u32 = 128 * 1024;
/// How long the last answer of a connection may take.
const LAST_ANSWER: Duration = Duration::from_secs(10);
/// The pause after a connection could not be accepted, as there are too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// For the health server: many probes, each short.
pub(super) const HEALTH: Limits =
    Limits { connections: 64, head: Duration::from_secs(10), age: Duration::from_mins(5) };

/// For the metrics server: a few readers that come again and again.
pub(super) const METRICS: Limits =
    Limits { connections: 32, head: Duration::from_mins(2), ..HEALTH };

/// For one health check node port: there may be hundreds of them.
pub(super) const NODE_PORT: Limits = Limits { connections: 16, ..HEALTH };
/// Connections of all health check node ports together.
pub(super) const NODE_PORTS: usize = 512;

/// Listens. `[::]` takes IPv4 too, unless `only_v6`.
pub(super) fn listen(address: SocketAddr, only_v6: bool) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => {
            let socket = TcpSocket::new_v6()?;
            rustix::net::sockopt::set_ipv6_v6only(&socket, only_v6)?;
            socket
        }
    };
    socket.set_reuseaddr(true)?;
    // Accepted connections inherit it.
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts connections and answers what they ask, for ever. Ends them all when it is dropped.
pub(super) async fn serve(listener: TcpListener, handler: Arc<impl Handler>, limits: Limits) {
    serve_in(listener, handler, limits, &Room::new(usize::MAX)).await;
}

/// The same for one of several servers that together have so much room.
pub(super) async fn serve_in(
    listener: TcpListener,
    handler: Arc<impl Handler>,
    limits: Limits,
    shared: &Room,
) {
    let mut tasks = JoinSet::new();
    let own = Room::new(limits.connections);
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok((stream, peer)) => (stream, peer.ip().to_canonical()),
            Err(error) => {
                warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        while tasks.try_join_next().is_some() {}
        let near = is_near(&stream, peer);
        let task = tasks.spawn(converse(stream, handler.clone(), limits));
        own.enter(near, peer, task.clone());
        shared.enter(near, peer, task);
    }
}

/// Whether a connection comes from this node: whoever connects to one of its addresses from itself, as the
/// kubelet does, has that address as its own.
pub(super) fn is_near(stream: &TcpStream, peer: IpAddr) -> bool {
    let own = stream.local_addr().map(|address| address.ip().to_canonical());
    peer.is_loopback() || own.is_ok_and(|own| own == peer)
}

impl Room {
    pub(super) fn new(most: usize) -> Self {
        Self { most, near: Arc::default(), far: Arc::default() }
    }

    /// Lets a connection in, in place of another one if there are as many as there may be.
    fn enter(&self, near: bool, peer: IpAddr, task: AbortHandle) {
        let inside = if near { &self.near } else { &self.far };
        let mut inside = inside.lock().unwrap_or_else(PoisonError::into_inner);
        inside.retain(|(_, task)| !task.is_finished());
        if inside.len() >= self.most
            && let Some((_, oldest)) = one_of_most(&inside).and_then(|at| inside.remove(at))
        {
            oldest.abort();
        }
        inside.push_back((peer, task));
    }
}

/// The oldest connection of the address that has the most.
fn one_of_most(inside: &Connections) -> Option<usize> {
    let mut counts = HashMap::new();
    for (peer, _) in inside {
        *counts.entry(*peer).or_insert(0_usize) += 1;
    }
    let most = counts.values().copied().max();
    inside.iter().position(|(peer, _)| counts.get(peer).copied() == most)
}

async fn converse(stream: TcpStream, handler: Arc<impl Handler>, limits: Limits) {
    let service = service_fn(|request| {
        let handler = handler.clone();
        async move { Ok::<_, Infallible>(handler.answer(&request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEAD_LINES)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(Paced::new(stream, STALL)), service);
    let mut connection = pin!(connection);
    let ended = if let Ok(ended) = timeout(limits.age, connection.as_mut()).await {
        ended
    } else {
        connection.as_mut().graceful_shutdown();
        timeout(LAST_ANSWER, connection).await.unwrap_or(Ok(()))
    };
    if let Err(error) = ended {
        debug!(%error, "a connection ended early");
    }
}

/// An answer of this type and content.
pub(super) fn response(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Body>,
) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// An answer for people.
pub(super) fn text(status: StatusCode, body: impl Into<Body>) -> Response {
    response(status, "text/plain; charset=utf-8", body)
}

/// There is nothing at this path.
pub(super) fn not_found() -> Response {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}
