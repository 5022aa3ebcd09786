//! The loop over a kernel in memory that can be watched, broken and killed.

use std::sync::Arc;
use std::time::Duration;

use netlink_ipvs::{Family, RealServerKey, VirtualServerKey};
use proptest::test_runner::{Config as ProptestConfig, RngSeed};
use proxier::dataplane::{
    Answer, Dataplane, Execution, Look, Op, OpError, OpErrorKind, Outcome, Part, Plan, Query,
    State, Target,
};
use proxier::memory::Memory;
use proxier::reconcile::{Event, Reconciler, Resolver, Status, Timing};
use tokio::sync::watch;

use crate::random::{Start, World};

/// When things are due in every simulation.
pub const TIMING: Timing = Timing {
    sync_period: Duration::from_secs(30),
    min_sync_period: Duration::ZERO,
    drain_timeout: Duration::from_mins(15),
    drain_check: Duration::from_secs(5),
};

/// Few cases by default, and the same at every run, so that one that fails says something about the
/// change. `PROPTEST_CASES` asks for so many others, `PROPTEST_RNG_SEED` for certain ones.
pub fn cases(default: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok());
    let config = ProptestConfig::default();
    ProptestConfig {
        cases: asked.unwrap_or(default),
        rng_seed: match config.rng_seed {
            RngSeed::Random if asked.is_none() => RngSeed::Fixed(1),
            seed => seed,
        },
        failure_persistence: None,
        ..config
    }
}

/// Runs something in which time passes only when nothing is left to do.
///
/// # Panics
/// Without threads and file descriptors.
pub fn simulate<T>(future: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(future)
}

/// What becomes of one operation or of one look at the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It takes place.
    Done,
    /// It does not take place, and fails like this.
    Failed(OpErrorKind),
    /// It takes place, but its answer is lost, which looks like this.
    Lost(OpErrorKind),
}

/// What is decided about.
#[derive(Debug, Clone, Copy)]
pub enum Call<'a> {
    /// One operation.
    Op(&'a Op),
    /// Reading a part of the kernel.
    Read(Part),
    /// Reading real servers, to compare them or to count their connections.
    RealServers(VirtualServerKey),
}

/// Decides what becomes of a call.
pub type Decide = Box<dyn FnMut(Call<'_>) -> Fate>;

/// A kernel in memory.
pub struct Kernel {
    /// Its content.
    pub memory: Memory,
    /// What goes wrong.
    pub decide: Decide,
    /// Whether every real server has a connection.
    pub busy: bool,
    /// What it has refused by itself: the loop should have known better.
    pub refused: Vec<OpError>,
}

impl Kernel {
    /// One in which everything works and this is there.
    pub fn new(state: State) -> Self {
        let memory = Memory { state, ..Memory::new() };
        Self { memory, decide: Box::new(|_| Fate::Done), busy: false, refused: Vec::new() }
    }

    fn fails(&mut self, call: Call<'_>) -> Result<(), OpError> {
        match (self.decide)(call) {
            Fate::Done => Ok(()),
            Fate::Failed(kind) | Fate::Lost(kind) => Err(error(kind)),
        }
    }
}

fn error(kind: OpErrorKind) -> OpError {
    OpError { kind, text: "injected fault".to_owned() }
}

impl Dataplane for Kernel {
    async fn read(&mut self, query: &Query) -> Result<Answer, OpError> {
        query.part().map_or(Ok(()), |part| self.fails(Call::Read(part)))?;
        let mut answer = self.memory.read(query).await?;
        match &mut answer {
            Answer::VirtualServers(found) => {
                for (key, found) in found {
                    let part = Part::VirtualServer(*key);
                    self.fails(Call::Read(part)).unwrap_or_else(|error| *found = Err(error));
                }
            }
            Answer::RealServers(found) => {
                for (key, found) in found {
                    let call = Call::RealServers(*key);
                    self.fails(call).unwrap_or_else(|error| *found = Err(error));
                    if let (Ok(counted), true) = (found, self.busy) {
                        for (_, connections) in counted {
                            connections.active = 1;
                        }
                    }
                }
            }
            _ => {}
        }
        Ok(answer)
    }

    fn look_at_rules(&mut self, families: &[Family]) -> Look {
        let fails = |family: &Family| self.fails(Call::Read(Part::Rules(*family)));
        let results: Vec<_> = families.iter().map(fails).collect();
        let look = self.memory.look_at_rules(families);
        Box::pin(async move {
            let found = look.await.into_iter().zip(results);
            found.map(|((family, found), result)| (family, result.and(found))).collect()
        })
    }

    async fn write(&mut self, plan: &Plan) -> Outcome {
        let mut execution = Execution::new(plan);
        for (index, op) in plan.ops.iter().enumerate() {
            if !execution.may_begin(index) {
                continue;
            }
            let fate = (self.decide)(Call::Op(op));
            let done = if matches!(fate, Fate::Failed(_)) { Ok(()) } else { self.memory.run(op) };
            self.refused.extend(done.clone().err());
            let result = match fate {
                Fate::Done => done,
                Fate::Failed(kind) | Fate::Lost(kind) => done.and(Err(error(kind))),
            };
            if let Err(error) = result {
                execution.failed(index, error);
            }
        }
        execution.outcome
    }
}

/// A running loop.
pub struct Simulation {
    /// The loop.
    pub reconciler: Reconciler<Kernel>,
    /// What it says of itself.
    pub status: watch::Receiver<Arc<Status>>,
    families: Vec<Family>,
    start: Start,
}

impl Simulation {
    /// A loop that has heard nothing yet.
    pub fn idle(kernel: Kernel, world: &World) -> Self {
        let (families, start) = (world.families.clone(), world.start());
        Self { families, start, ..Self::with(kernel, world.resolver()) }
    }

    /// The same, by settings of its own.
    pub fn with(kernel: Kernel, resolver: Resolver) -> Self {
        let (reconciler, status) = Reconciler::new(kernel, resolver, TIMING);
        let families = vec![Family::Ipv4, Family::Ipv6];
        Self { reconciler, status, families, start: Start::default() }
    }

    /// A loop that has brought a kernel to what a world asks for, as far as it could.
    pub async fn settled(kernel: Kernel, world: &World) -> Self {
        let mut simulation = Self::idle(kernel, world);
        simulation.start(world).await;
        simulation
    }

    /// Hears of everything and acts for the first time.
    pub async fn start(&mut self, world: &World) {
        for event in world.events() {
            self.reconciler.take(event);
        }
        self.step().await;
    }

    /// A step, and those that an audit takes.
    async fn step(&mut self) {
        self.reconciler.step().await;
        while self.reconciler.is_auditing() {
            self.reconciler.step().await;
        }
    }

    /// Hears of changes and acts.
    pub async fn follow<'a>(&mut self, steps: impl IntoIterator<Item = &'a crate::random::Step>) {
        for step in steps {
            let event = step.event(&self.families, self.start);
            self.reconciler.take(event);
        }
        self.step().await;
    }

    /// Looks at the whole kernel and repairs it. How much was not as believed is the result.
    pub async fn audit(&mut self) -> u64 {
        let before = self.status.borrow().counters.drift;
        // Events hasten an audit once a second.
        tokio::time::advance(Duration::from_secs(1)).await;
        self.reconciler.take(Event::Disturbed);
        self.step().await;
        self.status.borrow().counters.drift - before
    }

    /// Lets so much time pass, with everything that is due in it.
    pub async fn pass(&mut self, time: Duration) {
        const TICK: Duration = Duration::from_millis(500);
        for _ in 0..time.as_millis() / TICK.as_millis() {
            tokio::time::advance(TICK).await;
            self.step().await;
        }
    }

    /// The kernel.
    pub fn kernel(&mut self) -> &mut Kernel {
        self.reconciler.dataplane()
    }

    /// The kernel's content.
    pub fn state(&mut self) -> State {
        self.kernel().memory.state.clone()
    }

    /// The operations that took place since the last time.
    pub fn done(&mut self) -> Vec<Op> {
        std::mem::take(&mut self.kernel().memory.done)
    }

    /// In what the kernel differs from what is wanted, leaving out what has to stay although
    /// nobody wants it.
    pub fn lacks(&mut self) -> Vec<Target> {
        let wanted = self.reconciler.desired().state().clone();
        let settings = self.reconciler.settings().cloned();
        let state = self.state();
        let mut differences = wanted.differences(&state);
        differences.retain(|target| match target {
            Target::VirtualServer(key) => {
                wanted.virtual_servers.contains_key(key)
                    || settings.as_ref().is_none_or(|settings| settings.owns(key))
            }
            _ => true,
        });
        differences.into_iter().collect()
    }
}

