//! The addresses by which this node reaches its API server: known before anything is sent there, so that
//! nobody's Service can take one of them away.

use std::collections::BTreeSet;
use std::fs::File;
use std::future::Future;
use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::Uri;
use hyper::http::uri::Scheme;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use tokio::sync::watch;
use tower::Service;

/// Where the system's name servers are named. The second has those behind the local one of the first.
const RESOLV_CONF: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];
/// Bytes of them that are read.
const MOST_BYTES: u64 = 1 << 16;
/// Addresses that are remembered. Connections outlive the answer that they came from, so that all that
/// were ever used count; a name that has led to more than these is one that makes them up.
const MOST: usize = 256;

/// Someone whom this node talks to on its way to the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Contact {
    /// The API server.
    Server(SocketAddr),
    /// Who knows the address of its name.
    NameServer(IpAddr),
}

/// All of them, shared by every client of a connection.
#[derive(Debug, Clone)]
pub struct Contacts(Arc<watch::Sender<BTreeSet<Contact>>>);

impl Default for Contacts {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(BTreeSet::new())))
    }
}

impl Contacts {
    /// Shows them, as they are now and as they become. What is new is shown before it is used.
    pub fn follow(&self) -> watch::Receiver<BTreeSet<Contact>> {
        let mut receiver = self.0.subscribe();
        receiver.mark_changed();
        receiver
    }

    fn add(&self, contacts: impl IntoIterator<Item = Contact>) {
        let new: BTreeSet<Contact> = contacts.into_iter().collect();
        self.0.send_if_modified(|known| {
            if new.is_subset(known) {
                return false;
            }
            if known.len() + new.len() > MOST {
                known.clear();
            }
            known.extend(new.into_iter().take(MOST));
            true
        });
    }

    /// The server of a URL, if that has an address and not a name.
    pub(super) fn of_url(&self, url: &Uri) {
        let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = host.parse() {
            self.add([Contact::Server(SocketAddr::new(address, port(url)))]);
        }
    }

    /// Finds the addresses of names, and remembers them and who was asked.
    pub(super) fn resolver(&self) -> Resolver {
        Resolver { contacts: self.clone(), system: GaiResolver::new() }
    }
}

fn port(url: &Uri) -> u16 {
    let default = if url.scheme() == Some(&Scheme::HTTP) { 80 } else { 443 };
    url.port_u16().unwrap_or(default)
}

/// The system's resolver, and what it found.
#[derive(Clone)]
pub(super) struct Resolver {
    contacts: Contacts,
    system: GaiResolver,
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.system.poll_ready(context)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let answer = self.system.call(name);
        let contacts = self.contacts.clone();
        Box::pin(async move {
            // A file may hang, as any does.
            let asked = tokio::task::spawn_blocking(name_servers).await.unwrap_or_default();
            contacts.add(asked.into_iter().map(Contact::NameServer));
            let found: Vec<SocketAddr> = answer.await?.collect();
            contacts.add(found.iter().map(|address| Contact::Server(*address)));
            Ok(found.into_iter())
        })
    }
}

fn name_servers() -> BTreeSet<IpAddr> {
    let mut found = BTreeSet::new();
    for path in RESOLV_CONF {
        // A host without the file asks no name server that is known here.
        let Ok(file) = File::open(path) else { continue };
        let mut text = Vec::new();
        if file.take(MOST_BYTES).read_to_end(&mut text).is_ok() {
            found.extend(named(&String::from_utf8_lossy(&text)));
        }
    }
    found
}

/// The name servers of a `resolv.conf`.
fn named(text: &str) -> impl Iterator<Item = IpAddr> + '_ {
    text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let address = (words.next()? == "nameserver").then(|| words.next())??;
        // A link-local address has its interface behind it.
        address.split('%').next()?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_with_an_address_is_a_contact_at_once() {
        for (url, address) in [
            ("https://192.168.1.11:6443", Some("192.168.1.11:6443")),
            ("https://192.168.1.11", Some("192.168.1.11:443")),
            ("http://[2001:db8::1]/prefix", Some("[2001:db8::1]:80")),
            ("https://api.example:6443", None),
        ] {
            let contacts = Contacts::default();
            contacts.of_url(&url.parse().unwrap());
            let wanted = address.map(|text| Contact::Server(text.parse().unwrap()));
            assert_eq!(*contacts.follow().borrow(), wanted.into_iter().collect(), "{url}");
        }
    }

    #[tokio::test]
    async fn a_name_is_known_before_its_answer_is_used() {
        let contacts = Contacts::default();
        let mut seen = contacts.follow();
        seen.mark_unchanged();
        let answer = contacts.resolver().call("localhost".parse().unwrap()).await.unwrap();
        assert!(seen.has_changed().unwrap());
        for address in answer {
            assert!(seen.borrow().contains(&Contact::Server(address)), "{address}");
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let contacts = Contacts::default();
        for number in 0..=u16::MAX {
            let address = IpAddr::from([10, 0, (number >> 8) as u8, number as u8]);
            contacts.add([Contact::NameServer(address)]);
            let known = contacts.follow();
            assert!(
                known.borrow().len() <= MOST
                    && known.borrow().contains(&Contact::NameServer(address))
            );
        }
    }

    #[test]
    fn name_servers_of_resolv_conf() {
        let text = "# by hand\nsearch example\nnameserver 192.0.2.53\nnameserver\tfe80::1%eth0\n\
                    nameserver\nnameserver x\noptions ndots:5\nnameservers 192.0.2.54\n";
        let found: Vec<String> = named(text).map(|address| address.to_string()).collect();
        assert_eq!(found, ["192.0.2.53", "fe80::1"]);
    }
}
