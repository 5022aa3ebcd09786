//! From kube-proxy in iptables or nftables mode: its rules do the work until everything else is there.

use std::fmt::Write as _;

use super::*;

/// The rules of iptables mode for the service, as kube-proxy writes them, in one family: balanced over
/// two endpoints, and a service without endpoints refused.
pub(super) fn rules(vips: &[&str], endpoints: [&str; 2], refused: &str) -> String {
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
    nat += "-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
        -A KUBE-NODEPORTS -p tcp -m tcp --dport 30421 -j KUBE-SVC-WEB\n";
    let closed = if vips.contains(&CLOSED) {
        // After DNAT the packet no longer has the address.
        format!(
            "-A KUBE-PROXY-FIREWALL -p tcp -m conntrack --ctorigdst {CLOSED} --ctorigdstport 80 -j DROP\n"
        )
    } else {
        String::new()
    };
    let firewall = "-m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL";
    let portals = "-m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES";
    format!(
        "*filter
         :KUBE-FORWARD - [0:0]\n:KUBE-SERVICES - [0:0]\n:KUBE-PROXY-CANARY - [0:0]
         :KUBE-PROXY-FIREWALL - [0:0]
         -A INPUT {firewall}
         -A FORWARD {firewall}
         -A OUTPUT {firewall}
         -A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD
         -A FORWARD -m conntrack --ctstate NEW {portals}
         -A OUTPUT -m conntrack --ctstate NEW {portals}
         -A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
         -A KUBE-SERVICES -d {refused}/{length} -p tcp -m tcp --dport 80 -j REJECT --reject-with {unreachable}
         {closed}COMMIT
         *nat
         :KUBE-SERVICES - [0:0]\n:KUBE-SVC-WEB - [0:0]\n:KUBE-SEP-A - [0:0]\n:KUBE-SEP-B - [0:0]
         :KUBE-NODEPORTS - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n:KUBE-POSTROUTING - [0:0]\n:KUBE-PROXY-CANARY - [0:0]
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

/// The table of nftables mode for the service, as kube-proxy writes it, in one family: balanced over
/// two endpoints, and a service without endpoints refused.
pub(super) fn table(vips: &[&str], endpoints: [&str; 2], refused: &str) -> String {
    let (ip, unreachable) = if endpoints[0].contains(':') {
        ("ip6", "icmpv6 type port-unreachable")
    } else {
        ("ip", "icmp type port-unreachable")
    };
    let mut chains = String::new();
    for (name, endpoint) in ["endpoint-A", "endpoint-B"].into_iter().zip(endpoints) {
        let to =
            if ip == "ip6" { format!("[{endpoint}]:8080") } else { format!("{endpoint}:8080") };
        let _ = write!(
            chains,
            "chain {name} {{
                 {ip} saddr {endpoint} jump mark-for-masquerade
                 meta l4proto tcp dnat to {to}
             }}\n"
        );
    }
    let closed = if vips.contains(&CLOSED) {
        format!("ct state new {ip} daddr {CLOSED} tcp dport 80 drop")
    } else {
        String::new()
    };
    let services: Vec<String> =
        vips.iter().map(|vip| format!("{vip} . tcp . 80 : goto service-WEB")).collect();
    let services = services.join(", ");
    format!(
        "table {ip} kube-proxy {{
             comment \"rules for kube-proxy\"
             chain mark-for-masquerade {{ mark set mark or 0x4000; }}
             chain reject-chain {{ reject with {unreachable}; }}
             {chains}
             chain service-WEB {{
                 numgen random mod 2 vmap {{ 0 : goto endpoint-A, 1 : goto endpoint-B }}
             }}
             map service-ips {{
                 type {ip}v_addr . inet_proto . inet_service : verdict
                 elements = {{ {services} }}
             }}
             map service-nodeports {{
                 type inet_proto . inet_service : verdict
                 elements = {{ tcp . 30421 : goto service-WEB }}
             }}
             map no-endpoint-services {{
                 type {ip}v_addr . inet_proto . inet_service : verdict
                 elements = {{ {refused} . tcp . 80 : goto reject-chain }}
             }}
             chain services {{
                 {ip} daddr . meta l4proto . th dport vmap @service-ips
                 fib daddr type local meta l4proto . th dport vmap @service-nodeports
             }}
             chain service-endpoints-check {{
                 {ip} daddr . meta l4proto . th dport vmap @no-endpoint-services
             }}
             chain masquerading {{
                 mark and 0x4000 == 0 return
                 mark set mark xor 0x4000
                 masquerade fully-random
             }}
             chain filter-prerouting-pre-dnat {{
                 type filter hook prerouting priority -110
                 {closed}
             }}
             chain nat-prerouting {{ type nat hook prerouting priority dstnat; jump services; }}
             chain nat-output {{ type nat hook output priority -100; jump services; }}
             chain nat-postrouting {{ type nat hook postrouting priority srcnat; jump masquerading; }}
             chain filter-forward {{
                 type filter hook forward priority -110
                 ct state new jump service-endpoints-check
                 ct state invalid drop
             }}
         }}\n"
    )
    .replace("ip6v_addr", "ipv6_addr")
    .replace("ipv_addr", "ipv4_addr")
}

