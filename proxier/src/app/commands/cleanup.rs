//! `cleanup`: removes everything of ours from the kernel.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::bail;
use netlink_ipvs::Client;
use tracing::warn;

use crate::app::host::alone::Alone;
use crate::app::host::iptables_directory;
use crate::app::print;
use crate::args::Args;
use crate::kernel::cleanup;
use crate::kernel::firewall::Firewall;
use crate::text::{self, chain};

#[tokio::main(flavor = "current_thread")]
pub(in crate::app) async fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if let Some(daemon) = Alone::daemon() {
        bail!(
            "proxier runs here ({daemon}) and would put back what is removed: stop it first \
             (systemctl stop proxier, or the pod of this node)"
        );
    }
    // Without IPVS in the kernel there is nothing of it to remove.
    let mut ipvs = Client::open()
        .inspect_err(|error| warn!(error = chain(error), "no virtual servers to remove"))
        .ok();
    let mut firewall = Firewall::find(iptables_directory().as_deref());
    let marks = args.own.local_policy_marks;
    let report = cleanup::clean_up(ipvs.as_mut(), &mut firewall, marks);
    let mut out = String::new();
    for (verb, lines) in [("removed", &report.removed), ("kept", &report.kept)] {
        for line in lines {
            let _ = writeln!(out, "{verb} {}", text::line(line));
        }
    }
    if out.is_empty() && report.failed.is_empty() {
        out.push_str("nothing of ours was there\n");
    }
    print(&out)?;
    if !report.failed.is_empty() {
        bail!("not everything could be removed: {}", report.failed.join("; "));
    }
    Ok(ExitCode::SUCCESS)
}
