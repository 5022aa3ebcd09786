use std::fs;
use std::time::Duration;

use super::*;
use crate::cluster::ObjectKey;

/// A folder that is removed with the value.
pub(super) struct Folder(pub(super) PathBuf);

impl Folder {
    pub(super) fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("proxier-files-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(super) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(super) fn service(name: &str, ip: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\nspec:\n  clusterIP: {ip}\n  \
         ports:\n  - port: 80\n"
    )
}

pub(super) fn summary(changes: &[Change]) -> Vec<String> {
    let names =
        |keys: &[ObjectKey]| keys.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    changes
        .iter()
        .map(|change| match change {
            Change::Service(s) => format!("service {} {:?}", s.key, s.cluster_ips),
            Change::ServiceIgnored(key, reason) => format!("ignored {key} {reason:?}"),
            Change::ServiceGone(key) => format!("gone {key}"),
            Change::Slice(slice) => format!("slice {} of {}", slice.key, slice.service.name()),
            Change::SliceGone(key) => format!("slice gone {key}"),
            Change::Node(node) => format!("node {}", node.name),
            Change::ServicesListed(keys) => format!("services: {}", names(keys)),
            Change::SlicesListed(keys) => format!("slices: {}", names(keys)),
            Change::NodeWeight(node, weight) => format!("node {} weighs {weight:?}", node.name()),
            Change::NodeWeightsListed(keys) => format!("weights: {}", names(keys)),
            Change::NodeListed => "node listed".to_owned(),
        })
        .collect()
}

#[test]
fn one_broken_object_among_a_hundred_costs_one() {
    let folder = Folder::new("hundred");
    let documents: Vec<_> = (1..=100)
        .map(|n| match n {
            42 => "apiVersion: v1\nkind: Service\nmetadata:\n  name: broken\nspec: [\n".to_owned(),
            n => service(&format!("web-{n}"), &format!("10.0.0.{n}")),
        })
        .collect();
    let file = folder.write("all.yaml", &documents.join("---\n"));
    let loaded = load(&[file], "node-a").unwrap();
    let services = loaded.changes.iter().filter(|c| matches!(c, Change::Service(_))).count();
    assert_eq!(services, 99);
    assert_eq!(loaded.warnings.len(), 1);
    let warning = loaded.warnings[0].to_string();
    assert!(warning.contains("all.yaml, document 42, line "), "{warning}");
    assert!(warning.contains("Service \"broken\""), "{warning}");
}

#[test]
fn kinds_lists_and_formats() {
    let folder = Folder::new("kinds");
    folder.write("a.json", r#"{"kind": "ServiceList", "apiVersion": "v1", "items": [
        {"metadata": {"name": "typed"}, "spec": {"clusterIP": "10.0.0.1", "ports": [{"port": 1}]}}]}"#);
    folder.write(
        "b.yml",
        "kind: List\napiVersion: v1\nitems:\n- kind: Service\n  apiVersion: v1\n  metadata: {name: \
         headless}\n  spec: {clusterIP: None}\n- kind: Service\n  apiVersion: serving.knative.dev/v1\n  \
         metadata: {name: knative}\n---\nkind: Deployment\napiVersion: apps/v1\n---\nkind: Node\n\
         apiVersion: v1\nmetadata: {name: node-a}\n---\nkind: Node\napiVersion: v1\nmetadata: {name: node-b}\n",
    );
    folder.write("ignored.txt", "kind: [");
    folder.write(".hidden.yaml", "kind: [");
    fs::create_dir(folder.0.join("below.yaml")).unwrap();
    let loaded = load(std::slice::from_ref(&folder.0), "node-a").unwrap();
    assert_eq!(loaded.warnings, []);
    assert_eq!(
        summary(&loaded.changes),
        [
            "node node-a",
            "ignored default/headless Headless",
            "service default/typed [10.0.0.1]",
            "services: default/headless default/typed",
            "slices: ",
            "node listed",
        ]
    );
}

