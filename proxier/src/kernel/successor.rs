//! What kube-proxy in another mode, beside us, has in place; and which connections virtual servers have.

use std::collections::BTreeSet;
use std::error::Error as StdError;

use netlink_batch::ErrorKind;
use netlink_ipvs::{
    Client as IpvsClient, ErrorKind as IpvsErrorKind, Family, RealServer, RealServerKey,
    VirtualServerKey,
};
use netlink_nftables::Client;

use super::firewall::Firewall;
use crate::dataplane::RealServers;
use crate::dataplane::hand_over::{Served, Successor};
use crate::nftables::{is_reached, kube_proxy_table, served_maps};
use crate::{iptables, nftables};

/// Where a successor is looked for.
#[derive(Debug)]
pub enum Watched {
    /// In nftables: what was found, and the generation of the ruleset in which that was so.
    Nftables(Client, Option<(u32, Served)>),
    /// In iptables.
    Iptables(Firewall),
}

impl Watched {
    /// Opens what is needed, which is `programs` for iptables, and changes nothing.
    ///
    /// # Errors
    /// If that cannot be had.
    pub fn open(
        successor: Successor,
        programs: impl FnOnce() -> Firewall,
    ) -> Result<Self, Box<dyn StdError + Send + Sync>> {
        Ok(match successor {
            Successor::Nftables => Self::Nftables(Client::open()?, None),
            Successor::Iptables => {
                let firewall = programs();
                firewall.tools(Family::Ipv4)?;
                Self::Iptables(firewall)
            }
        })
    }

    /// What it has. Of nftables that is one message each way as long as nobody has changed anything.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn served(&mut self, families: &[Family]) -> Result<Served, Box<dyn StdError>> {
        match self {
            Self::Nftables(client, known) => {
                let generation = client.generation()?;
                if let Some((_, served)) = known.as_ref().filter(|(then, _)| *then == generation) {
                    return Ok(served.clone());
                }
                let mut served = Served::default();
                for family in families {
                    note_tables(client, *family, &mut served)?;
                }
                *known = Some((generation, served.clone()));
                Ok(served)
            }
            Self::Iptables(firewall) => {
                let mut served = Served::default();
                for family in families {
                    iptables::note_served(&firewall.save_text(*family)?, &mut served);
                }
                Ok(served)
            }
        }
    }
}

fn note_tables(
    client: &mut Client,
    family: Family,
    served: &mut Served,
) -> Result<(), netlink_batch::Error> {
    let table = kube_proxy_table(family);
    let chains: Vec<_> = client.chains(&table)?.into_iter().map(|entry| entry.object).collect();
    if !is_reached(&chains) {
        return Ok(());
    }
    for map in served_maps() {
        match client.elements(&table, map) {
            Ok(elements) => nftables::note_served(family, map, &elements, served),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The open connections of virtual servers.
#[derive(Debug)]
pub struct Open {
    client: IpvsClient,
    /// The real servers that were there when connections were last counted.
    seen: BTreeSet<(VirtualServerKey, RealServerKey)>,
}

impl Open {
    /// Nobody has counted yet.
    pub fn new(client: IpvsClient) -> Self {
        Self { client, seen: BTreeSet::new() }
    }

    /// All together; none if a real server that is wanted was there the last time and is not now: somebody
    /// has removed it, and its connections wait for it.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn count<'a>(
        &mut self,
        wanted: impl IntoIterator<Item = (VirtualServerKey, &'a RealServers)>,
    ) -> Result<Option<u64>, netlink_ipvs::Error> {
        let (mut sum, mut there) = (0, BTreeSet::new());
        for (key, servers) in wanted {
            let found = match self.client.real_servers(key) {
                Err(error) if error.kind() == IpvsErrorKind::NotFound => Vec::new(),
                found => found?,
            };
            for entry in found {
                there.insert((key, entry.server.key));
                sum += u64::from(entry.connections.active) + u64::from(entry.connections.inactive);
            }
            let lost = |server: &RealServer| {
                let server = (key, server.key);
                self.seen.contains(&server) && !there.contains(&server)
            };
            if servers.iter().any(lost) {
                return Ok(None);
            }
        }
        self.seen = there;
        Ok(Some(sum))
    }
}
