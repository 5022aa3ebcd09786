//! Connections to the health port without end, from another machine: whoever probes is answered.

#![allow(clippy::unwrap_used, reason = "what fails outside of a test function fails the test, too")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::Stdio;
use std::time::{Duration, Instant};

use proxier_tests::command::program;
use proxier_tests::figure;
use proxier_tests::netns::Namespace;
use proxier_tests::world::World;

/// Probes of each kind, one after the other.
const PROBES: usize = 5;

/// How often a host has begun a connection once more, since nobody answered.
fn retransmitted(host: &Namespace) -> u64 {
    let text = host.sh("nstat -asz TcpExtTCPSynRetrans").unwrap();
    let line = text.lines().find(|line| line.starts_with("TcpExtTCPSynRetrans")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn probes_are_answered_while_connections_are_made_without_end() {
    let mut world = World::build("rr").unwrap();
    world.write(&[]).unwrap();
    world.start().unwrap();
    world.ready().unwrap();
    let node = &world.topology.nodes[0].host;
    let health = format!("{}:10256", node.ipv4);
    // Ended at once, and held for as long as it lets them.
    for (held, what) in [("0", "ended"), ("200", "held")] {
        let client = &world.topology.client.namespace;
        let mut flood = client.command(program("traffic").unwrap());
        flood.args(["flood", &health, "2", held]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut flood = flood.spawn().unwrap();
        let mut said = BufReader::new(flood.stdout.take().unwrap());
        said.read_line(&mut String::new()).unwrap();
        // The kubelet asks from the node itself, a load balancer from a third machine.
        let mut figures = vec![format!("connections {what}")];
        for (who, from) in [
            ("the node", &node.namespace),
            ("another machine", &world.topology.nodes[1].host.namespace),
        ] {
            let (mut slowest, lost) = (Duration::ZERO, retransmitted(from));
            for n in 0..PROBES {
                let begin = Instant::now();
                let ask = format!(
                    "curl -s -m 20 -o /dev/null -w '%{{http_code}}' http://{health}/healthz"
                );
                let answer = from.sh(&ask).unwrap_or_else(|error| format!("{error:#}"));
                assert_eq!(answer, "200", "probe {n} of {who}, connections {what}");
                slowest = slowest.max(begin.elapsed());
            }
            let lost = retransmitted(from) - lost;
            figures.push(format!(
                "from {who} {PROBES} of {PROBES} answered, {lost} times begun once more, the slowest after {} ms",
                slowest.as_millis()
            ));
        }
        drop(flood.stdin.take());
        let mut rest = String::new();
        said.read_to_string(&mut rest).unwrap();
        assert!(flood.wait().unwrap().success());
        let numbers: Vec<u64> = rest.split_whitespace().map(|word| word.parse().unwrap()).collect();
        let rate = numbers[0] * 1000 / numbers[1].max(1);
        figure(&format!("{}, {rate} a second", figures.join(", ")));
    }
}