/// An item that says what it is needs not wait for the rest of the list, which decides all the same.
#[test]
fn lists_whose_kind_comes_last() {
    let folder = Folder::new("lists");
    let item = |kind: &str, address: &str| {
        let spec =
            format!("\"spec\": {{\"clusterIP\": \"{address}\", \"ports\": [{{\"port\": 1}}]}}");
        format!("{{{kind}\"metadata\": {{\"name\": \"a\"}}, {spec}}}")
    };
    let service = "\"kind\": \"Service\", ";
    let (first, second) = (item(service, "10.0.0.1"), item(service, "10.0.0.2"));
    let untyped = item("", "10.0.0.3");
    let of = |list: &str, end: &str| format!("{{\"items\": [{list}]{end}}}");
    let (services, list) = (", \"kind\": \"ServiceList\"", ", \"kind\": \"List\"");
    let nothing = &["services: ", "slices: ", "node listed"][..];
    let one =
        |address: &str| [format!("service default/a [{address}]"), "services: default/a".into()];
    for (text, address, warnings) in [
        (of(&format!("{first}, {second}"), list), Some("10.0.0.2"), 1),
        (of(&format!("{first}, {untyped}"), services), Some("10.0.0.3"), 1),
        (of(&format!("{untyped}, {first}"), services), Some("10.0.0.1"), 1),
        (of(&format!("{first}, {untyped}"), list), Some("10.0.0.1"), 1),
        // No list, broken, or not the last.
        (of(&first, ""), None, 1),
        (of(&first, ", \"kind\": \"Other\""), None, 0),
        (of(&first, ", \"kind\": \"List\" ["), None, 1),
        (of(&first, ", \"items\": [], \"kind\": \"List\""), None, 1),
    ] {
        for text in [&text, &text.replace("{\"items\"", "{items")] {
            folder.write("a.yaml", text);
            let loaded = load(std::slice::from_ref(&folder.0), "").unwrap();
            assert_eq!(loaded.warnings.len(), warnings, "{text}: {:?}", loaded.warnings);
            let summary = summary(&loaded.changes);
            match address {
                Some(address) => assert_eq!(summary[..2], one(address), "{text}"),
                None => assert_eq!(summary, nothing, "{text}"),
            }
        }
    }
}

#[test]
fn of_an_object_that_is_there_twice_the_last_counts() {
    let folder = Folder::new("twice");
    folder.write("1.yaml", &service("web", "10.0.0.1"));
    folder.write(
        "2.yaml",
        &format!("{}---\n{}", service("web", "10.0.0.2"), service("other", "10.0.0.9")),
    );
    let loaded = load(std::slice::from_ref(&folder.0), "").unwrap();
    assert_eq!(
        summary(&loaded.changes)[..2],
        ["service default/other [10.0.0.9]", "service default/web [10.0.0.2]"]
    );
    assert_eq!(loaded.warnings.len(), 1);
    assert!(loaded.warnings[0].text.contains("1.yaml, line 1"), "{:?}", loaded.warnings);
}

#[test]
fn endpoints_give_way_to_slices_of_the_same_service() {
    let endpoints = |name: &str| {
        format!(
            "kind: Endpoints\napiVersion: v1\nmetadata: {{name: {name}}}\nsubsets:\n- addresses: \
             [{{ip: 10.1.0.1}}]\n  ports: [{{port: 80}}]\n---\n"
        )
    };
    let slice = "kind: EndpointSlice\napiVersion: discovery.k8s.io/v1\nmetadata:\n  name: web-1\n  \
                 labels: {kubernetes.io/service-name: web}\naddressType: IPv4\nports: [{port: 80}]\n\
                 endpoints: [{addresses: [10.1.0.2]}]\n";
    let folder = Folder::new("endpoints");
    folder.write("a.yaml", &(endpoints("web") + &endpoints("db") + slice));
    let loaded = load(std::slice::from_ref(&folder.0), "").unwrap();
    let slices: Vec<_> =
        summary(&loaded.changes).into_iter().filter(|s| s.starts_with("slice ")).collect();
    assert_eq!(
        slices,
        ["slice default/db (Endpoints, subset 0, IPv4) of db", "slice default/web-1 of web"]
    );
}

#[test]
fn what_cannot_be_read_is_an_error_and_what_is_not_text_a_warning() {
    let folder = Folder::new("unreadable");
    let missing = folder.0.join("missing.yaml");
    let error = load(&[missing], "").unwrap_err();
    assert!(error.to_string().ends_with("missing.yaml"), "{error}");
    fs::write(folder.0.join("binary.yaml"), b"a: b\n\xff\xfe").unwrap();
    let loaded = load(std::slice::from_ref(&folder.0), "").unwrap();
    assert_eq!(loaded.warnings.len(), 1);
    assert!(loaded.warnings[0].text.contains("line 2"), "{:?}", loaded.warnings);
}

#[test]
fn bad_fields_name_file_and_object() {
    let folder = Folder::new("fields");
    folder.write("a.yaml", &service("web", "10.0.0.300"));
    let loaded = load(std::slice::from_ref(&folder.0), "").unwrap();
    let warning = loaded.warnings[0].to_string();
    assert!(warning.starts_with("Service default/web ("), "{warning}");
    assert!(
        warning.contains("a.yaml, document 1, line 1): spec.clusterIPs[0]: \"10.0.0.300\""),
        "{warning}"
    );
}

