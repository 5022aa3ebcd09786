//! `deploy/`: that the manifests are what the API knows, ask for no more than is used, and that the daemon
//! works within them.

#![allow(clippy::unwrap_used, reason = "a broken manifest is a failed test")]

#[path = "deploy/chart.rs"]
mod chart;
#[path = "deploy/confined.rs"]
mod confined;
#[path = "deploy/monitoring.rs"]
mod monitoring;
#[path = "deploy/seccomp.rs"]
mod seccomp;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::Resource;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, PodSpec, ServiceAccount};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use proxier::args::Args;
use proxier::config::{Config, Environment};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

const BASE: &str = "deploy/kustomize/base";

#[test]
fn the_manifests_have_only_fields_that_the_api_knows() {
    let objects = base();
    let kinds: Vec<_> = objects.iter().map(|object| text_of(object, "kind")).collect();
    assert_eq!(
        kinds,
        ["ServiceAccount", "ClusterRole", "ClusterRoleBinding", "ConfigMap", "DaemonSet"]
    );
    for object in &objects {
        match text_of(object, "kind").as_str() {
            "ServiceAccount" => drop(strict::<ServiceAccount>(object)),
            "ClusterRole" => drop(strict::<ClusterRole>(object)),
            "ClusterRoleBinding" => drop(strict::<ClusterRoleBinding>(object)),
            "ConfigMap" => drop(strict::<ConfigMap>(object)),
            _ => drop(strict::<DaemonSet>(object)),
        }
    }
    let mut wrong = serde_json::to_value(daemon_set()).unwrap();
    wrong["spec"]["template"]["spec"]["containers"][0]["livenessProbes"] = Value::Null;
    let unknown = unknown_fields(&wrong, &serde_json::to_value(daemon_set()).unwrap());
    assert_eq!(unknown, [".spec.template.spec.containers[0].livenessProbes"]);
}

#[test]
fn the_daemon_set_stands_where_kube_proxy_stood() {
    let daemon_set = daemon_set();
    let strategy = daemon_set.spec.as_ref().unwrap().update_strategy.as_ref().unwrap();
    let rolling = serde_json::to_value(strategy.rolling_update.as_ref().unwrap()).unwrap();
    assert_eq!(rolling, serde_json::json!({"maxSurge": 0, "maxUnavailable": 1}));

    let pod = pod(&daemon_set);
    assert_eq!(daemon_set.metadata.namespace.as_deref(), Some("kube-system"));
    assert_eq!(pod.priority_class_name.as_deref(), Some("system-node-critical"));
    assert_eq!(pod.host_network, Some(true));
    let everything = serde_json::json!([{"operator": "Exists"}]);
    assert_eq!(serde_json::to_value(pod.tolerations.as_ref().unwrap()).unwrap(), everything);

    let container = only(&pod.containers);
    let port = |name: &str| {
        let ports = container.ports.as_ref().unwrap().iter();
        ports.clone().find(|port| port.name.as_deref() == Some(name)).unwrap().container_port
    };
    let config = load(config_map("config.conf"));
    assert_eq!(i32::from(config.healthz_bind.unwrap().port()), port("healthz"));
    assert_eq!(i32::from(config.metrics_bind.port()), port("metrics"));
    for (probe, path) in
        [(&container.liveness_probe, "/livez"), (&container.readiness_probe, "/healthz")]
    {
        let request = probe.as_ref().unwrap().http_get.as_ref().unwrap();
        assert_eq!(request.path.as_deref(), Some(path));
        assert_eq!(serde_json::to_value(&request.port).unwrap(), "healthz");
    }
}

#[test]
fn the_container_may_do_two_things_that_a_process_without_rights_may_not() {
    let daemon_set = daemon_set();
    let pod = pod(&daemon_set);
    let seccomp = pod.security_context.as_ref().unwrap().seccomp_profile.as_ref().unwrap();
    assert_eq!(seccomp.type_, "RuntimeDefault");
    let security = only(&pod.containers).security_context.as_ref().unwrap();
    let expected = serde_json::json!({
        "privileged": false,
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]},
    });
    assert_eq!(serde_json::to_value(security).unwrap(), expected);
}

