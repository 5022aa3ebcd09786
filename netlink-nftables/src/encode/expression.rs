//! Expressions → attributes.

use netlink_batch::PutAttributes;
use netlink_packet_core::NLA_F_NESTED;

use super::{number, value, verdict};
use crate::wire::expr::{
    self, bitwise, cmp, ct, fib, immediate, lookup, masq, meta, nat, payload, redir, reject,
};
use crate::wire::LIST_ELEM;
use crate::{Expr, NatFlags, Range, Register, Reject};

/// An item of a list of expressions.
pub(crate) fn expression(out: &mut Vec<u8>, expression: &Expr) {
    out.nested(LIST_ELEM, |out| {
        out.text(expr::NAME, name(expression));
        match expression {
            Expr::Unknown { data, .. } if data.is_empty() => {}
            Expr::Unknown { data, .. } => out.attribute(expr::DATA | NLA_F_NESTED, data),
            known => out.nested(expr::DATA, |out| body(out, known)),
        }
    });
}

/// The kernel's name of a kind of expression.
pub(crate) fn name(expression: &Expr) -> &str {
    match expression {
        Expr::Meta { .. } | Expr::SetMeta { .. } => "meta",
        Expr::Payload { .. } => "payload",
        Expr::Compare { .. } => "cmp",
        Expr::Bitwise { .. } => "bitwise",
        Expr::Lookup { .. } => "lookup",
        Expr::Ct { .. } | Expr::SetCt { .. } => "ct",
        Expr::Fib { .. } => "fib",
        Expr::Verdict(_) | Expr::Load { .. } => "immediate",
        Expr::Masquerade { .. } => "masq",
        Expr::Redirect { .. } => "redir",
        Expr::Nat { .. } => "nat",
        Expr::Reject(_) => "reject",
        Expr::Counter => "counter",
        Expr::Unknown { name, .. } => name,
    }
}

fn body(out: &mut Vec<u8>, expression: &Expr) {
    match expression {
        Expr::Meta { key, to } => {
            number(out, meta::KEY, key.number());
            register(out, meta::DREG, *to);
        }
        Expr::SetMeta { key, from } => {
            number(out, meta::KEY, key.number());
            register(out, meta::SREG, *from);
        }
        Expr::Payload { base, offset, length, to } => {
            register(out, payload::DREG, *to);
            number(out, payload::BASE, base.number());
            number(out, payload::OFFSET, *offset);
            number(out, payload::LEN, *length);
        }
        Expr::Compare { how, from, value: right } => {
            register(out, cmp::SREG, *from);
            number(out, cmp::OP, how.number());
            value(out, cmp::DATA, right);
        }
        Expr::Bitwise { from, to, mask, xor } => {
            register(out, bitwise::SREG, *from);
            register(out, bitwise::DREG, *to);
            number(out, bitwise::LEN, mask.as_bytes().len() as u32);
            value(out, bitwise::MASK, mask);
            value(out, bitwise::XOR, xor);
        }
        Expr::Lookup { set, from, inverted, to } => {
            register(out, lookup::SREG, *from);
            if let Some(to) = to {
                register(out, lookup::DREG, *to);
            }
            out.text(lookup::SET, set);
            if *inverted {
                number(out, lookup::FLAGS, lookup::INVERTED);
            }
        }
        Expr::Ct { key, direction, to } => {
            number(out, ct::KEY, key.number());
            register(out, ct::DREG, *to);
            if let Some(direction) = direction {
                out.attribute(ct::DIRECTION, &[direction.number()]);
            }
        }
        Expr::SetCt { key, from } => {
            number(out, ct::KEY, key.number());
            register(out, ct::SREG, *from);
        }
        Expr::Fib { flags, result, to } => {
            number(out, fib::FLAGS, flags.0);
            number(out, fib::RESULT, result.number());
            register(out, fib::DREG, *to);
        }
        Expr::Verdict(decision) => {
            register(out, immediate::DREG, Register::VERDICT);
            verdict(out, immediate::DATA, decision);
        }
        Expr::Load { to, value: loaded } => {
            register(out, immediate::DREG, *to);
            value(out, immediate::DATA, loaded);
        }
        statement => terminal(out, statement),
    }
}

/// What decides about a packet or counts it.
fn terminal(out: &mut Vec<u8>, expression: &Expr) {
    match expression {
        Expr::Masquerade { flags: wanted, ports } => {
            flags(out, masq::FLAGS, *wanted, ports.is_some());
            range(out, masq::PROTO_MIN, masq::PROTO_MAX, *ports);
        }
        Expr::Redirect { flags: wanted, ports } => {
            range(out, redir::PROTO_MIN, redir::PROTO_MAX, *ports);
            flags(out, redir::FLAGS, *wanted, ports.is_some());
        }
        Expr::Nat { kind, family, addresses, ports, flags: wanted } => {
            number(out, nat::TYPE, kind.number());
            number(out, nat::FAMILY, family.number().into());
            range(out, nat::ADDR_MIN, nat::ADDR_MAX, *addresses);
            range(out, nat::PROTO_MIN, nat::PROTO_MAX, *ports);
            flags(out, nat::FLAGS, *wanted, ports.is_some());
        }
        Expr::Reject(how) => {
            number(out, reject::TYPE, how.number());
            let code = match how {
                Reject::Icmp(code) | Reject::Icmpx(code) => *code,
                Reject::TcpReset => 0,
            };
            out.attribute(reject::ICMP_CODE, &[code]);
        }
        // A counter begins at zero. All others are written above.
        _ => {}
    }
}

fn register(out: &mut Vec<u8>, kind: u16, register: Register) {
    number(out, kind, register.number());
}

fn range(out: &mut Vec<u8>, first: u16, last: u16, range: Option<Range>) {
    let Some(range) = range else { return };
    register(out, first, range.first);
    if range.last != range.first {
        register(out, last, range.last);
    }
}

fn flags(out: &mut Vec<u8>, kind: u16, flags: NatFlags, ports: bool) {
    let bits = flags.bits() | if ports { nat::WITH_PORTS } else { 0 };
    if bits != 0 {
        number(out, kind, bits);
    }
}
