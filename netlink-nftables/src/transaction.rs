//! Changes that are made together or not at all.

use std::borrow::Borrow;
use std::ops::Range;

use netlink_batch::netfilter::{self, Header};
use netlink_batch::{messages, Batch, PutAttributes};
use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};

use crate::wire::{chain, cmd, elements, rule, set, table, LIST_ELEM, SUBSYSTEM};
use crate::{describe, encode, Chain, Element, Rule, Set, Table, TableKey};

/// Bytes of elements in one message, about: the list is one attribute, whose length has 16 bits.
const ELEMENTS: usize = 60_000;

/// Requests that the kernel carries out together or not at all.
///
/// Written as they are added; [`Client::commit`](crate::Client::commit) sends them, as often as
/// needed. A request is known by its place, from 0, which the methods return. Later requests see
/// what earlier ones did. Adding what is there already with the same properties changes nothing;
/// what is created must not be there.
#[derive(Debug, Clone, Default)]
pub struct Transaction {
    pub(crate) batch: Batch,
    /// Sets made so far: each needs a number of its own.
    sets: u32,
    /// The first request that is longer than its attributes' lengths can say.
    pub(crate) too_long: Option<usize>,
}

impl Transaction {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of requests in it.
    pub fn len(&self) -> usize {
        self.batch.len()
    }

    /// Whether it has no request.
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    /// Its requests as they are sent, in bytes: netlink messages, without those that begin and end
    /// it. All of them go into one send.
    pub fn bytes(&self) -> &[u8] {
        self.batch.bytes()
    }

    /// Empties it. Keeps its memory.
    pub fn clear(&mut self) {
        self.batch.clear();
        self.sets = 0;
        self.too_long = None;
    }

    /// What a request is, for people: `add set ip proxy pods`. `None` if it has no such request.
    pub fn describe(&self, request: usize) -> Option<String> {
        describe::message(&messages(self.batch.bytes()).nth(request)?.ok()?)
    }

    /// Adds a table.
    pub fn add_table(&mut self, table: &Table) -> usize {
        self.push(&table.key, cmd::NEW_TABLE, 0, |out| encode::table(out, table))
    }

    /// Creates a table.
    pub fn create_table(&mut self, table: &Table) -> usize {
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        self.push(&table.key, cmd::NEW_TABLE, flags, |out| encode::table(out, table))
    }

    /// Deletes a table with everything in it.
    pub fn delete_table(&mut self, key: &TableKey) -> usize {
        self.push(key, cmd::DEL_TABLE, 0, |out| out.text(table::NAME, &key.name))
    }

    /// Deletes a table with everything in it, if it is there. Needs Linux 6.3;
    /// [`remove_table`](Self::remove_table) does not.
    pub fn destroy_table(&mut self, key: &TableKey) -> usize {
        self.push(key, cmd::DESTROY_TABLE, 0, |out| out.text(table::NAME, &key.name))
    }

    /// Deletes a table with everything in it, if it is there: adds it, then deletes it. Returns the
    /// place of the second request.
    pub fn remove_table(&mut self, key: &TableKey) -> usize {
        self.add_table(&Table::new(key.clone()));
        self.delete_table(key)
    }

    /// Adds a chain. One that is there keeps its rules; of a base chain the policy changes.
    pub fn add_chain(&mut self, of: &TableKey, chain: &Chain) -> usize {
        self.push(of, cmd::NEW_CHAIN, NLM_F_CREATE, |out| encode::chain(out, of, chain))
    }

    /// Creates a chain.
    pub fn create_chain(&mut self, of: &TableKey, chain: &Chain) -> usize {
        let flags = NLM_F_CREATE | NLM_F_EXCL;
        self.push(of, cmd::NEW_CHAIN, flags, |out| encode::chain(out, of, chain))
    }

    /// Deletes a chain with its rules. No rule and no element may jump to it.
    pub fn delete_chain(&mut self, of: &TableKey, name: &str) -> usize {
        self.named(of, cmd::DEL_CHAIN, (chain::TABLE, chain::NAME), name)
    }