#[test]
fn a_file_that_is_too_large_says_so_and_costs_no_other() {
    let folder = Folder::new("large");
    folder.write("a.yaml", &service("a", "10.0.0.1"));
    let large = fs::File::create(folder.0.join("b.yaml")).unwrap();
    large.set_len(MAX_BYTES + 1).unwrap();
    let text = "it is left out: it is larger than 64 MiB; split it into several files";
    for paths in [vec![folder.0.clone()], vec![folder.0.join("b.yaml"), folder.0.join("a.yaml")]] {
        let loaded = load(&paths, "").unwrap();
        assert_eq!(summary(&loaded.changes)[0], "service default/a [10.0.0.1]");
        assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
        assert!(loaded.warnings[0].object.ends_with("b.yaml"), "{:?}", loaded.warnings);
        assert_eq!(loaded.warnings[0].text, text);
    }
    // One that becomes too large keeps what it said.
    let mut manifests = Manifests::new(vec![folder.0.clone()], "");
    manifests.read().unwrap();
    fs::File::create(folder.0.join("a.yaml")).unwrap().set_len(MAX_BYTES + 1).unwrap();
    let loaded = manifests.refresh(&refresh::Touched::All, tokio::time::Instant::now());
    assert_eq!(summary(&loaded.changes), [""; 0]);
    assert!(
        loaded.warnings[0].text.starts_with("cannot be read, what it said is kept: it is larger")
    );
    // All together.
    manifests.bytes = MAX_TOTAL - 10;
    fs::write(folder.0.join("b.yaml"), service("b", "10.0.0.2")).unwrap();
    let loaded = manifests.refresh(&refresh::Touched::All, tokio::time::Instant::now());
    assert!(loaded.warnings.iter().any(|it| it.text.contains("all manifests together")));
}

#[test]
fn what_is_broken_is_told_as_long_as_it_is() {
    let folder = Folder::new("broken");
    folder.write("a.yaml", &service("a", "10.0.0.1"));
    let b = folder.write("b.yaml", "kind: [");
    let mut manifests = Manifests::new(vec![folder.0.clone()], "");
    let broken = manifests.broken();
    let told = || broken.borrow().clone().unwrap_or_default();
    manifests.read().unwrap();
    assert!(told().contains("b.yaml: ") && told().contains("line 1"), "{}", told());
    let look = |manifests: &mut Manifests, seconds| {
        let now = tokio::time::Instant::now() + Duration::from_secs(seconds);
        manifests.refresh(&refresh::Touched::All, now);
    };
    look(&mut manifests, 0);
    assert!(told().contains("b.yaml"), "{}", told());
    folder.write("a.yaml", "kind: [");
    look(&mut manifests, 0);
    assert!(told().contains("a.yaml") && told().ends_with("(and 1 more)"), "{}", told());
    folder.write("a.yaml", &service("a", "10.0.0.1"));
    look(&mut manifests, 0);
    assert!(told().contains("b.yaml"), "{}", told());
    // Deleted for good.
    fs::remove_file(b).unwrap();
    look(&mut manifests, 0);
    look(&mut manifests, 60);
    assert_eq!(told(), "");
    // Too large is as bad.
    fs::File::create(folder.0.join("c.yaml")).unwrap().set_len(MAX_BYTES + 1).unwrap();
    look(&mut manifests, 60);
    assert!(told().contains("c.yaml"), "{}", told());
    folder.write("c.yaml", &service("c", "10.0.0.3"));
    look(&mut manifests, 60);
    assert_eq!(told(), "");

    // A file that was given by itself, and is not the one that has changed.
    let d = folder.write("d.yaml", "kind: [");
    let mut manifests = Manifests::new(vec![d], "");
    let broken = manifests.broken();
    manifests.read().unwrap();
    manifests.refresh(&refresh::Touched::nothing(), tokio::time::Instant::now());
    assert!(broken.borrow().is_some());
}

#[test]
fn a_folder_with_things_that_are_no_files() {
    let folder = Folder::new("things");
    folder.write("a.yaml", &service("a", "10.0.0.1"));
    std::os::unix::fs::symlink("/dev/zero", folder.0.join("b.yaml")).unwrap();
    std::os::unix::fs::symlink("nowhere", folder.0.join("c.yaml")).unwrap();
    let loaded = load(std::slice::from_ref(&folder.0), "").unwrap();
    assert_eq!(summary(&loaded.changes)[0], "service default/a [10.0.0.1]");
    // Given by itself it is an error.
    let error = load(&[folder.0.join("b.yaml")], "").unwrap_err();
    let error = format!("{:#}", anyhow::Error::new(error));
    assert!(error.ends_with("b.yaml: it is a device, not a file"), "{error}");
}

