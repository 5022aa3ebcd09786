//! The tables of nftables as the kernel lists them: their expressions, evaluated as the kernel does.

use std::collections::HashMap;
use std::rc::Rc;

use netlink_ipvs::{Family, Protocol};
use netlink_nftables as nft;
use netlink_nftables::{
    ChainKind, Compare, CtDirection, CtKey, Data, Expr, FibFlags, FibResult, MetaKey, NatKind,
    PayloadBase, Register, SetFlags, Value, ct_state,
};

use super::rules::{Base, Effect, Evaluate, Rule, Rules, Verdict};
use super::{Flow, Machine};
use crate::dataplane::firewall::Hook;
use crate::nftables::{Content, rule_words};

/// `RTN_UNICAST`: an address of another host.
const ELSEWHERE: u32 = 1;

/// `SYN`, and with `ACK` in the answer.
const TCP_FLAGS: [u8; 2] = [0x02, 0x12];

/// A rule with what it looks into.
#[derive(Debug)]
struct NftablesRule {
    expressions: Vec<Expr>,
    table: Rc<Table>,
}

/// What the rules of a table share.
#[derive(Debug)]
struct Table {
    /// `ip proxier`
    name: String,
    sets: HashMap<String, Set>,
}

/// A set as it is looked into.
#[derive(Debug, Default)]
struct Set {
    key_length: usize,
    /// The parts of its key, each from here to there.
    parts: Vec<(usize, usize)>,
    exact: HashMap<Box<[u8]>, Found>,
    ranges: Vec<(Range, Found)>,
    /// What all other keys have.
    other: Option<Found>,
}

/// An element, by what it leads to.
#[derive(Debug)]
struct Found(Option<Data>);

#[derive(Debug)]
enum Range {
    /// Each part is between these.
    Parts(Box<[u8]>, Box<[u8]>),
    /// From the first to the one before the last, if there is a last.
    HalfOpen(Box<[u8]>, Option<Box<[u8]>>),
}

/// Adds the chains of a table that sees packets of this family.
pub(super) fn read(family: Family, content: &Content, rules: &mut Rules) {
    let sees = match content.key.family {
        nft::Family::Inet => true,
        nft::Family::Ipv4 => family == Family::Ipv4,
        nft::Family::Ipv6 => family == Family::Ipv6,
        _ => false,
    };
    if !sees {
        return;
    }
    let named =
        content.sets.iter().map(|(set, elements)| (set.name.clone(), Set::new(set, elements)));
    let table = Rc::new(Table { name: content.key.to_string(), sets: named.collect() });
    for (chain, of_chain) in &content.chains {
        let name = format!("{} {}", table.name, chain.name);
        if let Some(base) = &chain.base
            && let Some(hook) = hook(base.hook)
        {
            rules.base.push(Base {
                hook,
                priority: base.priority,
                is_nat: base.kind == ChainKind::Nat,
                chain: name.clone(),
                drops: base.policy == nft::Policy::Drop,
            });
        }
        let all = of_chain.iter().enumerate().map(|(at, rule)| {
            let place = || {
                let comment = rule.comment.as_deref();
                let comment = comment.map(|it| format!(", \"{it}\"")).unwrap_or_default();
                format!("rule {}{comment} (`nft list chain {name}`)", at + 1)
            };
            let text = rule_words(family, rule).unwrap_or_else(place);
            let (expressions, table) = (rule.expressions.clone(), Rc::clone(&table));
            Rule { text, by: Box::new(NftablesRule { expressions, table }) }
        });
        rules.chains.insert(name.clone(), all.collect());
    }
}

fn hook(hook: nft::Hook) -> Option<Hook> {
    Some(match hook {
        nft::Hook::Prerouting => Hook::Prerouting,
        nft::Hook::Input => Hook::Input,
        nft::Hook::Forward => Hook::Forward,
        nft::Hook::Output => Hook::Output,
        nft::Hook::Postrouting => Hook::Postrouting,
        nft::Hook::Other(_) => return None,
    })
}

