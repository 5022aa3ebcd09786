//! What kube-proxy's iptables mode has in place, read from what `iptables-save` prints.

use std::net::IpAddr;

use netlink_ipvs::{Protocol, VirtualServerKey};

use super::save;
use crate::dataplane::hand_over::Served;

/// Notes what there is in one family; nothing where packets do not come to it.
pub fn note_served(save_text: &str, served: &mut Served) {
    let jumps = |from: &str| {
        save::lines(save_text).any(|line| {
            let to = line.spec.and_then(save::target);
            line.table == "nat" && line.chain == from && to.as_deref() == Some("KUBE-SERVICES")
        })
    };
    if !jumps("PREROUTING") || !jumps("OUTPUT") {
        return;
    }
    for line in save::lines(save_text) {
        let Some(rule) = line.spec.map(Rule::read) else { continue };
        let refuses = matches!(rule.target.as_str(), "REJECT" | "DROP");
        let leads = ["KUBE-SVC-", "KUBE-SVL-", "KUBE-EXT-", "KUBE-FW-"];
        let leads = leads.iter().any(|prefix| rule.target.starts_with(prefix));
        let counts = match (line.table, line.chain) {
            ("nat", "KUBE-SERVICES" | "KUBE-NODEPORTS") => leads,
            // Without endpoints.
            ("filter", "KUBE-SERVICES" | "KUBE-EXTERNAL-SERVICES") => refuses,
            _ => false,
        };
        let Some((protocol, port)) = rule.protocol.zip(rule.port).filter(|_| counts) else {
            continue;
        };
        match rule.destination {
            // A node port has a network at most, and no address.
            Some(address) => {
                let key = VirtualServerKey::new(address, port, protocol);
                served.addresses.insert(key);
            }
            None => _ = served.node_ports.insert((protocol, port)),
        }
    }
}

/// What matters of a rule.
#[derive(Debug, Default)]
struct Rule {
    destination: Option<IpAddr>,
    protocol: Option<Protocol>,
    port: Option<u16>,
    target: String,
}

impl Rule {
    fn read(spec: &str) -> Self {
        let mut rule = Self::default();
        let mut words = save::words(spec).into_iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                // Its words may be anything.
                "--comment" => _ = words.next(),
                "-d" => rule.destination = words.next().and_then(|net| host(&net)),
                "-p" => rule.protocol = words.next().and_then(|name| protocol(&name)),
                "--dport" => rule.port = words.next().and_then(|port| port.parse().ok()),
                "-j" | "-g" => rule.target = words.next().unwrap_or_default(),
                _ => {}
            }
        }
        rule
    }
}

/// The address of a network of one.
fn host(net: &str) -> Option<IpAddr> {
    let (address, length) = net.split_once('/').unwrap_or((net, ""));
    let address: IpAddr = address.parse().ok()?;
    let whole = if address.is_ipv4() { "32" } else { "128" };
    (length.is_empty() || length == whole).then_some(address)
}

fn protocol(name: &str) -> Option<Protocol> {
    match name {
        "tcp" | "6" => Some(Protocol::Tcp),
        "udp" | "17" => Some(Protocol::Udp),
        "sctp" | "132" => Some(Protocol::Sctp),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `iptables-save` prints what kube-proxy 1.36 writes in iptables mode.
    const SAVED: &str = r#"*filter
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-SERVICES - [0:0]
-A KUBE-SERVICES -d 10.96.0.3/32 -p tcp -m comment --comment "default/none has no endpoints -d 10.9.9.9/32" -m tcp --dport 80 -j REJECT --reject-with icmp-port-unreachable
-A KUBE-EXTERNAL-SERVICES -p tcp -m comment --comment "default/none has no endpoints" -m addrtype --dst-type LOCAL -m tcp --dport 30003 -j REJECT --reject-with icmp-port-unreachable
-A KUBE-FORWARD -d 10.96.0.4/32 -p tcp -m tcp --dport 80 -j DROP
COMMIT
*nat
:KUBE-SERVICES - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A KUBE-NODEPORTS -p tcp -m comment --comment "default/web" -m tcp --dport 30080 -j KUBE-EXT-WEB
-A KUBE-NODEPORTS -d 127.0.0.0/8 -p tcp -m comment --comment "default/web" -m nfacct --nfacct-name localhost_nps_accepted_pkts -j RETURN
-A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m comment --comment "default/web cluster IP" -m tcp --dport 80 -j KUBE-SVC-WEB
-A KUBE-SERVICES -d 203.0.113.1/32 -p udp -m comment --comment "default/dns loadbalancer IP" -m udp --dport 53 -j KUBE-EXT-DNS
-A KUBE-SERVICES -m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A KUBE-SVC-WEB ! -s 10.244.0.0/16 -d 10.96.0.1/32 -p tcp -m tcp --dport 81 -j KUBE-MARK-MASQ
COMMIT
"#;

    #[test]
    fn services_of_iptables_mode_are_known_by_its_rules() {
        let key =
            |ip: &str, port, protocol| VirtualServerKey::new(ip.parse().unwrap(), port, protocol);
        let mut served = Served::default();
        note_served(SAVED, &mut served);
        let addresses = [
            key("10.96.0.1", 80, Protocol::Tcp),
            key("10.96.0.3", 80, Protocol::Tcp),
            key("203.0.113.1", 53, Protocol::Udp),
        ];
        let node_ports = [(Protocol::Tcp, 30003), (Protocol::Tcp, 30080)];
        let wanted = Served { addresses: addresses.into(), node_ports: node_ports.into() };
        assert_eq!(served, wanted);
    }

    #[test]
    fn chains_to_which_no_packets_come_serve_nothing() {
        for jump in ["-A PREROUTING", "-A OUTPUT"] {
            let mut served = Served::default();
            note_served(&SAVED.replace(jump, "-A ELSEWHERE"), &mut served);
            assert_eq!(served, Served::default(), "without {jump}");
        }
    }
}
