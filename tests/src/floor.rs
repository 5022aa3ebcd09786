//! How fast a kernel can be programmed at all: the messages are encoded beforehand and sent by a
//! loop that does nothing else. What the daemon takes for the same is quoted as a multiple of this.

pub(crate) mod message;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use dummy_iface::{AddressChange, DummyInterface};
use netlink_ipvs::{
    Batch, Client, Command, Family, Limits, Protocol, RealServer, RealServerConfig, RealServerKey,
    Scheduler, VirtualServer, VirtualServerConfig, VirtualServerKey,
};
use netlink_sys::protocols::{NETLINK_GENERIC, NETLINK_ROUTE};
use netlink_sys::{Socket, SocketAddr};
use rustix::net::sockopt;
use serde_json::{Value, json};

use self::message::new_address;

/// How much is programmed: one address, one virtual server and some real servers per service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Number of services, at most 2^20.
    pub services: u32,
    /// Real servers of each.
    pub endpoints: u32,
}

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// A loop over messages that were encoded before.
    Loop,
    /// The crates netlink-ipvs and dummy-iface, which encode while they send.
    Crates,
}

/// One kind of objects, encoded.
pub(crate) struct Part {
    name: &'static str,
    protocol: isize,
    messages: usize,
    sends: Vec<Send>,
}

/// What goes into one system call; only its last message asks for an acknowledgement.
struct Send {
    bytes: Vec<u8>,
    last_sequence: u32,
}

/// Programs the network namespace that it runs in, which must be new, and says how long each part
/// took. What is there afterwards is counted.
pub fn measure(size: Size, via: Via, limits: Limits) -> Result<Value> {
    let mut client = Client::open().context("IPVS")?;
    let (interface, _) = DummyInterface::ensure("floor0")?;
    // The scheduler's module is loaded with the first virtual server.
    client.run(Command::AddVirtualServer(Size::virtual_server(0)))?;
    client.run(Command::Flush)?;

    let parts = match via {
        Via::Loop => [
            Part::of_commands("virtual servers", &client, limits, size.virtual_servers()),
            Part::of_commands("real servers", &client, limits, size.real_servers()),
            Part::of_messages(
                "addresses",
                NETLINK_ROUTE,
                size.addresses().map(|address| new_address(address.into(), interface.index())),
                limits,
            ),
        ]
        .iter()
        .map(Part::send)
        .collect::<Result<Vec<_>>>()?,
        Via::Crates => vec![
            through_client("virtual servers", &mut client, size.virtual_servers())?,
            through_client("real servers", &mut client, size.real_servers())?,
            through_interface(&interface, size)?,
        ],
    };

    let (virtual_servers, by_netlink) = timed(|| client.virtual_servers())?;
    let (real_servers, by_each) = timed(|| {
        virtual_servers.iter().try_fold(0, |sum, entry| {
            Ok::<_, netlink_ipvs::Error>(sum + client.real_servers(entry.server.key)?.len())
        })
    })?;
    let there = [virtual_servers.len(), real_servers, interface.addresses()?.len()];
    ensure!(there == size.counts(), "{there:?} are there instead of {:?}", size.counts());

    let seconds: f64 = parts.iter().filter_map(|part| part["seconds"].as_f64()).sum();
    Ok(json!({
        "kernel": rustix::system::uname().release().to_string_lossy(),
        "services": size.services,
        "endpoints": size.endpoints,
        "via": match via { Via::Loop => "loop", Via::Crates => "crates" },
        "bytes_per_send": limits.bytes,
        "messages_per_send": limits.commands,
        "parts": parts,
        "seconds": seconds,
        "read_back": {
            "virtual_servers_seconds": by_netlink.as_secs_f64(),
            "real_servers_seconds": by_each.as_secs_f64(),
        },
    }))
}

// === impl Size ===

impl Size {
    fn counts(self) -> [usize; 3] {
        let services = self.services as usize;
        [services, services * self.endpoints as usize, services]
    }

    fn address(index: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(Ipv4Addr::new(10, 96, 0, 0).to_bits() + index)
    }

    fn addresses(self) -> impl Iterator<Item = Ipv4Addr> {
        (0..self.services).map(Self::address)
    }

    fn key(index: u32) -> VirtualServerKey {
        VirtualServerKey::new(Self::address(index).into(), 80, Protocol::Tcp)
    }

    fn virtual_server(index: u32) -> VirtualServer {
        let config = VirtualServerConfig::new(Scheduler::RR, Family::Ipv4);
        VirtualServer { key: Self::key(index), config }
    }

    fn virtual_servers(self) -> impl Iterator<Item = Command> {
        (0..self.services).map(|index| Command::AddVirtualServer(Self::virtual_server(index)))
    }

    /// As many pods as half the services: a pod is in several services, like in a real cluster.
    fn real_servers(self) -> impl Iterator<Item = Command> {
        let pods = (self.services / 2).max(self.endpoints);
        (0..self.services).flat_map(move |service| {
            (0..self.endpoints).map(move |endpoint| {
                let pod = (service * self.endpoints + endpoint) % pods;
                let address = Ipv4Addr::from_bits(Ipv4Addr::new(10, 128, 0, 0).to_bits() + pod);
                let key = RealServerKey::new(address.into(), 8080);
                let config = RealServerConfig::masquerade(1);
                Command::AddRealServer(Self::key(service), RealServer { key, config })
            })
        })
    }
}

