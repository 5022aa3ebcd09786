//! The content of a kernel, read from the text that the tools print or from the golden files, in one
//! form. Things without an order are sorted; what changes from run to run is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Result;

use super::scenario::{sysctls, text};

/// Heads (a virtual server, a set) and their members, sorted. A member that is there twice is there
/// twice.
pub type Blocks = BTreeMap<String, Vec<String>>;

/// What a health check address answered, by URL: status, headers and body as in `health.txt`.
pub type Health = BTreeMap<String, String>;

/// Everything that a scenario's step records.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Dump {
    /// Virtual servers and their real servers.
    pub ipvs: Blocks,
    /// Lines `inet ADDRESS/LENGTH scope SCOPE` of `kube-ipvs0`, and its `link` line.
    pub addresses: BTreeSet<String>,
    /// Sets, each headed by name, type and options.
    pub sets: Blocks,
    /// `iptables`, table nat.
    pub nat4: Chains,
    /// `iptables`, table filter.
    pub filter4: Chains,
    /// `ip6tables`, table nat.
    pub nat6: Chains,
    /// `ip6tables`, table filter.
    pub filter6: Chains,
    /// Values by key.
    pub sysctls: BTreeMap<String, String>,
    /// Answers by URL.
    pub health: Health,
}

/// One table of iptables: chains whose name starts with `KUBE-`, and of the others the jumps to them.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Chains(pub BTreeMap<String, Vec<String>>);

// === impl Dump ===

impl Dump {
    /// Reads the golden files of one step.
    pub(super) fn load(folder: &Path) -> Result<Self> {
        let read = |name: &str| text(&folder.join(name));
        Ok(Self {
            ipvs: blocks(&read("ipvs.txt")?),
            addresses: lines(&read("addrs.txt")?),
            sets: golden_sets(&read("ipset.txt")?),
            nat4: Chains::parse(&read("iptables-nat.txt")?),
            filter4: Chains::parse(&read("iptables-filter.txt")?),
            nat6: Chains::parse(&read("ip6tables-nat.txt")?),
            filter6: Chains::parse(&read("ip6tables-filter.txt")?),
            sysctls: sysctls(&read("sysctls.txt")?).into_iter().collect(),
            health: health(&read("health.txt")?),
        })
    }

    /// The members of a set.
    pub fn set(&self, name: &str) -> &[String] {
        let head = |head: &&String| head.split_whitespace().next() == Some(name);
        self.sets.keys().find(head).map_or(&[], |head| &self.sets[head])
    }
}

// === impl Chains ===

impl Chains {
    /// Reads the rules of one table, as iptables-save prints it.
    pub fn parse(text: &str) -> Self {
        let mut chains: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in text.lines().map(str::trim) {
            if let Some(declared) = line.strip_prefix(':') {
                let name = declared.split_whitespace().next().unwrap_or_default();
                if name.starts_with("KUBE-") {
                    chains.entry(name.to_owned()).or_default();
                }
            } else if let Some(rule) = line.strip_prefix("-A ") {
                let name = rule.split_whitespace().next().unwrap_or_default();
                if name.starts_with("KUBE-")
                    || rule.contains("-j KUBE-")
                    || rule.contains("-g KUBE-")
                {
                    chains.entry(name.to_owned()).or_default().push(line.to_owned());
                }
            }
        }
        Self(chains)
    }
}

/// Reads what `ipvsadm-save -n` prints, or the same with indented real servers.
pub fn blocks(text: &str) -> Blocks {
    let mut blocks = Blocks::new();
    let mut heads: BTreeMap<String, String> = BTreeMap::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        // `-t 10.96.0.1:80` (or `-f 1`) names the virtual server in both kinds of lines.
        let key = line.split_whitespace().skip(1).take(2).collect::<Vec<_>>().join(" ");
        if line.starts_with("-A ") {
            heads.insert(key, line.to_owned());
            blocks.entry(line.to_owned()).or_default();
        } else {
            let head =
                heads.get(&key).cloned().unwrap_or_else(|| format!("(no -A line for {key})"));
            blocks.entry(head).or_default().push(line.to_owned());
        }
    }
    sorted(blocks)
}

/// Reads what `ipset save` prints, without the sizes and seeds that differ from run to run.
pub fn ipset_save(text: &str) -> Blocks {
    let mut sets = Blocks::new();
    let mut heads: BTreeMap<&str, String> = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("create"), Some(name)) => {
                let mut head = name.to_owned();
                while let Some(word) = words.next() {
                    if matches!(word, "hashsize" | "bucketsize" | "initval") {
                        words.next();
                    } else {
                        head = head + " " + word;
                    }
                }
                heads.insert(name, head.clone());
                sets.entry(head).or_default();
            }
            (Some("add"), Some(name)) => {
                let head = heads
                    .get(name)
                    .cloned()
                    .unwrap_or_else(|| format!("(no create line for {name})"));
                // For how long a member still stays is another every second.
                let words: Vec<&str> = words.collect();
                let stays = words.iter().position(|word| *word == "timeout");
                let rest = stays.map_or(words.len()..words.len(), |at| at..at + 2);
                let kept = words.iter().enumerate().filter(|(at, _)| !rest.contains(at));
                let kept: Vec<&str> = kept.map(|(_, word)| *word).collect();
                sets.entry(head).or_default().push(kept.join(" "));
            }
            _ => {}
        }
    }
    sorted(sets)
}

