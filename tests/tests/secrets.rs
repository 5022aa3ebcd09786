//! What a kubeconfig keeps secret is in no output, log or page, however wrong the kubeconfig is and
//! however much is logged.

#![allow(clippy::unwrap_used, reason = "what fails outside of a test function fails the test, too")]

use std::fs;
use std::process::{Command, Output};

use proxier_tests::apiserver::object::{node, service};
use proxier_tests::apiserver::{Fault, On};
use proxier_tests::command::program;
use proxier_tests::daemon::Scratch;
use proxier_tests::golden::Dump;
use proxier_tests::http::{METRICS, get};
use proxier_tests::live::{Live, NODE, NODE_ADDRESS};
use proxier_tests::netns::require_test_kernel;

/// Part of every secret here.
const SECRET: &str = "sesame";

/// A kubeconfig whose user is this.
fn kubeconfig(server: &str, user: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: test\n\
         clusters:\n- name: test\n  cluster: {{server: '{server}'}}\n\
         contexts:\n- name: test\n  context: {{cluster: test, user: test}}\n\
         users:\n- name: test\n  user: {user}\n"
    )
}

/// A dry run of everything that can be told of, at the highest verbosity.
fn dry_run(scratch: &Scratch, kubeconfig: &str) -> (Option<i32>, String) {
    let path = scratch.replace("kubeconfig", kubeconfig).unwrap();
    let mut command = Command::new(program("proxier").unwrap());
    command.args(["--dry-run", "-o", "all", "--v=10", "--hostname-override=node-a"]);
    command.args(["--proxy-mode=ipvs", "--node-address=192.0.2.1", "--kubeconfig"]).arg(path);
    let Output { status, stdout, stderr } = command.env("RUST_LOG", "trace").output().unwrap();
    let text = String::from_utf8_lossy(&stdout) + String::from_utf8_lossy(&stderr);
    (status.code(), text.into_owned())
}

#[test]
fn of_a_kubeconfig_that_cannot_be_used_only_the_place_is_told() {
    let scratch = Scratch::create().unwrap();
    for (user, wanted) in [
        ("\n    token: sesame\n    password: {a: b}", "line 14"),
        ("\n    token: [sesame", "line 13"),
        ("\n    username: sesame\n    password: sesame\n    tokenFile: {sesame: 1}", "line 15"),
        ("sesame", "kubeconfig"),
        ("[\"sesame\"]", "kubeconfig"),
        ("\n    exec: {env: [{name: 1, value: [sesame]}]}", "kubeconfig"),
        (
            "\n    client-key-data: sesame\n    client-certificate-data: sesame",
            "prepare the connection",
        ),
        ("\n    token: \"sesame\\nline\"", "the token of user test has characters"),
    ] {
        let (status, text) = dry_run(&scratch, &kubeconfig("https://127.0.0.1:1", user));
        // 64 where it is the kubeconfig itself, 1 where something that it names is wrong.
        assert!(matches!(status, Some(1 | 64)), "{user}: {text}");
        assert!(text.contains(wanted), "{user}: {text}");
        assert!(!text.contains(SECRET), "{user}: {text}");
    }
}

