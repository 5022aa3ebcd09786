//! What fails stops nothing else, and nothing is lost: the loop over a kernel in which operations
//! fail, answers get lost, looks fail, and which survives its daemon at any point of a plan.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use netlink_ipvs::VirtualServerKey;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proxier::dataplane::{Op, OpErrorKind, State, Target};
use proxier_tests::injector::needs;
use proxier_tests::random::{Step, World, history, world};
use proxier_tests::simulated::{
    Call, Fate, Kernel, Simulation, TIMING, cases, prefixes, simulate, unsafe_between,
};

fn kernel() -> Kernel {
    Kernel::new(State::default())
}

fn kind() -> impl Strategy<Value = OpErrorKind> {
    select(vec![OpErrorKind::Failed, OpErrorKind::Unknown])
}

/// It does not take place, or takes place and nobody hears of it.
fn fault() -> impl Strategy<Value = Fate> {
    prop_oneof![
        2 => kind().prop_map(Fate::Failed),
        1 => kind().prop_map(Fate::Lost),
    ]
}

/// A world, and changes to it taken a few at a time.
fn changing() -> impl Strategy<Value = (World, Vec<Vec<Step>>)> {
    (world(), vec(history(1..4), 1..4))
}

/// Long enough for a retry that was put off as far as can be, and for an audit.
const HEALED: Duration = TIMING.sync_period.saturating_mul(3);

/// That the kernel is as wanted, that this is known, and that a rebuilt one is the same.
async fn is_right(simulation: &mut Simulation, world: &World) -> Result<(), TestCaseError> {
    simulation.pass(HEALED).await;
    prop_assert_eq!(simulation.lacks(), []);
    let status = simulation.status.borrow().clone();
    prop_assert!(status.synced, "{:?}", status.errors);
    simulation.done();
    prop_assert_eq!(simulation.audit().await, 0);
    prop_assert_eq!(simulation.done(), []);
    let fresh = Simulation::settled(kernel(), world).await;
    prop_assert_eq!(simulation.reconciler.desired().state(), fresh.reconciler.desired().state());
    Ok(())
}

