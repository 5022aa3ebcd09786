//! What the kernel does with ranges that overlap.

use std::net::Ipv4Addr;

use crate::*;

fn ip(text: &str) -> Value {
    text.parse::<Ipv4Addr>().unwrap().into()
}

/// From `first` to `last`, both with the same port.
fn range(first: &str, last: &str) -> Element {
    let key = |address| Value::concatenation(&[ip(address), Value::port(80)]);
    Element::range(key(first), key(last))
}

/// Adds one after the other; which of them were refused, and with what.
fn refused(client: &mut Client, set: &str, elements: &[&Element]) -> Vec<(usize, ErrorKind)> {
    let mut refused = Vec::new();
    for (index, element) in elements.iter().enumerate() {
        let mut all = Transaction::new();
        all.add_elements(&key(), set, [*element]);
        if let Err(error) = client.commit(&all, None) {
            refused.push((index, error.kind()));
        }
    }
    refused
}

#[test]
#[ignore = "needs a kernel with nftables, and permission to make a network namespace: .ci/run"]
fn nested_ranges_of_concatenated_keys_go_in_from_narrow_to_wide() {
    let test = "kernel::intervals::nested_ranges_of_concatenated_keys_go_in_from_narrow_to_wide";
    in_namespace(test, || {
        let mut client = Client::open().unwrap();
        let types = [DataType::Ipv4Addr, DataType::InetService];
        let wide = range("10.0.0.0", "10.255.255.255");
        let narrow = range("10.1.0.0", "10.1.255.255");
        let across = range("10.250.0.0", "11.1.0.0");
        let mut all = with_table();
        for name in ["wide-first", "narrow-first", "together"] {
            all.add_set(&key(), &Set { flags: SetFlags::INTERVAL, ..Set::new(name, types) });
        }
        all.add_elements(&key(), "together", [&narrow, &wide]);
        client.commit(&all, None).unwrap();
        let both = BTreeSet::from([wide.clone(), narrow.clone()]);
        assert_eq!(elements(&mut client, "together"), both);

        let order = [&wide, &narrow, &across, &wide];
        let seen = refused(&mut client, "wide-first", &order);
        assert_eq!(seen, [(1, ErrorKind::Exists), (2, ErrorKind::Exists)]);
        assert_eq!(elements(&mut client, "wide-first"), BTreeSet::from([wide.clone()]));

        assert_eq!(refused(&mut client, "narrow-first", &[&narrow, &wide, &wide]), []);
        assert_eq!(elements(&mut client, "narrow-first"), both);
        assert_eq!(refused(&mut client, "narrow-first", &[&narrow]), []);

        let mut all = Transaction::new();
        all.delete_elements(&key(), "narrow-first", [&wide]);
        client.commit(&all, None).unwrap();
        assert_eq!(elements(&mut client, "narrow-first"), BTreeSet::from([narrow]));
    });
}
