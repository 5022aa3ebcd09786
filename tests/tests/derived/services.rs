//! What of a Service counts.

use super::*;

const PORT: [(&str, &str, u16); 1] = [("", "TCP", 80)];

/// One Service through all its types, as a whole each time.
#[test]
fn a_service_through_all_types() {
    let pods = slice("web", "4", &[("", "TCP", 8080)], &["10.244.1.7 node-b"]);
    let cluster_ip = service("web", &["10.96.0.1"], &PORT, json!({}));
    let node_port =
        service("web", &["10.96.0.1"], &PORT, json!({ "type": "NodePort", "nodePorts": [30080] }));
    let load_balancer = balanced(node_port.clone(), &[json!({ "ip": "203.0.113.7" })]);
    let mut external_name = cluster_ip.clone();
    external_name["spec"] = json!({ "type": "ExternalName", "externalName": "example.com" });
    let headless = service("web", &["None"], &PORT, json!({}));

    let base = [
        "-t 10.96.0.1:80 -s rr | 10.244.1.7:8080",
        "bound 10.96.0.1",
        "KUBE-CLUSTER-IP: 10.96.0.1,tcp:80",
    ];
    let node = ["-t 192.168.50.10:30080 -s rr | 10.244.1.7:8080", "KUBE-NODE-PORT-TCP: 30080"];
    let balanced = [
        "-t 203.0.113.7:80 -s rr | 10.244.1.7:8080",
        "bound 10.96.0.1 203.0.113.7",
        "KUBE-LOAD-BALANCER: 203.0.113.7,tcp:80",
    ];
    for (service, expected) in [
        (&cluster_ip, base.to_vec()),
        (&node_port, [&base[..], &node].concat()),
        (&load_balancer, [&[base[0], base[2]][..], &node, &balanced].concat()),
        (&external_name, vec![]),
        (&headless, vec![]),
    ] {
        expect(&state(USUAL, &[service.clone(), pods.clone()]), &expected);
    }
}

/// Addresses and node ports count whatever the type says; a policy only where it can apply.
#[test]
fn fields_count_whatever_the_type() {
    let mut odd = service(
        "odd",
        &["10.96.0.1"],
        &PORT,
        json!({ "nodePorts": [30080], "externalTrafficPolicy": "Local", "healthCheckNodePort": 31000 }),
    );
    odd["status"] = json!({ "loadBalancer": { "ingress": [{ "ip": "203.0.113.7" }] } });
    let local =
        json!({ "externalTrafficPolicy": "Local", "externalIPs": ["203.0.113.9", "2001:db8::9"] });
    let external = service("external", &["10.96.0.2"], &PORT, local);
    expect(
        &state(USUAL, &[odd, external]),
        &[
            "-t 10.96.0.1:80 -s rr | ",
            "-t 203.0.113.7:80 -s rr | ",
            "-t 192.168.50.10:30080 -s rr | ",
            "-t 10.96.0.2:80 -s rr | ",
            "-t 203.0.113.9:80 -s rr | ",
            "bound 10.96.0.1 10.96.0.2 203.0.113.7 203.0.113.9",
            "KUBE-CLUSTER-IP: 10.96.0.1,tcp:80 10.96.0.2,tcp:80",
            "KUBE-LOAD-BALANCER: 203.0.113.7,tcp:80",
            "KUBE-NODE-PORT-TCP: 30080",
            "KUBE-EXTERNAL-IP-LOCAL: 203.0.113.9,tcp:80",
        ],
    );
}

#[test]
fn of_a_load_balancer_s_addresses_those_of_vips_count() {
    let web = service(
        "web",
        &["10.96.0.1", "fd00:10:96::1"],
        &PORT,
        json!({ "loadBalancerIP": "203.0.113.99", "allocateLoadBalancerNodePorts": false }),
    );
    let web = balanced(
        web,
        &[
            json!({ "ip": "203.0.113.1", "ipMode": "Proxy" }),
            json!({ "ip": "203.0.113.2", "ipMode": "VIP" }),
            json!({ "ip": "2001:db8::1", "ipMode": "Proxy" }),
            json!({ "ip": "2001:db8::2" }),
            json!({ "hostname": "lb.example.com" }),
            // The node's own address: served, and not taken from its interface.
            json!({ "ip": "fd00:50::10" }),
        ],
    );
    expect(
        &state(USUAL, &[web]),
        &[
            "-t 10.96.0.1:80 -s rr | ",
            "-t 203.0.113.2:80 -s rr | ",
            "-t [fd00:10:96::1]:80 -s rr | ",
            "-t [2001:db8::2]:80 -s rr | ",
            "-t [fd00:50::10]:80 -s rr | ",
            "bound 10.96.0.1 2001:db8::2 203.0.113.2 fd00:10:96::1",
            "KUBE-CLUSTER-IP: 10.96.0.1,tcp:80",
            "KUBE-6-CLUSTER-IP: fd00:10:96::1,tcp:80",
            "KUBE-LOAD-BALANCER: 203.0.113.2,tcp:80",
            "KUBE-6-LOAD-BALANCER: 2001:db8::2,tcp:80 fd00:50::10,tcp:80",
        ],
    );
}

