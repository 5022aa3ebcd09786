//! The whole table in one read of `/proc/net/ip_vs`.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustix::io::Errno;

use crate::error::{Cause, Operation};
use crate::frame::Malformed;
use crate::{Error, Protocol, RealServerKey, Scheduler};

const PATH: &str = "/proc/thread-self/net/ip_vs";

/// One virtual server of the text, with its real servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableEntry {
    /// Identity.
    pub key: TableKey,
    /// How connections are distributed.
    pub scheduler: Scheduler,
    /// Whether every UDP packet is scheduled on its own.
    pub one_packet: bool,
    /// Whether connections of one client stay with one real server.
    pub persistent: bool,
    /// The last added first.
    pub real_servers: Vec<TableRealServer>,
}

/// Identity of a virtual server in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TableKey {
    /// By address.
    Address {
        /// Virtual address.
        address: IpAddr,
        /// Virtual port.
        port: u16,
        /// Transport protocol.
        protocol: Protocol,
    },
    /// By firewall mark; the text does not tell the family.
    FirewallMark(u32),
}

/// A real server of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TableRealServer {
    /// Identity.
    pub key: RealServerKey,
    /// How packets reach it.
    pub method: TableMethod,
    /// Share of new connections.
    pub weight: u32,
    /// Established connections.
    pub active: u32,
    /// Other connections.
    pub inactive: u32,
}

/// Forwarding method of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TableMethod {
    /// `Masq`
    Masquerade,
    /// `Local`
    LocalNode,
    /// `Tunnel`, of any type
    Tunnel,
    /// `Route`
    Direct,
    /// `Bypass`
    Bypass,
}

/// Reads the table of the network namespace that the calling thread is in, from
/// `/proc/thread-self/net/ip_vs`.
///
/// Over netlink the real servers of each virtual server are a dump of their own. The text has all
/// of them at once, but not everything about them: what it leaves out is not in [`TableEntry`],
/// so that what is in it can be compared. Left out are timeouts (in ticks there), netmasks,
/// scheduler flags, the persistence engine, thresholds, the options of tunnels, persistence
/// templates, counters, and the family of a firewall mark.
///
/// Measured in User-mode Linux 6.1 on a busy machine, the best of six:
///
/// | virtual x real servers | [`virtual_servers`] | and [`real_servers`] of each | `read_table` |
/// | --- | --- | --- | --- |
/// | 1,000 x 10 | 0.9 ms | 59 ms | 6 ms |
/// | 10,000 x 2 | 23 ms | 525 ms | 152 ms |
/// | 10,000 x 10 | 122 ms | 1,501 ms | 175 ms |
///
/// System calls are slow there (three for each virtual server, one for every 4 KiB of text), so
/// elsewhere the gap is narrower. Asking for the real servers of several virtual servers in one
/// send does not help: a socket has one dump at a time, the others are refused with `EBUSY`.
///
/// The kernel writes the text 4 KiB at a time: if the table is changed meanwhile, an entry can be
/// missing or come twice. Virtual servers of other protocols than TCP, UDP and SCTP are left out.
/// Fails with [`Unsupported`](crate::ErrorKind::Unsupported) while the module `ip_vs` is not
/// loaded.
///
/// [`virtual_servers`]: crate::Client::virtual_servers
/// [`real_servers`]: crate::Client::real_servers
pub fn read_table() -> Result<Vec<TableEntry>, Error> {
    let failed = |cause| Error::new(Operation::ReadTable, cause);
    let text = fs::read_to_string(PATH).map_err(|error| {
        failed(Cause::System(Errno::from_io_error(&error).unwrap_or(Errno::IO)))
    })?;
    parse(&text).map_err(|Malformed(what)| failed(Cause::Malformed(what)))
}

/// Reads the text.
fn parse(text: &str) -> Result<Vec<TableEntry>, Malformed> {
    let mut entries: Vec<TableEntry> = Vec::new();
    let mut skipping = false;
    for line in text.lines().skip(3) {
        let mut words = line.split_ascii_whitespace();
        let Some(first) = words.next() else { continue };
        if first == "->" {
            if let Some(entry) = entries.last_mut().filter(|_| !skipping) {
                entry.real_servers.push(real_server(words).ok_or(Malformed("real server"))?);
            }
            continue;
        }
        let entry = virtual_server(first, words)?;
        skipping = entry.is_none();
        entries.extend(entry);
    }
    Ok(entries)
}

