//! Work whose instructions are counted; `tests/load/instructions` runs it under valgrind.
//!
//! ```text
//! counts encode MESSAGES          commands to add real servers become the bytes of batches
//! counts index MANIFEST TIMES     a manifest is read, decoded and indexed
//! counts change SERVICES CHANGES  among so many services one endpoint changes, so many times
//! counts claims ADDRESSES         two services claim the same addresses, and the first one goes
//! counts slices COUNT             so many slices of one service come and go, in no order
//! counts hold MANIFEST            everything that is kept of a manifest, to count the heap
//! counts text KIND SIZE           a manifest of this kind and size, from its text to the kernel in memory
//! counts doublings                time and memory of the same, for every kind and sizes that double
//! ```

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use netlink_ipvs::{Batch, Command, Limits, Protocol};
use netlink_ipvs::{RealServer, RealServerConfig, RealServerKey, VirtualServerKey};
use proxier::builders::{ip, settings};
use proxier::cluster::{Change, Cluster, Dirty, ObjectKey};
use proxier::memory::Memory;
use proxier::reconcile::{Event, Reconciler, Resolver};
use proxier_tests::load::memory::{Settled, TIMING, nth_service, nth_slice};
use proxier_tests::load::texts;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("counts: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let number = |text: &str| text.parse::<u32>().with_context(|| format!("number {text}"));
    // No audit, however long it takes to count.
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
    match *words.as_slice() {
        ["encode", messages] => encode(number(messages)?),
        ["index", manifest, times] => {
            for _ in 0..number(times)? {
                index(manifest)?;
            }
        }
        ["change", services, changes] => {
            let (services, changes) = (number(services)?, number(changes)?);
            runtime.block_on(async {
                let mut world = Settled::with(services).await;
                for n in 0..changes {
                    world.change(n % services.min(100), &[1, 3 + (n % 100) as u8]).await;
                    world.reconciler.dataplane().done.clear();
                }
            });
        }
        ["claims", addresses] => runtime.block_on(claims(number(addresses)?)),
        ["slices", count] => slices(number(count)?),
        ["hold", manifest] => runtime.block_on(hold(manifest))?,
        ["text", kind, size] => runtime.block_on(text(kind, number(size)?))?,
        ["doublings"] => doublings(&texts::KINDS)?,
        ["doublings", kind] => doublings(&[kind])?,
        _ => bail!(
            "usage: counts encode N | index MANIFEST N | change N N | claims N | slices N | \
             hold MANIFEST | text KIND N | doublings [KIND]"
        ),
    }
    Ok(())
}

fn encode(messages: u32) {
    let mut batch = Batch::new(0x1c, Limits::default());
    let mut bytes = 0;
    for n in 0..messages {
        if !batch.has_room() {
            bytes += batch.bytes().len();
            batch.clear(n);
        }
        let [_, b, c, d] = n.to_be_bytes();
        let key = VirtualServerKey::new(IpAddr::from([11, b, c, d]), 80, Protocol::Tcp);
        let server = RealServerKey::new(IpAddr::from([10, b, c, d]), 8080);
        let config = RealServerConfig::masquerade(1);
        batch.push(Command::AddRealServer(key, RealServer { key: server, config }));
    }
    bytes += batch.bytes().len();
    assert!(messages == 0 || bytes > 0);
}

fn index(manifest: &str) -> Result<Cluster> {
    let loaded = proxier::source::files::load(&[PathBuf::from(manifest)], "node-a")?;
    let (mut cluster, mut dirty) = (Cluster::new(), Dirty::default());
    loaded.changes.into_iter().for_each(|change| cluster.apply(change, &mut dirty));
    Ok(cluster)
}

async fn claims(addresses: u32) {
    let resolver = Resolver::new(|_, _| settings());
    let (mut reconciler, _status) = Reconciler::new(Memory::new(), resolver, TIMING);
    reconciler.take(Event::HostAddresses(vec![ip("192.0.2.1")]));
    let both = [0, 1].map(|n| {
        let mut service = nth_service(n);
        service.created = n.into();
        service.external_ips =
            (0..addresses).map(|n| (0xcb00_7100 + n).to_be_bytes().into()).collect();
        service
    });
    let listed = [Change::SlicesListed(vec![]), Change::NodeListed];
    let keys = both.each_ref().map(|service| service.key.clone());
    for change in listed {
        reconciler.take(Event::from(change));
    }
    reconciler.take(Event::from(both.map(Change::Service).to_vec()));
    reconciler.take(Event::from(Change::ServicesListed(keys.to_vec())));
    reconciler.step().await;
    reconciler.take(Event::from(Change::ServiceGone(keys[0].clone())));
    reconciler.step().await;
    assert_eq!(reconciler.desired().contributions().count(), 1);
}

fn slices(count: u32) {
    let (mut cluster, mut dirty) = (Cluster::new(), Dirty::default());
    // Each number below `count` once, where they have no divisor in common.
    let numbers = || (0..count).map(|n| u64::from(n) * 7_919 % u64::from(count));
    let name = |n: u64| ObjectKey::new("tenant", format!("s{n}"));
    for n in numbers() {
        let mut slice = nth_slice(1, &[1]);
        slice.key = name(n);
        cluster.apply(Change::Slice(slice), &mut dirty);
    }
    for n in numbers() {
        cluster.apply(Change::SliceGone(name(n)), &mut dirty);
    }
    assert_eq!(cluster.slice_count(), 0);
}

async fn hold(manifest: &str) -> Result<()> {
    let mut reconciler = programmed(manifest).await?;
    // The copy of the dataplane in memory is the kernel's in a real one.
    *reconciler.dataplane() = Memory::new();
    std::mem::forget(reconciler);
    Ok(())
}

async fn programmed(manifest: &str) -> Result<Reconciler<Memory>> {
    let resolver = Resolver::new(|_, _| settings());
    let (mut reconciler, _status) = Reconciler::new(Memory::new(), resolver, TIMING);
    reconciler.take(Event::HostAddresses(vec![ip("192.0.2.1")]));
    let loaded = proxier::source::files::load(&[PathBuf::from(manifest)], "node-a")?;
    reconciler.take(Event::from(loaded.changes));
    reconciler.step().await;
    Ok(reconciler)
}

/// Reads and programs a manifest of a kind; says how long each took.
async fn text(kind: &str, size: u32) -> Result<()> {
    let file = std::env::temp_dir().join(format!("counts-{}.yaml", std::process::id()));
    std::fs::write(&file, texts::text(kind, size))?;
    let begin = std::time::Instant::now();
    index(&file.to_string_lossy())?;
    let read = begin.elapsed();
    let begin = std::time::Instant::now();
    programmed(&file.to_string_lossy()).await?;
    let programmed = begin.elapsed().saturating_sub(read);
    std::fs::remove_file(&file)?;
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    println!(
        "{} ms to read, {} ms to program, {} at most",
        read.as_millis(),
        programmed.as_millis(),
        peak.trim()
    );
    Ok(())
}

/// In a process each, so that the most memory is that of one.
fn doublings(kinds: &[&str]) -> Result<()> {
    for kind in kinds {
        for size in [12_500, 25_000, 50_000, 100_000] {
            let run = std::process::Command::new(std::env::current_exe()?)
                .args(["text", kind, &size.to_string()])
                .output()?;
            print!("{kind:<10} {size:>7}  {}", String::from_utf8_lossy(&run.stdout));
            eprint!("{}", String::from_utf8_lossy(&run.stderr));
        }
    }
    Ok(())
}
