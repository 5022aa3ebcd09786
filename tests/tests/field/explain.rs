//! `proxier explain` of inputs: every endpoint is listed, and what is left out has its reason.

use std::process::Command;

use proxier_tests::command::program;

use super::input;

fn explain(file: &str, what: &str) -> String {
    let output = Command::new(program("proxier").unwrap())
        .args(["explain", what, "--hostname-override", "node-1", "--node-address", "192.168.1.10"])
        .args(["--proxy-mode", "ipvs", "--manifests"])
        .arg(input(file))
        .output()
        .unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success(), "{text}");
    text
}

/// Each of these lines is there, and nothing else is left out or not followed.
fn says(file: &str, what: &str, lines: &[&str]) {
    let text = explain(file, what);
    for line in lines {
        assert!(text.contains(line), "{line:?} is not in:\n{text}");
    }
    let unsaid =
        text.lines().filter(|line| line.contains("left out") || line.contains("not followed"));
    for line in unsaid {
        assert!(lines.iter().any(|expected| line.contains(expected)), "{line:?} in:\n{text}");
    }
}

#[test]
fn slices_without_a_fitting_port() {
    says(
        "slices-without-a-fitting-port.yaml",
        "default/echo",
        &[
            "10.244.0.23:8080 on no node: used",
            "10.244.0.24 on no node: left out: its EndpointSlice \"echo-null\" has no ports",
            "10.244.0.25 on no node: left out: the port \"http\" of its EndpointSlice \"echo-noport\" has no number",
            "10.244.0.26 on no node: left out: its EndpointSlice \"echo-noname\" has no port named \"http\" of tcp",
            "10.244.0.27:9090 on no node: used",
            "10.244.0.28:9090 on no node: used",
            "10.96.1.1:8080/tcp, rr: 10.244.0.23:8080 10.244.0.27:9090 10.244.0.28:9090\n",
        ],
    );
}

#[test]
fn hints_that_are_followed_and_not() {
    let file = "hints-not-followed.yaml";
    says(
        file,
        "t/psn",
        &[
            "every ready endpoint has hints for nodes: followed",
            "10.244.1.2:8080 on node-2: left out: hinted for nodes node-2",
            "10.244.2.2:8080 on node-3: left out: hinted for nodes node-3",
            "10.96.7.1:80/tcp, rr: 10.244.0.2:8080\n",
        ],
    );
    says(
        file,
        "t/psn2",
        &[
            "hints for nodes are not followed: no ready endpoint is hinted for the node node-1",
            "every ready endpoint has hints for zones: followed",
            "10.244.0.2:8080 on node-1: left out: not ready",
            "10.244.1.2:8080 on node-2: left out: hinted for zones zone-b",
            "10.96.7.2:80/tcp, rr: 10.244.2.2:8080\n",
        ],
    );
    says(
        file,
        "t/mix",
        &[
            "hints for zones are not followed: the ready endpoint 10.244.1.2:8080 has none",
            "10.96.7.3:80/tcp, rr: 10.244.0.2:8080 10.244.1.2:8080\n",
        ],
    );
}

#[test]
fn hints_without_a_zone_of_the_node() {
    let file = "hints-without-a-zone.yaml";
    let no_zone = "hints for zones are not followed: the node node-1 has no zone (label \
                   topology.kubernetes.io/zone)";
    says(
        file,
        "t/psn",
        &[
            "every ready endpoint has hints for nodes: followed",
            "left out: hinted for nodes node-2",
            "left out: hinted for nodes node-3",
        ],
    );
    says(
        file,
        "t/psn2",
        &[
            "hints for nodes are not followed: no ready endpoint is hinted for the node node-1",
            no_zone,
            "10.244.0.2:8080 on node-1: left out: not ready",
            "10.96.7.2:80/tcp, rr: 10.244.1.2:8080 10.244.2.2:8080\n",
        ],
    );
    says(file, "t/mix", &[no_zone, "10.96.7.3:80/tcp, rr: 10.244.0.2:8080 10.244.1.2:8080\n"]);
}

/// A sibling: nothing is hinted for the zone, and one endpoint has hints for a zone only.
#[test]
fn hints_for_others_only() {
    says(
        "siblings/hints-for-others.yaml",
        "t/zones",
        &[
            "hints for zones are not followed: no ready endpoint is hinted for the zone zone-a",
            "10.96.7.1:80/tcp, rr: 10.244.1.2:8080 10.244.2.2:8080\n",
        ],
    );
    says(
        "siblings/hints-for-others.yaml",
        "t/nodes",
        &[
            "hints for nodes are not followed: the ready endpoint 10.244.2.2:8080 has none",
            "hints for zones are not followed: the ready endpoint 10.244.1.2:8080 has none",
        ],
    );
}
