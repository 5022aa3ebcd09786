//! What of the host makes Services time out without a trace, and the command that mends it.

use std::collections::BTreeSet;
use std::fs;
use std::ops::RangeInclusive;
use std::path::Path;

use super::{counting, managers};
use crate::dataplane::INTERFACE;
use crate::http::NOT_COUNTED;

/// Everything that is wrong below this root (`/`), one sentence each. `ipv6` is whether there are IPv6
/// Services.
pub(in crate::app) fn find(root: &Path, ipv6: bool) -> Vec<String> {
    let mut found = Vec::new();
    found.extend(bridged(root));
    if ipv6 {
        found.extend(unforwarded(root));
    }
    found.extend(strict(root));
    found.extend(managers::find(root));
    found.extend(given_away(root));
    found.extend(almost_full(root));
    found.extend((!counting::is_on(root)).then(|| NOT_COUNTED.to_owned()));
    found
}

/// Whether an IPv6 address is bound: then there is an IPv6 Service.
pub(in crate::app) fn serves_ipv6(root: &Path) -> bool {
    let table = fs::read_to_string(root.join("proc/net/if_inet6")).unwrap_or_default();
    table.lines().any(|line| {
        // The fourth column is the scope: link-local addresses are nobody's Service.
        let words: Vec<&str> = line.split_whitespace().collect();
        words.last() == Some(&INTERFACE) && words.get(3) != Some(&"20")
    })
}

/// Pods on a bridge answer each other directly, past the node's address translation, unless the bridge
/// shows its frames to the firewall.
fn bridged(root: &Path) -> Option<String> {
    let links = fs::read_dir(root.join("sys/class/net")).ok()?.flatten();
    let mut bridges: Vec<String> = links
        .filter(|link| {
            fs::read_dir(link.path().join("brif")).is_ok_and(|mut it| it.next().is_some())
        })
        .filter_map(|link| link.file_name().into_string().ok())
        .collect();
    bridges.sort_unstable();
    if bridges.is_empty() {
        return None;
    }
    let setting = read(root, "proc/sys/net/bridge/bridge-nf-call-iptables");
    let (why, command) = match setting.as_deref() {
        Some("0") => (
            "net.bridge.bridge-nf-call-iptables is 0",
            "sysctl -w net.bridge.bridge-nf-call-iptables=1",
        ),
        Some(_) => return None,
        None => ("the module br_netfilter is not loaded", "modprobe br_netfilter"),
    };
    Some(format!(
        "{why}: where pods are on a bridge ({}), a pod that reaches another one of the same bridge through a \
         Service gets its answer from the wrong address and times out; run `{command}`, and see to it at \
         every boot",
        bridges.join(", ")
    ))
}

fn unforwarded(root: &Path) -> Option<String> {
    let setting = read(root, "proc/sys/net/ipv6/conf/all/forwarding")?;
    (setting == "0").then(|| {
        "net.ipv6.conf.all.forwarding is 0: connections to IPv6 Services from pods and from outside time out; \
         run `sysctl -w net.ipv6.conf.all.forwarding=1`, and see to it at every boot"
            .to_owned()
    })
}

/// How many connections are tracked.
pub(in crate::app) struct Tracked {
    count: u64,
    /// No more than this.
    pub(in crate::app) most: u64,
}

impl Tracked {
    /// A new connection is dropped.
    pub(in crate::app) const fn is_full(&self) -> bool {
        self.count >= self.most
    }

    /// It soon will be.
    const fn is_almost_full(&self) -> bool {
        self.count >= self.most / 10 * 9
    }
}

/// What conntrack says of itself. The most is the host's, and each network namespace has its own count.
pub(in crate::app) fn conntrack(root: &Path) -> Option<Tracked> {
    let number = |path| read(root, path)?.parse::<u64>().ok();
    let most = number("proc/sys/net/netfilter/nf_conntrack_max")?;
    let count = number("proc/sys/net/netfilter/nf_conntrack_count")?;
    // Zero is no limit.
    (most > 0).then_some(Tracked { count, most })
}

