//! IPVS messages as typed values for any netlink transport.
//!
//! [`IpvsMessage`] is the payload of a [`GenlMessage`](netlink_packet_generic::GenlMessage): with
//! a transport of your own (`netlink-proto`, an async socket) you need nothing else of this
//! crate.
//!
//! The tree is what the bytes say: a [`Command`] becomes one by way of the bytes that
//! [`Client`](crate::Client) sends.

mod attribute;

use netlink_batch::{Attributes, Malformed};
use netlink_packet_core::{DecodeError, Emitable, ParseableParametrized};
use netlink_packet_generic::{GenlFamily, GenlHeader};

pub use self::attribute::{
    AddressBytes, DaemonAttribute, DestinationAttribute, FlagsAndMask, InfoAttribute,
    IpvsAttribute, NetworkPort, ServiceAttribute, Stats64Attribute, StatsAttribute,
};
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
    /// `IPVS_CMD_*` of `uapi/linux/ip_vs.h`.
    pub command: u8,
    /// What it carries.
    pub attributes: IpvsAttributes,
}

/// The attributes of a message; their numbers depend on the command.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum IpvsAttributes {
    /// Of all commands but `SET_INFO`.
    Common(Vec<IpvsAttribute>),
    /// Of `SET_INFO`, the reply to `GET_INFO`.
    Info(Vec<InfoAttribute>),
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

    /// Reads the message as a virtual server (a reply to `GET_SERVICE`).
    pub fn to_virtual_server(&self) -> Result<VirtualServerEntry, DecodeError> {
        self.read(decode::virtual_server)
    }

    /// Reads the message as a real server (a reply to `GET_DEST`). Kernels before 3.18 do not
    /// send its family: then it is the virtual server's.
    pub fn to_real_server(&self, virtual_server: Family) -> Result<RealServerEntry, DecodeError> {
        self.read(|attributes| decode::real_server(attributes, virtual_server))
    }

    /// Reads the message as a synchronisation daemon (a reply to `GET_DAEMON`).
    pub fn to_sync_daemon(&self) -> Result<SyncDaemon, DecodeError> {
        self.read(decode::sync_daemon)
    }

    /// Reads the message as timeouts (a reply to `GET_CONFIG`).
    pub fn to_timeouts(&self) -> Result<Timeouts, DecodeError> {
        self.read(decode::timeouts)
    }

    /// Reads the message as version and size (a reply to `GET_INFO`).
    pub fn to_info(&self) -> Result<Info, DecodeError> {
        self.read(decode::info)
    }

    /// Reads the message as a request to change something.
    pub fn to_command(&self) -> Result<Command, DecodeError> {
        self.read(|attributes| decode::command(self.command, attributes))
    }

    fn request(command: u8, body: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut bytes = Vec::new();
        body(&mut bytes);
        // A property test holds that what is written here is read.
        let attributes = attribute::parse_list(&bytes).unwrap_or_default();
        Self { command, attributes: IpvsAttributes::Common(attributes) }
    }

    fn read<T>(
        &self,
        decode: impl FnOnce(Attributes<'_>) -> Result<T, Malformed>,
    ) -> Result<T, DecodeError> {
        let length = self.buffer_len();
        if length > usize::from(u16::MAX) {
            return Err("message longer than an attribute can be".into());
        }
        let mut bytes = vec![0; length];
        self.emit(&mut bytes);
        decode(Attributes(&bytes)).map_err(|malformed| malformed.to_string().into())
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
        match &self.attributes {
            IpvsAttributes::Common(list) => list.as_slice().buffer_len(),
            IpvsAttributes::Info(list) => list.as_slice().buffer_len(),
        }
    }

    fn emit(&self, buffer: &mut [u8]) {
        match &self.attributes {
            IpvsAttributes::Common(list) => list.as_slice().emit(buffer),
            IpvsAttributes::Info(list) => list.as_slice().emit(buffer),
        }
    }
}

impl ParseableParametrized<[u8], GenlHeader> for IpvsMessage {
    fn parse_with_param(payload: &[u8], header: GenlHeader) -> Result<Self, DecodeError> {
        let attributes = if header.cmd == cmd::SET_INFO {
            IpvsAttributes::Info(attribute::parse_list(payload)?)
        } else {
            IpvsAttributes::Common(attribute::parse_list(payload)?)
        };
        Ok(Self { command: header.cmd, attributes })
    }
}
