//! Operations as the requests of a transaction.

use std::collections::BTreeMap;
use std::sync::Arc;

use netlink_batch::Error;
use netlink_nftables::{Chain, Client, Element, Refused, Transaction, Value};

use crate::dataplane::firewall::Ruleset;
use crate::dataplane::sets::SetId;
use crate::dataplane::{Op, OpError, OpErrorKind};
use crate::nftables;

use super::super::Failures;
use super::known::{Known, is_told_when_there};

/// Elements in a request: few enough for netlink's lengths with any key.
const TOGETHER: usize = 400;

/// Operations, and what became of them.
pub(super) struct Requests<'a> {
    ops: &'a [&'a Op],
    /// In which order they are requests. The kernel refuses a network that overlaps one of its set,
    /// so members go before others come; as all of it takes place at once, nobody misses them.
    order: Vec<usize>,
    /// Why an operation is no longer part of it.
    failed: Vec<Option<OpError>>,
    /// Whether it is not, because the member to be added is there already.
    there: Vec<bool>,
    /// Whether an operation has requests of its own, so that a refusal is about it alone.
    alone: Vec<bool>,
    /// Which operations each request is of.
    owners: Vec<Vec<usize>>,
}

impl<'a> Requests<'a> {
    pub(super) fn new(ops: &'a [&'a Op]) -> Self {
        let failed = vec![None; ops.len()];
        let (there, alone) = (vec![false; ops.len()], vec![false; ops.len()]);
        let mut order: Vec<usize> = (0..ops.len()).collect();
        order.sort_by_key(|at| match ops[*at] {
            Op::AddMember(..) => 2,
            Op::RemoveMember(..) | Op::RemoveForeignMembers(..) => 1,
            _ => 0,
        });
        Self { ops, order, failed, there, alone, owners: Vec::new() }
    }

    /// All operations that have not failed, as a transaction.
    pub(super) fn transaction(
        &mut self,
        client: &mut Client,
        known: &mut Known,
    ) -> Result<Transaction, Error> {
        let mut out = Transaction::new();
        // The families whose rules gave way to a set, and for which operation.
        let mut without_rules = BTreeMap::new();
        self.owners.clear();
        let mut at = 0;
        while at < self.order.len() {
            let several = self.together(at);
            let own = self.order[at..at + several].iter().copied();
            let own: Vec<usize> = own.filter(|at| self.is_part(*at)).collect();
            if let Some(first) = own.first() {
                match self.ops[*first] {
                    Op::CreateSet(set, _) => {
                        let gone = create_set(&mut out, client, known, *set)?;
                        without_rules.extend(gone.then(|| (set.family, own.clone())));
                    }
                    Op::InstallFirewall(family, rules) => {
                        install(&mut out, client, known, rules)?;
                        without_rules.remove(family);
                    }
                    Op::AddMember(set, _) | Op::RemoveMember(set, _) => {
                        let table = nftables::table(set.family);
                        let name = nftables::set_name(set.role);
                        let elements = own.iter().filter_map(|at| match self.ops[*at] {
                            Op::AddMember(_, member) | Op::RemoveMember(_, member) => {
                                Some(nftables::element(member))
                            }
                            _ => None,
                        });
                        if !matches!(self.ops[*first], Op::AddMember(..)) {
                            out.delete_elements(&table, name, elements);
                        } else if is_told_when_there(*set) {
                            out.create_elements(&table, name, elements);
                        } else {
                            out.add_elements(&table, name, elements);
                        }
                    }
                    // Emptied and filled at once: before Linux 6.12 an element that is there keeps its
                    // time, and one that has gone could not be deleted.
                    Op::RenewMembers(set, members) => {
                        let table = nftables::table(set.family);
                        let name = nftables::set_name(set.role);
                        out.flush_set(&table, name);
                        for some in members.chunks(TOGETHER) {
                            out.add_elements(&table, name, some.iter().map(nftables::element));
                        }
                    }
                    Op::RemoveForeignMembers(set, members) => {
                        let table = nftables::table(set.family);
                        let elements = members.iter().filter_map(|it| unpack(&it.attributes));
                        out.delete_elements(&table, nftables::set_name(set.role), elements);
                    }
                    // A set takes as many as there are.
                    _ => {}
                }
            }
            self.owners.resize(out.len(), own);
            at += several;
        }
        for (family, own) in without_rules {
            if let Some(rules) = known.rules(family).cloned() {
                install(&mut out, client, known, &rules)?;
            }
            self.owners.resize(out.len(), own);
        }
        Ok(out)
    }

    /// How many operations from this one of the order on are one request.
    fn together(&self, at: usize) -> usize {
        let kind = |at: usize| match (self.order[at], self.ops[self.order[at]]) {
            (at, Op::AddMember(set, _)) if !self.alone[at] => Some((true, *set)),
            (at, Op::RemoveMember(set, _)) if !self.alone[at] => Some((false, *set)),
            _ => None,
        };
        let Some(first) = kind(at) else { return 1 };
        let most = self.ops.len().min(at + TOGETHER);
        (at..most).take_while(|at| kind(*at) == Some(first)).count()
    }

    /// Requests were refused: their operations fail, or are tried one by one where several are in
    /// one request.
    pub(super) fn refused(&mut self, refused: &Refused) {
        for request in refused.requests() {
            let Some(own) = self.owners.get(request.index) else { continue };
            if let [only] = own.as_slice() {
                if let Op::AddMember(set, _) = self.ops[*only]
                    && is_told_when_there(*set)
                    && request.refusal.is(rustix::io::Errno::EXIST)
                {
                    self.there[*only] = true;
                    continue;
                }
                // The member, the set or the table: nobody knows what else is gone.
                let gone = request.refusal.is(rustix::io::Errno::NOENT)
                    && matches!(
                        self.ops[*only],
                        Op::AddMember(..) | Op::RemoveMember(..) | Op::RemoveForeignMembers(..)
                    );
                let kind = if gone { OpErrorKind::Unknown } else { OpErrorKind::Failed };
                let text = format!("{}: {}", request.what, request.refusal);
                self.failed[*only].get_or_insert(OpError { kind, text });
            } else {
                for at in own {
                    self.alone[*at] = true;
                }
            }
        }
    }

    /// Nothing took place.
    pub(super) fn all_failed(self, error: &OpError) -> Failures {
        let failed = self.failed.into_iter().enumerate();
        failed.map(|(at, known)| (at, known.unwrap_or_else(|| error.clone()))).collect()
    }

    /// Whether an operation is one of the transaction.
    fn is_part(&self, at: usize) -> bool {
        self.failed[at].is_none() && !self.there[at]
    }

    /// The operations that took place.
    pub(super) fn done(&self) -> impl Iterator<Item = &Op> + Clone {
        self.ops.iter().enumerate().filter(|(at, _)| self.is_part(*at)).map(|(_, op)| *op)
    }

    /// What is not part of what took place.
    pub(super) fn failures(self) -> Failures {
        let failed = self.failed.into_iter().enumerate();
        failed.filter_map(|(at, known)| Some((at, known?))).collect()
    }
}