// === impl Part ===

impl Part {
    pub(crate) fn of_commands(
        name: &'static str,
        client: &Client,
        limits: Limits,
        commands: impl Iterator<Item = Command>,
    ) -> Self {
        let mut part = Self { name, protocol: NETLINK_GENERIC, messages: 0, sends: Vec::new() };
        let mut batch = Batch::new(client.family_id(), limits);
        for command in commands {
            if !batch.has_room() {
                part.push_batch(&mut batch);
            }
            batch.push(command);
        }
        part.push_batch(&mut batch);
        part
    }

    fn push_batch(&mut self, batch: &mut Batch) {
        if !batch.is_empty() {
            let bytes = batch.bytes().to_vec();
            self.messages += batch.len();
            // A batch numbers its messages from the number it was cleared with.
            let last_sequence = (self.messages - 1) as u32;
            self.sends.push(Send { bytes, last_sequence });
        }
        batch.clear(self.messages as u32);
    }

    /// Complete messages; numbers and the request for an acknowledgement are added.
    pub(crate) fn of_messages(
        name: &'static str,
        protocol: isize,
        messages: impl Iterator<Item = Vec<u8>>,
        limits: Limits,
    ) -> Self {
        const ACK: u8 = 4;
        let mut part = Self { name, protocol, messages: 0, sends: Vec::new() };
        let mut messages = messages.peekable();
        let (mut bytes, mut here) = (Vec::new(), 0);
        while let Some(mut message) = messages.next() {
            message[8..12].copy_from_slice(&(part.messages as u32).to_ne_bytes());
            here += 1;
            let next = bytes.len() + message.len() + messages.peek().map_or(0, Vec::len);
            let last = messages.peek().is_none() || here == limits.commands || next > limits.bytes;
            message[6] |= if last { ACK } else { 0 };
            bytes.extend(message);
            if last {
                let bytes = std::mem::take(&mut bytes);
                part.sends.push(Send { bytes, last_sequence: part.messages as u32 });
                here = 0;
            }
            part.messages += 1;
        }
        part
    }

    /// The loop.
    pub(crate) fn send(&self) -> Result<Value> {
        let mut socket = Socket::new(self.protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        sockopt::set_socket_recv_buffer_size_force(&socket, 8 << 20)?;
        sockopt::set_socket_send_buffer_size_force(&socket, 4 << 20)?;
        let mut reply = Vec::with_capacity(32 << 10);
        let start = Instant::now();
        for send in &self.sends {
            socket.send(&send.bytes, 0).with_context(|| format!("send {}", self.name))?;
            reply.clear();
            socket.recv(&mut reply, 0)?;
            acknowledged(&reply, send.last_sequence).with_context(|| self.name)?;
        }
        let bytes = self.sends.iter().map(|send| send.bytes.len()).sum();
        Ok(report(self.name, self.messages, self.sends.len(), bytes, start.elapsed()))
    }
}

/// Errors are reported without asking: the acknowledgement comes first only if there was none.
fn acknowledged(reply: &[u8], sequence: u32) -> Result<()> {
    const NLMSG_ERROR: u16 = 2;
    let Some([_, _, _, _, k0, k1, _, _, s0, s1, s2, s3, _, _, _, _, c0, c1, c2, c3]) =
        reply.first_chunk()
    else {
        bail!("{} bytes instead of a reply", reply.len());
    };
    let kind = u16::from_ne_bytes([*k0, *k1]);
    let of = u32::from_ne_bytes([*s0, *s1, *s2, *s3]);
    let code = i32::from_ne_bytes([*c0, *c1, *c2, *c3]);
    ensure!(
        (kind, of, code) == (NLMSG_ERROR, sequence, 0),
        "message {of}: type {kind}, error {code}"
    );
    Ok(())
}

fn through_client(
    name: &'static str,
    client: &mut Client,
    commands: impl Iterator<Item = Command>,
) -> Result<Value> {
    let start = Instant::now();
    let report = client.execute(commands);
    let elapsed = start.elapsed();
    ensure!(report.is_success(), "{name}: {report:?}");
    Ok(self::report(name, report.sent, report.sends, report.bytes, elapsed))
}

fn through_interface(interface: &DummyInterface, size: Size) -> Result<Value> {
    let start = Instant::now();
    let report =
        interface.apply(size.addresses().map(|address| AddressChange::Add(address.into())));
    let elapsed = start.elapsed();
    ensure!(report.is_success(), "addresses: {report:?}");
    Ok(json!({
        "name": "addresses",
        "messages": report.sent,
        "seconds": elapsed.as_secs_f64(),
    }))
}

fn report(name: &str, messages: usize, sends: usize, bytes: usize, elapsed: Duration) -> Value {
    json!({
        "name": name,
        "messages": messages,
        "sends": sends,
        "bytes": bytes,
        "seconds": elapsed.as_secs_f64(),
    })
}

fn timed<T, E>(read: impl FnOnce() -> Result<T, E>) -> Result<(T, Duration), E> {
    let start = Instant::now();
    let value = read()?;
    Ok((value, start.elapsed()))
}
