use super::*;

fn parse(line: &str) -> Args {
    Args::parse_from(std::iter::once("proxier").chain(line.split_whitespace()))
        .unwrap_or_else(|error| panic!("{line}: {error}"))
}

fn refused(line: &str) -> String {
    let error = Args::parse_from(std::iter::once("proxier").chain(line.split_whitespace()))
        .expect_err(line);
    assert_eq!(error.exit_status(), 64, "{line}");
    error.to_string()
}

/// What DaemonSet manifests and static pods of distributions pass.
#[test]
fn arguments_of_distributions_are_taken() {
    for (from, line) in [
        (
            "kubeadm, kubespray, kind, k0s",
            "--config=/var/lib/kube-proxy/config.conf --hostname-override=node-1",
        ),
        (
            "EKS",
            "--v=2 --config=/var/lib/kube-proxy-config/config --hostname-override=ip-10-0-0-1.ec2",
        ),
        (
            "k3s and RKE2",
            "--cluster-cidr=10.42.0.0/16 --conntrack-max-per-core=0 \
             --conntrack-tcp-timeout-close-wait=0s --conntrack-tcp-timeout-established=0s \
             --healthz-bind-address=127.0.0.1 --hostname-override=node-1 \
             --kubeconfig=/var/lib/rancher/rke2/agent/kubeproxy.kubeconfig --proxy-mode=ipvs \
             --ipvs-strict-arp --feature-gates=A=true,B=false",
        ),
        (
            "kube-up",
            "--master=https://10.0.0.2 --kubeconfig=/var/lib/kube-proxy/kubeconfig \
             --cluster-cidr=10.64.0.0/14 --oom-score-adj=-998 --v=2 \
             --feature-gates=ExperimentalCriticalPodAnnotation=true \
             --iptables-sync-period=1m --iptables-min-sync-period=10s --ipvs-sync-period=1m \
             --ipvs-min-sync-period=10s --nodeport-addresses=10.0.0.0/8,192.168.0.0/16",
        ),
        ("underscores", "--cluster_cidr=10.0.0.0/8 --proxy_mode=ipvs --ipvs_strict_arp=true"),
    ] {
        let args = parse(line);
        assert_eq!(args.action(), Action::Run, "{from}");
    }
    assert_eq!(
        parse("--cluster_cidr=a_b").without_config.cluster_cidr.as_deref(),
        Some("a_b"),
        "underscores in values stay"
    );
}

#[test]
fn the_estimator_s_flags_say_what_the_kernel_takes() {
    let own = parse("--ipvs-run-estimation=false --ipvs-est-cpulist=0-3,5 --ipvs-est-nice=-5").own;
    assert_eq!(own.ipvs_run_estimation, Some(false));
    assert_eq!(own.ipvs_est_cpulist.as_deref(), Some("0-3,5"));
    assert_eq!(own.ipvs_est_nice, Some(-5));
    assert_eq!(parse("").own.ipvs_run_estimation, None);
    for line in ["nice=20", "nice=-21", "cpulist=", "cpulist=0-", "cpulist=3-0", "cpulist=all"] {
        refused(&format!("--ipvs-est-{line}"));
    }
}

#[test]
fn switches_and_numbers_are_go_s() {
    for (line, on) in [
        ("--masquerade-all", true),
        ("--masquerade-all=T", true),
        ("--masquerade-all=0", false),
        ("--masquerade-all=false --masquerade-all", true),
    ] {
        assert_eq!(parse(line).without_config.masquerade_all, Some(on), "{line}");
    }
    refused("--masquerade-all=yes");
    refused("--masquerade-all true");
    assert_eq!(parse("--cleanup=false").action(), Action::Run);
    assert_eq!(parse("--oom-score-adj -998").without_config.oom_score_adj, Some(-998));
    assert_eq!(parse("--conntrack-min=-1").without_config.conntrack_min, Some(-1));
    assert_eq!(
        parse("--ipvs-sync-period -5s").without_config.ipvs_sync_period,
        Some(GoDuration::from_secs(-5))
    );
    refused("--ipvs-sync-period=30");
    refused("--conntrack-min=many");
    for line in ["-v 4", "-v=4", "-v4", "--v=4", "--v 4", "--v=2 --v=4"] {
        assert_eq!(parse(line).always.verbosity, Some(4), "{line}");
    }
}

#[test]
fn lists_take_commas_and_repetition() {
    let list = |line: &str| parse(line).without_config.nodeport_addresses;
    assert_eq!(list("--nodeport-addresses=a,b --nodeport-addresses c"), ["a", "b", "c"]);
    let gates = |line: &str| parse(line).without_config.feature_gates;
    assert_eq!(
        gates("--feature-gates=A=true,B=0 --feature-gates=C=1"),
        [("A".to_owned(), true), ("B".to_owned(), false), ("C".to_owned(), true)]
    );
    assert!(refused("--feature-gates=A").contains("missing bool value for A"));
    assert!(refused("--feature-gates=A=x").contains("invalid value of A=x, err: "));
    assert_eq!(
        parse("--vmodule=a=1,b*=2").always.vmodule,
        [("a".to_owned(), 1), ("b*".to_owned(), 2)]
    );
    refused("--vmodule=a");
    let ips = parse("--node-address 10.0.0.1 --node-address=fd00::1,10.0.0.2").own.node_addresses;
    assert_eq!(ips.len(), 3);
    assert_eq!(parse("--manifests a --manifests -").own.manifests.len(), 2);
}