/// As Go read them before 1.17: leading zeros are decimal, an IPv4 address in IPv6's clothes is IPv4.
#[test]
fn addresses_are_read_as_kube_proxy_reads_them() {
    let web = service(
        "web",
        &["010.096.000.001"],
        &PORT,
        json!({ "externalIPs": ["::ffff:203.0.113.9", ""] }),
    );
    let pods = slice("web", "4", &[("", "TCP", 8080)], &["10.244.001.07 node-b"]);
    expect(
        &state(USUAL, &[web, pods]),
        &[
            "-t 10.96.0.1:80 -s rr | 10.244.1.7:8080",
            "-t 203.0.113.9:80 -s rr | 10.244.1.7:8080",
            "bound 10.96.0.1 203.0.113.9",
            "KUBE-CLUSTER-IP: 10.96.0.1,tcp:80",
            "KUBE-EXTERNAL-IP: 203.0.113.9,tcp:80",
        ],
    );
}

#[test]
fn labels_keep_services_and_slices_out() {
    let label = |mut object: Value, label: &str| {
        object["metadata"]["labels"][label] = "x".into();
        object
    };
    let name = "service.kubernetes.io/service-proxy-name";
    let slice_of = |service: &str, number: &str, pod: &str| {
        slice(service, number, &[("", "TCP", 8080)], &[pod])
    };
    let objects = [
        service("web", &["10.96.0.1"], &PORT, json!({})),
        label(service("others", &["10.96.0.2"], &PORT, json!({})), name),
        slice_of("others", "1", "10.244.1.1 node-b"),
        slice_of("web", "1", "10.244.1.2 node-b"),
        label(slice_of("web", "2", "10.244.1.3 node-b"), name),
        label(slice_of("web", "3", "10.244.1.4 node-b"), "service.kubernetes.io/headless"),
    ];
    expect(
        &state(USUAL, &objects),
        &[
            "-t 10.96.0.1:80 -s rr | 10.244.1.2:8080 10.244.1.3:8080",
            "bound 10.96.0.1",
            "KUBE-CLUSTER-IP: 10.96.0.1,tcp:80",
        ],
    );
}

/// The older one has the address with its endpoints; kube-proxy would flap. (A decision.)
#[test]
fn two_services_with_one_external_ip() {
    let claim = |name: &str, ip: &str, created: &str| {
        let mut service = service(name, &[ip], &PORT, json!({ "externalIPs": ["2001:db8::9"] }));
        service["spec"]["ipFamilies"] = json!(["IPv6"]);
        service["metadata"]["creationTimestamp"] = created.into();
        service
    };
    let objects = [
        claim("a-young", "fd00:10:96::1", "2024-01-02T00:00:00Z"),
        claim("b-old", "fd00:10:96::2", "2024-01-01T00:00:00Z"),
        slice("a-young", "1", &[("", "TCP", 1)], &["fd00:10:244:1::1 node-b"]),
        slice("b-old", "1", &[("", "TCP", 2)], &["fd00:10:244:1::2 node-b"]),
    ];
    expect(
        &state(USUAL, &objects),
        &[
            "-t [fd00:10:96::1]:80 -s rr | [fd00:10:244:1::1]:1",
            "-t [fd00:10:96::2]:80 -s rr | [fd00:10:244:1::2]:2",
            "-t [2001:db8::9]:80 -s rr | [fd00:10:244:1::2]:2",
            "bound 2001:db8::9 fd00:10:96::1 fd00:10:96::2",
            "KUBE-6-CLUSTER-IP: fd00:10:96::1,tcp:80 fd00:10:96::2,tcp:80",
            "KUBE-6-EXTERNAL-IP: 2001:db8::9,tcp:80",
        ],
    );
}
