//! What goes through Services and endpoints, by the kernel's counters.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use netlink_ipvs::{Connections, RealServerEntry, RealServerKey, Stats, VirtualServerEntry};
use serde::Serialize;

use crate::render::{Columns, Style};
use crate::text;

/// A virtual server as it was read, and whose it is.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Namespace and name of the Service; unknown for those of others.
    pub service: Option<(String, String)>,
    /// The virtual server with its counters.
    pub server: VirtualServerEntry,
    /// Its real servers with theirs.
    pub real_servers: Vec<RealServerEntry>,
}

/// What goes through a Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceLoad {
    /// Its namespace; null for a virtual server that is of no known Service.
    pub namespace: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// Its virtual servers.
    pub virtual_servers: Vec<String>,
    /// All of it.
    #[serde(flatten)]
    pub load: Load,
    /// Where it goes to.
    pub endpoints: Vec<EndpointLoad>,
}

/// What goes to an endpoint of a Service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointLoad {
    /// Where it listens.
    pub address: String,
    /// All of it.
    #[serde(flatten)]
    pub load: Load,
}

/// Connections, and what was counted of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Load {
    /// Established connections.
    pub active_connections: u64,
    /// Others that still have an entry (closing, or UDP).
    pub inactive_connections: u64,
    /// Null where IPVS does not count.
    pub counters: Option<Counters>,
}

/// Counts since the virtual server was made, and rates that the kernel estimates every two seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counters {
    /// Connections that were scheduled.
    pub connections: u64,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
    /// Connections a second.
    pub connections_per_second: u64,
    /// Bytes from clients a second.
    pub bytes_in_per_second: u64,
    /// Bytes to clients a second.
    pub bytes_out_per_second: u64,
}

/// By Service and endpoint, the busiest first. `counts` is whether the kernel counts at all.
pub fn loads(measured: &[Measured], counts: bool) -> Vec<ServiceLoad> {
    let mut services: BTreeMap<Whose<'_>, Sum> = BTreeMap::new();
    for it in measured {
        let server = it.server.server.key.to_string();
        let alone = if it.service.is_some() { String::new() } else { server.clone() };
        let sum = services.entry((it.service.as_ref(), alone)).or_default();
        sum.virtual_servers.push(server);
        sum.load.count(&it.server.stats, counts);
        for real in &it.real_servers {
            let endpoint = sum.endpoints.entry(real.server.key).or_default();
            for load in [&mut sum.load, endpoint] {
                load.connect(real.connections);
            }
            endpoint.count(&real.stats, counts);
        }
    }
    let mut loads: Vec<ServiceLoad> = services
        .into_iter()
        .map(|((service, _), sum)| ServiceLoad {
            namespace: service.map(|(namespace, _)| namespace.clone()),
            name: service.map(|(_, name)| name.clone()),
            virtual_servers: sum.virtual_servers,
            load: sum.load,
            endpoints: busiest_first(sum.endpoints),
        })
        .collect();
    loads.sort_by_key(|service| Reverse(service.load.rank()));
    loads
}

/// A Service, or a virtual server that is of none.
type Whose<'a> = (Option<&'a (String, String)>, String);

#[derive(Default)]
struct Sum {
    virtual_servers: Vec<String>,
    load: Load,
    endpoints: BTreeMap<RealServerKey, Load>,
}

fn busiest_first(endpoints: BTreeMap<RealServerKey, Load>) -> Vec<EndpointLoad> {
    let mut all: Vec<EndpointLoad> = endpoints
        .into_iter()
        .map(|(key, load)| EndpointLoad { address: key.to_string(), load })
        .collect();
    all.sort_by_key(|endpoint| Reverse(endpoint.load.rank()));
    all
}

/// For people: a line for each Service, its endpoints below it, and before them the sum.
pub fn load_table(services: &[ServiceLoad], style: Style) -> String {
    let mut columns = Columns::new(vec![
        "SERVICE / ENDPOINT",
        "  ACTIVE",
        "INACTIVE",
        "  CONN/S",
        "      IN/S",
        "     OUT/S",
    ]);
    for service in services {
        columns.push(cells(service.title(), service.load), false);
        for endpoint in &service.endpoints {
            columns.push(cells(format!("  {}", endpoint.address), endpoint.load), false);
        }
    }
    columns.text(style)
}

/// All of them together, in a line.
pub fn total(services: &[ServiceLoad]) -> String {
    let mut sum = Load::default();
    for Load { active_connections, inactive_connections, counters } in
        services.iter().map(|it| it.load)
    {
        sum.active_connections += active_connections;
        sum.inactive_connections += inactive_connections;
        if let Some(counters) = counters {
            sum.counters.get_or_insert_default().add(&counters);
        }
    }
    let rates = sum.counters.map(|it| {
        format!(
            ", {} connections/s, {}/s in, {}/s out",
            it.connections_per_second,
            text::bytes(it.bytes_in_per_second),
            text::bytes(it.bytes_out_per_second)
        )
    });
    let connections = text::count(sum.active_connections as usize, "active connection");
    format!("{connections}{}", rates.unwrap_or_default())
}

fn cells(title: String, load: Load) -> Vec<String> {
    let rate = |of: fn(&Counters) -> String| load.counters.as_ref().map_or("-".to_owned(), of);
    vec![
        title,
        format!("{:>8}", load.active_connections),
        format!("{:>8}", load.inactive_connections),
        format!("{:>8}", rate(|it| it.connections_per_second.to_string())),
        format!("{:>10}", rate(|it| text::bytes(it.bytes_in_per_second))),
        format!("{:>10}", rate(|it| text::bytes(it.bytes_out_per_second))),
    ]
}

