//! What the kernel tells.

use crate::*;

fn events(monitor: &mut Monitor) -> Vec<Event> {
    let mut events = Vec::new();
    while monitor.receive(|event| events.push(event)).unwrap() {}
    events
}

#[test]
#[ignore = "needs a kernel with nftables, nft, and permission to make a network namespace: .ci/run"]
fn own_changes_and_those_of_others_are_told_apart() {
    in_namespace("kernel::monitor::own_changes_and_those_of_others_are_told_apart", || {
        let mut monitor = Monitor::open().unwrap();
        let mut client = Client::open().unwrap();
        let port = client.port().unwrap();
        assert_ne!(port, 0);
        let mut all = with_table();
        all.add_chain(&key(), &Chain::new("chain"));
        all.append_rule(&key(), &Rule::new("chain", [Verdict::Accept.into()]));
        all.add_set(&key(), &frontend_set());
        all.add_elements(&key(), "frontends", frontends(2));
        client.commit(&all, None).unwrap();

        let told = events(&mut monitor);
        let change = |object, name: Option<&str>, deleted| {
            let name = name.map(str::to_owned);
            Event::Change(Change { table: key(), object, name, deleted, port })
        };
        let frontends = Some("frontends");
        let expected = [
            change(Object::Table, None, false),
            change(Object::Chain, Some("chain"), false),
            change(Object::Rule, Some("chain"), false),
            change(Object::Set, frontends, false),
            change(Object::Elements, frontends, false),
            change(Object::Elements, frontends, false),
        ];
        let (generation, changes) = told.split_last().unwrap();
        assert_eq!(changes, expected);
        let Event::Generation(generation) = generation else { panic!("{generation:?}") };
        assert_eq!((generation.id, generation.port), (client.generation().unwrap(), port));
        let (thread, name) = generation.process.as_ref().unwrap();
        let status = std::fs::read_to_string(format!("/proc/self/task/{thread}/comm")).unwrap();
        assert_eq!(status.trim_end(), name);

        nft(&["flush ruleset"]);
        let told = events(&mut monitor);
        let (generation, changes) = told.split_last().unwrap();
        let Event::Generation(generation) = generation else { panic!("{generation:?}") };
        assert_eq!(generation.process.as_ref().unwrap().1, "nft");
        assert_ne!(generation.port, port);
        let of_table = |event: &Event| match event {
            Event::Change(change) => {
                assert_ne!(change.port, port);
                assert!(change.deleted && change.table == key(), "{change:?}");
                change.object == Object::Table
            }
            Event::Generation(_) => false,
        };
        assert_eq!(changes.iter().filter(|event| of_table(event)).count(), 1, "{changes:?}");
        assert_eq!(events(&mut monitor), []);
    });
}
