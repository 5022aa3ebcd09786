//! What is read back, by this crate and by `nft`.

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

use crate::arbitrary::{world, World};
use crate::*;

#[test]
#[ignore = "needs a kernel with nftables, and permission to make a network namespace: .ci/run"]
fn random_tables_are_read_back_as_they_were_written() {
    in_namespace("kernel::lists::random_tables_are_read_back_as_they_were_written", || {
        let mut client = Client::open().unwrap();
        // The same cases at every run.
        let mut runner = TestRunner::deterministic();
        for _ in 0..200 {
            let world = world().new_tree(&mut runner).unwrap().current();
            written_and_read(&mut client, &world);
        }
    });
}

fn written_and_read(client: &mut Client, world: &World) {
    let key = &world.table.key;
    let mut all = Transaction::new();
    all.remove_table(key);
    all.add_table(&world.table);
    for chain in &world.chains {
        all.add_chain(key, chain);
    }
    for (set, elements) in &world.sets {
        all.add_set(key, set);
        all.add_elements(key, &set.name, elements);
    }
    for rule in &world.rules {
        all.append_rule(key, rule);
    }
    if let Err(refused) = client.commit(&all, None) {
        panic!("{refused}: {:?}\n{world:#?}", refused.requests());
    }
    assert_eq!(client.table(key).unwrap().unwrap().table, world.table);
    let chains = client.chains(key).unwrap();
    let chains: BTreeSet<_> = chains.into_iter().map(|entry| entry.object).collect();
    assert_eq!(chains, world.chains.iter().cloned().collect());
    let sets = client.sets(key).unwrap();
    let sets: BTreeSet<_> = sets.into_iter().map(|entry| entry.object).collect();
    assert_eq!(sets, world.sets.iter().map(|(set, _)| set.clone()).collect());
    for (set, expected) in &world.sets {
        let list = client.elements(key, &set.name).unwrap();
        for ElementEntry { element, expires_in } in &list {
            let timeout = element.timeout.or(set.timeout).filter(|_| !element.interval_end);
            assert_eq!(expires_in.is_some(), timeout.is_some(), "{element:?} of {set:?}");
            assert!(*expires_in <= timeout, "{expires_in:?} of {timeout:?}");
        }
        let found: BTreeSet<_> = list.into_iter().map(|entry| entry.element).collect();
        assert_eq!(&found, expected, "{set:?}");
    }
    let rules = client.rules(key, None).unwrap();
    assert!(rules.iter().map(|entry| &entry.object).eq(&world.rules), "{rules:#?}\n{world:#?}");
    let handles: BTreeSet<_> = rules.iter().map(|entry| entry.handle).collect();
    assert_eq!(handles.len(), rules.len());
}

#[test]
#[ignore = "needs a kernel with nftables, nft, and permission to make a network namespace: .ci/run"]
fn nft_prints_what_was_written_as_what_nft_wrote() {
    in_namespace("kernel::lists::nft_prints_what_was_written_as_what_nft_wrote", || {
        let mut client = Client::open().unwrap();
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/");
        for (name, family, model) in [
            ("ipv4", "ip", golden::model::ipv4()),
            ("ipv6", "ip6", golden::model::ipv6()),
            ("inet", "inet", golden::model::inet()),
        ] {
            let list = || {
                let plain = nft(&["list", "table", family, "golden"]);
                let json = nft(&["-j", "list", "table", family, "golden"]);
                // Handles go on counting, and what is left of a timeout goes down.
                [plain, json].map(|text| without_numbers(&text))
            };
            nft(&["-f", &format!("{folder}{name}.nft")]);
            let theirs = list();
            nft(&["delete", "table", family, "golden"]);
            client.commit(&model, None).unwrap();
            let ours = list();
            assert_eq!(ours[0], theirs[0]);
            assert_eq!(ours[1], theirs[1]);
            assert!(ours[0].contains("chain closed") || family == "ip6", "{}", ours[0]);
        }
    });
}

fn without_numbers(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((at, word)) = ["\"handle\": ", "expires ", "\"expires\": "]
        .iter()
        .filter_map(|word| Some((rest.find(word)?, word)))
        .min()
    {
        let (before, after) = rest.split_at(at + word.len());
        out.push_str(before);
        rest = after.trim_start_matches(|letter: char| letter.is_ascii_alphanumeric());
    }
    out + rest
}

