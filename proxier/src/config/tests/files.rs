use super::*;
use crate::value::GoDuration;
use crate::value::parse_ip;

/// A file as the upstream test of the loader has it.
fn full(mode: &str, bind: &str, health: &str, metrics: &str) -> String {
    format!(
        r#"
bindAddress: {bind}
clientConnection:
  acceptContentTypes: "application/json"
  burst: 100
  contentType: application/json
  kubeconfig: "/path/to/kubeconfig"
  qps: 7.5
clusterCIDR: "10.20.0.0/16"
configSyncPeriod: 15s
conntrack:
  maxPerCore: 2
  min: 1
  tcpCloseWaitTimeout: 10s
  tcpEstablishedTimeout: 20s
  udpStreamTimeout: 10s
  udpTimeout: 30s
  tcpBeLiberal: true
featureGates: {{AllowServiceExternalIPs: false}}
healthzBindAddress: "{health}"
hostnameOverride: "foo"
iptables:
  masqueradeAll: true
  masqueradeBit: 17
ipvs:
  minSyncPeriod: 10s
  syncPeriod: 60s
  excludeCIDRs:
    - "10.20.30.40/16"
    - "fd00:1::0/64"
  strictARP: true
  tcpTimeout: 100s
  tcpFinTimeout: 1m
  udpTimeout: 1500ms
  scheduler: wlc
metricsBindAddress: "{metrics}"
mode: "{mode}"
oomScoreAdj: 17
detectLocalMode: "ClusterCIDR"
nodePortAddresses:
  - "10.20.30.40/16"
  - "fd00:1::0/64"
logging: {{format: json, verbosity: 4, vmodule: [{{filePattern: plan, verbosity: 6}}]}}
"#
    )
}

/// L40: every field arrives where it is used.
#[test]
fn every_field_arrives() {
    for (bind, health, metrics) in [
        ("0.0.0.0", "1.2.3.4:12345", "2.3.4.5:23456"),
        ("9.8.7.6", "1.2.3.4:12345", "2.3.4.5:23456"),
        ("\"::\"", "[fd00:1::5]:12345", "[fd00:2::5]:23456"),
        ("::0", "[fd00:1::5]:12345", "[fd00:2::5]:23456"),
        ("2001:db8::1", "[fd00:1::5]:12345", "[fd00:2::5]:23456"),
    ] {
        let config = load(&full("ipvs", bind, health, metrics)).unwrap();
        let cidrs = ["10.20.0.0/16", "fd00:1::/64"].map(|cidr| cidr.parse().unwrap()).to_vec();
        assert_eq!(config.bind_address, parse_ip(bind.trim_matches('"')).unwrap());
        assert_eq!(config.healthz_bind, Some(health.parse().unwrap()));
        assert_eq!(config.metrics_bind, metrics.parse().unwrap());
        assert_eq!(&*config.node_name, "foo");
        assert_eq!(config.scheduler, Scheduler::WLC);
        assert_eq!(config.exclude_cidrs, cidrs);
        assert!(config.sysctls.strict_arp);
        assert_eq!(config.ipvs_timeouts, Timeouts { tcp: 100, tcp_fin: 60, udp: 1 });
        assert_eq!(config.sync_period, secs(60));
        assert_eq!(config.min_sync_period, secs(10));
        assert_eq!(config.drain_timeout, secs(900));
        assert_eq!(config.node_port_addresses, NodePortAddresses::Cidrs(cidrs));
        assert_eq!((config.firewall.masquerade_all, config.firewall.masquerade_bit), (true, 17));
        let cluster = vec!["10.20.0.0/16".parse().unwrap()];
        assert_eq!(config.detect_local, DetectLocal::ClusterCidr(cluster));
        assert!(!config.external_ips);
        assert_eq!(
            config.sysctls.conntrack,
            ConntrackOptions {
                max_per_core: 2,
                min: 1,
                tcp_established: secs(20),
                tcp_close_wait: secs(10),
                be_liberal: true,
                udp: secs(30),
                udp_stream: secs(10),
            }
        );
        assert_eq!(config.oom_score_adj, 17);
        assert_eq!(config.object.config_sync_period, GoDuration::from_secs(15));
        assert_eq!(
            config.client,
            ClientConnection {
                kubeconfig: Some("/path/to/kubeconfig".into()),
                master: None,
                qps: 7.5,
                burst: 100
            }
        );
        let vmodule = vec![("plan".to_owned(), 6)];
        assert_eq!(config.logging, Logging { format: LogFormat::Json, verbosity: 4, vmodule });
        let [warning] = &config.warnings[..] else { panic!("{:?}", config.warnings) };
        assert!(warning.starts_with("configSyncPeriod has no effect: "), "{warning}");
    }
}

