//! Tables of nftables, whoever made them: found, read, and those that somebody has left deleted.

use netlink_batch::{Error, ErrorKind};
use netlink_ipvs::Family;
use netlink_nftables::{Client, Rule, TableKey, Transaction};

use crate::nftables::{self, Content};

/// A connection to the nftables of the network namespace in which it was opened.
#[derive(Debug)]
pub struct Tables {
    client: Client,
}

impl Tables {
    /// Opens a connection.
    ///
    /// # Errors
    /// If the kernel has no netfilter.
    pub fn open() -> Result<Self, Error> {
        Ok(Self { client: Client::open()? })
    }

    /// Whether a table is there. A kernel without nftables has none.
    ///
    /// # Errors
    /// [`ErrorKind::NoPermission`] without `CAP_NET_ADMIN`.
    pub fn has(&mut self, name: &str, family: Family) -> Result<bool, Error> {
        match self.client.table(&key(name, family)) {
            Ok(found) => Ok(found.is_some()),
            // What a kernel answers that does not know the subsystem.
            Err(error) if is_absent(error.kind()) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Every table with everything in it, whoever made it. A kernel without nftables has none.
    ///
    /// # Errors
    /// See [`has`](Self::has).
    pub fn contents(&mut self) -> Result<Vec<Content>, Error> {
        let tables = match self.client.tables(None) {
            Ok(tables) => tables,
            Err(error) if is_absent(error.kind()) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        tables.into_iter().map(|entry| self.content(entry.table.key)).collect()
    }

    fn content(&mut self, key: TableKey) -> Result<Content, Error> {
        let mut sets = Vec::new();
        for set in self.client.sets(&key)? {
            let elements = self.client.elements(&key, &set.object.name)?;
            sets.push((set.object, elements.into_iter().map(|entry| entry.element).collect()));
        }
        let all: Vec<Rule> =
            self.client.rules(&key, None)?.into_iter().map(|entry| entry.object).collect();
        let chains = self.client.chains(&key)?.into_iter().map(|entry| {
            let of = |rule: &&Rule| rule.chain == entry.object.name;
            let rules = all.iter().filter(of).cloned().collect();
            (entry.object, rules)
        });
        let chains = chains.collect();
        Ok(Content { key, chains, sets })
    }

    /// Deletes it, at once with everything in it. There may be none.
    ///
    /// # Errors
    /// See [`has`](Self::has).
    pub fn delete(&mut self, name: &str, family: Family) -> Result<(), Error> {
        let mut transaction = Transaction::new();
        transaction.delete_table(&key(name, family));
        match self.client.commit(&transaction, None) {
            Ok(()) => Ok(()),
            Err(refused) if is_absent(refused.kind()) => Ok(()),
            Err(refused) => {
                let operation = format!("delete the {family} table {name}");
                Err(Error::failed(operation, refused.failure().clone()))
            }
        }
    }
}

fn is_absent(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::Invalid | ErrorKind::Unsupported)
}

fn key(name: &str, family: Family) -> TableKey {
    TableKey { name: name.to_owned(), ..nftables::table(family) }
}
