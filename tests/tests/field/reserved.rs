//! A Service that claims the API server's address.

use std::process::Command;

use proxier_tests::command::{output, program};
use proxier_tests::daemon::Scratch;
use serde_json::json;

use super::input;

fn proxier() -> Command {
    let mut command = Command::new(program("proxier").unwrap());
    command.args([
        "--proxy-mode=ipvs",
        "--hostname-override=node-1",
        "--node-address=192.168.1.20",
    ]);
    command
}

#[test]
fn an_external_ip_that_is_the_api_servers_is_not_programmed() {
    let scratch = Scratch::create().unwrap();
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": "https://192.168.1.11:6443"}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "users": [{"name": "test", "user": {}}],
    });
    let kubeconfig = scratch.replace("kubeconfig", kubeconfig.to_string()).unwrap();
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "endpoints": [{"addresses": ["192.168.1.11"]}],
        "ports": [{"name": "https", "port": 6443, "protocol": "TCP"}],
    });
    let slice = scratch.replace("slice.json", slice.to_string()).unwrap();
    let ways = [
        vec!["--kubeconfig".as_ref(), kubeconfig.as_os_str()],
        vec!["--master=https://192.168.1.11:6443".as_ref()],
        vec!["--manifests".as_ref(), slice.as_os_str()],
    ];
    let manifest = input("external-ip-of-the-api-server.yaml");
    for way in ways {
        let mut all = proxier();
        all.args(&way).arg("--manifests").arg(&manifest).args(["--dry-run", "-o", "all"]);
        let text = output(&mut all).unwrap();
        assert!(!text.contains("192.168.1.11"), "{way:?}: {text}");
        assert!(text.contains("10.96.0.50:80"), "{way:?}: {text}");
        let mut explain = proxier();
        explain.args(&way).arg("--manifests").arg(&manifest).args(["explain", "default/web"]);
        let text = output(&mut explain).unwrap();
        assert!(text.contains("external IP 192.168.1.11 is not programmed: "), "{way:?}: {text}");
        // Unless the administrator says so.
        let mut given = proxier();
        given.args(&way).arg("--manifests").arg(&manifest);
        given.args(["--allow-reserved-ips=192.168.1.0/24", "--dry-run", "-o", "all"]);
        let text = output(&mut given).unwrap();
        assert!(text.contains("192.168.1.11:80"), "{way:?}: {text}");
    }
}
