//! Services.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Serialize;

use super::{Counts, Held, Row, list, place, problem};
use crate::explain::{EndpointAccount, FrontendAccount, PortAccount, ServiceAccount};
use crate::text;

/// A Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceRow {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its cluster IPs.
    pub cluster_ips: Vec<String>,
    /// Its external and load balancer IPs.
    pub external_ips: Vec<String>,
    /// `80/tcp`, or `80:30080/tcp` with its node port.
    pub ports: Vec<String>,
    /// Its endpoints by where they are. One that is used by any port counts as used.
    pub endpoints: Counts,
    /// How connections are distributed; several where its virtual servers differ.
    pub schedulers: Vec<String>,
    /// `internalTrafficPolicy` and `externalTrafficPolicy`, where they are Local.
    pub local_policies: Vec<&'static str>,
    /// What somebody has to look at.
    pub problems: Vec<String>,
}

/// One row for each.
pub fn services(all: &[ServiceAccount], held: &[Held]) -> Vec<ServiceRow> {
    all.iter().map(|service| row(service, held)).collect()
}

fn row(service: &ServiceAccount, held: &[Held]) -> ServiceRow {
    let (namespace, name) = place(service);
    let policies = [
        (service.internal_traffic_policy_local, "internalTrafficPolicy"),
        (service.external_traffic_policy_local, "externalTrafficPolicy"),
    ];
    let mut schedulers: Vec<String> = service.frontends().map(|it| it.scheduler.clone()).collect();
    schedulers.sort_unstable();
    schedulers.dedup();
    let problems = service.frontends().filter_map(|frontend| problem(frontend, held));
    let skipped =
        service.skipped.iter().map(|it| format!("{} is left out: {}", it.what, it.reason));
    ServiceRow {
        cluster_ips: addresses(service, &["cluster IP"]),
        external_ips: addresses(service, &["external IP", "load balancer IP"]),
        ports: service.ports.iter().map(port).collect(),
        endpoints: Counts::of(endpoints(service).into_values()),
        schedulers,
        local_policies: policies.iter().filter(|(is, _)| *is).map(|(_, name)| *name).collect(),
        problems: problems
            .chain(skipped)
            .chain(service.rejected_settings.iter().cloned())
            .collect(),
        namespace,
        name,
    }
}

/// By IP address: a pod with several ports is one.
fn endpoints(service: &ServiceAccount) -> BTreeMap<IpAddr, &EndpointAccount> {
    let mut all: BTreeMap<IpAddr, &EndpointAccount> = BTreeMap::new();
    for endpoint in service.families().flat_map(|(_, family)| &family.endpoints) {
        let known = all.entry(endpoint.ip).or_insert(endpoint);
        if endpoint.used {
            *known = endpoint;
        }
    }
    all
}

fn addresses(service: &ServiceAccount, kinds: &[&str]) -> Vec<String> {
    let of = service.frontends().filter(|frontend| kinds.contains(&&*frontend.kind));
    let mut all: Vec<_> = of.filter_map(FrontendAccount::address).collect();
    all.sort_unstable();
    all.dedup();
    all.iter().map(ToString::to_string).collect()
}

fn port(port: &PortAccount) -> String {
    match port.node_port {
        Some(node_port) => format!("{}:{node_port}/{}", port.port, port.protocol),
        None => format!("{}/{}", port.port, port.protocol),
    }
}

impl Row for ServiceRow {
    const NAME: &'static str = "services";
    const HEADERS: &'static [&'static str] =
        &["NAMESPACE", "NAME", "CLUSTER-IP", "EXTERNAL-IP", "PORTS", "LOCAL", "REMOTE", "UNUSED"];
    const WIDE: &'static [&'static str] = &["SCHEDULER", "LOCAL-POLICY"];

    fn cells(&self) -> Vec<String> {
        let mut cells = vec![self.namespace.clone(), self.name.clone()];
        cells.extend([&self.cluster_ips, &self.external_ips, &self.ports].map(|of| list(of)));
        cells.extend(self.endpoints.cells());
        cells.push(self.endpoints.unused.to_string());
        cells
    }

    fn wide(&self) -> Vec<String> {
        let policies: Vec<String> = self
            .local_policies
            .iter()
            .map(|name| name.trim_end_matches("TrafficPolicy").to_owned())
            .collect();
        vec![list(&self.schedulers), list(&policies)]
    }

    fn name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    fn problem(&self) -> Option<String> {
        let first = self.problems.first()?;
        Some(text::and_more(first, self.problems.len() - 1))
    }
}
