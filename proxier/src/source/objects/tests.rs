use serde_json::{Value, json};

use super::*;
use crate::cluster::{EndpointSlice, NotProxied, Service};

fn convert(origin: Origin, object: Value) -> Converted {
    let converter = Converter::new(origin);
    match object["kind"].as_str().unwrap_or("Service") {
        "EndpointSlice" => converter.slice(serde_json::from_value(object).unwrap()),
        "Endpoints" => converter.legacy_endpoints(serde_json::from_value(object).unwrap()),
        "Node" => converter.node(serde_json::from_value(object).unwrap()),
        _ => converter.service(serde_json::from_value(object).unwrap()),
    }
}

/// A Service as an API server sends it, with fields of `spec` replaced.
fn service(spec: &Value) -> Value {
    let mut object = json!({
        "metadata": {"name": "web", "namespace": "dev", "creationTimestamp": "2024-02-29T12:34:56Z"},
        "spec": {
            "type": "ClusterIP", "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1"],
            "ipFamilies": ["IPv4"],
            "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": "http"}],
            "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
        },
    });
    for (field, value) in spec.as_object().unwrap() {
        object["spec"][field] = value.clone();
    }
    object
}

fn proxied(converted: Converted) -> (Service, Vec<String>) {
    let warnings = converted.warnings.iter().map(ToString::to_string).collect();
    match <[Change; 1]>::try_from(converted.changes) {
        Ok([Change::Service(service)]) => (service, warnings),
        other => panic!("expected one Service, got {other:?}"),
    }
}

fn ignored(converted: Converted) -> NotProxied {
    match <[Change; 1]>::try_from(converted.changes) {
        Ok([Change::ServiceIgnored(_, reason)]) => reason,
        other => panic!("expected one ignored Service, got {other:?}"),
    }
}

fn ips(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|ip| ip.parse().unwrap()).collect()
}

#[test]
fn a_complete_service() {
    let object = service(&json!({
        "type": "LoadBalancer",
        "ports": [
            {"name": "http", "protocol": "TCP", "port": 80, "nodePort": 30080},
            {"name": "dns", "protocol": "UDP", "port": 53},
        ],
        "externalIPs": ["8.8.8.8", "", "2001:db8::8", "08.8.8.8"],
        "externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local",
        "healthCheckNodePort": 32000,
        "sessionAffinity": "ClientIP",
        "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 60}},
        "loadBalancerSourceRanges": [" 10.1.2.3/8", "2001:db8::/32"],
    }));
    let (service, warnings) = proxied(convert(Origin::Api, object));
    assert_eq!(warnings, [""; 0]);
    assert_eq!(service.key.to_string(), "dev/web");
    assert_eq!(service.created, 1_709_210_096);
    assert_eq!(service.cluster_ips, ips(&["10.96.0.1"]));
    let ports: Vec<_> = service
        .ports
        .iter()
        .map(|p| (&*p.name, p.protocol.number(), p.port, p.node_port))
        .collect();
    assert_eq!(ports, [("http", 6, 80, 30080), ("dns", 17, 53, 0)]);
    assert_eq!(service.external_ips, ips(&["8.8.8.8", "2001:db8::8"]));
    assert!(service.external_local && service.internal_local);
    assert_eq!(service.health_check_node_port, 32000);
    assert_eq!(service.affinity, Some(60));
    let expected = ["10.0.0.0/8", "2001:db8::/32"].map(|range| range.parse().unwrap());
    assert_eq!(service.source_ranges, crate::cluster::SourceRanges::new(expected));
}

