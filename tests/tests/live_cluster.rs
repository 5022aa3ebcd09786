//! The daemon fed by an API server, over a real kernel: what is put is programmed, what changes
//! follows, and nothing is lost when the server misbehaves.

#![allow(clippy::unwrap_used, reason = "what fails outside of a test function fails the test, too")]

use std::process::Command;
use std::time::Instant;

use proxier_tests::apiserver::object::{node, service, slice};
use proxier_tests::apiserver::{Fault, On};
use proxier_tests::command::{output, run};
use proxier_tests::figure;
use proxier_tests::golden::{Blocks, Dump};
use proxier_tests::live::{Live, NODE, NODE_ADDRESS, kernel};
use proxier_tests::netns::require_test_kernel;
use serde_json::{Value, json};

/// No audit within a test: what is repaired or programmed is so because of an event.
const NO_AUDIT: &str = "--ipvs-sync-period=1h";

/// What the daemon says once, when the kernel is as it should be.
const READY: &str = "ready: the kernel is as the cluster says";

/// A server with three Services, of which `web` has two endpoints, and the node.
fn live() -> Live {
    require_test_kernel().unwrap();
    let live = Live::start().unwrap();
    live.server.put_all([
        node(NODE, NODE_ADDRESS),
        service("dev", "web", "10.96.0.1"),
        slice("dev", "web-1", "web", &["10.244.0.5", "10.244.0.6"]),
        service("dev", "other", "10.96.0.2"),
        slice("dev", "other-1", "other", &["10.244.0.7"]),
        service("dev", "empty", "10.96.0.3"),
    ]);
    live
}

/// [`live`] with a daemon that has programmed it.
fn programmed() -> Live {
    let mut live = live();
    live.start_daemon(&[NO_AUDIT]).unwrap();
    let kernel = live.converge("the three services").unwrap();
    assert_eq!(kernel.ipvs, table(&[(1, &[5, 6]), (2, &[7]), (3, &[])]));
    live
}

/// Virtual servers `10.96.0.N:80` with real servers `10.244.0.M:8080`.
fn table(servers: &[(u8, &[u8])]) -> Blocks {
    let entry = |&(vip, pods): &(u8, &[u8])| {
        let vip = format!("-t 10.96.0.{vip}:80");
        let pod = |pod: &u8| format!("-a {vip} -r 10.244.0.{pod}:8080 -m -w 1");
        let mut servers: Vec<String> = pods.iter().map(pod).collect();
        servers.sort_unstable();
        (format!("-A {vip} -s rr"), servers)
    };
    servers.iter().map(entry).collect()
}

/// Operations that take something away, apart from the hairpin members that go with real servers.
fn removals(live: &Live) -> Vec<String> {
    let mut operations = live.operations().unwrap();
    operations.retain(|operation| !operation.ends_with(" from set KUBE-LOOP-BACK"));
    operations
        .retain(|operation| operation.starts_with("remove") || operation.starts_with("unbind"));
    operations
}

/// What taking away the Service with cluster IP 10.96.0.N costs, real servers apart.
fn removal(number: u8) -> [String; 4] {
    let ip = format!("10.96.0.{number}");
    [
        format!("unbind {ip}"),
        format!("remove virtual server {ip}:80/tcp"),
        format!("remove {ip},tcp:80 from set KUBE-CLUSTER-IP"),
        format!("remove {ip} from set KUBE-IPVS-IPS"),
    ]
}

