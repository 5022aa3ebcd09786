//! The host that the program runs on: what it has, and making it what the configuration asks for.

pub(super) mod alone;
mod backend;
pub(super) mod checks;
pub(super) mod closed;
pub(super) mod counting;
pub(super) mod facts;
mod managers;
pub(super) mod marks;
pub(super) mod memory_limit;
pub(super) mod needs;
pub(super) mod neighbours;
pub(super) mod privileges;
pub(super) mod sysctls;
mod timeouts;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use netlink_ipvs::{
    Client, Command, Family, Scheduler, VirtualServer, VirtualServerConfig, VirtualServerKey,
};
use tracing::debug;

use crate::config::Config;
use crate::dataplane::sysctls::Sysctl;
use crate::kernel::filter::Filter;
use crate::kernel::firewall::Firewall;
use crate::settings::Abilities;

/// What the host has, found out before anything is changed.
pub(super) struct Host {
    pub(super) ipvs: Client,
    pub(super) filter: Filter,
    pub(super) abilities: Abilities,
}

impl Host {
    /// Checks everything that the daemon cannot do without, then sets kernel settings and timeouts.
    pub(super) fn prepare(config: &Config) -> anyhow::Result<Self> {
        let mut host = Self::look(config)?;
        host.abilities.sysctls = prepare(&mut host.ipvs, config)?;
        Ok(host)
    }

    /// Finds out what is there and changes nothing.
    pub(super) fn look(config: &Config) -> anyhow::Result<Self> {
        let ipvs = open_ipvs()?;
        let memory = memory_limit::of_cgroup();
        let mut abilities = Abilities { families: Vec::new(), memory, ..Abilities::default() };
        let filter = backend::find(config.backend, &mut abilities)?;
        Ok(Self { ipvs, filter, abilities })
    }
}

/// Makes the host what the configuration asks for. What may be refused comes first. The result are
/// the settings that are to stay as they are now.
pub(super) fn prepare(ipvs: &mut Client, config: &Config) -> anyhow::Result<Arc<[Sysctl]>> {
    check_scheduler(ipvs, config.scheduler)?;
    let sysctls = sysctls::apply(config)?;
    oom_score(config.oom_score_adj);
    timeouts::set(ipvs, config.ipvs_timeouts)?;
    Ok(sysctls)
}

/// Tells the kernel how early to end this process when memory is short. A container that may not
/// lower the value has the one that the kubelet gave it.
fn oom_score(value: i32) {
    if let Err(error) = std::fs::write("/proc/self/oom_score_adj", value.to_string()) {
        debug!(%error, value, "oomScoreAdj is not applied (CAP_SYS_RESOURCE)");
    }
}

/// Makes sure that the kernel has the scheduler, before a service needs it. Making a virtual
/// server is the only way to ask.
fn check_scheduler(ipvs: &mut Client, scheduler: Scheduler) -> anyhow::Result<()> {
    let used = ipvs.virtual_servers().context("list virtual servers")?;
    if used.iter().any(|entry| entry.server.config.scheduler == scheduler) {
        return Ok(());
    }
    // TEST-NET-2, RFC 5737: no service has it.
    let address = std::net::Ipv4Addr::new(198, 51, 100, 0).into();
    let key = VirtualServerKey::new(address, 20000, netlink_ipvs::Protocol::Tcp);
    let config = VirtualServerConfig::new(scheduler, Family::Ipv4);
    let probe = VirtualServer { key, config };
    match ipvs.run(Command::AddVirtualServer(probe)) {
        Ok(()) => {}
        Err(error) if error.kind() == netlink_ipvs::ErrorKind::Exists => {}
        Err(error)
            if matches!(
                error.kind(),
                netlink_ipvs::ErrorKind::NotFound | netlink_ipvs::ErrorKind::Unsupported
            ) =>
        {
            bail!(
                "the kernel has no IPVS scheduler {scheduler}: load the module ip_vs_{scheduler} or \
             choose another (rr, wrr, lc, wlc, sh, mh, ...) with ipvs.scheduler"
            )
        }
        Err(error) if error.kind() == netlink_ipvs::ErrorKind::NoPermission => bail!(
            "no permission to program IPVS: CAP_NET_ADMIN is needed (run as root, or give the \
             container the capability NET_ADMIN)"
        ),
        Err(error) => return Err(error).context("try the scheduler"),
    }
    match ipvs.run(Command::DeleteVirtualServer(key)) {
        // The loop, if it runs, removes what no service asks for.
        Err(error) if error.kind() == netlink_ipvs::ErrorKind::NotFound => Ok(()),
        result => result.context("remove the probe of the scheduler"),
    }
}

pub(super) fn open_ipvs() -> anyhow::Result<Client> {
    Client::open().context("the kernel's IPVS is needed (module ip_vs)")
}

/// Where to look for iptables instead of the usual places.
#[allow(clippy::disallowed_methods, reason = "the one place that reads it")]
pub(super) fn iptables_directory() -> Option<PathBuf> {
    std::env::var_os(Firewall::DIRECTORY_VARIABLE).map(PathBuf::from)
}

#[cfg(test)]
mod root;