/// L40: other modes run IPVS all the same, with the periods of `ipvs`, and it is said.
#[test]
fn other_modes_run_ipvs_and_say_so() {
    for mode in ["", "iptables", "nftables"] {
        let config = load(&full(mode, "0.0.0.0", "", "")).unwrap();
        assert_eq!(config.sync_period, secs(60));
        assert_eq!(config.object.mode, "ipvs");
        let given = if mode.is_empty() { "iptables" } else { mode };
        assert_eq!(
            config.warnings[0],
            format!(
                "mode is {given:?}; proxier always runs IPVS, write mode: ipvs to silence this"
            )
        );
    }
}

/// Without a cluster there is no other mode that a reader could have meant.
#[test]
fn manifests_alone_miss_no_mode_and_no_scheduler() {
    let config = with_flags("--manifests objects --hostname-override=node").unwrap();
    assert_eq!(config.warnings, [""; 0]);
    let header = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";
    let config = with_file(header, "--manifests objects --hostname-override=node").unwrap();
    assert!(config.warnings[0].starts_with("mode is \"iptables\""), "{:?}", config.warnings);
}

/// L40: `[::]` gets past the loader; validation refuses it.
#[test]
fn a_bracketed_bind_address_is_left_to_validation() {
    let text = full("ipvs", "\"[::]\"", "", "");
    let error = load(&text).unwrap_err().to_string();
    assert_eq!(
        error,
        "failed validate: KubeProxyConfiguration.BindAddress: Invalid value: \"[::]\": not a \
         valid textual representation of an IP address"
    );
}

/// L40: unknown and duplicate fields are accepted, and named.
#[test]
fn unknown_and_duplicate_fields_are_named() {
    let config = load(
        "mode: ipvs\nipvs: {shceduler: lc, strictArp: true, scheduler: rr}\nmode: ipvs\n\
         bogus: {deep: 1}\nconntrack:\n  min: 5\n  min: null\n\
         logging: {vmodule: [{filePattern: a, verbosity: 1, x: 1}]}\n",
    )
    .unwrap();
    assert!(!config.sysctls.strict_arp);
    assert_eq!(
        config.warnings,
        ["Using lenient decoding as strict decoding failed: /config: \
          field \"mode\" is there twice, field \"conntrack.min\" is there twice, \
          unknown field \"bogus\", \
          unknown field \"ipvs.shceduler\" (did you mean \"scheduler\"?), \
          unknown field \"ipvs.strictArp\" (did you mean \"strictARP\"?), \
          unknown field \"logging.vmodule[0].x\""]
    );
}

/// L41
#[test]
fn what_is_no_configuration_is_refused_with_the_reason() {
    for (text, reason) in [
        ("", "it is not an object of kind KubeProxyConfiguration"),
        ("just text", "it is not an object of kind KubeProxyConfiguration"),
        ("kind: KubeProxyConfiguration", "apiVersion is missing"),
        ("apiVersion: kubeproxy.config.k8s.io/v1alpha1", "kind is missing"),
        (
            "apiVersion: kubeproxy.config.k8s.io/v1\nkind: KubeProxyConfiguration",
            "apiVersion is \"kubeproxy.config.k8s.io/v1\", it must be",
        ),
        (
            "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: Pod",
            "kind is \"Pod\", it must be \"KubeProxyConfiguration\"",
        ),
        ("a: [", "/config: "),
    ] {
        let error = with_file(text, "").unwrap_err().to_string();
        assert!(error.starts_with("failed to decode the configuration file /config: "), "{error}");
        assert!(error.contains(reason), "{text:?}: {error}");
    }
    assert!(matches!(load("bindAddress: ::").unwrap_err(), ConfigError::Decode { .. }));
    let missing = with_flags("--config=/nowhere").unwrap_err();
    assert_eq!(missing.to_string(), "cannot read the configuration file /nowhere");
}

