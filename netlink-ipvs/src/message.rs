//! IPVS messages as typed values for any netlink transport.
//!
//! [`IpvsMessage`] is the payload of a [`GenlMessage`](netlink_packet_generic::GenlMessage): with
//! a transport of your own (`netlink-proto`, an async socket) you need nothing else of this
//! crate. [`Client`](crate::Client) writes the same bytes without building the tree.

mod attribute;

use netlink_batch::{Attributes, Malformed};
use netlink_packet_core::{DecodeError, Emitable, ParseableParametrized};
use netlink_packet_generic::{GenlFamily, GenlHeader};

pub use self::attribute::{
    AddressBytes, DestinationAttribute, FlagsAndMask, InfoAttribute, IpvsAttribute, NetmaskBytes,
    NetworkPort, ServiceAttribute, Stats64Attribute, StatsAttribute,
};
use crate::wire::{self, cmd};
use crate::{
    Command, Family, Info, RealServer, RealServerEntry, RealServerKey, Timeouts, VirtualServer,
    VirtualServerEntry, VirtualServerKey, decode, encode,
};

/// A request to IPVS, or a reply from it.
///
/// A request for all virtual servers or all real servers also needs `NLM_F_DUMP` in the netlink
/// header.
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
        Self::common(cmd::GET_SERVICE, Vec::new())
    }

    /// Asks for one virtual server.
    pub fn get_virtual_server(key: &VirtualServerKey) -> Self {
        Self::common(cmd::GET_SERVICE, vec![service(key)])
    }

    /// Asks for the real servers of a virtual server (send with `NLM_F_DUMP`).
    pub fn get_real_servers(key: &VirtualServerKey) -> Self {
        Self::common(cmd::GET_DEST, vec![service(key)])
    }

    /// Asks for the timeouts of connections.
    pub fn get_timeouts() -> Self {
        Self::common(cmd::GET_CONFIG, Vec::new())
    }

    /// Asks for version and size.
    pub fn get_info() -> Self {
        Self::common(cmd::GET_INFO, Vec::new())
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

    /// Reads the message as timeouts (a reply to `GET_CONFIG`).
    pub fn to_timeouts(&self) -> Result<Timeouts, DecodeError> {
        self.read(|attributes| decode::timeouts(attributes).map(Some))
    }

    /// Reads the message as version and size (a reply to `GET_INFO`).
    pub fn to_info(&self) -> Result<Info, DecodeError> {
        self.read(|attributes| decode::info(attributes).map(Some))
    }

    /// Reads the message as a request to change something.
    pub fn to_command(&self) -> Result<Command, DecodeError> {
        self.read(|attributes| decode::command(self.command, attributes))
    }

    fn common(command: u8, attributes: Vec<IpvsAttribute>) -> Self {
        Self { command, attributes: IpvsAttributes::Common(attributes) }
    }

    fn read<T>(
        &self,
        decode: impl FnOnce(Attributes<'_>) -> Result<Option<T>, Malformed>,
    ) -> Result<T, DecodeError> {
        let length = self.buffer_len();
        if length > usize::from(u16::MAX) {
            return Err("message longer than an attribute can be".into());
        }
        let mut bytes = vec![0; length];
        self.emit(&mut bytes);
        match decode(Attributes(&bytes)) {
            Ok(Some(value)) => Ok(value),
            Ok(None) => Err("message says what this version cannot represent".into()),
            Err(malformed) => Err(malformed.to_string().into()),
        }
    }
}

impl From<&Command> for IpvsMessage {
    fn from(command: &Command) -> Self {
        let attributes = match command {
            Command::AddVirtualServer(server) | Command::SetVirtualServer(server) => {
                vec![virtual_server(server)]
            }
            Command::DeleteVirtualServer(key) | Command::Zero(Some(key)) => vec![service(key)],
            Command::AddRealServer(key, server) | Command::SetRealServer(key, server) => {
                vec![service(key), real_server(server)]
            }
            Command::DeleteRealServer(key, server) => {
                vec![service(key), IpvsAttribute::Destination(real_server_key(server))]
            }
            Command::SetTimeouts(timeouts) => vec![
                IpvsAttribute::TimeoutTcp(timeouts.tcp),
                IpvsAttribute::TimeoutTcpFin(timeouts.tcp_fin),
                IpvsAttribute::TimeoutUdp(timeouts.udp),
            ],
            Command::Flush | Command::Zero(None) => Vec::new(),
        };
        Self::common(encode::command_number(command), attributes)
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

fn service(key: &VirtualServerKey) -> IpvsAttribute {
    IpvsAttribute::Service(virtual_server_key(key))
}

fn virtual_server_key(key: &VirtualServerKey) -> Vec<ServiceAttribute> {
    let mut attributes = vec![ServiceAttribute::Family(encode::family_number(key.family()))];
    match *key {
        VirtualServerKey::Address { address, port, protocol } => attributes.extend([
            ServiceAttribute::Protocol(protocol.number().into()),
            ServiceAttribute::Address(AddressBytes(encode::address_bytes(address))),
            ServiceAttribute::Port(NetworkPort(port)),
        ]),
        VirtualServerKey::FirewallMark { mark, .. } => {
            attributes.push(ServiceAttribute::FirewallMark(mark));
        }
    }
    attributes
}

fn virtual_server(server: &VirtualServer) -> IpvsAttribute {
    let config = &server.config;
    let mut attributes = virtual_server_key(&server.key);
    attributes.push(ServiceAttribute::Scheduler(config.scheduler.to_string()));
    if let Some(engine) = config.persistence_engine {
        attributes.push(ServiceAttribute::PersistenceEngine(engine.to_string()));
    }
    let netmask = encode::netmask(server.key.family(), config.prefix_len);
    attributes.extend([
        ServiceAttribute::Flags(FlagsAndMask { flags: config.flags.bits(), mask: u32::MAX }),
        ServiceAttribute::Timeout(config.timeout),
        ServiceAttribute::Netmask(NetmaskBytes(netmask)),
    ]);
    IpvsAttribute::Service(attributes)
}

fn real_server_key(key: &RealServerKey) -> Vec<DestinationAttribute> {
    vec![
        DestinationAttribute::Family(encode::family_number(Family::of(key.address))),
        DestinationAttribute::Address(AddressBytes(encode::address_bytes(key.address))),
        DestinationAttribute::Port(NetworkPort(key.port)),
    ]
}

fn real_server(server: &RealServer) -> IpvsAttribute {
    let config = &server.config;
    let (method, tunnel, port, flags) = encode::forwarding_numbers(config.forwarding);
    let mut attributes = real_server_key(&server.key);
    attributes.extend([
        DestinationAttribute::ForwardingMethod(method),
        DestinationAttribute::Weight(config.weight),
        DestinationAttribute::TunnelType(tunnel),
        DestinationAttribute::TunnelPort(NetworkPort(port)),
        DestinationAttribute::TunnelFlags(flags),
        DestinationAttribute::UpperThreshold(config.upper_threshold),
        DestinationAttribute::LowerThreshold(config.lower_threshold),
    ]);
    IpvsAttribute::Destination(attributes)
}
