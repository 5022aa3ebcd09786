//! Values as registers and sets hold them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes as the kernel compares them: a key, a piece of a packet, a mark.
///
/// Addresses, ports and protocol numbers are in network byte order, marks, interface indexes and
/// bit fields of conntrack in the byte order of this machine. At most [`Value::MAX`] bytes are of
/// use; the kernel refuses more.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Value(Box<[u8]>);

impl Value {
    /// `NFT_DATA_VALUE_MAXLEN`: bytes of the longest value.
    pub const MAX: usize = 64;
    /// `IFNAMSIZ`: bytes of an interface name in a set or a comparison of a whole name.
    const INTERFACE_NAME: usize = 16;

    /// These bytes.
    pub fn new(bytes: impl Into<Box<[u8]>>) -> Self {
        Self(bytes.into())
    }

    /// A protocol number (`inet_proto`), or any number of one byte.
    pub fn byte(value: u8) -> Self {
        Self::new([value])
    }

    /// A port (`inet_service`), or any number of two bytes in network byte order.
    pub fn port(port: u16) -> Self {
        Self::new(port.to_be_bytes())
    }

    /// A mark, or any number of four bytes in the byte order of this machine.
    pub fn mark(mark: u32) -> Self {
        Self::new(mark.to_ne_bytes())
    }

    /// An interface name (`ifname`), filled up with zeros. What is beyond 15 bytes is cut off: no
    /// interface has such a name.
    pub fn interface(name: &str) -> Self {
        let mut bytes = [0; Self::INTERFACE_NAME];
        let given = name.bytes().take(Self::INTERFACE_NAME - 1);
        bytes.iter_mut().zip(given).for_each(|(byte, given)| *byte = given);
        Self::new(bytes)
    }

    /// The parts one after the other, each filled up with zeros to a multiple of four bytes, as
    /// the registers hold a concatenation and a set its key.
    pub fn concatenation<'a>(parts: impl IntoIterator<Item = &'a Value>) -> Self {
        let mut bytes = Vec::new();
        for Value(part) in parts {
            bytes.extend_from_slice(part);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        Self::new(bytes)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<Ipv4Addr> for Value {
    fn from(address: Ipv4Addr) -> Self {
        Self::new(address.octets())
    }
}

impl From<Ipv6Addr> for Value {
    fn from(address: Ipv6Addr) -> Self {
        Self::new(address.octets())
    }
}

impl From<IpAddr> for Value {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => address.into(),
        }
    }
}

/// `0x0a600001`
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("0x")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_concatenation_begin_at_multiples_of_four() {
        let parts = [Value::from(Ipv4Addr::new(10, 0, 0, 1)), Value::byte(6), Value::port(80)];
        let key = Value::concatenation(&parts);
        assert_eq!(key.as_bytes(), [10, 0, 0, 1, 6, 0, 0, 0, 0, 80, 0, 0]);
        assert_eq!(format!("{key:?}"), "0x0a0000010600000000500000");
    }

    #[test]
    fn an_interface_name_fills_its_field_and_ends_with_zero() {
        assert_eq!(Value::interface("lo").as_bytes(), b"lo\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        assert_eq!(Value::interface("0123456789abcdef").as_bytes(), b"0123456789abcde\0");
    }
}