/// How often the log says this.
fn times(log: &str, text: &str) -> usize {
    log.matches(text).count()
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn what_is_put_is_programmed_and_changes_follow() {
    let mut live = programmed();
    let kernel = kernel().unwrap();
    assert!(kernel.addresses.contains("inet 10.96.0.1/32 scope global"), "{kernel:?}");
    assert_eq!(
        kernel.set("KUBE-CLUSTER-IP"),
        ["10.96.0.1,tcp:80", "10.96.0.2,tcp:80", "10.96.0.3,tcp:80"]
    );

    // Endpoints come and go; nothing has a connection, so nothing drains.
    live.server.put(slice("dev", "web-1", "web", &["10.244.0.6", "10.244.0.9"]));
    let kernel = live.converge("other endpoints").unwrap();
    assert_eq!(kernel.ipvs, table(&[(1, &[6, 9]), (2, &[7]), (3, &[])]));

    // A second slice, first of a Service that had none.
    live.server.put(slice("dev", "empty-1", "empty", &["10.244.0.8"]));
    live.server.put(slice("dev", "web-2", "web", &["10.244.0.5"]));
    let kernel = live.converge("more slices").unwrap();
    assert_eq!(kernel.ipvs, table(&[(1, &[5, 6, 9]), (2, &[7]), (3, &[8])]));

    // Another port, another type and other addresses of the same Service.
    let mut web = service("dev", "web", "10.96.0.1");
    web["spec"]["type"] = json!("NodePort");
    web["spec"]["ports"][0]["port"] = json!(81);
    web["spec"]["ports"][0]["nodePort"] = json!(30080);
    web["spec"]["externalIPs"] = json!(["203.0.113.7"]);
    web["spec"]["sessionAffinity"] = json!("ClientIP");
    live.server.put(web);
    let kernel = live.converge("another port and more addresses").unwrap();
    for vip in ["10.96.0.1:81", "192.0.2.1:30080", "203.0.113.7:81"] {
        let servers = kernel.ipvs.get(&format!("-A -t {vip} -s rr -p 10800"));
        assert_eq!(servers.map(Vec::len), Some(3), "{vip}: {:?}", kernel.ipvs);
    }
    assert!(!kernel.ipvs.contains_key("-A -t 10.96.0.1:80 -s rr"));

    live.server.delete("endpointslices", "dev", "web-1");
    live.server.delete("services", "dev", "other");
    live.converge("a slice and a service deleted").unwrap();

    live.server.clear("services");
    let kernel = live.converge("every service deleted").unwrap();
    assert_eq!(kernel.ipvs, Blocks::new());
    assert!(kernel.addresses.iter().all(|line| line.starts_with("link ")), "{kernel:?}");
    assert!(kernel.sets.values().all(Vec::is_empty), "{:?}", kernel.sets);
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn while_the_server_is_gone_the_kernel_stays_and_then_follows() {
    let mut live = programmed();
    live.stop_server();
    let refused = |log: &str| times(log, "Connection refused");
    live.until("attempts that were refused", |log, _| refused(log) >= 6).unwrap();
    assert_eq!(kernel().unwrap().ipvs, table(&[(1, &[5, 6]), (2, &[7]), (3, &[])]));
    assert_eq!(removals(&live), [""; 0]);

    // A daemon that starts while the server is gone programs nothing, and takes nothing away.
    let before = live.operations().unwrap();
    let tried = refused(&live.log());
    live.start_daemon(&[NO_AUDIT]).unwrap();
    live.until("more attempts that were refused", |log, _| refused(log) >= tried + 4).unwrap();
    assert_eq!(kernel().unwrap().ipvs, table(&[(1, &[5, 6]), (2, &[7]), (3, &[])]));
    assert_eq!(live.operations().unwrap(), before);

    live.server.put(slice("dev", "web-1", "web", &["10.244.0.6", "10.244.0.9"]));
    live.server.delete("services", "dev", "other");
    live.server.put(service("dev", "late", "10.96.0.4"));
    // As a fresh API server does before its roles are there: two answers on each kind.
    for kind in ["services", "endpointslices", "nodes"] {
        live.server.fault(On::Any(kind), 2, Fault::Refuse { code: 403, retry_after: None });
    }
    live.resume_server().unwrap();
    live.until_faults_happened().unwrap();
    let ready = Instant::now();
    let kernel = live.converge("what was changed meanwhile").unwrap();
    figure(&format!(
        "changes were in the kernel {} ms after an API server was ready again",
        ready.elapsed().as_millis()
    ));
    assert_eq!(kernel.ipvs, table(&[(1, &[6, 9]), (3, &[]), (4, &[])]));
    let mut wanted: Vec<String> = removal(2).into();
    wanted.push("remove real server 10.244.0.5:8080 of 10.96.0.1:80/tcp".to_owned());
    assert_same(&removals(&live), &wanted);
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn changes_whose_history_is_gone_are_found_by_reading_anew() {
    let mut live = programmed();
    live.stop_server();
    live.server.delete("services", "dev", "other");
    live.server.put(slice("dev", "web-1", "web", &["10.244.0.5", "10.244.0.6", "10.244.0.9"]));
    live.server.compact();
    live.resume_server().unwrap();
    let kernel = live.converge("what was changed meanwhile").unwrap();
    assert_eq!(kernel.ipvs, table(&[(1, &[5, 6, 9]), (3, &[])]));
    assert_same(&removals(&live), &removal(2));

    // The database behind the server goes back in time.
    let snapshot = live.server.snapshot();
    live.server.put(service("dev", "later", "10.96.0.5"));
    live.converge("a service more").unwrap();
    live.stop_server();
    live.server.restore(snapshot);
    live.resume_server().unwrap();
    let kernel = live.converge("the database of before").unwrap();
    assert_eq!(kernel.ipvs, table(&[(1, &[5, 6, 9]), (3, &[])]));
    assert_same(&removals(&live), &[removal(2), removal(5)].concat());
}

/// Lists that end early, in every way: the daemon has something to lose, and has to read anew.
#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn a_list_that_was_not_read_to_its_end_deletes_nothing() {
    let mut live = live();
    let mut last = 10;
    for fault in [
        Fault::End { after: 0 },
        Fault::Cut { after: 400 },
        Fault::HalfEvent { after: 1 },
        Fault::Body("{\"kind\":\"ServiceList\",\"items\":[]}".to_owned()),
    ] {
        // A new one each time: waits grow with every failure.
        let ready = times(&live.log(), READY);
        live.start_daemon(&[NO_AUDIT]).unwrap();
        live.until("ready", |log, _| times(log, READY) > ready).unwrap();
        for kind in ["services", "endpointslices"] {
            live.server.fault(On::Streaming(kind), 1, fault.clone());
        }
        // So that no watch sees the change before its history is gone.
        live.stop_server();
        last += 1;
        live.server.put(slice(
            "dev",
            "other-1",
            "other",
            &[&format!("10.244.0.{last}"), "10.244.0.7"],
        ));
        live.server.compact();
        live.resume_server().unwrap();
        live.until_faults_happened().unwrap();
        let kernel = live.converge("one endpoint changed").unwrap();
        assert_eq!(kernel.ipvs, table(&[(1, &[5, 6]), (2, &[7, last]), (3, &[])]));
    }
    // Each round took away the endpoint that the one before it had added.
    let wanted: Vec<String> = (11..last)
        .map(|n| format!("remove real server 10.244.0.{n}:8080 of 10.96.0.2:80/tcp"))
        .collect();
    assert_same(&removals(&live), &wanted);
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn a_first_list_that_was_not_read_to_its_end_deletes_nothing() {
    let mut live = programmed();
    let before = live.operations().unwrap();
    for kind in ["services", "endpointslices", "nodes"] {
        live.server.fault(On::Streaming(kind), 1, Fault::End { after: 0 });
        live.server.fault(On::Streaming(kind), 1, Fault::Cut { after: 100 });
    }
    live.start_daemon(&[NO_AUDIT]).unwrap();
    live.until("ready", |log, _| times(log, READY) == 2).unwrap();
    assert_eq!(live.server.pending_faults(), 0);
    assert_eq!(live.operations().unwrap(), before, "the kernel was right already");
}

/// A server that has accepted the request, and then says nothing more: the daemon waits for 30
/// seconds. The name lets `tests/run` start it first.
#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn a_list_that_stalls_is_given_up_when_its_time_expires() {
    let mut live = programmed();
    live.stop_server();
    live.server.fault(On::Streaming("services"), 1, Fault::Stall { after: 600 });
    live.server.fault(On::Streaming("endpointslices"), 1, Fault::Silence);
    live.server.put(slice("dev", "other-1", "other", &["10.244.0.7", "10.244.0.8"]));
    live.server.compact();
    live.resume_server().unwrap();
    live.until_faults_happened().unwrap();
    let kernel = live.converge("an endpoint more").unwrap();
    assert_eq!(kernel.ipvs, table(&[(1, &[5, 6]), (2, &[7, 8]), (3, &[])]));
    assert_eq!(removals(&live), [""; 0]);
}

/// Packets to and from the server are lost without a word, as when its machine has gone: no watch
/// is believed for longer than the keep-alive, and no sooner noticed without it than after minutes.
#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn a_server_that_vanished_is_noticed_when_its_keepalive_expires() {
    let mut live = programmed();
    let url = live.server.url();
    let port = url.rsplit(':').next().unwrap();
    let rules = |action: &str| {
        for side in ["--sport", "--dport"] {
            run("iptables", [action, "INPUT", "-p", "tcp", side, port, "-j", "DROP"]).unwrap();
        }
    };
    rules("-I");
    live.until("connections given up", |log, _| times(log, "timed out (os error 110)") >= 3)
        .unwrap();
    rules("-D");
    live.server.put(slice("dev", "web-1", "web", &["10.244.0.6", "10.244.0.9"]));
    let kernel = live.converge("what was changed meanwhile").unwrap();
    assert_eq!(kernel.ipvs, table(&[(1, &[6, 9]), (2, &[7]), (3, &[])]));
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn a_dry_run_prints_what_the_operators_tool_prints() {
    let live = programmed();
    let printed = output(&mut live.proxier(&["--dry-run", "-o", "ipvsadm"]).unwrap()).unwrap();
    // A script around `ipvsadm -S`, and in the order of the kernel's hash table.
    let saved = run("ipvsadm-save", ["-n"]).unwrap();
    let sorted = |text: &str| -> Vec<String> {
        let mut lines: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
        lines.sort_unstable();
        lines
    };
    assert_eq!(sorted(&printed), sorted(&saved));
    // And it can be fed to the tool.
    run("ipvsadm", ["-C"]).unwrap();
    proxier_tests::command::feed(&mut Command::new("ipvsadm-restore"), &printed).unwrap();
    assert_eq!(kernel().unwrap().ipvs, table(&[(1, &[5, 6]), (2, &[7]), (3, &[])]));
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn diff_says_what_the_daemon_would_change() {
    let mut live = live();
    let (status, text) = live.diff(&[]).unwrap();
    assert_eq!(status, 1, "{text}");
    assert!(text.contains("+ add virtual server 10.96.0.1:80/tcp rr"), "{text}");
    assert_eq!(kernel().unwrap(), Dump::default(), "diff changes nothing");

    live.start_daemon(&[NO_AUDIT]).unwrap();
    live.converge("the three services").unwrap();
    let (status, text) = live.diff(&[]).unwrap();
    assert_eq!((status, text.contains("the kernel is as the cluster says")), (0, true), "{text}");

    run("ipvsadm", ["-d", "-t", "10.96.0.1:80", "-r", "10.244.0.5:8080"]).unwrap();
    run("ipvsadm", ["-A", "-t", "10.96.0.99:80", "-s", "rr"]).unwrap();
    run("ip", ["addr", "del", "10.96.0.3/32", "dev", "lo"]).unwrap_err();
    run("ipset", ["add", "KUBE-CLUSTER-IP", "10.96.0.98,tcp:80"]).unwrap();
    let (status, text) = live.diff(&["-o", "json"]).unwrap();
    assert_eq!(status, 1, "{text}");
    let json = text.lines().skip_while(|line| !line.starts_with('{')).collect::<String>();
    let mut found = serde_json::Deserializer::from_str(&json).into_iter::<Value>();
    let found = found.next().unwrap().unwrap();
    assert_eq!(
        found,
        json!({"same": false, "changes": [
            "add real server 10.244.0.5:8080 to 10.96.0.1:80/tcp, weight 1",
            "remove virtual server 10.96.0.99:80/tcp",
            "remove 10.96.0.98,tcp:80 from set KUBE-CLUSTER-IP",
        ]})
    );
    // Its address is on no interface of a service proxy's, and in no set.
    let check = live.proxier(&["migrate", "--check", "-o", "json"]).unwrap().output().unwrap();
    let report: Value = serde_json::from_slice(&check.stdout).unwrap();
    assert_eq!(report["foreignVirtualServers"], json!(["10.96.0.99:80/tcp"]), "{report}");
    assert_eq!(report["doubts"], json!([]), "{report}");

    // A server that refuses is named, with its answer.
    let refuse = Fault::Refuse { code: 401, retry_after: None };
    live.server.fault(On::Any("services"), usize::MAX / 2, refuse);
    for command in [&["diff"][..], &["migrate", "--check"]] {
        let result = live.proxier(command).unwrap().output().unwrap();
        let said = String::from_utf8_lossy(&result.stderr);
        let wanted = format!("the API server {}/ cannot be read", live.server.url());
        assert!(said.contains(&wanted) && said.contains("refused with 401"), "{said}");
        assert_eq!(result.status.code(), Some(2), "{said}");
    }
    live.server.forgive();

    // Without permission to read the kernel, or without a cluster to compare with: it cannot tell.
    let kubeconfig = ["--kubeconfig", "/nonexistent/config"];
    let (status, text) = live.diff(&kubeconfig).unwrap();
    assert_eq!(status, 2, "{text}");
    for command in [&["diff"][..], &["migrate", "--check"]] {
        let mut limited = Command::new("setpriv");
        limited.args(["--bounding-set=-net_admin", "--inh-caps=-net_admin"]);
        let proxier = live.proxier(command).unwrap();
        let result = limited.arg(proxier.get_program()).args(proxier.get_args()).output().unwrap();
        assert_eq!(result.status.code(), Some(2), "{}", String::from_utf8_lossy(&result.stderr));
    }
}

fn assert_same(found: &[String], wanted: &[String]) {
    let sorted = |list: &[String]| {
        let mut list = list.to_vec();
        list.sort_unstable();
        list
    };
    assert_eq!(sorted(found), sorted(wanted));
}
