//! IPVS messages for any transport of `netlink-packet-generic`.
//!
//! [`IpvsMessage`] is the payload of a [`GenlMessage`](netlink_packet_generic::GenlMessage): with
//! a transport of your own (`netlink-proto`, an async socket) you need nothing else of this
//! crate. Its bytes are those that [`Client`](crate::Client) sends and receives, so that whatever a
//! later kernel adds is kept.

use netlink_batch::{Attributes, Malformed};
use netlink_packet_core::{DecodeError, Emitable, ParseableParametrized};
use netlink_packet_generic::{GenlFamily, GenlHeader};

use crate::wire::{self, cmd};
use crate::{
    decode, encode, Command, Family, Info, RealServerEntry, SyncDaemon, Timeouts,
    VirtualServerEntry, VirtualServerKey,
};

/// A request to IPVS, or a reply from it.
///
/// A request for all of something also needs `NLM_F_DUMP` in the netlink header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpvsMessage {
    command: u8,
    attributes: Vec<u8>,
}

impl IpvsMessage {
    /// Asks for all virtual servers (send with `NLM_F_DUMP`).
    pub fn get_virtual_servers() -> Self {
        Self::request(cmd::GET_SERVICE, |_| ())
    }

    /// Asks for one virtual server.
    pub fn get_virtual_server(key: &VirtualServerKey) -> Self {
        Self::request(cmd::GET_SERVICE, |out| encode::service(out, key))
    }

    /// Asks for the real servers of a virtual server (send with `NLM_F_DUMP`).
    pub fn get_real_servers(key: &VirtualServerKey) -> Self {
        Self::request(cmd::GET_DEST, |out| encode::service(out, key))
    }

    /// Asks for the synchronisation daemons (send with `NLM_F_DUMP`).
    pub fn get_sync_daemons() -> Self {
        Self::request(cmd::GET_DAEMON, |_| ())
    }

    /// Asks for the timeouts of connections.
    pub fn get_timeouts() -> Self {
        Self::request(cmd::GET_CONFIG, |_| ())
    }

    /// Asks for version and size.
    pub fn get_info() -> Self {
        Self::request(cmd::GET_INFO, |_| ())
    }

    /// Its attributes, as they are on the wire (`IPVS_CMD_ATTR_*`; `IPVS_INFO_ATTR_*` in the reply
    /// to `GET_INFO`).
    pub fn attributes(&self) -> Attributes<'_> {
        Attributes(&self.attributes)
    }

    /// Reads the message as a virtual server (a reply to `GET_SERVICE`).
    pub fn to_virtual_server(&self) -> Result<VirtualServerEntry, Malformed> {
        decode::virtual_server(self.attributes())
    }

    /// Reads the message as a real server (a reply to `GET_DEST`). Kernels before 3.18 do not
    /// send its family: then it is the virtual server's.
    pub fn to_real_server(&self, virtual_server: Family) -> Result<RealServerEntry, Malformed> {
        decode::real_server(self.attributes(), virtual_server)
    }

    /// Reads the message as a synchronisation daemon (a reply to `GET_DAEMON`).
    pub fn to_sync_daemon(&self) -> Result<SyncDaemon, Malformed> {
        decode::sync_daemon(self.attributes())
    }

    /// Reads the message as timeouts (a reply to `GET_CONFIG`).
    pub fn to_timeouts(&self) -> Result<Timeouts, Malformed> {
        decode::timeouts(self.attributes())
    }

    /// Reads the message as version and size (a reply to `GET_INFO`).
    pub fn to_info(&self) -> Result<Info, Malformed> {
        decode::info(self.attributes())
    }

    /// Reads the message as a request to change something.
    pub fn to_command(&self) -> Result<Command, Malformed> {
        decode::command(self.command, self.attributes())
    }

    fn request(command: u8, write: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut attributes = Vec::new();
        write(&mut attributes);
        Self { command, attributes }
    }
}

impl From<&Command> for IpvsMessage {
    fn from(command: &Command) -> Self {
        Self::request(encode::command_number(command), |out| encode::body(out, command))
    }
}

impl GenlFamily for IpvsMessage {
    fn family_name() -> &'static str {
        wire::FAMILY_NAME
    }

    fn command(&self) -> u8 {
        self.command
    }

    fn version(&self) -> u8 {
        wire::FAMILY_VERSION
    }
}

impl Emitable for IpvsMessage {
    fn buffer_len(&self) -> usize {
        self.attributes.len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        buffer[..self.attributes.len()].copy_from_slice(&self.attributes);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for IpvsMessage {
    fn parse_with_param(payload: &[u8], header: GenlHeader) -> Result<Self, DecodeError> {
        Ok(Self { command: header.cmd, attributes: payload.to_vec() })
    }
}