fn almost_full(root: &Path) -> Option<String> {
    let tracked = conntrack(root).filter(Tracked::is_almost_full)?;
    let Tracked { count, most } = tracked;
    let end =
        if tracked.is_full() { "are dropped" } else { "are dropped when they are all in use" };
    Some(format!(
        "{count} of {most} connections are tracked (net.netfilter.nf_conntrack_max): new ones {end}; run \
         `sysctl -w net.netfilter.nf_conntrack_max={}`, and set conntrack.maxPerCore",
        most * 2
    ))
}

/// The interfaces that take only packets from whom the node would send to there: the greater of an
/// interface's own `rp_filter` and that of all counts.
pub(in crate::app) fn strict_interfaces(root: &Path) -> BTreeSet<String> {
    let folder = "proc/sys/net/ipv4/conf";
    let value = |name: &str| -> u8 {
        let text = read(root, &format!("{folder}/{name}/rp_filter"));
        text.and_then(|text| text.parse().ok()).unwrap_or_default()
    };
    let all = value("all");
    let names = fs::read_dir(root.join(folder)).into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| value(name).max(all) == 1).collect()
}

/// A second network card that takes packets only from its own networks.
fn strict(root: &Path) -> Vec<String> {
    let table = fs::read_to_string(root.join("proc/net/route")).unwrap_or_default();
    let default = table.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let leads = words.get(1) == Some(&"00000000") && words.get(7) == Some(&"00000000");
        leads.then(|| words[0].to_owned())
    });
    let Some(default) = default else { return Vec::new() };
    let links = root.join("sys/class/net");
    let is_card = |name: &String| {
        let link = links.join(name);
        link.join("device").exists() || link.join("bonding").exists()
    };
    let others = strict_interfaces(root).into_iter().filter(|name| *name != default);
    others
        .filter(is_card)
        .map(|name| {
            format!(
                "rp_filter of {name} is 1, and the default route leads by {default}: packets of clients in \
                 other networks that come in by {name} are dropped; run \
                 `sysctl -w net.ipv4.conf.{name}.rp_filter=2`, and see to it at every boot"
            )
        })
        .collect()
}

/// The ports of the API server's flag `--service-node-port-range` unless it is given.
const NODE_PORTS: RangeInclusive<u16> = 30_000..=32_767;

/// The kernel gives ports of node ports to connections of the node's own.
fn given_away(root: &Path) -> Option<String> {
    let range = read(root, "proc/sys/net/ipv4/ip_local_port_range")?;
    let (first, last) = range.split_once(char::is_whitespace)?;
    let (first, last): (u16, u16) = (first.parse().ok()?, last.trim().parse().ok()?);
    let reserved = read(root, "proc/sys/net/ipv4/ip_local_reserved_ports").unwrap_or_default();
    let reserved = reserved.split(',').filter_map(|part| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        Some(from.parse::<u16>().ok()?..=to.parse::<u16>().ok()?)
    });
    let reserved: Vec<_> = reserved.collect();
    let is_given =
        |port: &u16| (first..=last).contains(port) && !reserved.iter().any(|it| it.contains(port));
    NODE_PORTS.into_iter().any(|port| is_given(&port)).then(|| {
        let (from, to) = (NODE_PORTS.start(), NODE_PORTS.end());
        format!(
            "net.ipv4.ip_local_port_range is {first} to {last}, and node ports are {from} to {to}: where a \
             connection of this node has the number of a node port, its answers may go to that Service; run \
             `sysctl -w net.ipv4.ip_local_reserved_ports={from}-{to}`, and see to it at every boot"
        )
    })
}

