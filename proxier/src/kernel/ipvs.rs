//! IPVS: operations to commands, dumps to state.

use std::collections::BTreeMap;
use std::sync::Arc;

use netlink_ipvs::{
    Client, Command, ErrorKind, RealServer, VirtualServer, VirtualServerConfig, VirtualServerEntry,
    VirtualServerKey,
};

use super::{lost, op_error};
use crate::dataplane::{Connections, Op, OpError, OpErrorKind, RealServers, VirtualServerState};

/// IPVS of this network namespace.
#[derive(Debug)]
pub(super) struct Ipvs {
    client: Client,
}

impl Ipvs {
    pub(super) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Every virtual server, without real servers.
    pub(super) fn observe(
        &mut self,
    ) -> Result<BTreeMap<VirtualServerKey, VirtualServerState>, OpError> {
        let servers = self.client.virtual_servers().map_err(failed)?;
        let none = RealServers::from([]);
        let state = |server: VirtualServer| VirtualServerState {
            config: server.config,
            real_servers: Arc::clone(&none),
        };
        Ok(servers.into_iter().map(|entry| (entry.server.key, state(entry.server))).collect())
    }

    /// Gives virtual servers their real servers.
    pub(super) fn fill(
        &mut self,
        servers: &mut BTreeMap<VirtualServerKey, VirtualServerState>,
    ) -> Result<(), OpError> {
        for (key, server) in servers {
            server.real_servers = self.real_servers_of(*key)?;
        }
        Ok(())
    }

    /// Some virtual servers with their real servers, those of them that exist.
    pub(super) fn observe_some(
        &mut self,
        keys: &[VirtualServerKey],
    ) -> Result<BTreeMap<VirtualServerKey, VirtualServerState>, OpError> {
        let mut out = BTreeMap::new();
        for key in keys {
            match self.client.virtual_server(*key) {
                Ok(entry) => {
                    let real_servers = self.real_servers_of(*key)?;
                    let config = entry.server.config;
                    out.insert(*key, VirtualServerState { config, real_servers });
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(out)
    }

    fn real_servers_of(&mut self, key: VirtualServerKey) -> Result<RealServers, OpError> {
        let entries = self.client.real_servers(key).map_err(failed)?;
        let mut real_servers: Vec<RealServer> =
            entries.into_iter().map(|entry| entry.server).collect();
        real_servers.sort_unstable_by_key(|real| real.key);
        Ok(real_servers.into())
    }

    /// The real servers of some virtual servers with their connections.
    pub(super) fn real_servers(
        &mut self,
        keys: &[VirtualServerKey],
    ) -> Result<Vec<(VirtualServerKey, RealServer, Connections)>, OpError> {
        let mut out = Vec::new();
        for key in keys {
            for entry in self.client.real_servers(*key).map_err(failed)? {
                let connections = Connections {
                    active: entry.connections.active,
                    inactive: entry.connections.inactive,
                };
                out.push((*key, entry.server, connections));
            }
        }
        Ok(out)
    }

    /// Carries out operations on virtual and real servers; those that failed, by their index.
    pub(super) fn execute(&mut self, ops: &[Op]) -> Vec<(usize, OpError)> {
        let report = self.client.execute(ops.iter().filter_map(command));
        let mut out: Vec<(usize, OpError)> =
            report.failed.into_iter().map(|(at, error)| (at, failed(error))).collect();
        out.extend(lost(report.uncertain));
        out
    }
}

/// The virtual servers of this network namespace, in pieces, over a connection of its own.
pub(super) fn list() -> Result<
    impl Iterator<Item = Result<Vec<(VirtualServerKey, VirtualServerConfig)>, OpError>>,
    OpError,
> {
    let entry = |entry: VirtualServerEntry| (entry.server.key, entry.server.config);
    let pieces = Client::open().and_then(Client::into_virtual_servers).map_err(failed)?;
    Ok(pieces.map(move |piece| Ok(piece.map_err(failed)?.into_iter().map(entry).collect())))
}

/// The command of an operation; none for those that other parts of the kernel carry out.
fn command(op: &Op) -> Option<Command> {
    Some(match *op {
        Op::AddVirtualServer(key, config) => {
            Command::AddVirtualServer(VirtualServer { key, config })
        }
        Op::SetVirtualServer(key, config) => {
            Command::SetVirtualServer(VirtualServer { key, config })
        }
        Op::RemoveVirtualServer(key) => Command::DeleteVirtualServer(key),
        Op::AddRealServer(key, server) => Command::AddRealServer(key, server),
        Op::SetRealServer(key, server) => Command::SetRealServer(key, server),
        Op::RemoveRealServer(key, server) => Command::DeleteRealServer(key, server),
        _ => return None,
    })
}

#[allow(clippy::needless_pass_by_value, reason = "made for map_err")]
fn failed(error: netlink_ipvs::Error) -> OpError {
    let kind = match error.kind() {
        ErrorKind::Exists | ErrorKind::NotFound | ErrorKind::Uncertain => OpErrorKind::Surprise,
        ErrorKind::NoPermission | ErrorKind::Unsupported | ErrorKind::Invalid => {
            OpErrorKind::Refused
        }
        _ => OpErrorKind::Retry,
    };
    op_error(kind, &error)
}
