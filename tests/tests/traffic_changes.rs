//! Traffic while endpoints come and go: nobody's connection fails, and who depends on an endpoint that
//! is gone is led to another.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use proxier_tests::manifest::{Condition, Service, endpoint};
use proxier_tests::topology::{Family, Plan, Topology};
use proxier_tests::traffic::{Client, Load, Place, Protocol, Report};
use proxier_tests::world::{TCP, UDP, World};
use proxier_tests::{figure, full};
use serde_json::{Value, json};

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
const ADDRESSES: [&str; 2] = ["10.96.0.20", "fd00:10:96::20"];

fn load(protocol: Protocol, family: Family, port: u16, times: u32) -> Load {
    let address = ADDRESSES[usize::from(family == Family::V6)];
    let to = Place::new(protocol, address.parse().expect("an address"), port);
    Load { to, times, source: None, timeout: 5000, one_socket: false }
}

/// The documents of a Service in both families, with these pods.
fn objects(world: &World, service: &Service, pods: &[(&str, Condition)]) -> Vec<Value> {
    let slice = |family: Family| {
        let of = |(name, condition): &(&str, Condition)| {
            let (pod, node) = world.topology.pod(name);
            endpoint(family, pod, node, *condition)
        };
        service.slice_of(family, &pods.iter().map(of).collect::<Vec<_>>())
    };
    let mut documents = vec![service.document()];
    documents.extend(FAMILIES.map(slice));
    documents
}

/// The weights of a pod's real servers, in what `ipvsadm -S -n` prints.
fn weights(topology: &Topology, pod: &str, table: &str) -> Vec<String> {
    let (pod, _) = topology.pod(pod);
    let (v4, v6) = (format!(" -r {}:", pod.ipv4), format!(" -r [{}]:", pod.ipv6));
    let of_pod = |line: &&str| line.contains(&v4) || line.contains(&v6);
    let weight = |line: &str| line.rsplit(' ').next().unwrap_or_default().to_owned();
    table.lines().filter(of_pod).map(weight).collect()
}

/// The connections of a pod's real servers that are being made or used, as the kernel counts them:
/// listing all there are takes the kernel longer than making them.
fn active(topology: &Topology, pod: &str) -> Result<u64> {
    let (pod, _) = topology.pod(pod);
    let places = [format!("{}:{TCP}", pod.ipv4), format!("[{}]:{TCP}", pod.ipv6)];
    let table = topology.node().host.namespace.sh("ipvsadm -L -n")?;
    let mut sum = 0;
    for line in table.lines() {
        // "-> address:port, forwarding, weight, active, inactive"
        if let ["->", place, _, _, active, _] = *line.split_whitespace().collect::<Vec<_>>()
            && places.iter().any(|it| it == place)
        {
            sum += active.parse::<u64>()?;
        }
    }
    Ok(sum)
}

/// Hands the daemon the Service with these pods, and waits until the kernel gives one of them new
/// connections by this weight, or none any more.
fn settle(
    world: &mut World,
    service: &Service,
    pods: &[(&str, Condition)],
    (pod, weight): (&str, u16),
) -> Result<()> {
    let objects = objects(world, service, pods);
    world.write(&objects)?;
    let table = |topology: &Topology| topology.node().host.namespace.sh("ipvsadm -S -n");
    world.wait(
        |topology| {
            let weights = weights(topology, pod, &table(topology)?);
            let are = weights.iter().all(|it| *it == weight.to_string());
            Ok(are && (weight == 0 || weights.len() == FAMILIES.len()))
        },
        |topology| format!("{pod}: weight {weight}, but:\n{}", table(topology).unwrap_or_default()),
    )
}

/// Every pod of a Deployment is replaced by a new one, one after the other, as Kubernetes does it: the
/// new one is ready before the old one is told to end; that one serves until nobody is with it any
/// more; then it is gone. One client is outside, masqueraded, the other one in a pod.
#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn a_rolling_update_fails_no_connection() {
    rolling_update("rr", "none").unwrap();
}

/// The same with every scheduler and each of its flags.
macro_rules! in_full_with {
    ($($name:ident: $scheduler:literal, $flags:literal;)*) => {$(
        #[test]
        #[ignore = "needs a kernel with IPVS: tests/vm/run"]
        fn $name() {
            rolling_update($scheduler, $flags).unwrap();
        }
    )*};
}