/// Every state on the way from one to another by these operations, the first one included.
///
/// # Panics
/// On an operation that the kernel would have refused.
pub fn prefixes(from: &State, ops: &[Op]) -> Vec<State> {
    let mut memory = Memory { state: from.clone(), ..Memory::new() };
    let mut states = vec![from.clone()];
    for op in ops {
        memory.run(op).expect("an operation that took place");
        states.push(memory.state.clone());
    }
    states
}

/// What is wrong with a state on the way between two.
pub fn unsafe_between(before: &State, state: &State, after: &State) -> Option<String> {
    use proxier::dataplane::sets::{Member, SetRole};
    use std::net::IpAddr;
    let served = |state: &State, address: &IpAddr| {
        state.virtual_servers.keys().any(
            |key| matches!(key, VirtualServerKey::Address { address: vip, .. } if vip == address),
        )
    };
    for address in &state.interface.addresses {
        let was = before.interface.addresses.contains(address);
        if !served(state, address) && (!was || served(before, address)) {
            return Some(format!("{address} is bound without a virtual server"));
        }
        let closed = SetRole::IpvsIps.of(Family::of(*address));
        if !state.has_member(closed, &Member::Ip(*address))
            && (!was || before.has_member(closed, &Member::Ip(*address)))
        {
            return Some(format!("{address} is bound but not closed"));
        }
        if !was && !state.firewall.contains_key(&Family::of(*address)) {
            return Some(format!("{address} is bound before the rules are there"));
        }
    }
    let usable = |state: &State, key: &VirtualServerKey| -> Vec<RealServerKey> {
        let known = state.virtual_servers.get(key);
        let servers = known.into_iter().flat_map(|server| server.real_servers.iter());
        servers.filter(|server| server.config.weight > 0).map(|server| server.key).collect()
    };
    for key in after.virtual_servers.keys().chain(state.virtual_servers.keys()) {
        let (old, now, new) = (usable(before, key), usable(state, key), usable(after, key));
        if !old.is_empty() && !new.is_empty() && now.is_empty() {
            return Some(format!("{key} is without real servers"));
        }
        if now.iter().any(|server| !old.contains(server) && !new.contains(server)) {
            return Some(format!("{key} leads to a server of neither before nor after"));
        }
    }
    None
}
