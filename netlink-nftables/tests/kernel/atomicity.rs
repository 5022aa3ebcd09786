//! All or nothing.

use crate::*;

#[test]
#[ignore = "needs a kernel with nftables, and permission to make a network namespace: .ci/run"]
fn one_bad_request_stops_all_and_is_named() {
    in_namespace("kernel::atomicity::one_bad_request_stops_all_and_is_named", || {
        let mut client = Client::open().unwrap();
        client.commit(&with_table(), None).unwrap();
        let before = client.generation().unwrap();

        let mut all = Transaction::new();
        all.add_chain(&key(), &Chain::new("input"));
        all.add_set(&key(), &frontend_set());
        all.add_elements(&key(), "frontends", frontends(10));
        let jump = Verdict::Jump("nowhere".into());
        let bad = all.append_rule(&key(), &Rule::new("input", [jump.into()]));
        all.append_rule(&key(), &Rule::new("input", [Verdict::Accept.into()]));
        let worse = all.flush_chain(&key(), "neither");
        let refused = client.commit(&all, None).unwrap_err();
        let named: Vec<_> =
            refused.requests().iter().map(|it| (it.index, it.what.as_str())).collect();
        let expected = [(bad, "add rule to ip test input"), (worse, "flush chain ip test neither")];
        assert_eq!(named, expected);
        assert_eq!(refused.kind(), ErrorKind::NotFound);
        assert!(!refused.is_uncertain() && !refused.is_outdated() && !refused.is_too_long());
        assert_eq!(refused.to_string(), "add rule to ip test input (and 1 more)");

        assert_eq!(client.chains(&key()).unwrap(), []);
        assert_eq!(client.sets(&key()).unwrap(), []);
        assert_eq!(client.generation().unwrap(), before);
    });
}

#[test]
#[ignore = "needs a kernel with nftables, nft, and permission to make a network namespace: .ci/run"]
fn a_transaction_for_an_older_generation_is_refused() {
    in_namespace("kernel::atomicity::a_transaction_for_an_older_generation_is_refused", || {
        let mut client = Client::open().unwrap();
        let before = client.generation().unwrap();
        client.commit(&with_table(), Some(before)).unwrap();
        let known = client.generation().unwrap();
        assert_ne!(known, before);
        nft(&["add table ip other"]);
        let mut all = Transaction::new();
        all.delete_table(&key());
        let refused = client.commit(&all, Some(known)).unwrap_err();
        assert!(refused.is_outdated(), "{:?}", refused.failure());
        assert_eq!(refused.requests(), []);
        assert!(client.table(&key()).unwrap().is_some());
        let now = client.generation().unwrap();
        client.commit(&all, Some(now)).unwrap();
        assert_eq!(client.table(&key()).unwrap(), None);
        assert_eq!(client.commit(&Transaction::new(), Some(before)), Ok(()), "nothing is sent");
    });
}

/// Only in the first user namespace a process may have a send buffer as long as needed.
#[test]
#[ignore = "needs root and a kernel with nftables: .ci/run"]
fn a_hundred_thousand_elements_are_one_transaction() {
    let test = "kernel::atomicity::a_hundred_thousand_elements_are_one_transaction";
    own_namespace::in_namespace(test, &[], || {
        let mut client = Client::open().unwrap();
        let mut all = with_table();
        all.add_set(&key(), &frontend_set());
        all.add_elements(&key(), "frontends", frontends(100_000));
        let before = client.generation().unwrap();
        client.commit(&all, Some(before)).unwrap();
        assert!(elements(&mut client, "frontends").into_iter().eq(frontends(100_000)));

        // One element that is not there, far behind in a transaction as long.
        all.clear();
        let requests = all.delete_elements(&key(), "frontends", frontends(100_001));
        let refused = client.commit(&all, None).unwrap_err();
        let named: Vec<_> = refused.requests().iter().map(|it| it.index).collect();
        assert_eq!(named, [requests.end - 1]);
        assert_eq!(refused.kind(), ErrorKind::NotFound);
        assert_eq!(client.elements(&key(), "frontends").unwrap().len(), 100_000);
        all.clear();
        all.delete_elements(&key(), "frontends", frontends(100_000));
        client.commit(&all, None).unwrap();
        assert_eq!(client.elements(&key(), "frontends").unwrap(), []);
    });
}

#[test]
#[ignore = "needs a kernel with nftables, and permission to make a network namespace: .ci/run"]
fn what_may_not_be_sent_at_once_is_said_to_be_too_long() {
    in_namespace("kernel::atomicity::what_may_not_be_sent_at_once_is_said_to_be_too_long", || {
        let mut client = Client::open().unwrap();
        // Older kernels do not show it in a network namespace.
        let most = std::fs::read_to_string("/proc/sys/net/core/wmem_max");
        let most: usize = most.map_or(4 << 20, |text| text.trim().parse().unwrap());
        let mut all = with_table();
        all.add_set(&key(), &frontend_set());
        while all.bytes().len() <= 2 * most {
            all.add_elements(&key(), "frontends", frontends(10_000));
        }
        let refused = client.commit(&all, None).unwrap_err();
        assert!(refused.is_too_long(), "{:?}", refused.failure());
        assert!(!refused.is_uncertain());
        assert_eq!(client.table(&key()).unwrap(), None);

        all.clear();
        all.add_table(&Table::new(key()));
        let long = all.flush_set(&key(), &"x".repeat(70_000));
        let refused = client.commit(&all, None).unwrap_err();
        assert!(refused.is_too_long());
        assert_eq!(refused.requests()[0].index, long);
    });
}

