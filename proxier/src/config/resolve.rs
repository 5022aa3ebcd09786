//! From a configuration object to what the rest of the program uses.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use ipnet::IpNet;
use netlink_ipvs::{Scheduler, Timeouts};

use super::file::KubeProxyConfiguration;
use super::validate::{FieldErrors, validate};
use super::{
    ClientConnection, Config, ConfigError, DetectLocal, LogFormat, Logging, NodePortAddresses,
    ServiceMetrics, cluster_cidrs, defaults, gates, unused,
};
use crate::args::{Args, Command, FirewallChoice, HandOverMode, LocalPolicyChoice};
use crate::dataplane::firewall::{Backend, FirewallOptions};
use crate::dataplane::hand_over::Successor;
use crate::dataplane::split::LocalPolicy;
use crate::dataplane::sysctls::{ConntrackOptions, SysctlOptions};
use crate::value::{GoDuration, parse_cidr, parse_ip, split_host_port};

/// Validates the object and turns its texts into values.
pub(super) fn resolve(
    args: &Args,
    mut object: KubeProxyConfiguration,
    node_name: Arc<str>,
    mut warnings: Vec<String>,
) -> Result<Config, ConfigError> {
    let errors = validate(&object);
    if !errors.is_empty() {
        return Err(ConfigError::Invalid(FieldErrors(errors)));
    }
    warnings.extend(gates::warnings(&object.feature_gates));
    let stand_alone = !args.own.manifests.is_empty() && args.always.config.is_none();
    if object.mode != "ipvs" {
        let given = std::mem::replace(&mut object.mode, "ipvs".to_owned());
        if !stand_alone {
            warnings.push(format!(
                "mode is {given:?}; proxier always runs IPVS, write mode: ipvs to silence this"
            ));
        }
    }
    warnings.extend(unused::warnings(&object));
    warnings.extend(args.without_effect.iter().map(|flag| format!("--{flag} has no effect")));

    let masquerade_bit = object.iptables.masquerade_bit.map_or(14, unsigned) as u8;
    let local_policy = local_policy(args, masquerade_bit, &mut warnings);
    let successor = successor(args);
    if successor.is_some() && args.own.firewall == FirewallChoice::Iptables {
        warnings
            .push("--firewall=iptables: a hand-over keeps rules and sets in nftables".to_owned());
    }
    let ipvs = &object.ipvs;
    let scheduler = ipvs.scheduler.parse().unwrap_or(Scheduler::RR);
    if ipvs.scheduler.is_empty() && !stand_alone {
        warnings.push("IPVS scheduler not specified, use rr by default".to_owned());
    }
    Ok(Config {
        node_name,
        scheduler,
        exclude_cidrs: cidrs(&ipvs.exclude_cidrs),
        sysctls: SysctlOptions {
            strict_arp: ipvs.strict_arp,
            conntrack: conntrack(&object),
            run_estimation: args.own.ipvs_run_estimation,
            est_cpulist: args.own.ipvs_est_cpulist.clone(),
            est_nice: args.own.ipvs_est_nice,
            keep_lost: successor.is_some(),
        },
        ipvs_timeouts: Timeouts {
            tcp: seconds(ipvs.tcp_timeout),
            tcp_fin: seconds(ipvs.tcp_fin_timeout),
            udp: seconds(ipvs.udp_timeout),
        },
        sync_period: ipvs.sync_period.unsigned(),
        min_sync_period: ipvs.min_sync_period.unsigned(),
        drain_timeout: args.own.drain_timeout.unsigned(),
        backend: match args.own.firewall {
            // Nothing in our table has a name of kube-proxy's, whichever its mode.
            _ if successor.is_some() => Some(Backend::Nftables),
            FirewallChoice::Auto => None,
            FirewallChoice::Iptables => Some(Backend::Iptables),
            FirewallChoice::Nftables => Some(Backend::Nftables),
        },
        successor,
        local_policy,
        marks: args.own.local_policy_marks.without(masquerade_bit),
        firewall: FirewallOptions {
            split: (local_policy == LocalPolicy::Split)
                .then(|| args.own.local_policy_marks.common()),
            masquerade_all: object.iptables.masquerade_all,
            masquerade_bit,
            answer_ping: args.own.answer_ping,
            accept_input: args.own.accept_input,
            ..FirewallOptions::default()
        },
        source_ranges_everywhere: args.own.source_ranges_everywhere,
        allow_reserved: args.own.allow_reserved_ips.clone(),
        keep_foreign: !args.own.manifests.is_empty(),
        stand_alone,
        memory_limit: args.own.memory_limit.map(|mib| u64::from(mib) << 20),
        node_port_addresses: node_port_addresses(
            &object.node_port_addresses,
            args.own.manifests.is_empty(),
        ),
        detect_local: detect_local(&object),
        external_ips: gates::enabled(&object.feature_gates, gates::ALLOW_SERVICE_EXTERNAL_IPS),
        bind_address: parse_ip(&object.bind_address).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        healthz_bind: socket_address(&object.healthz_bind_address),
        metrics_bind: socket_address(&object.metrics_bind_address)
            .unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, defaults::METRICS_PORT))),
        bind_address_hard_fail: object.bind_address_hard_fail,
        oom_score_adj: object.oom_score_adj.unwrap_or_default(),
        client: client(args, &object),
        logging: logging(&object),
        service_metrics: service_metrics(&args.own.service_metrics),
        flagz: gates::enabled(&object.feature_gates, gates::COMPONENT_FLAGZ),
        statusz: gates::enabled(&object.feature_gates, gates::COMPONENT_STATUSZ),
        warnings,
        object,
    })
}