/// The pod that only looks has the rights and the files of the one that acts. It sees the node's processes, too:
/// it names programs that do not go well with service addresses on `kube-ipvs0`.
#[test]
fn the_check_runs_as_the_daemon_does() {
    let documents = documents("deploy/kustomize/check.yaml");
    let check: Pod = strict(only(&documents));
    let (check, daemon_set) = (check.spec.unwrap(), daemon_set());
    let daemon = pod(&daemon_set);
    let (looks, acts) = (only(&check.containers), only(&daemon.containers));
    assert_eq!(looks.security_context, acts.security_context);
    assert_eq!(looks.volume_mounts, acts.volume_mounts);
    assert_eq!(looks.image, acts.image);
    assert_eq!(check.host_pid, Some(true));
    assert_eq!(arguments(looks, "")[..2], ["migrate", "--check"]);
    assert_eq!(looks.args.as_ref().unwrap()[2], acts.args.as_ref().unwrap()[0]);
    assert_eq!(check.security_context, daemon.security_context);
    assert_eq!(check.service_account_name, daemon.service_account_name);
    for volume in check.volumes.unwrap() {
        assert!(daemon.volumes.as_ref().unwrap().contains(&volume), "{}", volume.name);
    }
}

/// The pod that hands a node over is the daemon with another command, and may change kernel settings.
#[test]
fn the_hand_over_runs_as_the_daemon_does() {
    let documents = documents("deploy/kustomize/hand-over.yaml");
    let pod: Pod = strict(only(&documents));
    let (pod, daemon_set) = (pod.spec.unwrap(), daemon_set());
    let daemon = self::pod(&daemon_set);
    let (hands, runs) = (only(&pod.containers), only(&daemon.containers));
    assert_eq!(hands.security_context.as_ref().unwrap().privileged, Some(true));
    assert_eq!(hands.volume_mounts, runs.volume_mounts);
    assert_eq!(hands.image, runs.image);
    assert_eq!(arguments(hands, "")[..2], ["hand-over", "--to=nftables"]);
    assert_eq!(hands.args.as_ref().unwrap()[2], runs.args.as_ref().unwrap()[0]);
    // One that is killed goes on; one that has ended stays so.
    assert_eq!(pod.restart_policy.as_deref(), Some("OnFailure"));
    assert_eq!(pod.service_account_name, daemon.service_account_name);
    for volume in pod.volumes.unwrap() {
        assert!(daemon.volumes.as_ref().unwrap().contains(&volume), "{}", volume.name);
    }
}

/// What the cluster role allows, and what the sources ask the API server for.
#[test]
fn the_role_allows_what_is_watched_and_events_and_nothing_else() {
    let objects = base();
    let role: ClusterRole = strict(find(&objects, "ClusterRole"));
    let mut allowed = BTreeSet::new();
    for rule in role.rules.unwrap() {
        assert_eq!((&rule.non_resource_urls, &rule.resource_names), (&None, &None));
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                let verbs = rule.verbs.iter();
                allowed.extend(verbs.map(|verb| (group.clone(), resource.clone(), verb.clone())));
            }
        }
    }
    let mut used = BTreeSet::new();
    for (group, resource) in watched() {
        used.extend(["list", "watch"].map(|verb| (group.clone(), resource.clone(), verb.into())));
    }
    // What tests/events.rs sees the test API server receive.
    let events = (Event::GROUP, Event::URL_PATH_SEGMENT);
    used.extend(["create", "patch"].map(|verb| (events.0.into(), events.1.into(), verb.into())));
    assert_eq!(allowed, used);

    let binding: ClusterRoleBinding = strict(find(&objects, "ClusterRoleBinding"));
    assert_eq!(Some(binding.role_ref.name), role.metadata.name);
    let account: ServiceAccount = strict(find(&objects, "ServiceAccount"));
    let subject = only(binding.subjects.as_ref().unwrap());
    assert_eq!(Some(&subject.name), account.metadata.name.as_ref());
    assert_eq!(pod(&daemon_set()).service_account_name, account.metadata.name);
}

/// `kubectl exec POD -- proxier status`: there is no shell that would know where it is.
#[test]
fn the_image_finds_the_program_by_its_name() {
    let text = read("deploy/Dockerfile");
    let word = |start: &str| text.lines().find_map(|line| line.strip_prefix(start));
    let program = Path::new(word("COPY --from=build /out/proxier ").unwrap());
    let folders = word("ENV PATH=").unwrap();
    assert!(folders.split(':').any(|folder| Some(Path::new(folder)) == program.parent()));
    let entry: Vec<PathBuf> = serde_json::from_str(word("ENTRYPOINT ").unwrap()).unwrap();
    assert_eq!(entry, [program]);
}

#[test]
fn the_config_map_is_one_that_kubeadm_could_have_written() {
    let config = load(config_map("config.conf"));
    assert_eq!(config.warnings, [""; 0]);
    assert_eq!(&*config.node_name, "node-1");
    let kubeconfig = config.client.kubeconfig.unwrap();
    let key = kubeconfig.strip_prefix("/var/lib/kube-proxy").unwrap().to_str().unwrap();
    let text: Value = serde_saphyr::from_str(&config_map(key)).unwrap();
    assert_eq!(text_of(&text, "kind"), "Config");
    assert_eq!(config.sync_period, Duration::from_secs(30));
}

// === reading the manifests ===

