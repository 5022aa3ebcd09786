//! The loop over a dataplane in memory, with any number of services: for counting work.

use std::time::Duration;

use netlink_ipvs::RealServerKey;
use proxier::cluster::{Change, EndpointSlice, ObjectKey, Service};
use proxier::memory::Memory;
use proxier::reconcile::{Event, Reconciler, Resolver, Status, Timing};
use std::sync::Arc;
use tokio::sync::watch;

use proxier::builders::{NODE, ServiceExt as _, endpoints, ip, service, settings, virtual_server};
use proxier::dataplane::Settings;
use proxier::dataplane::split::LocalPolicy;

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

/// The `n`-th service as that of a load balancer with externalTrafficPolicy Local.
pub fn nth_local_service(n: u32) -> Service {
    let [.., b, c] = n.to_be_bytes();
    let mut service = nth_service(n);
    service.load_balancer_ips = vec![ip(&format!("198.18.{b}.{c}"))];
    service.external_local = true;
    service
}

/// Its slice: one endpoint on this node, and this one elsewhere.
pub fn nth_local_slice(n: u32, last: u8) -> EndpointSlice {
    let both = [format!("{} @{NODE}", pod(n, 1)), format!("{} @elsewhere", pod(n, last))];
    endpoints(&name(n), 8080, &both.each_ref().map(String::as_str))
}

/// Settings by which Local policies are split, with a mark for each of thousands of services.
fn split() -> Settings {
    let mut settings = settings();
    settings.local_policy = LocalPolicy::Split;
    settings.marks = "0x1000/0x1fff".parse().unwrap_or_default();
    for options in settings.firewall.values_mut() {
        options.split = Some(settings.marks.common());
    }
    settings
}

impl Settled {
    /// Programs everything.
    pub async fn with(services: u32) -> Self {
        let objects = (0..services).map(|n| (nth_service(n), nth_slice(n, &[1, 2])));
        Self::of(settings, objects).await
    }

    /// Programs as many services with externalTrafficPolicy Local.
    pub async fn local(services: u32) -> Self {
        let objects = (0..services).map(|n| (nth_local_service(n), nth_local_slice(n, 2)));
        Self::of(split, objects).await
    }

    /// Programs these services, each with a slice.
    pub async fn of(
        settings: fn() -> Settings,
        objects: impl Iterator<Item = (Service, EndpointSlice)>,
    ) -> Self {
        let mut settled = Self::over(Memory::new(), settings, objects).await;
        settled.reconciler.dataplane().done.clear();
        settled
    }

    /// The same over what is there already. What was done is known.
    pub async fn over(
        memory: Memory,
        settings: fn() -> Settings,
        objects: impl Iterator<Item = (Service, EndpointSlice)>,
    ) -> Self {
        let resolver = Resolver::new(move |_, _| settings());
        let (mut reconciler, status) = Reconciler::new(memory, resolver, TIMING);
        reconciler.take(Event::HostAddresses(vec![ip("192.0.2.1")]));
        let (mut services, mut slices): (Vec<ObjectKey>, Vec<ObjectKey>) = Default::default();
        for (service, slice) in objects {
            services.push(service.key.clone());
            slices.push(slice.key.clone());
            reconciler.take(Event::from(Change::Service(service)));
            reconciler.take(Event::from(Change::Slice(slice)));
        }
        let listed =
            [Change::ServicesListed(services), Change::SlicesListed(slices), Change::NodeListed];
        for change in listed {
            reconciler.take(Event::from(change));
        }
        reconciler.step().await;
        Self { reconciler, status }
    }

    /// One endpoint of a service changes, and that is programmed.
    pub async fn change(&mut self, n: u32, last: &[u8]) {
        self.reconciler.take(Event::from(Change::Slice(nth_slice(n, last))));
        self.reconciler.step().await;
    }
}
