//! The kernel's counters for those who ask over HTTP, on a socket of their own.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use netlink_ipvs::{Client, Error, ErrorKind, VirtualServerKey};

use crate::app::host::counting;
use crate::http::{Counted, Table, Totals};
use crate::text::chain;

/// A reader that opens its socket when it is first asked, and again after an error.
pub(in crate::app) fn table() -> Table {
    let client: Mutex<Option<Client>> = Mutex::new(None);
    Arc::new(move |keys| {
        let mut slot = client.lock().unwrap_or_else(PoisonError::into_inner);
        let mut client = match slot.take() {
            Some(client) => client,
            None => Client::open().map_err(|error| chain(&error))?,
        };
        let counted = read(&mut client, keys).map_err(|error| chain(&error))?;
        *slot = Some(client);
        Ok(counted)
    })
}

/// A reader of all virtual servers. One that the loop changes meanwhile may be missing, which costs its place in
/// an order.
pub(in crate::app) fn totals() -> Totals {
    Arc::new(|| {
        let read = || Client::open()?.virtual_servers();
        read().map_err(|error: Error| chain(&error))
    })
}

/// Every virtual server that the kernel has, read once.
pub(in crate::app) fn all() -> Result<Vec<Counted>, String> {
    let read = || {
        let mut client = Client::open()?;
        let servers = client.virtual_servers()?;
        let keys: Vec<VirtualServerKey> = servers.iter().map(|it| it.server.key).collect();
        read(&mut client, &keys)
    };
    read().map_err(|error: Error| chain(&error))
}

/// One by one: a dump of all would miss some while the loop changes others.
fn read(client: &mut Client, keys: &[VirtualServerKey]) -> Result<Vec<Counted>, Error> {
    let mut out = Vec::with_capacity(keys.len());
    let counts = counting::is_on(Path::new("/"));
    for key in keys {
        match client.virtual_server(*key) {
            Ok(server) => {
                let mut real_servers = client.real_servers(*key)?;
                real_servers.sort_unstable_by_key(|entry| entry.server.key);
                out.push(Counted { server, real_servers, counts });
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(out)
}
