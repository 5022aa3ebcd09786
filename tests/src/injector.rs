//! Sets of failures: which operations and reads fail, how, and for how long; and what may depend on
//! them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;

use netlink_ipvs::{Family, VirtualServerKey};
use proptest::prelude::*;
use proptest::sample::select;
use proxier::dataplane::sets::{Member, SetRole};
use proxier::dataplane::{OpErrorKind, Part, Subject, Target};

use crate::simulated::{Call, Fate, Kernel};

/// A set of failures. Which subjects it hits depends on the subject and on nothing else, so that the
/// set is the same however the loop goes about its work.
#[derive(Debug, Clone, Copy)]
pub struct Failures {
    seed: u64,
    /// Of a hundred subjects, how many fail.
    share: u64,
    /// How often each of them fails before it works; nothing is for ever.
    times: Option<u32>,
    /// How an operation fails.
    fate: Fate,
    /// Reads fail too.
    reads: bool,
}

/// Any set of failures.
pub fn failures() -> impl Strategy<Value = Failures> {
    let fates = [
        Fate::Failed(OpErrorKind::Failed),
        Fate::Failed(OpErrorKind::Unknown),
        Fate::Lost(OpErrorKind::Unknown),
    ];
    let times = select(vec![Some(1), Some(2), Some(5), None]);
    let share = select(vec![2, 10, 30, 100]);
    (any::<u64>(), share, times, select(fates.to_vec()), any::<bool>())
        .prop_map(|(seed, share, times, fate, reads)| Failures { seed, share, times, fate, reads })
}

/// What has failed so far.
#[derive(Debug, Default)]
struct Record {
    healed: bool,
    tries: BTreeMap<Subject, u32>,
    /// Subjects whose last try failed.
    failing: BTreeSet<Subject>,
}

/// Lets operations and reads of a kernel fail, and keeps count.
#[derive(Debug, Clone)]
pub struct Injector {
    failures: Failures,
    record: Rc<RefCell<Record>>,
}

impl Injector {
    /// One that has not been used.
    pub fn new(failures: Failures) -> Self {
        Self { failures, record: Rc::default() }
    }

    /// Sits between the loop and its kernel.
    pub fn inject(&self, kernel: &mut Kernel) {
        let injector = self.clone();
        kernel.decide = Box::new(move |call| injector.decide(call));
    }

    /// Nothing fails any more.
    pub fn heal(&self) {
        self.record.borrow_mut().healed = true;
    }

    /// The subjects whose last try failed.
    pub fn failing(&self) -> BTreeSet<Subject> {
        self.record.borrow().failing.clone()
    }

    /// The subject that was tried in vain most often, and how often.
    pub fn most_tries(&self) -> Option<(Subject, u32)> {
        let record = self.record.borrow();
        record
            .tries
            .iter()
            .map(|(subject, tries)| (*subject, *tries))
            .max_by_key(|(_, tries)| *tries)
    }

    fn decide(&self, call: Call<'_>) -> Fate {
        let (subject, fate) = match call {
            Call::Op(op) => (Subject::Target(op.target()), self.failures.fate),
            Call::Read(part) => (Subject::Part(part), Fate::Failed(OpErrorKind::Failed)),
            Call::RealServers(key) => {
                (Subject::Part(Part::VirtualServer(key)), Fate::Failed(OpErrorKind::Failed))
            }
        };
        let mut record = self.record.borrow_mut();
        let tries = record.tries.get(&subject).copied().unwrap_or_default();
        let over = self.failures.times.is_some_and(|times| tries >= times);
        if record.healed || over || !self.hits(&subject) {
            record.failing.remove(&subject);
            return Fate::Done;
        }
        record.tries.insert(subject, tries + 1);
        record.failing.insert(subject);
        fate
    }

    fn hits(&self, subject: &Subject) -> bool {
        let mut hasher = DefaultHasher::new();
        (self.failures.seed, subject).hash(&mut hasher);
        let reads = self.failures.reads || matches!(subject, Subject::Target(_));
        reads && hasher.finish() % 100 < self.failures.share
    }
}

