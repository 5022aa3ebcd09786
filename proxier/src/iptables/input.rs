//! Whether the host's own rules leave a way to IPVS.

use super::save;
use crate::dataplane::firewall::Table;

/// What in this output of `iptables-save` closes `INPUT` to everything that no rule accepts: its
/// policy, or a rule that drops or rejects whatever comes to it. IPVS takes packets to services
/// only after that chain. A rule before it may still accept them; that is not judged here.
pub fn closed_input(save_text: &str) -> Option<String> {
    let filter = Table::Filter.name();
    let policy = save_text
        .split("\n*")
        .find(|section| section.trim_start_matches('*').starts_with(filter))
        .and_then(|section| section.lines().find_map(|line| line.strip_prefix(":INPUT ")))
        .and_then(|policy| policy.split(' ').next());
    if let Some(policy) = policy.filter(|policy| *policy != "ACCEPT") {
        return Some(format!("policy {policy}"));
    }
    save::lines(save_text)
        .filter(|line| line.table == filter && line.chain == "INPUT")
        .filter_map(|line| line.spec)
        .find(|spec| is_last_word(spec))
        .map(|spec| format!("rule `-A INPUT {spec}`"))
}

/// Whether a rule drops or rejects every packet: besides a comment it has no condition.
fn is_last_word(spec: &str) -> bool {
    let words = save::words(spec);
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        match (word, words.next()) {
            ("-m", Some("comment")) | ("--comment", Some(_)) => {}
            ("-j", Some(target)) => return matches!(target, "DROP" | "REJECT"),
            _ => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_or_a_rule_for_everything_closes_input() {
        let nat = "*nat\n:INPUT DROP [0:0]\n-A INPUT -j DROP\nCOMMIT\n";
        for (policy, rules, expected) in [
            ("ACCEPT", "", None),
            ("DROP", "-A INPUT -i lo -j ACCEPT\n", Some("policy DROP")),
            ("ACCEPT", "-A INPUT -j DROP\n", Some("rule `-A INPUT -j DROP`")),
            (
                "ACCEPT",
                "-A INPUT -p tcp -j DROP\n-A INPUT -m comment --comment \"the rest -j X\" \
                 -j REJECT --reject-with icmp-host-prohibited\n",
                Some(
                    "rule `-A INPUT -m comment --comment \"the rest -j X\" -j REJECT \
                     --reject-with icmp-host-prohibited`",
                ),
            ),
            ("ACCEPT", "-A INPUT -s 10.0.0.0/8 -j DROP\n-A INPUT -j KUBE-IPVS-FILTER\n", None),
            ("ACCEPT", "-A FORWARD -j DROP\n-A OTHER -j DROP\n", None),
        ] {
            let text = format!(
                "# made\n{nat}*filter\n:INPUT {policy} [7:9]\n:FORWARD DROP [0:0]\n{rules}COMMIT\n"
            );
            assert_eq!(closed_input(&text).as_deref(), expected, "{text}");
        }
        assert_eq!(closed_input(nat), None);
        assert_eq!(closed_input(""), None);
        assert_eq!(closed_input("*filter\n:INPUT DROP [0:0]\n").as_deref(), Some("policy DROP"));
    }
}
