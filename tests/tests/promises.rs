//! What the loop promises when things fail, over sets of failures: operations and reads that fail
//! once, several times or for ever, or whose answer is lost, in random worlds with random changes.
//!
//! `PROPTEST_CASES=10000 cargo test -p proxier-tests --test promises` is the full form.

use std::collections::BTreeSet;
use std::time::Duration;

use netlink_ipvs::{Family, RealServerKey, VirtualServerKey};
use proptest::collection::vec;
use proptest::prelude::*;
use proxier::dataplane::sets::SetRole;
use proxier::dataplane::{State, Subject, Target};
use proxier_tests::injector::{Failures, Injector, failures, inexcusable, served_by};
use proxier_tests::packets::{Sketch, interfaces, packet, sources};
use proxier_tests::random::{Step, World, history, world};
use proxier_tests::simulated::{Kernel, Simulation, cases, prefixes, simulate};
use proxier_tests::trace::{Machine, Outcome, Packet, Source, expected};
use tokio::sync::mpsc;

/// No back-off is longer.
const LONGEST: Duration = Duration::from_secs(30);

/// A world in which nothing is excluded, and changes to it taken a few at a time.
fn changing() -> impl Strategy<Value = (World, Vec<Vec<Step>>)> {
    (world(), vec(history(1..4), 1..4)).prop_map(|(mut world, mut changes)| {
        world.options.exclude_cidrs.clear();
        for step in changes.iter_mut().flatten() {
            if let Step::Options(options) = step {
                options.exclude_cidrs.clear();
            }
        }
        (world, changes)
    })
}

/// A loop over a kernel in which things fail, before its first step.
fn broken(failures: Failures, world: &World) -> (Simulation, Injector) {
    let injector = Injector::new(failures);
    let mut kernel = Kernel::new(State::default());
    injector.inject(&mut kernel);
    (Simulation::idle(kernel, world), injector)
}

proptest! {
    #![proptest_config(cases(64))]

    /// (a) After one step everything is right that does not need what failed; and (d) once nothing
    /// fails any more, everything is right within one back-off.
    #[test]
    fn what_does_not_need_what_failed_is_right(
        (mut world, changes) in changing(),
        failures in failures(),
    ) {
        simulate(async {
            let (mut simulation, injector) = broken(failures, &world);
            simulation.start(&world).await;
            for steps in std::iter::once(&Vec::new()).chain(&changes) {
                for step in steps { world.take(step); }
                if !steps.is_empty() {
                    simulation.follow(steps).await;
                }
                // Whether a set of another make is there for the rules, only trying tells.
                let mut refused = simulation.kernel().refused.iter();
                let vain = refused.find(|error| !error.text.contains("firewall rules: set"));
                prop_assert!(vain.is_none(), "tried in vain: {vain:?}");
                let lacks = simulation.lacks();
                let wrong = inexcusable(&lacks, &injector.failing());
                prop_assert!(wrong.is_empty(), "{wrong:?} while {:?} fail", injector.failing());
                // Some things fail again before the next change, others are not tried.
                simulation.pass(Duration::from_secs(1)).await;
            }
            injector.heal();
            simulation.pass(LONGEST).await;
            prop_assert_eq!(simulation.lacks(), []);
            let status = simulation.status.borrow().clone();
            prop_assert!(status.synced, "{:?} {:?}", status.errors, status.held_back);
            prop_assert_eq!(simulation.audit().await, 0, "believed what is not so");
            Ok(())
        })?;
    }

    /// (b) At no moment does a packet pass that the objects forbid, nor is a Service that has
    /// endpoints before and after a change without one in between.
    #[test]
    fn nothing_forbidden_passes_and_nobody_is_without_endpoints(
        (mut world, changes) in changing(),
        failures in failures(),
        packets in vec(packet(), 16),
    ) {
        simulate(async {
            let (mut simulation, injector) = broken(failures, &world);
            let mut before = (world.clone(), State::default(), State::default());
            for steps in std::iter::once(&Vec::new()).chain(&changes) {
                for step in steps { world.take(step); }
                if steps.is_empty() {
                    simulation.start(&world).await;
                } else {
                    simulation.follow(steps).await;
                }
                simulation.pass(Duration::from_secs(2)).await;
                let ops = simulation.done();
                let desired = simulation.reconciler.desired().state().clone();
                let moment = Moment {
                    before: &before.0,
                    after: &world,
                    wanted: (&before.1, &desired),
                    failing: injector.failing(),
                };
                let states = prefixes(&before.2, &ops);
                let last = states.len() - 1;
                let mut served = BTreeSet::new();
                for (at, state) in states.iter().enumerate() {
                    served.extend(with_endpoints(state));
                    if let Some(wrong) = moment.wrong(state, &served, &packets, at == last) {
                        prop_assert!(false, "{wrong}, after {at} of {ops:#?}");
                    }
                }
                before = (world.clone(), desired, simulation.state());
            }
            Ok(())
        })?;
    }
}

/// One change, with what was so before and after it.
struct Moment<'a> {
    before: &'a World,
    after: &'a World,
    wanted: (&'a State, &'a State),
    failing: BTreeSet<Subject>,
}

