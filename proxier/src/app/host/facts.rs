//! What of the host makes Services time out without a trace, and the command that mends it.

use std::fs;
use std::path::Path;

use super::counting;
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

fn read(root: &Path, path: &str) -> Option<String> {
    Some(fs::read_to_string(root.join(path)).ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A root with these files.
    struct Root(std::path::PathBuf);

    impl Root {
        fn with(name: &str, files: &[(&str, &str)]) -> Self {
            let root =
                std::env::temp_dir().join(format!("proxier-facts-{name}-{}", std::process::id()));
            for (path, text) in files {
                let path = root.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            Self(root)
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

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
