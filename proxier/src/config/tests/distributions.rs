//! Configuration files as distributions write them, whole.

use super::*;

const KUBEADM: &str = include_str!("../../../tests/configs/kubeadm.yaml");
const KUBESPRAY: &str = include_str!("../../../tests/configs/kubespray.yaml");
const KIND: &str = include_str!("../../../tests/configs/kind.yaml");
const K0S: &str = include_str!("../../../tests/configs/k0s.yaml");

/// Loads a file as the distribution's DaemonSet does: with the arguments of its container, here on a node
/// of this name.
fn daemon_set(text: &str, node: &str) -> Config {
    const PATH: &str = "/var/lib/kube-proxy/config.conf";
    let env = Fake([(PATH.into(), text.to_owned())].into());
    let args = args(&format!("--config={PATH} --hostname-override={node}"));
    Config::load(&args, &env).unwrap()
}

fn warnings(config: &Config) -> Vec<&str> {
    config.warnings.iter().map(|text| text.split([';', ',']).next().unwrap()).collect()
}

#[test]
fn kubeadm_writes_zero_values_everywhere() {
    let config = daemon_set(KUBEADM, "node-1");
    let mut plain = load(
        "bindAddress: 0.0.0.0\nclusterCIDR: 10.244.0.0/16\nhostnameOverride: node-1\n\
         clientConnection: {kubeconfig: /var/lib/kube-proxy/kubeconfig.conf}\n",
    )
    .unwrap();
    assert_eq!(warnings(&config), ["mode is \"iptables\"", "IPVS scheduler not specified"]);
    plain.warnings.clone_from(&config.warnings);
    assert_eq!(config, plain);
}

#[test]
fn kubespray() {
    let config = daemon_set(KUBESPRAY, "node1");
    assert_eq!(config.warnings, [""; 0]);
    assert!(config.sysctls.strict_arp);
    assert_eq!(config.scheduler, Scheduler::RR);
    assert_eq!(config.min_sync_period, Duration::ZERO);
}

#[test]
fn kind() {
    let config = daemon_set(KIND, "kind-control-plane");
    assert_eq!(config.sysctls.conntrack.max_per_core, 0);
    assert_eq!(config.sync_period, secs(30));
    assert_eq!(warnings(&config), ["IPVS scheduler not specified"]);
}

#[test]
fn k0s() {
    let config = daemon_set(K0S, "worker");
    let cidrs = ["10.244.0.0/16", "fd00::/108"].map(|cidr| cidr.parse().unwrap()).to_vec();
    assert_eq!(config.detect_local, DetectLocal::ClusterCidr(cidrs));
    assert_eq!(config.min_sync_period, secs(1));
    assert_eq!(warnings(&config), ["mode is \"iptables\"", "IPVS scheduler not specified"]);
}

/// k3s and RKE2 pass flags only: those of RKE2's static pod, with `kube-proxy-arg` for IPVS.
#[test]
fn rke2() {
    let config = with_flags(
        "--cluster-cidr=10.42.0.0/16 --conntrack-max-per-core=0 \
         --conntrack-tcp-timeout-close-wait=0s --conntrack-tcp-timeout-established=0s \
         --healthz-bind-address=127.0.0.1 --hostname-override=node \
         --kubeconfig=/var/lib/rancher/rke2/agent/kubeproxy.kubeconfig --proxy-mode=ipvs \
         --ipvs-scheduler=lc --ipvs-strict-arp=true",
    )
    .unwrap();
    assert_eq!(
        config.sysctls.conntrack,
        ConntrackOptions { min: 131_072, ..ConntrackOptions::default() }
    );
    assert_eq!(config.healthz_bind, Some("127.0.0.1:10256".parse().unwrap()));
    assert_eq!(config.warnings, [""; 0]);
}

/// RKE2 without `kube-proxy-arg`, for two families: a cluster that ran iptables mode.
#[test]
fn rke2_iptables() {
    let config = with_flags(
        "--cluster-cidr=10.42.0.0/16,2001:cafe:42::/56 --conntrack-max-per-core=0 \
         --conntrack-tcp-timeout-close-wait=0s --conntrack-tcp-timeout-established=0s \
         --healthz-bind-address=127.0.0.1 --hostname-override=node \
         --kubeconfig=/var/lib/rancher/rke2/agent/kubeproxy.kubeconfig --proxy-mode=iptables",
    )
    .unwrap();
    let cidrs = ["10.42.0.0/16", "2001:cafe:42::/56"].map(|cidr| cidr.parse().unwrap()).to_vec();
    assert_eq!(config.detect_local, DetectLocal::ClusterCidr(cidrs));
    assert_eq!(
        config.client.kubeconfig.as_deref(),
        Some(Path::new("/var/lib/rancher/rke2/agent/kubeproxy.kubeconfig"))
    );
    assert_eq!(warnings(&config), ["mode is \"iptables\"", "IPVS scheduler not specified"]);
}