fn read(root: &Path, path: &str) -> Option<String> {
    Some(fs::read_to_string(root.join(path)).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::root::Root;
    use super::*;

    const BRIDGE: (&str, &str) = ("sys/class/net/cni0/brif/veth1/state", "3");
    const CALL: &str = "proc/sys/net/bridge/bridge-nf-call-iptables";
    const FORWARDING: &str = "proc/sys/net/ipv6/conf/all/forwarding";

    #[test]
    fn pods_on_a_bridge_need_br_netfilter() {
        let said = |name, files: &[_]| find(&Root::with(name, files).0, false);
        let text = said("no-module", &[BRIDGE]).concat();
        assert!(text.contains("`modprobe br_netfilter`") && text.contains("cni0"), "{text}");
        let text = said("off", &[BRIDGE, (CALL, "0\n")]).concat();
        assert!(text.contains("bridge-nf-call-iptables=1"), "{text}");
        assert!(said("on", &[BRIDGE, (CALL, "1\n")]).is_empty());
        assert!(said("no-bridge", &[("sys/class/net/eth0/mtu", "1500")]).is_empty());
    }

    #[test]
    fn counters_that_stay_0_are_told_of() {
        let said = |name, value: &str| {
            find(&Root::with(name, &[("proc/sys/net/ipv4/vs/run_estimation", value)]).0, false)
        };
        assert_eq!(said("not-counted", "0\n"), [NOT_COUNTED]);
        assert!(said("counted", "1\n").is_empty());
    }

    #[test]
    fn connections_that_cannot_be_tracked_are_told_of_before() {
        let said = |name, count: &str, most: &str| {
            let files = [
                ("proc/sys/net/netfilter/nf_conntrack_count", count),
                ("proc/sys/net/netfilter/nf_conntrack_max", most),
            ];
            find(&Root::with(name, &files).0, false).concat()
        };
        assert_eq!(said("tracked", "899\n", "1000\n"), "");
        assert_eq!(said("untracked", "899\n", "0\n"), "");
        let text = said("almost", "900\n", "1000\n");
        assert!(text.contains("900 of 1000") && text.contains("nf_conntrack_max=2000`"), "{text}");
        assert!(said("full", "1000\n", "1000\n").contains("new ones are dropped;"));
    }

    #[test]
    fn ports_of_node_ports_are_not_given_away() {
        const RESERVED: &str = "proc/sys/net/ipv4/ip_local_reserved_ports";
        let said = |name, range: &str, reserved: &str| {
            let files = [("proc/sys/net/ipv4/ip_local_port_range", range), (RESERVED, reserved)];
            find(&Root::with(name, &files).0, false).concat()
        };
        assert_eq!(said("ports", "32768\t60999\n", "\n"), "");
        assert_eq!(said("reserved", "1024\t65000\n", "22,30000-32767\n"), "");
        let text = said("given", "32767\t60999\n", "30000-32000\n");
        assert!(text.contains("ip_local_reserved_ports=30000-32767`"), "{text}");
    }

    #[test]
    fn a_second_card_has_clients_of_other_networks_too() {
        const CARD: &str = "sys/class/net/eth1/device/vendor";
        const ROUTES: (&str, &str) = (
            "proc/net/route",
            "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n\
             eth0\t00000000\t0102A8C0\t0003\t0\t0\t0\t00000000\n",
        );
        let said = |name, all: &str, own: &str, link: &str| {
            let files = [
                ROUTES,
                ("proc/sys/net/ipv4/conf/all/rp_filter", all),
                ("proc/sys/net/ipv4/conf/eth0/rp_filter", "1"),
                ("proc/sys/net/ipv4/conf/eth1/rp_filter", own),
                (link, ""),
            ];
            find(&Root::with(name, &files).0, false).concat()
        };
        let text = said("strict", "0", "1", CARD);
        assert!(text.contains("conf.eth1.rp_filter=2`") && !text.contains("of eth0 is"), "{text}");
        assert!(said("strict-all", "1", "0", CARD).contains("eth1"));
        assert_eq!(said("loose", "1", "2", CARD), "");
        assert_eq!(said("pods", "0", "1", "sys/class/net/eth1/mtu"), "");
    }

    #[test]
    fn ipv6_services_need_forwarding() {
        let files = [
            (FORWARDING, "0\n"),
            ("proc/net/if_inet6", "fd000010009600000000000000000001 03 80 00 80 kube-ipvs0\n"),
        ];
        let root = Root::with("ipv6", &files);
        assert!(serves_ipv6(&root.0));
        assert!(find(&root.0, true).concat().contains("net.ipv6.conf.all.forwarding=1"));
        assert!(find(&root.0, false).is_empty());
        let link_local = "fe800000000000000000000000000001 03 40 20 80 kube-ipvs0\n";
        let root = Root::with("ipv6-on", &[(FORWARDING, "1"), ("proc/net/if_inet6", link_local)]);
        assert!(!serves_ipv6(&root.0) && find(&root.0, true).is_empty());
    }
}
