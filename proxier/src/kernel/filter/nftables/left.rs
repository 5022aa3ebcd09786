//! What other modes of kube-proxy, and our own backend iptables, have left.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use netlink_batch::{Error, ErrorKind};
use netlink_ipvs::Family;

use super::super::Failures;
use crate::dataplane::leftovers::{Leftover, NFTABLES_TABLE as KUBE_PROXY};
use crate::dataplane::sets::SetId;
use crate::dataplane::{Op, OpError};
use crate::iptables::Scope;
use crate::kernel::failed;
use crate::kernel::firewall::Firewall;
use crate::kernel::ipset::IpsetClient;
use crate::kernel::tables::Tables;

/// Where it is looked for.
#[derive(Debug)]
pub(super) struct Left {
    tables: Tables,
    /// The programs, where they are.
    firewall: Option<Firewall>,
    /// Whether kube-proxy's table of a family was there, and when that was asked.
    seen: BTreeMap<Family, (u64, bool)>,
    /// Nothing is left that only they show: they are not started again.
    clean: Arc<AtomicBool>,
}

/// What is left of each family.
pub(super) type Looking =
    Pin<Box<dyn Future<Output = Vec<(Family, Result<BTreeSet<Leftover>, OpError>)>> + Send>>;

impl Left {
    pub(super) fn new(firewall: Option<Firewall>) -> Result<Self, Error> {
        Ok(Self { tables: Tables::open()?, firewall, seen: BTreeMap::new(), clean: Arc::default() })
    }

    pub(super) fn processes_started(&self) -> u64 {
        self.firewall.as_ref().map_or(0, Firewall::processes_started)
    }

    /// `now` is another number whenever others may have changed anything: only then the kernel is asked
    /// for tables.
    pub(super) fn look(&mut self, families: &[Family], now: u64) -> Looking {
        let tables: Vec<_> = families.iter().map(|family| self.has_table(*family, now)).collect();
        let tables = families.iter().copied().zip(tables).map(|(family, there)| {
            let there = there.map_err(|error| failed(&error));
            (
                family,
                there
                    .map(|there| there.then_some(Leftover::Nftables(family)).into_iter().collect()),
            )
        });
        let mut found: Vec<(Family, Result<BTreeSet<Leftover>, OpError>)> = tables.collect();
        let programs = self.firewall.clone().filter(|_| !self.clean.load(Ordering::Relaxed));
        let Some(firewall) = programs else { return Box::pin(std::future::ready(found)) };
        let clean = Arc::clone(&self.clean);
        let all = tokio::task::spawn_blocking(move || {
            let mut nothing = true;
            for (family, leftovers) in &mut found {
                // A family that iptables does not serve on this host has no such rules.
                if firewall.tools(*family).is_err() {
                    continue;
                }
                match firewall.look(*family) {
                    Ok(more) => {
                        nothing &= more.ours.is_none() && !more.left_over;
                        if let Ok(leftovers) = leftovers {
                            leftovers.extend(more.ours.map(|_| Leftover::Ipvs(*family)));
                            leftovers.extend(more.left_over.then_some(Leftover::Iptables(*family)));
                        }
                    }
                    Err(error) => {
                        nothing = false;
                        *leftovers = Err(failed(&*error));
                    }
                }
            }
            clean.store(nothing, Ordering::Relaxed);
            found
        });
        let asked = families.to_vec();
        Box::pin(async move {
            all.await.unwrap_or_else(|error| {
                asked.into_iter().map(|family| (family, Err(failed(&error)))).collect()
            })
        })
    }

    fn has_table(&mut self, family: Family, now: u64) -> Result<bool, Error> {
        if let Some((then, there)) = self.seen.get(&family)
            && *then == now
        {
            return Ok(*there);
        }
        let there = self.tables.has(KUBE_PROXY, family)?;
        self.seen.insert(family, (now, there));
        Ok(there)
    }

    pub(super) fn remove(&mut self, ops: &[&Op]) -> Failures {
        let results = ops.iter().enumerate().map(|(at, op)| {
            let Op::RemoveLeftover(leftover) = op else { return (at, Ok(())) };
            let done = self.remove_one(*leftover);
            if done.is_ok() {
                tracing::info!("removed {leftover}");
            }
            (at, done)
        });
        results.filter_map(|(at, result)| Some((at, result.err()?))).collect()
    }

    fn remove_one(&mut self, leftover: Leftover) -> Result<(), OpError> {
        match (leftover, &mut self.firewall) {
            (Leftover::Nftables(family), _) => {
                self.seen.remove(&family);
                self.tables.delete(KUBE_PROXY, family).map_err(|error| failed(&error))
            }
            (Leftover::Iptables(family), Some(firewall)) => {
                // Chains that both modes have go too: nothing in iptables is ours here.
                let done = firewall.remove_leftovers(family, Scope::All);
                done.map(drop).map_err(|error| failed(&*error))
            }
            (Leftover::Ipvs(family), Some(firewall)) => {
                firewall.remove(family).map_err(|error| failed(&*error))?;
                remove_sets(family)
            }
            _ => Ok(()),
        }
    }
}

/// The sets of kube-proxy's IPVS mode, to which no rule refers any more.
fn remove_sets(family: Family) -> Result<(), OpError> {
    let mut sets = match IpsetClient::open() {
        Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(()),
        opened => opened.map_err(|error| failed(&error))?,
    };
    for set in SetId::all().filter(|set| set.family == family) {
        match sets.destroy(set.name()) {
            Err(error) if error.kind() == ErrorKind::Busy => {
                tracing::warn!(%set, "stays: rules of others refer to it");
            }
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(&error)),
            _ => {}
        }
    }
    Ok(())
}
