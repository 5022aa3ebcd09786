//! Taking over from kube-proxy and from an older run: what is there is adopted as it is, while
//! connections run through it, and what kube-proxy would find afterwards is what it left.

#[path = "takeover/hand_over.rs"]
mod hand_over;
#[path = "takeover/other_modes.rs"]
mod other_modes;
#[path = "takeover/split.rs"]
mod split;
#[path = "takeover/ways.rs"]
mod ways;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use proxier_tests::command::{output, program};
use proxier_tests::daemon::{Daemon, Scratch};
use proxier_tests::golden::{
    Dump, Part, Scenario, Step, compare, ignore_rules_of_empty_sets, observe, put, root,
};
use proxier_tests::netns::{Namespace, ip, require_test_kernel};
use proxier_tests::traffic::{Client, Held, Load, Place, Protocol, Rate, Report, Server};
use proxier_tests::{figure, full};

/// Milliseconds after which a connection is lost, however busy the machine is: it has been tried seven
/// times by then.
const HANGS: u64 = 120_000;

/// The addresses of the service whose connections are kept.
const VIPS: [&str; 4] = ["203.0.113.51", "10.96.42.1", "2001:db8:51::1", "fd00:10:96::4201"];

/// The service's endpoints: their namespaces and addresses.
const PODS: [(&str, &str, &str); 2] =
    [("here", "10.244.0.171", "fd00:10:244::171"), ("there", "10.244.1.171", "fd00:10:244:1::171")];

/// A load balancer address whose source ranges leave the client out, and the cluster IP of the same service.
const CLOSED: &str = "203.0.113.77";
/// See [`CLOSED`].
const CLOSED_INSIDE: &str = "10.96.42.77";

/// What kube-proxy leaves, beside kernel settings.
const PARTS: [Part; 4] = [Part::Ipvs, Part::Addresses, Part::Sets, Part::Rules];

/// A node as kube-proxy left it, and the daemons that took it over so far.
struct Node<'a> {
    namespace: &'a Namespace,
    step: &'a Step,
    scratch: Scratch,
    daemon: Option<Daemon>,
    /// `--local-policy`. With what kube-proxy has left everything is compared.
    policy: &'static str,
}

impl<'a> Node<'a> {
    /// A namespace that has its links already.
    fn new(namespace: &'a Namespace, step: &'a Step) -> Result<Self> {
        put(Some(namespace), &step.expected)?;
        let node = Self::with(namespace, step)?;
        node.is_as_left("put there")?;
        Ok(node)
    }

    /// A namespace as it is.
    fn with(namespace: &'a Namespace, step: &'a Step) -> Result<Self> {
        let scratch = Scratch::create()?;
        scratch.replace("manifests/objects.yaml", fs::read(&step.objects)?)?;
        Ok(Self { namespace, step, scratch, daemon: None, policy: "kube-proxy" })
    }

    /// Adds a service with the same endpoints, whose source ranges leave the client out.
    fn add_closed(&self) -> Result<()> {
        let [(_, here, _), (_, there, _)] = PODS;
        let text = format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: closed, namespace: default}},
              spec: {{type: LoadBalancer, clusterIP: {CLOSED_INSIDE}, clusterIPs: [{CLOSED_INSIDE}],
                ipFamilies: [IPv4], allocateLoadBalancerNodePorts: false,
                loadBalancerSourceRanges: [198.51.100.0/24],
                ports: [{{port: 80, targetPort: 8080, protocol: TCP}}]}},
              status: {{loadBalancer: {{ingress: [{{ip: {CLOSED}}}]}}}}}}
