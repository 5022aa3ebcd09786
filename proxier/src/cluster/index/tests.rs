use std::sync::Arc;

use super::*;
use crate::cluster::{Conditions, Endpoint, SlicePort, SourceRanges};
use netlink_ipvs::{Family, Protocol};

fn service(name: &str) -> Service {
    Service {
        key: ObjectKey::new("ns", name),
        created: 0,
        cluster_ips: vec!["10.96.0.1".parse().unwrap()],
        ports: vec![],
        external_ips: vec![],
        load_balancer_ips: vec![],
        source_ranges: SourceRanges::default(),
        affinity: None,
        internal_local: false,
        external_local: false,
        health_check_node_port: 0,
        settings: None,
    }
}

fn slice(name: &str, service: &str, addresses: &[&str]) -> EndpointSlice {
    EndpointSlice {
        key: ObjectKey::new("ns", name),
        service: ObjectKey::new("ns", service),
        family: Family::Ipv4,
        ports: Box::new([SlicePort { name: "".into(), protocol: Protocol::Tcp, port: 80 }]),
        endpoints: addresses
            .iter()
            .map(|address| Endpoint {
                address: address.parse().unwrap(),
                conditions: Conditions::default(),
                location: Arc::default(),
            })
            .collect(),
        pods: crate::cluster::Pods::default(),
        triggered: None,
    }
}

fn dirty(cluster: &mut Cluster, change: Change) -> Vec<String> {
    let mut dirty = Dirty::default();
    cluster.apply(change, &mut dirty);
    assert!(!dirty.all);
    dirty.services.iter().map(ToString::to_string).collect()
}

#[test]
fn a_change_dirties_its_service_alone_and_a_repeat_nothing() {
    let mut cluster = Cluster::new();
    assert_eq!(dirty(&mut cluster, Change::Service(service("a"))), ["ns/a"]);
    assert_eq!(dirty(&mut cluster, Change::Service(service("a"))), [""; 0]);
    assert_eq!(dirty(&mut cluster, Change::Slice(slice("a-1", "a", &["10.0.0.1"]))), ["ns/a"]);
    let mut again = slice("a-1", "a", &["10.0.0.1"]);
    again.triggered = Some(7);
    assert_eq!(dirty(&mut cluster, Change::Slice(again)), [""; 0]);
    assert_eq!(dirty(&mut cluster, Change::Slice(slice("a-1", "a", &["10.0.0.2"]))), ["ns/a"]);
    assert_eq!(dirty(&mut cluster, Change::SliceGone(ObjectKey::new("ns", "nobody"))), [""; 0]);
    assert_eq!(dirty(&mut cluster, Change::SliceGone(ObjectKey::new("ns", "a-1"))), ["ns/a"]);
    assert_eq!(cluster.slices(&ObjectKey::new("ns", "a")).count(), 0);
    assert_eq!(dirty(&mut cluster, Change::ServiceGone(ObjectKey::new("ns", "a"))), ["ns/a"]);
    assert_eq!(dirty(&mut cluster, Change::ServiceGone(ObjectKey::new("ns", "a"))), [""; 0]);
}

#[test]
fn a_slice_that_moves_to_another_service_dirties_both() {
    let mut cluster = Cluster::new();
    dirty(&mut cluster, Change::Slice(slice("s", "a", &["10.0.0.1"])));
    assert_eq!(
        dirty(&mut cluster, Change::Slice(slice("s", "b", &["10.0.0.1"]))),
        ["ns/a", "ns/b"]
    );
    assert_eq!(cluster.slices(&ObjectKey::new("ns", "a")).count(), 0);
    assert_eq!(cluster.slices(&ObjectKey::new("ns", "b")).count(), 1);
    assert_eq!(cluster.slice_count(), 1);
}

#[test]
fn a_list_removes_what_is_not_in_it() {
    let mut cluster = Cluster::new();
    for name in ["a", "b"] {
        dirty(&mut cluster, Change::Service(service(name)));
        dirty(&mut cluster, Change::Slice(slice(name, name, &["10.0.0.1"])));
    }
    let key = |name: &str| ObjectKey::new("ns", name);
    assert_eq!(dirty(&mut cluster, Change::ServicesListed(vec![key("b")])), ["ns/a"]);
    assert_eq!(dirty(&mut cluster, Change::SlicesListed(vec![key("a")])), ["ns/b"]);
    assert!(cluster.service(&key("a")).is_none());
    assert_eq!(cluster.slices(&key("b")).count(), 0);
}