impl Set {
    fn new(set: &nft::Set, elements: &[nft::Element]) -> Self {
        let mut out = Self { key_length: set.key_length() as usize, ..Self::default() };
        let mut at = 0;
        for part in &set.key {
            let length = part.length() as usize;
            out.parts.push((at, at + length));
            at += length.next_multiple_of(4);
        }
        let is_interval = set.flags.contains(SetFlags::INTERVAL);
        let mut edges = Vec::new();
        for element in elements {
            let (key, data) = (element.key.as_bytes(), Found(element.data.clone()));
            if element.catch_all {
                out.other = Some(data);
            } else if let Some(end) = &element.key_end {
                out.ranges.push((Range::Parts(key.into(), end.as_bytes().into()), data));
            } else if is_interval && set.key.len() == 1 {
                edges.push((key, !element.interval_end, data));
            } else {
                out.exact.insert(key.into(), data);
            }
        }
        edges.sort_by(|a, b| (a.0, a.1).cmp(&(b.0, b.1)));
        let mut open: Option<(&[u8], Found)> = None;
        for (key, begins, data) in edges {
            if let Some((first, data)) = open.take() {
                out.ranges.push((Range::HalfOpen(first.into(), Some(key.into())), data));
            }
            open = begins.then_some((key, data));
        }
        if let Some((first, data)) = open {
            out.ranges.push((Range::HalfOpen(first.into(), None), data));
        }
        out
    }

    fn get(&self, key: &[u8]) -> Option<&Found> {
        let within = |range: &Range| match range {
            Range::Parts(first, last) => self.parts.iter().all(|(from, to)| {
                let part = |bytes: &'_ [u8]| bytes.get(*from..*to).map(<[u8]>::to_vec);
                part(first) <= part(key) && part(key) <= part(last)
            }),
            Range::HalfOpen(first, end) => {
                **first <= *key && end.as_deref().is_none_or(|end| key < end)
            }
        };
        let of_range = || self.ranges.iter().find(|(range, _)| within(range)).map(|(_, data)| data);
        self.exact.get(key).or_else(of_range).or(self.other.as_ref())
    }
}

/// The 64 bytes of the registers; what is not known is nothing.
struct Registers([Option<u8>; 64]);

impl Registers {
    fn place(register: Register) -> usize {
        match register.number() as usize {
            number @ 1..=4 => (number - 1) * 16,
            number => number.saturating_sub(8) * 4,
        }
    }

    /// A value fills whole words.
    fn put(&mut self, to: Register, bytes: &[Option<u8>]) {
        let filled = bytes.len().next_multiple_of(4);
        let bytes = bytes.iter().copied().chain(std::iter::repeat(Some(0))).take(filled);
        let places = self.0.iter_mut().skip(Self::place(to));
        places.zip(bytes).for_each(|(place, byte)| *place = byte);
    }

    fn put_known(&mut self, to: Register, bytes: &[u8]) {
        self.put(to, &bytes.iter().map(|byte| Some(*byte)).collect::<Vec<_>>());
    }

    fn get(&self, from: Register, length: usize) -> Vec<Option<u8>> {
        self.0.iter().skip(Self::place(from)).take(length).copied().collect()
    }

    /// If all of it is known.
    fn known(&self, from: Register, length: usize) -> Option<Vec<u8>> {
        self.get(from, length).into_iter().collect()
    }
}

/// What an expression makes of a rule.
enum Step {
    GoesOn,
    /// The rule is not for this packet.
    Ends,
    /// It may be.
    Doubt(String),
    Effect(Effect),
}

impl Evaluate for NftablesRule {
    fn is_plain(&self) -> bool {
        matches!(self.expressions.as_slice(), [Expr::Verdict(_)])
    }

    fn evaluate(&self, flow: &mut Flow, machine: &Machine<'_>) -> Effect {
        let mut registers = Registers([None; 64]);
        let mut doubt = None;
        let mut out = Effect::Next;
        for expression in &self.expressions {
            match self.step(expression, &mut registers, flow, machine, doubt.is_some()) {
                Step::GoesOn => {}
                Step::Ends => return if out == Effect::Marked { out } else { Effect::None },
                Step::Doubt(why) => doubt = doubt.or(Some(why)),
                Step::Effect(Effect::Marked) => out = Effect::Marked,
                Step::Effect(effect) => {
                    return doubt.map_or(effect, Effect::Doubt);
                }
            }
        }
        out
    }
}

