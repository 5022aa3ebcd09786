//! ipset and conntrack against a real kernel, read back with the tools of those names. Each test
//! runs in a network namespace of its own: it starts itself again under `unshare --net`.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../../tests/src/own_namespace.rs"]
#[allow(unreachable_pub, reason = "shared with the tests crate")]
mod own_namespace;
#[path = "../../tests/src/small_buffers.rs"]
#[allow(unreachable_pub, reason = "shared with the tests crate")]
mod small_buffers;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;

use netlink_batch::ErrorKind;
use netlink_ipvs::{Family, Protocol};
use proxier::dataplane::sets::{Member, SetId, SetRole, SetType};
use proxier::kernel::conntrack::{Conntrack, Flow};
use proxier::kernel::ipset::{Change, IpsetClient, SetSpec};

/// Runs `body` in a fresh network namespace.
fn in_namespace(test: &str, body: impl FnOnce()) {
    own_namespace::in_namespace(test, &[], body);
}

fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split_whitespace()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// The lines of `ipset save`, sorted, without what the kernel chooses itself.
fn saved(arguments: &str) -> Vec<String> {
    let text = run("ipset", &format!("save {arguments}"));
    let mut lines: Vec<String> = text
        .lines()
        .map(|line| line.split(" bucketsize ").next().unwrap().trim_end().to_owned())
        .collect();
    lines.sort();
    lines
}

fn spec(name: &str, set_type: SetType, capacity: u32) -> SetSpec<'_> {
    SetSpec { name, set_type, family: Family::Ipv4, capacity }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The members of a set that holds nothing else.
fn content(client: &mut IpsetClient, name: &str) -> BTreeSet<Member> {
    let content = client.members(name).unwrap();
    assert_eq!(content.foreign, BTreeSet::new(), "{name}");
    content.members
}

