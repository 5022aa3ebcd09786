//! Rows of `tests/ACCEPTANCE.md` that only a kernel can show.

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};
use proxier_tests::command::{output, program, run};
use proxier_tests::daemon::{Daemon, Scratch};
use proxier_tests::golden;
use proxier_tests::manifest::Service;
use proxier_tests::netns::{Namespace, ip, node_link, require_test_kernel};
use proxier_tests::topology::Family::V4;
use proxier_tests::topology::Topology;
use proxier_tests::traffic::{Client, Load, Place, Protocol};
use proxier_tests::world::{TCP, UDP, World};

fn sh(script: &str) -> Result<String> {
    output(Command::new("bash").args(["-euo", "pipefail", "-c", script]))
}

/// Everything that a clean-up could take too much of, or leave something in.
fn everything() -> Result<String> {
    sh("ipvsadm-save -n | sort
        ipset save -sorted
        ip -o link | cut -d: -f2
        for program in iptables ip6tables; do
            $program-legacy-save | grep '^[-:*]' | sed 's/ \\[[0-9:]*\\]//'
        done")
}

/// Things of others, of every kind that the daemon has as well, both families.
const OTHERS: &str = "
    ipvsadm -A -t 198.51.100.9:80 -s wlc
    ipvsadm -a -t 198.51.100.9:80 -r 198.51.100.10:80 -m -w 7
    ipvsadm -A -t [2001:db8:9::9]:80 -s rr
    ipvsadm -A -f 7 -s rr
    ipset create OTHERS hash:ip
    ipset add OTHERS 192.0.2.77
    ipset create KUBE-NODE-LOCAL hash:ip
    ip link add dummy9 type dummy
    for program in iptables-legacy ip6tables-legacy; do
        for chain in KUBE-FIREWALL KUBE-KUBELET-CANARY CNI-FORWARD; do $program -N $chain; done
        $program -A INPUT -j KUBE-FIREWALL
        $program -A FORWARD -j CNI-FORWARD
        $program -t mangle -N CNI-MARK
        $program -t nat -N CNI-HOSTPORT
        $program -t nat -A PREROUTING -j CNI-HOSTPORT
    done
";

/// A real server of somebody else's would be drained: both commands say so.
#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn diff_and_migrate_name_a_real_server_that_no_service_asks_for() {
    name_a_foreign_real_server().unwrap();
}

