//! Virtual servers.

use std::collections::BTreeMap;

use netlink_ipvs::VirtualServerKey;
use serde::Serialize;

use super::{Counts, Held, Row, list, place, problem};
use crate::explain::{EndpointAccount, FrontendAccount, ServiceAccount};

/// A virtual server that a Service asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VirtualServerRow {
    /// Where it listens.
    pub virtual_server: String,
    /// The same as the kernel has it.
    #[serde(skip)]
    pub key: VirtualServerKey,
    /// `cluster IP`
    pub kind: String,
    /// Namespace of the Service.
    pub namespace: String,
    /// Its name.
    pub service: String,
    /// How connections are distributed.
    pub scheduler: String,
    /// Where they go to.
    pub real_servers: Vec<String>,
    /// The same by where these are.
    pub endpoints: Counts,
    /// Why somebody has to look at it.
    pub problem: Option<String>,
}

/// One row for each that any of them asks for. Of those by mark the ones that the kernel has: `marked` names
/// an address of each.
pub fn virtual_servers(
    all: &[ServiceAccount],
    held: &[Held],
    marked: &BTreeMap<VirtualServerKey, VirtualServerKey>,
) -> Vec<VirtualServerRow> {
    let marks: BTreeMap<_, _> = marked.iter().map(|(mark, address)| (address, *mark)).collect();
    let mut rows = Vec::new();
    for service in all {
        for (_, family) in service.families() {
            let endpoints: BTreeMap<&str, &EndpointAccount> =
                family.endpoints.iter().map(|it| (it.address.as_str(), it)).collect();
            let mark = family.frontends.iter().find_map(|it| marks.get(&it.virtual_server));
            let inside = family.inside.clone().zip(mark);
            let inside = inside.map(|(it, mark)| FrontendAccount { virtual_server: *mark, ..it });
            rows.extend(family.frontends.iter().chain(&inside).map(|frontend| {
                let servers = frontend.real_servers.iter();
                let led_to = servers.filter_map(|address| endpoints.get(address.as_str()));
                let (namespace, service) = place(service);
                VirtualServerRow {
                    virtual_server: frontend.virtual_server.to_string(),
                    key: frontend.virtual_server,
                    kind: frontend.kind.clone(),
                    namespace,
                    service,
                    scheduler: frontend.scheduler.clone(),
                    real_servers: frontend.real_servers.clone(),
                    endpoints: Counts::of(led_to.copied()),
                    problem: problem(frontend, held),
                }
            }));
        }
    }
    rows
}

impl Row for VirtualServerRow {
    const NAME: &'static str = "virtualServers";
    const HEADERS: &'static [&'static str] =
        &["NAMESPACE", "SERVICE", "VIRTUAL-SERVER", "KIND", "SCHEDULER", "LOCAL", "REMOTE"];
    const WIDE: &'static [&'static str] = &["REAL-SERVERS"];

    fn cells(&self) -> Vec<String> {
        let words =
            [&self.namespace, &self.service, &self.virtual_server, &self.kind, &self.scheduler];
        words.into_iter().cloned().chain(self.endpoints.cells()).collect()
    }

    fn wide(&self) -> Vec<String> {
        vec![list(&self.real_servers)]
    }

    fn name(&self) -> String {
        // By its mark nobody knows it.
        if matches!(self.key, VirtualServerKey::FirewallMark { .. }) {
            return format!("{}/{}", self.namespace, self.service);
        }
        self.virtual_server.clone()
    }

    fn problem(&self) -> Option<String> {
        self.problem.clone()
    }
}
