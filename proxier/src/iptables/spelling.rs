//! One way to say what versions of iptables print in several.
//!
//! Without it a daemon that starts over its own rules would take them for others, and write them again, where
//! iptables prints them in other words than ours. What is not known here is still recognised by the daemon
//! that wrote it, which reads back what iptables made of its words.

use std::net::IpAddr;

use ipnet::IpNet;

/// States in the order in which iptables prints them.
const STATES: [&str; 5] = ["INVALID", "NEW", "RELATED", "ESTABLISHED", "UNTRACKED"];

/// Protocols that our rules name, with their numbers.
const PROTOCOLS: [(&str, &str); 6] = [
    ("1", "icmp"),
    ("6", "tcp"),
    ("17", "udp"),
    ("58", "ipv6-icmp"),
    ("58", "icmpv6"),
    ("132", "sctp"),
];

/// The words of a rule in the usual spelling.
pub(super) fn usual(words: Vec<String>) -> Vec<String> {
    let mut out: Vec<String> = Vec::with_capacity(words.len());
    let mut words = words.into_iter().peekable();
    while let Some(word) = words.next() {
        let option = option(&word);
        if !option.starts_with('-') {
            out.push(word);
            continue;
        }
        if option == "--comment" {
            out.push(word);
            out.extend(words.next());
            continue;
        }
        // Before 1.4.3 the exclamation mark stood behind the option.
        if words.next_if(|next| next == "!").is_some() {
            out.push("!".to_owned());
        }
        let value = words.next_if(|next| next != "!" && !next.starts_with('-'));
        let (option, value) = match value {
            Some(value) => with_value(option, value),
            None => (option, None),
        };
        out.push(option.to_owned());
        out.extend(value);
    }
    out
}

/// The short name of an option that has one.
fn option(word: &str) -> &str {
    match word {
        "--jump" => "-j",
        "--goto" => "-g",
        "--match" => "-m",
        "--protocol" | "--proto" => "-p",
        "--source" | "--src" => "-s",
        "--destination" | "--dst" => "-d",
        "--in-interface" => "-i",
        "--out-interface" => "-o",
        "--state" => "--ctstate",
        other => other,
    }
}

fn with_value(option: &str, value: String) -> (&str, Option<String>) {
    let usual = match option {
        "-m" if value == "state" => Some("conntrack".to_owned()),
        "-p" => protocol(&value).map(|(_, name)| name.to_owned()),
        "--vproto" => protocol(&value).map(|(number, _)| number.to_owned()),
        "-s" | "-d" => network(&value),
        "--vaddr" => network(&value).and_then(|text| host(&text)),
        "--ctstate" => Some(states(&value)),
        "--icmp-type" if value == "echo-request" => Some("8".to_owned()),
        "--icmpv6-type" if value == "echo-request" => Some("128".to_owned()),
        "--mark" => mark(&value).map(|(bits, mask)| match mask {
            u32::MAX => format!("{bits:#x}"),
            mask => format!("{bits:#x}/{mask:#x}"),
        }),
        "--set-xmark" | "--set-mark" | "--xor-mark" | "--or-mark" | "--and-mark" => {
            let Some((bits, mask)) = mark(&value) else { return (option, Some(value)) };
            let (bits, mask) = match option {
                "--set-mark" => (bits, bits | mask),
                "--xor-mark" => (bits, 0),
                "--or-mark" => (bits, bits),
                "--and-mark" => (0, !bits),
                _ => (bits, mask),
            };
            return ("--set-xmark", Some(format!("{bits:#x}/{mask:#x}")));
        }
        _ => None,
    };
    (option, Some(usual.unwrap_or(value)))
}

/// Number and name of a protocol, by either.
fn protocol(text: &str) -> Option<(&'static str, &'static str)> {
    let found = PROTOCOLS.iter().find(|(number, name)| *number == text || *name == text)?;
    // The first name of a number is the usual one.
    PROTOCOLS.iter().find(|(number, _)| *number == found.0).copied()
}

