//! Attributes → expressions.

use netlink_batch::{Attribute, Attributes, Malformed};

use super::{mapped, text, value};
use crate::wire::expr::{
    self, bitwise, cmp, ct, fib, immediate, lookup, masq, meta, nat, payload, redir, reject,
};
use crate::{
    Compare, CtDirection, CtKey, Data, Expr, Family, FibFlags, FibResult, MetaKey, NatFlags,
    NatKind, PayloadBase, Range, Register, Reject,
};

/// Reads an item of a list of expressions. One of a kind that is not known, or that does what is not
/// known, is [`Expr::Unknown`].
pub(crate) fn expression(item: Attribute<'_>) -> Result<Expr, Malformed> {
    let name = item.nested().find(expr::NAME)?.ok_or(Malformed("expression without a name"))?;
    let data = item.nested().find(expr::DATA)?;
    let fields = Fields(data.map_or(Attributes(&[]), |data| data.nested()));
    let name = name.text()?;
    Ok(match known(name, &fields)? {
        Some(known) => known,
        None => Expr::Unknown { name: name.to_owned(), data: fields.0 .0.into() },
    })
}

fn known(name: &str, fields: &Fields<'_>) -> Result<Option<Expr>, Malformed> {
    match name {
        "meta" => meta_data(fields),
        "payload" => load(fields),
        "cmp" => compare(fields),
        "bitwise" => bits(fields),
        "lookup" => look_up(fields),
        "ct" => connection(fields),
        "fib" => route(fields),
        "immediate" => given(fields),
        "masq" => {
            let flags = fields.nat_flags(masq::FLAGS)?;
            let ports = fields.range(masq::PROTO_MIN, masq::PROTO_MAX)?;
            Ok(Some(Expr::Masquerade { flags, ports }))
        }
        "redir" => {
            let flags = fields.nat_flags(redir::FLAGS)?;
            let ports = fields.range(redir::PROTO_MIN, redir::PROTO_MAX)?;
            Ok(Some(Expr::Redirect { flags, ports }))
        }
        "nat" => translation(fields),
        "reject" => rejection(fields),
        "counter" => Ok(Some(Expr::Counter)),
        _ => Ok(None),
    }
}

/// The attributes of one expression.
struct Fields<'a>(Attributes<'a>);

impl Fields<'_> {
    fn number(&self, kind: u16) -> Result<Option<u32>, Malformed> {
        self.0.find(kind)?.map(|found| found.be32()).transpose()
    }

    fn byte(&self, kind: u16) -> Result<Option<u8>, Malformed> {
        self.0.find(kind)?.map(|found| found.u8()).transpose()
    }

    fn register(&self, kind: u16) -> Result<Option<Register>, Malformed> {
        Ok(self.number(kind)?.map(Register::from_number))
    }

    fn range(&self, first: u16, last: u16) -> Result<Option<Range>, Malformed> {
        let Some(first) = self.register(first)? else { return Ok(None) };
        let last = self.register(last)?.unwrap_or(first);
        Ok(Some(Range { first, last }))
    }

    fn nat_flags(&self, kind: u16) -> Result<NatFlags, Malformed> {
        Ok(NatFlags::from_bits(self.number(kind)?.unwrap_or_default()))
    }
}

fn meta_data(fields: &Fields<'_>) -> Result<Option<Expr>, Malformed> {
    let Some(key) = fields.number(meta::KEY)?.map(MetaKey::from_number) else { return Ok(None) };
    Ok(match (fields.register(meta::DREG)?, fields.register(meta::SREG)?) {
        (Some(to), None) => Some(Expr::Meta { key, to }),
        (None, Some(from)) => Some(Expr::SetMeta { key, from }),
        _ => None,
    })
}

fn load(fields: &Fields<'_>) -> Result<Option<Expr>, Malformed> {
    let (Some(to), Some(base), Some(offset), Some(length)) = (
        fields.register(payload::DREG)?,
        fields.number(payload::BASE)?.and_then(PayloadBase::from_number),
        fields.number(payload::OFFSET)?,
        fields.number(payload::LEN)?,
    ) else {
        return Ok(None);
    };
    Ok(Some(Expr::Payload { base, offset, length, to }))
}

fn compare(fields: &Fields<'_>) -> Result<Option<Expr>, Malformed> {
    let (Some(from), Some(how), Some(right)) = (
        fields.register(cmp::SREG)?,
        fields.number(cmp::OP)?.and_then(Compare::from_number),
        fields.0.find(cmp::DATA)?,
    ) else {
        return Ok(None);
    };
    Ok(Some(Expr::Compare { how, from, value: value(right)? }))
}

