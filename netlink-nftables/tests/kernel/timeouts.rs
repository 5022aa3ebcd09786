//! How long elements stay.

use std::time::Duration;

use crate::*;

const MARKS: &str = "marks";
const SHORT: Duration = Duration::from_secs(1_000);
const LONG: Duration = Duration::from_secs(9_000);

/// The timeout of the only element, and whether more than the short one is left of it.
fn found(client: &mut Client) -> (Option<Duration>, bool) {
    let list = client.elements(&key(), MARKS).unwrap();
    let [entry] = list.as_slice() else { panic!("{list:?}") };
    assert_eq!(entry.element.data, Some(Value::mark(7).into()));
    (entry.element.timeout, entry.expires_in.unwrap() > SHORT)
}

fn has_renewals() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(12))
}

#[test]
#[ignore = "needs a kernel with nftables, and permission to make a network namespace: .ci/run"]
fn an_element_is_renewed_by_deleting_and_adding_it() {
    in_namespace("kernel::timeouts::an_element_is_renewed_by_deleting_and_adding_it", || {
        let mut client = Client::open().unwrap();
        let mut all = with_table();
        let data = Some(MapData::Value(vec![DataType::Mark]));
        let flags = SetFlags::TIMEOUT;
        all.add_set(&key(), &Set { name: MARKS.into(), data, flags, ..frontend_set() });
        let element = |timeout| {
            let frontend = frontends(1).next().unwrap();
            frontend.with_data(Value::mark(7)).with_timeout(timeout)
        };
        all.add_elements(&key(), MARKS, [element(SHORT)]);
        client.commit(&all, None).unwrap();
        assert_eq!(found(&mut client), (Some(SHORT), false));

        let mut again = Transaction::new();
        again.add_elements(&key(), MARKS, [element(LONG)]);
        client.commit(&again, None).unwrap();
        let renewed = (Some(LONG), true);
        let expected = if has_renewals() { renewed } else { (Some(SHORT), false) };
        assert_eq!(found(&mut client), expected);

        again.clear();
        again.delete_elements(&key(), MARKS, [element(SHORT)]);
        again.add_elements(&key(), MARKS, [element(LONG)]);
        client.commit(&again, None).unwrap();
        assert_eq!(found(&mut client), renewed);

        again.clear();
        again.add_elements(&key(), MARKS, [element(LONG).with_data(Value::mark(8))]);
        let refused = client.commit(&again, None).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Exists, "{:?}", refused.failure());
    });
}
