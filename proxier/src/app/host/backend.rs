//! Which backend keeps rules and sets: the one that is asked for, or the one that works.

use anyhow::Context as _;
use netlink_ipvs::Family;
use tracing::{info, warn};

use super::iptables_directory;
use crate::dataplane::firewall::Backend;
use crate::kernel::filter::{Filter, Iptables, Nftables};
use crate::kernel::firewall::{self, Firewall};
use crate::settings::Abilities;
use crate::text::chain;

/// Opens it and notes what it can do. Without a choice it is iptables where its programs and ipset
/// work, so that a node of kube-proxy's stays as it is, and else nftables.
pub(super) fn find(choice: Option<Backend>, abilities: &mut Abilities) -> anyhow::Result<Filter> {
    let programs = Firewall::find(iptables_directory().as_deref());
    match choice {
        Some(Backend::Iptables) => {
            let filter = iptables(programs, abilities)?;
            info!("rules and sets are kept by iptables and ipset, as asked for");
            Ok(filter)
        }
        Some(Backend::Nftables) => {
            let filter =
                nftables(programs, abilities).context("rules cannot be kept in nftables")?;
            info!("rules and sets are kept in tables of nftables, as asked for");
            Ok(filter)
        }
        None => {
            let error = match iptables(programs.clone(), abilities) {
                Ok(filter) => {
                    info!("rules and sets are kept by iptables and ipset, which work here");
                    return Ok(filter);
                }
                Err(error) => error,
            };
            match nftables(programs, abilities) {
                Ok(filter) => {
                    let why = chain(&*error);
                    info!(
                        why,
                        "rules and sets are kept in tables of nftables: iptables does not work here"
                    );
                    Ok(filter)
                }
                // Why the usual one does not work says more.
                Err(other) => {
                    warn!(error = chain(&*other), "nftables cannot be used either");
                    Err(error)
                }
            }
        }
    }
}

fn iptables(programs: Firewall, abilities: &mut Abilities) -> anyhow::Result<Filter> {
    let mut families = Vec::new();
    let mut random_fully = true;
    for family in [Family::Ipv4, Family::Ipv6] {
        match programs.tools(family) {
            Ok(tools) => {
                families.push(family);
                random_fully &= tools.random_fully();
            }
            Err(error) if family == Family::Ipv4 => {
                return Err(anyhow::Error::new(error)).context("IPv4 cannot be served");
            }
            Err(error) => warn!(error = chain(&*error), "IPv6 is not served"),
        }
    }
    let filter = Iptables::open(programs).context("open ipset")?;
    (abilities.families, abilities.random_fully) = (families, random_fully);
    abilities.backend = Backend::Iptables;
    Ok(Filter::Iptables(filter))
}

fn nftables(programs: Firewall, abilities: &mut Abilities) -> anyhow::Result<Filter> {
    let found = programs.tools(Family::Ipv4).is_ok() || programs.tools(Family::Ipv6).is_ok();
    let mut filter = Nftables::open(found.then_some(programs))?;
    filter.serves(Family::Ipv4).context("IPv4 cannot be served")?;
    abilities.families = vec![Family::Ipv4];
    let ipv6 = match firewall::ipv6_off() {
        None => filter.serves(Family::Ipv6).map_err(|error| chain(&error)),
        Some(why) => Err(why.to_owned()),
    };
    match ipv6 {
        Ok(()) => abilities.families.push(Family::Ipv6),
        Err(error) => warn!(error, "IPv6 is not served"),
    }
    abilities.backend = Backend::Nftables;
    Ok(Filter::Nftables(filter))
}
