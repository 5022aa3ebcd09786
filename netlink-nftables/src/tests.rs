//! What must hold for every table: what is written is read.

use netlink_batch::netfilter::{self, Header};
use netlink_batch::{messages, Attributes};
use proptest::prelude::*;

use crate::arbitrary::{world, World};
use crate::wire::{cmd, set};
use crate::{decode, Family, Transaction};

/// Hands the command and the attributes of each request to `each`.
fn read(transaction: &Transaction, mut each: impl FnMut(u8, Family, Attributes<'_>)) {
    for message in messages(transaction.bytes()) {
        let message = message.unwrap();
        let header = Header::of(&message).unwrap();
        let family = Family::from_number(header.family).unwrap();
        each(header.command, family, netfilter::attributes(&message).unwrap());
    }
}

fn written(world: &World) -> Transaction {
    let key = &world.table.key;
    let mut all = Transaction::new();
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
    all
}

proptest! {
    #[test]
    fn what_is_written_is_read(world in world()) {
        let (mut chains, mut sets, mut elements, mut rules) = (vec![], vec![], vec![], vec![]);
        read(&written(&world), |command, family, of| match command {
            cmd::NEW_TABLE => {
                assert_eq!(decode::table(family, of).unwrap().table, world.table);
            }
            cmd::NEW_CHAIN => chains.push(decode::chain(of).unwrap().object),
            cmd::NEW_SET => sets.push(decode::set(of).unwrap().object),
            cmd::NEW_SETELEM => {
                decode::elements(of, |entry| elements.push(entry.element)).unwrap();
            }
            cmd::NEW_RULE => rules.push(decode::rule(of).unwrap().object),
            other => panic!("{other}"),
        });
        prop_assert_eq!(chains, world.chains);
        prop_assert!(sets.iter().eq(world.sets.iter().map(|(set, _)| set)));
        prop_assert!(elements.iter().eq(world.sets.iter().flat_map(|(_, elements)| elements)));
        prop_assert_eq!(rules, world.rules);
    }

    #[test]
    fn cut_and_damaged_requests_never_panic(
        world in world(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = written(&world).bytes().to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        crate::fuzz::nftables(&bytes);
        crate::fuzz::nftables(&bytes[..at]);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        crate::fuzz::nftables(&bytes);
    }
}

#[test]
fn types_that_do_not_make_up_a_key_are_kept_as_they_are() {
    use crate::{DataType, Set, TableKey};
    let other = DataType::Other { number: 5 << 6 | 7, length: 8 };
    let wrong_length = DataType::Other { number: DataType::Mark.number(), length: 8 };
    for key in [other, wrong_length] {
        let mut all = Transaction::new();
        all.add_set(&TableKey::new(Family::Ipv4, "t"), &Set::new("s", [key]));
        read(&all, |_, _, of| {
            assert_eq!(of.find(set::KEY_LEN).unwrap().unwrap().be32(), Ok(8));
            assert_eq!(decode::set(of).unwrap().object.key, [key]);
        });
    }
}