/// An address with the length of its prefix, from one without or with a mask.
fn network(text: &str) -> Option<String> {
    let Some((address, length)) = text.split_once('/') else {
        return text.parse::<IpAddr>().ok().map(|address| IpNet::from(address).to_string());
    };
    let address: IpAddr = address.parse().ok()?;
    let network = match length.parse::<u8>() {
        Ok(length) => IpNet::new(address, length).ok()?,
        Err(_) => IpNet::with_netmask(address, length.parse().ok()?).ok()?,
    };
    Some(network.to_string())
}

/// The address of a network that is one host.
fn host(network: &str) -> Option<String> {
    let network: IpNet = network.parse().ok()?;
    (network.prefix_len() == network.max_prefix_len()).then(|| network.addr().to_string())
}

fn states(text: &str) -> String {
    let mut states: Vec<&str> = text.split(',').collect();
    states.sort_by_key(|state| STATES.iter().position(|known| known == state));
    states.join(",")
}

/// A mark and its mask, in hexadecimal or decimal.
fn mark(text: &str) -> Option<(u32, u32)> {
    let number = |text: &str| match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    let (bits, mask) = match text.split_once('/') {
        Some((bits, mask)) => (bits, number(mask)?),
        None => (text, u32::MAX),
    };
    Some((number(bits)?, mask))
}

#[cfg(test)]
mod tests {
    use crate::iptables::save::canonical;

    #[test]
    fn what_can_be_said_in_several_ways_is_said_in_one() {
        for (printed, ours) in [
            ("-j MARK --xor-mark 0x4000", "-j MARK --set-xmark 0x4000/0x0"),
            ("-j MARK --or-mark 16384", "-j MARK --set-xmark 0x4000/0x4000"),
            ("-j MARK --set-mark 0x1/0x3", "-j MARK --set-xmark 0x1/0x3"),
            ("-j MARK --and-mark 0xffffbfff", "-j MARK --set-xmark 0x0/0x4000"),
            ("-m mark --mark ! 16384/0x4000", "-m mark ! --mark 0x4000/0x4000"),
            ("-m mark --mark 0x1/0xffffffff", "-m mark --mark 0x1"),
            ("-p 132 -j RETURN", "-p sctp -j RETURN"),
            ("-p icmpv6 -m icmp6", "-p ipv6-icmp -m icmp6"),
            ("--protocol tcp --jump X", "-p tcp -j X"),
            ("-m icmp --icmp-type echo-request", "-m icmp --icmp-type 8"),
            ("-s 127.0.0.0/255.0.0.0", "-s 127.0.0.0/8"),
            ("-s 10.0.0.1 -m ipvs --vproto tcp", "-s 10.0.0.1/32 -m ipvs --vproto 6"),
            ("-s fd00:0::4", "-s fd00::4/128"),
            ("-m ipvs --vaddr 10.0.0.1/32", "-m ipvs --vaddr 10.0.0.1"),
            (
                "-m state --state ESTABLISHED,RELATED -j ACCEPT",
                "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            ),
        ] {
            assert_eq!(canonical(printed), ours, "{printed}");
            assert_eq!(canonical(ours), ours);
        }
    }

    #[test]
    fn what_means_something_else_stays_different() {
        for (one, other) in [
            ("-j MARK --xor-mark 0x4000", "-j MARK --or-mark 0x4000"),
            ("-m mark --mark 0x4000/0x4000", "-m mark ! --mark 0x4000/0x4000"),
            ("-p 6 -j RETURN", "-p 17 -j RETURN"),
            ("-s 10.0.0.1/31", "-s 10.0.0.1"),
            ("-m comment --comment \"-p 6\"", "-m comment --comment \"-p tcp\""),
            ("-m conntrack --ctstate NEW", "-m conntrack --ctstate NEW,RELATED"),
        ] {
            assert_ne!(canonical(one), canonical(other), "{one}");
        }
    }
}