#[test]
fn a_token_goes_to_the_server_and_nowhere_else() {
    let live = Live::start().unwrap();
    let server = &live.server;
    server.put_all([node("node-a", "192.0.2.1"), service("dev", "web", "10.96.0.1")]);
    for code in [401, 403, 500] {
        server.fault(On::Any("services"), 1, Fault::Refuse { code, retry_after: None });
    }
    server.fault(On::Any("nodes"), 1, Fault::Body("garbage".to_owned()));
    let scratch = Scratch::create().unwrap();
    let file = scratch.path().join("token");
    fs::write(&file, "sesame-in-a-file").unwrap();
    for (user, authorization) in [
        ("{token: sesame-as-it-is}".to_owned(), "Bearer sesame-as-it-is"),
        (format!("{{tokenFile: '{}'}}", file.display()), "Bearer sesame-in-a-file"),
        ("{username: me, password: sesame}".to_owned(), "Basic bWU6c2VzYW1l"),
    ] {
        let kubeconfig = kubeconfig(&server.url(), &user);
        let (status, text) = dry_run(&scratch, &kubeconfig);
        assert_eq!(status, Some(0), "{text}");
        assert!(text.contains("10.96.0.1:80"), "{text}");
        for secret in [SECRET, "bWU6c2VzYW1l"] {
            assert!(!text.contains(secret), "{user}: {text}");
        }
        let last = server.requests().pop().and_then(|request| request.authorization);
        assert_eq!(last.as_deref(), Some(authorization));
    }
    assert_eq!(server.pending_faults(), 0);
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn no_page_of_the_daemon_shows_a_token() {
    require_test_kernel().unwrap();
    let mut live = Live::start().unwrap();
    live.server.put_all([node(NODE, NODE_ADDRESS), service("dev", "web", "10.96.0.1")]);
    let scratch = Scratch::create().unwrap();
    let user = "{token: sesame-as-it-is}";
    let path = scratch.replace("kubeconfig", kubeconfig(&live.server.url(), user)).unwrap();
    let proxier = || {
        let mut command = Command::new(program("proxier").unwrap());
        command.args(["--proxy-mode=ipvs", "--hostname-override", NODE, "--node-address"]);
        command.args([NODE_ADDRESS, "--conntrack-max-per-core=0", "--v=10", "--kubeconfig"]);
        command.arg(&path).arg("--feature-gates=ComponentFlagz=true,ComponentStatusz=true");
        command
    };
    live.start_command(proxier()).unwrap();
    let ready = |kernel: &Dump| kernel.ipvs.contains_key("-A -t 10.96.0.1:80 -s rr");
    live.until("the service", |_, kernel| ready(kernel)).unwrap();
    // Also what the last error of a watch says.
    let gone = Fault::Refuse { code: 401, retry_after: None };
    live.server.fault(On::Any("services"), 1, gone);
    live.server.disconnect();
    live.until_faults_happened().unwrap();

    let (_, index) = get(METRICS, "/statusz").unwrap();
    let paths = index.lines().find_map(|line| line.strip_prefix("Paths: ")).unwrap();
    let paths: Vec<&str> = paths.split(' ').collect();
    assert!(paths.len() > 8, "{index}");
    for path in paths {
        let (head, body) = get(METRICS, path).unwrap();
        assert!(head.contains(" 200 ") && !body.is_empty(), "{path}: {head}");
        assert!(!body.contains(SECRET), "{path}: {body}");
    }
    assert!(!live.log().contains(SECRET), "{}", live.log());

    // What people send to others has everything, and no token either.
    let Output { status, stdout, stderr } = proxier().arg("report").output().unwrap();
    let report = String::from_utf8_lossy(&stdout) + String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{report}");
    for part in [
        "==> proxier version <==\nproxier v",
        "\"state\": \"in sync\"",
        "\nproxier_build_info{",
        "\nrun_estimation = 1\n",
        "==> ipvsadm-save -n <==\n-A -t 10.96.0.1:80 -s rr\n",
        "the kernel is as the cluster says\n",
        "# iptables-save\n*mangle\n",
    ] {
        assert!(report.contains(part), "{part}: {report}");
    }
    // This kernel has no bridges.
    let unknown = report.lines().filter(|line| line.starts_with("not known: "));
    let unknown: Vec<&str> = unknown.filter(|line| !line.contains("/bridge-nf-call-")).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    assert!(!report.contains(SECRET), "{report}");
}

/// Where nothing runs and nothing may be read, a report says so of each part.
#[test]
fn a_report_is_made_of_what_there_is() {
    let scratch = Scratch::create().unwrap();
    let path = scratch
        .replace("kubeconfig", kubeconfig("https://127.0.0.1:1", "{token: sesame}"))
        .unwrap();
    let mut command = Command::new(program("proxier").unwrap());
    command.args(["report", "--metrics-bind-address=127.0.0.1:9", "--kubeconfig"]).arg(path);
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = String::from_utf8_lossy(&stdout) + String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{text}");
    for part in [
        "==> proxier version <==\nproxier v",
        "==> proxier status <==\nnot known: no proxy answers on 127.0.0.1:9",
        "\nkind: KubeProxyConfiguration\n",
        "==> /proc/version <==\nLinux version",
        "==> proxier diff, and what was read of the kernel <==\n",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains(SECRET), "{text}");
}
