//! Lists what is in nftables: tables, chains, sets and how much is in them.
//!
//! ```text
//! cargo run --example nft-list
//! ```

use std::error::Error;

use netlink_nftables::Client;

fn main() -> Result<(), Box<dyn Error>> {
    let mut nftables = Client::open()?;
    println!("generation {}", nftables.generation()?);
    for table in nftables.tables(None)? {
        let key = table.table.key;
        println!("table {key} # handle {}", table.handle);
        for chain in nftables.chains(&key)? {
            let chain = chain.object;
            let rules = nftables.rules(&key, Some(&chain.name))?;
            let hook = match &chain.base {
                Some(base) => format!(", {:?} {}", base.hook, base.priority),
                None => String::new(),
            };
            println!("  chain {}{hook}: {} rules", chain.name, rules.len());
        }
        for set in nftables.sets(&key)? {
            let elements = nftables.elements(&key, &set.object.name)?;
            println!("  set {}: {} elements", set.object.name, elements.len());
        }
    }
    Ok(())
}
