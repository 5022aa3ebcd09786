//! The objects of a shape.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};

use super::Shape;
use crate::apiserver::Prepared;

/// The namespace of the tenant.
pub(super) const TENANT: &str = "tenant";

/// Longest object that etcd stores.
const OBJECT: usize = 3 << 19;

/// Everything that a tenant has, in one of several versions: each differs from the others in what is
/// programmed of it.
pub(super) fn of_tenant(shape: &Shape, version: u32) -> Vec<Prepared> {
    let most = shape.get("mebibytes") as usize * (1 << 20);
    let tenant = Tenant { shape, version };
    let mut bytes = 0;
    let mut objects = Vec::new();
    for object in tenant.objects() {
        let object = Prepared::from(object);
        bytes += object.len();
        if bytes > most {
            break;
        }
        // As an API server that stores no such object.
        if object.len() <= OBJECT {
            objects.push(object);
        }
    }
    objects
}

/// The same as one text, a document for each object.
pub fn documents(shape: &Shape, version: u32) -> String {
    let most = shape.get("mebibytes") as usize * (1 << 20);
    let mut text = String::new();
    for object in (Tenant { shape, version }).objects() {
        text += &object.to_string();
        text.push('\n');
        if text.len() > most {
            break;
        }
    }
    text
}

struct Tenant<'a> {
    shape: &'a Shape,
    version: u32,
}

impl Tenant<'_> {
    fn objects(&self) -> impl Iterator<Item = Value> + '_ {
        let (services, slices) = (self.get("services"), self.get("slices"));
        let used = (0..services).flat_map(move |service| {
            let slices = (0..slices).map(move |slice| self.slice(service, slice, &name(service)));
            std::iter::once(self.service(service)).chain(slices)
        });
        let orphans = (0..self.get("orphans")).map(|n| self.slice(n, n, "none"));
        used.chain(orphans)
    }

    fn get(&self, gene: &str) -> u32 {
        self.shape.get(gene)
    }

    fn has(&self, gene: &str) -> bool {
        self.get(gene) > 0
    }

    /// A name that is as long as the shape says, at most `most`.
    fn name(&self, kind: &str, number: u32, most: usize) -> String {
        let number = if self.has("distinct") { number } else { 0 };
        let short = format!("{kind}{number:x}v{}", self.version);
        let length = (self.get("name") as usize).min(most);
        format!("{short}{}", "x".repeat(length.saturating_sub(short.len())))
    }

    fn annotations(&self) -> Value {
        json!({"note": "y".repeat(self.get("padding") as usize)})
    }

    fn service(&self, n: u32) -> Value {
        let ports: Vec<Value> =
            (1..=self.get("ports").min(65_534)).map(|m| self.port(n, m)).collect();
        let owner = if self.has("contested") { 0 } else { n };
        let external: Vec<_> = (0..self.get("external")).map(|m| outside(203, owner, m)).collect();
        let vips = (0..self.get("vips")).map(|m| json!({"ip": outside(198, owner, m)}));
        let vips: Vec<Value> = vips.collect();
        let range =
            |m: u32| format!("{}/32", Ipv4Addr::from_bits(0x0500_0000 + (m << 4) + self.version));
        let ranges: Vec<_> = (0..self.get("ranges")).map(range).collect();
        let policy = if self.has("local") { "Local" } else { "Cluster" };
        let mut ips = vec![Ipv4Addr::from_bits(0x0a60_0000 + (2 << 17) + n).to_string()];
        let mut families = vec!["IPv4"];
        if self.has("dual") {
            ips.push(Ipv6Addr::from_bits((0xfd00_0096_u128 << 96) + u128::from(n)).to_string());
            families.push("IPv6");
        }
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "namespace": TENANT, "name": name(n),
                "creationTimestamp": "2026-01-01T00:00:00Z", "annotations": self.annotations(),
            },
            "spec": {
                "type": "LoadBalancer", "clusterIP": ips[0], "clusterIPs": ips, "ipFamilies": families,
                "ports": ports, "externalIPs": external, "loadBalancerSourceRanges": ranges,
                "externalTrafficPolicy": policy, "internalTrafficPolicy": "Cluster",
            },
            "status": {"loadBalancer": {"ingress": vips}},
        })
    }

    fn port(&self, service: u32, n: u32) -> Value {
        let node_port =
            if self.has("node-ports") { 30_000 + (service * 64 + n) % 35_000 } else { 0 };
        json!({"name": port_name(n), "port": n, "protocol": "TCP", "nodePort": node_port})
    }

    fn slice(&self, service: u32, n: u32, owner: &str) -> Value {
        let ports: Vec<Value> = (1..=self.get("slice-ports").min(65_000))
            .map(|m| json!({"name": port_name(m), "port": (m + self.version) % 65_535 + 1, "protocol": "TCP"}))
            .collect();
        let endpoints: Vec<Value> =
            (0..self.get("endpoints")).map(|m| self.endpoint(n, m)).collect();
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "namespace": TENANT, "name": format!("s{service}-{n}"),
                "labels": {"kubernetes.io/service-name": owner}, "annotations": self.annotations(),
            },
            "addressType": "IPv4", "ports": ports, "endpoints": endpoints,
        })
    }

    fn endpoint(&self, slice: u32, n: u32) -> Value {
        let number = if self.has("same") { n } else { slice * 1000 + n };
        let address = |m: u32| {
            Ipv4Addr::from_bits(0x0b00_0000 + ((number * 4 + self.version % 4) ^ (m << 23)))
        };
        let addresses: Vec<_> = (0..self.get("addresses").max(1)).map(address).collect();
        let mut endpoint = json!({"addresses": addresses, "conditions": {"ready": true}});
        if self.has("name") {
            endpoint["nodeName"] = self.name("n", number, 253).into();
        }
        if self.has("hints") {
            let hints = |kind: &str, most: usize| -> Vec<Value> {
                let hint = |m| json!({"name": self.name(kind, number * 8 + m, most)});
                (0..self.get("hints")).map(hint).collect()
            };
            endpoint["hints"] = json!({"forZones": hints("z", 63), "forNodes": hints("m", 253)});
        }
        endpoint
    }
}

fn name(service: u32) -> String {
    format!("s{service}")
}

fn port_name(n: u32) -> String {
    format!("p{n}")
}

/// An address that no other Service asks for.
fn outside(first: u8, service: u32, n: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits((u32::from(first) << 24) + (service.wrapping_mul(5_003) + n) % (1 << 24))
}
