//! Measures how long it takes to add elements `address . protocol . port` in one transaction, to
//! read them, and to delete them. In a network namespace of its own:
//!
//! ```text
//! cargo build --release --example nft-load
//! unshare --net target/release/examples/nft-load [ELEMENTS [REPETITIONS]]
//! ```

use std::error::Error;
use std::time::{Duration, Instant};

use netlink_nftables::{
    Client, DataType, Element, Family, Set, Table, TableKey, Transaction, Value,
};

const SET: &str = "frontends";

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let count: u32 = arguments.next().map_or(Ok(10_000), |text| text.parse())?;
    let repetitions: u32 = arguments.next().map_or(Ok(9), |text| text.parse())?;
    let key = TableKey::new(Family::Ipv4, "nft-load");
    let mut nftables = Client::open()?;
    if nftables.table(&key)?.is_some() {
        return Err(format!("there is a table {key}: run this in a network namespace").into());
    }
    let elements: Vec<Element> = (0..count)
        .map(|number| {
            let address = Value::new((0x0a00_0000 + number).to_be_bytes());
            Element::of_parts(&[address, Value::byte(6), Value::port(80)])
        })
        .collect();
    let types = [DataType::Ipv4Addr, DataType::InetProto, DataType::InetService];
    for size in [None, Some(count)] {
        let mut times = Vec::new();
        for _ in 0..repetitions {
            let mut all = Transaction::new();
            all.add_table(&Table::new(key.clone()));
            all.add_set(&key, &Set { size, ..Set::new(SET, types) });
            nftables.commit(&all, None)?;
            times.push(once(&mut nftables, &key, &elements)?);
            all.clear();
            all.delete_table(&key);
            nftables.commit(&all, None)?;
        }
        let name = if size.is_some() { "with a size" } else { "without a size" };
        println!("{count} elements, a set {name}; median of {repetitions}:");
        for (step, what) in ["write", "add", "read", "delete"].iter().enumerate() {
            let mut step: Vec<Duration> = times.iter().map(|times| times[step]).collect();
            step.sort();
            println!("  {what:6} {:>10.1?}", step[step.len() / 2]);
        }
    }
    Ok(())
}

/// The times for writing the requests, for adding, for reading and for deleting.
fn once(
    nftables: &mut Client,
    key: &TableKey,
    elements: &[Element],
) -> Result<[Duration; 4], Box<dyn Error>> {
    let mut all = Transaction::new();
    let begin = Instant::now();
    all.add_elements(key, SET, elements);
    let write = begin.elapsed();
    let begin = Instant::now();
    nftables.commit(&all, None)?;
    let add = begin.elapsed();
    let begin = Instant::now();
    let found = nftables.elements(key, SET)?.len();
    let read = begin.elapsed();
    assert_eq!(found, elements.len());
    all.clear();
    all.delete_elements(key, SET, elements);
    let begin = Instant::now();
    nftables.commit(&all, None)?;
    Ok([write, add, read, begin.elapsed()])
}
