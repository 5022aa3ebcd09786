//! Lists the addresses of all interfaces of this machine and the next hops of its default routes.
//! Needs no privilege.
//!
//! ```text
//! cargo run --example host-addresses
//! ```

use dummy_iface::{gateways, host_addresses};

fn main() -> Result<(), dummy_iface::Error> {
    for entry in host_addresses()? {
        println!("{} {} {}/{}", entry.interface, entry.name, entry.address, entry.prefix_len);
    }
    for gateway in gateways()? {
        println!("default via {gateway}");
    }
    Ok(())
}