impl Moment<'_> {
    /// What is wrong with a state on the way, or at its end, given which virtual servers had
    /// endpoints until then.
    fn wrong(
        &self,
        state: &State,
        served: &BTreeSet<VirtualServerKey>,
        packets: &[Sketch],
        is_last: bool,
    ) -> Option<String> {
        for key in served {
            let (old, new) = (usable(self.wanted.0, key), usable(self.wanted.1, key));
            let lost = !old.is_empty() && !new.is_empty() && usable(state, key).is_empty();
            if lost && !self.may_be_closed(key) && !self.own(key) {
                return Some(format!("{key} is without real servers"));
            }
        }
        if self.before.host != self.after.host {
            return None;
        }
        let now = Machine::new(self.after.backend, state, &self.after.host, interfaces(self.after));
        let drawn = packets.iter().map(|sketch| sketch.of(self.after));
        drawn.chain(self.to_protected()).find_map(|packet| {
            let allowed = |world: &World| expected(world, interfaces(world), &packet);
            let (old, new) = (allowed(self.before), allowed(self.after));
            let forbidden =
                new == Outcome::Dropped && (is_last || !matches!(old, Outcome::Forwarded(_)));
            let key = VirtualServerKey::new(packet.destination, packet.port, packet.protocol);
            let passes = matches!(now.walk(&packet), Outcome::Forwarded(_));
            let wrong = forbidden && passes && !self.own(&key) && !now.is_martian(&packet);
            wrong.then(|| format!("{} passes", said(&packet)))
        })
    }

    /// Packets of everybody to what has source ranges.
    fn to_protected(&self) -> impl Iterator<Item = Packet> {
        let sets = self.wanted.1.sets.iter().filter(|(set, _)| set.role == SetRole::LoadBalancerFw);
        let members = sets.flat_map(|(_, state)| state.members.iter());
        members.filter_map(served_by).flat_map(|key| {
            let VirtualServerKey::Address { address, port, protocol } = key else {
                return Vec::new();
            };
            let packet = |source| Packet { source, destination: address, port, protocol };
            sources(Family::of(address)).into_iter().map(packet).collect()
        })
    }

    /// Whether something that protects a virtual server fails: then it has no real servers.
    fn may_be_closed(&self, key: &VirtualServerKey) -> bool {
        self.failing.iter().any(|subject| match subject {
            Subject::Target(Target::Member(_, member)) => served_by(member) == Some(*key),
            Subject::Target(Target::Firewall(family)) => *family == key.family(),
            Subject::Target(Target::Set(set)) => set.family == key.family(),
            Subject::Target(_) => false,
            Subject::Part(_) => true,
        })
    }

    /// Whether it is the virtual server itself, or one of its real servers, that fails.
    fn own(&self, key: &VirtualServerKey) -> bool {
        self.failing.iter().any(|subject| match subject {
            Subject::Target(target) => target.virtual_server() == Some(*key),
            Subject::Part(part) => *part == Target::VirtualServer(*key).part(),
        })
    }
}

fn with_endpoints(state: &State) -> impl Iterator<Item = VirtualServerKey> {
    let keys = state.virtual_servers.keys().copied();
    keys.filter(|key| !usable(state, key).is_empty())
}

fn usable(state: &State, key: &VirtualServerKey) -> Vec<RealServerKey> {
    let servers = state.virtual_servers.get(key).into_iter();
    let servers = servers.flat_map(|server| server.real_servers.iter());
    servers.filter(|server| server.config.weight > 0).map(|server| server.key).collect()
}

fn said(packet: &Packet) -> String {
    let from = match packet.source {
        Source::Node => "the node".to_owned(),
        source => format!("{source:?}"),
    };
    format!("a packet of {from} to {}:{}/{}", packet.destination, packet.port, packet.protocol)
}

proptest! {
    #![proptest_config(cases(4))]

    /// (c) However often something fails, and whatever else happens, it is not tried more often in
    /// an hour than the back-off allows, and the loop does not spin.
    #[test]
    fn tries_stay_within_the_back_off(
        (world, changes) in changing(),
        failures in failures(),
    ) {
        simulate(async {
            let (simulation, injector) = broken(failures, &world);
            let Simulation { reconciler, status, .. } = simulation;
            let (sender, receiver) = mpsc::channel(100);
            let all: Vec<&Step> = changes.iter().flatten().collect();
            let news = async {
                for event in world.events() {
                    let _ = sender.send(event).await;
                }
                for round in 0_u64..360 {
                    // The same few changes over and over, and others that disturb.
                    let event = match all.get(round as usize % (all.len() + 1)) {
                        Some(step) => step.event(&world.families, world.start()),
                        None => proxier::reconcile::Event::Disturbed,
                    };
                    let _ = sender.send(event).await;
                    tokio::time::sleep(Duration::from_secs(10)).await;
                }
                drop(sender);
            };
            tokio::join!(reconciler.run(receiver), news);
            // At once and again, after 0.5, 1, 2, 4, 8, 16 s, every 30 s, and once earlier.
            let bound = 2 + 6 + 3600 / 30 + 1;
            if let Some((subject, tries)) = injector.most_tries() {
                prop_assert!(tries <= bound, "{subject} was tried {tries} times");
            }
            let steps = status.borrow().counters.steps;
            prop_assert!(steps < 20_000, "{steps} steps in an hour");
            Ok(())
        })?;
    }
}
