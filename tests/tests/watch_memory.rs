//! What an API server sends costs no more memory than is allowed for, whatever becomes of it.

#![allow(clippy::unwrap_used, reason = "what fails outside of a test function fails the test, too")]

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use proxier_tests::apiserver::object::node;
use proxier_tests::apiserver::{Fault, On};
use proxier_tests::live::{Live, NODE, NODE_ADDRESS};

/// Most memory of the process, in KiB: a quarter of the limit of the deployment.
const MOST: u64 = 128 << 10;

/// Bytes of a page or of an event that are sent.
const SIZE: usize = 30 << 20;

fn list(items: &str) -> String {
    let metadata = r#"{"resourceVersion":"900"}"#;
    format!(r#"{{"kind":"ServiceList","metadata":{metadata},"items":[{items}]}}"#)
}

fn event(object: &str) -> String {
    format!(r#"{{"type":"ADDED","object":{object}}}"#)
}

/// So many bytes of list entries.
fn entries(entry: &str, bytes: usize) -> String {
    let mut text = entry.repeat(bytes / entry.len());
    text.pop();
    text
}

/// Most memory that a process has had, in KiB.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Most memory of a `proxier` that is sent these faults, in KiB, once it has said these words.
fn cost(faults: &[(On, Fault)], words: &str) -> u64 {
    let live = Live::start().unwrap();
    live.server.put(node(NODE, NODE_ADDRESS));
    for (on, fault) in faults {
        live.server.fault(*on, usize::MAX / 8, fault.clone());
    }
    let mut command = live.proxier(&["--dry-run", "--watch"]).unwrap();
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut said = lines.map_while(Result::ok).inspect(|line| println!("{line:.300}"));
    assert!(said.any(|line| line.contains(words)), "no {words:?}");
    let peak = peak(child.id());
    child.kill().and_then(|()| child.wait()).unwrap();
    println!("{} MiB", peak >> 10);
    peak
}

#[test]
fn pages() {
    let refuse = || (On::Streaming("services"), Fault::Refuse { code: 400, retry_after: None });
    let ports = entries("{},", 15 << 20);
    let addresses = entries("1,", 15 << 20);
    let name = r#""metadata":{"namespace":"dev","name":"web"}"#;
    for (body, words) in [
        (list(&entries("{},", SIZE)), "more than 100000 objects"),
        (list(&entries("1,", SIZE)), "more than 100000 objects"),
        (list(&entries("{},", 2 * SIZE)), "a list page of more than 32 MiB"),
        (list(&format!(r#"{{{name},"spec":{{"ports":[{ports}]}}}}"#)), HUGE),
        (list(&format!(r#"{{{name},"spec":{{"clusterIPs":[{addresses}]}}}}"#)), HUGE),
        (list(&format!(r#"{{"spec":{{"ports":[{}]}}}}"#, entries("{},", SIZE))), "without a name"),
    ] {
        let cost = cost(&[refuse(), (On::List("services"), Fault::Body(body))], words);
        assert!(cost <= MOST, "{words}: {} MiB", cost >> 10);
    }
}

const HUGE: &str = "Service dev/web: it has more than 200000 list entries";

#[test]
fn events() {
    let name = r#""metadata":{"namespace":"dev","name":"web","resourceVersion":"9"}"#;
    for (object, words) in [
        (format!(r#"{{{name},"spec":{{"ports":[{}]}}}}"#, entries("{},", 15 << 20)), HUGE),
        (" ".repeat(SIZE), "an object of more than 16 MiB"),
        // As many as are decoded.
        (
            format!(r#"{{{name},"spec":{{"ports":[{}]}}}}"#, entries("{},", 199_000 * 3)),
            "before its initial",
        ),
    ] {
        let fault = Fault::Body(format!("{}\n", event(&object)));
        let cost = cost(&[(On::Streaming("services"), fault)], words);
        assert!(cost <= MOST, "{words}: {} MiB", cost >> 10);
    }
}
