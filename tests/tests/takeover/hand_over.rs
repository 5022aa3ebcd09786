//! Handing over to kube-proxy in another mode. Its part is played by a script: what kube-proxy 1.36 does when
//! it starts, and its rules some time later. Each takes six minutes: in the full run only.

use super::other_modes::{in_place, put_rules, put_tables, rules, table};
use super::*;

/// The other mode.
struct Mode {
    name: &'static str,
    /// What kube-proxy does when it starts in it.
    start: &'static str,
    /// Puts its rules in place.
    rules: String,
    /// Shows these, with what tells them from others that say the same.
    show: &'static str,
}

#[test]
#[ignore = "needs a kernel with IPVS and nftables: tests/vm/run --qemu"]
fn in_full_nothing_is_lost_or_opened_from_nftables_mode_and_back() {
    hand_over(&Mode {
        name: "nftables",
        // Chains and sets of IPVS mode it finds no more.
        start: "ipvsadm -C; ip link delete kube-ipvs0",
        rules: in_place(table, put_tables),
        show: "nft -a list table ip kube-proxy; nft -a list table ip6 kube-proxy",
    })
    .unwrap();
}

#[test]
#[ignore = "needs a kernel with IPVS and nftables: tests/vm/run --qemu"]
fn in_full_nothing_is_lost_or_opened_from_iptables_mode_to_nftables_and_back() {
    hand_over(&Mode {
        name: "iptables",
        start: "for ip in ip ip6; do nft delete table $ip kube-proxy 2>/dev/null || :; done",
        rules: in_place(rules, put_rules),
        show: "iptables-save | grep -v '^[#:]'; ip6tables-save | grep -v '^[#:]'",
    })
    .unwrap();
}

fn hand_over(mode: &Mode) -> Result<()> {
    require_test_kernel()?;
    let Mode { name, start, rules, show } = mode;
    let scenario = Scenario::load("dual-stack-service")?;
    let [space, client, pod, other] = build(&scenario, PODS)?;
    let _servers = serve([&pod, &other])?;
    // There and back again.
    space.sh(rules)?;
    let mut node = Node::with(&space, &scenario.steps[0])?;
    node.add_closed()?;
    let begin = Instant::now();
    let (held, per_second) = load();
    let mut traffic = Traffic::start(&client, &VIPS, held, per_second)?;
    traffic.try_closed(&client)?;
    traffic.goes_on("by kube-proxy's rules")?;
    node.start_with(&program("proxier")?, "--firewall=nftables")?;
    traffic.goes_on("taken over")?;
    node.stop()?;
    let mut daemon = node.hand_over(name)?;
    says(&mut daemon, "ready to hand over: start kube-proxy")?;
    traffic.goes_on("with the rules in nftables")?;
    let old = space.sh("iptables-save; ip6tables-save; ipset list -n")?;
    ensure!(!old.contains("KUBE-"), "kube-proxy would find:\n{old}");

    space.sh(start)?;
    traffic.goes_on("after kube-proxy has started")?;
    space.sh(rules)?;
    let theirs = space.sh(show)?;
    says(&mut daemon, "it has everything")?;
    // Those under way when the rules came are the last.
    traffic.goes_on("by kube-proxy's rules")?;
    let scheduled = space.sh("ipvsadm -Ln --stats")?;
    traffic.goes_on("by kube-proxy's rules alone")?;
    let later = space.sh("ipvsadm -Ln --stats")?;
    ensure!(connections(&scheduled) == connections(&later), "{scheduled}\nthen\n{later}");

    // The kernel may have masqueraded these with a service address as source, which goes with kube-ipvs0.
    let ipv6 = traffic.end_ipv6()?;
    let kept = traffic.let_go()?;
    daemon.ended()?;
    ensure!(space.sh(show)? == theirs, "kube-proxy's rules have changed");
    traffic.goes_on("handed over")?;
    let left = space.sh("ipvsadm -Sn; ip -o link show; nft list tables; ipset list -n")?;
    ensure!(!left.contains("-A ") && !left.contains("kube-ipvs0"), "left:\n{left}");
    ensure!(!left.contains("proxier") && !left.contains("KUBE-"), "left:\n{left}");
    let took = begin.elapsed().as_secs_f64();
    let new = traffic.end()?.0 + ipv6;
    figure(&format!(
        "from {name} mode and back: {kept} connections kept, {new} new ones in {took:.1} s \
         ({:.0} a second), 0 failed; closed to the client all the time",
        f64::from(new) / took,
    ));
    let log = node.log();
    let last = log.lines().rfind(|line| line.contains("handed over to")).context("a last word")?;
    figure(last.split_once("daemon: ").map_or(last, |(_, text)| text));

    // Nothing is left to be done a second time.
    let again = node.hand_over(name)?;
    again.ended()?;
    ensure!(space.sh(show)? == theirs, "kube-proxy's rules have changed");
    ensure!(node.log().contains("nothing to hand over"), "{}", node.log());
    Ok(())
}

/// Connections that are held, and new ones a second. QEMU has to share its processors with other tests.
pub(super) fn load() -> (u32, u32) {
    if full() { (200, 200) } else { (60, 60) }
}

/// Waits until the daemon says this.
fn says(daemon: &mut Daemon, text: &str) -> Result<()> {
    let log = daemon.log_file().to_owned();
    let said = || Ok(fs::read_to_string(&log)?.contains(text).then_some(()));
    daemon.wait(said, || format!("{text:?} in the log"))
}

/// How many connections each virtual server has had.
fn connections(stats: &str) -> Vec<(String, String)> {
    let words = stats.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let of = |words: Vec<&str>| match words[..] {
        ["TCP", place, count, ..] => Some((place.to_owned(), count.to_owned())),
        _ => None,
    };
    words.filter_map(of).collect()
}