fn bits(fields: &Fields<'_>) -> Result<Option<Expr>, Malformed> {
    let (Some(from), Some(to), Some(length), Some(mask), Some(xor)) = (
        fields.register(bitwise::SREG)?,
        fields.register(bitwise::DREG)?,
        fields.number(bitwise::LEN)?,
        fields.0.find(bitwise::MASK)?,
        fields.0.find(bitwise::XOR)?,
    ) else {
        return Ok(None);
    };
    // Others are shifts.
    if fields.number(bitwise::OP)?.unwrap_or_default() != 0 {
        return Ok(None);
    }
    let (mask, xor) = (value(mask)?, value(xor)?);
    if [&mask, &xor].iter().any(|value| value.as_bytes().len() != length as usize) {
        return Ok(None);
    }
    Ok(Some(Expr::Bitwise { from, to, mask, xor }))
}

fn look_up(fields: &Fields<'_>) -> Result<Option<Expr>, Malformed> {
    let (Some(set), Some(from)) = (fields.0.find(lookup::SET)?, fields.register(lookup::SREG)?)
    else {
        return Ok(None);
    };
    let inverted = match fields.number(lookup::FLAGS)? {
        None | Some(0) => false,
        Some(lookup::INVERTED) => true,
        Some(_) => return Ok(None),
    };
    let to = fields.register(lookup::DREG)?;
    Ok(Some(Expr::Lookup { set: text(set)?, from, inverted, to }))
}

fn connection(fields: &Fields<'_>) -> Result<Option<Expr>, Malformed> {
    let Some(key) = fields.number(ct::KEY)?.map(CtKey::from_number) else { return Ok(None) };
    let direction = match fields.byte(ct::DIRECTION)? {
        None => None,
        Some(0) => Some(CtDirection::Original),
        Some(1) => Some(CtDirection::Reply),
        Some(_) => return Ok(None),
    };
    Ok(match (fields.register(ct::DREG)?, fields.register(ct::SREG)?, direction) {
        (Some(to), None, direction) => Some(Expr::Ct { key, direction, to }),
        (None, Some(from), None) => Some(Expr::SetCt { key, from }),
        _ => None,
    })
}

fn route(fields: &Fields<'_>) -> Result<Option<Expr>, Malformed> {
    let (Some(flags), Some(result), Some(to)) = (
        fields.number(fib::FLAGS)?.map(FibFlags),
        fields.number(fib::RESULT)?.and_then(FibResult::from_number),
        fields.register(fib::DREG)?,
    ) else {
        return Ok(None);
    };
    Ok(Some(Expr::Fib { flags, result, to }))
}

fn given(fields: &Fields<'_>) -> Result<Option<Expr>, Malformed> {
    let (Some(to), Some(data)) =
        (fields.register(immediate::DREG)?, fields.0.find(immediate::DATA)?)
    else {
        return Ok(None);
    };
    Ok(match (mapped(data)?, to) {
        (Some(Data::Verdict(verdict)), Register::VERDICT) => Some(Expr::Verdict(verdict)),
        (Some(Data::Value(value)), to) => Some(Expr::Load { to, value }),
        _ => None,
    })
}

fn translation(fields: &Fields<'_>) -> Result<Option<Expr>, Malformed> {
    let family = fields.number(nat::FAMILY)?.and_then(|number| u8::try_from(number).ok());
    let (Some(kind), Some(family)) = (
        fields.number(nat::TYPE)?.and_then(NatKind::from_number),
        family.and_then(Family::from_number),
    ) else {
        return Ok(None);
    };
    let addresses = fields.range(nat::ADDR_MIN, nat::ADDR_MAX)?;
    let ports = fields.range(nat::PROTO_MIN, nat::PROTO_MAX)?;
    let flags = fields.nat_flags(nat::FLAGS)?;
    Ok(Some(Expr::Nat { kind, family, addresses, ports, flags }))
}

fn rejection(fields: &Fields<'_>) -> Result<Option<Expr>, Malformed> {
    let code = fields.byte(reject::ICMP_CODE)?;
    Ok(match (fields.number(reject::TYPE)?, code) {
        (Some(0), Some(code)) => Some(Expr::Reject(Reject::Icmp(code))),
        (Some(1), _) => Some(Expr::Reject(Reject::TcpReset)),
        (Some(2), Some(code)) => Some(Expr::Reject(Reject::Icmpx(code))),
        _ => None,
    })
}
