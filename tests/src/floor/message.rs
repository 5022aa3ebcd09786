//! The bytes of messages of which no crate here gives any away.

use std::net::IpAddr;

use proxier::dataplane::sets::Member;

/// `IPSET_CMD_ADD`, as proxier sends it.
pub(crate) fn new_member(set: &str, member: &Member) -> Vec<u8> {
    const ADD: u16 = 6 << 8 | 9;
    const NET_ORDER: u16 = 1 << 14;
    let mut out = Message::new(ADD, 0x201);
    out.bytes.extend([2, 0, 0, 0]);
    out.attribute(1, &[7]);
    out.attribute(2, &[set.as_bytes(), &[0]].concat());
    let data = out.open(7);
    let address = |out: &mut Message, kind: u16, address: IpAddr| {
        let nested = out.open(kind);
        match address {
            IpAddr::V4(ip) => out.attribute(1 | NET_ORDER, &ip.octets()),
            IpAddr::V6(ip) => out.attribute(2 | NET_ORDER, &ip.octets()),
        }
        out.close(nested);
    };
    let endpoint = |out: &mut Message, ip: IpAddr, protocol: u8, port: u16| {
        address(out, 1, ip);
        out.attribute(4 | NET_ORDER, &port.to_be_bytes());
        out.attribute(7, &[protocol]);
    };
    match *member {
        Member::Ip(ip) => address(&mut out, 1, ip),
        Member::Port(port) => out.attribute(4 | NET_ORDER, &port.to_be_bytes()),
        Member::IpPort(ip, protocol, port) => endpoint(&mut out, ip, protocol.number() as u8, port),
        Member::Marked(ip, protocol, port, mark) => {
            endpoint(&mut out, ip, protocol.number() as u8, port);
            if mark != 0 {
                let both = u64::from(mark) << 32 | u64::from(u32::MAX);
                out.attribute(0x1b | NET_ORDER, &both.to_be_bytes());
            }
        }
        Member::IpPortIp(ip, protocol, port, other) => {
            endpoint(&mut out, ip, protocol.number() as u8, port);
            address(&mut out, 20, other);
        }
        Member::IpPortNet(ip, protocol, port, net) => {
            endpoint(&mut out, ip, protocol.number() as u8, port);
            address(&mut out, 20, net.addr());
            if net.prefix_len() < net.max_prefix_len() {
                out.attribute(21, &[net.prefix_len()]);
            }
        }
    }
    out.attribute(9 | NET_ORDER, &[0; 4]);
    out.close(data);
    out.finish()
}

/// `RTM_NEWADDR` of a host address, as dummy-iface sends it.
pub(crate) fn new_address(address: IpAddr, interface: u32) -> Vec<u8> {
    let mut out = Message::new(20, 0x601);
    let (family, prefix) = if address.is_ipv4() { (2, 32) } else { (10, 128) };
    out.bytes.extend([family, prefix, 0, 0]);
    out.bytes.extend(interface.to_ne_bytes());
    let mut both = |octets: &[u8]| {
        out.attribute(2, octets);
        out.attribute(1, octets);
    };
    match address {
        IpAddr::V4(ip) => both(&ip.octets()),
        IpAddr::V6(ip) => both(&ip.octets()),
    }
    out.finish()
}

/// A netlink message that is being written.
struct Message {
    bytes: Vec<u8>,
}

impl Message {
    fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((flags | 0x400 | 1).to_ne_bytes());
        bytes.extend([0; 8]);
        Self { bytes }
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.bytes.extend((value.len() as u16 + 4).to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn open(&mut self, kind: u16) -> usize {
        let start = self.bytes.len();
        self.attribute(kind | 1 << 15, &[]);
        start
    }

    fn close(&mut self, start: usize) {
        let length = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    fn finish(mut self) -> Vec<u8> {
        let length = self.bytes.len() as u32;
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes
    }
}
