//! What is watched.

use std::fmt;

use serde::de::DeserializeOwned;

use super::Options;
use crate::cluster::{Change, ObjectKey};
use crate::source::objects::{Converted, Converter, Lenient, Shape, raw};

/// A kind of objects, with the selectors of kube-proxy.
pub(super) trait Resource {
    /// One object as the API sends it.
    type Raw: DeserializeOwned + Shape + fmt::Debug;
    /// Kind of one object.
    const KIND: &'static str;
    /// Path of the list over all namespaces.
    const PATH: &'static str;
    /// What is known of the objects of one namespace may cost this part of the memory.
    const SHARE: u64;

    /// Nothing but `metadata` is asked for.
    const METADATA: bool = false;

    /// Label and field selector.
    fn selectors(node: &str) -> (Option<String>, Option<String>);
    fn metadata(raw: &Self::Raw) -> &Lenient<raw::Metadata>;
    fn convert(converter: &Converter, raw: Self::Raw) -> Converted;
    /// The object of this key is gone.
    fn gone(key: ObjectKey) -> Option<Change>;
    /// Every object that is not among the keys is gone.
    fn listed(keys: Vec<ObjectKey>) -> Change;
    /// What to say where there is no object.
    fn absent(_: &Options) -> Option<String> {
        None
    }
}

pub(super) enum Services {}

impl Resource for Services {
    type Raw = raw::Service;
    const KIND: &'static str = "Service";
    const PATH: &'static str = "/api/v1/services";
    const SHARE: u64 = 16;

    fn selectors(_: &str) -> (Option<String>, Option<String>) {
        let labels = "!service.kubernetes.io/service-proxy-name";
        (Some(labels.into()), Some("spec.clusterIP!=None".into()))
    }
    fn metadata(raw: &Self::Raw) -> &Lenient<raw::Metadata> {
        &raw.metadata
    }
    fn convert(converter: &Converter, raw: Self::Raw) -> Converted {
        converter.service(raw)
    }
    fn gone(key: ObjectKey) -> Option<Change> {
        Some(Change::ServiceGone(key))
    }
    fn listed(keys: Vec<ObjectKey>) -> Change {
        Change::ServicesListed(keys)
    }
}

pub(super) enum Slices {}

impl Resource for Slices {
    type Raw = raw::EndpointSlice;
    const KIND: &'static str = "EndpointSlice";
    const PATH: &'static str = "/apis/discovery.k8s.io/v1/endpointslices";
    const SHARE: u64 = 8;

    fn selectors(_: &str) -> (Option<String>, Option<String>) {
        (Some("!service.kubernetes.io/headless".into()), None)
    }
    fn metadata(raw: &Self::Raw) -> &Lenient<raw::Metadata> {
        &raw.metadata
    }
    fn convert(converter: &Converter, raw: Self::Raw) -> Converted {
        converter.slice(raw)
    }
    fn gone(key: ObjectKey) -> Option<Change> {
        Some(Change::SliceGone(key))
    }
    fn listed(keys: Vec<ObjectKey>) -> Change {
        Change::SlicesListed(keys)
    }
}

pub(super) enum ThisNode {}

impl Resource for ThisNode {
    type Raw = raw::Node;
    const KIND: &'static str = "Node";
    const PATH: &'static str = "/api/v1/nodes";
    const SHARE: u64 = 16;

    fn selectors(node: &str) -> (Option<String>, Option<String>) {
        (None, Some(format!("metadata.name={node}")))
    }
    fn metadata(raw: &Self::Raw) -> &Lenient<raw::Metadata> {
        &raw.metadata
    }
    fn convert(converter: &Converter, raw: Self::Raw) -> Converted {
        converter.node(raw)
    }
    /// What is known of a node outlives its object: the proxy runs there still.
    fn gone(_: ObjectKey) -> Option<Change> {
        None
    }
    fn listed(_: Vec<ObjectKey>) -> Change {
        Change::NodeListed
    }
    fn absent(options: &Options) -> Option<String> {
        let Options { node, node_from, .. } = options;
        Some(format!(
            "the API server has no Node {node:?} (yet). Services are programmed without what it \
             would say: its addresses, its zone and its pod CIDRs. The name is from {node_from}; if it \
             is another one in `kubectl get nodes`, set it with --hostname-override"
        ))
    }
}

/// What the annotations of all Nodes say of their endpoints.
pub(super) enum NodeWeights {}

impl Resource for NodeWeights {
    type Raw = raw::Node;
    const KIND: &'static str = "Node";
    const PATH: &'static str = "/api/v1/nodes";
    const SHARE: u64 = 16;
    const METADATA: bool = true;

    fn selectors(_: &str) -> (Option<String>, Option<String>) {
        (None, None)
    }
    fn metadata(raw: &Self::Raw) -> &Lenient<raw::Metadata> {
        &raw.metadata
    }
    fn convert(converter: &Converter, raw: Self::Raw) -> Converted {
        converter.node_weight(raw)
    }
    fn gone(key: ObjectKey) -> Option<Change> {
        Some(Change::NodeWeight(key, None))
    }
    fn listed(keys: Vec<ObjectKey>) -> Change {
        Change::NodeWeightsListed(keys)
    }
}