/// Those of `lacking` that do not need any of what fails, directly or by way of each other: they
/// should be right.
pub fn inexcusable(lacking: &[Target], failing: &BTreeSet<Subject>) -> Vec<Target> {
    let mut excused: BTreeSet<Target> = failing
        .iter()
        .filter_map(|subject| match subject {
            Subject::Target(target) => Some(*target),
            Subject::Part(_) => None,
        })
        .collect();
    let unread = |target: &Target| {
        let of = target.part();
        let listed = matches!(of, Part::VirtualServer(_)).then_some(Part::VirtualServers);
        listed.into_iter().chain([of]).any(|part| failing.contains(&Subject::Part(part)))
    };
    // What nobody could read lacks nothing that is known of, but others may wait for it.
    let parts = failing.iter().filter_map(|subject| match subject {
        Subject::Part(part) => Some(*part),
        Subject::Target(_) => None,
    });
    let parts: BTreeSet<Part> = parts.collect();
    let mut left: Vec<Target> = lacking.to_vec();
    loop {
        let before = left.len();
        left.retain(|target| {
            let own = excused.iter().any(|other| {
                let within = target.virtual_server().is_some()
                    && target.virtual_server() == other.virtual_server();
                target == other || within || needs(target, other)
            });
            let excuse = own || unread(target) || parts.iter().any(|part| waits_for(target, *part));
            if excuse {
                excused.insert(*target);
            }
            !excuse
        });
        if left.len() == before {
            return left;
        }
    }
}

/// Whether a target may have to wait until a part is read.
fn waits_for(target: &Target, part: Part) -> bool {
    match (target, part) {
        (Target::Address(ip), Part::Rules(family)) => Family::of(*ip) == family,
        (Target::VirtualServer(key), Part::Rules(family)) => key.family() == family,
        (Target::Address(ip), Part::VirtualServer(key)) => address(&key) == Some(*ip),
        (Target::Address(ip), Part::Set(set)) => {
            set.role == SetRole::IpvsIps && set.family == Family::of(*ip)
        }
        (Target::VirtualServer(key), Part::Set(set)) => {
            SOURCE_RANGES.contains(&set.role) && set.family == key.family()
        }
        (Target::Member(set, Member::Ip(_)), Part::Interface) => set.role == SetRole::IpvsIps,
        (Target::Member(set, _), Part::VirtualServers) => set.role == SetRole::LoadBalancerFw,
        (Target::Member(set, member), Part::VirtualServer(key)) => {
            set.role == SetRole::LoadBalancerFw && served_by(member) == Some(key)
        }
        (Target::Firewall(family), Part::VirtualServer(key)) => key.family() == *family,
        (Target::Address(_) | Target::Firewall(_), Part::VirtualServers) => true,
        _ => false,
    }
}

const SOURCE_RANGES: [SetRole; 3] =
    [SetRole::LoadBalancerFw, SetRole::LoadBalancerSourceCidr, SetRole::LoadBalancerSourceIp];

fn address(key: &VirtualServerKey) -> Option<std::net::IpAddr> {
    match key {
        VirtualServerKey::Address { address, .. } => Some(*address),
        VirtualServerKey::FirewallMark { .. } => None,
    }
}

/// The virtual server that a member of a set of source ranges is about.
pub fn served_by(member: &Member) -> Option<VirtualServerKey> {
    match *member {
        Member::IpPort(address, protocol, port)
        | Member::IpPortIp(address, protocol, port, _)
        | Member::IpPortNet(address, protocol, port, _)
        | Member::Marked(address, protocol, port, _) => {
            Some(VirtualServerKey::new(address, port, protocol))
        }
        Member::Ip(_) | Member::Port(_) => None,
    }
}

/// Whether a target may have to wait for another one, by the documents: fail closed, and make
/// before break.
pub fn needs(target: &Target, other: &Target) -> bool {
    match (target, other) {
        // Nothing is bound without the rules, and what they keep the node from has no real servers.
        (Target::Address(ip), Target::Firewall(family)) => Family::of(*ip) == *family,
        (Target::VirtualServer(key), Target::Firewall(family))
        | (Target::Firewall(family), Target::VirtualServer(key)) => key.family() == *family,
        // What closes an address stays as long as that does.
        (Target::Address(ip), Target::Member(set, Member::Ip(closed)))
        | (Target::Member(set, Member::Ip(closed)), Target::Address(ip)) => {
            set.role == SetRole::IpvsIps && ip == closed
        }
        (Target::Address(ip), Target::VirtualServer(key)) => address(key) == Some(*ip),
        (Target::VirtualServer(key), Target::Member(set, member)) => {
            SOURCE_RANGES.contains(&set.role) && served_by(member) == Some(*key)
        }
        (Target::Member(set, member), Target::VirtualServer(key)) => {
            set.role == SetRole::LoadBalancerFw && served_by(member) == Some(*key)
        }
        // Rules and members need their sets.
        (Target::Firewall(family), Target::Set(set)) => set.family == *family,
        (Target::Member(of, _), Target::Set(set)) => of == set,
        _ => false,
    }
}