/// What puts the rules of both families in place.
pub(super) fn put_rules(v4: &str, v6: &str) -> String {
    format!(
        "iptables-restore --noflush <<'END'\n{v4}END\nip6tables-restore --noflush <<'END'\n{v6}END"
    )
}

/// What puts the tables of both families in place.
pub(super) fn put_tables(v4: &str, v6: &str) -> String {
    format!("nft -f - <<'END'\n{v4}{v6}END")
}

/// What another mode has for the VIPs and endpoints of both families, as a script that puts it in place.
pub(super) fn in_place(
    text: fn(&[&str], [&str; 2], &str) -> String,
    put: fn(&str, &str) -> String,
) -> String {
    let all = [&VIPS[..], &[CLOSED, CLOSED_INSIDE]].concat();
    let vips = |colon| all.iter().copied().filter(move |vip| vip.contains(':') == colon);
    put(
        &text(&vips(false).collect::<Vec<_>>(), PODS.map(|(_, v4, _)| v4), "10.96.42.9"),
        &text(&vips(true).collect::<Vec<_>>(), PODS.map(|(.., v6)| v6), "fd00:10:96::4209"),
    )
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn no_connection_is_lost_on_the_way_from_iptables_mode() {
    let then =
        ["install FAMILY firewall rules", "remove FAMILY rules of kube-proxy's iptables mode"];
    from_other_mode("iptables", rules, put_rules, &then).unwrap();
}

#[test]
#[ignore = "needs a kernel with IPVS and nftables: tests/vm/run --qemu"]
fn no_connection_is_lost_on_the_way_from_nftables_mode() {
    let then = ["remove FAMILY table of kube-proxy's nftables mode"];
    from_other_mode("nftables", table, put_tables, &then).unwrap();
}

/// Takes over under load from another mode, which has for the VIPs and endpoints of each family what
/// `text` says, put in place by the script that `put` makes of both. After the last address of
/// a family was bound comes what `then` says, in this order: no connection is lost by that.
fn from_other_mode(
    name: &str,
    text: fn(&[&str], [&str; 2], &str) -> String,
    put: fn(&str, &str) -> String,
    then: &[&str],
) -> Result<()> {
    require_test_kernel()?;
    let scenario = Scenario::load("dual-stack-service")?;
    let [space, client, pod, other] = build(&scenario, PODS)?;
    let _servers = serve([&pod, &other])?;
    space.sh(&in_place(text, put))?;
    let mut node = Node::with(&space, &scenario.steps[0])?;
    let begin = Instant::now();
    let mut traffic = Traffic::start(&client, &VIPS, 100, 100)?;
    traffic.goes_on("by the rules of the other mode")?;

    let operations = node.start(&program("proxier")?)?;
    for (family, colon) in [("IPv4", false), ("IPv6", true)] {
        // Where the rules of one family are late, on a busy machine, the other does not wait for them.
        let binds = |operation: &String| {
            operation.strip_prefix("bind ").is_some_and(|address| address.contains(':') == colon)
        };
        let mut before = operations.iter().rposition(binds);
        ensure!(before.is_some(), "nothing of {family} bound: {operations:#?}");
        for text in then {
            let text = text.replace("FAMILY", family);
            let at = operations.iter().position(|operation| operation.contains(&text));
            ensure!(before < at, "{text:?} is missing or too early: {operations:#?}");
            before = at;
        }
    }
    node.is_as_left("taken over from another mode")?;
    traffic.goes_on("taken over")?;
    node.stop()?;
    let operations = node.start(&program("proxier")?)?;
    ensure!(operations.is_empty(), "restarted with {operations:#?}");
    let took = begin.elapsed().as_secs_f64();
    let (made, kept) = traffic.end()?;
    figure(&format!(
        "from {name} mode: {kept} connections kept, {made} new ones in {took:.1} s ({:.0} a second), \
         0 failed; nothing of it is left",
        f64::from(made) / took,
    ));
    Ok(())
}
