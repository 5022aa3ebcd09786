//! By which interface a node reaches whom.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Networks with the interfaces that lead there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routes(Vec<(IpNet, String)>);

impl Routes {
    /// From `/proc/net/route` and `/proc/net/ipv6_route`, the kernel's main tables. Lines that say something
    /// else are passed over.
    pub fn read(ipv4: &str, ipv6: &str) -> Self {
        let all = ipv4.lines().filter_map(of_ipv4).chain(ipv6.lines().filter_map(of_ipv6));
        Self(all.collect())
    }

    /// The interface that leads to an address: the longest network that has it.
    pub fn to(&self, address: IpAddr) -> Option<String> {
        let of = self.0.iter().filter(|(net, _)| net.contains(&address));
        of.max_by_key(|(net, _)| net.prefix_len()).map(|(_, name)| name.clone())
    }
}

/// `eth0 00020A0A 00000000 0001 0 0 0 00FFFFFF ...`: little-endian on the machines that write it so.
fn of_ipv4(line: &str) -> Option<(IpNet, String)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [name, net, _, _, _, _, _, mask, ..] = words[..] else { return None };
    let address = |text| u32::from_str_radix(text, 16).ok().map(u32::to_ne_bytes);
    let length = u32::from_be_bytes(address(mask)?).leading_ones();
    let net = IpNet::new(Ipv4Addr::from(address(net)?).into(), u8::try_from(length).ok()?).ok()?;
    Some((net, name.to_owned()))
}

/// `fd00... 40 :: 00 :: metric refcount use flags eth0`
fn of_ipv6(line: &str) -> Option<(IpNet, String)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [net, length, _, _, _, _, _, _, _, name] = words[..] else { return None };
    // Local and unreachable ones lead nowhere else.
    if name == "lo" {
        return None;
    }
    let address = Ipv6Addr::from(u128::from_str_radix(net, 16).ok()?);
    let net = IpNet::new(address.into(), u8::from_str_radix(length, 16).ok()?).ok()?;
    Some((net, name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_network_leads() {
        let ipv4 = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\n\
                    eth0\t00000000\t0132A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                    cni0\t0000F40A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        let ipv6 = "fd001000000000000000000000000000 40 00000000000000000000000000000000 00 \
                    00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth1\n";
        let routes = Routes::read(ipv4, ipv6);
        for (address, name) in [
            ("10.244.0.7", Some("cni0")),
            ("10.244.1.7", Some("eth0")),
            ("fd00:1000::1", Some("eth1")),
            ("fd00::1", None),
        ] {
            let address = address.parse::<IpAddr>();
            assert_eq!(address.ok().and_then(|it| routes.to(it)).as_deref(), name);
        }
    }
}