impl NftablesRule {
    fn step(
        &self,
        expression: &Expr,
        registers: &mut Registers,
        flow: &mut Flow,
        machine: &Machine<'_>,
        doubted: bool,
    ) -> Step {
        match expression {
            Expr::Meta { key, to } => registers.put(*to, &meta(*key, flow)),
            Expr::Ct { key, direction, to } => registers.put(*to, &ct(*key, *direction, flow)),
            Expr::Payload { base, offset, length, to } => {
                let all = match base {
                    PayloadBase::Network => network_header(flow),
                    PayloadBase::Transport => transport_header(flow),
                    _ => Vec::new(),
                };
                let (offset, length) = (*offset as usize, *length as usize);
                let bytes = (offset..offset + length).map(|at| all.get(at).copied().flatten());
                registers.put(*to, &bytes.collect::<Vec<_>>());
            }
            Expr::Fib { flags, result, to } => {
                let address = match *flags {
                    FibFlags::SOURCE => Some(flow.source),
                    FibFlags::DESTINATION => Some(flow.destination),
                    _ => None,
                };
                match address.filter(|_| *result == FibResult::AddressType) {
                    Some(address) => {
                        let local = machine.is_local(address);
                        let kind = if local { FibResult::LOCAL } else { ELSEWHERE };
                        registers.put_known(*to, &kind.to_ne_bytes());
                    }
                    None => registers.put(*to, &[None; 16]),
                }
            }
            Expr::Load { to, value } => registers.put_known(*to, value.as_bytes()),
            Expr::Bitwise { from, to, mask, xor } => {
                let bits = mask.as_bytes().iter().zip(xor.as_bytes());
                let bytes = registers.get(*from, mask.as_bytes().len()).into_iter().zip(bits);
                let one = |(byte, (mask, xor)): (Option<u8>, (&u8, &u8))| match byte {
                    Some(byte) => Some((byte & mask) ^ xor),
                    None => (*mask == 0).then_some(*xor),
                };
                registers.put(*to, &bytes.map(one).collect::<Vec<_>>());
            }
            Expr::Compare { how, from, value } => return compare(*how, *from, value, registers),
            Expr::Lookup { set, from, inverted, to } => {
                return self.look_up(set, *from, *inverted, *to, registers);
            }
            Expr::SetMeta { key: MetaKey::Mark, from } => {
                let mark = registers.known(*from, 4).and_then(|bytes| bytes.try_into().ok());
                return match mark.map(u32::from_ne_bytes) {
                    Some(mark) if !doubted => {
                        let changes = flow.mark != mark;
                        flow.mark = mark;
                        if changes { Step::Effect(Effect::Marked) } else { Step::GoesOn }
                    }
                    _ => Step::Effect(Effect::Doubt("sets a mark".to_owned())),
                };
            }
            Expr::Verdict(verdict) => return self.verdict(verdict),
            Expr::Masquerade { .. } | Expr::Nat { kind: NatKind::Source, .. } => {
                return Step::Effect(Effect::End(Verdict::Masquerade));
            }
            Expr::Redirect { .. } | Expr::Nat { .. } => {
                return Step::Effect(Effect::End(Verdict::Translate));
            }
            Expr::Reject(_) => return Step::Effect(Effect::End(Verdict::Reject)),
            Expr::Counter | Expr::SetMeta { .. } | Expr::SetCt { .. } => {}
            Expr::Unknown { name, .. } if matches!(name.as_str(), "log" | "notrack") => {}
            Expr::Unknown { name, .. } => return Step::Doubt(name.clone()),
            _ => return Step::Doubt("an expression that is not known here".to_owned()),
        }
        Step::GoesOn
    }

    fn verdict(&self, verdict: &nft::Verdict) -> Step {
        let chain = |name: &str| format!("{} {name}", self.table.name);
        Step::Effect(match verdict {
            nft::Verdict::Accept => Effect::End(Verdict::Accept),
            nft::Verdict::Drop => Effect::End(Verdict::Drop),
            nft::Verdict::Continue => return Step::GoesOn,
            nft::Verdict::Return => Effect::Return,
            nft::Verdict::Jump(to) => Effect::Jump(chain(to)),
            nft::Verdict::Goto(to) => Effect::Goto(chain(to)),
            nft::Verdict::Other(_) => Effect::Doubt("queue".to_owned()),
        })
    }

