//! `proxier explain`: every reason why a service may not look as expected is said in words.

use std::process::{Command, Output};

use proxier_tests::command::program;
use proxier_tests::manifest::over;
use serde_json::{Value, json};

const NODES: &str = "
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {topology.kubernetes.io/zone: a}}
status: {addresses: [{type: InternalIP, address: 192.168.1.10}]}
";

/// Explains `what` over one Service `ns/web` (its further `spec`) with these endpoints, and
/// whatever else is given. The result is (exit status, standard output and error).
fn explain(what: &str, spec: &str, endpoints: &[&str], more: &str) -> (i32, String) {
    let Output { status, stdout, stderr } = asked(&[what], spec, endpoints, more);
    let text = [stdout, stderr].concat();
    (status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
}

fn asked(arguments: &[&str], spec: &str, endpoints: &[&str], more: &str) -> Output {
    let service = format!(
        "---
apiVersion: v1
kind: Service
metadata: {{name: web, namespace: ns, creationTimestamp: '2026-02-01T00:00:00Z'}}
spec:
  clusterIP: 10.96.0.10
  ports: [{{name: http, port: 80, nodePort: 30080}}]
{spec}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: web-1, namespace: ns, labels: {{kubernetes.io/service-name: web}}}}
addressType: IPv4
ports: [{{name: http, port: 8080}}]
endpoints: [{}]
",
        endpoints.join(", ")
    );
    let words = ["explain", "--ipvs-scheduler=rr"].iter().chain(arguments);
    over(&format!("{NODES}{service}{more}"), words).expect("proxier runs")
}

fn says(result: (i32, String), expected: &[&str]) {
    let (status, text) = result;
    assert_eq!(status, 0, "{text}");
    for line in expected {
        assert!(text.contains(line), "{line:?} is not in:\n{text}");
    }
}

const HERE: &str = "{addresses: [10.244.0.1], nodeName: n1}";
const THERE: &str = "{addresses: [10.244.1.1], nodeName: n2}";

#[test]
fn two_ports_of_one_service_are_one_account() {
    let dns = "---
apiVersion: v1
kind: Service
metadata: {name: dns, namespace: ns}
spec:
  clusterIP: 10.96.0.53
  ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53}, {name: metrics, port: 9153}]
";
    let (status, text) = explain("10.96.0.53:53", "", &[], dns);
    assert_eq!(status, 0, "{text}");
    assert_eq!(text.matches("\nService ns/dns\n").count(), 1, "{text}");
    for port in ["port dns 53/udp\n", "port dns-tcp 53/tcp\n"] {
        assert_eq!(text.matches(port).count(), 1, "{port:?}: {text}");
    }
    assert!(!text.contains("port metrics"), "{text}");
}