/// The objects of the base, in the order of its kustomization, which transforms nothing.
fn base() -> Vec<Value> {
    let kustomization: Value =
        serde_saphyr::from_str(&read(&format!("{BASE}/kustomization.yaml"))).unwrap();
    let keys: Vec<_> = kustomization.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["apiVersion", "kind", "resources"]);
    let files = kustomization["resources"].as_array().unwrap();
    let documents = |file: &Value| documents(&format!("{BASE}/{}", file.as_str().unwrap()));
    files.iter().flat_map(documents).collect()
}

fn documents(path: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn find<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let mut found = objects.iter().filter(|object| object["kind"] == kind);
    let first = found.next().unwrap_or_else(|| panic!("no {kind}"));
    assert!(found.next().is_none(), "two of {kind}");
    first
}

fn daemon_set() -> DaemonSet {
    strict(find(&base(), "DaemonSet"))
}

fn pod(daemon_set: &DaemonSet) -> &PodSpec {
    daemon_set.spec.as_ref().unwrap().template.spec.as_ref().unwrap()
}

fn config_map(key: &str) -> String {
    let map: ConfigMap = strict(find(&base(), "ConfigMap"));
    map.data.unwrap()[key].clone()
}

/// Reads an object and fails where a field is not the API's, which the types alone would ignore.
fn strict<T: Resource + Serialize + DeserializeOwned>(object: &Value) -> T {
    assert_eq!(text_of(object, "apiVersion"), T::API_VERSION);
    assert_eq!(text_of(object, "kind"), T::KIND);
    let read: T = serde_json::from_value(object.clone()).unwrap();
    let unknown = unknown_fields(object, &serde_json::to_value(&read).unwrap());
    assert_eq!(unknown, [""; 0], "unknown fields of {}", T::KIND);
    read
}

/// Paths of what `written` has and `understood` has not.
fn unknown_fields(written: &Value, understood: &Value) -> Vec<String> {
    fn walk(path: &str, written: &Value, understood: &Value, out: &mut Vec<String>) {
        match (written, understood) {
            (Value::Object(fields), Value::Object(known)) => {
                for (name, value) in fields {
                    let path = format!("{path}.{name}");
                    match known.get(name) {
                        Some(known) => walk(&path, value, known, out),
                        None => out.push(path),
                    }
                }
            }
            (Value::Array(items), Value::Array(known)) if items.len() == known.len() => {
                for (at, (item, known)) in items.iter().zip(known).enumerate() {
                    walk(&format!("{path}[{at}]"), item, known, out);
                }
            }
            (written, understood) if written == understood => {}
            _ => out.push(format!("{path} (read as {understood})")),
        }
    }
    let mut out = Vec::new();
    walk("", written, understood, &mut out);
    out
}

/// Group and resource of every path of the API in the sources.
fn watched() -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    let mut folders = vec![root().join("proxier/src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("tests") {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs")
                && !path.ends_with("tests.rs")
            {
                let text = fs::read_to_string(path).unwrap();
                let quoted = text.split('"').skip(1).step_by(2);
                found.extend(quoted.filter_map(|text| {
                    let parts: Vec<_> = text.strip_prefix("/api")?.split('/').collect();
                    match *parts.as_slice() {
                        ["", "v1", resource] => Some((String::new(), resource.to_owned())),
                        ["s", group, _, resource] => Some((group.to_owned(), resource.to_owned())),
                        _ => panic!("a path of the API that this test does not understand: {text}"),
                    }
                }));
            }
        }
    }
    assert!(!found.is_empty());
    found
}

/// Loads a configuration as the container of the manifest would.
fn load(text: String) -> Config {
    let daemon_set = daemon_set();
    let container = only(&pod(&daemon_set).containers);
    let words = arguments(container, "node-1");
    let args = Args::parse_from([&["proxier".to_owned()][..], &words].concat()).unwrap();
    Config::load(&args, &File(text)).unwrap()
}

/// The container's arguments on a node of this name.
fn arguments(container: &Container, node: &str) -> Vec<String> {
    let args = container.args.as_ref().unwrap().iter();
    args.map(|word| word.replace("$(NODE_NAME)", node)).collect()
}

struct File(String);

impl Environment for File {
    fn read(&self, path: &Path) -> io::Result<String> {
        assert_eq!(path, Path::new("/var/lib/kube-proxy/config.conf"));
        Ok(self.0.clone())
    }

    fn host_name(&self) -> io::Result<String> {
        panic!("the manifest gives the node's name")
    }
}

fn only<T>(items: &[T]) -> &T {
    assert_eq!(items.len(), 1);
    &items[0]
}

fn text_of(object: &Value, field: &str) -> String {
    object[field].as_str().unwrap_or_default().to_owned()
}

fn read(path: &str) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}
