//! The client under test, and what it must come to see.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proxier::cluster::{Change, Cluster, Dirty, ObjectKey};
use proxier::source::kube::{Connection, Options, Status, Timing, run};
use proxier_tests::apiserver::ApiServer;
use proxier_tests::apiserver::object::{service, slice};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Nothing here takes this long unless it never happens.
pub(crate) const NEVER: Duration = Duration::from_mins(1);

/// A client under test and what it has seen.
pub(crate) struct Client {
    pub(crate) cluster: Cluster,
    pub(crate) changes: mpsc::Receiver<Vec<Change>>,
    pub(crate) status: Arc<Status>,
    pub(crate) running: JoinHandle<()>,
    /// Services that were reported gone, one by one or by a list.
    pub(crate) lost: Vec<String>,
}

/// Impatient, so that a test of a timeout is a short one.
pub(crate) fn timing() -> Timing {
    Timing {
        watch: Duration::from_mins(1),
        answer: Duration::from_millis(300),
        initial: Duration::from_millis(300),
        bookmarks: Duration::from_millis(500),
        backoff_first: Duration::from_millis(10),
        backoff_soon: Duration::from_millis(50),
        backoff_most: Duration::from_millis(100),
        healthy: Duration::from_mins(1),
        shortest: Duration::ZERO,
        rebuild: Duration::from_hours(1),
        again: Duration::from_millis(20),
    }
}

impl Client {
    pub(crate) fn start(server: &ApiServer, timing: Timing) -> Self {
        let connection = Connection { server: Some(server.url()), ..Connection::default() };
        Self::with(connection, timing)
    }

    pub(crate) fn with(connection: Connection, timing: Timing) -> Self {
        Self::with_pages(connection, timing, 3)
    }

    pub(crate) fn with_pages(connection: Connection, timing: Timing, page_size: u32) -> Self {
        Self::with_options(connection, Options { timing, page_size, ..Options::new("node-a") })
    }

    pub(crate) fn with_options(connection: Connection, options: Options) -> Self {
        let (sender, changes) = mpsc::channel(16);
        let status = Arc::new(Status::default());
        let shared = Arc::clone(&status);
        let running = tokio::spawn(async move {
            run(connection, options, sender, shared).await.expect("a usable configuration");
        });
        Self { cluster: Cluster::new(), changes, status, running, lost: Vec::new() }
    }

    /// Takes in events for so long.
    pub(crate) async fn pass(&mut self, time: Duration) {
        let end = tokio::time::Instant::now() + time;
        while let Ok(event) = tokio::time::timeout_at(end, self.changes.recv()).await {
            self.apply(event.expect("the source must not end"));
        }
    }

    /// Takes in changes until the cluster is as it should be.
    pub(crate) async fn until(&mut self, what: &str, condition: impl Fn(&Cluster) -> bool) {
        let reached = tokio::time::timeout(NEVER, async {
            while !condition(&self.cluster) {
                let change = self.changes.recv().await.expect("the source must not end");
                self.apply(change);
                // Looking at thousands of objects after each one of them would take its time.
                while let Ok(change) = self.changes.try_recv() {
                    self.apply(change);
                }
            }
        });
        assert!(reached.await.is_ok(), "not reached: {what}; status {:?}", self.status);
    }

    /// Takes in one event.
    pub(crate) fn apply(&mut self, event: Vec<Change>) {
        for change in event {
            self.apply_change(change);
        }
    }

    fn apply_change(&mut self, change: Change) {
        if !matches!(change, Change::ServiceGone(_) | Change::ServicesListed(_)) {
            return self.cluster.apply(change, &mut Dirty::default());
        }
        let before: Vec<ObjectKey> = self.cluster.services().map(|s| s.key.clone()).collect();
        self.cluster.apply(change, &mut Dirty::default());
        let gone = before.iter().filter(|key| self.cluster.service(key).is_none());
        self.lost.extend(gone.map(ToString::to_string));
    }

    /// Takes in changes until the cluster is what the server has, then makes sure that no change
    /// on its way alters it again: a new object is seen after everything before it.
    pub(crate) async fn converge(&mut self, server: &ApiServer) {
        let wanted = stored(server);
        self.until("what the server has", |cluster| {
            cluster.is_complete() && seen(cluster) == wanted
        })
        .await;
        for (kind, object) in [
            ("services", service("fence", "fence", "10.9.9.9")),
            ("endpointslices", slice("fence", "fence", "fence", &["10.9.9.9"])),
        ] {
            server.put(object);
            let fenced = stored(server);
            self.until("a fence", |cluster| seen(cluster) == fenced).await;
            server.delete(kind, "fence", "fence");
            self.until("what the server has, again", |cluster| seen(cluster) == wanted).await;
        }
        self.lost.retain(|key| key != "fence/fence");
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// Services with their address, and services with the addresses of their endpoints.
pub(crate) type Content = BTreeMap<String, Vec<String>>;

pub(crate) fn seen(cluster: &Cluster) -> Content {
    let mut content = Content::new();
    for service in cluster.services() {
        let ips = service.cluster_ips.iter().map(ToString::to_string).collect();
        content.insert(format!("service {}", service.key), ips);
    }
    let owners = ["web", "db", "many", "fence"];
    for (namespace, owner) in ["dev", "fence"].iter().flat_map(|n| owners.map(|o| (*n, o))) {
        for slice in cluster.slices(&ObjectKey::new(namespace, owner)) {
            let ips = slice.endpoints.iter().map(|e| e.address.to_string()).collect();
            content.insert(format!("slice {}", slice.key), ips);
        }
    }
    content
}

pub(crate) fn stored(server: &ApiServer) -> Content {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let name = |object: &Value| {
        let metadata = &object["metadata"];
        format!("{}/{}", text(&metadata["namespace"]), text(&metadata["name"]))
    };
    let mut content = Content::new();
    for object in server.objects("services") {
        let ip = text(&object["spec"]["clusterIP"]);
        content.insert(format!("service {}", name(&object)), vec![ip]);
    }
    for object in server.objects("endpointslices") {
        let endpoints = object["endpoints"].as_array().into_iter().flatten();
        let ips = endpoints.map(|endpoint| text(&endpoint["addresses"][0]));
        content.insert(format!("slice {}", name(&object)), ips.collect());
    }
    content
}