    /// As [`delete_chain`](Self::delete_chain), if it is there. Needs Linux 6.3.
    pub fn destroy_chain(&mut self, of: &TableKey, name: &str) -> usize {
        self.named(of, cmd::DESTROY_CHAIN, (chain::TABLE, chain::NAME), name)
    }

    /// Deletes all rules of a chain, of which there may be none.
    pub fn flush_chain(&mut self, of: &TableKey, name: &str) -> usize {
        self.named(of, cmd::DEL_RULE, (rule::TABLE, rule::CHAIN), name)
    }

    /// Adds a rule at the end of its chain.
    pub fn append_rule(&mut self, of: &TableKey, rule: &Rule) -> usize {
        self.rule(of, rule, NLM_F_APPEND, None)
    }

    /// Adds a rule at the beginning of its chain.
    pub fn insert_rule(&mut self, of: &TableKey, rule: &Rule) -> usize {
        self.rule(of, rule, 0, None)
    }

    /// Adds a rule after the one with this handle.
    pub fn append_rule_after(&mut self, of: &TableKey, handle: u64, rule: &Rule) -> usize {
        self.rule(of, rule, NLM_F_APPEND, Some(handle))
    }

    /// Adds a rule before the one with this handle.
    pub fn insert_rule_before(&mut self, of: &TableKey, handle: u64, rule: &Rule) -> usize {
        self.rule(of, rule, 0, Some(handle))
    }

    /// Puts a rule in the place of the one with this handle. It has another handle.
    pub fn replace_rule(&mut self, of: &TableKey, handle: u64, new: &Rule) -> usize {
        self.push(of, cmd::NEW_RULE, NLM_F_REPLACE, |out| {
            encode::rule(out, of, new, Some((rule::HANDLE, handle)));
        })
    }

    /// Deletes the rule with this handle.
    pub fn delete_rule(&mut self, of: &TableKey, chain: &str, handle: u64) -> usize {
        self.old_rule(of, cmd::DEL_RULE, chain, handle)
    }

    /// As [`delete_rule`](Self::delete_rule), if it is there. Needs Linux 6.3.
    pub fn destroy_rule(&mut self, of: &TableKey, chain: &str, handle: u64) -> usize {
        self.old_rule(of, cmd::DESTROY_RULE, chain, handle)
    }

    /// Adds a set or map, empty. One that is there keeps its elements.
    pub fn add_set(&mut self, of: &TableKey, set: &Set) -> usize {
        self.new_set(of, set, NLM_F_CREATE)
    }

    /// Creates a set or map, empty.
    pub fn create_set(&mut self, of: &TableKey, set: &Set) -> usize {
        self.new_set(of, set, NLM_F_CREATE | NLM_F_EXCL)
    }

    /// Deletes a set or map with its elements. No rule may use it.
    pub fn delete_set(&mut self, of: &TableKey, name: &str) -> usize {
        self.named(of, cmd::DEL_SET, (set::TABLE, set::NAME), name)
    }

    /// As [`delete_set`](Self::delete_set), if it is there. Needs Linux 6.3.
    pub fn destroy_set(&mut self, of: &TableKey, name: &str) -> usize {
        self.named(of, cmd::DESTROY_SET, (set::TABLE, set::NAME), name)
    }

    /// Deletes all elements of a set or map, of which there may be none.
    pub fn flush_set(&mut self, of: &TableKey, name: &str) -> usize {
        self.named(of, cmd::DEL_SETELEM, (elements::TABLE, elements::SET), name)
    }

    /// Adds elements to a set or map, about a thousand in a request. One that is there in a map and
    /// maps to something else is refused (`EEXIST`). Before Linux 6.12 one that is there keeps its
    /// timeout.
    pub fn add_elements<E: Borrow<Element>>(
        &mut self,
        of: &TableKey,
        set: &str,
        elements: impl IntoIterator<Item = E>,
    ) -> Range<usize> {
        self.elements(of, set, (cmd::NEW_SETELEM, NLM_F_CREATE), elements, encode::element)
    }