impl ServiceLoad {
    /// `namespace/name`, or the virtual server.
    fn title(&self) -> String {
        match (&self.namespace, &self.name) {
            (Some(namespace), Some(name)) => format!("{namespace}/{name}"),
            _ => self.virtual_servers.join(" "),
        }
    }
}

impl Load {
    fn connect(&mut self, connections: Connections) {
        self.active_connections += u64::from(connections.active);
        self.inactive_connections += u64::from(connections.inactive);
    }

    fn count(&mut self, stats: &Stats, counts: bool) {
        if counts {
            self.counters.get_or_insert_default().add(&Counters::from(stats));
        }
    }

    /// The more, the busier.
    fn rank(&self) -> (u64, u64, u64) {
        let counters = self.counters.unwrap_or_default();
        (
            counters.bytes_in_per_second.saturating_add(counters.bytes_out_per_second),
            counters.connections_per_second,
            self.active_connections,
        )
    }
}

impl Counters {
    fn add(&mut self, other: &Self) {
        for (sum, more) in [
            (&mut self.connections, other.connections),
            (&mut self.bytes_in, other.bytes_in),
            (&mut self.bytes_out, other.bytes_out),
            (&mut self.connections_per_second, other.connections_per_second),
            (&mut self.bytes_in_per_second, other.bytes_in_per_second),
            (&mut self.bytes_out_per_second, other.bytes_out_per_second),
        ] {
            *sum = sum.saturating_add(more);
        }
    }
}

impl From<&Stats> for Counters {
    fn from(stats: &Stats) -> Self {
        Self {
            connections: stats.connections,
            bytes_in: stats.bytes_in,
            bytes_out: stats.bytes_out,
            connections_per_second: stats.connection_rate,
            bytes_in_per_second: stats.byte_rate_in,
            bytes_out_per_second: stats.byte_rate_out,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use netlink_ipvs::{
        Family, Protocol, RealServer, RealServerConfig, Scheduler, VirtualServer,
        VirtualServerConfig, VirtualServerKey,
    };

    use super::*;

    fn ip(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, last).into()
    }

    /// With as many connections as its rates.
    fn measured(service: Option<&str>, port: u16, endpoints: &[(u8, u64)]) -> Measured {
        let stats = |rate| {
            let mut stats = Stats::default();
            (stats.connections, stats.bytes_in, stats.bytes_out) = (rate, rate * 10, rate * 20);
            (stats.connection_rate, stats.byte_rate_in, stats.byte_rate_out) =
                (rate, rate * 100, rate * 1000);
            stats
        };
        let real = |&(last, rate): &(u8, u64)| {
            let key = RealServerKey::new(ip(last), 8080);
            let mut entry =
                RealServerEntry::from(RealServer { key, config: RealServerConfig::masquerade(1) });
            entry.stats = stats(rate);
            entry.connections.active = 1;
            entry
        };
        let key = VirtualServerKey::new(ip(0), port, Protocol::Tcp);
        let mut server = VirtualServerEntry::from(VirtualServer {
            key,
            config: VirtualServerConfig::new(Scheduler::RR, Family::Ipv4),
        });
        server.stats = stats(endpoints.iter().map(|(_, rate)| rate).sum());
        Measured {
            service: service.map(|name| ("ns".to_owned(), name.to_owned())),
            server,
            real_servers: endpoints.iter().map(real).collect(),
        }
    }

    const STYLE: Style = Style { width: 80, colour: false };

    #[test]
    fn virtual_servers_of_a_service_are_summed_and_the_busiest_is_first() {
        let all = [
            measured(Some("idle"), 80, &[(1, 0)]),
            measured(Some("busy"), 81, &[(1, 1), (2, 2)]),
            measured(None, 82, &[(9, 2)]),
            measured(Some("busy"), 83, &[(1, 4)]),
        ];
        let loads = loads(&all, true);
        let text = load_table(&loads, STYLE);
        assert_eq!(
            text,
            "SERVICE / ENDPOINT    ACTIVE  INACTIVE    CONN/S        IN/S       OUT/S\n\
             ns/busy                    3         0         7       700 B     6.8 KiB\n\
             \x20 10.0.0.1:8080            2         0         5       500 B     4.8 KiB\n\
             \x20 10.0.0.2:8080            1         0         2       200 B     1.9 KiB\n\
             10.0.0.0:82/tcp            1         0         2       200 B     1.9 KiB\n\
             \x20 10.0.0.9:8080            1         0         2       200 B     1.9 KiB\n\
             ns/idle                    1         0         0         0 B         0 B\n\
             \x20 10.0.0.1:8080            1         0         0         0 B         0 B\n"
        );
        assert_eq!(
            total(&loads),
            "5 active connections, 9 connections/s, 900 B/s in, 8.7 KiB/s out"
        );
    }

    #[test]
    fn what_is_not_counted_is_not_said_to_be_nothing() {
        let loads = loads(&[measured(Some("web"), 80, &[(1, 0)])], false);
        assert_eq!(loads[0].load.counters, None);
        assert_eq!(loads[0].endpoints[0].load.counters, None);
        let line = load_table(&loads, STYLE).lines().nth(1).map(str::to_owned);
        assert_eq!(line.map(|line| line.matches(" -").count()), Some(3));
        assert_eq!(total(&loads), "1 active connection");
    }
}