#[test]
fn every_field_of_a_wrong_type_is_named() {
    let error = load(
        "ipvs: {syncPeriod: soon, strictARP: maybe, minSyncPeriod: 30}\nconntrack: 7\n\
         nodePortAddresses: primary\nbindAddress: {a: b}\noomScoreAdj: 99999999999\n",
    )
    .unwrap_err();
    let ConfigError::Decode { problems, .. } = error else { panic!("{error}") };
    let fields: Vec<_> = problems.iter().filter_map(|text| text.split_once(": ")).collect();
    assert_eq!(
        fields.iter().map(|(field, _)| *field).collect::<Vec<_>>(),
        [
            "bindAddress",
            "conntrack",
            "ipvs.minSyncPeriod",
            "ipvs.strictARP",
            "ipvs.syncPeriod",
            "nodePortAddresses",
            "oomScoreAdj"
        ]
    );
    assert!(problems[2].contains("write 30s"), "{}", problems[2]);
}

#[test]
fn json_and_yaml_1_1_switches_are_read() {
    let json = r#"{"apiVersion":"kubeproxy.config.k8s.io/v1alpha1","kind":"KubeProxyConfiguration",
        "mode":"ipvs","ipvs":{"strictARP":true,"scheduler":"rr"}}"#;
    assert!(with_file(json, "").unwrap().sysctls.strict_arp);
    assert!(load("ipvs: {strictARP: yes}").unwrap().sysctls.strict_arp);
}

/// L42
#[test]
fn the_node_s_name() {
    let named = "hostnameOverride: ' File-Name '";
    let text = format!(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n{named}"
    );
    assert_eq!(&*with_file(&text, "").unwrap().node_name, "file-name");
    assert_eq!(&*with_file(&text, "--hostname-override=").unwrap().node_name, "file-name");
    assert_eq!(&*with_file(&text, "--hostname-override=Bar").unwrap().node_name, "bar");
    assert_eq!(&*load("").unwrap().node_name, "host-1");

    let given = |name: &str| {
        let args = Args::parse_from(["proxier".to_owned(), format!("--hostname-override={name}")]);
        Config::load(&args.unwrap(), &Fake::default())
    };
    assert_eq!(&*given("  bar ").unwrap().node_name, "bar");
    let error = given("   ").unwrap_err().to_string();
    assert!(error.starts_with("empty hostname-override is invalid"), "{error}");
    let error = load("hostnameOverride: ' '").unwrap_err().to_string();
    assert!(error.starts_with("empty hostname is invalid"), "{error}");
}

/// L45
#[test]
fn defaults() {
    let config = load("").unwrap();
    assert_eq!(config.detect_local, DetectLocal::ClusterCidr(vec![]));
    assert_eq!(config.object.detect_local_mode, "ClusterCIDR");
    assert!(config.warnings[0].starts_with("mode is \"iptables\""), "{:?}", config.warnings);
    assert_eq!(config.sync_period, secs(30));
    assert_eq!(config.min_sync_period, Duration::ZERO);
    assert_eq!(config.scheduler, Scheduler::RR);
    assert_eq!(config.node_port_addresses, NodePortAddresses::All);
    assert_eq!((config.firewall.masquerade_all, config.firewall.masquerade_bit), (false, 14));
    assert_eq!(config.healthz_bind, Some("0.0.0.0:10256".parse().unwrap()));
    assert_eq!(config.metrics_bind, "127.0.0.1:10249".parse().unwrap());
    assert_eq!(config.oom_score_adj, -999);
    assert_eq!(config.object.config_sync_period, GoDuration::from_secs(900));
    assert!(config.external_ips && config.flagz && config.statusz);
    assert_eq!(config.client.kubeconfig, None);
    assert_eq!((config.client.qps, config.client.burst), (5.0, 10));
    assert_eq!(
        config.sysctls.conntrack,
        ConntrackOptions {
            max_per_core: 32768,
            min: 131_072,
            tcp_established: secs(86400),
            tcp_close_wait: secs(3600),
            ..ConntrackOptions::default()
        }
    );
}