#[test]
fn which_services_are_proxied() {
    let reason = |spec| ignored(convert(Origin::Api, service(&spec)));
    assert_eq!(reason(json!({"clusterIP": "None"})), NotProxied::Headless);
    assert_eq!(reason(json!({"clusterIP": ""})), NotProxied::NoClusterIp);
    assert_eq!(reason(json!({"clusterIP": null})), NotProxied::NoClusterIp);
    assert_eq!(reason(json!({"type": "ExternalName"})), NotProxied::ExternalName);
    assert_eq!(
        reason(json!({"clusterIP": "nonsense", "clusterIPs": ["nonsense"]})),
        NotProxied::NoClusterIp
    );

    for origin in [Origin::Api, Origin::Manifest] {
        let mut object = service(&json!({}));
        object["metadata"]["labels"]["service.kubernetes.io/service-proxy-name"] = json!("mine");
        assert_eq!(ignored(convert(origin, object)), NotProxied::OtherProxy("mine".into()));
        let mut object = service(&json!({}));
        object["metadata"]["labels"]["service.kubernetes.io/service-proxy-name"] = json!("");
        assert_eq!(ignored(convert(origin, object)), NotProxied::OtherProxy("".into()));
    }
}

#[test]
fn cluster_ips_by_family() {
    let cases = [
        (
            json!({"ipFamilies": ["IPv6", "IPv4"], "clusterIP": "fd00::1", "clusterIPs": ["fd00::1", "10.0.0.1"]}),
            &["fd00::1", "10.0.0.1"][..],
            0,
        ),
        // Before dual-stack only the singular field counts.
        (
            json!({"ipFamilies": [], "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "fd00::1"]}),
            &["10.0.0.1"],
            0,
        ),
        (
            json!({"ipFamilies": ["IPv4"], "clusterIP": "10.0.0.1", "clusterIPs": []}),
            &["10.0.0.1"],
            0,
        ),
        (
            json!({"ipFamilies": ["IPv4", "IPv6"], "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "bad"]}),
            &["10.0.0.1"],
            1,
        ),
        (
            json!({"ipFamilies": ["IPv4", "IPv6"], "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "10.0.0.2"]}),
            &["10.0.0.1"],
            1,
        ),
        (
            json!({"clusterIP": "::ffff:10.0.0.1", "clusterIPs": ["::ffff:10.0.0.1"]}),
            &["10.0.0.1"],
            0,
        ),
    ];
    for (spec, expected, warned) in cases {
        let (service, warnings) = proxied(convert(Origin::Api, service(&spec)));
        assert_eq!(service.cluster_ips, ips(expected), "{spec}");
        assert_eq!(warnings.len(), warned, "{spec}: {warnings:?}");
    }
}

#[test]
fn a_manifest_gets_the_defaults_of_the_api_server() {
    let object = json!({
        "kind": "Service", "metadata": {"name": "web"},
        "spec": {
            "clusterIPs": ["10.0.0.1", "fd00::1"], "sessionAffinity": "ClientIP",
            "ports": [{"port": 80}],
        },
    });
    let (service, warnings) = proxied(convert(Origin::Manifest, object));
    assert_eq!(warnings, [""; 0]);
    assert_eq!(service.key.to_string(), "default/web");
    assert_eq!(service.cluster_ips, ips(&["10.0.0.1", "fd00::1"]));
    assert_eq!(service.affinity, Some(10_800));
    assert_eq!(service.ports[0].protocol, netlink_ipvs::Protocol::Tcp);
    assert_eq!(&*service.ports[0].name, "");
}

#[test]
fn a_manifest_without_cluster_ip_is_proxied_on_its_other_addresses() {
    let object = json!({
        "metadata": {"name": "web"},
        "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]},
    });
    let (service, warnings) = proxied(convert(Origin::Manifest, object));
    assert!(service.cluster_ips.is_empty());
    assert_eq!(service.ports[0].node_port, 30080);
    assert_eq!(warnings.len(), 1);
    assert!(
        warnings[0].starts_with("Service default/web: spec.clusterIP is empty"),
        "{warnings:?}"
    );

    let object = json!({
        "metadata": {"name": "web"},
        "spec": {"externalIPs": ["192.168.1.80"], "ports": [{"port": 80}]},
    });
    let (service, warnings) = proxied(convert(Origin::Manifest, object));
    assert_eq!((service.cluster_ips.len(), service.external_ips.len()), (0, 1));
    assert!(warnings.is_empty(), "{warnings:?}");
}

#[test]
fn a_manifest_that_serves_nothing_is_told_why() {
    for (spec, says) in [
        (
            json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}),
            "only its node ports are served",
        ),
        (json!({"type": "NodePort", "ports": [{"port": 80}]}), "nothing of it is served"),
        (json!({"ports": [{"port": 80}]}), "nothing of it is served"),
        (json!({"clusterIP": "10.96.0.1"}), "spec.ports is empty: nothing of it is served"),
    ] {
        let object = json!({"metadata": {"name": "web"}, "spec": spec});
        let (_, warnings) = proxied(convert(Origin::Manifest, object));
        assert_eq!(warnings.iter().filter(|it| it.contains("served")).count(), 1, "{warnings:?}");
        assert!(warnings.iter().any(|it| it.contains(says)), "{says}: {warnings:?}");
    }
}

#[test]
fn bad_ports_are_left_out_one_by_one() {
    let ports = json!([
        {"name": "zero", "port": 0},
        {"name": "big", "port": 65536},
        {"name": "negative", "port": -1},
        {"name": "text", "port": "80"},
        {"name": "ok", "port": 80, "nodePort": 70000},
        {"name": "ok", "port": 81},
        {"name": "same-number", "port": 80},
        {"name": "protocol", "port": 82, "protocol": "tcp"},
        {"name": "other", "port": 80, "protocol": "UDP"},
        "not an object",
        {"name": 7, "port": 83},
    ]);
    let (service, warnings) = proxied(convert(Origin::Api, service(&json!({"ports": ports}))));
    let kept: Vec<_> = service.ports.iter().map(|p| (&*p.name, p.port, p.node_port)).collect();
    assert_eq!(kept, [("ok", 80, 0), ("other", 80, 0), ("", 83, 0)]);
    assert_eq!(warnings.len(), WARNINGS + 1, "{warnings:#?}");
    assert!(warnings[WARNINGS].ends_with("2 more warnings are not shown"), "{warnings:#?}");
    let text = "port must be a whole number, found the text \"80\"; the port is ignored";
    assert!(warnings[3].ends_with(text), "{warnings:#?}");
}

#[test]
fn policies_count_only_where_they_apply() {
    let local = |spec: &Value| {
        let mut object = service(&json!({
            "externalTrafficPolicy": "Local", "healthCheckNodePort": 32000,
        }));
        object["spec"].as_object_mut().unwrap().append(&mut spec.as_object().unwrap().clone());
        let (service, _) = proxied(convert(Origin::Api, object));
        (service.external_local, service.health_check_node_port)
    };
    assert_eq!(local(&json!({})), (false, 0));
    assert_eq!(local(&json!({"externalIPs": ["192.0.2.1"]})), (true, 0));
    assert_eq!(local(&json!({"type": "NodePort"})), (true, 0));
    assert_eq!(local(&json!({"type": "LoadBalancer"})), (true, 32000));
    assert_eq!(local(&json!({"type": "LoadBalancer", "healthCheckNodePort": 0})), (true, 0));
}

#[test]
fn load_balancer_addresses() {
    let mut object = service(&json!({}));
    object["status"]["loadBalancer"]["ingress"] = json!([
        {"ip": "192.0.2.1"}, {"ip": "192.0.2.2", "ipMode": "VIP"},
        {"ip": "192.0.2.3", "ipMode": "Proxy"}, {"hostname": "lb.example"}, {"ip": "2001:db8::1"},
    ]);
    let (service, warnings) = proxied(convert(Origin::Api, object.clone()));
    assert_eq!(service.load_balancer_ips, ips(&["192.0.2.1", "192.0.2.2", "2001:db8::1"]));
    assert_eq!(warnings, [""; 0]);

    // A mistyped range must not open the service to everyone.
    object["spec"]["loadBalancerSourceRanges"] = json!(["10.0.0.0/33"]);
    let (service, warnings) = proxied(convert(Origin::Manifest, object.clone()));
    assert!(service.load_balancer_ips.is_empty());
    assert_eq!(warnings.len(), 2, "{warnings:?}");

    object["spec"]["loadBalancerSourceRanges"] = json!(["10.0.0.0/33", "10.0.0.0/8"]);
    let (service, _) = proxied(convert(Origin::Manifest, object));
    assert_eq!(service.load_balancer_ips.len(), 3);
}

#[test]
fn frontends_never_take_special_addresses() {
    let object = service(&json!({"externalIPs": [
        "127.0.0.1", "::1", "0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255",
        "::ffff:127.0.0.1", "192.0.2.1",
    ]}));
    let (service, warnings) = proxied(convert(Origin::Api, object));
    assert_eq!(service.external_ips, ips(&["192.0.2.1"]));
    assert_eq!(warnings.len(), 8);
}

#[test]
fn odd_types_cost_only_their_field() {
    let object = json!({
        "metadata": {"name": "web", "namespace": "dev", "labels": [], "creationTimestamp": 7},
        "spec": {
            "type": "ClusterIP", "clusterIP": "10.0.0.1", "clusterIPs": "10.0.0.1",
            "ipFamilies": {"a": 1}, "ports": [{"port": 80, "nodePort": 1.5}], "externalIPs": 5,
            "sessionAffinity": true, "sessionAffinityConfig": [1], "internalTrafficPolicy": {},
        },
        "status": "fine",
    });
    let (service, warnings) = proxied(convert(Origin::Api, object));
    assert_eq!(service.cluster_ips, ips(&["10.0.0.1"]));
    assert_eq!(service.ports.len(), 1);
    assert!(warnings.len() > WARNINGS);
    assert!(warnings.iter().any(|w| w.contains("spec.clusterIPs must be a list, found the text")));
}

#[test]
fn names_that_no_api_server_accepts_are_refused() {
    for name in [json!("a".repeat(1 << 20)), json!("we b"), json!("wéb"), json!(""), json!(7)] {
        let object = json!({"metadata": {"name": name}, "spec": {"clusterIP": "10.0.0.1"}});
        let converted = convert(Origin::Manifest, object);
        assert_eq!(converted.changes, []);
        assert_eq!(converted.warnings.len(), 1);
        assert!(converted.warnings[0].to_string().len() < 400);
    }
}

fn slice(fields: &Value) -> Value {
    let mut object = json!({
        "kind": "EndpointSlice",
        "metadata": {
            "name": "web-1", "namespace": "dev", "labels": {"kubernetes.io/service-name": "web"},
            "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "1970-01-01T00:00:01.5Z"},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
        "endpoints": [{"addresses": ["10.0.0.1", "10.0.0.2"]}],
    });
    for (field, value) in fields.as_object().unwrap() {
        object[field] = value.clone();
    }
    object
}

fn usable(converted: Converted) -> (EndpointSlice, usize) {
    match <[Change; 1]>::try_from(converted.changes) {
        Ok([Change::Slice(slice)]) => (slice, converted.warnings.len()),
        other => panic!("expected one EndpointSlice, got {other:?}"),
    }
}

#[test]
fn a_complete_slice() {
    let object = slice(&json!({"endpoints": [
        {"addresses": ["10.0.0.1", "10.0.0.9"], "nodeName": "node-a"},
        {"addresses": ["10.0.0.2"], "conditions": {"ready": false, "serving": true, "terminating": true},
         "hints": {"forZones": [{"name": "z1"}, {"name": "z2"}], "forNodes": [{"name": "node-a"}]}},
        {"addresses": ["10.0.0.3"], "conditions": {"ready": null}, "nodeName": null, "hints": {}},
    ]}));
    let (slice, warnings) = usable(convert(Origin::Api, object));
    assert_eq!(warnings, 0);
    assert_eq!(slice.service.name(), "web");
    assert_eq!(slice.triggered, Some(1500));
    let conditions =
        |ready, serving, terminating| crate::cluster::Conditions { ready, serving, terminating };
    let [first, second, third] = &slice.endpoints[..] else { panic!("{slice:?}") };
    assert_eq!(
        (first.address, first.conditions),
        (ips(&["10.0.0.1"])[0], conditions(true, true, false))
    );
    assert_eq!(first.location.node.as_deref(), Some("node-a"));
    assert_eq!(second.conditions, conditions(false, true, true));
    let hints = &second.location.hints;
    assert_eq!(hints.zones.iter().map(|z| &**z).collect::<Vec<_>>(), ["z1", "z2"]);
    assert!(Arc::ptr_eq(&hints.nodes[0], first.location.node.as_ref().unwrap()));
    assert_eq!(
        (third.conditions, &*third.location),
        (conditions(true, true, false), &Location::default())
    );
}

#[test]
fn slices_that_are_of_no_use() {
    let mut headless = slice(&json!({}));
    headless["metadata"]["labels"]["service.kubernetes.io/headless"] = json!("");
    let mut unlabelled = slice(&json!({}));
    unlabelled["metadata"]["labels"] = json!({});
    let cases = [
        (headless, 0),
        (unlabelled, 1),
        (slice(&json!({"addressType": "FQDN", "endpoints": [{"addresses": ["db.example"]}]})), 1),
        (slice(&json!({"addressType": null})), 1),
    ];
    for (object, warned) in cases {
        let converted = convert(Origin::Manifest, object);
        assert_eq!(converted.changes, [Change::SliceGone(ObjectKey::new("dev", "web-1"))]);
        assert_eq!(converted.warnings.len(), warned);
    }
}

#[test]
fn ports_of_slices() {
    let ports = json!([
        {"name": null, "port": 1}, {"name": "", "port": 2}, {"name": "a", "port": null},
        {"name": "b", "port": 0}, {"name": "c", "port": 3, "protocol": null}, {"name": "c", "port": 3},
    ]);
    let names = |origin| {
        let (slice, warnings) = usable(convert(origin, slice(&json!({"ports": ports}))));
        let names: Vec<_> = slice.ports.iter().map(|p| (p.name.to_string(), p.port)).collect();
        (names, warnings)
    };
    let expected = |list: &[(&str, u16)]| -> Vec<(String, u16)> {
        list.iter().map(|(name, port)| ((*name).to_owned(), *port)).collect()
    };
    assert_eq!(names(Origin::Api), (expected(&[("", 2), ("a", 0), ("b", 0), ("c", 3)]), 3));
    assert_eq!(
        names(Origin::Manifest),
        (expected(&[("", 1), ("", 2), ("a", 0), ("b", 0), ("c", 3)]), 2)
    );
}

#[test]
fn bad_endpoints_are_left_out_one_by_one() {
    let endpoints = json!([
        {"addresses": []}, {"addresses": ["bad"]}, {"addresses": ["fd00::1"]}, {"addresses": [7]},
        {"addresses": ["127.0.0.1"]}, {"addresses": ["169.254.169.254"]}, {"addresses": ["0.0.0.0"]},
        "odd", {"addresses": ["010.0.0.1"]},
    ]);
    let (slice, warnings) = usable(convert(Origin::Api, slice(&json!({"endpoints": endpoints}))));
    assert_eq!(slice.endpoints.iter().map(|e| e.address).collect::<Vec<_>>(), ips(&["10.0.0.1"]));
    assert_eq!(warnings, 8);
}

#[test]
fn endpoints_become_slices() {
    let object = json!({
        "kind": "Endpoints", "metadata": {"name": "mysql", "namespace": "dev"},
        "subsets": [{
            "addresses": [{"ip": "192.168.0.103", "nodeName": "node-a"}, {"ip": "fd00::3"}],
            "notReadyAddresses": [{"ip": "192.168.0.104"}],
            "ports": [{"port": 3306}],
        }],
    });
    let converted = convert(Origin::Manifest, object);
    assert_eq!(converted.warnings, []);
    let Ok([Change::Slice(v4), Change::Slice(v6)]) = <[Change; 2]>::try_from(converted.changes)
    else {
        panic!("expected two slices");
    };
    assert_eq!((v4.service.name(), v6.service.name()), ("mysql", "mysql"));
    let ready: Vec<_> =
        v4.endpoints.iter().map(|e| (e.address.to_string(), e.conditions.ready)).collect();
    assert_eq!(ready, [("192.168.0.103".to_owned(), true), ("192.168.0.104".to_owned(), false)]);
    assert_eq!(v4.ports, v6.ports);
    assert_eq!((&*v4.ports[0].name, v4.ports[0].port), ("", 3306));
    assert!(!is_name(v4.key.name(), NAME), "must not collide with a slice of the cluster");
}

#[test]
fn a_node() {
    let object = json!({
        "kind": "Node",
        "metadata": {"name": "node-a", "labels": {"topology.kubernetes.io/zone": "z1"},
                     "annotations": {"proxier.io/weight": "3"}},
        "spec": {"podCIDRs": ["10.244.0.1/24", "fd00::/64", "bad"], "taints": [{"key": "x"}]},
        "status": {"addresses": [
            {"type": "Hostname", "address": "node-a"}, {"type": "ExternalIP", "address": "192.0.2.1"},
            {"type": "InternalIP", "address": "10.0.0.1"}, {"type": "InternalIP", "address": "bad"},
        ]},
    });
    let node = |object: Value| {
        let converted = convert(Origin::Api, object);
        let Ok([Change::Node(node)]) = <[Change; 1]>::try_from(converted.changes) else { panic!() };
        (node, converted.warnings)
    };
    let (this, warnings) = node(object.clone());
    assert_eq!(this.addresses, ips(&["10.0.0.1", "192.0.2.1"]));
    assert_eq!(this.zone.as_deref(), Some("z1"));
    let expected: Vec<ipnet::IpNet> =
        vec!["10.244.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()];
    assert_eq!(this.pod_cidrs, expected);
    assert!(this.eligible);
    assert_eq!(this.weight, Some(3));
    assert_eq!(warnings.len(), 2);
    assert!(warnings[0].object == "Node node-a", "{warnings:?}");

    let mut deleted = object.clone();
    deleted["metadata"]["deletionTimestamp"] = json!("2024-01-01T00:00:00Z");
    assert!(!node(deleted).0.eligible);
    let mut tainted = object;
    tainted["spec"]["taints"] = json!([{"key": "ToBeDeletedByClusterAutoscaler"}]);
    assert!(!node(tainted).0.eligible);
}

#[test]
fn the_weight_of_a_node() {
    let weight = |annotations: Value| {
        let object = json!({ "metadata": { "name": "n", "annotations": annotations } });
        let raw = serde_json::from_value(object).unwrap();
        let Converted { changes, warnings } = Converter::new(Origin::Api).node_weight(raw);
        let [Change::NodeWeight(node, weight)] = &*changes else { panic!("{changes:?}") };
        assert_eq!(*node, ObjectKey::new("", "n"));
        (*weight, warnings.iter().map(ToString::to_string).collect::<String>())
    };
    assert_eq!(weight(json!({ "proxier.io/weight": "0" })), (Some(0), String::new()));
    assert_eq!(weight(json!({ "proxier.io/weight": "65535" })), (Some(65535), String::new()));
    assert_eq!(weight(json!({ "other": "1" })), (None, String::new()));
    for wrong in [json!("65536"), json!("-1"), json!("heavy"), json!(3)] {
        let (weight, warning) = weight(json!({ "proxier.io/weight": wrong }));
        assert_eq!(weight, None);
        assert!(warning.contains("Node n: annotation proxier.io/weight: "), "{warning}");
        assert!(warning.contains(" is not used: it "), "{warning}");
    }
}