proptest! {
    #![proptest_config(cases(24))]

    /// Every operation of a whole history, one in a run: all others take place, and it does when
    /// it is tried again.
    #[test]
    fn each_operation_fails_once((world, changes) in changing(), at in any::<Index>(), fault in fault()) {
        simulate(async {
            let calls = Rc::new(Cell::new(0));
            let count = Rc::clone(&calls);
            let mut counted = kernel();
            counted.decide = Box::new(move |_| { count.set(count.get() + 1); Fate::Done });
            run(counted, &world, &changes).await;

            let (mut left, mut broken) = (at.index(calls.get().max(1)), kernel());
            broken.decide = Box::new(move |_| {
                let hit = left == 0;
                left = left.wrapping_sub(1);
                if hit { fault } else { Fate::Done }
            });
            let (mut simulation, world) = run(broken, &world, &changes).await;
            is_right(&mut simulation, &world).await
        })?;
    }

    /// Any of them, again and again, until it heals.
    #[test]
    fn operations_fail_at_random(
        (world, changes) in changing(),
        faults in vec(proptest::option::weighted(0.3, fault()), 1..200),
    ) {
        simulate(async {
            let (sick, mut at) = (Rc::new(Cell::new(true)), 0);
            let (ill, faults, mut broken) = (Rc::clone(&sick), faults.clone(), kernel());
            broken.decide = Box::new(move |_| {
                at += 1;
                let fault = faults[at % faults.len()].filter(|_| ill.get());
                fault.unwrap_or(Fate::Done)
            });
            let (mut simulation, world) = run(broken, &world, &changes).await;
            simulation.pass(Duration::from_secs(20)).await;
            sick.set(false);
            is_right(&mut simulation, &world).await
        })?;
    }

    /// One thing for good: everything else is as it should be.
    #[test]
    fn one_target_fails_for_good((world, changes) in changing(), at in any::<Index>(), kind in kind()) {
        simulate(async {
            let mut last = world.clone();
            changes.iter().flatten().for_each(|step| last.take(step));
            let fresh = Simulation::settled(kernel(), &last).await;
            // Without a set neither its members nor the rules can be.
            let alone = |target: &Target| !matches!(target, Target::Set(_));
            let targets: Vec<Target> =
                fresh.reconciler.desired().state().targets().filter(alone).collect();
            let bad = *at.get(&targets);

            let sick = Rc::new(Cell::new(true));
            let (ill, mut broken) = (Rc::clone(&sick), kernel());
            broken.decide = Box::new(move |call| match call {
                Call::Op(op) if ill.get() && op.target() == bad => Fate::Failed(kind),
                _ => Fate::Done,
            });
            let (mut simulation, world) = run(broken, &world, &changes).await;
            for _ in 0..3 {
                let lacks = simulation.lacks();
                prop_assert!(lacks.contains(&bad), "{:?}", lacks);
                for target in lacks {
                    prop_assert!(target == bad || needs(&target, &bad), "{target} for {bad}");
                }
                prop_assert!(!simulation.status.borrow().synced);
                simulation.pass(TIMING.sync_period).await;
            }
            sick.set(false);
            is_right(&mut simulation, &world).await
        })?;
    }

    /// The daemon is killed between any two operations, and another one starts over what it left:
    /// it ends where the first would have ended, and on the way no service that has real servers
    /// loses them.
    #[test]
    fn killed_anywhere_and_started_again((mut world, changes) in changing(), busy in any::<bool>()) {
        simulate(async {
            let mut simulation = Simulation::idle(Kernel { busy, ..kernel() }, &world);
            let mut before = State::default();
            for round in 0..=changes.len() {
                if let Some(at) = round.checked_sub(1) {
                    changes[at].iter().for_each(|step| world.take(step));
                    simulation.follow(&changes[at]).await;
                } else {
                    for event in world.events() {
                        simulation.reconciler.take(event);
                    }
                    simulation.reconciler.step().await;
                }
                let ops = simulation.done();
                let after = simulation.state();
                for (count, left) in prefixes(&before, &ops).into_iter().enumerate() {
                    // A cold start takes hundreds, most of them alike.
                    if count % (1 + ops.len() / 40) != 0 {
                        continue;
                    }
                    let survivor = Kernel { busy, ..Kernel::new(left.clone()) };
                    let mut second = Simulation::settled(survivor, &world).await;
                    let repairs = second.done();
                    let end = second.state();
                    prop_assert_eq!(end.differences(&after), BTreeSet::new(), "after {} of {:#?}", count, ops);
                    for state in prefixes(&left, &repairs) {
                        if let Some(wrong) = unsafe_between(&before, &state, &after) {
                            prop_assert!(false, "{}, after {} of {:#?} and in {:#?}", wrong, count, ops, repairs);
                        }
                    }
                }
                before = after;
            }
            Ok(())
        })?;
    }
}

/// Follows all changes, with some time after each. The result is the world at the end.
async fn run(kernel: Kernel, world: &World, changes: &[Vec<Step>]) -> (Simulation, World) {
    let mut world = world.clone();
    let mut simulation = Simulation::settled(kernel, &world).await;
    for steps in changes {
        for step in steps {
            world.take(step);
        }
        simulation.follow(steps).await;
        simulation.pass(Duration::from_secs(1)).await;
    }
    (simulation, world)
}

/// Nothing of ours is there that nobody wants, and foreign marks are left alone, after a start over
/// the remains of something else.
#[test]
fn a_start_over_the_remains_of_another_leaves_no_orphan() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    for _ in 0..16 {
        let mut any = || world().new_tree(&mut runner).expect("a world").current();
        let (mut first, mut second) = (any(), any());
        first.families.clone_from(&second.families);
        first.backend = second.backend;
        second.options.exclude_cidrs.clear();
        simulate(async {
            let mut state = Simulation::settled(kernel(), &first).await.state();
            let mark = VirtualServerKey::FirewallMark { mark: 7, family: second.families[0] };
            if let Some((_, server)) = state.virtual_servers.first_key_value() {
                let server = server.clone();
                state.virtual_servers.insert(mark, server);
            }
            let mut taken_over = Simulation::settled(Kernel::new(state), &second).await;
            // Sets of the other policy stay, empty: rules of others may refer to them.
            let mut lacks = taken_over.lacks();
            lacks.retain(|target| !matches!(target, Target::Set(set) if set.role.is_of_split()));
            assert_eq!(lacks, []);
            let mut state = taken_over.state();
            state.virtual_servers.remove(&mark);
            let wanted = taken_over.reconciler.desired().state();
            assert_eq!(state.virtual_servers, wanted.virtual_servers);
            assert_eq!(state.interface, wanted.interface);
            let removed =
                taken_over.done().into_iter().any(|op| op == Op::RemoveVirtualServer(mark));
            assert!(!removed);
        });
    }
}
