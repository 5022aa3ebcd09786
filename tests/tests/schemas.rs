//! What programs are given as JSON is as `docs/schemas` says, and nothing else is in it: a field that comes or
//! goes has to be written down there.

#![allow(clippy::unwrap_used, reason = "what fails outside of a test function fails the test, too")]

#[path = "schemas/check.rs"]
mod check;
#[path = "browser/node.rs"]
mod node;

use std::process::Command;

use proxier_tests::command::program;
use proxier_tests::http;
use serde_json::{Value, json};

use self::check::{conforms, root};
use self::node::{Node, State};

/// All of them.
const SCHEMAS: [&str; 11] = [
    "diff",
    "dry-run",
    "explain",
    "get-endpoints",
    "get-services",
    "get-virtual-servers",
    "migrate",
    "status",
    "top",
    "trace",
    "version",
];

/// Standard output of a command that may find something wrong.
fn printed(command: &str, folder: &str) -> Value {
    let output = Command::new(program("proxier").unwrap())
        .args(command.split_whitespace())
        .args(["--hostname-override=node-1", "--node-address=192.168.1.10"])
        .args(["--metrics-bind-address=127.0.0.1:9", "--firewall=iptables"])
        .arg(format!("--manifests={folder}"))
        .current_dir(root())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!("proxier {command}: {error}: {text}{}", String::from_utf8_lossy(&output.stderr))
    })
}

#[test]
fn commands_print_what_the_schemas_say() {
    for (command, schema) in [
        ("get services -A -o json", "get-services"),
        ("get endpoints -A -o json", "get-endpoints"),
        ("get virtual-servers -A -o json", "get-virtual-servers"),
        ("--dry-run -o json", "dry-run"),
        ("explain 10.96.60.1:80 svc/leaving 30002 nobody/nowhere -o json", "explain"),
    ] {
        conforms(schema, &printed(command, "deploy/examples"));
    }
    for service in
        printed("get services -A -o json", "deploy/examples")["services"].as_array().unwrap()
    {
        let name = format!(
            "{}/{}",
            service["namespace"].as_str().unwrap(),
            service["name"].as_str().unwrap()
        );
        conforms("explain", &printed(&format!("explain {name} -o json"), "deploy/examples"));
    }
    let version =
        Command::new(program("proxier").unwrap()).args(["version", "-o", "json"]).output();
    conforms("version", &serde_json::from_slice(&version.unwrap().stdout).unwrap());
}

/// Each end that a packet can have.
#[test]
fn a_trace_is_as_its_schema_says() {
    for (asked, outcome) in [
        ("192.168.1.100 203.0.113.66:8765", "reached"),
        ("node 10.103.7.30:80", "reached"),
        ("192.168.1.100 10.96.90.3:80", "refused"),
        ("192.168.1.100 203.0.113.77:443", "dropped"),
        ("192.168.1.100 198.51.100.99:80", "no service"),
    ] {
        let document = printed(&format!("trace {asked} --dry-run -o json"), "deploy/examples");
        assert_eq!(document["outcome"], outcome, "{document:#}");
        conforms("trace", &document);
    }
}

/// Every recorded scenario: annotations, conflicts, policies, whatever there is.
#[test]
fn a_dry_run_is_as_its_schema_says_in_every_scenario() {
    let mut seen = 0;
    for scenario in std::fs::read_dir(root().join("tests/golden")).unwrap() {
        let objects = scenario.unwrap().path().join("objects.yaml");
        if objects.is_file() {
            conforms("dry-run", &printed("--dry-run -o json", objects.to_str().unwrap()));
            conforms(
                "get-services",
                &printed("get services -A -o json", objects.to_str().unwrap()),
            );
            seen += 1;
        }
    }
    assert!(seen > 50, "{seen}");
}

#[test]
fn the_status_is_as_its_schema_says() {
    for state in
        [State::InSync, State::NeedsAttention, State::NotInSync, State::Empty, State::Large]
    {
        let node = Node::start(state);
        let address = node.address.trim_start_matches("http://");
        for query in ["", "?q=hello&open=default%2Fhello-service", "?only=draining&sort=-bytes"] {
            let (_, body) = http::get(address, &format!("/status.json{query}")).unwrap();
            conforms("status", &serde_json::from_str(&body).unwrap());
        }
    }
}

/// The check itself: what is not written down is refused, and so is what is missing.
#[test]
fn a_schema_refuses_what_it_does_not_know() {
    let good = json!({"same": true, "changes": []});
    conforms("diff", &good);
    for bad in [
        json!({"same": true}),
        json!({"same": "yes", "changes": []}),
        json!({"same": true, "changes": [], "since": 3}),
    ] {
        assert!(!check::errors("diff", &bad).is_empty(), "{bad}");
    }
}

/// No object of any schema lets through what it does not name, but for maps whose values are described.
#[test]
fn every_object_of_every_schema_is_closed() {
    fn walk(schema: &Value, path: &str) {
        if schema["properties"].is_object() {
            assert_eq!(schema["additionalProperties"], false, "{path}");
        } else if schema["type"] == "object" {
            assert!(schema["additionalProperties"].is_object(), "{path}");
        }
        match schema {
            Value::Object(map) => {
                for (name, it) in map {
                    walk(it, &format!("{path}/{name}"));
                }
            }
            Value::Array(list) => {
                for it in list {
                    walk(it, path);
                }
            }
            _ => {}
        }
    }
    let document = std::fs::read_to_string(root().join("docs/commands.md")).unwrap();
    for name in SCHEMAS {
        walk(&check::schema(name), name);
        assert!(
            document.contains(&format!("schemas/{name}.schema.json")),
            "docs/commands.md: {name}"
        );
    }
    let files = std::fs::read_dir(root().join("docs/schemas")).unwrap().count();
    assert_eq!(files, SCHEMAS.len(), "docs/schemas has others than are checked");
}