/// `TCP 0A600001:01BB rr`, `UDP [...]:0035 wrr ops`, `FWM 00000007 wlc persistent 6000 FFFFFFFF`.
/// `None` is one of another protocol.
fn virtual_server<'a>(
    kind: &str,
    mut words: impl Iterator<Item = &'a str>,
) -> Result<Option<TableEntry>, Malformed> {
    let malformed = Malformed("virtual server");
    let target = words.next().ok_or(malformed)?;
    let by_address = |protocol| {
        let (address, port) = endpoint(target)?;
        Some(TableKey::Address { address, port, protocol })
    };
    let key = match kind {
        "TCP" => by_address(Protocol::Tcp),
        "UDP" => by_address(Protocol::Udp),
        "SCTP" => by_address(Protocol::Sctp),
        "FWM" => hex(target).map(TableKey::FirewallMark),
        _ => return Ok(None),
    };
    let scheduler = words.next().and_then(|name| name.parse().ok());
    let mut entry = TableEntry {
        key: key.ok_or(malformed)?,
        scheduler: scheduler.ok_or(malformed)?,
        one_packet: false,
        persistent: false,
        real_servers: Vec::new(),
    };
    for word in words {
        entry.one_packet |= word == "ops";
        entry.persistent |= word == "persistent";
    }
    Ok(Some(entry))
}

/// `0AF40107:20FB      Masq    1      0          0`
fn real_server<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<TableRealServer> {
    let (address, port) = endpoint(words.next()?)?;
    let method = match words.next()? {
        "Masq" => TableMethod::Masquerade,
        "Local" => TableMethod::LocalNode,
        "Tunnel" => TableMethod::Tunnel,
        "Route" => TableMethod::Direct,
        "Bypass" => TableMethod::Bypass,
        _ => return None,
    };
    let mut number = || words.next()?.parse().ok();
    Some(TableRealServer {
        key: RealServerKey::new(address, port),
        method,
        weight: number()?,
        active: number()?,
        inactive: number()?,
    })
}

/// `0A600001:01BB` or `[fd00:0000:0000:0000:0000:0000:0000:0001]:0050`
fn endpoint(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.rsplit_once(':')?;
    let address = match address.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?.into(),
        None => Ipv4Addr::from_bits(hex(address)?).into(),
    };
    Some((address, u16::from_str_radix(port, 16).ok()?))
}

fn hex(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Linux 6.1, after some of the commands in `tests/golden/requests.txt`.
    const TEXT: &str = "\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  0A600002:0050 lc  persistent 1080000 FFFFFF00
TCP  [fd00:0000:0000:0000:0000:0000:0000:0001]:0050 mh persistent 60000 40000000
  -> 0A090909:0050      Tunnel  1      0          0         
  -> [fd00:0000:0000:0000:0000:0000:0000:0007]:1F90      Masq    5      12         345678    
IP_50  0A600007:0000 rr
  -> 0AF40107:0000      Masq    1      0          0         
UDP  0A60000A:0035 wrr ops 
FWM  00000007 wlc 
  -> 0AF40108:0050      Route   3      0          0         
SCTP  [fd00:0000:0000:0000:0000:0000:0000:0010]:1B58 sh 
";

    fn entry(key: TableKey, scheduler: Scheduler) -> TableEntry {
        let real_servers = Vec::new();
        TableEntry { key, scheduler, one_packet: false, persistent: false, real_servers }
    }

    fn address(address: &str, port: u16, protocol: Protocol) -> TableKey {
        TableKey::Address { address: address.parse().unwrap(), port, protocol }
    }

    fn real(
        address: &str,
        port: u16,
        method: TableMethod,
        [weight, active, inactive]: [u32; 3],
    ) -> TableRealServer {
        let key = RealServerKey::new(address.parse().unwrap(), port);
        TableRealServer { key, method, weight, active, inactive }
    }

    #[test]
    fn the_whole_table_is_read() {
        let persistent = |key, scheduler| TableEntry { persistent: true, ..entry(key, scheduler) };
        let lc = persistent(address("10.96.0.2", 80, Protocol::Tcp), Scheduler::LC);
        let mut mh = persistent(address("fd00::1", 80, Protocol::Tcp), Scheduler::MH);
        mh.real_servers = vec![
            real("10.9.9.9", 80, TableMethod::Tunnel, [1, 0, 0]),
            real("fd00::7", 8080, TableMethod::Masquerade, [5, 12, 345_678]),
        ];
        let mut wrr = entry(address("10.96.0.10", 53, Protocol::Udp), Scheduler::WRR);
        wrr.one_packet = true;
        let mut wlc = entry(TableKey::FirewallMark(7), Scheduler::WLC);
        wlc.real_servers = vec![real("10.244.1.8", 80, TableMethod::Direct, [3, 0, 0])];
        let sh = entry(address("fd00::10", 7000, Protocol::Sctp), Scheduler::SH);
        assert_eq!(parse(TEXT), Ok(vec![lc, mh, wrr, wlc, sh]));
    }

    #[test]
    fn cut_text_is_an_error_or_shorter_but_never_a_panic() {
        for end in 0..TEXT.len() {
            let _ = parse(&TEXT[..end]);
        }
        let cut = TEXT.find("12         345678").unwrap();
        assert_eq!(parse(&TEXT[..cut]), Err(Malformed("real server")));
    }
}