fn wait_for(timeout: &str) -> Action {
    let timeout = Some(timeout.parse().unwrap());
    Action::Status(StatusArgs { wait: Some(WaitFor::InSync), timeout })
}

fn explain(what: &[&str], namespace: Option<&str>) -> Action {
    let what = what.iter().map(|&text| text.to_owned()).collect();
    Action::Explain(ExplainArgs { what, namespace: namespace.map(str::to_owned) })
}

#[test]
fn what_is_asked_for() {
    for (line, action) in [
        ("", Action::Run),
        ("--version", Action::Version { raw: false }),
        ("--version=raw", Action::Version { raw: true }),
        ("--version=false", Action::Run),
        ("--write-config-to=/tmp/x --cleanup", Action::WriteConfig("/tmp/x".into())),
        ("--cleanup", Action::Cleanup),
        ("cleanup", Action::Cleanup),
        ("--init-only", Action::InitOnly),
        ("--dry-run", Action::DryRun { watch: false }),
        ("--dry-run --watch --manifests objects.yaml -o all", Action::DryRun { watch: true }),
        ("diff", Action::Diff),
        ("explain dev/web:80", explain(&["dev/web:80"], None)),
        ("explain -n dev svc/web 30080", explain(&["svc/web", "30080"], Some("dev"))),
        ("status -o json", Action::Status(StatusArgs { wait: None, timeout: None })),
        ("status --wait=in-sync --timeout 2m", wait_for("2m")),
        ("version -o json", Action::Build),
        ("completion zsh", Action::Completion(Shell::Zsh)),
        ("migrate --check", Action::MigrateCheck),
        ("hand-over --to nftables", Action::HandOver),
        ("hand-over --to=iptables --config=c", Action::HandOver),
    ] {
        assert_eq!(parse(line).action(), action, "{line}");
    }
}

#[test]
fn flags_count_before_and_after_a_command() {
    let before = parse("--config=c --proxy-mode=ipvs -o json diff");
    let after = parse("diff --config=c --proxy-mode=ipvs -o json");
    assert_eq!(before, after);
    assert_eq!(after.own.output, Output::Json);
    assert_eq!(after.always.config.as_deref(), Some(std::path::Path::new("c")));
    assert_eq!(after.ignored_with_config, ["proxy-mode"]);
}

#[test]
fn flags_that_a_file_replaces_are_known_by_name() {
    let args = parse(
        "--config=c --v=2 --hostname-override=n --master=m --kubeconfig=k --ipvs_scheduler=lc \
         --masquerade-all=false --boot-id-file=/b",
    );
    assert_eq!(args.ignored_with_config, ["kubeconfig", "masquerade-all", "ipvs-scheduler"]);
    assert_eq!(args.without_effect, ["boot-id-file"]);
}

#[test]
fn wrong_usage_has_its_own_exit_status_and_says_what_is_meant() {
    refused("positional");
    refused("--no-such-flag");
    assert!(refused("--ipvs-schedular=lc").contains("--ipvs-scheduler"));
    refused("-o yaml");
    refused("explain");
    refused("migrate");
    refused("get nodes");
    refused("completion sh");
    refused("--watch");
    refused("explain a --watch");
    refused("status --watch --wait=in-sync");
    refused("status --timeout=3s");
    refused("status --wait=ready");
    refused("--strict");
    refused("--dry-run --cleanup");
    refused("--init-only diff");
    refused("--drain-timeout=-1s");
    refused("--node-address=nowhere");
}

#[test]
fn help_is_not_an_error_and_names_every_flag() {
    let error = Args::parse_from(["proxier", "--help"]).unwrap_err();
    assert_eq!(error.exit_status(), 0);
    let help = error.to_string();
    for arg in command_line().get_arguments() {
        let name = arg.get_long().unwrap();
        assert!(help.contains(&format!("--{name}")), "{name}");
    }
}

/// What is not shown is taken all the same: the flags of the daemon can be put behind a command.
#[test]
fn the_help_of_a_command_shows_its_own_flags_and_how_it_is_used() {
    for command in shown().get_subcommands().map(clap::Command::get_name) {
        let help = Args::parse_from(["proxier", command, "-h"]).unwrap_err().to_string();
        assert!(help.lines().count() < 50, "{help}");
        assert!(!help.contains("--conntrack-min"), "{help}");
        assert!(help.contains(&format!("  proxier {command}")), "{help}");
    }
    let help = Args::parse_from(["proxier", "explain", "-h"]).unwrap_err().to_string();
    for word in ["--namespace", "--manifests", "--kubeconfig", "How to print: table or json"] {
        assert!(help.contains(word), "{help}");
    }
    let args = parse("explain --conntrack-min=7 web");
    assert_eq!(args.without_config.conntrack_min, Some(7));
}

#[test]
fn a_form_of_output_is_refused_where_it_does_not_apply() {
    for line in ["explain a -o ipvsadm", "-o json", "cleanup -o json", "-o all status"] {
        let text = refused(line);
        assert!(text.contains("does not apply here: "), "{text}");
    }
    assert!(refused("explain a -o all").contains("proxier explain prints table or json"));
    parse("--dry-run -o all");
}