in_full_with! {
    in_full_a_rolling_update_fails_no_connection_with_rr: "rr", "none";
    in_full_a_rolling_update_fails_no_connection_with_wrr: "wrr", "none";
    in_full_a_rolling_update_fails_no_connection_with_lc: "lc", "none";
    in_full_a_rolling_update_fails_no_connection_with_wlc: "wlc", "none";
    in_full_a_rolling_update_fails_no_connection_with_lblc: "lblc", "none";
    in_full_a_rolling_update_fails_no_connection_with_lblcr: "lblcr", "none";
    in_full_a_rolling_update_fails_no_connection_with_dh: "dh", "none";
    in_full_a_rolling_update_fails_no_connection_with_sed: "sed", "none";
    in_full_a_rolling_update_fails_no_connection_with_nq: "nq", "none";
    in_full_a_rolling_update_fails_no_connection_with_fo: "fo", "none";
    in_full_a_rolling_update_fails_no_connection_with_ovf: "ovf", "none";
    in_full_a_rolling_update_fails_no_connection_with_sh: "sh", "none";
    in_full_a_rolling_update_fails_no_connection_with_sh_fallback: "sh", "sh-fallback";
    in_full_a_rolling_update_fails_no_connection_with_sh_port: "sh", "sh-port";
    in_full_a_rolling_update_fails_no_connection_with_sh_both: "sh", "sh-fallback,sh-port";
    in_full_a_rolling_update_fails_no_connection_with_mh: "mh", "none";
    in_full_a_rolling_update_fails_no_connection_with_mh_fallback: "mh", "mh-fallback";
    in_full_a_rolling_update_fails_no_connection_with_mh_port: "mh", "mh-port";
    in_full_a_rolling_update_fails_no_connection_with_mh_both: "mh", "mh-fallback,mh-port";
}