/// Members of every type, each with the set that takes it.
fn members(family: Family) -> Vec<(SetId, Member)> {
    let (one, two, net) = match family {
        Family::Ipv4 => ("10.0.0.1", "10.0.0.2", ["10.0.0.0/8", "10.0.0.7/32", "0.0.0.0/1"]),
        Family::Ipv6 => ("fd00::1", "fd00::2", ["fd00::/64", "fd00::7/128", "8000::/1"]),
    };
    let (one, two) = (ip(one), ip(two));
    let (tcp, udp, sctp) = (Protocol::Tcp, Protocol::Udp, Protocol::Sctp);
    let mut members = vec![
        (SetRole::IpvsIps, Member::Ip(one)),
        (SetRole::IpvsIps, Member::Ip(two)),
        (SetRole::ClusterIp, Member::IpPort(one, udp, 53)),
        (SetRole::ClusterIp, Member::IpPort(one, tcp, 53)),
        (SetRole::NodePortSctp, Member::IpPort(two, sctp, 65535)),
        (SetRole::LoopBack, Member::IpPortIp(one, tcp, 80, one)),
        (SetRole::LoopBack, Member::IpPortIp(one, sctp, 80, two)),
        (SetRole::NodePortTcp, Member::Port(30080)),
        (SetRole::NodePortTcp, Member::Port(0)),
        (SetRole::NodePortTcp, Member::Port(65535)),
    ];
    for net in net {
        let member = Member::IpPortNet(one, tcp, 80, net.parse().unwrap());
        members.push((SetRole::LoadBalancerSourceCidr, member));
    }
    members.into_iter().map(|(role, member)| (role.of(family), member)).collect()
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn a_member_with_a_mark_is_read_back_added_again_and_gets_another() {
    in_namespace("a_member_with_a_mark_is_read_back_added_again_and_gets_another", || {
        let mut client = IpsetClient::open().unwrap();
        let set = SetRole::LocalMark.of(Family::Ipv4);
        client.create(&SetSpec::of(set, SetId::DEFAULT_CAPACITY)).unwrap();
        let marked = |mark| Member::Marked(ip("10.0.0.1"), Protocol::Tcp, 80, mark);
        for mark in [0x1001, 0x1001, 0x1002] {
            let report = client.apply([Change::Add(set.name(), marked(mark))]);
            assert!(report.is_success(), "{report:?}");
            assert_eq!(content(&mut client, set.name()), [marked(mark)].into());
            let text = run("ipset", &format!("save {set}"));
            assert!(
                text.contains(&format!(
                    " skbmark {mark:#x}
"
                )),
                "{text}"
            );
        }
        assert!(client.apply([Change::Remove(set.name(), marked(0x1002))]).is_success());
        assert!(content(&mut client, set.name()).is_empty());
    });
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn sets_look_as_kube_proxy_makes_them() {
    in_namespace("sets_look_as_kube_proxy_makes_them", || {
        let mut client = IpsetClient::open().unwrap();
        assert_eq!(client.list().unwrap(), []);
        let mut expected = Vec::new();
        for set in SetId::all() {
            client.create(&SetSpec::of(set, SetId::DEFAULT_CAPACITY)).unwrap();
            let family = if set.family == Family::Ipv4 { "inet" } else { "inet6" };
            expected.push(match set.set_type() {
                SetType::BitmapPort => format!("create {set} bitmap:port range 0-65535"),
                SetType::Expiring => format!(
                    "create {set} hash:ip,port family {family} hashsize 1024 maxelem 65536 \
                     timeout 300 skbinfo"
                ),
                other => format!(
                    "create {set} {} family {family} hashsize 1024 maxelem 65536",
                    other.name()
                ),
            });
        }
        let members: Vec<_> = [Family::Ipv4, Family::Ipv6].into_iter().flat_map(members).collect();
        let adds = members.iter().map(|(set, member)| Change::Add(set.name(), *member));
        let report = client.apply(adds.clone());
        assert!(report.is_success(), "{report:?}");
        assert_eq!((report.sent, report.unchanged), (members.len(), 0));
        expected.extend(members.iter().map(|(set, member)| format!("add {set} {member}")));
        expected.sort();
        assert_eq!(saved(""), expected);

        // ipset itself takes what we made for what it would have made.
        run("ipset", "create KUBE-CLUSTER-IP hash:ip,port family inet maxelem 65536 -exist");
        run("ipset", "create KUBE-NODE-PORT-TCP bitmap:port range 0-65535 -exist");

        for header in client.list().unwrap() {
            let set = SetId::by_name(&header.name).unwrap();
            let wanted = SetSpec::of(set, SetId::DEFAULT_CAPACITY);
            assert!(wanted.matches(&header), "{header:?}");
            let own = members.iter().filter(|(other, _)| *other == set).map(|(_, m)| *m);
            let own: BTreeSet<Member> = own.collect();
            assert_eq!(content(&mut client, set.name()), own);
            assert_eq!(header.members, Some(own.len() as u32));
        }

        let again = client.apply(adds);
        assert_eq!((again.unchanged, again.failed.len()), (members.len(), 0));
        let removes = members.iter().map(|(set, member)| Change::Remove(set.name(), *member));
        let report = client.apply(removes.clone());
        assert_eq!((report.unchanged, report.failed.len()), (0, 0), "{report:?}");
        assert!(!saved("").iter().any(|line| line.starts_with("add")));
        let report = client.apply(removes);
        assert_eq!((report.unchanged, report.failed.len()), (members.len(), 0), "{report:?}");
    });
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn reads_what_ipset_made() {
    in_namespace("reads_what_ipset_made", || {
        run("ipset", "create KUBE-CLUSTER-IP hash:ip,port family inet comment");
        run("ipset", "add KUBE-CLUSTER-IP 10.0.0.1,udp:53 comment dns");
        run("ipset", "add KUBE-CLUSTER-IP 10.0.0.1,80");
        run("ipset", "create RANGE bitmap:port range 1-10");
        run("ipset", "create NETS hash:net");
        let mut client = IpsetClient::open().unwrap();
        let one = ip("10.0.0.1");
        let expected =
            [Member::IpPort(one, Protocol::Udp, 53), Member::IpPort(one, Protocol::Tcp, 80)];
        assert_eq!(content(&mut client, "KUBE-CLUSTER-IP"), expected.into());
        let headers = client.list().unwrap();
        let header = |name: &str| headers.iter().find(|header| header.name == name).unwrap();
        assert!(header("KUBE-CLUSTER-IP").has_options);
        assert_eq!(header("RANGE").ports, Some((1, 10)));
        assert!(!spec("RANGE", SetType::BitmapPort, 0).matches(header("RANGE")));
        assert_eq!(header("NETS").set_type, None);
        assert_eq!(header("NETS").type_name, "hash:net");
        let error = client.members("NONE").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
        assert!(error.to_string().contains("NONE"), "{error}");
        assert_eq!(content(&mut client, "KUBE-CLUSTER-IP").len(), 2);
    });
}

/// A set with one member of ours, and foreign elements that `ipset` can add: name, type and
/// options, member, foreign elements.
type Odd = (&'static str, &'static str, Option<&'static str>, &'static [&'static str]);

const ODD: [Odd; 10] = [
    (
        "PORT4",
        "hash:ip,port family inet",
        Some("10.0.0.1,tcp:80"),
        &["10.0.0.1,icmp:8/0", "10.0.0.1,47:0", "10.0.0.1,udplite:80"],
    ),
    ("PORT6", "hash:ip,port family inet6", Some("fd00::1,udp:53"), &["fd00::1,icmpv6:128/0"]),
    (
        "IP4",
        "hash:ip,port,ip family inet",
        Some("10.0.0.1,tcp:80,10.0.0.2"),
        &["10.0.0.1,icmp:3/1,10.0.0.2"],
    ),
    (
        "IP6",
        "hash:ip,port,ip family inet6",
        Some("fd00::1,tcp:80,fd00::2"),
        &["fd00::1,icmpv6:1/4,fd00::2", "fd00::1,udplite:80,fd00::2"],
    ),
    (
        "NET4",
        "hash:ip,port,net family inet",
        Some("10.0.0.1,tcp:80,10.0.0.0/8"),
        &["10.0.0.1,tcp:80,10.1.0.0/16 nomatch", "10.0.0.1,icmp:8/0,10.0.0.0/8"],
    ),
    (
        "NET6",
        "hash:ip,port,net family inet6",
        Some("fd00::1,tcp:80,fd00::/64"),
        &["fd00::1,tcp:80,fd00::/96 nomatch", "fd00::1,icmpv6:128/0,fd00::/64 nomatch"],
    ),
    (
        "EXTENDED",
        "hash:ip,port family inet counters comment skbinfo timeout 600",
        Some("10.0.0.1,tcp:80"),
        &["10.0.0.1,icmp:8/0"],
    ),
    // Types with no other elements than ours, but for their extensions.
    ("IPS", "hash:ip family inet6 counters comment", Some("fd00::1"), &[]),
    ("PORTS", "bitmap:port range 0-65535 counters comment timeout 600", Some("80"), &[]),
    // A type that is not used here.
    ("NETS", "hash:net family inet", None, &["10.0.0.0/8", "10.1.0.0/16 nomatch"]),
];

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn foreign_elements_are_listed_and_removed() {
    in_namespace("foreign_elements_are_listed_and_removed", || {
        let mut client = IpsetClient::open().unwrap();
        for (name, options, member, foreign) in ODD {
            run("ipset", &format!("create {name} {options}"));
            for element in member.iter().chain(foreign) {
                run("ipset", &format!("add {name} {element}"));
            }
            let found = client.members(name).unwrap();
            let members: Vec<_> = found.members.iter().map(ToString::to_string).collect();
            assert_eq!(members.first().map(String::as_str), member, "{name}");
            let texts: BTreeSet<_> = found.foreign.iter().map(ToString::to_string).collect();
            let wanted = foreign.iter().map(|text| text.replace("udplite", "136")).collect();
            assert_eq!(texts, wanted, "{name}");
            let saved_before = saved(name).len();

            let remove = || found.foreign.iter().map(|e| Change::RemoveForeign(name, e));
            let report = client.apply(remove());
            assert_eq!((report.unchanged, report.failed.len()), (0, 0), "{name}: {report:?}");
            assert_eq!(saved(name).len(), saved_before - foreign.len(), "{:?}", saved(name));
            let left = content(&mut client, name);
            assert_eq!(left, found.members, "the member stays");
            // Gone already is success.
            let report = client.apply(remove());
            assert_eq!((report.unchanged, report.failed.len()), (foreign.len(), 0), "{report:?}");
        }
    });
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn refusals_say_what_the_matter_is() {
    in_namespace("refusals_say_what_the_matter_is", || {
        let mut client = IpsetClient::open().unwrap();
        client.create(&spec("A", SetType::HashIp, 2)).unwrap();
        client.create(&spec("P", SetType::BitmapPort, 0)).unwrap();
        let kind = |result: Result<(), netlink_batch::Error>| {
            let error = result.unwrap_err();
            println!("{error}: {}", std::error::Error::source(&error).unwrap());
            error.kind()
        };
        assert_eq!(kind(client.create(&spec("A", SetType::HashIp, 2))), ErrorKind::Exists);
        assert_eq!(kind(client.swap("A", "P")), ErrorKind::WrongKind);
        assert_eq!(kind(client.swap("A", "NONE")), ErrorKind::NotFound);
        assert_eq!(kind(client.rename("A", "P")), ErrorKind::Exists);
        assert_eq!(kind(client.rename("NONE", "Q")), ErrorKind::NotFound);
        assert_eq!(kind(client.destroy("NONE")), ErrorKind::NotFound);
        assert_eq!(kind(client.flush("NONE")), ErrorKind::NotFound);
        run("iptables", "-A INPUT -m set --match-set A src -j ACCEPT");
        assert_eq!(kind(client.destroy("A")), ErrorKind::Busy);
        assert_eq!(kind(client.rename("A", "B")), ErrorKind::Busy);
        assert_eq!(client.destroy("").unwrap_err().kind(), ErrorKind::Invalid);
        let long = "x".repeat(32);
        assert_eq!(client.destroy(&long).unwrap_err().kind(), ErrorKind::Invalid);

        // Members: each refusal lands on its change and the others take place.
        let report = client.apply([
            Change::Add("A", Member::Ip(ip("10.0.0.1"))),
            Change::Add("NONE", Member::Ip(ip("10.0.0.1"))),
            Change::Add("A", Member::Ip(ip("fd00::1"))),
            Change::Remove("A", Member::Ip(ip("10.0.0.9"))),
            Change::Add("P", Member::Port(80)),
            Change::Add("A", Member::Port(80)),
        ]);
        let failed: Vec<_> = report.failed.iter().map(|(at, error)| (*at, error.kind())).collect();
        let positions: Vec<_> = failed.iter().map(|(at, _)| *at).collect();
        assert_eq!(positions, [1, 2, 5], "{report:?}");
        assert_eq!(failed[0].1, ErrorKind::NotFound);
        assert_eq!(failed[1].1, ErrorKind::WrongKind);
        assert_eq!((report.sent, report.unchanged), (6, 1));
        assert_eq!(report.failed[0].1.to_string(), "add 10.0.0.1 to set NONE");
        assert_eq!(content(&mut client, "A"), [Member::Ip(ip("10.0.0.1"))].into());
        assert_eq!(content(&mut client, "P"), [Member::Port(80)].into());
    });
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn a_full_set_is_reported_and_grows_under_its_rules() {
    in_namespace("a_full_set_is_reported_and_grows_under_its_rules", || {
        let mut client = IpsetClient::open().unwrap();
        // 64 is the smallest size that the kernel keeps to.
        client.create(&spec("KUBE-IPVS-IPS", SetType::HashIp, 64)).unwrap();
        run("iptables", "-A INPUT -m set --match-set KUBE-IPVS-IPS dst -j ACCEPT");
        let all: Vec<Member> =
            (1..=1000).map(|i| Member::Ip(Ipv4Addr::from(0x0a60_0000 + i).into())).collect();
        let adds = all.iter().map(|member| Change::Add("KUBE-IPVS-IPS", *member));
        let report = client.apply(adds.clone());
        assert!(!report.failed.is_empty());
        assert!(report.failed.iter().all(|(_, error)| error.kind() == ErrorKind::Full));
        let held = content(&mut client, "KUBE-IPVS-IPS");
        assert_eq!(held.len() + report.failed.len(), 1000);

        // As after a crash in the middle of growing.
        client.create(&spec("KUBE-PROXIER-SPARE", SetType::HashIp, 64)).unwrap();
        client.remake(&spec("KUBE-IPVS-IPS", SetType::HashIp, 4096)).unwrap();
        assert_eq!(content(&mut client, "KUBE-IPVS-IPS"), held);
        let headers = client.list().unwrap();
        assert_eq!(headers.len(), 1, "nothing is left over");
        assert_eq!((headers[0].capacity, headers[0].references), (Some(4096), 1));
        let report = client.apply(adds);
        assert_eq!((report.unchanged, report.failed.len()), (held.len(), 0));
        assert_eq!(content(&mut client, "KUBE-IPVS-IPS"), all.into_iter().collect());
    });
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn twenty_thousand_members() {
    in_namespace("twenty_thousand_members", || {
        let mut client = IpsetClient::open().unwrap();
        client.create(&spec("A", SetType::HashIpPort, 65536)).unwrap();
        client.create(&spec("B", SetType::HashIpPort, 65536)).unwrap();
        let member = |i: u32| {
            Member::IpPort(Ipv4Addr::from(0x0a60_0000 + i).into(), Protocol::Tcp, (i % 7) as u16)
        };
        let all: BTreeSet<Member> = (0..20_000).map(member).collect();
        let start = std::time::Instant::now();
        let report = client.apply(all.iter().map(|member| Change::Add("A", *member)));
        println!("20000 members added in {:?}", start.elapsed());
        assert!(report.is_success(), "{report:?}");
        let start = std::time::Instant::now();
        assert_eq!(content(&mut client, "A"), all);
        println!("listed in {:?}", start.elapsed());
        let again = client.apply(all.iter().map(|member| Change::Add("A", *member)));
        assert_eq!((again.unchanged, again.failed.len()), (20_000, 0));
        assert!(again.uncertain.is_empty(), "the replies to a batch that is all refused must fit");

        client.swap("A", "B").unwrap();
        assert!(content(&mut client, "A").is_empty());
        assert_eq!(saved("B").len(), 20_001);
        client.flush("B").unwrap();
        client.rename("B", "C").unwrap();
        client.destroy("A").unwrap();
        let left = saved("");
        assert_eq!(left.len(), 1, "{left:?}");
        assert!(left[0].starts_with("create C hash:ip,port family inet "), "{left:?}");
    });
}

/// Where buffers cannot be forced, because the process is root of a user namespace only.
#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn everything_is_programmed_with_the_smallest_buffers() {
    let test = "everything_is_programmed_with_the_smallest_buffers";
    let inside = std::env::var_os("PROXIER_TEST_NAMESPACE").is_some();
    let _small = (!inside).then(small_buffers::SmallBuffers::set);
    own_namespace::in_namespace(test, &["--user", "--map-root-user"], || {
        let mut client = IpsetClient::open().unwrap();
        for set in SetId::all() {
            client.create(&SetSpec::of(set, SetId::DEFAULT_CAPACITY)).unwrap();
        }
        let name = SetRole::IpvsIps.of(Family::Ipv4).name();
        let all: BTreeSet<Member> =
            (1..=1000).map(|i| Member::Ip(Ipv4Addr::from(0x0a60_0000 + i).into())).collect();
        let adds = all.iter().map(|member| Change::Add(name, *member));
        let report = client.apply(adds.clone());
        assert!(report.is_success(), "{report:?}");
        assert!(report.sends > 20, "{} sends: the buffers were not small", report.sends);
        assert_eq!(content(&mut client, name), all);
        // The replies fit, too.
        let report = client.apply(adds);
        assert!(report.is_success() && report.unchanged == 1000, "{report:?}");
        client.remake(&spec(name, SetType::HashIp, 2048)).unwrap();
        assert_eq!(content(&mut client, name), all);

        for port in 1..=100 {
            make_flow(&format!("-p udp -s 10.0.0.1 -d 10.96.0.10 --sport {port} --dport 53"));
        }
        let mut conntrack = Conntrack::open().unwrap();
        let found = conntrack.flows(Family::Ipv4, Protocol::Udp).unwrap();
        assert_eq!((found.flows.len(), found.complete), (100, true));
        let report = conntrack.delete(&found.flows);
        assert!(report.is_success(), "{report:?}");
        assert_eq!(conntrack.flows(Family::Ipv4, Protocol::Udp).unwrap().flows, []);
    });
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn without_permission_everything_is_refused_at_once() {
    in_namespace("without_permission_everything_is_refused_at_once", || {
        // The test again as root who lacks this one capability.
        if std::env::var_os("UNPRIVILEGED").is_none() {
            run("ipset", "create A hash:ip");
            let output = Command::new("setpriv")
                .args(["--bounding-set=-net_admin", "--inh-caps=-net_admin", "--"])
                .arg(std::env::current_exe().unwrap())
                .args(["without_permission_everything_is_refused_at_once", "--exact"])
                .args(["--ignored", "--nocapture"])
                .env("UNPRIVILEGED", "1")
                .output()
                .expect("setpriv of util-linux");
            let printed = String::from_utf8_lossy(&output.stdout);
            assert!(printed.contains("1 passed"), "{printed}");
            return;
        }
        assert_eq!(IpsetClient::open().unwrap_err().kind(), ErrorKind::NoPermission);
        let mut conntrack = Conntrack::open().unwrap();
        let error = conntrack.flows(Family::Ipv4, Protocol::Udp).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoPermission);
    });
}

fn make_flow(arguments: &str) {
    run("conntrack", &format!("-I -t 300 {arguments}"));
}

fn texts(flows: &[Flow]) -> Vec<String> {
    flows.iter().map(ToString::to_string).collect()
}

#[test]
#[ignore = "needs a kernel with IPVS: tests/vm/run"]
fn flows_are_found_and_deleted_one_by_one() {
    in_namespace("flows_are_found_and_deleted_one_by_one", || {
        let answered = "-r 10.244.0.5 -q 10.0.0.1 --reply-port-src 5353 --reply-port-dst";
        let service = "-s 10.0.0.1 -d 10.96.0.10 --dport 53 --sport";
        make_flow(&format!("-p udp {service} 1111 {answered} 1111"));
        make_flow(&format!("-p udp {service} 2222 {answered} 2222"));
        make_flow(&format!("-p tcp {service} 1111 --state ESTABLISHED"));
        make_flow("-p udp -s fd00::1 -d fd00::10 --sport 1111 --dport 53");
        let mut conntrack = Conntrack::open().unwrap();
        let found = conntrack.flows(Family::Ipv4, Protocol::Udp).unwrap();
        assert!(found.complete);
        assert_eq!(
            texts(&found.flows),
            [
                "udp 10.0.0.1:1111 -> 10.96.0.10:53 (answered by 10.244.0.5:5353)",
                "udp 10.0.0.1:2222 -> 10.96.0.10:53 (answered by 10.244.0.5:5353)",
            ]
        );
        let v6 = conntrack.flows(Family::Ipv6, Protocol::Udp).unwrap().flows;
        let expected = ["udp [fd00::1]:1111 -> [fd00::10]:53 (answered by [fd00::10]:53)"];
        assert_eq!(texts(&v6), expected);
        assert_eq!(conntrack.flows(Family::Ipv4, Protocol::Tcp).unwrap().flows.len(), 1);
        assert_eq!(conntrack.flows(Family::Ipv4, Protocol::Sctp).unwrap().flows, []);

        let gone = [found.flows[0], v6[0]];
        let report = conntrack.delete(&gone);
        assert_eq!((report.sent, report.unchanged), (2, 0));
        assert!(report.is_success(), "{report:?}");
        let left = run("conntrack", "-L");
        assert_eq!(left.lines().count(), 2, "{left}");
        assert!(left.contains("sport=2222 dport=53") && left.contains("tcp"), "{left}");

        // Ended already is success.
        let report = conntrack.delete(&gone);
        assert_eq!((report.sent, report.unchanged, report.failed.len()), (2, 2, 0));
        // Nothing to delete deletes nothing.
        let report = conntrack.delete(&[]);
        assert_eq!(report.sent, 0);
        assert_eq!(run("conntrack", "-L").lines().count(), 2);
    });
}
