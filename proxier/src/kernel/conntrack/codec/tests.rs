use proptest::prelude::*;

use super::*;
use crate::kernel::captures::{self, HEADERS, body};

const GOLDEN: &str = include_str!("golden.txt");

fn captured(command: &str, direction: char) -> Vec<Vec<u8>> {
    captures::captured(GOLDEN, command, direction)
}

fn direction(source: &str, destination: &str) -> Direction {
    Direction { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
}

fn listed(command: &str) -> Vec<Flow> {
    let messages = captured(command, '<');
    messages.iter().filter_map(|message| decode_flow(body(message)).unwrap()).collect()
}

/// The attributes of a message whose numbers are in `kinds`, as they stand there.
fn part(message: &[u8], kinds: &[u16]) -> Vec<(u16, Vec<u8>)> {
    body(message)
        .into_iter()
        .map(Result::unwrap)
        .filter(|attribute| kinds.contains(&attribute.kind))
        .map(|attribute| (attribute.kind, attribute.value.to_vec()))
        .collect()
}

#[test]
fn reads_what_the_kernel_lists() {
    let flows = listed("conntrack -L");
    let dns = &flows[0];
    assert_eq!(dns.protocol, Protocol::Udp);
    assert_eq!(dns.original, direction("10.0.0.1:1111", "10.96.0.10:53"));
    assert_eq!(dns.reply, direction("10.244.0.5:5353", "10.0.0.1:1111"));
    assert!(dns.id.is_some());
    let text = "udp 10.0.0.1:1111 -> 10.96.0.10:53 (answered by 10.244.0.5:5353)";
    assert_eq!(dns.to_string(), text);
    assert!(flows.iter().any(|flow| flow.protocol == Protocol::Tcp));

    let flows = listed("conntrack -L -f ipv6");
    assert_eq!(flows.len(), 1);
    assert_eq!(flows[0].original, direction("[fd00::1]:2222", "[fd00::10]:53"));
    assert_eq!(flows[0].reply, direction("[fd00::10]:53", "[fd00::1]:2222"));
}

/// `conntrack -D` sends all that it knows about a flow; the parts that name it are these.
#[test]
fn deletes_as_conntrack_does() {
    for (list, delete) in [
        ("conntrack -L", "conntrack -D -p udp --sport 1111"),
        ("conntrack -L -f ipv6", "conntrack -D -p udp -f ipv6"),
    ] {
        let theirs = captured(delete, '>').pop().unwrap();
        let mut batch = Batch::default();
        encode_delete(&mut batch, &listed(list)[0]);
        let ours = batch.bytes();
        assert_eq!(ours[4..6], theirs[4..6], "the command");
        assert_eq!(ours[16..HEADERS][1..], theirs[16..HEADERS][1..]);
        let tuples = [attr::ORIGINAL, attr::REPLY];
        assert_eq!(part(ours, &tuples), part(&theirs, &tuples));
    }
}

#[test]
fn a_deletion_always_names_its_flow() {
    let mut flow = listed("conntrack -L")[0];
    flow.zone = Some(5);
    flow.original_zone = Some(7);
    let mut batch = Batch::default();
    encode_delete(&mut batch, &flow);
    assert_eq!(part(batch.bytes(), &[attr::ORIGINAL]).len(), 1);
    assert_eq!(part(batch.bytes(), &[attr::ID]).len(), 1);
    // What was listed, zones and number included, is what is deleted.
    assert_eq!(decode_flow(body(batch.bytes())).unwrap(), Some(flow));
}

#[test]
fn a_list_is_asked_for_as_conntrack_does() {
    let theirs = captured("conntrack -L -f ipv6", '>').remove(0);
    let mut batch = Batch::default();
    encode_list(&mut batch, Family::Ipv6, None);
    assert_eq!(batch.bytes()[..6], theirs[..6]);
    assert_eq!(batch.bytes()[16..], theirs[16..]);
}

fn any_flow() -> impl Strategy<Value = Flow> {
    let v4 = any::<[u8; 16]>().prop_map(|bytes| {
        [0, 4, 8, 12]
            .map(|at| IpAddr::from([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]))
    });
    let v6 = any::<[[u8; 16]; 4]>().prop_map(|addresses| addresses.map(IpAddr::from));
    let protocol = prop::sample::select(vec![Protocol::Tcp, Protocol::Udp, Protocol::Sctp]);
    let rest = (any::<Option<u16>>(), any::<Option<u16>>(), any::<Option<u32>>());
    (prop_oneof![v4, v6], any::<[u16; 4]>(), protocol, rest).prop_map(
        |(ips, ports, protocol, (zone, original_zone, id))| {
            let end = |at: usize| SocketAddr::new(ips[at], ports[at]);
            Flow {
                protocol,
                original: Direction { source: end(0), destination: end(1) },
                reply: Direction { source: end(2), destination: end(3) },
                translated: false,
                zone,
                original_zone,
                id,
            }
        },
    )
}

proptest! {
    #[test]
    fn flows_come_back_as_they_were(flow in any_flow()) {
        let mut batch = Batch::default();
        encode_delete(&mut batch, &flow);
        prop_assert_eq!(decode_flow(body(batch.bytes())).unwrap(), Some(flow));
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode_flow(Attributes(&bytes));
    }

    #[test]
    fn damaged_lists_never_panic(at in any::<prop::sample::Index>(), value in any::<u8>()) {
        for mut message in captured("conntrack -L", '<') {
            let at = HEADERS + at.index(message.len() - HEADERS);
            message[at] = value;
            let _ = decode_flow(body(&message));
        }
    }
}
