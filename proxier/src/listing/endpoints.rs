//! Endpoints.

use serde::Serialize;

use super::{Row, place};
use crate::explain::ServiceAccount;

/// An endpoint of one port of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointRow {
    /// Namespace of the Service.
    pub namespace: String,
    /// Its name.
    pub service: String,
    /// Its port: `http`, or `80/tcp` without a name.
    pub port: String,
    /// Where the endpoint listens.
    pub address: String,
    /// The pod that it is, where its EndpointSlice says so.
    pub pod: Option<String>,
    /// Its node.
    pub node: Option<String>,
    /// Its zone.
    pub zone: Option<String>,
    /// Whether it is on this node.
    pub local: bool,
    /// `ready`, `terminating` or `not ready`
    pub state: &'static str,
    /// Whether new connections through this node may reach it.
    pub used: bool,
    /// The same in words, with the reason.
    pub verdict: String,
}

/// One row for each endpoint of each port.
pub fn endpoints(all: &[ServiceAccount]) -> Vec<EndpointRow> {
    let mut rows = Vec::new();
    for service in all {
        for (port, family) in service.families() {
            rows.extend(family.endpoints.iter().map(|it| {
                let (namespace, service) = place(service);
                EndpointRow {
                    namespace,
                    service,
                    port: match port.name.as_str() {
                        "" => format!("{}/{}", port.port, port.protocol),
                        name => name.to_owned(),
                    },
                    address: it.address.clone(),
                    pod: it.pod.clone(),
                    node: it.node.clone(),
                    zone: it.zone.clone(),
                    local: it.local,
                    state: it.state,
                    used: it.used,
                    verdict: it.verdict.clone(),
                }
            }));
        }
    }
    rows
}

impl Row for EndpointRow {
    const NAME: &'static str = "endpoints";
    const HEADERS: &'static [&'static str] =
        &["NAMESPACE", "SERVICE", "PORT", "ADDRESS", "NODE", "WHERE", "STATE"];
    const WIDE: &'static [&'static str] = &["ZONE", "POD"];
    const LAST: &'static str = "VERDICT";

    fn cells(&self) -> Vec<String> {
        let place = if self.local { "local" } else { "remote" };
        [
            &self.namespace,
            &self.service,
            &self.port,
            &self.address,
            self.node.as_deref().unwrap_or("-"),
            place,
            self.state,
        ]
        .map(str::to_owned)
        .to_vec()
    }

    fn wide(&self) -> Vec<String> {
        [&self.zone, &self.pod].map(|it| it.clone().unwrap_or("-".to_owned())).to_vec()
    }

    fn name(&self) -> String {
        self.address.clone()
    }

    fn problem(&self) -> Option<String> {
        (!self.used).then(|| self.verdict.clone())
    }

    fn last(&self) -> String {
        self.verdict.clone()
    }
}
