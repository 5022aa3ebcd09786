//! Health check node ports: whether a service with externalTrafficPolicy Local has endpoints on
//! this node, for each such service on a port of its own.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::HeaderName;
use hyper::{Request, StatusCode};
use netlink_ipvs::Family;
use serde::Serialize;
use serde_json::ser::{PrettyFormatter, Serializer};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::warn;

use super::health::{JSON, Monitor};
use super::server::{self, Handler, NODE_PORT, NODE_PORTS, Response, Room, response};
use super::{Current, LISTEN_AGAIN};
use crate::cluster::ObjectKey;
use crate::config::Config;
use crate::config::node::{health_check_ips, node_ips};
use crate::reconcile::Status;

const WEIGHT: HeaderName = HeaderName::from_static("x-load-balancing-endpoint-weight");

/// Keeps a server open for every health check node port.
#[derive(Debug)]
pub(super) struct NodePorts {
    current: watch::Receiver<Arc<Current>>,
    monitor: Monitor,
    status: watch::Receiver<Arc<Status>>,
    open: BTreeMap<Place, Open>,
    room: Room,
    /// What cannot be opened, and why: said once, tried again.
    failed: BTreeMap<Place, String>,
    /// The addresses of each family, as last seen.
    addresses: BTreeMap<Family, Vec<IpAddr>>,
}

/// A service in a family: the families are independent of each other.
type Place = (ObjectKey, Family);

/// What a service is served at.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sockets {
    port: u16,
    addresses: Vec<IpAddr>,
}

#[derive(Debug)]
struct Open {
    sockets: Sockets,
    tasks: Vec<JoinHandle<()>>,
}

/// Answers for one service in one family.
#[derive(Debug)]
struct ServiceHealth {
    place: Place,
    monitor: Monitor,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    service: ServiceName<'a>,
    local_endpoints: usize,
    service_proxy_healthy: bool,
}

#[derive(Debug, Serialize)]
struct ServiceName<'a> {
    namespace: &'a str,
    name: &'a str,
}

// === impl NodePorts ===

impl NodePorts {
    pub(super) fn new(
        current: watch::Receiver<Arc<Current>>,
        monitor: Monitor,
        status: watch::Receiver<Arc<Status>>,
    ) -> Self {
        Self {
            current,
            monitor,
            status,
            open: BTreeMap::new(),
            room: Room::new(NODE_PORTS),
            failed: BTreeMap::new(),
            addresses: BTreeMap::new(),
        }
    }

    /// Follows the status, for ever.
    pub(super) async fn run(mut self) {
        let mut current = self.current.clone();
        loop {
            let status = self.status.borrow_and_update().clone();
            self.update(&status).await;
            tokio::select! {
                changed = self.status.changed() => {
                    if changed.is_err() {
                        // The loop has ended, and soon the process.
                        return std::future::pending().await;
                    }
                }
                // The addresses may be others. Without a sender the configuration is what it is.
                Ok(()) = current.changed() => {}
                () = tokio::time::sleep(LISTEN_AGAIN), if !self.failed.is_empty() => {}
            }
        }
    }

    /// Closes what is no longer wanted, then opens what is new.
    async fn update(&mut self, status: &Status) {
        self.resolve(status);
        let wanted = self.wanted(status);
        self.failed.retain(|place, _| wanted.contains_key(place));
        let stale = |place: &Place, open: &mut Open| wanted.get(place) != Some(&open.sockets);
        for (_, open) in self.open.extract_if(.., stale) {
            open.close().await;
        }
        for (place, sockets) in wanted {
            if self.open.contains_key(&place) {
                continue;
            }
            match sockets.listen() {
                Ok(listeners) => {
                    let handler =
                        ServiceHealth { place: place.clone(), monitor: self.monitor.clone() };
                    self.failed.remove(&place);
                    self.open.insert(place, Open::new(sockets, listeners, handler, &self.room));
                }
                Err(error) => self.complain(place, sockets.port, error.to_string()),
            }
        }
    }