---
{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4,
              metadata: {{name: closed-1, namespace: default,
                labels: {{kubernetes.io/service-name: closed}}}},
              ports: [{{name: \"\", port: 8080, protocol: TCP}}],
              endpoints: [{{addresses: [{here}]}}, {{addresses: [{there}]}}]}}
"
        );
        self.scratch.replace("manifests/closed.yaml", text).map(drop)
    }

    /// Starts a program as the node's daemon, and waits until it says that all is well. What it has
    /// changed until then is the result.
    fn start(&mut self, program: &Path) -> Result<Vec<String>> {
        self.start_with(program, "")
    }

    /// The same with a flag.
    fn start_with(&mut self, program: &Path, flag: &str) -> Result<Vec<String>> {
        let log = self.scratch.path().join("log");
        let manifests = self.scratch.path().join("manifests");
        let (config, manifests) = (self.step.config.display(), manifests.display());
        let policy = self.policy;
        let arguments = format!(
            "--v=2 --local-policy={policy} --config {config} --manifests {manifests} {flag}"
        );
        let before = self.operations().len();
        let words = arguments.split_whitespace();
        let mut daemon = Daemon::start_program(program, Some(self.namespace), words, &log)?;
        daemon.ready()?;
        self.daemon = Some(daemon);
        Ok(self.operations().split_off(before))
    }

    /// Starts a hand-over to this mode of kube-proxy.
    fn hand_over(&self, mode: &str) -> Result<Daemon> {
        let log = self.scratch.path().join("log");
        let manifests = self.scratch.path().join("manifests");
        let (config, manifests) = (self.step.config.display(), manifests.display());
        let words =
            format!("hand-over --to {mode} --v=2 --config {config} --manifests {manifests}");
        Daemon::start_with(Some(self.namespace), words.split(' '), &log)
    }

    /// What all daemons have logged.
    fn log(&self) -> String {
        fs::read_to_string(self.scratch.path().join("log")).unwrap_or_default()
    }

    /// The operations that all daemons have carried out.
    fn operations(&self) -> Vec<String> {
        let log = self.log();
        let operation = |line: &str| Some(line.split_once("done op=")?.1.to_owned());
        log.lines().filter_map(operation).collect()
    }

    /// Fails unless the node is as kube-proxy left it.
    fn is_as_left(&self, when: &str) -> Result<()> {
        let mut left = self.step.expected.clone();
        let mut found = observe(Some(self.namespace), &left, &PARTS)?;
        ignore_rules_of_empty_sets(&mut left, &mut found);
        let difference = compare(&left, &found, &PARTS);
        ensure!(difference.is_empty(), "{when}, it is not as kube-proxy left it:\n{difference}");
        Ok(())
    }

    /// Stops the daemon with SIGTERM.
    fn stop(&mut self) -> Result<()> {
        self.daemon.take().context("a daemon that runs")?.stop()
    }
}

/// Rules of empty sets may be missing in what kube-proxy leaves; nothing else is to be done.
fn only_rules(operations: &[String]) -> bool {
    operations.iter().all(|operation| operation.contains("firewall"))
}