/// The marks must not ask for masquerading.
fn local_policy(args: &Args, masquerade_bit: u8, warnings: &mut Vec<String>) -> LocalPolicy {
    let marks = args.own.local_policy_marks;
    match args.own.local_policy {
        LocalPolicyChoice::KubeProxy => LocalPolicy::KubeProxy,
        LocalPolicyChoice::Split if marks.always_has(masquerade_bit) => {
            warnings.push(format!(
                "--local-policy-marks={marks} has bit {masquerade_bit}, which is \
                 iptables.masqueradeBit: Local policies are as with --local-policy=kube-proxy"
            ));
            LocalPolicy::KubeProxy
        }
        LocalPolicyChoice::Split => LocalPolicy::Split,
    }
}

fn successor(args: &Args) -> Option<Successor> {
    match args.command {
        Some(Command::HandOver { to: HandOverMode::Nftables }) => Some(Successor::Nftables),
        Some(Command::HandOver { to: HandOverMode::Iptables }) => Some(Successor::Iptables),
        _ => None,
    }
}

fn client(args: &Args, object: &KubeProxyConfiguration) -> ClientConnection {
    let client = &object.client_connection;
    let kubeconfig = Some(&client.kubeconfig).filter(|path| !path.is_empty());
    ClientConnection {
        kubeconfig: kubeconfig.map(PathBuf::from),
        master: args.always.master.clone().filter(|url| !url.is_empty()),
        // Flags can still say 0 here, which is client-go's way to say its own defaults.
        qps: if client.qps == 0.0 { defaults::QPS } else { client.qps },
        burst: unsigned(if client.burst == 0 { defaults::BURST } else { client.burst }),
    }
}

fn logging(object: &KubeProxyConfiguration) -> Logging {
    let logging = &object.logging;
    let item = |item: &super::file::VModuleItem| (item.file_pattern.clone(), item.verbosity);
    Logging {
        format: if logging.format == "json" { LogFormat::Json } else { LogFormat::Text },
        verbosity: logging.verbosity,
        vmodule: logging.vmodule.iter().map(item).collect(),
    }
}

fn conntrack(object: &KubeProxyConfiguration) -> ConntrackOptions {
    let conntrack = &object.conntrack;
    ConntrackOptions {
        max_per_core: conntrack.max_per_core.map_or(0, unsigned),
        min: conntrack.min.map_or(0, unsigned),
        tcp_established: conntrack.tcp_established_timeout.unwrap_or_default().unsigned(),
        tcp_close_wait: conntrack.tcp_close_wait_timeout.unwrap_or_default().unsigned(),
        be_liberal: conntrack.tcp_be_liberal,
        udp: conntrack.udp_timeout.unsigned(),
        udp_stream: conntrack.udp_stream_timeout.unsigned(),
    }
}

fn node_port_addresses(entries: &[String], cluster: bool) -> NodePortAddresses {
    match entries {
        [] => NodePortAddresses::All,
        [one] if one == super::PRIMARY && cluster => NodePortAddresses::Primary,
        [one] if one == super::PRIMARY => NodePortAddresses::PrimaryOnly,
        entries => NodePortAddresses::Cidrs(cidrs(entries)),
    }
}

fn detect_local(object: &KubeProxyConfiguration) -> DetectLocal {
    let detect = &object.detect_local;
    match object.detect_local_mode.as_str() {
        "NodeCIDR" => DetectLocal::NodeCidr,
        "BridgeInterface" => DetectLocal::Bridge(detect.bridge_interface.clone()),
        "InterfaceNamePrefix" => DetectLocal::InterfacePrefix(detect.interface_name_prefix.clone()),
        _ => {
            let entries = cluster_cidrs(&object.cluster_cidr);
            DetectLocal::ClusterCidr(entries.into_iter().filter_map(parse_cidr).collect())
        }
    }
}

fn cidrs(entries: &[String]) -> Vec<IpNet> {
    entries.iter().filter_map(|entry| parse_cidr(entry)).collect()
}

fn socket_address(text: &str) -> Option<SocketAddr> {
    let (host, port) = split_host_port(text)?;
    Some(SocketAddr::new(parse_ip(host)?, port.parse().ok()?))
}

fn service_metrics(given: &[String]) -> ServiceMetrics {
    if given.iter().any(|name| name == "*") {
        return ServiceMetrics::All;
    }
    ServiceMetrics::Of(given.iter().filter(|name| !name.is_empty()).cloned().collect())
}

fn seconds(duration: GoDuration) -> u32 {
    u32::try_from(duration.unsigned().as_secs()).unwrap_or(u32::MAX)
}

fn unsigned(number: i32) -> u32 {
    u32::try_from(number).unwrap_or(0)
}