/// A set. One of another shape in its place goes, and before it all rules, since some may refer to it. The
/// result is whether they went.
fn create_set(
    out: &mut Transaction,
    client: &mut Client,
    known: &mut Known,
    set: SetId,
) -> Result<bool, Error> {
    let (table, wanted) = (nftables::table(set.family), nftables::new_set(set));
    out.add_table(&nftables::new_table(set.family));
    let there = known.sets(client, set.family)?;
    let other = there.iter().any(|it| it.name == wanted.name && *it != wanted);
    if other {
        for chain in client.chains(&table)? {
            out.flush_chain(&table, &chain.object.name);
        }
        out.delete_set(&table, &wanted.name);
    }
    out.add_set(&table, &wanted);
    Ok(other)
}

/// The rules, whatever is there: chains and sets that are not ours, or not as they should be, go with
/// all rules of the table.
fn install(
    out: &mut Transaction,
    client: &mut Client,
    known: &mut Known,
    rules: &Ruleset,
) -> Result<(), Error> {
    let family = rules.family();
    let table = nftables::table(family);
    let wanted = nftables::chains(rules);
    let there: Vec<Chain> = client.chains(&table)?.into_iter().map(|it| it.object).collect();
    out.add_table(&nftables::new_table(family));
    for chain in &there {
        out.flush_chain(&table, &chain.name);
    }
    let refused = nftables::new_refused_set(family);
    for set in known.sets(client, family)? {
        if !nftables::is_set_of_ours(set) || (set.name == refused.name && *set != refused) {
            out.delete_set(&table, &set.name);
        }
    }
    for chain in there.iter().filter(|there| !wanted.iter().any(|(it, _)| it == *there)) {
        out.delete_chain(&table, &chain.name);
    }
    out.add_set(&table, &refused);
    out.flush_set(&table, &refused.name);
    out.add_elements(
        &table,
        &refused.name,
        rules.dropped().iter().filter_map(nftables::refused_element),
    );
    for (chain, _) in &wanted {
        out.add_chain(&table, chain);
    }
    for rule in wanted.iter().flat_map(|(_, rules)| rules) {
        out.append_rule(&table, rule);
    }
    Ok(())
}

/// An element by which it can be deleted, as bytes.
pub(super) fn pack(element: &Element) -> Arc<[u8]> {
    let key = element.key.as_bytes();
    let end = element.key_end.as_ref().map(Value::as_bytes).unwrap_or_default();
    let length = u8::try_from(key.len()).unwrap_or(u8::MAX);
    [&[length], key, end].concat().into()
}

fn unpack(bytes: &[u8]) -> Option<Element> {
    let (length, rest) = bytes.split_first()?;
    let (key, end) = rest.split_at_checked(usize::from(*length))?;
    Some(match end {
        [] => Element::new(Value::new(key)),
        end => Element::range(Value::new(key), Value::new(end)),
    })
}
