#![doc = include_str!("../README.md")]

mod decode;
mod encode;
mod expression;
mod keys;
mod model;
mod set;
mod value;
mod wire;

pub use expression::{
    Compare, Expr, FibFlags, FibResult, NatFlags, NatKind, PayloadBase, Range, Register, Reject,
};
pub use keys::{ct_state, CtDirection, CtKey, MetaKey};
pub use model::{
    priority, BaseChain, Chain, ChainKind, Entry, Family, Hook, Policy, Rule, Table, TableEntry,
    TableFlags, TableKey, Verdict,
};
pub use set::{Data, DataType, Element, ElementEntry, MapData, Set, SetFlags};
pub use value::Value;