#[test]
#[ignore = "needs a kernel with nftables, and permission to make a network namespace: .ci/run"]
fn lists_are_of_one_table_and_one_family() {
    in_namespace("kernel::lists::lists_are_of_one_table_and_one_family", || {
        let mut client = Client::open().unwrap();
        assert_eq!(client.table(&key()).unwrap(), None);
        assert_eq!(client.chains(&key()).unwrap(), []);
        assert_eq!(client.rules(&key(), None).unwrap(), []);
        assert_eq!(client.sets(&key()).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(client.elements(&key(), "a").unwrap_err().kind(), ErrorKind::NotFound);

        let others = [
            TableKey::new(Family::Ipv4, "other"),
            TableKey::new(Family::Ipv6, "test"),
            TableKey::new(Family::Inet, "test"),
        ];
        let mut all = Transaction::new();
        for (index, of) in others.iter().chain([&key()]).enumerate() {
            all.add_table(&Table::new(of.clone()));
            all.add_chain(of, &Chain::new(format!("chain{index}")));
            all.add_set(of, &Set::new(format!("set{index}"), [DataType::Mark]));
            let accept = Expr::Verdict(Verdict::Accept);
            all.append_rule(of, &Rule::new(format!("chain{index}"), [accept]));
        }
        client.commit(&all, None).unwrap();
        assert_eq!(client.tables(None).unwrap().len(), 4);
        assert_eq!(client.tables(Some(Family::Ipv4)).unwrap().len(), 2);
        let names: Vec<_> =
            client.chains(&key()).unwrap().into_iter().map(|it| it.object.name).collect();
        assert_eq!(names, ["chain3"]);
        let names: Vec<_> =
            client.sets(&key()).unwrap().into_iter().map(|it| it.object.name).collect();
        assert_eq!(names, ["set3"]);
        let names: Vec<_> =
            client.rules(&key(), None).unwrap().into_iter().map(|it| it.object.chain).collect();
        assert_eq!(names, ["chain3"]);
        assert_eq!(client.rules(&key(), Some("chain0")).unwrap(), []);
        assert_eq!(client.elements(&key(), "set3").unwrap(), []);
    });
}

#[test]
#[ignore = "needs a kernel with nftables, nft, and permission to make a network namespace: .ci/run"]
fn rules_of_others_are_read_and_can_be_written_again() {
    in_namespace("kernel::lists::rules_of_others_are_read_and_can_be_written_again", || {
        let mut client = Client::open().unwrap();
        nft(&["table ip test {
            counter every { }
            set seen { type ipv4_addr . mark; flags dynamic,timeout; timeout 1m; size 100; }
            set any { typeof meta length; elements = { 3 } }
            map objects { type ipv4_addr : counter; }
            chain inbound { type filter hook input priority 10; policy drop;
                update @seen { ip saddr . meta mark limit rate 10/second } counter packets 1 bytes 2
                limit rate 5/minute log prefix \"x\" group 2
                tcp dport { 22, 80-90 } accept
                meta mark set numgen random mod 3 map { 0: 1, 1: 2, 2: 3 }
                ip dscp set cs1
                ct mark set meta mark << 2
                counter name every
            }
        }"]);
        let rules = client.rules(&key(), Some("inbound")).unwrap();
        assert_eq!(rules.len(), 7);
        let unknown = |expr: &&Expr| matches!(expr, Expr::Unknown { .. });
        let count = rules.iter().flat_map(|rule| &rule.object.expressions).filter(unknown).count();
        assert!(count > 6, "{rules:#?}");
        let sets = client.sets(&key()).unwrap();
        assert_eq!(sets.len(), 5, "two of them are of rules");
        let before = nft(&["list", "chain", "ip", "test", "inbound"]);
        // Sets of single rules go with their rules, and so do not come back: without those rules.
        let mut all = Transaction::new();
        all.flush_chain(&key(), "inbound");
        let anonymous =
            |expr: &Expr| matches!(expr, Expr::Lookup { set, .. } if set.starts_with("__"));
        let kept = rules.iter().filter(|rule| !rule.object.expressions.iter().any(anonymous));
        for rule in kept {
            all.append_rule(&key(), &rule.object);
        }
        client.commit(&all, None).unwrap();
        let written = client.rules(&key(), Some("inbound")).unwrap();
        assert_eq!(written.len(), 5);
        let after = nft(&["list", "chain", "ip", "test", "inbound"]);
        let of_sets = |line: &&str| line.contains("{ 22") || line.contains("numgen");
        let expected: Vec<_> = before.lines().filter(|line| !of_sets(line)).collect();
        assert_eq!(
            after.replace("packets 0 bytes 0", "packets 1 bytes 2").lines().collect::<Vec<_>>(),
            expected
        );
    });
}
