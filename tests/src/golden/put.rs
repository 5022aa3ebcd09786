//! Making a kernel hold what a dump says, with the tools that restore what they have saved.

use std::process::Command;

use anyhow::{Context, Result};

use super::{Blocks, Chains, Dump};
use crate::command::feed;
use crate::netns::Namespace;

/// Puts virtual servers, addresses, sets and rules into a network namespace that has none, or into
/// the caller's own. Rules come before what they guard.
pub fn put(at: Option<&Namespace>, dump: &Dump) -> Result<()> {
    let feed = |words: &[&str], input: &str| -> Result<()> {
        let (program, arguments) = words.split_first().context("a command")?;
        let mut command = at.map_or_else(|| Command::new(program), |at| at.command(program));
        feed(command.args(arguments), input)
    };
    feed(&["ipset", "restore"], &sets(&dump.sets)?)?;
    for (tool, nat, filter) in [
        ("iptables-restore", &dump.nat4, &dump.filter4),
        ("ip6tables-restore", &dump.nat6, &dump.filter6),
    ] {
        feed(&[tool], &(table("nat", nat) + &table("filter", filter)))?;
    }
    let lines = dump.ipvs.iter().flat_map(|(head, members)| std::iter::once(head).chain(members));
    feed(&["ipvsadm", "-R"], &lines.fold(String::new(), |text, line| text + line + "\n"))?;
    let mut batch =
        "link add kube-ipvs0 type dummy\nlink set kube-ipvs0 addrgenmode none\n".to_owned();
    for line in dump.addresses.iter().filter_map(|line| line.strip_prefix("inet")) {
        let address =
            line.split_whitespace().find(|word| word.contains('/')).context("an address")?;
        batch = batch + "addr add " + address + " dev kube-ipvs0\n";
    }
    feed(&["ip", "-batch", "-"], &batch)
}

fn sets(sets: &Blocks) -> Result<String> {
    let mut text = String::new();
    for (head, members) in sets {
        let name = head.split_whitespace().next().context("a set's name")?;
        text = text + "create " + head + "\n";
        text.extend(members.iter().map(|member| format!("add {name} {member}\n")));
    }
    Ok(text)
}

fn table(name: &str, Chains(chains): &Chains) -> String {
    let ours = chains.keys().filter(|chain| chain.starts_with("KUBE-"));
    let declared: Vec<_> = ours.map(|chain| format!(":{chain} - [0:0]")).collect();
    let rules: Vec<_> = chains.values().flatten().cloned().collect();
    format!("*{name}\n{}\n{}\nCOMMIT\n", declared.join("\n"), rules.join("\n"))
}
