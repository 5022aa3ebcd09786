//! What a kernel may have as modules of their own, or not at all.

use netlink_ipvs::Family;
use netlink_nftables::{
    Chain, CtKey, Expr, FibFlags, FibResult, NatFlags, Register, Reject, Rule, TableKey,
    Transaction,
};

use super::{base_chain, table};
use crate::dataplane::firewall::{Hook, Table};

/// Something that our tables need of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Tables of the family.
    Tables,
    /// Chains that translate addresses.
    Nat,
    /// A rule whose source is another address.
    Masquerade,
    /// Which addresses are this node's.
    Fib,
    /// The state of connections.
    ConnectionTracking,
    /// Answers to those who are refused.
    Reject,
}

impl Need {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Tables,
        Self::Nat,
        Self::Masquerade,
        Self::Fib,
        Self::ConnectionTracking,
        Self::Reject,
    ];

    /// Where it is a module, its name.
    pub fn module(self, family: Family) -> &'static str {
        match (self, family) {
            (Self::Tables, _) => "nf_tables",
            (Self::Nat, _) => "nft_chain_nat",
            (Self::Masquerade, _) => "nft_masq",
            (Self::Fib, Family::Ipv4) => "nft_fib_ipv4",
            (Self::Fib, Family::Ipv6) => "nft_fib_ipv6",
            (Self::ConnectionTracking, _) => "nft_ct",
            (Self::Reject, Family::Ipv4) => "nft_reject_ipv4",
            (Self::Reject, Family::Ipv6) => "nft_reject_ipv6",
        }
    }

    /// A transaction that needs it, and is refused in any case: it also deletes a table that is not there.
    /// The result is also the number of its requests that are refused only by a kernel that lacks it.
    ///
    /// One for each need: the kernel loads a module that is missing in the middle of a transaction, then
    /// begins again, and loads all of the same transaction once more.
    pub fn question(self, family: Family) -> (Transaction, usize) {
        let of = |name: &str| TableKey { name: name.to_owned(), ..table(family) };
        let (mut out, probe) = (Transaction::new(), of("proxier-probe"));
        out.add_table(&netlink_nftables::Table::new(probe.clone()));
        if self == Self::Nat {
            out.add_chain(&probe, &base_chain(Table::Nat, Hook::Postrouting));
        }
        if let Some(expression) = self.expression(family) {
            out.add_chain(&probe, &Chain::new("probe"));
            out.append_rule(&probe, &Rule::new("probe", [expression]));
        }
        let wanted = out.len();
        out.delete_table(&of("proxier-probe-of-none"));
        (out, wanted)
    }

    fn expression(self, family: Family) -> Option<Expr> {
        let to = Register::FIRST;
        Some(match self {
            Self::Tables | Self::Nat => return None,
            Self::Masquerade => Expr::Masquerade { flags: NatFlags::NONE, ports: None },
            Self::Fib => {
                Expr::Fib { flags: FibFlags::DESTINATION, result: FibResult::AddressType, to }
            }
            Self::ConnectionTracking => Expr::Ct { key: CtKey::State, direction: None, to },
            Self::Reject => Expr::Reject(match family {
                Family::Ipv4 => Reject::ICMP_PORT,
                Family::Ipv6 => Reject::ICMPV6_PORT,
            }),
        })
    }
}