#[test]
fn too_many_objects_and_too_many_warnings() {
    let folder = Folder::new("many");
    let many: Vec<_> = (0..1500).map(|n| service(&format!("s{n}"), "10.0.0.1")).collect();
    folder.write("a.yaml", &many.join("---\n"));
    folder.write("b.yaml", &"---\nkind: [\n".repeat(1000));
    let loaded = load(std::slice::from_ref(&folder.0), "").unwrap();
    assert_eq!(loaded.changes.iter().filter(|it| matches!(it, Change::Service(_))).count(), 1000);
    let warnings: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert!(warnings[0].contains("a.yaml: it has more than 1000 objects"), "{}", warnings[0]);
    assert_eq!(warnings.len(), 1 + 101);
    assert!(warnings[101].ends_with("b.yaml: 900 more warnings are left out"), "{}", warnings[101]);
}

/// Fields of manifests by what `sigs.k8s.io/yaml` makes of each form, as an API server takes them; the
/// scalars themselves are in `value::tree::tests`.
#[test]
fn forms_of_fields() {
    let folder = Folder::new("forms");
    let ports = |port: &str| {
        let text = service("a", "10.0.0.1").replace("port: 80", &format!("port: {port}"));
        folder.write("a.yaml", &text);
        let loaded = load(std::slice::from_ref(&folder.0), "").unwrap();
        let Change::Service(service) = &loaded.changes[0] else { panic!("{:?}", loaded.changes) };
        (service.ports.first().map(|port| port.port), loaded.warnings.len())
    };
    for port in [
        "80",
        "80.0",
        "8e1",
        "8.0e+01",
        "0x50",
        "0o120",
        "0120",
        "0b1010000",
        "8_0",
        "+80",
        "&a 80",
        "!!int '80'",
    ] {
        assert_eq!(ports(port), (Some(80), 0), "{port}");
    }
    for port in ["'80'", "80.5", "yes", "~", "1e9", "99999999999999999999", "[80]", "{}", "08a"] {
        assert_eq!((ports(port).0, ports(port).1 > 0), (None, true), "{port}");
    }
    let ready = |ready: &str| {
        folder.write(
            "a.yaml",
            &format!(
                "kind: EndpointSlice\nmetadata: {{name: a, labels: {{kubernetes.io/service-name: a}}}}\n\
                 addressType: IPv4\nports: [{{port: 1}}]\n\
                 endpoints: [{{addresses: [10.1.0.1], conditions: {{ready: {ready}}}}}]\n"
            ),
        );
        let loaded = load(std::slice::from_ref(&folder.0), "").unwrap();
        let Change::Slice(slice) = &loaded.changes[0] else { panic!("{:?}", loaded.changes) };
        (slice.endpoints[0].conditions.ready, loaded.warnings.len())
    };
    for (text, expected) in [
        ("true", true),
        ("yes", true),
        ("On", true),
        ("null", true),
        ("~", true),
        ("false", false),
        ("no", false),
        ("OFF", false),
        ("n", false),
    ] {
        assert_eq!(ready(text), (expected, 0), "{text}");
    }
    for text in ["'false'", "0", "nope"] {
        assert_eq!(ready(text), (true, 1), "{text}");
    }
    // Whole files: JSON with fractions, CRLF and a byte order mark, merge keys, a key that is there
    // twice, YAML that begins with a brace.
    let service = "{\"kind\": \"Service\", \"metadata\": {\"name\": \"a\"}, \"spec\": {\"clusterIP\": \
                   \"10.0.0.1\", \"ports\": [{\"port\": 80.0}]}}";
    let block = "kind: Service\nmetadata: {name: a}\nspec:\n  clusterIP: 10.0.0.1\n  ports:\n  - &p {port: 80}\n";
    for (text, warnings) in [
        (service.to_owned(), 0),
        (format!("\u{feff}{service}\r\n{service}"), 1),
        (service.replace('"', ""), 0),
        (block.to_owned(), 0),
        (format!("\u{feff}{}", block.replace('\n', "\r\n")), 0),
        (format!("{block}  - {{<<: *p, port: 81, name: x}}\n"), 0),
        (block.replace("metadata: {name: a}", "metadata: {name: b, name: a}"), 1),
        (format!("{block}...\nkind: [\n"), 1),
    ] {
        folder.write("a.yaml", &text);
        let loaded = load(std::slice::from_ref(&folder.0), "").unwrap();
        assert_eq!(loaded.warnings.len(), warnings, "{text}: {:?}", loaded.warnings);
        assert_eq!(summary(&loaded.changes)[0], "service default/a [10.0.0.1]", "{text}");
    }
}
