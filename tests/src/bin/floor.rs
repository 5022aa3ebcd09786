//! Measures how fast this kernel can be programmed at all, in a network namespace of its own, and
//! prints JSON:
//!
//! ```text
//! tests/vm/run target/release/floor [--services N] [--endpoints N] [--via loop|crates]
//!                                   [--bytes-per-send N] [--messages-per-send N]
//! ```
//! 1,000 services with 10 endpoints each are the default. `--via crates` sends the same through the
//! crates netlink-ipvs and dummy-iface, which encode and match replies while they send.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use netlink_ipvs::Limits;
use proxier_tests::floor::{Size, Via, measure};
use proxier_tests::netns::require_test_kernel;

/// Set in the namespace: the program starts itself again there.
const INSIDE: &str = "PROXIER_FLOOR_INSIDE";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("floor: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[String]) -> Result<()> {
    require_test_kernel()?;
    let mut size = Size { services: 1000, endpoints: 10 };
    let mut via = Via::Loop;
    let mut limits = Limits::default();
    for pair in words.chunks(2) {
        let [option, value] = pair else { bail!("{} needs a value", pair[0]) };
        let number = || value.parse::<u32>().with_context(|| format!("{option} {value}"));
        match (option.as_str(), value.as_str()) {
            ("--services", _) => size.services = number()?,
            ("--endpoints", _) => size.endpoints = number()?,
            ("--bytes-per-send", _) => limits.bytes = number()? as usize,
            ("--messages-per-send", _) => limits.commands = number()? as usize,
            ("--via", "loop") => via = Via::Loop,
            ("--via", "crates") => via = Via::Crates,
            _ => bail!("unknown option {option} {value}"),
        }
    }
    if std::env::var_os(INSIDE).is_none() {
        let error = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up && exec \"$0\" \"$@\""])
            .arg(std::env::current_exe()?)
            .args(words)
            .env(INSIDE, "1")
            .exec();
        return Err(error).context("start unshare");
    }
    println!("{}", measure(size, via, limits)?);
    Ok(())
}
