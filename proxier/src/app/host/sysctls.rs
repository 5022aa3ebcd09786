//! The kernel settings that the configuration asks for.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use tracing::{info, warn};

use crate::config::Config;
use crate::dataplane::sysctls::{self, Sysctl};
use crate::kernel::sysctl::{Seen, Sysctls};

/// Brings the settings of this host to their values and says what was changed. The result are those
/// that have their value now, which is to stay so.
pub(in crate::app) fn apply(config: &Config) -> anyhow::Result<Arc<[Sysctl]>> {
    let system = Sysctls::system();
    let mut wanted = wanted(config, &system)?;
    let report = system.apply(&wanted);
    for change in &report.changes {
        info!("{change}");
    }
    for failure in &report.failures {
        let text = crate::text::chain(failure);
        if failure.is_fatal() {
            bail!("{text}");
        }
        warn!("{text}");
    }
    wanted.retain(|setting| system.read(setting).is_ok_and(|found| setting.wanted.allows(&found)));
    Ok(wanted.into())
}

/// The settings that a running proxy keeps as they are to be. Changes nothing.
pub(in crate::app) fn kept(config: &Config) -> anyhow::Result<Arc<[Sysctl]>> {
    let system = Sysctls::system();
    let mut wanted = wanted(config, &system)?;
    wanted.retain(|setting| system.can_write(setting));
    Ok(wanted.into())
}

/// What [`apply`] would change, one line each.
pub(in crate::app) fn changes(config: &Config) -> anyhow::Result<Vec<String>> {
    let system = Sysctls::system();
    let settings = wanted(config, &system)?;
    let seen = system.look(&settings);
    let wrong = seen.into_iter().filter(|seen| seen.found.is_none() || seen.is_wrong());
    let line = |Seen { setting, found }: Seen<'_>| {
        let (name, wanted, why) = (setting.name(), setting.wanted.value(), setting.why);
        format!("{name}: {} -> {wanted} ({why})", found.as_deref().unwrap_or("unreadable"))
    };
    Ok(wrong.map(line).collect())
}

/// The settings as `sysctl` prints them.
pub(in crate::app) fn text(config: &Config) -> anyhow::Result<String> {
    Ok(sysctls::text(&wanted(config, &Sysctls::system())?))
}

/// The settings that the configuration asks for on this kernel.
pub(in crate::app) fn wanted(config: &Config, system: &Sysctls) -> anyhow::Result<Vec<Sysctl>> {
    let kernel = system.kernel_version().context("choose the kernel settings")?;
    Ok(sysctls::wanted(&config.sysctls, kernel, system.cpus()))
}