fn name_a_foreign_real_server() -> Result<()> {
    require_test_kernel()?;
    node_link()?;
    sh("ipvsadm -A -t 10.96.10.1:80 -s rr
        ipvsadm -a -t 10.96.10.1:80 -r 203.0.113.9:80 -m -w 1")?;
    let scenario = golden::root().join("clusterip-tcp");
    for command in [&["diff"][..], &["migrate", "--check"]] {
        let mut run = Command::new(program("proxier")?);
        run.args(command).arg("--config").arg(scenario.join("config.yaml"));
        run.arg("--manifests").arg(scenario.join("objects.yaml"));
        let output = run.output()?;
        let text = String::from_utf8(output.stdout)?;
        ensure!(
            output.status.code() == Some(1) && text.contains("203.0.113.9:80"),
            "{command:?}: {}\n{text}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn a_clean_up_leaves_the_kernel_as_it_was() {
    clean_up().unwrap();
}

fn clean_up() -> Result<()> {
    require_test_kernel()?;
    node_link()?;
    ip("addr add fd00:50::10/64 dev node0 nodad")?;
    // The built-in chains are listed only once something has used their tables.
    sh(OTHERS)?;
    let before = everything()?;

    let scratch = Scratch::create()?;
    let objects = golden::root().join("dual-stack-service/objects.yaml");
    scratch.replace("manifests/objects.yaml", fs::read(objects)?)?;
    let config = scratch.replace(
        "config.yaml",
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: ipvs\n\
         hostnameOverride: node-a\nclusterCIDR: 10.244.0.0/16,fd00:10:244::/56\n\
         ipvs: {scheduler: rr, excludeCIDRs: [198.51.100.0/24, '2001:db8:9::/64']}\n",
    )?;
    let path = scratch.path();
    let mut daemon = Daemon::start(None, &config, &path.join("manifests"), &path.join("log"))?;
    let program = program("proxier")?;
    // Waits for the last thing that a first step does, and for both families' rules.
    daemon.wait(
        || {
            let arguments = ["diff", "--config", &config.display().to_string(), "--manifests"];
            let status =
                Command::new(&program).args(arguments).arg(path.join("manifests")).output()?.status;
            Ok((status.code() == Some(0)).then_some(()))
        },
        || everything().unwrap_or_default(),
    )?;
    daemon.stop()?;
    let programmed = everything()?;
    for found in ["KUBE-6-CLUSTER-IP", "KUBE-CLUSTER-IP", "kube-ipvs0", "KUBE-IPVS-OUT-FILTER"] {
        ensure!(programmed.contains(found), "the daemon made no {found}:\n{programmed}");
    }

    let said = run(&program.display().to_string(), ["cleanup"])?;
    let after = everything()?;
    ensure!(after == before, "{said}\nbefore:\n{before}\nafter:\n{after}");
    let again = run(&program.display().to_string(), ["cleanup"])?;
    ensure!(!again.contains("removed"), "nothing was left to remove: {again}");
    ensure!(everything()? == before);
    Ok(())
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn services_without_endpoints_refuse() {
    let mut world = World::build("rr").unwrap();
    let addresses = ["10.96.0.30", "fd00:10:96::30"];
    let service = Service::new("empty", &addresses)
        .node_port(Protocol::Tcp, 80, TCP, 30080)
        .node_port(Protocol::Udp, 53, UDP, 30053);
    world.apply(&[service.document()], 0, &addresses).unwrap();
    let topology = &world.topology;
    let node = &topology.node().host;
    for from in [&topology.client, topology.node().pod("pod-a"), node] {
        let cluster_ips = addresses.iter().flat_map(|address| {
            [(Protocol::Tcp, 80), (Protocol::Udp, 53)]
                .map(|(protocol, port)| (protocol, address.parse().unwrap(), port))
        });
        let node_ports = [(Protocol::Tcp, 30080), (Protocol::Udp, 30053)]
            .map(|(protocol, port)| (protocol, node.ipv4.into(), port));
        for (protocol, address, port) in cluster_ips.chain(node_ports) {
            let to = Place::new(protocol, address, port);
            let load = Load { to, times: 1, source: None, timeout: 5000, one_socket: false };
            let report = Client::new(&from.namespace).connect(&load).unwrap();
            let place =
                format!("{} {protocol} {address} {port}: {report:?}", from.namespace.name());
            // On the node itself the packet is dropped while it is being sent, which is told at once.
            let is_node = from.namespace.name() == node.namespace.name();
            let error = match protocol {
                Protocol::Udp if is_node => "Operation not permitted (os error 1)",
                _ => "refused",
            };
            assert_eq!(report.errors, [(error.to_owned(), 1)].into(), "{place}");
        }
    }
}

/// A Service with one UDP port behind every kind of frontend.
fn dns(name: &str, cluster_ip: &str, outside: [&str; 2], node_port: u16) -> Service {
    Service::new(name, &[cluster_ip])
        .external_ips(&outside[..1])
        .load_balancer(&outside[1..])
        .node_port(Protocol::Udp, 53, UDP, node_port)
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn exactly_the_flows_of_endpoints_that_are_gone_are_forgotten() {
    let mut world = World::build("rr").unwrap();
    let gone = dns("gone", "10.96.0.40", ["203.0.113.40", "203.0.113.41"], 30040);
    let kept = dns("kept", "10.96.0.50", ["203.0.113.50", "203.0.113.51"], 30050);
    let objects = |world: &World, pods: &[&str]| {
        let node = world.topology.node();
        let pods: Vec<_> = pods.iter().map(|name| (node.pod(name), node)).collect();
        let other = [(node.pod("pod-c"), node)];
        [gone.document(), gone.slice(V4, &pods), kept.document(), kept.slice(V4, &other)]
    };
    let bound = [
        "10.96.0.40",
        "203.0.113.40",
        "203.0.113.41",
        "10.96.0.50",
        "203.0.113.50",
        "203.0.113.51",
    ];
    // Each node port is on two addresses.
    let two = objects(&world, &["pod-a", "pod-b"]);
    world.apply(&two, 5 * 2 + 5, &bound).unwrap();
    let node_address = world.topology.node().host.ipv4.to_string();
    let node = &world.topology.node().host.namespace;
    // They must not end by themselves meanwhile.
    node.sysctls(&[("net/netfilter/nf_conntrack_udp_timeout", "600")]).unwrap();
    let mut expected = 0;
    for (addresses, node_port) in [(&bound[..3], 30040), (&bound[3..], 30050)] {
        let places = addresses.iter().map(|ip| format!("{ip}:53"));
        for place in places.chain([format!("{node_address}:{node_port}")]) {
            let to: Place = format!("udp:{place}").parse().unwrap();
            // Two each: one for each pod of the first Service.
            let load = Load { to, times: 2, source: None, timeout: 5000, one_socket: false };
            let report = Client::new(&world.topology.client.namespace).connect(&load).unwrap();
            assert_eq!(report.answered(), 2, "{place}: {report:?}");
            expected += 2;
        }
    }
    // `-s` the client; who answers is the reply's source.
    let flows = |node: &Namespace| -> Result<Vec<String>> {
        let text = node.sh("conntrack -L -p udp -s 192.168.50.100 2>/dev/null || true")?;
        // The number that counts down.
        let steady = |line: &str| line.split_whitespace().skip(3).collect::<Vec<_>>().join(" ");
        let mut flows: Vec<String> = text.lines().map(steady).collect();
        flows.sort_unstable();
        Ok(flows)
    };
    let all = flows(&world.topology.node().host.namespace).unwrap();
    assert_eq!(all.len(), expected, "{all:#?}");

    world.restart(&[]).unwrap();
    assert_eq!(flows(&world.topology.node().host.namespace).unwrap(), all, "after a restart");

    // One pod goes: its flows through every frontend, and no other.
    let answered_by = |flow: &str, ip: &str| flow.contains(&format!("src={ip} "));
    let left = |pods: &[&str]| -> Vec<String> {
        all.iter().filter(|flow| pods.iter().any(|ip| answered_by(flow, ip))).cloned().collect()
    };
    let [a, b, c] = ["10.244.0.5", "10.244.0.6", "10.244.0.7"];
    assert_eq!([left(&[a]).len(), left(&[b]).len(), left(&[c]).len()], [4, 4, 8], "{all:#?}");
    for (pods, rest) in [(&["pod-b"][..], left(&[b, c])), (&[], left(&[c]))] {
        let objects = objects(&world, pods);
        world.apply(&objects, 5 * pods.len() + 5, &bound).unwrap();
        let only_these = |topology: &Topology| Ok(flows(&topology.node().host.namespace)? == rest);
        world.wait(only_these, |_| format!("only {rest:#?}")).unwrap();
    }
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn addresses_of_the_node_are_followed_as_they_change() {
    let mut world = World::build("rr").unwrap();
    let vip = "203.0.113.60";
    let service = Service::new("moving", &["10.96.0.60"]).external_ips(&[vip]).node_port(
        Protocol::Tcp,
        80,
        TCP,
        30060,
    );
    world.apply(&[service.document()], 0, &["10.96.0.60", vip]).unwrap();
    let listens = |topology: &Topology, place: &str| -> Result<bool> {
        let table = topology.node().host.namespace.sh("ipvsadm-save -n")?;
        Ok(table.contains(&format!("-t {place} ")))
    };
    let bound = |topology: &Topology| -> Result<bool> {
        let addresses = topology.node().host.namespace.sh("ip -o addr show dev kube-ipvs0")?;
        Ok(addresses.contains(&format!(" {vip}/")))
    };
    let change = |world: &World, verb: &str, address: &str| {
        let node = &world.topology.node().host.namespace;
        node.ip(&format!("addr {verb} {address} dev eth0")).unwrap();
    };
    for (verb, present) in [("add", true), ("del", false)] {
        change(&world, verb, "192.168.50.77/24");
        let taken = |topology: &Topology| Ok(listens(topology, "192.168.50.77:30060")? == present);
        world.wait(taken, |_| format!("node port on 192.168.50.77: {present}")).unwrap();
        // An external IP that another interface has is served, but not ours to bind.
        change(&world, verb, &format!("{vip}/32"));
        let wanted = |_: &Topology| format!("{vip} is the node's: {present}");
        world.wait(|topology| Ok(bound(topology)? != present), wanted).unwrap();
        assert!(listens(&world.topology, &format!("{vip}:80")).unwrap());
        // And it takes node ports itself while it is there.
        let port = format!("{vip}:30060");
        world.wait(|topology| Ok(listens(topology, &port)? == present), wanted).unwrap();
    }
}
