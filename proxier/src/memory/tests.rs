use netlink_ipvs::{Protocol, RealServerConfig, Scheduler, VirtualServerConfig};

use super::*;
use crate::builders::rules;
use crate::dataplane::sets::{Member, SetId, SetRole};

fn vip(text: &str) -> VirtualServerKey {
    VirtualServerKey::new(text.parse().unwrap(), 80, Protocol::Tcp)
}

fn pod(text: &str, weight: u32) -> RealServer {
    let key = RealServerKey::new(text.parse().unwrap(), 8080);
    RealServer { key, config: RealServerConfig::masquerade(weight) }
}

/// Every operation, what makes it possible, and whether it can be done twice.
#[test]
fn refuses_what_a_kernel_refuses() {
    let config = VirtualServerConfig::new(Scheduler::RR, Family::Ipv4);
    let (key, server) = (vip("10.96.0.1"), pod("10.244.0.1", 1));
    let address = "10.96.0.1".parse().unwrap();
    let (set, member) = (SetRole::IpvsIps.of(Family::Ipv4), Member::Ip(address));
    let mut memory = Memory::new();
    let mut run = |op: Op| memory.run(&op).map_err(|error| error.text);
    for (op, again) in [
        (Op::CreateSet(set, 2), false),
        (Op::GrowSet(set, 4), true),
        (Op::AddMember(set, member), false),
        (Op::AddVirtualServer(key, config), false),
        (Op::SetVirtualServer(key, config), true),
        (Op::AddRealServer(key, server), false),
        (Op::SetRealServer(key, pod("10.244.0.1", 0)), true),
        (Op::Bind(address), false),
        (Op::Unbind(address), false),
        (Op::RemoveRealServer(key, server.key), false),
        (Op::RemoveVirtualServer(key), false),
        (Op::RemoveMember(set, member), false),
    ] {
        assert_eq!(run(op.clone()), Ok(()));
        assert_eq!(run(op.clone()).is_ok(), again, "{op}");
    }
    for op in [
        Op::AddRealServer(key, server),
        Op::SetRealServer(key, server),
        Op::SetVirtualServer(key, config),
        Op::AddMember(SetRole::ClusterIp.of(Family::Ipv4), member),
        Op::InstallFirewall(Family::Ipv4, rules("")),
    ] {
        assert!(run(op.clone()).is_err(), "{op}");
    }
}

#[test]
fn refuses_what_does_not_fit() {
    let mut memory = Memory::new();
    for set in SetId::all() {
        memory.run(&Op::CreateSet(set, 1)).unwrap();
    }
    let config = VirtualServerConfig::new(Scheduler::RR, Family::Ipv6);
    memory.run(&Op::AddVirtualServer(vip("fd00::1"), config)).unwrap();
    let ip = |text: &str| Member::Ip(text.parse().unwrap());
    let (v4, v6) = (SetRole::IpvsIps.of(Family::Ipv4), SetRole::IpvsIps.of(Family::Ipv6));
    for (op, expected) in [
        (Op::AddMember(v4, ip("10.0.0.1")), true),
        (Op::AddMember(v4, ip("10.0.0.2")), false),
        (Op::AddMember(v6, ip("10.0.0.2")), false),
        (Op::AddMember(v6, Member::Port(1)), false),
        (Op::GrowSet(v4, 0), false),
        (Op::InstallFirewall(Family::Ipv4, rules("")), true),
        (Op::AddRealServer(vip("fd00::1"), pod("10.244.0.1", 1)), false),
        (Op::AddRealServer(vip("fd00::1"), pod("fd01::1", 1)), true),
    ] {
        assert_eq!(memory.run(&op).is_ok(), expected, "{op}");
    }
}

#[test]
fn fails_on_command_and_remembers_what_it_did() {
    let mut memory = Memory::new();
    let bind = |text: &str| Op::Bind(text.parse().unwrap());
    let bad = bind("10.0.0.1");
    let refused = bad.clone();
    memory.fault = Some(Box::new(move |op| (*op == refused).then_some(OpErrorKind::Failed)));
    assert_eq!(memory.run(&bad).unwrap_err().kind, OpErrorKind::Failed);
    memory.run(&bind("10.0.0.2")).unwrap();
    assert_eq!(memory.done, [bind("10.0.0.2")]);
    assert_eq!(memory.state.interface.addresses.len(), 1);
}