#[test]
fn without_files_and_cluster_it_says_which_flags_are_missing() {
    let proxier = program("proxier").expect("proxier is built");
    let output = Command::new(proxier)
        .args(["explain", "ns/web"])
        .env_remove("KUBERNETES_SERVICE_HOST")
        .output()
        .expect("proxier runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("add --manifests, --kubeconfig or --config"), "{said}");
    assert!(!said.contains("environment variable"), "{said}");
}

#[test]
fn no_endpoints() {
    let expected = ["cluster IP 10.96.0.10:80/tcp, rr: no real server, connections are refused"];
    says(explain("ns/web", "", &[], ""), &expected);
}

#[test]
fn all_not_ready() {
    let endpoint = "{addresses: [10.244.0.1], nodeName: n1, conditions: {ready: false}}";
    let expected =
        ["10.244.0.1:8080 on n1: left out: not ready", "no endpoint is ready or still serving"];
    says(explain("ns/web", "", &[endpoint], ""), &expected);
}

#[test]
fn terminating_endpoints_as_the_last_resort() {
    let endpoint = "{addresses: [10.244.0.1], nodeName: n1, \
                    conditions: {ready: false, serving: true, terminating: true}}";
    let expected = ["on n1: used, local", "those that terminate but still serve are used"];
    says(explain("ns/web", "", &[endpoint], ""), &expected);
    let expected = ["left out: terminating, and others are ready"];
    says(explain("ns/web", "", &[endpoint, THERE], ""), &expected);
}

#[test]
fn policy_local_without_a_local_endpoint() {
    let expected = [
        "10.96.0.10:80/tcp, rr: no real server",
        "internalTrafficPolicy Local, and no endpoint on this node",
    ];
    says(explain("ns/web", "  internalTrafficPolicy: Local", &[THERE], ""), &expected);
    let spec = "  type: NodePort\n  externalTrafficPolicy: Local";
    let expected = ["externalTrafficPolicy Local, and no endpoint on this node: remote ones serve"];
    says(explain("ns/web", spec, &[THERE], ""), &expected);
}

/// An endpoint that nothing leads to is not said to be used.
#[test]
fn policy_local_leaves_endpoints_of_other_nodes_out() {
    let other = "---
apiVersion: v1
kind: Service
metadata: {name: other, namespace: ns}
spec: {clusterIP: 10.96.0.12, internalTrafficPolicy: Local, ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: other-1, namespace: ns, labels: {kubernetes.io/service-name: other}}
addressType: IPv4
ports: [{port: 8080}]
endpoints:
- {addresses: [10.244.0.1], nodeName: n1}
- {addresses: [10.244.1.1], nodeName: n2}
";
    let expected = [
        "10.244.0.1:8080 on n1: used, local",
        "10.244.1.1:8080 on n2: left out: not local, and the traffic policy is Local",
    ];
    says(explain("ns/other", "", &[], other), &expected);
    // What another frontend leads to is used, here by the cluster IP.
    let spec = "  type: NodePort\n  externalTrafficPolicy: Local";
    let expected = ["10.244.1.1:8080 on n2: used, not local"];
    says(explain("ns/web", spec, &[HERE, THERE], ""), &expected);
}

/// Why there are no endpoints: no slice, no such port, or nothing in it.
#[test]
fn what_is_lacking_is_named() {
    let expected = ["none: the EndpointSlices with a port named \"http\" of tcp have no endpoints"];
    says(explain("ns/web", "", &[], ""), &expected);
    let dual = "  clusterIPs: [10.96.0.10, 'fd00::10']\n  ipFamilies: [IPv4, IPv6]";
    let expected = ["none: this service has no EndpointSlice of IPv6"];
    says(explain("ns/web", dual, &[HERE], ""), &expected);
    let other = "---
apiVersion: v1
kind: Service
metadata: {name: other, namespace: ns}
spec: {clusterIP: 10.96.0.12, ports: [{name: https, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: other-1, namespace: ns, labels: {kubernetes.io/service-name: other}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.244.0.7], nodeName: n1}]
";
    let expected = ["none: no EndpointSlice of this service has a port named \"https\" of tcp"];
    says(explain("ns/other", "", &[], other), &expected);
}

#[test]
fn hints_for_another_zone() {
    let here = "{addresses: [10.244.0.1], nodeName: n1, hints: {forZones: [{name: a}]}}";
    let there = "{addresses: [10.244.1.1], nodeName: n2, hints: {forZones: [{name: b}]}}";
    let expected = [
        "10.244.0.1:8080 on n1: used, local",
        "10.244.1.1:8080 on n2: left out: hinted for zones b",
    ];
    says(explain("ns/web:http", "", &[here, there], ""), &expected);
}

#[test]
fn hints_for_another_node() {
    let here = "{addresses: [10.244.0.1], nodeName: n1, hints: {forNodes: [{name: n1}]}}";
    let there = "{addresses: [10.244.1.1], nodeName: n2, hints: {forNodes: [{name: n2}]}}";
    let expected = [
        "10.244.0.1:8080 on n1: used, local",
        "10.244.1.1:8080 on n2: left out: hinted for nodes n2",
        "every ready endpoint has hints for nodes: followed",
    ];
    says(explain("ns/web", "", &[here, there], ""), &expected);
}

#[test]
fn source_ranges_that_leave_the_node_out() {
    let spec = "  type: LoadBalancer\n  loadBalancerSourceRanges: [172.16.0.0/12]\n\
                status: {loadBalancer: {ingress: [{ip: 203.0.113.7}]}}";
    let expected = ["only for sources in 172.16.0.0/12; this node itself is not among them"];
    says(explain("203.0.113.7:80", spec, &[HERE], ""), &expected);
}

#[test]
fn a_conflict_names_the_winner() {
    let older = "---
apiVersion: v1
kind: Service
metadata: {name: older, namespace: ns, creationTimestamp: '2026-01-01T00:00:00Z'}
spec: {clusterIP: 10.96.0.11, externalIPs: [203.0.113.9], ports: [{port: 80}]}
";
    let expected = ["external IP 203.0.113.9:80/tcp, rr: taken by ns/older"];
    says(explain("ns/web", "  externalIPs: [203.0.113.9]", &[HERE], older), &expected);
    let (_, text) = explain("203.0.113.9:80/tcp", "  externalIPs: [203.0.113.9]", &[HERE], older);
    assert!(text.contains("belongs to ns/older (external IP)"), "{text}");
}

#[test]
fn an_excluded_service_says_by_what() {
    let other = "---
apiVersion: v1
kind: Service
metadata: {name: other, namespace: ns, labels: {service.kubernetes.io/service-proxy-name: mine}}
spec: {clusterIP: 10.96.0.12, ports: [{port: 80}]}
";
    let (status, text) = explain("ns/other", "", &[], other);
    assert_eq!(status, 1);
    assert!(text.contains("service-proxy-name gives it to \"mine\""), "{text}");
    let (status, text) = explain("ns/nobody", "", &[], "");
    assert_eq!(status, 1);
    assert!(text.contains("there is no Service ns/nobody"), "{text}");
}

#[test]
fn node_ports_name_their_addresses() {
    let expected = ["node port 192.168.1.10:30080/tcp, rr: 10.244.0.1:8080"];
    says(explain("192.168.1.10:30080", "  type: NodePort", &[HERE], ""), &expected);
    // And by the name of the Service, where there is none to listen on: IPv6 has no address here.
    let dual =
        "  type: NodePort\n  clusterIPs: [10.96.0.10, 'fd00::10']\n  ipFamilies: [IPv4, IPv6]";
    let expected = [
        "node port 192.168.1.10:30080/tcp, rr: 10.244.0.1:8080",
        "node port 30080: no IPv6 address of this node is one that nodePortAddresses allows",
    ];
    says(explain("ns/web", dual, &[HERE], ""), &expected);
}

#[test]
fn a_port_that_no_service_has() {
    let (status, text) = explain("10.96.0.10:81", "", &[HERE], "");
    assert_eq!(status, 1);
    assert!(text.contains("no service has port 81 of 10.96.0.10"), "{text}");
    let (status, text) = explain("10.96.0.300", "", &[HERE], "");
    assert_eq!(status, 1);
    assert!(text.contains("is neither a Service (NAME"), "{text}");
}

#[test]
fn an_address_without_a_port_tells_of_all_its_ports() {
    says(
        explain("10.96.0.10", "", &[HERE], ""),
        &["10.96.0.10:80/tcp belongs to ns/web (cluster IP)", "Service ns/web", "10.244.0.1:8080"],
    );
    let other = "---
apiVersion: v1
kind: Service
metadata: {name: other, namespace: ns}
spec: {type: NodePort, clusterIP: 10.96.0.11, ports: [{port: 80, nodePort: 30081}]}
";
    let (status, text) = explain("192.168.1.10", "  type: NodePort", &[HERE], other);
    assert_eq!(status, 0, "{text}");
    assert_eq!(
        text,
        "192.168.1.10:30080/tcp belongs to ns/web (node port)\n\
         192.168.1.10:30081/tcp belongs to ns/other (node port)\n"
    );
    let (status, text) = explain("10.96.0.99", "", &[HERE], "");
    assert_eq!(status, 1, "{text}");
    assert!(text.contains("no service has the address 10.96.0.99"), "{text}");
}

#[test]
fn settings_by_annotation_and_why_an_endpoint_has_its_weight() {
    let tuned = "---
apiVersion: v1
kind: Service
metadata:
  name: tuned
  namespace: ns
  annotations:
    proxier.io/weights: 'zone=a:3,default:2'
    proxier.io/max-connections: '50'
    proxier.io/slow-start: 30s
    proxier.io/scheduler-flags: mh-port
spec: {clusterIP: 10.96.0.12, ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: tuned-1, namespace: ns, labels: {kubernetes.io/service-name: tuned}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints:
- {addresses: [10.244.0.2], nodeName: n1, zone: a}
- {addresses: [10.244.1.2], nodeName: n2, zone: b}
";
    let expected = [
        "  scheduler wrr, by annotation proxier.io/weights\n",
        "  weights zone=a:3,default:2, by annotation proxier.io/weights\n",
        "  slow-start 30s, by annotation proxier.io/slow-start\n",
        "  max-connections 50, by annotation proxier.io/max-connections\n",
        "  annotation proxier.io/scheduler-flags: \"mh-port\" is not used: these are flags of mh, and the \
         scheduler is wrr\n",
        "10.244.0.2:8080 on n1: used, local, weight 30 by the rule for its zone a (times 10 for slow start), \
         no new connections above 50\n",
        "10.244.1.2:8080 on n2: used, not local, weight 20 by default:2 (times 10 for slow start)",
        "cluster IP 10.96.0.12:80/tcp, wrr: 10.244.0.2:8080 10.244.1.2:8080",
    ];
    says(explain("ns/tuned", "", &[HERE], tuned), &expected);
    // It is also said where nobody asks.
    let (_, text) = explain("ns/tuned", "", &[HERE], tuned);
    assert!(text.contains("an annotation cannot be used"), "{text}");
}

/// As `kubectl` takes names, and what else people have at hand.
#[test]
fn a_service_by_name_and_namespace_a_pod_and_a_node_port() {
    let spec = "  type: NodePort";
    for arguments in
        [&["svc/web", "-n", "ns"][..], &["web", "--namespace=ns"], &["service/web:80", "-n", "ns"]]
    {
        let text = String::from_utf8(asked(arguments, spec, &[HERE], "").stdout).expect("text");
        assert!(text.starts_with("Service ns/web\n"), "{arguments:?}: {text}");
    }
    let pod = "10.244.0.1:8080/tcp belongs to ns/web (endpoint)\n\nService ns/web\n";
    says(explain("10.244.0.1", spec, &[HERE, THERE], ""), &[pod]);
    says(explain("10.244.0.1:8080", spec, &[HERE, THERE], ""), &[pod]);
    // Also where its slice has no port for the Service.
    let unfit = "---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-2, namespace: ns, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: other, port: 8080}]
endpoints: [{addresses: [10.244.0.9], nodeName: n1}]
";
    let expected = [
        "10.244.0.9 belongs to ns/web (endpoint without a port of the Service)\n",
        "10.244.0.9 on n1: left out: its EndpointSlice \"web-2\" has no port named \"http\" of tcp\n",
    ];
    says(explain("10.244.0.9", spec, &[HERE], unfit), &expected);
    let port = "192.168.1.10:30080/tcp belongs to ns/web (node port)\n\nService ns/web\n\nport http 80/tcp";
    says(explain("30080", spec, &[HERE], ""), &[port]);
    says(explain("30080/tcp", spec, &[HERE], ""), &[port]);
    let (status, text) = explain("30080/udp", spec, &[HERE], "");
    assert_eq!((status, text.contains("no service has the node port 30080")), (1, true), "{text}");
}

#[test]
fn who_misspells_a_name_is_told_what_there_is() {
    for (asked, answer) in [
        ("ns/wbe", "there is no Service ns/wbe (did you mean ns/web?)"),
        ("sn/web", "there is no Service sn/web (did you mean ns/web?)"),
        ("web", "there is no Service default/web (did you mean ns/web?)"),
        ("ns/database", "there is no Service ns/database, or"),
        ("ns/web:htpp", "Service ns/web has no port htpp; it has http (80)"),
    ] {
        let (status, text) = explain(asked, "", &[HERE], "");
        assert_eq!(status, 1);
        assert!(text.contains(answer), "{text}");
    }
}

/// What cannot be explained does not keep the rest from being so.
#[test]
fn several_at_once_for_people_and_for_programs() {
    let both = asked(&["ns/web", "ns/nobody", "10.96.0.10"], "", &[HERE], "");
    assert_eq!(both.status.code(), Some(1));
    let text = String::from_utf8(both.stdout).expect("text");
    assert_eq!(text.matches("Service ns/web").count(), 2, "{text}");
    let nobody = String::from_utf8(both.stderr).expect("text");
    assert!(nobody.contains("there is no Service ns/nobody"), "{nobody}");

    let both = asked(&["ns/web", "ns/nobody", "-o", "json"], "", &[HERE, THERE], "");
    assert_eq!(both.status.code(), Some(1));
    let json: Value = serde_json::from_slice(&both.stdout).expect("JSON");
    assert_eq!(json["node"], "n1");
    let web = &json["explanations"][0];
    assert_eq!(web["asked"], "ns/web");
    let port = &web["services"][0]["ports"][0]["families"][0];
    assert_eq!(
        port["endpoints"][1],
        json!({"address": "10.244.1.1:8080", "pod": null, "node": "n2", "zone": null, "state": "ready",
               "local": false, "used": true, "verdict": "used, not local"})
    );
    assert_eq!(port["frontends"][0]["virtualServer"], "10.96.0.10:80/tcp");
    assert_eq!(port["frontends"][0]["realServers"], json!(["10.244.0.1:8080", "10.244.1.1:8080"]));
    let nobody = json["explanations"][1]["error"].as_str().expect("an error");
    assert!(nobody.starts_with("there is no Service ns/nobody"), "{nobody}");
}

/// Nobody looks for a policy that is not there.
#[test]
fn an_endpoint_that_nothing_leads_to_is_not_left_out_by_a_policy() {
    let lost = "---
apiVersion: v1
kind: Service
metadata: {name: lost, namespace: ns, creationTimestamp: '2026-03-01T00:00:00Z'}
spec: {clusterIP: 10.96.0.10, ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: lost-1, namespace: ns, labels: {kubernetes.io/service-name: lost}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.244.0.7], nodeName: n1}]
";
    let expected = [
        "10.244.0.7:8080 on n1: not used: nothing leads to it on this node, local",
        "cluster IP 10.96.0.10:80/tcp, rr: taken by ns/web",
    ];
    says(explain("ns/lost", "", &[HERE], lost), &expected);
}