/// Reads what `iptables-save` prints and returns the tables nat and filter.
pub fn iptables_save(text: &str) -> (Chains, Chains) {
    let table = |name: &str| {
        let start = text.lines().skip_while(|line| line.strip_prefix('*') != Some(name)).skip(1);
        let lines: Vec<_> =
            start.take_while(|line| !line.starts_with('*') && *line != "COMMIT").collect();
        Chains::parse(&lines.join("\n"))
    };
    (table("nat"), table("filter"))
}

/// The lines of a text, without an order.
pub(super) fn lines(text: &str) -> BTreeSet<String> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// Reads `ipset.txt`: heads at the margin, members indented.
fn golden_sets(text: &str) -> Blocks {
    let mut sets = Blocks::new();
    let mut current = String::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        if line.starts_with(' ') {
            sets.entry(current.clone()).or_default().push(line.trim().to_owned());
        } else {
            line.trim().clone_into(&mut current);
            sets.entry(current.clone()).or_default();
        }
    }
    sorted(sets)
}

/// Reads `health.txt`.
fn health(text: &str) -> Health {
    let sections = text.split("### GET ").filter_map(|section| section.split_once('\n'));
    sections.map(|(url, answer)| (url.trim().to_owned(), answer.trim().to_owned())).collect()
}

fn sorted(mut blocks: Blocks) -> Blocks {
    for members in blocks.values_mut() {
        members.sort();
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_servers_belong_to_the_virtual_server_they_name() {
        let raw = "-A -t 10.0.0.1:80 -s rr\n-a -t 10.0.0.1:80 -r 10.1.0.2:8080 -m -w 1\n\
                   -A -u 10.0.0.1:80 -s rr\n-a -t 10.0.0.1:80 -r 10.1.0.1:8080 -m -w 1\n";
        let golden = "-A -t 10.0.0.1:80 -s rr\n  -a -t 10.0.0.1:80 -r 10.1.0.1:8080 -m -w 1\n  \
                      -a -t 10.0.0.1:80 -r 10.1.0.2:8080 -m -w 1\n-A -u 10.0.0.1:80 -s rr\n";
        assert_eq!(blocks(raw), blocks(golden));
        assert_eq!(blocks(raw)["-A -u 10.0.0.1:80 -s rr"], Vec::<String>::new());
    }

    #[test]
    fn a_real_server_of_no_virtual_server_is_not_lost() {
        let read = blocks("-a -t 10.0.0.1:80 -r 10.1.0.2:8080 -m -w 1\n");
        assert_eq!(read.keys().collect::<Vec<_>>(), ["(no -A line for -t 10.0.0.1:80)"]);
    }

    #[test]
    fn saved_sets_equal_golden_sets() {
        let saved = "create KUBE-CLUSTER-IP hash:ip,port family inet hashsize 1024 maxelem 65536 \
                     bucketsize 12 initval 0x1234\nadd KUBE-CLUSTER-IP 10.0.0.2,tcp:80\n\
                     add KUBE-CLUSTER-IP 10.0.0.1,tcp:80\ncreate P bitmap:port range 0-65535\n";
        let golden = "KUBE-CLUSTER-IP hash:ip,port family inet maxelem 65536\n  10.0.0.1,tcp:80\n  \
                      10.0.0.2,tcp:80\nP bitmap:port range 0-65535\n";
        assert_eq!(ipset_save(saved), golden_sets(golden));
    }

    #[test]
    fn only_our_chains_and_the_jumps_to_them_are_kept() {
        let saved = "# Generated\n*nat\n:PREROUTING ACCEPT [3:120]\n:KUBE-SERVICES - [0:0]\n:OTHER - [0:0]\n\
                     -A PREROUTING -i lo -j ACCEPT\n-A PREROUTING -j KUBE-SERVICES\n-A OTHER -j RETURN\n\
                     -A KUBE-SERVICES -j RETURN\nCOMMIT\n*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n";
        let (nat, filter) = iptables_save(saved);
        let golden = Chains::parse(
            ":PREROUTING ACCEPT\n:KUBE-SERVICES -\n-A PREROUTING -j KUBE-SERVICES\n-A KUBE-SERVICES -j RETURN\n",
        );
        assert_eq!(nat, golden);
        assert_eq!(filter, Chains::default());
    }

    #[test]
    fn health_sections_are_split_by_url() {
        let read =
            health("### GET http://a/\nHTTP 200\n\nok\n\n### GET http://b/\nerror: refused\n");
        assert_eq!(read["http://a/"], "HTTP 200\n\nok");
        assert_eq!(read["http://b/"], "error: refused");
    }
}