#[test]
fn an_ipv6_bind_address_decides_the_family_of_the_servers() {
    let config = load("bindAddress: '::'\nmetricsBindAddress: 'fd00::1'").unwrap();
    assert_eq!(config.healthz_bind, Some("[::]:10256".parse().unwrap()));
    assert_eq!(config.metrics_bind, "[fd00::1]:10249".parse().unwrap());
}

#[test]
fn fields_without_meaning_are_named_with_the_reason() {
    let config = load(
        "mode: ipvs\nipvs: {scheduler: rr}\nwinkernel: {networkName: x, enableDSR: true}\n\
         portRange: 1-2\niptables: {localhostNodePorts: false, syncPeriod: 5s}\n\
         nftables: {masqueradeAll: true, minSyncPeriod: 1s}\nenableProfiling: true\n\
         clientConnection: {contentType: application/vnd.kubernetes.protobuf}\n\
         logging: {flushFrequency: 1s, options: {json: {infoBufferSize: 1Ki}}}\n\
         featureGates: {SomeKubeletGate: true}\n",
    )
    .unwrap();
    let fields: Vec<_> =
        config.warnings.iter().map(|text| text.split(' ').next().unwrap()).collect();
    assert_eq!(
        fields,
        [
            "unrecognized",
            "winkernel.networkName",
            "winkernel.enableDSR",
            "nftables.masqueradeAll",
            "iptables.syncPeriod",
            "iptables.localhostNodePorts",
            "portRange",
            "enableProfiling",
            "logging.flushFrequency",
            "logging.options.json.infoBufferSize",
        ]
    );
    assert_eq!(
        config.warnings[6],
        "portRange has no effect: it belonged to the userspace mode, which is gone"
    );
}

#[test]
fn what_is_written_is_read_back() {
    let config = load(&full("ipvs", "9.8.7.6", "", "")).unwrap();
    let again = with_file(&config.to_yaml().unwrap(), "").unwrap();
    assert_eq!(again, config);

    let awkward = load("mode: ipvs\nbindAddress: '::'\nhostnameOverride: 'on'\n").unwrap();
    assert_eq!(with_file(&awkward.to_yaml().unwrap(), "").unwrap(), awkward);

    let configz = config.configz();
    let object = &configz["kubeproxy.config.k8s.io"];
    assert_eq!(object["kind"], "KubeProxyConfiguration");
    assert_eq!(object["apiVersion"], "kubeproxy.config.k8s.io/v1alpha1");
    assert_eq!(object["clusterCIDR"], "10.20.0.0/16");
    assert_eq!(object["ipvs"]["strictARP"], true);
    assert_eq!(object["ipvs"]["syncPeriod"], GoDuration::from_secs(60).to_string());
    assert_eq!(object["iptables"]["syncPeriod"], "0s");
    assert_eq!(object["nftables"]["minSyncPeriod"], "0s");
}

/// What `--write-config-to` writes is read back as it was, although YAML 1.1 has many words for numbers
/// and booleans.
#[test]
fn text_that_looks_like_something_else_is_written_as_text() {
    for text in [
        "yes",
        "no",
        "on",
        "off",
        "y",
        "n",
        "Y",
        "N",
        "On",
        "TRUE",
        "null",
        "~",
        "0755",
        "0o17",
        "0x1f",
        "0b11",
        "1_000",
        "1e3",
        "1.5",
        ".5",
        "+5",
        "08",
        "2024-01-02",
        "12:30",
        "<<",
        "=",
        ".inf",
        "-",
        "a: b",
    ] {
        let config = load(&format!("featureGates: {{}}\nportRange: '{text}'\n")).unwrap();
        let written = config.to_yaml().unwrap();
        let (_, again) = written.split_once('\n').unwrap();
        assert!(written.contains("portRange"), "{again}");
        let tree = crate::value::tree::first(&written).unwrap();
        assert_eq!(tree.value["portRange"], text, "{written}");
    }
}

