//! The loop over a dataplane in memory, with any number of services: for counting work.

use std::time::Duration;

use netlink_ipvs::RealServerKey;
use proxier::cluster::{Change, EndpointSlice, ObjectKey, Service};
use proxier::memory::Memory;
use proxier::reconcile::{Event, Reconciler, Resolver, Status, Timing};
use std::sync::Arc;
use tokio::sync::watch;

use proxier::builders::{ServiceExt as _, endpoints, ip, key, service, settings, virtual_server};

/// The times of a loop that counts draining servers and audits as the daemon does.
pub const TIMING: Timing = Timing {
    sync_period: Duration::from_secs(30),
    min_sync_period: Duration::ZERO,
    drain_timeout: Duration::from_mins(15),
    drain_check: Duration::from_secs(5),
};

/// A loop that has programmed so many services of two endpoints each.
pub struct Settled {
    /// The loop.
    pub reconciler: Reconciler<Memory>,
    /// What it says of itself.
    pub status: watch::Receiver<Arc<Status>>,
}

/// The `n`-th service: one port, one cluster IP.
pub fn nth_service(n: u32) -> Service {
    let [.., b, c] = n.to_be_bytes();
    service(&name(n)).port(80).cluster_ip(&format!("10.96.{b}.{c}"))
}

/// Its slice with these endpoints.
pub fn nth_slice(n: u32, last: &[u8]) -> EndpointSlice {
    let addresses: Vec<String> = last.iter().map(|last| pod(n, *last)).collect();
    endpoints(&name(n), 8080, &addresses.iter().map(String::as_str).collect::<Vec<_>>())
}

/// One of its real servers.
pub fn nth_real_server(n: u32, last: u8) -> RealServerKey {
    RealServerKey::new(ip(&pod(n, last)), 8080)
}

/// Its virtual server.
pub fn nth_virtual_server(n: u32) -> netlink_ipvs::VirtualServerKey {
    let [.., b, c] = n.to_be_bytes();
    virtual_server(&format!("10.96.{b}.{c}:80/tcp"))
}

fn name(n: u32) -> String {
    format!("web-{n}")
}

fn pod(n: u32, last: u8) -> String {
    let [.., b, c] = n.to_be_bytes();
    format!("10.{}.{c}.{last}", 128 + b)
}

impl Settled {
    /// Programs everything.
    pub async fn with(services: u32) -> Self {
        let resolver = Resolver::new(|_, _| settings());
        let (mut reconciler, status) = Reconciler::new(Memory::new(), resolver, TIMING);
        reconciler.take(Event::HostAddresses(vec![ip("192.0.2.1")]));
        for n in 0..services {
            reconciler.take(Event::from(Change::Service(nth_service(n))));
            reconciler.take(Event::from(Change::Slice(nth_slice(n, &[1, 2]))));
        }
        let keys = |suffix: &str| -> Vec<ObjectKey> {
            (0..services).map(|n| key(&format!("{}{suffix}", name(n)))).collect()
        };
        let listed = [
            Change::ServicesListed(keys("")),
            Change::SlicesListed(keys("-1")),
            Change::NodeListed,
        ];
        for change in listed {
            reconciler.take(Event::from(change));
        }
        reconciler.step().await;
        reconciler.dataplane().done.clear();
        Self { reconciler, status }
    }

    /// One endpoint of a service changes, and that is programmed.
    pub async fn change(&mut self, n: u32, last: &[u8]) {
        self.reconciler.take(Event::from(Change::Slice(nth_slice(n, last))));
        self.reconciler.step().await;
    }
}
