//! The seam between what is wanted and a kernel: questions, answers, and what became of a plan.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use netlink_ipvs::{Family, RealServer, VirtualServerConfig, VirtualServerKey};

use super::sets::SetId;
use super::sysctls::Sysctl;
use super::{InterfaceState, Op, Part, Plan, RulesState, SetState, Target, VirtualServerState};

/// Connections of a real server, as the kernel counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Connections {
    /// Established.
    pub active: u32,
    /// All others.
    pub inactive: u32,
}

impl Connections {
    /// Active and inactive together.
    pub fn total(self) -> u64 {
        u64::from(self.active) + u64::from(self.inactive)
    }
}

/// Why something did not work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpError {
    /// What is known of the kernel now.
    pub kind: OpErrorKind,
    /// The whole chain of causes as one text.
    pub text: String,
}

/// What a failure says about the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpErrorKind {
    /// The operation did not take place.
    Failed,
    /// It did not take place, as the kernel has not what it asks for.
    Unsupported,
    /// The answer was lost, or the kernel does not hold what was believed: only reading tells.
    Unknown,
}

/// What became of an operation that is not known to have taken place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It did not take place.
    Failed(String),
    /// It did not take place, as the kernel has not what it asks for.
    Unsupported(String),
    /// Nobody knows whether it took place, or it found something else than was believed.
    Unknown(String),
    /// It was not tried, or could not work, since this target is not as it has to be.
    HeldBack(Target),
}

/// What became of a plan.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// By their index, the operations that are not known to have taken place. All others did.
    pub missed: BTreeMap<usize, Fate>,
    /// Searches for stale flows.
    pub flows: Vec<ForgottenFlows>,
    /// How long each part of the dataplane took.
    pub took: BTreeMap<&'static str, Duration>,
}

/// One search for stale flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForgottenFlows {
    /// In the flows of this family.
    pub family: Family,
    /// Flows that were deleted.
    pub deleted: u64,
    /// How long it took.
    pub took: Duration,
}

/// Follows a plan while it is carried out: what needs something that failed is held back.
#[derive(Debug)]
pub struct Execution<'a> {
    plan: &'a Plan,
    targets: BTreeSet<Target>,
    /// What will be said of it.
    pub outcome: Outcome,
}

impl<'a> Execution<'a> {
    /// Of a plan of which nothing has been done.
    pub fn new(plan: &'a Plan) -> Self {
        Self { plan, targets: BTreeSet::new(), outcome: Outcome::default() }
    }

    /// Whether an operation may begin. One that may not is held back.
    pub fn may_begin(&mut self, index: usize) -> bool {
        let missing = self.missing(index);
        if let Some(needed) = missing {
            self.miss(index, Fate::HeldBack(needed));
        }
        missing.is_none()
    }

    /// Notes that an operation has failed. Operations are noted in their order.
    pub fn failed(&mut self, index: usize, error: OpError) {
        let fate = match (self.missing(index), error.kind) {
            (Some(needed), _) => Fate::HeldBack(needed),
            (None, OpErrorKind::Failed) => Fate::Failed(error.text),
            (None, OpErrorKind::Unsupported) => Fate::Unsupported(error.text),
            (None, OpErrorKind::Unknown) => Fate::Unknown(error.text),
        };
        self.miss(index, fate);
    }

    fn missing(&self, index: usize) -> Option<Target> {
        if self.targets.is_empty() {
            return None;
        }
        self.plan.needs.get(&index)?.missing(&self.targets)
    }

    fn miss(&mut self, index: usize, fate: Fate) {
        self.targets.extend(self.plan.ops.get(index).map(Op::target));
        self.outcome.missed.insert(index, fate);
    }
}

/// A question to the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// What these settings are.
    Sysctls(Arc<[Sysctl]>),
    /// What is on `kube-ipvs0`.
    Interface,
    /// A set with its members.
    Set(SetId),
    /// The next virtual servers of a list, without real servers. What changes while the list is
    /// read may be missing, be as it was, or come twice.
    List {
        /// Begin a list, in place of one that may be under way.
        begin: bool,
    },
    /// These virtual servers with their real servers.
    VirtualServers(Vec<VirtualServerKey>),
    /// The real servers of these virtual servers, with their connections.
    RealServers(Vec<VirtualServerKey>),
}

impl Query {
    /// The part of the kernel that it reads, if it is one.
    pub fn part(&self) -> Option<Part> {
        match self {
            Self::Sysctls(_) => Some(Part::Sysctls),
            Self::Interface => Some(Part::Interface),
            Self::Set(set) => Some(Part::Set(*set)),
            Self::List { .. } => Some(Part::VirtualServers),
            Self::VirtualServers(_) | Self::RealServers(_) => None,
        }
    }
}

/// Real servers with their connections.
pub type Counted = Vec<(RealServer, Connections)>;

/// What a virtual server was found to be; `None` is one that does not exist.
pub type FoundServer = Result<Option<Arc<VirtualServerState>>, OpError>;

/// The answer to a [`Query`], variant for variant. What can fail by itself has a result of its own.
#[derive(Debug, Clone)]
pub enum Answer {
    /// As [`State::sysctls`](super::State::sysctls).
    Sysctls(BTreeMap<&'static str, Arc<str>>),
    /// An interface that does not exist carries nothing.
    Interface(InterfaceState),
    /// The set, unless there is none.
    Set(SetId, Option<SetState>),
    /// The kernel says that nobody has changed the set since it was last read or written.
    Unchanged(SetId),
    /// Some virtual servers; none is the end of the list.
    List(Vec<(VirtualServerKey, VirtualServerConfig)>),
    /// Each that was asked for, or that there is none.
    VirtualServers(Vec<(VirtualServerKey, FoundServer)>),
    /// Of each that was asked for; a virtual server that does not exist has none.
    RealServers(Vec<(VirtualServerKey, Result<Counted, OpError>)>),
}

/// A look at the firewall rules that goes on beside everything else, with a result for each family.
pub type Look = Pin<Box<dyn Future<Output = Vec<(Family, Result<RulesState, OpError>)>> + Send>>;

/// The kernel, as the loop sees it.
pub trait Dataplane {
    /// Reads something.
    fn read(&mut self, query: &Query) -> impl Future<Output = Result<Answer, OpError>>;

    /// Begins to read the firewall rules of these families and what other modes have left. It takes
    /// a process for each family: some milliseconds, or many where others have many rules.
    fn look_at_rules(&mut self, families: &[Family]) -> Look;

    /// Carries out a plan in its order. An operation that fails stops none but those that need it.
    fn write(&mut self, plan: &Plan) -> impl Future<Output = Outcome>;
}
