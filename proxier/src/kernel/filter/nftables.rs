//! One table of nftables for each family, over netlink: no program is started.
//!
//! What stands together in a plan is one transaction, applied whole or not at all. The kernel
//! refuses a transaction for any request in it, and names all that it refuses: it is sent again
//! without them.
//!
//! Every transaction of anybody makes the ruleset another generation. As long as only ours did, what
//! was read or written is still so, and nothing is read.

mod left;
mod requests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use netlink_batch::{Error, ErrorKind};
use netlink_ipvs::Family;
use netlink_nftables::{Client, ElementEntry, Refused, Table, TableKey, Transaction};

use self::left::Left;
use self::requests::Requests;
use super::{Failures, Found};
use crate::dataplane::firewall::Ruleset;
use crate::dataplane::sets::{ForeignMember, SetId};
use crate::dataplane::{Look, Op, OpError, OpErrorKind, Part, RulesState, SetState};
use crate::kernel::firewall::Firewall;
use crate::kernel::write::lost_answer;
use crate::kernel::{failed, op_error};
use crate::nftables;

/// What the kernel said of its generation counts for so long, unless there is reason to doubt it: an
/// audit asks for all sets at once.
const FRESH: Duration = Duration::from_secs(1);

/// So often a transaction is sent again without what was refused in it.
const ATTEMPTS: usize = 8;

/// Reason to ask the kernel for its generation again, shared with who listens to it.
#[derive(Debug, Clone)]
pub struct Doubt {
    port: u32,
    raised: Arc<AtomicBool>,
}

impl Doubt {
    /// Where our own changes are of this netlink port.
    pub(crate) fn of_port(port: u32) -> Self {
        Self { port, raised: Arc::default() }
    }

    /// Whether changes of this netlink port are our own.
    pub fn is_own(&self, port: u32) -> bool {
        port == self.port
    }

    /// Somebody may have changed something.
    pub fn raise(&self) {
        self.raised.store(true, Ordering::Release);
    }
}

/// Rules and sets in tables of our own.
#[derive(Debug)]
pub struct Nftables {
    client: Client,
    /// What others than nftables have left.
    left: Left,
    /// The generation up to which all changes are known.
    generation: u32,
    /// When the kernel last said that it has no other one.
    asked: Option<Instant>,
    /// Raised where the kernel tells that somebody else has changed something.
    doubt: Doubt,
    /// What has been read or written since somebody else has changed something.
    known: BTreeSet<Part>,
    /// The rules that were read or written last.
    rules: BTreeMap<Family, Option<Ruleset>>,
}

impl Nftables {
    /// Opens a connection and changes nothing. The programs of iptables, where they are, show and
    /// remove what other backends have left.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] if the kernel has no nftables, [`ErrorKind::NoPermission`]
    /// without `CAP_NET_ADMIN`.
    pub fn open(firewall: Option<Firewall>) -> Result<Self, Error> {
        let mut client = Client::open()?;
        let generation = client.generation().map_err(|error| match error.kind() {
            // What a kernel answers that does not know the subsystem.
            ErrorKind::Invalid | ErrorKind::Unsupported => Error::with_source(
                ErrorKind::Unsupported,
                "the kernel has no nftables (module nf_tables)",
                error,
            ),
            _ => error,
        })?;
        // There are kernels with nftables, but not for these families.
        for family in [Family::Ipv4, Family::Ipv6] {
            probe(&mut client, family)?;
        }
        let left = Left::new(firewall)?;
        let port =
            client.port().map_err(|error| Error::failed("ask for our netlink port", error))?;
        let doubt = Doubt::of_port(port);
        Ok(Self {
            client,
            left,
            generation,
            asked: None,
            doubt,
            known: BTreeSet::new(),
            rules: BTreeMap::new(),
        })
    }

    /// By what others say that somebody has changed something.
    pub fn doubt(&self) -> Doubt {
        self.doubt.clone()
    }

    pub(super) fn processes_started(&self) -> u64 {
        self.left.processes_started()
    }

