use super::*;
use crate::dataplane::firewall::Backend;
use crate::dataplane::hand_over::Successor;
use crate::value::GoDuration;
use crate::value::parse_ip;

const FILE: &str = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n\
                    mode: ipvs\nipvs: {scheduler: wrr}\n";

/// L43
#[test]
fn no_flags_are_an_empty_file_but_for_the_minimal_sync_period() {
    let (flags, mut file) = (with_flags("").unwrap(), load("").unwrap());
    assert_eq!(flags.min_sync_period, secs(1));
    assert_eq!(file.min_sync_period, Duration::ZERO);
    file.min_sync_period = flags.min_sync_period;
    file.object.ipvs.min_sync_period = flags.object.ipvs.min_sync_period;
    assert_eq!(flags, file);
}

/// L43
#[test]
fn sync_periods() {
    let periods = |line: &str| {
        let config = with_flags(line).unwrap();
        (config.sync_period.as_secs(), config.min_sync_period.as_secs())
    };
    assert_eq!(periods("--proxy-mode=ipvs"), (30, 1));
    assert_eq!(periods("--ipvs-sync-period=60s --ipvs-min-sync-period=2s"), (60, 2));
    assert_eq!(periods("--iptables-sync-period=36s --iptables-min-sync-period=3s"), (36, 3));
    assert_eq!(periods("--ipvs-min-sync-period=0s --iptables-min-sync-period=3s"), (30, 0));
}

/// Those of proxier's own count with and without a file, and change nothing unless given.
#[test]
fn own_flags_reach_their_fields() {
    let line = "--answer-ping --accept-input --source-ranges-everywhere \
                --ipvs-run-estimation=false --ipvs-est-cpulist=1 --ipvs-est-nice=3";
    for config in [with_flags(line).unwrap(), with_file(FILE, line).unwrap()] {
        assert!(
            config.firewall.answer_ping
                && config.firewall.accept_input
                && config.source_ranges_everywhere
        );
        let SysctlOptions { run_estimation: run, est_cpulist: cpus, est_nice: nice, .. } =
            config.sysctls;
        assert_eq!((run, cpus.as_deref(), nice), (Some(false), Some("1"), Some(3)));
    }
    let config = load("").unwrap();
    assert!(
        !config.firewall.answer_ping
            && !config.firewall.accept_input
            && !config.source_ranges_everywhere
    );
    assert_eq!(config.sysctls.run_estimation, None);
    assert_eq!((config.sysctls.est_cpulist, config.sysctls.est_nice), (None, None));
}

#[test]
fn who_hands_over_keeps_its_rules_in_nftables_and_connections_that_lose_their_server() {
    for (line, successor) in [
        ("hand-over --to nftables", Successor::Nftables),
        ("hand-over --to iptables --firewall=iptables", Successor::Iptables),
    ] {
        let config = with_flags(line).unwrap();
        assert_eq!(config.successor, Some(successor));
        assert_eq!(config.backend, Some(Backend::Nftables));
        assert!(config.sysctls.keep_lost);
        let warned = config.warnings.iter().any(|text| text.contains("--firewall=iptables"));
        assert_eq!(warned, successor == Successor::Iptables);
    }
    let config = load("").unwrap();
    assert_eq!((config.successor, config.sysctls.keep_lost), (None, false));
}

/// L43
#[test]
fn flags_reach_their_fields() {
    let config = with_flags(
        "--cluster-cidr=10.0.0.0/8,fd00::/64 --conntrack-max-per-core=0 --conntrack-min=0 \
         --conntrack-tcp-timeout-established=0 --conntrack-tcp-timeout-close-wait=0s \
         --conntrack-udp-timeout=5s --conntrack-udp-timeout-stream=6s --conntrack-tcp-be-liberal \
         --ipvs-scheduler=sh --ipvs-exclude-cidrs=10.1.0.0/16,10.2.0.0/16 --ipvs-strict-arp \
         --ipvs-tcp-timeout=1m --ipvs-tcpfin-timeout=2m --ipvs-udp-timeout=3m --masquerade-all \
         --iptables-masquerade-bit=3 --nodeport-addresses=primary --oom-score-adj=-1 \
         --config-sync-period=1m --kubeconfig=/k --master=https://m --kube-api-qps=1.5 \
         --kube-api-burst=3 --bind-address=10.0.0.1 --bind-address-hard-fail \
         --feature-gates=AllowServiceExternalIPs=false --logging-format=json -v=3 \
         --vmodule=plan=5 --drain-timeout=1m --proxy-mode=ipvs",
    )
    .unwrap();
    let net = |text: &str| text.parse::<IpNet>().unwrap();
    assert_eq!(
        config.detect_local,
        DetectLocal::ClusterCidr(vec![net("10.0.0.0/8"), net("fd00::/64")])
    );
    assert_eq!(
        config.sysctls.conntrack,
        ConntrackOptions {
            be_liberal: true,
            udp: secs(5),
            udp_stream: secs(6),
            ..ConntrackOptions::default()
        }
    );
    assert_eq!(config.scheduler, Scheduler::SH);
    assert_eq!(config.exclude_cidrs, [net("10.1.0.0/16"), net("10.2.0.0/16")]);
    assert!(
        config.sysctls.strict_arp
            && config.firewall.masquerade_all
            && config.bind_address_hard_fail
    );
    assert_eq!(config.ipvs_timeouts, Timeouts { tcp: 60, tcp_fin: 120, udp: 180 });
    assert_eq!((config.firewall.masquerade_bit, config.oom_score_adj), (3, -1));
    assert_eq!(config.node_port_addresses, NodePortAddresses::Primary);
    assert_eq!(config.object.config_sync_period, GoDuration::from_secs(60));
    assert_eq!(config.client.kubeconfig, Some("/k".into()));
    assert_eq!(config.client.master.as_deref(), Some("https://m"));
    assert_eq!((config.client.qps, config.client.burst), (1.5, 3));
    assert_eq!(config.bind_address, parse_ip("10.0.0.1").unwrap());
    assert!(!config.external_ips);
    let vmodule = vec![("plan".to_owned(), 5)];
    assert_eq!(config.logging, Logging { format: LogFormat::Json, verbosity: 3, vmodule });
    assert_eq!(config.drain_timeout, secs(60));
    let [warning] = &config.warnings[..] else { panic!("{:?}", config.warnings) };
    assert!(warning.starts_with("configSyncPeriod has no effect: "), "{warning}");
}

