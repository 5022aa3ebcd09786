//! IP addresses, CIDRs and `IP:port` texts with the tolerance of Kubernetes: leading zeros in IPv4
//! octets are decimal, and an IPv4-mapped IPv6 address is the IPv4 address.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

/// Reads an address.
pub fn parse_ip(text: &str) -> Option<IpAddr> {
    if text.contains(':') {
        return text.parse::<Ipv6Addr>().ok().map(|ip| IpAddr::V6(ip).to_canonical());
    }
    let mut octets = [0; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        *octet = decimal(parts.next()?)?;
    }
    parts.next().is_none().then(|| IpAddr::from(octets))
}

/// Reads a CIDR and clears its host bits.
pub fn parse_cidr(text: &str) -> Option<IpNet> {
    let (address, prefix) = text.split_once('/')?;
    let (ip, prefix) = (parse_ip(address)?, decimal(prefix)?);
    let mapped = ip.is_ipv4() && address.contains(':');
    let prefix = if mapped { prefix.checked_sub(96)? } else { prefix };
    IpNet::new(ip, prefix).ok().map(|net| net.trunc())
}

/// Splits `host:port` and `[host]:port`.
pub fn split_host_port(text: &str) -> Option<(&str, &str)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => rest.split_once("]:")?,
        None => text.rsplit_once(':').filter(|(host, _)| !host.contains(':'))?,
    };
    let bracket = |c: char| c == '[' || c == ']';
    (!host.contains(bracket) && !port.contains(bracket) && !port.contains(':'))
        .then_some((host, port))
}

/// Appends the port to a text that is an address; anything else stays as it is.
pub fn with_port(text: &str, port: u16) -> String {
    match parse_ip(text) {
        Some(IpAddr::V4(_)) if !text.contains(':') => format!("{text}:{port}"),
        Some(_) => format!("[{text}]:{port}"),
        None => text.to_owned(),
    }
}

fn decimal(text: &str) -> Option<u8> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_kubernetes_does() {
        let ip = |text: &str| parse_ip(text).map(|ip| ip.to_string());
        assert_eq!(ip("010.0.0.08").as_deref(), Some("10.0.0.8"));
        assert_eq!(ip("010.00.000.0000000001").as_deref(), Some("10.0.0.1"));
        assert_eq!(ip("::ffff:1.2.3.4").as_deref(), Some("1.2.3.4"));
        assert_eq!(ip("FD00:0::1").as_deref(), Some("fd00::1"));
        for text in [
            "",
            " 1.2.3.4",
            "1.2.3",
            "1.2.3.4.5",
            "256.1.1.1",
            "1.2.3.99999999999999999999",
            "1.2.3.+4",
            "0x0a.0.0.1",
            "[::]",
            "fe80::1%eth0",
        ] {
            assert_eq!(ip(text), None, "{text}");
        }
        assert_eq!(parse_cidr("010.1.2.3/08").unwrap().to_string(), "10.0.0.0/8");
        for text in
            ["10.0.0.0", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "2001:db8:xyz/64", "::0"]
        {
            assert_eq!(parse_cidr(text), None, "{text}");
        }
    }

    #[test]
    fn a_mapped_network_is_an_ipv4_network() {
        let cidr = |text: &str| parse_cidr(text).map(|net| net.to_string());
        assert_eq!(cidr("::ffff:10.1.2.3/112").as_deref(), Some("10.1.0.0/16"));
        assert_eq!(cidr("::ffff:10.1.2.3/64"), None);
        assert_eq!(cidr("2001:db8::1.2.3.4/32").as_deref(), Some("2001:db8::/32"));
    }

    #[test]
    fn host_and_port_are_split_as_go_does() {
        assert_eq!(split_host_port("1.2.3.4:80"), Some(("1.2.3.4", "80")));
        assert_eq!(split_host_port("[fd00::1]:80"), Some(("fd00::1", "80")));
        assert_eq!(split_host_port(":80"), Some(("", "80")));
        for text in ["1.2.3.4", "fd00::1", "[fd00::1]", "fd00::1:80:", "[a]b:1", "[[a]:1", ""] {
            assert_eq!(split_host_port(text), None, "{text}");
        }
    }

    /// Acceptance row L44.
    #[test]
    fn a_port_is_appended_where_it_is_missing() {
        for (text, expected) in [
            ("1.2.3.4", "1.2.3.4:12345"),
            ("1.2.3.4:10256", "1.2.3.4:10256"),
            ("fd00:1::5", "[fd00:1::5]:12345"),
            ("[fd00:1::5]:10256", "[fd00:1::5]:10256"),
            ("[fd00:1::5]", "[fd00:1::5]"),
            ("foo", "foo"),
        ] {
            assert_eq!(with_port(text, 12345), expected);
        }
    }
}
