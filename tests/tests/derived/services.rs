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

/// Ports of one address belong to whoever asked for them: ranges of one Service close nothing of another.
#[test]
fn two_services_share_an_address() {
    let vip = [json!({ "ip": "2001:db8::7" })];
    let closed = json!({ "loadBalancerSourceRanges": ["2001:db8:9::/48"] });
    let objects = [
        balanced(service("closed", &["fd00:10:96::1"], &PORT, closed), &vip),
        balanced(service("open", &["fd00:10:96::2"], &[("", "TCP", 81)], json!({})), &vip),
        balanced(service("udp", &["fd00:10:96::3"], &[("", "UDP", 80)], json!({})), &vip),
    ];
    let dump = state(USUAL, &objects);
    let drop = "-A KUBE-IPVS-OUT-FILTER -s 2001:db8::7/128 -m ipvs --vproto 6 --vaddr 2001:db8::7 \
                --vport 80 -j DROP";
    assert_eq!(dump.filter6.0["KUBE-IPVS-OUT-FILTER"], [drop]);
    expect(
        &dump,
        &[
            "-t [fd00:10:96::1]:80 -s rr | ",
            "-t [fd00:10:96::2]:81 -s rr | ",
            "-u [fd00:10:96::3]:80 -s rr | ",
            "-t [2001:db8::7]:80 -s rr | ",
            "-t [2001:db8::7]:81 -s rr | ",
            "-u [2001:db8::7]:80 -s rr | ",
            "bound 2001:db8::7 fd00:10:96::1 fd00:10:96::2 fd00:10:96::3",
            "KUBE-6-CLUSTER-IP: fd00:10:96::1,tcp:80 fd00:10:96::2,tcp:81 fd00:10:96::3,udp:80",
            "KUBE-6-LOAD-BALANCER: 2001:db8::7,tcp:80 2001:db8::7,tcp:81 2001:db8::7,udp:80",
            "KUBE-6-LOAD-BALANCER-FW: 2001:db8::7,tcp:80",
            "KUBE-6-LOAD-BALANCER-SOURCE-CID: 2001:db8::7,tcp:80,2001:db8:9::/48",
        ],
    );
}

/// However it is written, an address is one address, an endpoint in several slices one endpoint.
#[test]
fn endpoints_are_the_same_however_they_are_written() {
    let web = service("web", &["FD00:0010:0096:0:0::1"], &PORT, json!({}));
    let target = [("", "TCP", 8080)];
    let mut names = slice("web", "fqdn", &target, &["pod.example.com node-a"]);
    names["addressType"] = "FQDN".into();
    let objects = [
        web,
        names,
        slice(
            "web",
            "1",
            &target,
            &["FD00:10:244:1::7 node-b terminating", "fd00:10:244:2::7 node-c"],
        ),
        slice(
            "web",
            "2",
            &target,
            &["fd00:10:244:1:0:0:0:7 node-b", "fd00:10:244:2::7 node-c gone"],
        ),
        slice(
            "web",
            "3",
            &target,
            &["fd00:10:244:3::7 node-a unready", "fd00:10:244:4::7 node-a gone"],
        ),
    ];
    expect(
        &state(USUAL, &objects),
        &[
            "-t [fd00:10:96::1]:80 -s rr | [fd00:10:244:1::7]:8080 [fd00:10:244:2::7]:8080",
            "bound fd00:10:96::1",
            "KUBE-6-CLUSTER-IP: fd00:10:96::1,tcp:80",
            // Local, whatever its state.
            "KUBE-6-LOOP-BACK: fd00:10:244:3::7,tcp:8080,fd00:10:244:3::7 \
             fd00:10:244:4::7,tcp:8080,fd00:10:244:4::7",
        ],
    );
}

/// Health checks are of load balancers with the Local policy, in each family that has a cluster IP.
#[test]
fn health_check_ports_come_and_go_with_type_and_policy() {
    let local = json!({ "externalTrafficPolicy": "Local", "healthCheckNodePort": 31000 });
    let cluster = json!({ "externalTrafficPolicy": "Cluster", "healthCheckNodePort": 31000 });
    let ips = ["10.96.0.1", "fd00:10:96::1"];
    for (ips, more, is_balanced, four, six) in [
        (&ips[..], &local, true, &["31000"][..], &["31000"][..]),
        (&ips[..1], &local, true, &["31000"], &[]),
        (&ips[1..], &local, true, &[], &["31000"]),
        (&ips[..], &cluster, true, &[], &[]),
        (&ips[..], &local, false, &[], &[]),
    ] {
        let mut web = service("web", ips, &PORT, more.clone());
        web["spec"]["type"] = if is_balanced { "LoadBalancer" } else { "NodePort" }.into();
        let dump = state(USUAL, &[web]);
        assert_eq!(dump.set("KUBE-HEALTH-CHECK-NODE-PORT"), four, "{ips:?} {more}");
        assert_eq!(dump.set("KUBE-6-HEALTH-CHECK-NODE-PORT"), six, "{ips:?} {more}");
    }
}
