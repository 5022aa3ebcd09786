//! One table of nftables for each family, over netlink: no program is started.
//!
//! What stands together in a plan is one transaction, applied whole or not at all. The kernel
//! refuses a transaction for any request in it, and names all that it refuses: it is sent again
//! without them.
//!
//! Every transaction of anybody makes the ruleset another generation. As long as only ours did, what
//! was read or written is still so, and nothing is read.

mod known;
mod left;
mod requests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use netlink_batch::{Error, ErrorKind};
use netlink_ipvs::Family;
use netlink_nftables::{Client, ElementEntry, Refused};

use self::known::Known;
use self::left::Left;
use self::requests::Requests;
use super::{Failures, Found};
use crate::dataplane::firewall::Ruleset;
use crate::dataplane::sets::{ForeignMember, SetId};
use crate::dataplane::{Look, Op, OpError, OpErrorKind, Part, RulesState, SetState};
use crate::kernel::firewall::Firewall;
use crate::kernel::write::lost_answer;
use crate::kernel::{failed, op_error};
use crate::nftables::{self, Need};

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
    /// Raised where the kernel tells that somebody else has changed something.
    doubt: Doubt,
    known: Known,
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
        let mut known = Known::default();
        known.ask(&mut client, true).map_err(|error| match error.kind() {
            // What a kernel answers that does not know the subsystem.
            ErrorKind::Invalid | ErrorKind::Unsupported => Error::with_source(
                ErrorKind::Unsupported,
                "the kernel has no nftables (module nf_tables)",
                error,
            ),
            _ => error,
        })?;
        let left = Left::new(firewall)?;
        let port =
            client.port().map_err(|error| Error::failed("ask for our netlink port", error))?;
        let doubt = Doubt::of_port(port);
        Ok(Self { client, left, doubt, known })
    }

    /// Finds out whether the kernel has everything that the table of a family needs, and makes it load
    /// its modules: then that takes no time of what comes later.
    ///
    /// # Errors
    /// Names what it lacks.
    pub fn serves(&mut self, family: Family) -> Result<(), Error> {
        for need in Need::ALL {
            let (question, wanted) = need.question(family);
            let Err(refused) = self.client.commit(&question, None) else { continue };
            if refused.requests().is_empty() {
                return Err(Error::failed("ask what nftables has", refused.failure().clone()));
            }
            let lacks = refused.requests().iter().find(|request| request.index < wanted);
            if let Some(request) = lacks {
                let lacks = format!("the kernel lacks {}: {}", need.module(family), request.what);
                return Err(Error::failed(lacks, request.refusal.clone()));
            }
        }
        Ok(())
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
        self.known.ask(&mut self.client, doubted).map_err(|error| failed(&error))
    }

    /// What a set holds.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn set(&mut self, set: SetId) -> Result<Found, OpError> {
        self.ask()?;
        let part = Part::Set(set);
        if self.known.has(part) {
            return Ok(Found::Unchanged);
        }
        let found = self.read_set(set).map_err(|error| failed(&error))?;
        self.known.add(part);
        Ok(Found::State(found))
    }

    /// A set. One of another shape is none: it cannot hold what is wanted.
    fn read_set(&mut self, set: SetId) -> Result<Option<SetState>, Error> {
        let (table, wanted) = (nftables::table(set.family), nftables::new_set(set));
        if !self.known.sets(&mut self.client, set.family)?.contains(&wanted) {
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
        let left = self.left.look(families, self.known.forgotten());
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
        if self.known.has(Part::Rules(family)) {
            return Ok(self.known.rules(family).cloned());
        }
        let rules = self.read_rules(family)?;
        self.known.set_rules(family, rules.clone());
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
        let sets = self.known.sets(&mut self.client, family).map_err(|error| failed(&error))?;
        Ok(nftables::understand(family, sets, &chains, &rules, refused.collect()))
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
            self.known.forget();
        }
        failures
    }

    fn commit(&mut self, ops: &[&Op]) -> Failures {
        let mut requests = Requests::new(ops);
        for _ in 0..ATTEMPTS {
            let transaction = match requests.transaction(&mut self.client, &mut self.known) {
                Ok(transaction) => transaction,
                Err(error) => return requests.all_failed(&failed(&error)),
            };
            // Whatever is left needs no request.
            if transaction.is_empty() {
                return requests.failures();
            }
            match self.client.commit(&transaction, Some(self.known.generation())) {
                Ok(()) => {
                    self.known.committed(&mut self.client, requests.done());
                    return requests.failures();
                }
                // Somebody else was faster: what has been read may no longer be so.
                Err(refused) if refused.is_outdated() => {
                    self.known.forget();
                    if let Err(error) = self.known.ask(&mut self.client, true) {
                        return requests.all_failed(&failed(&error));
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