#[test]
fn local_traffic_can_be_told_by_interface() {
    let detect = |line: &str| with_flags(line).unwrap().detect_local;
    assert_eq!(
        detect("--detect-local-mode=BridgeInterface --pod-bridge-interface=cni0"),
        DetectLocal::Bridge("cni0".to_owned())
    );
    assert_eq!(
        detect("--detect-local-mode=InterfaceNamePrefix --pod-interface-name-prefix=veth"),
        DetectLocal::InterfacePrefix("veth".to_owned())
    );
    assert_eq!(detect("--detect-local-mode=NodeCIDR"), DetectLocal::NodeCidr);
}

/// L43, and 11.5: the file decides, some flags count beside it, and the rest is named.
#[test]
fn beside_a_file_most_flags_are_ignored_and_named() {
    let config = with_file(
        FILE,
        "--ipvs-scheduler=lc --masquerade-all --hostname-override=n --master=m -v=7 \
         --logging-format=json",
    )
    .unwrap();
    assert_eq!(config.scheduler, Scheduler::WRR);
    assert!(!config.firewall.masquerade_all);
    assert_eq!(&*config.node_name, "n");
    assert_eq!(config.client.master.as_deref(), Some("m"));
    assert_eq!((config.logging.verbosity, config.logging.format), (7, LogFormat::Json));
    assert_eq!(
        config.warnings,
        ["ignored, because --config is given and the file decides: --masquerade-all, \
          --ipvs-scheduler"]
    );
}

/// L43
#[test]
fn verbosity_flags_win_and_vmodule_ones_come_first() {
    let file =
        format!("{FILE}logging: {{verbosity: 1, vmodule: [{{filePattern: b, verbosity: 2}}]}}\n");
    assert_eq!(with_file(&file, "").unwrap().logging.verbosity, 1);
    let logging = with_file(&file, "-v=0 --vmodule=a=5").unwrap().logging;
    assert_eq!(logging.verbosity, 0);
    assert_eq!(logging.vmodule, [("a".to_owned(), 5), ("b".to_owned(), 2)]);
}

/// 11.5 and L44
#[test]
fn addresses_and_deprecated_ports() {
    let servers = |line: &str| {
        let config = with_flags(line).unwrap();
        (config.healthz_bind.map(|a| a.to_string()), config.metrics_bind.to_string())
    };
    let both = |health: &str, metrics: &str| (Some(health.to_owned()), metrics.to_owned());
    let normal = both("0.0.0.0:10256", "127.0.0.1:10249");
    assert_eq!(servers(""), normal);
    assert_eq!(servers("--healthz-bind-address= --metrics-bind-address= --bind-address="), normal);
    assert_eq!(servers("--bind-address=::"), normal);
    assert_eq!(servers("--healthz-port=1 --metrics-port=2"), normal);
    assert_eq!(servers("--healthz-port=0"), (None, normal.1.clone()));
    assert_eq!(
        servers("--healthz-bind-address=1.2.3.4 --healthz-port=12345"),
        both("1.2.3.4:12345", "127.0.0.1:10249")
    );
    assert_eq!(
        servers("--healthz-bind-address=fd00:1::5 --metrics-bind-address=[fd00:1::6]:9"),
        both("[fd00:1::5]:10256", "[fd00:1::6]:9")
    );
    let error = with_flags("--metrics-port=0").unwrap_err().to_string();
    assert!(error.contains("MetricsBindAddress: Invalid value: \"\": must be IP:port"), "{error}");
}

#[test]
fn no_requests_at_all_means_the_default() {
    let client = with_flags("--kube-api-qps=0 --kube-api-burst=0").unwrap().client;
    assert_eq!((client.qps, client.burst), (5.0, 10));
}

#[test]
fn empty_lists_are_empty() {
    let config =
        with_flags("--nodeport-addresses= --ipvs-exclude-cidrs= --feature-gates=").unwrap();
    assert_eq!(config.node_port_addresses, NodePortAddresses::All);
    assert!(config.exclude_cidrs.is_empty() && config.object.feature_gates.is_empty());
}
