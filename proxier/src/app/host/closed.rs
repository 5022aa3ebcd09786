//! Chains of the host through which packets to services do not come.

use netlink_ipvs::Family;
use tracing::debug;

use super::Host;
use crate::config::Config;
use crate::iptables::closed_input;
use crate::kernel::filter::Filter;
use crate::kernel::tables::Tables;
use crate::nftables::{Content, TABLE};
use crate::text::chain;

/// One sentence each; nothing of iptables where `--accept-input` deals with it. What cannot be read is not
/// questioned.
pub(in crate::app) fn find(config: &Config, host: &Host) -> Vec<String> {
    let mut out = Vec::new();
    let mut by_text = false;
    if let Filter::Iptables(filter) = &host.filter {
        for family in &host.abilities.families {
            match filter.save_text(*family) {
                Ok(text) => {
                    by_text |= text.contains("(nf_tables)");
                    let closed = closed_input(&text).filter(|_| !config.firewall.accept_input);
                    out.extend(closed.map(|how| of_iptables(*family, &how)));
                }
                Err(error) => debug!(error = chain(&*error), "cannot read the rules of {family}"),
            }
        }
    }
    match Tables::open().and_then(|mut tables| tables.contents()) {
        Ok(tables) => out.extend(of_tables(&tables, by_text)),
        Err(error) => debug!(error = chain(&error), "cannot read the tables of nftables"),
    }
    out
}

fn of_iptables(family: Family, how: &str) -> String {
    format!(
        "the {family} chain INPUT is closed ({how}): connections to services are lost unless a rule before \
         accepts them; --accept-input accepts them"
    )
}

/// Ours are open; those of iptables have been read by its programs, if `by_text`.
fn of_tables(tables: &[Content], by_text: bool) -> Vec<String> {
    let mut out = Vec::new();
    for table in tables {
        if table.key.name == TABLE || by_text && table.is_of_iptables() {
            continue;
        }
        for (chain, how) in table.closed_inputs() {
            let key = &table.key;
            out.push(format!(
                "the chain {chain} of the nftables table {key} is closed ({how}): connections to services are \
                 lost unless a rule of it accepts them; `nft insert rule {key} {chain} ip daddr ADDRESSES accept` \
                 with the addresses of services, in the configuration of who made it"
            ));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use netlink_nftables::{
        BaseChain, Chain, ChainKind, Expr, Family as NftFamily, Hook, Policy, Reject, Rule,
        TableKey, Verdict,
    };

    use super::*;

    fn table(name: &str, hook: Hook, policy: Policy, rules: &[Expr]) -> Content {
        let mut chain = Chain::new("guard");
        chain.base = Some(BaseChain { kind: ChainKind::Filter, hook, priority: 0, policy });
        let rules = rules.iter().map(|it| Rule::new("guard", [Expr::Counter, it.clone()]));
        let chains = vec![(chain, rules.collect())];
        Content { key: TableKey::new(NftFamily::Inet, name), chains, sets: Vec::new() }
    }

    #[test]
    fn closed_chains_of_others_are_told() {
        use Policy::{Accept, Drop};
        let reject = [Expr::Reject(Reject::ICMPX_PORT)];
        let accept = [Expr::Verdict(Verdict::Accept)];
        for (table, told) in [
            (table("guard", Hook::Input, Drop, &accept), Some("(policy drop)")),
            (table("guard", Hook::Input, Accept, &reject), Some("(a rule for all that is left)")),
            (table("guard", Hook::Input, Accept, &accept), None),
            (table("guard", Hook::Forward, Drop, &[]), None),
            (table(TABLE, Hook::Input, Drop, &[]), None),
        ] {
            let said = of_tables(&[table], false).concat();
            assert_eq!(told.is_some(), !said.is_empty(), "{said}");
            assert!(said.contains(told.unwrap_or_default()), "{said}");
            assert!(
                said.is_empty() || said.contains("`nft insert rule inet guard guard "),
                "{said}"
            );
        }
    }

    #[test]
    fn what_iptables_keeps_in_nftables_is_told_once() {
        let mut kept = table("filter", Hook::Input, Policy::Drop, &[]);
        kept.key.family = NftFamily::Ipv4;
        assert_eq!(of_tables(&[kept.clone()], true), Vec::<String>::new());
        assert_eq!(of_tables(&[kept], false).len(), 1);
    }
}