    fn look_up(
        &self,
        name: &str,
        from: Register,
        inverted: bool,
        to: Option<Register>,
        registers: &mut Registers,
    ) -> Step {
        let Some(set) = self.table.sets.get(name) else {
            return Step::Doubt(format!("set {name}"));
        };
        let Some(key) = registers.known(from, set.key_length) else {
            return Step::Doubt(format!("a key of set {name} that is not known here"));
        };
        let found = set.get(&key);
        if found.is_some() == inverted {
            return Step::Ends;
        }
        match (found, to) {
            (Some(Found(Some(Data::Verdict(verdict)))), _) => self.verdict(verdict),
            (Some(Found(Some(Data::Value(value)))), Some(to)) => {
                registers.put_known(to, value.as_bytes());
                Step::GoesOn
            }
            _ => Step::GoesOn,
        }
    }
}

fn compare(how: Compare, from: Register, value: &Value, registers: &Registers) -> Step {
    let Some(left) = registers.known(from, value.as_bytes().len()) else {
        return Step::Doubt("what it compares is not known here".to_owned());
    };
    let order = left.as_slice().cmp(value.as_bytes());
    let is = match how {
        Compare::Eq => order.is_eq(),
        Compare::Neq => order.is_ne(),
        Compare::Lt => order.is_lt(),
        Compare::Lte => order.is_le(),
        Compare::Gt => order.is_gt(),
        Compare::Gte => order.is_ge(),
    };
    if is { Step::GoesOn } else { Step::Ends }
}

fn all_known(bytes: &[u8]) -> Vec<Option<u8>> {
    bytes.iter().map(|byte| Some(*byte)).collect()
}

fn number(protocol: Protocol) -> u8 {
    u8::try_from(protocol.number()).unwrap_or(u8::MAX)
}

fn meta(key: MetaKey, flow: &Flow) -> Vec<Option<u8>> {
    let name = |interface: &Option<String>| match interface {
        Some(name) => all_known(Value::interface(name).as_bytes()),
        None => vec![None; 16],
    };
    let is_ipv4 = flow.source.is_ipv4();
    match key {
        MetaKey::Mark => all_known(&flow.mark.to_ne_bytes()),
        MetaKey::InputName => name(&flow.input),
        MetaKey::OutputName => name(&flow.output),
        MetaKey::TransportProtocol => vec![Some(number(flow.protocol))],
        MetaKey::NetworkProtocol => {
            let family = if is_ipv4 { nft::Family::Ipv4 } else { nft::Family::Ipv6 };
            vec![Some(family.number())]
        }
        MetaKey::Protocol => {
            let ethernet: u16 = if is_ipv4 { 0x0800 } else { 0x86dd };
            all_known(&ethernet.to_be_bytes())
        }
        _ => vec![None; 16],
    }
}

fn ct(key: CtKey, direction: Option<CtDirection>, flow: &Flow) -> Vec<Option<u8>> {
    match (key, direction) {
        (CtKey::State, _) => {
            let state = if flow.is_answer { ct_state::ESTABLISHED } else { ct_state::NEW };
            all_known(&state.to_ne_bytes())
        }
        (CtKey::Direction, _) => vec![Some(u8::from(flow.is_answer))],
        (CtKey::TransportProtocol, _) => vec![Some(number(flow.protocol))],
        _ => vec![None; 16],
    }
}

fn network_header(flow: &Flow) -> Vec<Option<u8>> {
    use std::net::IpAddr::{V4, V6};
    let protocol = Some(number(flow.protocol));
    match (flow.source, flow.destination) {
        (V4(source), V4(destination)) => {
            let mut out = vec![None; 12];
            out[9] = protocol;
            out.extend(all_known(&source.octets()));
            out.extend(all_known(&destination.octets()));
            out
        }
        (V6(source), V6(destination)) => {
            let mut out = vec![None; 8];
            out[6] = protocol;
            out.extend(all_known(&source.octets()));
            out.extend(all_known(&destination.octets()));
            out
        }
        _ => Vec::new(),
    }
}

fn transport_header(flow: &Flow) -> Vec<Option<u8>> {
    let mut out = all_known(&flow.source_port.to_be_bytes());
    out.extend(all_known(&flow.port.to_be_bytes()));
    if flow.protocol == Protocol::Tcp {
        out.resize(13, None);
        out.push(Some(TCP_FLAGS[usize::from(flow.is_answer)]));
    }
    out
}
