//! What `proxier --dry-run` prints, in every format.

use std::process::Command;

use anyhow::{Context, Result};

use super::{Dump, blocks, ipset_save, iptables_save};
use crate::command::{output, program};
use crate::netns::Namespace;

/// Runs `proxier --dry-run` with these arguments once for every format, in a network namespace or in the
/// caller's own. The `link` line of the addresses is not there: a dry run has no link.
pub fn dry_run(at: Option<&Namespace>, arguments: &[String]) -> Result<Dump> {
    let proxier = program("proxier")?;
    let print = |format: &str| {
        let mut command = at.map_or_else(|| Command::new(&proxier), |at| at.command(&proxier));
        output(command.arg("--dry-run").args(arguments).args(["-o", format]))
    };
    let (nat4, filter4) = iptables_save(&print("iptables")?);
    let (nat6, filter6) = iptables_save(&print("ip6tables")?);
    let sysctls = print("sysctls")?;
    let sysctls = sysctls.lines().map(|line| {
        let (key, value) = line.split_once('=').with_context(|| format!("sysctl line {line:?}"))?;
        Ok((key.trim().to_owned(), value.trim().to_owned()))
    });
    Ok(Dump {
        ipvs: blocks(&print("ipvsadm")?),
        addresses: print("addresses")?.lines().map(str::to_owned).collect(),
        sets: ipset_save(&print("ipset")?),
        nat4,
        filter4,
        nat6,
        filter6,
        sysctls: sysctls.collect::<Result<_>>()?,
        ..Dump::default()
    })
}