fn rolling_update(scheduler: &str, flags: &str) -> Result<()> {
    // Others choose by the client's address, or take one after the other.
    let comes_to_all =
        matches!(scheduler, "rr" | "wrr" | "lc" | "wlc" | "sed" | "nq") || flags.contains("-port");
    // At least 500 a second for a minute: some percent more are asked for than come about.
    let (per_second, enough, long) = if full() { (600, 500 * 60, 60) } else { (100, 1000, 0) };
    let long = Duration::from_secs(long);
    let sets = [["pod-1", "pod-2", "pod-5", "pod-6"], ["pod-3", "pod-4", "pod-7", "pod-8"]];
    let topology = Topology::build_as(&Plan {
        lan4: Ipv4Addr::new(192, 168, 50, 0),
        lan6: Ipv6Addr::new(0xfd00, 0x50, 0, 0, 0, 0, 0, 0),
        nodes: [
            ("node-a", &["pod-1", "pod-2", "pod-3", "pod-4", "inside"]),
            ("node-b", &["pod-5", "pod-6", "pod-7", "pod-8"]),
        ],
    })?;
    let mut world = World::build_with(topology, "scheduler: rr")?;
    let mut service = Service::new("rolling", &ADDRESSES)
        .annotation("proxier.io/scheduler", scheduler)
        .annotation("proxier.io/scheduler-flags", flags)
        .port(Protocol::Tcp, 80, TCP);
    let mut weight = 1;
    if scheduler == "ovf" {
        // It takes the weight for the number of connections that a real server may have.
        weight = 10_000;
        service = service.annotation("proxier.io/weights", &format!("default:{weight}"));
    }
    let mut pods: Vec<(&str, Condition)> = Vec::new();
    let mut names = BTreeSet::new();
    for pod in sets[0] {
        let name = format!("{pod} of update 0");
        world.start_server(pod, &name)?;
        names.insert(name);
        pods.push((pod, Condition::Ready));
    }
    world.apply(&objects(&world, &service, &pods), 2 * pods.len(), &ADDRESSES)?;

    let client = &world.topology.client.namespace;
    let inside = &world.topology.node().pod("inside").namespace;
    for namespace in [client, inside] {
        // After a connection its port rests for a minute.
        namespace.sysctls(&[("net/ipv4/ip_local_port_range", "1024 65535")])?;
    }
    let endless = |family| Load { timeout: 120_000, ..load(Protocol::Tcp, family, 80, u32::MAX) };
    let begin = Instant::now();
    let mut rates = [
        Client::new(client).rate(&endless(Family::V4), per_second / 2)?,
        Client::new(inside).rate(&endless(Family::V6), per_second / 2)?,
    ];
    let mut updates = 0;
    let mut made = 0;
    while made < enough || begin.elapsed() < long {
        let (old, new) = (sets[updates % 2], sets[(updates + 1) % 2]);
        updates += 1;
        for (old, new) in old.into_iter().zip(new) {
            let name = format!("{new} of update {updates}");
            world.start_server(new, &name)?;
            names.insert(name.clone());
            pods.push((new, Condition::Ready));
            settle(&mut world, &service, &pods, (new, weight))?;
            for rate in rates.iter_mut().filter(|_| comes_to_all) {
                rate.until(|report| report.answers.contains_key(&name))
                    .with_context(|| format!("connections to {name}"))?;
            }
            pods.retain(|(pod, _)| *pod != old);
            pods.push((old, Condition::Terminating));
            settle(&mut world, &service, &pods, (old, 0))?;
            world.wait(
                |topology| Ok(active(topology, old)? == 0),
                |_| format!("{old} still has connections"),
            )?;
            world.stop_server(old);
            pods.retain(|(pod, _)| *pod != old);
            world.write(&objects(&world, &service, &pods))?;
        }
        made = 0;
        for rate in &mut rates {
            made += rate.so_far()?.answered();
        }
    }
    let [outside, inside] = rates;
    let reports = [outside.end()?, inside.end()?];
    let took = begin.elapsed().as_secs_f64();
    let sum = |count: fn(&Report) -> u32| reports.iter().map(count).sum::<u32>();
    let (answered, failed) = (sum(Report::answered), sum(Report::failed));
    figure(&format!(
        "{scheduler}, flags {flags}: rolling updates of {} pods: {updates}; {answered} connections in {took:.1} s ({:.0} a second), \
         {failed} failed",
        sets[0].len(),
        f64::from(answered) / took,
    ));
    ensure!(failed == 0, "{reports:#?}");
    let known: BTreeSet<String> =
        reports.iter().flat_map(|report| report.answers.keys().cloned()).collect();
    ensure!(!comes_to_all || names == known, "not every pod was used: {reports:#?}");
    Ok(())
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn udp_flows_leave_a_removed_endpoint() {
    udp_flows().unwrap();
}

fn udp_flows() -> Result<()> {
    let mut world = World::build("rr")?;
    let service = Service::new("dns", &ADDRESSES).port(Protocol::Udp, 53, UDP);
    let both = [("pod-a", Condition::Ready), ("pod-d", Condition::Ready)];
    world.apply(&objects(&world, &service, &both), 4, &ADDRESSES)?;
    let open = |world: &World, family| {
        let client = Client::new(&world.topology.client.namespace);
        client.hold(&Load { timeout: 500, ..load(Protocol::Udp, family, 53, 2) })
    };
    let mut held = [open(&world, Family::V4)?, open(&world, Family::V6)?];
    for flows in &mut held {
        let evenly = [("pod-a".to_owned(), 1), ("pod-d".to_owned(), 1)].into();
        ensure!(flows.opened.answers == evenly, "{:?}", flows.opened);
        ensure!(flows.ask()?.answers == evenly, "flows do not stay where they are");
    }
    // Whoever still sends to it is not answered.
    world.stop_server("pod-a");
    let begin = Instant::now();
    world.write(&objects(&world, &service, &both[1..]))?;
    for (flows, family) in held.iter_mut().zip(FAMILIES) {
        // One that is not answered waits by itself.
        while flows.ask()?.answers != [("pod-d".to_owned(), 2)].into() {}
        let took = begin.elapsed().as_secs_f64();
        figure(&format!("UDP {family:?}: answered by a live endpoint {took:.2} s after removal"));
    }
    // Nothing remembers the endpoint.
    let (gone, _) = world.topology.pod("pod-a");
    let node = &world.topology.node().host.namespace;
    for address in FAMILIES.map(|family| gone.address(family)) {
        let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
        let list = format!("conntrack -L -f {family} -p udp --reply-src {address} 2>/dev/null");
        ensure!(node.sh(&list)?.is_empty(), "{}", node.sh(&list)?);
    }
    let places = [format!(" {}:{UDP}", gone.ipv4), format!(" [{}]:{UDP}", gone.ipv6)];
    let table = node.sh("ipvsadm -L -n -c")?;
    ensure!(!places.iter().any(|place| table.contains(place)), "connections to pod-a:\n{table}");
    Ok(())
}

/// Connects a few times with client affinity, and returns the one pod that answered.
fn stick(world: &World, load: &Load) -> Result<String> {
    let report = Client::new(&world.topology.client.namespace).connect(load)?;
    ensure!(report.failed() == 0 && report.answers.len() == 1, "{}: {report:?}", load.to);
    report.answers.into_keys().next().context("an answer")
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn client_affinity_moves_when_the_endpoint_goes() {
    affinity_moves().unwrap();
}

fn affinity_moves() -> Result<()> {
    let mut world = World::build("rr")?;
    let service = Service::new("sticky", &ADDRESSES)
        .port(Protocol::Tcp, 80, TCP)
        .port(Protocol::Udp, 53, UDP)
        .with("sessionAffinity", json!("ClientIP"));
    let all = ["pod-a", "pod-b", "pod-d"];
    let ready = |pods: &[&'static str]| -> Vec<(&'static str, Condition)> {
        pods.iter().map(|pod| (*pod, Condition::Ready)).collect()
    };
    for family in FAMILIES {
        for (protocol, port) in [(Protocol::Tcp, 80), (Protocol::Udp, 53)] {
            world.apply_until(&objects(&world, &service, &ready(&all)), "all pods", |text| {
                text.lines().filter(|line| line.ends_with("-m -w 1")).count() == 4 * all.len()
            })?;
            let load = load(protocol, family, port, 5);
            let first = stick(&world, &load)?;
            ensure!(stick(&world, &load)? == first, "{protocol} {family:?} does not stick");
            let (left, gone): (Vec<_>, Vec<_>) = all.iter().copied().partition(|pod| *pod != first);
            // It still runs, so that only the proxy can be why it is not asked.
            settle(&mut world, &service, &ready(&left), (gone[0], 0))?;
            let second = stick(&world, &load)?;
            ensure!(second != first, "{protocol} {family:?} sticks to {first}, which is gone");
            ensure!(stick(&world, &load)? == second, "{protocol} {family:?} does not stick again");
        }
    }
    Ok(())
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn client_affinity_holds_for_its_time() {
    affinity_holds().unwrap();
}

fn affinity_holds() -> Result<()> {
    const SECONDS: u64 = 3;
    // A connection that IPVS remembers keeps the affinity; those of UDP can be short.
    let mut world = World::build_with(Topology::build()?, "scheduler: rr, udpTimeout: 1s")?;
    for pod in ["pod-a", "pod-b", "pod-d"] {
        world.start_server(pod, pod)?;
    }
    let service = Service::new("sticky", &ADDRESSES)
        .port(Protocol::Udp, 53, UDP)
        .with("sessionAffinity", json!("ClientIP"))
        .with("sessionAffinityConfig", json!({ "clientIP": { "timeoutSeconds": SECONDS } }));
    let pods = ["pod-a", "pod-b", "pod-d"].map(|pod| (pod, Condition::Ready));
    world.apply(&objects(&world, &service, &pods), 6, &ADDRESSES)?;
    // The template of an affinity is a connection from port 0, in hexadecimal.
    let templates = |topology: &Topology| -> Result<usize> {
        let node = &topology.node().host.namespace;
        Ok(node.sh("awk '$3 == \"0000\"' /proc/net/ip_vs_conn")?.lines().count())
    };
    let forgotten = |world: &mut World| {
        let none = |topology: &Topology| Ok(templates(topology)? == 0);
        world.wait(none, |_| "the affinity does not end".to_owned())
    };
    for family in FAMILIES {
        let load = load(Protocol::Udp, family, 53, 5);
        let first = stick(&world, &load)?;
        let begin = Instant::now();
        ensure!(templates(&world.topology)? == 1, "{family:?}: no affinity is remembered");
        // As long as it is there, it is followed; each time it begins anew.
        while begin.elapsed() < Duration::from_secs(SECONDS) {
            ensure!(stick(&world, &load)? == first, "{family:?} does not stick");
        }
        let last = Instant::now();
        forgotten(&mut world).with_context(|| format!("{family:?}"))?;
        let took = last.elapsed().as_secs_f64();
        figure(&format!(
            "affinity of {SECONDS} s, {family:?}: ended {took:.1} s after the last use"
        ));
        let second = stick(&world, &load)?;
        ensure!(second != first, "{family:?}: {first} again, though it is the next one's turn");
        forgotten(&mut world).with_context(|| format!("{family:?}"))?;
    }
    Ok(())
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn health_check_node_ports_tell_whether_the_node_has_endpoints() {
    health_checks().unwrap();
}

fn health_checks() -> Result<()> {
    let mut world = World::build_with(Topology::build()?, "scheduler: rr")?;
    let service = Service::new("local", &ADDRESSES)
        .node_port(Protocol::Tcp, 80, TCP, 30080)
        .load_balancer(&["203.0.113.20", "2001:db8::20"])
        .with("externalTrafficPolicy", json!("Local"))
        .with("healthCheckNodePort", json!(31999));
    let bound = [ADDRESSES[0], ADDRESSES[1], "203.0.113.20", "2001:db8::20"];
    let ready = |pod| (pod, Condition::Ready);
    let leaving = |pod| (pod, Condition::Terminating);
    // An endpoint that is terminating still gets what is left, but a load balancer is to look elsewhere.
    let cases = [
        (vec![ready("pod-a"), ready("pod-b"), ready("pod-d")], 200, 2),
        (vec![ready("pod-b"), ready("pod-d")], 200, 1),
        (vec![leaving("pod-b"), ready("pod-d")], 503, 0),
        (vec![ready("pod-d")], 503, 0),
    ];
    for (pods, status, count) in cases {
        let objects = objects(&world, &service, &pods);
        world.apply_until(&objects, &format!("{pods:?}"), |text| {
            bound.iter().all(|address| text.contains(&format!(" {address}/")))
        })?;
        let node = &world.topology.node().host;
        for address in FAMILIES.map(|family| node.address(family)) {
            let expected = format!(
                "HTTP/1.1 {status}\n\
                 content-type: application/json\n\
                 x-content-type-options: nosniff\n\
                 x-load-balancing-endpoint-weight: {count}\n\n\
                 {{\n\t\"service\": {{\n\t\t\"namespace\": \"default\",\n\t\t\"name\": \"local\"\n\t}},\n\
                 \t\"localEndpoints\": {count},\n\t\"serviceProxyHealthy\": true\n}}"
            );
            let last = Cell::new(String::new());
            world.wait(
                |topology| {
                    let answer = ask(topology, address)?;
                    let same = answer == expected;
                    last.set(answer);
                    Ok(same)
                },
                |_| format!("{address} with {pods:?} answers:\n{}", last.take()),
            )?;
        }
    }
    Ok(())
}

/// What the health check node port answers to the client: the status, the headers of a health check,
/// and the body. Nothing while the port is not open.
fn ask(topology: &Topology, address: IpAddr) -> Result<String> {
    let script = format!(
        "exec 2>/dev/null 3<>/dev/tcp/{address}/31999 || exit 0
         printf 'GET /healthz HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n' >&3
         cat <&3"
    );
    let mut command = topology.client.namespace.command("bash");
    let response = proxier_tests::command::output(command.args(["-c", &script]))?;
    let Some((head, body)) = response.split_once("\r\n\r\n") else { return Ok(response) };
    let mut lines = head.lines();
    let status = lines.next().unwrap_or_default();
    let code = status.split(' ').take(2).collect::<Vec<_>>().join(" ");
    let mut headers: Vec<String> = lines
        .map(str::to_lowercase)
        .filter(|line| line.starts_with("content-type") || line.starts_with("x-"))
        .collect();
    headers.sort();
    Ok(format!("{code}\n{}\n\n{body}", headers.join("\n")))
}
