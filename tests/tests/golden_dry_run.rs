//! Every golden scenario without a kernel: what `proxier --dry-run` prints equals what kube-proxy left,
//! in each format of its own.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use proxier_tests::golden::{
    self, Chains, Dump, Part, Scenario, Step, compare, dry_run, ignore_rules_of_empty_sets,
};

/// Follows from the number of processors of the machine.
const CONNTRACK_MAX: &str = "net.netfilter.nf_conntrack_max";

macro_rules! tests {
    ($($name:ident,)*) => {
        $(
            #[test]
            fn $name() {
                replay(stringify!($name)).unwrap();
            }
        )*

        #[test]
        fn no_scenario_is_forgotten() {
            let listed: BTreeSet<_> = [$(stringify!($name)),*].map(|name| name.replace('_', "-")).into();
            let folders = fs::read_dir(golden::root()).unwrap().map(|entry| entry.unwrap());
            let folders = folders.filter(|entry| entry.file_type().unwrap().is_dir());
            let present: BTreeSet<_> =
                folders.map(|entry| entry.file_name().into_string().unwrap()).collect();
            assert_eq!(listed, present);
        }
    };
}
proxier_tests::for_each_scenario!(tests);

/// What is compared: all that a dry run can know.
const PARTS: [Part; 4] = [Part::Ipvs, Part::Addresses, Part::Sets, Part::Rules];

/// Compares every step of a scenario.
fn replay(name: &str) -> Result<()> {
    let as_kube_proxy = |scenario: &Scenario, step: &Step| -> Result<Dump> {
        let mut words = arguments(scenario, step);
        words.push("--local-policy=kube-proxy".to_owned());
        dry_run(None, &words)
    };
    compare_with(name, as_kube_proxy)
}

/// Compares what is computed for every step of a scenario.
fn compare_with(name: &str, compute: impl Fn(&Scenario, &Step) -> Result<Dump>) -> Result<()> {
    let scenario = Scenario::load(name)?;
    for step in &scenario.steps {
        let mut actual = compute(&scenario, step)?;
        let mut expected = computable(step)?;
        // The dry run prints the settings that the daemon cares for, not all there are.
        actual.sysctls.retain(|key, _| expected.sysctls.contains_key(key));
        expected.sysctls.retain(|key, value| {
            let changed = !step.sysctls_before.contains(&(key.clone(), value.clone()));
            key != CONNTRACK_MAX && (changed || actual.sysctls.contains_key(key))
        });
        actual.sysctls.remove(CONNTRACK_MAX);
        ignore_rules_of_empty_sets(&mut expected, &mut actual);
        let difference = compare(&expected, &actual, &PARTS);
        ensure!(
            difference.is_empty(),
            "{}: {}\nstep {}\n{difference}",
            scenario.name,
            scenario.covers,
            step.name
        );
    }
    Ok(())
}

/// By default Local policies are split: what that adds is taken away, and the rest is kube-proxy's.
#[test]
fn split_differs_by_the_policy_only() {
    let marked = std::cell::Cell::new(0);
    let rest = |scenario: &Scenario, step: &Step| -> Result<Dump> {
        let mut dump = dry_run(None, &arguments(scenario, step))?;
        let before = dump.ipvs.len();
        dump.ipvs.retain(|head, _| !head.starts_with("-A -f "));
        marked.set(marked.get() + before - dump.ipvs.len());
        let sets = dump.sets.len();
        dump.sets
            .retain(|head, _| !head.contains("-LOCAL-MARK ") && !head.contains("-LOCAL-CLOSED "));
        ensure!(sets == dump.sets.len() + 4, "{:?}", dump.sets.keys());
        let added = ["-LOCAL-CLOSED ", "service addresses as source"];
        for chains in [&mut dump.nat4, &mut dump.nat6, &mut dump.filter4, &mut dump.filter6] {
            for rules in chains.0.values_mut() {
                rules.retain(|rule| !added.iter().any(|word| rule.contains(word)));
            }
        }
        Ok(dump)
    };
    for folder in fs::read_dir(golden::root()).unwrap().map(|entry| entry.unwrap()) {
        if folder.file_type().unwrap().is_dir() {
            compare_with(&folder.file_name().into_string().unwrap(), rest).unwrap();
        }
    }
    assert!(marked.get() > 0, "no Service was split");
}

/// The arguments that stand for the scenario's node and cluster.
fn arguments(scenario: &Scenario, step: &Step) -> Vec<String> {
    let path = |path: &Path| path.display().to_string();
    let mut words =
        vec!["--config".into(), path(&step.config), "--manifests".into(), path(&step.objects)];
    let mut addresses: Vec<_> = scenario.node_addresses.iter().map(ToString::to_string).collect();
    if scenario.initial_namespace {
        // The recording machine's own address was a node address there.
        addresses.push("10.0.2.15".to_owned());
    }
    words.extend(addresses.into_iter().flat_map(|address| ["--node-address".to_owned(), address]));
    words
}

/// The part of a step's dump that follows from its objects: without real servers that drain, and
/// without what `prepare.sh` left there for the daemon to spare.
fn computable(step: &Step) -> Result<Dump> {
    let prepare = step.prepare.as_ref().map_or(Ok(String::new()), fs::read_to_string)?;
    let mut dump = step.expected.clone();
    for real_servers in dump.ipvs.values_mut() {
        real_servers.retain(|line| !line.ends_with(" -w 0"));
    }
    dump.ipvs.retain(|head, _| !prepare.lines().any(|line| line == format!("ipvsadm {head}")));
    dump.addresses.retain(|line| !line.starts_with("link "));
    dump.sets.retain(|head, _| head.starts_with("KUBE-"));
    let plain = Scenario::load("clusterip-tcp")?.steps.remove(0).expected;
    only_chains_of(&mut dump.nat4, &plain.nat4);
    only_chains_of(&mut dump.filter4, &plain.filter4);
    only_chains_of(&mut dump.nat6, &plain.nat6);
    only_chains_of(&mut dump.filter6, &plain.filter6);
    Ok(dump)
}

/// Leaves out chains that are not the daemon's, and the jumps to them.
fn only_chains_of(chains: &mut Chains, plain: &Chains) {
    chains.0.retain(|name, _| plain.0.contains_key(name));
    for (name, rules) in &mut chains.0 {
        let target = |rule: &str| {
            rule.split_whitespace().last().is_some_and(|word| plain.0.contains_key(word))
        };
        rules.retain(|rule| name.starts_with("KUBE-") || target(rule));
    }
}
