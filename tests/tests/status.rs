//! `proxier status` beside daemons that are slow, hang, or change.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};

use proxier_tests::command::program;
use proxier_tests::http::answer_once;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

fn status(address: SocketAddr, arguments: &[&str]) -> Command {
    let mut command = Command::new(program("proxier").expect("proxier is built"));
    command.arg("status").args(arguments).arg(format!("--metrics-bind-address={address}"));
    command
}

fn texts(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// A daemon that is in the state that was sent last, and says each time when it was asked.
fn daemon() -> (SocketAddr, Sender<&'static str>, Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let ((states, new_states), (asked, questions)) = (channel(), channel());
    std::thread::spawn(move || {
        let mut state = "reading the cluster";
        for (up, stream) in listener.incoming().enumerate() {
            let mut stream = stream.expect("a question");
            let mut line = String::new();
            let mut request = BufReader::new(&stream);
            while line != "\r\n" {
                line.clear();
                request.read_line(&mut line).expect("a request");
            }
            state = new_states.try_iter().last().unwrap_or(state);
            let body = json!({"node": "n1", "version": "1", "upSeconds": up, "state": state});
            // One that is gone already needs no answer.
            let _ = write!(stream, "HTTP/1.0 200 OK\r\n\r\n{body}");
            let _ = asked.send(());
        }
    });
    (address, states, questions)
}

#[test]
fn who_waits_is_told_the_state_when_it_is_reached() {
    for (state, code) in [("in sync", 0), ("in sync, needs attention", 2)] {
        let (address, states, questions) = daemon();
        let command =
            status(address, &["--wait=in-sync", "--timeout=1h"]).stdout(Stdio::piped()).spawn();
        let waiting = command.expect("proxier runs");
        // Only after it has heard that it has to wait.
        questions.recv().expect("a question");
        states.send(state).expect("a daemon");
        let output = waiting.wait_with_output().expect("it ends");
        assert_eq!(texts(&output), (Some(code), format!("{state}\n"), String::new()));
    }
}

#[test]
fn who_has_waited_long_enough_is_told_why() {
    let (address, _states, _questions) = daemon();
    let output = status(address, &["--wait=in-sync", "--timeout=0"]).output().expect("it runs");
    let (code, _, said) = texts(&output);
    assert_eq!(code, Some(1));
    assert!(said.contains("proxier: not in sync after 0 s: "), "{said}");
    let nobody =
        status("127.0.0.1:9".parse().expect("an address"), &["--wait=in-sync", "--timeout=1s"]);
    let (code, _, said) = texts(&{ nobody }.output().expect("it runs"));
    assert_eq!(code, Some(1));
    assert!(said.contains("not in sync after 1 s: no proxy answers on 127.0.0.1:9"), "{said}");
}

/// As kube-proxy does on the same port.
#[test]
fn another_program_on_the_port_is_not_taken_for_the_daemon() {
    let answer = "HTTP/1.0 404 Not Found\r\n\r\n404 page not found\n";
    let (address, answering) = answer_once(answer.to_owned()).expect("a port");
    let (code, _, said) = texts(&status(address, &[]).output().expect("it runs"));
    assert_eq!(code, Some(1));
    let wanted = format!("what answers on {address} is not proxier (HTTP/1.0 404 Not Found): ");
    assert!(said.contains(&wanted) && said.contains("kube-proxy still runs"), "{said}");
    answering.join().expect("a program").expect("it answered");
}

/// Not again for every second that it is up.
#[test]
fn what_changes_is_printed_until_it_is_interrupted() {
    let (address, states, questions) = daemon();
    let command = status(address, &["--watch"]).stdout(Stdio::piped()).spawn();
    let mut watching = command.expect("proxier runs");
    let mut printed = BufReader::new(watching.stdout.take().expect("its output"));
    let next = |printed: &mut BufReader<_>| {
        let mut line = String::new();
        while !line.starts_with("n1: ") {
            line.clear();
            assert!(printed.read_line(&mut line).expect("a line") > 0, "it has ended");
        }
        line
    };
    assert!(next(&mut printed).starts_with("n1: reading the cluster ("));
    // The same state once more, a second later.
    for _ in 0..2 {
        questions.recv().expect("a question");
    }
    states.send("in sync").expect("a daemon");
    assert!(next(&mut printed).starts_with("n1: in sync ("));
    let pid = Pid::from_child(&watching);
    kill_process(pid, Signal::INT).expect("it runs");
    let mut rest = String::new();
    printed.read_to_string(&mut rest).expect("the rest");
    assert!(watching.wait().expect("it ends").success());
    assert!(!rest.contains("n1: "), "{rest}");
}

#[test]
fn a_daemon_that_hangs_is_said_to_do_so() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let (code, _, said) = texts(&status(address, &[]).output().expect("it runs"));
    assert_eq!(code, Some(1));
    assert_eq!(said, format!("proxier: the proxy at {address} did not answer within 5 s\n"));
}

/// A file that is named and cannot be used is wrong usage, whichever it is.
#[test]
fn a_missing_kubeconfig_and_a_missing_configuration_are_the_same_mistake() {
    for flag in ["--kubeconfig=/nonexistent", "--config=/nonexistent"] {
        let mut command = Command::new(program("proxier").expect("proxier is built"));
        let (code, _, said) =
            texts(&command.args(["explain", "a/b", flag]).output().expect("it runs"));
        assert_eq!(code, Some(64), "{said}");
        let reason = "/nonexistent: No such file or directory (os error 2)";
        assert!(said.contains(reason) && said.matches("No such file").count() == 1, "{said}");
    }
}