/// The first of several documents is used, and one warning says so.
#[test]
fn several_documents_in_a_file() {
    for (more, warned) in [
        ("", false),
        ("---\n", false),
        ("---\n# nothing\n", false),
        ("---\nkind: KubeletConfiguration\n", true),
        ("---\nmode: [\n---\n{}\n", true),
    ] {
        let config = load(&format!("mode: ipvs\nipvs: {{scheduler: lc}}\n{more}")).unwrap();
        assert_eq!(config.scheduler.to_string(), "lc");
        let warnings = config.warnings.iter().filter(|text| text.contains("several documents"));
        assert_eq!(warnings.count(), usize::from(warned), "{more:?}: {:?}", config.warnings);
    }
}

/// Fields by what `sigs.k8s.io/yaml` makes of each form; the scalars themselves are in
/// `value::tree::tests`.
#[test]
fn forms_of_fields() {
    let conntrack = |text: &str| {
        load(&format!("conntrack: {{min: {text}}}")).map(|it| it.sysctls.conntrack.min)
    };
    for (text, expected) in [
        ("1048576", 1_048_576),
        ("1.048576e+06", 1_048_576),
        ("1048576.0", 1_048_576),
        ("1_048_576", 1_048_576),
        ("0o4000000", 1_048_576),
        ("04000000", 1_048_576),
        ("0x100000", 1_048_576),
    ] {
        assert_eq!(conntrack(text).unwrap(), expected, "{text}");
    }
    for text in ["'1048576'", "1.5", "yes", "1e30", "9223372036854775808", "[1]", "1Mi", ".nan"] {
        assert!(conntrack(text).is_err(), "{text}");
    }
    // Null is as good as nothing.
    for text in ["null", "~", ""] {
        let given =
            load(&format!("conntrack: {{min: {text}}}\nipvs: {text}\nmode: ipvs\n")).unwrap();
        assert_eq!(given.sysctls.conntrack.min, 131_072, "{text}");
    }
    let strict =
        |text: &str| load(&format!("ipvs: {{strictARP: {text}}}")).map(|it| it.sysctls.strict_arp);
    for (text, expected) in
        [("true", true), ("yes", true), ("on", true), ("Off", false), ("n", false)]
    {
        assert_eq!(strict(text).unwrap(), expected, "{text}");
    }
    for text in ["1", "'true'", "maybe"] {
        assert!(strict(text).is_err(), "{text}");
    }
    let period = |text: &str| {
        load(&format!("ipvs: {{syncPeriod: {text}}}")).map(|it| it.sync_period.as_secs())
    };
    for (text, expected) in
        [("1m30s", 90), ("'90s'", 90), ("1.5m", 90), ("90000000000", 90), ("9e+10", 90)]
    {
        assert_eq!(period(text).unwrap(), expected, "{text}");
    }
    for text in ["90", "1d", "1.5", "yes"] {
        assert!(period(text).is_err(), "{text}");
    }
    // Text is text, and a number is none.
    assert!(load("hostnameOverride: 5").is_err());
    assert_eq!(&*load("hostnameOverride: '5'").unwrap().node_name, "5");
    // Anchors, merge keys, duplicates, Windows' line ends, a byte order mark.
    let text = "iptables: &times {syncPeriod: 20s, minSyncPeriod: 2s}\nipvs: {<<: *times, minSyncPeriod: 3s}\n";
    let merged = load(text).unwrap();
    assert_eq!((merged.sync_period.as_secs(), merged.min_sync_period.as_secs()), (20, 3));
    assert!(!merged.warnings.iter().any(|text| text.contains("twice")), "{:?}", merged.warnings);
    let twice = load("ipvs: {scheduler: lc, scheduler: wlc}\r\nmode: ipvs\r\n").unwrap();
    assert_eq!(twice.scheduler.to_string(), "wlc");
    assert!(twice.warnings.iter().any(|text| text.contains("\"ipvs.scheduler\" is there twice")));
}
