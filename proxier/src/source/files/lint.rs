//! What only somebody who checks manifests wants to hear of. Pure.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Endpoints, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::super::objects::quote;
use crate::text;

/// The kinds that are read.
const KINDS: [&str; 4] = ["Service", "EndpointSlice", "Endpoints", "Node"];

/// Fields that mean something here, for who misspells one.
const FIELDS: [&str; 32] = [
    "addressType",
    "addresses",
    "annotations",
    "clusterIP",
    "clusterIPs",
    "conditions",
    "endpoints",
    "externalIPs",
    "externalTrafficPolicy",
    "healthCheckNodePort",
    "hints",
    "ingress",
    "internalTrafficPolicy",
    "ipFamilies",
    "labels",
    "loadBalancer",
    "loadBalancerSourceRanges",
    "metadata",
    "name",
    "namespace",
    "nodeName",
    "nodePort",
    "port",
    "ports",
    "protocol",
    "selector",
    "sessionAffinity",
    "sessionAffinityConfig",
    "spec",
    "targetPort",
    "type",
    "zone",
];

/// The kind that was meant by one that is not read.
pub(super) fn meant(kind: &str) -> Option<&'static str> {
    KINDS.into_iter().find(|known| *known != kind && text::edits(kind, known).is_some())
}

/// Fields of an object that Kubernetes does not know, each as a sentence. Nothing where the object has not the
/// types of its kind: what matters of that is said anyway.
pub(super) fn unknown_fields(kind: &str, object: &Value) -> Vec<String> {
    let known = match kind {
        "Service" => as_known::<Service>(object),
        "EndpointSlice" => as_known::<EndpointSlice>(object),
        "Endpoints" => as_known::<Endpoints>(object),
        "Node" => as_known::<Node>(object),
        _ => None,
    };
    let mut unknown = BTreeSet::new();
    if let Some(known) = known {
        compare(object, &known, "", &mut unknown);
    }
    let sentence = |path: String| {
        let name = path.rsplit('.').next().unwrap_or_default();
        let meant = FIELDS.into_iter().find(|known| text::edits(name, known).is_some());
        let meant = meant.map(|meant| format!(" (did you mean {}?)", quote(meant)));
        format!("unknown field {}{}", quote(&path), meant.unwrap_or_default())
    };
    unknown.into_iter().map(sentence).collect()
}

/// What is left of it when it has been read as its kind.
fn as_known<T: DeserializeOwned + Serialize>(object: &Value) -> Option<Value> {
    let known: T = serde_json::from_value(object.clone()).ok()?;
    serde_json::to_value(known).ok()
}

fn compare(given: &Value, known: &Value, path: &str, unknown: &mut BTreeSet<String>) {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => {
            // As good as absent.
            for (name, value) in given.iter().filter(|(_, value)| !value.is_null()) {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match known.get(name) {
                    Some(known) => compare(value, known, &path, unknown),
                    None => drop(unknown.insert(path)),
                }
            }
        }
        (Value::Array(given), Value::Array(known)) => {
            for (i, (given, known)) in given.iter().zip(known).enumerate() {
                compare(given, known, &format!("{path}[{i}]"), unknown);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_that_kubernetes_does_not_know_are_named_with_their_place() {
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "web", "labels": {"any": "label"}, "managedFields": [{"fieldsV1": {"f:x": {}}}]},
            "spec": {"clusterIp": "10.96.0.1", "selector": {"app": "web"}, "externalIPs": null,
                     "ports": [{"port": 80, "targetPort": "http", "appProtocol": "h2c"},
                               {"port": 81, "targetprot": 8080}]},
            "status": {"loadBalancer": {}, "weather": {}}
        });
        assert_eq!(
            unknown_fields("Service", &service),
            [
                "unknown field \"spec.clusterIp\" (did you mean \"clusterIP\"?)",
                "unknown field \"spec.ports[1].targetprot\" (did you mean \"targetPort\"?)",
                "unknown field \"status.weather\"",
            ]
        );
        let slice = json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"], "node": "n1"}]});
        assert_eq!(
            unknown_fields("EndpointSlice", &slice),
            ["unknown field \"endpoints[0].node\""]
        );
        // Said elsewhere.
        assert!(unknown_fields("EndpointSlice", &json!({"endpoints": 3, "x": 1})).is_empty());
    }

    #[test]
    fn kinds_that_are_almost_read_are_told_from_others() {
        assert_eq!(meant("Servcie"), Some("Service"));
        assert_eq!(meant("Endpointslice"), Some("EndpointSlice"));
        assert_eq!(meant("node"), Some("Node"));
        for other in ["ConfigMap", "Deployment", "ServiceAccount", "Service"] {
            assert_eq!(meant(other), None, "{other}");
        }
    }
}
