//! An API server for tests: lists, watches, bookmarks, resource versions, selectors and 410 over
//! real HTTP on loopback, or HTTPS with client certificates, with the conventions of kube-apiserver.
//! And it misbehaves on command.
//!
//! It knows Services, EndpointSlices and Nodes as JSON and validates nothing, so that tests can
//! have it serve what a real one would refuse.

mod events;
mod fault;
mod http;
pub mod object;
mod store;
mod stream;
mod tls;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::rustls::ServerConfig;

pub use self::events::Written;
pub use self::fault::{Fault, On};
pub use self::store::{Prepared, Snapshot};
pub use self::tls::{Authority, Identity};

use self::fault::Faults;
use self::store::Store;

/// A running server. It ends with the value.
#[derive(Debug)]
pub struct ApiServer {
    shared: Arc<Shared>,
    address: SocketAddr,
    serving: Option<JoinHandle<()>>,
}

/// One request that was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Plural name of the kind: `services`.
    pub resource: String,
    /// Whether it was a watch.
    pub watch: bool,
    /// Whether nothing but metadata was asked for.
    pub metadata: bool,
    /// Query parameters, decoded.
    pub query: std::collections::BTreeMap<String, String>,
    /// Header `Authorization`.
    pub authorization: Option<String>,
    /// The client's certificate, as DER.
    pub certificate: Option<Vec<u8>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Changes with each event, bookmark and disconnection, and each Event that is written.
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    store: Store,
    faults: Faults,
    requests: Vec<Recorded>,
    events: Vec<Written>,
    /// Bookmarks asked for so far; each open watch sends one more.
    bookmarks: u64,
    /// Watches of an earlier epoch are cut.
    epoch: u64,
    /// How new connections are secured, if they are.
    tls: Option<Arc<ServerConfig>>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        self.changed.send_modify(|count| *count += 1);
    }
}

impl ApiServer {
    /// Starts a server with nothing in it.
    ///
    /// # Errors
    /// The listening socket.
    pub async fn start() -> io::Result<Self> {
        Self::start_at(Ipv4Addr::LOCALHOST.into()).await
    }

    /// As [`ApiServer::start`], at an address of this host.
    ///
    /// # Errors
    /// The listening socket.
    pub async fn start_at(address: IpAddr) -> io::Result<Self> {
        let shared = Arc::new(Shared { state: Mutex::default(), changed: watch::Sender::new(0) });
        let listener = TcpListener::bind((address, 0)).await?;
        let address = listener.local_addr()?;
        let serving = tokio::spawn(http::serve(listener, Arc::clone(&shared)));
        Ok(Self { shared, address, serving: Some(serving) })
    }

    /// URL for clients.
    pub fn url(&self) -> String {
        let scheme = if self.shared.lock().tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// From now on a client must trust `own` and have a certificate of `clients`. Connections that
    /// are open stay as they are.
    ///
    /// # Errors
    /// No certificate can be made.
    pub fn secure(&self, own: &Authority, clients: &Authority) -> anyhow::Result<()> {
        self.shared.lock().tls = Some(tls::server(own, clients)?);
        Ok(())
    }

    /// Stops answering: connections break, new ones are refused. What is stored stays.
    pub async fn stop(&mut self) {
        if let Some(serving) = self.serving.take() {
            serving.abort();
            // The listener is closed when the task is gone.
            let _ = serving.await;
        }
        self.disconnect();
    }

    /// Answers again, at the same address.
    ///
    /// # Errors
    /// The listening socket.
    pub async fn resume(&mut self) -> io::Result<()> {
        let listener = TcpListener::bind(self.address).await?;
        self.serving = Some(tokio::spawn(http::serve(listener, Arc::clone(&self.shared))));
        Ok(())
    }

    /// Creates or replaces an object, as `kubectl apply` does.
    pub fn put(&self, object: impl Into<Prepared>) {
        let object = object.into();
        self.shared.lock().store.put(object);
        self.shared.wake();
    }

    /// Creates or replaces objects at one moment: watches see them all or none.
    pub fn put_all(&self, objects: impl IntoIterator<Item = Value>) {
        let mut state = self.shared.lock();
        objects.into_iter().for_each(|object| state.store.put(object.into()));
        drop(state);
        self.shared.wake();
    }

    /// Deletes an object by plural kind, namespace and name.
    pub fn delete(&self, resource: &str, namespace: &str, name: &str) {
        self.shared.lock().store.delete(resource, namespace, name);
        self.shared.wake();
    }

    /// Deletes an object.
    pub fn remove(&self, object: &Prepared) {
        self.shared.lock().store.remove(object);
        self.shared.wake();
    }

    /// Deletes all objects of a kind.
    pub fn clear(&self, resource: &str) {
        self.shared.lock().store.clear(resource);
        self.shared.wake();
    }

    /// Every open watch gets a bookmark.
    pub fn bookmark(&self) {
        self.shared.lock().bookmarks += 1;
        self.shared.wake();
    }

    /// Breaks all open watches.
    pub fn disconnect(&self) {
        self.shared.lock().epoch += 1;
        self.shared.wake();
    }

    /// Forgets the history: watches from earlier than now get 410.
    pub fn compact(&self) {
        self.shared.lock().store.compact();
    }

    /// Forgets the history but for so many of the last changes. A watch must not be further behind.
    pub fn compact_but(&self, kept: usize) {
        self.shared.lock().store.compact_but(kept);
    }

    /// What is stored, to be restored later.
    pub fn snapshot(&self) -> Snapshot {
        self.shared.lock().store.snapshot()
    }

    /// Goes back to an earlier state, resource versions included, as after restoring etcd. Open
    /// watches stay, as those of a kube-apiserver whose etcd is exchanged behind it.
    pub fn restore(&self, snapshot: Snapshot) {
        self.shared.lock().store.restore(snapshot);
    }

    /// Misbehaves in the next requests that this fault is for, `times` times.
    pub fn fault(&self, on: On, times: usize, fault: Fault) {
        self.shared.lock().faults.add(on, times, fault);
    }

    /// No more of the faults that have not happened yet.
    pub fn forgive(&self) {
        self.shared.lock().faults = Faults::default();
    }

    /// Faults that have not happened yet.
    pub fn pending_faults(&self) -> usize {
        self.shared.lock().faults.pending()
    }

    /// Requests so far.
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.lock().requests.clone()
    }

    /// Events that were created or patched, in order.
    pub fn events(&self) -> Vec<Written> {
        self.shared.lock().events.clone()
    }

    /// Waits until so many Events were created or patched.
    pub async fn written(&self, count: usize) {
        let mut changed = self.shared.changed.subscribe();
        while self.shared.lock().events.len() < count && changed.changed().await.is_ok() {}
    }

    /// Objects of a kind, in order of namespace and name.
    pub fn objects(&self, resource: &str) -> Vec<Value> {
        let objects = self.shared.lock().store.objects(resource);
        objects.iter().filter_map(|object| serde_json::from_str(&object.to_string()).ok()).collect()
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        if let Some(serving) = &self.serving {
            serving.abort();
        }
        self.disconnect();
    }
}
