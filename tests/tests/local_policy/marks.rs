//! The marks by which clients inside are led: renewed, shown, and gone when nobody renews them.

use super::*;

/// A Service with endpoints here and elsewhere, programmed.
fn split() -> (World, Case) {
    let mut world = build(Backend::Iptables);
    let case =
        Case { number: 1, external_local: true, internal_local: false, endpoints: Endpoints::Both };
    world.write(&case.objects(&world.topology)).unwrap();
    world.ready().unwrap();
    (world, case)
}

/// The sets of marks.
const SETS: [&str; 2] = ["KUBE-LOCAL-MARK", "KUBE-6-LOCAL-MARK"];

/// The members of a set of marks, as `ipset list` prints them.
fn marked(topology: &Topology, set: &str) -> Vec<String> {
    let text = topology.node().host.namespace.sh(&format!("ipset list {set}")).unwrap();
    text.lines().filter(|line| line.contains("skbmark")).map(str::to_owned).collect()
}

/// Makes every member of the sets of marks go in so many seconds.
fn shorten(topology: &Topology, seconds: u32) {
    for set in SETS {
        let commands = marked(topology, set).into_iter().map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [member, "timeout", _, "skbmark", mark] = words[..] else { panic!("{line}") };
            format!("ipset -exist add {set} {member} timeout {seconds} skbmark {mark}\n")
        });
        topology.node().host.namespace.sh(&commands.collect::<String>()).unwrap();
    }
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn marks_are_renewed_and_what_is_gone_of_them_comes_back() {
    let (mut world, _) = split();
    let all = marked(&world.topology, SETS[0]).len();
    assert_eq!(
        all,
        3 * 4,
        "three ports, two addresses of the node, an external and a balancer's IP"
    );
    let lasting = |topology: &Topology| {
        let rest = |line: &String| {
            let mut words = line.split_whitespace().skip_while(|word| *word != "timeout").skip(1);
            words.next().and_then(|rest| rest.parse::<u32>().ok()).unwrap_or_default()
        };
        let members = marked(topology, SETS[0]);
        Ok(members.len() == all && members.iter().all(|line| rest(line) > 200))
    };
    let explain = |topology: &Topology| marked(topology, SETS[0]).join("\n");
    shorten(&world.topology, 100);
    assert!(!lasting(&world.topology).unwrap());
    world.wait(lasting, explain).unwrap();
    world.topology.node().host.namespace.sh("ipset flush KUBE-LOCAL-MARK").unwrap();
    world.wait(lasting, explain).unwrap();
}