#[test]
fn complete_only_when_every_kind_was_listed() {
    let mut cluster = Cluster::new();
    for change in [Change::ServicesListed(vec![]), Change::SlicesListed(vec![]), Change::NodeListed]
    {
        assert!(!cluster.is_complete());
        dirty(&mut cluster, change);
    }
    assert!(cluster.is_complete());
}

#[test]
fn a_service_that_is_no_longer_proxied_is_dropped_and_remembered() {
    let mut cluster = Cluster::new();
    let key = ObjectKey::new("ns", "a");
    dirty(&mut cluster, Change::Service(service("a")));
    let ignored = Change::ServiceIgnored(key.clone(), NotProxied::Headless);
    assert_eq!(dirty(&mut cluster, ignored), ["ns/a"]);
    assert_eq!(cluster.ignored(&key), Some(&NotProxied::Headless));
    dirty(&mut cluster, Change::Service(service("a")));
    assert_eq!(cluster.ignored(&key), None);
}

#[test]
fn only_what_forwarding_depends_on_makes_the_node_dirty() {
    let mut cluster = Cluster::new();
    let node = Node { name: "n".into(), zone: Some("z".into()), eligible: true, ..Node::default() };
    let mut all = |node: Node| {
        let mut dirty = Dirty::default();
        cluster.apply(Change::Node(node), &mut dirty);
        dirty.all
    };
    assert!(all(node.clone()));
    assert!(!all(Node { eligible: false, ..node.clone() }));
    assert!(all(Node { zone: None, ..node }));
}

#[test]
fn a_node_that_gets_another_weight_makes_the_services_on_it_dirty() {
    let (mut cluster, mut dirty) = (Cluster::new(), Dirty::default());
    for (service, endpoint) in [("a", "10.0.0.1 @n1"), ("b", "10.0.0.2 @n2"), ("c", "10.0.0.3")] {
        let slice = crate::builders::endpoints(service, 80, &[endpoint]);
        cluster.apply(Change::Slice(slice), &mut Dirty::default());
    }
    let key = |name: &str| ObjectKey::new("", name);
    for (weight, changes) in [(Some(3), true), (Some(3), false), (None, true), (None, false)] {
        cluster.apply(Change::NodeWeight(key("n1"), weight), &mut dirty);
        assert_eq!(!dirty.is_empty(), changes, "{weight:?}");
        let services: Vec<&str> = cluster.services_on(&dirty.nodes).map(ObjectKey::name).collect();
        assert_eq!(services, if changes { vec!["a"] } else { vec![] });
        assert_eq!(cluster.node_weights().get("n1").copied(), weight);
        dirty = Dirty::default();
    }
    cluster.apply(Change::NodeWeight(key("n1"), Some(3)), &mut dirty);
    cluster.apply(Change::NodeWeight(key("n2"), Some(3)), &mut dirty);
    dirty = Dirty::default();
    cluster.apply(Change::NodeWeightsListed(vec![key("n1")]), &mut dirty);
    assert_eq!(dirty.nodes, BTreeSet::from(["n2".into()]));
    assert_eq!(cluster.node_weights().len(), 1);
}

/// However many there are, they are the same as in a list that is sorted anew.
#[test]
fn many_slices_of_one_service_come_and_go_in_any_order() {
    let (mut cluster, mut dirty) = (Cluster::new(), Dirty::default());
    let owner = ObjectKey::new("ns", "a");
    let mut wanted = BTreeSet::new();
    let names = |cluster: &Cluster| -> Vec<String> {
        cluster.slices(&owner).map(|slice| slice.key.name().to_owned()).collect()
    };
    for n in 0..600_u32 {
        // Of 200 names each comes, is changed or comes again, and goes.
        let name = (n * 73 % 200).to_string();
        if n % 3 == 2 && n > 300 {
            cluster.apply(Change::SliceGone(ObjectKey::new("ns", &*name)), &mut dirty);
            wanted.remove(&name);
        } else {
            let address = format!("10.0.{}.{}", n / 250, n % 250);
            cluster.apply(Change::Slice(slice(&name, "a", &[&address])), &mut dirty);
            wanted.insert(name);
        }
        assert_eq!(names(&cluster), wanted.iter().cloned().collect::<Vec<_>>());
        assert_eq!(cluster.slice_count(), wanted.len());
    }
    for name in wanted {
        cluster.apply(Change::SliceGone(ObjectKey::new("ns", &*name)), &mut dirty);
    }
    assert!(names(&cluster).is_empty() && cluster.slices.is_empty());
}