    /// Finds out whether others have changed something.
    fn ask(&mut self) -> Result<(), OpError> {
        let doubted = self.doubt.raised.swap(false, Ordering::AcqRel);
        if !doubted && self.asked.is_some_and(|asked| asked.elapsed() < FRESH) {
            return Ok(());
        }
        let generation = self.client.generation().map_err(|error| failed(&error))?;
        if generation != self.generation {
            self.known.clear();
            self.generation = generation;
        }
        self.asked = Some(Instant::now());
        Ok(())
    }

    /// What a set holds.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn set(&mut self, set: SetId) -> Result<Found, OpError> {
        self.ask()?;
        let part = Part::Set(set);
        if self.known.contains(&part) {
            return Ok(Found::Unchanged);
        }
        let found = self.read_set(set).map_err(|error| failed(&error))?;
        self.known.insert(part);
        Ok(Found::State(found))
    }

    /// A set. One of another shape is none: it cannot hold what is wanted.
    fn read_set(&mut self, set: SetId) -> Result<Option<SetState>, Error> {
        let (table, wanted) = (nftables::table(set.family), nftables::new_set(set));
        let there = requests::sets(&mut self.client, &table)?;
        if !there.contains(&wanted) {
            return Ok(None);
        }
        match self.client.elements(&table, &wanted.name) {
            Ok(elements) => Ok(Some(state(set, &elements))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads the rules, and looks for what others have left.
    pub fn look(&mut self, families: &[Family]) -> Look {
        let rules: BTreeMap<_, _> =
            families.iter().map(|family| (*family, self.rules(*family))).collect();
        let left = self.left.look(families);
        Box::pin(async move {
            let left = left.await;
            let found = left.into_iter().map(|(family, leftovers)| {
                let rules = rules.get(&family).cloned().unwrap_or(Ok(None));
                let both = rules.and_then(|rules| Ok((rules, leftovers?)));
                (family, both.map(|(rules, leftovers)| RulesState { rules, leftovers }))
            });
            found.collect()
        })
    }

    fn rules(&mut self, family: Family) -> Result<Option<Ruleset>, OpError> {
        self.ask()?;
        if self.known.contains(&Part::Rules(family)) {
            return Ok(self.rules.get(&family).cloned().flatten());
        }
        let rules = self.read_rules(family)?;
        self.rules.insert(family, rules.clone());
        self.known.insert(Part::Rules(family));
        Ok(rules)
    }

    fn read_rules(&mut self, family: Family) -> Result<Option<Ruleset>, OpError> {
        let table = nftables::table(family);
        let read = |client: &mut Client| -> Result<_, Error> {
            let new = nftables::new_table(family);
            // Chains of a dormant table see no packets.
            if client.table(&table)?.is_none_or(|there| there.table.flags != new.flags) {
                return Ok(None);
            }
            let chains = client.chains(&table)?;
            if chains.is_empty() {
                return Ok(None);
            }
            let rules = client.rules(&table, None)?;
            let refused = match client.elements(&table, nftables::REFUSED) {
                Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
                found => found?,
            };
            Ok(Some((chains, rules, refused)))
        };
        let Some((chains, rules, refused)) =
            read(&mut self.client).map_err(|error| failed(&error))?
        else {
            return Ok(None);
        };
        let chains: Vec<_> = chains.into_iter().map(|entry| entry.object).collect();
        let rules: Vec<_> = rules.into_iter().map(|entry| entry.object).collect();
        let refused = refused.iter().map(|entry| nftables::refused(family, &entry.element));
        Ok(nftables::understand(family, &chains, &rules, refused.collect()))
    }

    /// Carries out operations on rules, sets and members as one transaction, or removes leftovers.
    /// The result are those that failed, by their place, in ascending order.
    pub fn execute(&mut self, ops: &[&Op]) -> Failures {
        if let Some(Op::RemoveLeftover(_)) = ops.first() {
            return self.left.remove(ops);
        }
        let failures = self.commit(ops);
        if !failures.is_empty() {
            // What the kernel has is not what was believed: everything is read when it is asked for.
            self.known.clear();
        }
        failures
    }

    fn commit(&mut self, ops: &[&Op]) -> Failures {
        let mut requests = Requests::new(ops);
        for _ in 0..ATTEMPTS {
            let transaction = match requests.transaction(&mut self.client) {
                Ok(transaction) => transaction,
                Err(error) => return requests.all_failed(&failed(&error)),
            };
            // Whatever is left needs no request.
            if transaction.is_empty() {
                return requests.failures();
            }
            match self.client.commit(&transaction, Some(self.generation)) {
                Ok(()) => {
                    self.committed(requests.done());
                    return requests.failures();
                }
                // Somebody else was faster: what has been read may no longer be so.
                Err(refused) if refused.is_outdated() => {
                    self.known.clear();
                    match self.client.generation() {
                        Ok(generation) => self.generation = generation,
                        Err(error) => return requests.all_failed(&failed(&error)),
                    }
                }
                // The socket may not send as much at once: in two parts, each whole or not at all.
                Err(refused) if refused.is_too_long() && ops.len() > 1 => {
                    let (first, second) = ops.split_at(ops.len() / 2);
                    let mut failures = self.commit(first);
                    let others = self.commit(second).into_iter();
                    failures.extend(others.map(|(at, error)| (at + first.len(), error)));
                    return failures;
                }
                Err(refused) if refused.requests().is_empty() => {
                    return requests.all_failed(&not_sent(&refused));
                }
                Err(refused) => requests.refused(&refused),
            }
        }
        requests.all_failed(&OpError {
            kind: OpErrorKind::Failed,
            text: "the kernel refused it together with others".to_owned(),
        })
    }

    /// A transaction took place. It made another generation, unless it has changed nothing: then the
    /// kernel passes over it. Any other one is somebody else's.
    fn committed<'a>(&mut self, ops: impl Iterator<Item = &'a Op>) {
        let Ok(generation) = self.client.generation() else {
            self.known.clear();
            return;
        };
        // The kernel passes over 0.
        let next = self.generation.checked_add(1).unwrap_or(1);
        let own = generation == self.generation || generation == next;
        self.generation = generation;
        if !own {
            self.known.clear();
            return;
        }
        for op in ops {
            match op {
                Op::CreateSet(set, _) => _ = self.known.insert(Part::Set(*set)),
                Op::InstallFirewall(family, rules) => {
                    self.known.insert(Part::Rules(*family));
                    self.rules.insert(*family, Some(rules.clone()));
                }
                _ => {}
            }
        }
    }
}

/// Whether tables of a family can be made: asked by a transaction that is refused in any case, since it
/// also deletes a table that is not there.
fn probe(client: &mut Client, family: Family) -> Result<(), Error> {
    let mut transaction = Transaction::new();
    let of = |name: &str| TableKey { name: name.to_owned(), ..nftables::table(family) };
    let wanted = transaction.add_table(&Table::new(of("proxier-probe")));
    transaction.delete_table(&of("proxier-probe-of-none"));
    let Err(refused) = client.commit(&transaction, None) else { return Ok(()) };
    match refused.requests().iter().find(|request| request.index == wanted) {
        Some(request) => {
            let operation = format!("{}: the kernel has no nftables for {family}", request.what);
            Err(Error::failed(operation, request.refusal.clone()))
        }
        None => Ok(()),
    }
}

fn not_sent(refused: &Refused) -> OpError {
    if refused.is_uncertain() { lost_answer() } else { op_error(OpErrorKind::Failed, refused) }
}

fn state(set: SetId, elements: &[ElementEntry]) -> SetState {
    let mut out = SetState { capacity: SetState::UNLIMITED, ..SetState::default() };
    for entry in elements {
        if let Some(member) = nftables::member(set, &entry.element) {
            out.members.insert(member);
            continue;
        }
        let attributes = requests::pack(&entry.element);
        let text = nftables::foreign_text(&entry.element);
        out.foreign.insert(ForeignMember { attributes, text: text.into() });
    }
    out
}
