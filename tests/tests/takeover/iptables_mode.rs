//! From kube-proxy in iptables mode: its rules do the work until everything else is there.

use std::fmt::Write as _;

use super::*;

/// The rules of iptables mode for the service, as kube-proxy writes them, in one family: balanced over
/// two endpoints, and a service without endpoints refused.
fn rules(vips: &[&str], endpoints: [&str; 2], refused: &str) -> String {
    let colon = endpoints[0].contains(':');
    let (length, unreachable) =
        if colon { (128, "icmp6-port-unreachable") } else { (32, "icmp-port-unreachable") };
    let mut nat = String::new();
    for vip in vips {
        let _ = writeln!(
            nat,
            "-A KUBE-SERVICES -d {vip}/{length} -p tcp -m comment --comment \"default/web cluster IP\" \
             -m tcp --dport 80 -j KUBE-SVC-WEB"
        );
    }
    for (name, endpoint) in ["KUBE-SEP-A", "KUBE-SEP-B"].into_iter().zip(endpoints) {
        let half = "-m statistic --mode random --probability 0.5 ";
        let half = if name.ends_with('A') { half } else { "" };
        let to = if colon { format!("[{endpoint}]:8080") } else { format!("{endpoint}:8080") };
        let _ = writeln!(
            nat,
            "-A KUBE-SVC-WEB {half}-j {name}
             -A {name} -s {endpoint}/{length} -j KUBE-MARK-MASQ
             -A {name} -p tcp -m tcp -j DNAT --to-destination {to}"
        );
    }
    let portals = "-m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES";
    format!(
        "*filter
         :KUBE-FORWARD - [0:0]\n:KUBE-SERVICES - [0:0]\n:KUBE-PROXY-CANARY - [0:0]
         -A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD
         -A FORWARD -m conntrack --ctstate NEW {portals}
         -A OUTPUT -m conntrack --ctstate NEW {portals}
         -A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
         -A KUBE-SERVICES -d {refused}/{length} -p tcp -m tcp --dport 80 -j REJECT --reject-with {unreachable}
         COMMIT
         *nat
         :KUBE-SERVICES - [0:0]\n:KUBE-SVC-WEB - [0:0]\n:KUBE-SEP-A - [0:0]\n:KUBE-SEP-B - [0:0]
         :KUBE-MARK-MASQ - [0:0]\n:KUBE-POSTROUTING - [0:0]\n:KUBE-PROXY-CANARY - [0:0]
         -A PREROUTING {portals}
         -A OUTPUT {portals}
         -A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING
         -A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
         {nat}COMMIT\n"
    )
    .lines()
    .map(|line| line.trim_start().to_owned() + "\n")
    .collect()
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn no_connection_is_lost_on_the_way_from_iptables_mode() {
    from_iptables_mode().unwrap();
}

fn from_iptables_mode() -> Result<()> {
    require_test_kernel()?;
    let scenario = Scenario::load("dual-stack-service")?;
    let [space, client, pod, other] = build(&scenario, PODS)?;
    let _servers = serve([&pod, &other])?;
    let of = |colon| VIPS.into_iter().filter(move |vip| vip.contains(':') == colon);
    let v4 = rules(&of(false).collect::<Vec<_>>(), PODS.map(|(_, v4, _)| v4), "10.96.42.9");
    let v6 = rules(&of(true).collect::<Vec<_>>(), PODS.map(|(.., v6)| v6), "fd00:10:96::4209");
    space.sh(&format!(
        "iptables-restore --noflush <<'END'\n{v4}END\nip6tables-restore --noflush <<'END'\n{v6}END"
    ))?;
    let mut node = Node::with(&space, &scenario.steps[0])?;
    let begin = Instant::now();
    let mut traffic = Traffic::start(&client, &VIPS, 100, 100)?;
    traffic.goes_on("by the rules of iptables mode")?;

    let operations = node.start(&program("proxier")?)?;
    let at = |text: &str| {
        let found = operations.iter().position(|operation| operation.contains(text));
        found.with_context(|| format!("no {text:?} in {operations:#?}"))
    };
    for family in ["IPv4", "IPv6"] {
        let installed = at(&format!("install {family} firewall rules"))?;
        let removed = at(&format!("remove {family} rules of kube-proxy's iptables mode"))?;
        let bound = operations.iter().rposition(|operation| operation.starts_with("bind "));
        ensure!(
            bound < Some(installed) && installed < removed,
            "in another order: {operations:#?}"
        );
    }
    node.is_as_left("taken over from iptables mode")?;
    traffic.goes_on("taken over")?;
    node.stop()?;
    let operations = node.start(&program("proxier")?)?;
    ensure!(operations.is_empty(), "restarted with {operations:#?}");
    let took = begin.elapsed().as_secs_f64();
    let (made, kept) = traffic.end()?;
    figure(&format!(
        "from iptables mode: {kept} connections kept, {made} new ones in {took:.1} s ({:.0} a second), \
         0 failed; nothing of it is left",
        f64::from(made) / took,
    ));
    Ok(())
}