/// Scenarios with one step that were recorded in a namespace as tests have it. What was there before
/// kube-proxy is no matter here.
fn scenarios() -> Result<Vec<Scenario>> {
    let bounded = [
        "dual-stack-service",
        "etp-local-with-local-endpoints",
        "lb-source-ranges-with-node",
        "session-affinity-default",
        "stale-jumps-and-order",
        "three-protocols-one-vip",
        "volume-60-services",
    ];
    let mut scenarios = Vec::new();
    for entry in fs::read_dir(root())? {
        let entry = entry?;
        let name = entry.file_name().into_string().ok().context("a name in UTF-8")?;
        if entry.path().is_dir() && (full() || bounded.contains(&&*name)) {
            scenarios.push(Scenario::load(&name)?);
        }
    }
    scenarios.retain(|scenario| scenario.steps.len() == 1 && !scenario.initial_namespace);
    Ok(scenarios)
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn what_kube_proxy_left_is_adopted_unchanged() {
    adopt_all().unwrap();
}

fn adopt_all() -> Result<()> {
    require_test_kernel()?;
    let proxier = program("proxier")?;
    let scenarios = scenarios()?;
    ensure!(scenarios.len() > 5, "{} scenarios", scenarios.len());
    for (number, scenario) in scenarios.iter().enumerate() {
        let name = format!("adopt-{number}");
        ip(&format!("netns add {name}"))?;
        let namespace = Namespace::named(&name);
        namespace.sh(&format!("ip link set lo up\n{}", scenario.setup.join("\n")))?;
        let adopt = || -> Result<()> {
            let mut node = Node::new(&namespace, &scenario.steps[0])?;
            let operations = node.start(&proxier)?;
            ensure!(only_rules(&operations), "taken over with {operations:#?}");
            node.is_as_left("taken over")?;
            node.stop()?;
            node.is_as_left("given back")
        };
        adopt().context(scenario.name.clone())?;
        ip(&format!("netns delete {name}"))?;
    }
    figure(&format!("{} recorded states taken over: nothing deleted or changed", scenarios.len()));
    Ok(())
}

/// Two pods behind the node, reached by routes alone, so that the node's addresses are the recorded
/// ones; the other node's pod is one of them. The client is where the node's first link leads.
fn build(scenario: &Scenario, pods: [(&str, &str, &str); 2]) -> Result<[Namespace; 4]> {
    let names = ["node", "client", pods[0].0, pods[1].0];
    let mut batch = names.map(|name| format!("netns add {name}")).join("\n");
    batch += "\nlink add node0 netns node type veth peer name eth0 netns client";
    for (name, ..) in pods {
        batch = batch + "\nlink add " + name + " netns node type veth peer name eth0 netns " + name;
    }
    ip(&batch)?;
    let spaces = names.map(Namespace::named);
    let setup = scenario.setup.iter().filter(|line| !line.contains("link add node0"));
    let mut script = setup.fold("ip link set lo up\n".to_owned(), |text, line| text + line + "\n");
    // As kube-proxy has set them.
    script += "echo 1 >/proc/sys/net/ipv4/ip_forward
        echo 1 >/proc/sys/net/ipv6/conf/all/forwarding
        for setting in conntrack expire_nodest_conn expire_quiescent_template; do
            echo 1 >/proc/sys/net/ipv4/vs/$setting
        done\n";
    script.extend(pods.map(|(name, v4, v6)| {
        format!(
            "ip link set {name} addrgenmode none; ip link set {name} up
             ip addr add fe80::1/64 dev {name} nodad
             echo 1 >/proc/sys/net/ipv4/conf/{name}/proxy_arp
             ip route add {v4}/32 dev {name}; ip route add {v6}/128 dev {name}\n"
        )
    }));
    spaces[0].sh(&script)?;
    let up = "ip link set lo up; ip link set eth0 addrgenmode none; ip link set eth0 up";
    spaces[1].sh(&format!(
        "{up}
         ip addr add 192.168.50.100/24 dev eth0; ip addr add fd00:50::100/64 dev eth0 nodad
         ip addr add fe80::100/64 dev eth0 nodad
         ip route add default via 192.168.50.10; ip route add ::/0 via fd00:50::10"
    ))?;
    // From another address to each: IPVS knows an answer by the endpoint and the client's address and
    // port, so that connections from one port to two VIPs with the same endpoint are mixed up.
    for (number, vip) in (101..).zip(VIPS) {
        let (source, length, gateway) = if vip.contains(':') {
            (format!("fd00:50::{number}"), "64 dev eth0 nodad", "fd00:50::10")
        } else {
            (format!("192.168.50.{number}"), "24 dev eth0", "192.168.50.10")
        };
        spaces[1].sh(&format!(
            "ip addr add {source}/{length}; ip route add {vip} via {gateway} src {source}"
        ))?;
    }
    for (space, (_, v4, v6)) in spaces[2..].iter().zip(pods) {
        space.sh(&format!(
            "{up}
             ip addr add {v4}/32 dev eth0; ip addr add {v6}/128 dev eth0 nodad
             ip addr add fe80::2/64 dev eth0 nodad
             ip route add 169.254.1.1 dev eth0; ip route add default via 169.254.1.1 dev eth0
             ip route add ::/0 via fe80::1 dev eth0"
        ))?;
    }
    Ok(spaces)
}

/// Starts the endpoints.
fn serve(spaces: [&Namespace; 2]) -> Result<Vec<Server>> {
    let start = |(space, (name, v4, v6)): (_, (&str, &str, &str))| {
        let places = [v4, v6].map(|ip| ip.parse().map(|ip| Place::new(Protocol::Tcp, ip, 8080)));
        Server::start(space, name, &places.into_iter().collect::<Result<Vec<_>, _>>()?)
    };
    spaces.into_iter().zip(PODS).map(start).collect()
}

/// Connections that are open, and new ones, in both families.
struct Traffic {
    held: Vec<Held>,
    rates: Vec<Rate>,
    /// To an address whose source ranges leave the client out.
    shut_out: Option<Rate>,
}

impl Traffic {
    /// `held` connections and `per_second` new ones a second, in equal parts to these addresses.
    fn start(client: &Namespace, to: &[&str], held: u32, per_second: u32) -> Result<Self> {
        let parts = u32::try_from(to.len())?;
        let mut traffic = Self { held: Vec::new(), rates: Vec::new(), shut_out: None };
        for address in to {
            let to = Place::new(Protocol::Tcp, address.parse()?, 80);
            let load =
                Load { to, times: held / parts, source: None, timeout: HANGS, one_socket: false };
            let open = Client::new(client).hold(&load)?;
            ensure!(open.opened.answered() == load.times, "{address}: {:?}", open.opened);
            traffic.held.push(open);
            let endless = Load { times: u32::MAX, ..load };
            traffic.rates.push(Client::new(client).rate(&endless, per_second / parts)?);
        }
        Ok(traffic)
    }

    /// Tries from now on, all the time, to reach the service that is closed to the client.
    fn try_closed(&mut self, client: &Namespace) -> Result<()> {
        let to = Place::new(Protocol::Tcp, CLOSED.parse()?, 80);
        let load = Load { to, times: u32::MAX, source: None, timeout: 1000, one_socket: false };
        self.shut_out = Some(Client::new(client).rate(&load, 20)?);
        Ok(())
    }

    /// Waits until every address has had new connections from now on.
    fn goes_on(&mut self, when: &str) -> Result<()> {
        for rate in &mut self.rates {
            let before = rate.so_far()?.answered();
            // More than were under way.
            let more = |now: &Report| now.answered() > before + 20;
            rate.until(more).with_context(|| format!("new connections {when}"))?;
        }
        Ok(())
    }

    /// Makes no more new ones over IPv6, of which none has failed.
    fn end_ipv6(&mut self) -> Result<u32> {
        let first = VIPS.iter().take_while(|vip| !vip.contains(':')).count();
        let mut made = 0;
        for rate in self.rates.drain(first..) {
            let report = rate.end()?;
            ensure!(report.failed() == 0, "{report:?}");
            made += report.answered();
        }
        Ok(made)
    }

    /// Closes those that were held, none of which has failed; how many these were.
    fn let_go(&mut self) -> Result<u32> {
        let mut kept = 0;
        for mut held in self.held.drain(..) {
            let (before, after) = (held.opened.clone(), held.ask()?);
            ensure!(after == before, "open connections: {before:?}, then {after:?}");
            kept += after.answered();
        }
        Ok(kept)
    }

    /// How many were made anew, and how many were held, none of which has failed.
    fn end(mut self) -> Result<(u32, u32)> {
        let mut made = 0;
        if let Some(shut_out) = self.shut_out.take() {
            let report = shut_out.end()?;
            ensure!(report.answered() == 0 && report.failed() > 0, "closed: {report:?}");
        }
        for rate in self.rates.drain(..) {
            let report = rate.end()?;
            ensure!(report.failed() == 0, "{report:?}");
            made += report.answered();
        }
        Ok((made, self.let_go()?))
    }
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn connections_survive_taking_over_restarts_and_an_upgrade() {
    take_over().unwrap();
}

fn take_over() -> Result<()> {
    require_test_kernel()?;
    let scenario = Scenario::load("dual-stack-service")?;
    let step = &scenario.steps[0];
    let [node, client, pod, other] = build(&scenario, PODS)?;
    let _servers = serve([&pod, &other])?;
    let mut node = Node::new(&node, step)?;

    // As kube-proxy left it, it works.
    let begin = Instant::now();
    let mut traffic = Traffic::start(&client, &VIPS, 200, 200)?;
    traffic.goes_on("left by kube-proxy")?;

    let proxier = program("proxier")?;
    let operations = node.start(&proxier)?;
    ensure!(only_rules(&operations), "taken over with {operations:#?}");
    node.is_as_left("taken over")?;
    traffic.goes_on("taken over")?;

    // SIGKILL.
    node.daemon = None;
    traffic.goes_on("killed")?;
    let operations = node.start(&proxier)?;
    ensure!(operations.is_empty(), "restarted with {operations:#?}");
    node.is_as_left("restarted")?;
    traffic.goes_on("restarted")?;

    node.stop()?;
    node.is_as_left("stopped")?;
    traffic.goes_on("stopped")?;
    let upgrade: PathBuf = node.scratch.path().join("proxier-next");
    fs::copy(&proxier, &upgrade)?;
    let operations = node.start(&upgrade)?;
    ensure!(operations.is_empty(), "upgraded with {operations:#?}");
    node.is_as_left("upgraded")?;
    traffic.goes_on("upgraded")?;

    node.stop()?;
    node.is_as_left("given back")?;
    traffic.goes_on("given back")?;
    let took = begin.elapsed().as_secs_f64();
    let (made, kept) = traffic.end()?;
    figure(&format!(
        "taking over, SIGKILL, SIGTERM, upgrade: {kept} connections kept, {made} new ones in {took:.1} s \
         ({:.0} a second), 0 failed; nothing deleted or changed",
        f64::from(made) / took,
    ));

    // Only now, and all of it.
    let said = output(node.namespace.command(&upgrade).arg("cleanup"))?;
    let found = observe(Some(node.namespace), &Dump::default(), &PARTS)?;
    let names: BTreeSet<&String> = [&found.nat4, &found.filter4, &found.nat6, &found.filter6]
        .into_iter()
        .flat_map(|chains| chains.0.keys())
        .collect();
    let left = (&found.ipvs, &found.addresses, &found.sets, &names);
    ensure!(
        found.ipvs.is_empty()
            && found.addresses.is_empty()
            && found.sets.is_empty()
            && names.is_empty(),
        "left after\n{said}\n{left:#?}"
    );
    Ok(())
}