#[test]
#[ignore = "needs a kernel with nftables, and permission to make a network namespace: .ci/run"]
fn refusals_that_do_not_fit_the_receive_buffer_are_refusals_all_the_same() {
    let test =
        "kernel::atomicity::refusals_that_do_not_fit_the_receive_buffer_are_refusals_all_the_same";
    in_namespace(test, || {
        let mut client = Client::open().unwrap();
        let mut all = Transaction::new();
        for _ in 0..10_000 {
            all.flush_set(&key(), "x");
        }
        let refused = client.commit(&all, None).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NotFound, "{:?}", refused.failure());
        assert_eq!(refused.requests()[0].index, 0);
        // The connection is good for more.
        client.commit(&with_table(), None).unwrap();
        assert!(client.table(&key()).unwrap().is_some());
    });
}

#[test]
#[ignore = "needs a kernel with nftables, nft, and permission to make a network namespace: .ci/run"]
fn what_others_deleted_and_what_is_full_is_refused() {
    in_namespace("kernel::atomicity::what_others_deleted_and_what_is_full_is_refused", || {
        let mut client = Client::open().unwrap();
        let mut all = with_table();
        all.add_set(&key(), &Set { size: Some(3), ..frontend_set() });
        all.add_elements(&key(), "frontends", frontends(3));
        client.commit(&all, None).unwrap();

        let mut more = Transaction::new();
        more.add_elements(&key(), "frontends", frontends(4));
        let refused = client.commit(&more, None).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Full, "{:?}", refused.failure());
        assert_eq!(elements(&mut client, "frontends").len(), 3);

        let mut again = Transaction::new();
        again.create_elements(&key(), "frontends", frontends(1));
        assert_eq!(client.commit(&again, None).unwrap_err().kind(), ErrorKind::Exists);
        again.clear();
        again.add_elements(&key(), "frontends", frontends(3));
        client.commit(&again, None).unwrap();

        nft(&["delete set ip test frontends"]);
        assert_eq!(client.commit(&again, None).unwrap_err().kind(), ErrorKind::NotFound);
        nft(&["delete table ip test"]);
        assert_eq!(client.commit(&again, None).unwrap_err().kind(), ErrorKind::NotFound);
    });
}

#[test]
#[ignore = "needs a kernel with nftables, and permission to make a network namespace: .ci/run"]
fn what_is_not_there_is_destroyed_all_the_same() {
    in_namespace("kernel::atomicity::what_is_not_there_is_destroyed_all_the_same", || {
        let mut client = Client::open().unwrap();
        let mut all = Transaction::new();
        all.destroy_table(&key());
        all.remove_table(&key());
        all.add_table(&Table::new(key()));
        all.destroy_chain(&key(), "chain");
        all.destroy_set(&key(), "set");
        all.add_set(&key(), &frontend_set());
        all.add_elements(&key(), "frontends", frontends(2));
        all.destroy_elements(&key(), "frontends", frontends(1));
        all.destroy_elements(&key(), "frontends", frontends(1));
        all.add_chain(&key(), &Chain::new("chain"));
        all.destroy_rule(&key(), "chain", 77);
        match client.commit(&all, None) {
            Ok(()) => {
                assert!(elements(&mut client, "frontends").into_iter().eq(frontends(2).skip(1)));
            }
            // Before Linux 6.3.
            Err(refused) => {
                assert_eq!(refused.kind(), ErrorKind::Invalid);
                assert_eq!(refused.requests().len(), 6);
                assert!(refused.requests().iter().all(|it| it.what.starts_with("delete")));
                let mut idiom = Transaction::new();
                idiom.remove_table(&key());
                client.commit(&idiom, None).unwrap();
            }
        }
    });
}

#[test]
#[ignore = "needs a kernel with nftables, and permission to make a network namespace: .ci/run"]
fn rules_go_where_they_are_put() {
    in_namespace("kernel::atomicity::rules_go_where_they_are_put", || {
        let mut client = Client::open().unwrap();
        let rule =
            |name: &str| Rule { comment: Some(name.into()), ..Rule::new("chain", [Expr::Counter]) };
        let mut all = with_table();
        all.add_chain(&key(), &Chain::new("chain"));
        all.append_rule(&key(), &rule("b"));
        all.append_rule(&key(), &rule("e"));
        all.insert_rule(&key(), &rule("a"));
        client.commit(&all, None).unwrap();
        let handles = |client: &mut Client| -> Vec<(String, u64)> {
            let rules = client.rules(&key(), Some("chain")).unwrap();
            rules.into_iter().map(|it| (it.object.comment.unwrap(), it.handle)).collect()
        };
        let found = handles(&mut client);
        all.clear();
        all.append_rule_after(&key(), found[1].1, &rule("c"));
        all.insert_rule_before(&key(), found[2].1, &rule("d"));
        all.replace_rule(&key(), found[2].1, &rule("f"));
        client.commit(&all, None).unwrap();
        let found = handles(&mut client);
        let names: String = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, "abcdf");
        all.clear();
        all.delete_rule(&key(), "chain", found[0].1);
        client.commit(&all, None).unwrap();
        assert_eq!(handles(&mut client), found[1..]);
        all.clear();
        all.flush_chain(&key(), "chain");
        client.commit(&all, None).unwrap();
        assert_eq!(handles(&mut client), []);
    });
}
