//! Prints the IPVS table, as `ipvsadm -Ln --thresholds` does.
//!
//! ```text
//! sudo cargo run --example ipvs-list
//! ```

use std::error::Error;
use std::process::ExitCode;

use netlink_ipvs::{Client, Flags};

fn main() -> ExitCode {
    match list() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprint!("ipvs-list: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprint!(": {error}");
                cause = error.source();
            }
            eprintln!();
            ExitCode::FAILURE
        }
    }
}

fn list() -> Result<(), netlink_ipvs::Error> {
    let mut ipvs = Client::open()?;
    let info = ipvs.info()?;
    let (major, minor, patch) = info.version;
    println!("IPVS {major}.{minor}.{patch}, {} buckets", info.connection_table_size);
    println!("timeouts: {}", ipvs.timeouts()?);
    let mut entries = ipvs.virtual_servers()?;
    entries.sort_by_key(|entry| entry.server.key);
    for entry in entries {
        let config = entry.server.config;
        print!("{} {}", entry.server.key, config.scheduler);
        if config.flags.contains(Flags::PERSISTENT) {
            print!(" persistent {} s /{}", config.timeout, config.prefix_len);
        }
        if config.flags.contains(Flags::ONE_PACKET) {
            print!(" one-packet");
        }
        println!("  ({} connections so far)", entry.stats.connections);
        for real in ipvs.real_servers(entry.server.key)? {
            let config = real.server.config;
            println!(
                "  -> {} {:?} weight {} thresholds {}..{} active {} inactive {}",
                real.server.key,
                config.forwarding,
                config.weight,
                config.lower_threshold,
                config.upper_threshold,
                real.connections.active,
                real.connections.inactive,
            );
        }
    }
    Ok(())
}
