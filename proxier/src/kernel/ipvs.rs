//! IPVS: operations to commands, dumps to state.

use std::sync::Arc;

use netlink_ipvs::{
    Client, Command, ErrorKind, RealServer, VirtualServer, VirtualServerConfig, VirtualServerEntry,
    VirtualServerKey,
};

use super::op_error;
use super::write::lost_answer;
use crate::dataplane::{
    Connections, Counted, FoundServer, Op, OpError, OpErrorKind, VirtualServerState,
};

/// IPVS of this network namespace.
#[derive(Debug)]
pub(super) struct Ipvs {
    client: Client,
}

impl Ipvs {
    pub(super) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Some virtual servers with their real servers, each by itself.
    pub(super) fn virtual_servers(
        &mut self,
        keys: &[VirtualServerKey],
    ) -> Vec<(VirtualServerKey, FoundServer)> {
        keys.iter().map(|key| (*key, self.virtual_server(*key))).collect()
    }

    fn virtual_server(&mut self, key: VirtualServerKey) -> FoundServer {
        let entry = match self.client.virtual_server(key) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            entry => entry.map_err(failed)?,
        };
        let mut real_servers: Vec<RealServer> =
            self.counted(key)?.into_iter().map(|(server, _)| server).collect();
        real_servers.sort_unstable_by_key(|real| real.key);
        let config = entry.server.config;
        Ok(Some(Arc::new(VirtualServerState { config, real_servers: real_servers.into() })))
    }

    /// The real servers of some virtual servers with their connections, each by itself.
    pub(super) fn real_servers(
        &mut self,
        keys: &[VirtualServerKey],
    ) -> Vec<(VirtualServerKey, Result<Counted, OpError>)> {
        keys.iter().map(|key| (*key, self.counted(*key))).collect()
    }

    fn counted(&mut self, key: VirtualServerKey) -> Result<Counted, OpError> {
        let entries = self.client.real_servers(key).map_err(failed)?;
        let counted = entries.into_iter().map(|entry| {
            let (active, inactive) = (entry.connections.active, entry.connections.inactive);
            (entry.server, Connections { active, inactive })
        });
        Ok(counted.collect())
    }

    /// Carries out operations on virtual and real servers; those that failed, by their index.
    pub(super) fn execute(&mut self, ops: &[&Op]) -> Vec<(usize, OpError)> {
        let report = self.client.execute(ops.iter().filter_map(|op| command(op)));
        let failed = report.failed.into_iter().map(|(at, error)| (at, failed(error)));
        let lost = report.uncertain.into_iter().flatten().map(|at| (at, lost_answer()));
        let mut out: Vec<_> = failed.chain(lost).collect();
        out.sort_unstable_by_key(|(at, _)| *at);
        out
    }
}

/// A list of the virtual servers of this network namespace, in pieces.
#[derive(Debug)]
pub(super) struct Listing(netlink_ipvs::VirtualServers);

impl Listing {
    /// Begins, over a connection of its own.
    pub(super) fn begin() -> Result<Self, OpError> {
        Client::open().and_then(Client::into_virtual_servers).map(Self).map_err(failed)
    }

    /// The next of them; none is the end.
    pub(super) fn next(&mut self) -> Result<Vec<(VirtualServerKey, VirtualServerConfig)>, OpError> {
        let entry = |entry: VirtualServerEntry| (entry.server.key, entry.server.config);
        let piece = self.0.find(|piece| !piece.as_ref().is_ok_and(Vec::is_empty));
        let piece = piece.transpose().map_err(failed)?.unwrap_or_default();
        Ok(piece.into_iter().map(entry).collect())
    }
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
        ErrorKind::Exists | ErrorKind::NotFound | ErrorKind::Uncertain => OpErrorKind::Unknown,
        ErrorKind::Unsupported => OpErrorKind::Unsupported,
        _ => OpErrorKind::Failed,
    };
    op_error(kind, &error)
}