/// Which mark is whose only the daemon and its sets know.
#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn virtual_servers_by_mark_are_shown_under_their_service() {
    let (world, case) = split();
    let table = world.topology.node().host.namespace.sh("ipvsadm -S -n").unwrap();
    let marks: BTreeSet<String> = table
        .lines()
        .filter_map(|line| line.strip_prefix("-A -f "))
        .map(|rest| {
            let family = if rest.contains(" -6 ") { "IPv6" } else { "IPv4" };
            format!("mark {} ({family})", rest.split(' ').next().unwrap_or_default())
        })
        .collect();
    assert_eq!(marks.len(), 2 * PORTS.len(), "{table}");
    let ask = |words: &[&str]| -> Value {
        let text = proxier_tests::command::output(&mut world.proxier(words).unwrap()).unwrap();
        serde_json::from_str(&text).unwrap()
    };
    let name = format!("case-{}", case.number);
    let rows = ask(&["get", "virtual-servers", "-o", "json"]);
    let rows = rows["virtualServers"].as_array().unwrap().iter();
    let marked: BTreeSet<String> = rows
        .filter(|row| row["service"] == *name && row["kind"] == "inside")
        .map(|row| row["virtualServer"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(marked, marks);
    let services = ask(&["top", "-o", "json"]);
    let services = services["services"].as_array().unwrap();
    assert_eq!(services.len(), 1, "nothing is of an unknown Service: {services:?}");
    let all = services[0]["virtualServers"].as_array().unwrap();
    let has = |mark: &String| all.contains(&json!(mark));
    assert!(services[0]["name"] == *name && marks.iter().all(has), "{services:?}");
}

/// The daemon is gone for good: who was led around the virtual server of the address comes to it.
fn alone(seconds: Option<u32>) {
    let (mut world, case) = split();
    let mut held = {
        let to = Place::new(
            Protocol::Tcp,
            case.address(Frontend::LoadBalancer, Family::V4).parse().unwrap(),
            80,
        );
        let load = Load { to, times: 4, source: None, timeout: 5000, one_socket: false };
        Client::new(&world.topology.node().pod("pod-c").namespace).hold(&load).unwrap()
    };
    assert_eq!(held.opened.answers.len(), 2, "{:?}", held.opened);
    world.kill();
    if let Some(seconds) = seconds {
        shorten(&world.topology, seconds);
    }
    let topology = &world.topology;
    // Each question is a process, and so takes its time.
    while !marked(topology, SETS[0]).is_empty() {}
    let address = case.address(Frontend::LoadBalancer, Family::V4);
    let to = Place::new(Protocol::Tcp, address.parse().unwrap(), 80);
    for from in [From::Pod, From::ThisNode, From::Outside] {
        let report = ask(host(topology, from), to, 4, false);
        assert_eq!(report.answers, [(HERE.to_owned(), 4)].into(), "{from:?}: {report:?}");
    }
    // What was scheduled before goes on.
    let report = held.ask().unwrap();
    assert_eq!(report.answered(), 4, "{report:?}");
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn without_the_daemon_marks_go_and_connections_stay() {
    alone(Some(3));
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn in_full_without_the_daemon_marks_go_after_five_minutes() {
    alone(None);
}

/// kube-proxy starts where the daemon was killed, and an endpoint elsewhere has gone meanwhile: it puts its
/// rules in place and takes the real server from what it knows, which are virtual servers by address. The
/// endpoint still answers here, so that whoever is led to it shows.
#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn where_kube_proxy_follows_nobody_outside_is_led_by_marks_and_soon_nobody_is() {
    let (mut world, case) = split();
    let rules = "for tool in iptables ip6tables; do echo \"$tool-restore <<'END'\";
                 $tool-save -t nat; $tool-save -t filter; echo END; done";
    world.restart(&["--local-policy=kube-proxy"]).unwrap();
    let its_own = world.topology.node().host.namespace.sh(rules).unwrap();
    world.restart(&["--local-policy=split"]).unwrap();
    world.kill();
    let topology = &world.topology;
    let node = &topology.node().host.namespace;
    node.sh(&its_own).unwrap();
    let (gone, _) = topology.pod(THERE);
    let gone = FAMILIES.map(|family| Place::new(Protocol::Tcp, gone.address(family), TCP));
    let gone = gone.map(|place| format!(" -r {} ", place.address));
    let table = node.sh("ipvsadm -S -n").unwrap();
    let of_it = |line: &&str| gone.iter().any(|it| line.contains(it)) && !line.contains(" -f ");
    let taken: Vec<String> = table
        .lines()
        .filter(of_it)
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            format!("ipvsadm -d {}\n", words[1..5].join(" "))
        })
        .collect();
    assert_eq!(taken.len(), 2, "its cluster IPs: {table}");
    node.sh(&taken.concat()).unwrap();

    let reached = |from: From, frontend: Frontend, family: Family| -> BTreeSet<String> {
        let to = match frontend {
            Frontend::NodePort => {
                Place::new(Protocol::Tcp, topology.node().host.address(family), case.node_port(0))
            }
            _ => Place::new(Protocol::Tcp, case.address(frontend, family).parse().unwrap(), 80),
        };
        let report = ask(host(topology, from), to, 4, false);
        assert_eq!(report.answered(), 4, "{from:?} {frontend:?} {family:?}: {report:?}");
        report.answers.into_keys().collect()
    };
    let all = || {
        let ways = |from| FRONTENDS.map(|frontend| FAMILIES.map(|family| (from, frontend, family)));
        let ways = CLIENTS.into_iter().flat_map(ways).flatten();
        ways.filter(|(_, frontend, _)| *frontend != Frontend::ProxyingLoadBalancer)
    };
    let mut stale = 0;
    for (from, frontend, family) in all() {
        let is_led = matches!(from, From::ThisNode | From::Pod) && frontend != Frontend::ClusterIp;
        let by = reached(from, frontend, family);
        stale += u32::from(by.contains(THERE));
        assert!(is_led || !by.contains(THERE), "{from:?} {frontend:?} {family:?}: {by:?}");
    }
    assert!(stale > 0, "nobody is led by a mark");
    shorten(topology, 3);
    while SETS.iter().any(|set| !marked(topology, set).is_empty()) {}
    for (from, frontend, family) in all() {
        let by = reached(from, frontend, family);
        assert!(!by.contains(THERE), "{from:?} {frontend:?} {family:?}: {by:?}");
    }
}