    /// As [`add_elements`](Self::add_elements); one that is there is refused (`EEXIST`).
    pub fn create_elements<E: Borrow<Element>>(
        &mut self,
        of: &TableKey,
        set: &str,
        elements: impl IntoIterator<Item = E>,
    ) -> Range<usize> {
        let how = (cmd::NEW_SETELEM, NLM_F_CREATE | NLM_F_EXCL);
        self.elements(of, set, how, elements, encode::element)
    }

    /// Deletes elements by their keys. One that is not there is refused (`ENOENT`).
    pub fn delete_elements<E: Borrow<Element>>(
        &mut self,
        of: &TableKey,
        set: &str,
        elements: impl IntoIterator<Item = E>,
    ) -> Range<usize> {
        self.elements(of, set, (cmd::DEL_SETELEM, 0), elements, encode::element_key)
    }

    /// Deletes elements by their keys, those that are there. Needs Linux 6.3.
    pub fn destroy_elements<E: Borrow<Element>>(
        &mut self,
        of: &TableKey,
        set: &str,
        elements: impl IntoIterator<Item = E>,
    ) -> Range<usize> {
        self.elements(of, set, (cmd::DESTROY_SETELEM, 0), elements, encode::element_key)
    }

    fn elements<E: Borrow<Element>>(
        &mut self,
        of: &TableKey,
        set: &str,
        (command, flags): (u8, u16),
        all: impl IntoIterator<Item = E>,
        encode: impl Fn(&mut Vec<u8>, &Element),
    ) -> Range<usize> {
        let first = self.len();
        let mut all = all.into_iter().peekable();
        while all.peek().is_some() {
            self.push(of, command, flags, |out| {
                out.text(elements::TABLE, &of.name);
                out.text(elements::SET, set);
                out.nested(elements::ELEMENTS, |out| {
                    let full = out.len() + ELEMENTS;
                    while out.len() < full {
                        let Some(element) = all.next() else { break };
                        out.nested(LIST_ELEM, |out| encode(out, element.borrow()));
                    }
                });
            });
        }
        first..self.len()
    }

    fn rule(&mut self, of: &TableKey, new: &Rule, flags: u16, beside: Option<u64>) -> usize {
        self.push(of, cmd::NEW_RULE, NLM_F_CREATE | flags, |out| {
            encode::rule(out, of, new, beside.map(|handle| (rule::POSITION, handle)));
        })
    }

    fn old_rule(&mut self, of: &TableKey, command: u8, chain: &str, handle: u64) -> usize {
        self.push(of, command, 0, |out| {
            out.text(rule::TABLE, &of.name);
            out.text(rule::CHAIN, chain);
            out.attribute(rule::HANDLE, &handle.to_be_bytes());
        })
    }

    fn new_set(&mut self, of: &TableKey, new: &Set, flags: u16) -> usize {
        self.sets += 1;
        let id = self.sets;
        self.push(of, cmd::NEW_SET, flags, |out| encode::set(out, of, new, id))
    }

    /// A request that consists of a table's name and another one.
    fn named(&mut self, of: &TableKey, command: u8, kinds: (u16, u16), name: &str) -> usize {
        self.push(of, command, 0, |out| {
            out.text(kinds.0, &of.name);
            out.text(kinds.1, name);
        })
    }

    fn push(
        &mut self,
        of: &TableKey,
        command: u8,
        flags: u16,
        body: impl FnOnce(&mut Vec<u8>),
    ) -> usize {
        let index = self.len();
        let header = Header { subsystem: SUBSYSTEM, command, flags, family: of.family.number() };
        let mut length = 0;
        netfilter::push(&mut self.batch, header, |out| {
            let start = out.len();
            body(out);
            length = out.len() - start;
        });
        if length > usize::from(u16::MAX) {
            self.too_long.get_or_insert(index);
        }
        index
    }
}

#[cfg(test)]
mod tests;