    fn config(&self) -> Arc<Config> {
        self.current.borrow().config.clone()
    }

    fn resolve(&mut self, status: &Status) {
        let config = self.config();
        let node = node_ips(config.bind_address, &status.node_addresses);
        // Those of the loopback interface are on every host, and are not in the list.
        let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()];
        let host: Vec<IpAddr> = status.host_addresses.iter().copied().chain(loopback).collect();
        for family in status.families.keys() {
            let ips = health_check_ips(&config.node_port_addresses, &node, &host, *family);
            let before = self.addresses.insert(*family, ips);
            let now = &self.addresses[family];
            if now.is_empty() && before.as_ref() != Some(now) {
                warn!(
                    %family,
                    "nodePortAddresses match no address of this node: no health check node port is \
                     served in this family"
                );
            }
        }
    }

    fn wanted(&self, status: &Status) -> BTreeMap<Place, Sockets> {
        let mut wanted = BTreeMap::new();
        for (key, health) in status.health.iter() {
            for (family, _) in &health.local_endpoints {
                let addresses = self.addresses.get(family).cloned().unwrap_or_default();
                if !addresses.is_empty() {
                    let sockets = Sockets { port: health.port, addresses };
                    wanted.insert((key.clone(), *family), sockets);
                }
            }
        }
        wanted
    }

    fn complain(&mut self, place: Place, port: u16, error: String) {
        if self.failed.get(&place) != Some(&error) {
            let (service, family) = &place;
            warn!(
                %service, port, %family, error, again_in = ?LISTEN_AGAIN,
                "node {} failed to start the health check of a service", self.config().node_name
            );
            self.failed.insert(place, error);
        }
    }
}

// === impl Sockets ===

impl Sockets {
    /// All of them, or none.
    fn listen(&self) -> std::io::Result<Vec<TcpListener>> {
        let sockets = self.addresses.iter().map(|ip| SocketAddr::new(*ip, self.port));
        sockets.map(|address| server::listen(address, true)).collect()
    }
}

// === impl Open ===

impl Open {
    fn new(
        sockets: Sockets,
        listeners: Vec<TcpListener>,
        handler: ServiceHealth,
        room: &Room,
    ) -> Self {
        let handler = Arc::new(handler);
        let serve = |listener| {
            let (handler, room) = (handler.clone(), room.clone());
            tokio::spawn(async move {
                server::serve_in(listener, handler, NODE_PORT, &room).await;
            })
        };
        Self { sockets, tasks: listeners.into_iter().map(serve).collect() }
    }

    /// Returns when the port is free.
    async fn close(mut self) {
        for task in std::mem::take(&mut self.tasks) {
            task.abort();
            // That it was aborted is known.
            let _ = task.await;
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

// === impl ServiceHealth ===

impl Handler for ServiceHealth {
    async fn answer(&self, _: &Request<Incoming>) -> Response {
        let status = self.monitor.status();
        let (key, family) = &self.place;
        let of_family = |health: &crate::dataplane::Health| {
            health.local_endpoints.iter().find(|(of, _)| of == family).map(|(_, count)| *count)
        };
        let local_endpoints = status.health.get(key).and_then(of_family).unwrap_or(0);
        let healthy = self.monitor.verdict(&status).healthy();
        let code = if local_endpoints > 0 && healthy {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        let mut answer = response(code, JSON, body(key, local_endpoints, healthy));
        answer.headers_mut().insert(WEIGHT, local_endpoints.into());
        answer
    }
}

fn body(key: &ObjectKey, local_endpoints: usize, service_proxy_healthy: bool) -> Vec<u8> {
    let service = ServiceName { namespace: key.namespace(), name: key.name() };
    let body = Body { service, local_endpoints, service_proxy_healthy };
    let mut text = Vec::new();
    let mut out = Serializer::with_formatter(&mut text, PrettyFormatter::with_indent(b"\t"));
    // Writing to memory does not fail, nor has the body anything that is not JSON.
    let _ = body.serialize(&mut out);
    text
}
