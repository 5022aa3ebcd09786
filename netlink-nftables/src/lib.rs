#![doc = include_str!("../README.md")]

#[cfg(test)]
extern crate self as netlink_nftables;

#[cfg(test)]
mod arbitrary;
mod client;
mod decode;
mod describe;
mod encode;
mod error;
mod expression;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod keys;
mod model;
mod monitor;
mod set;
#[cfg(test)]
mod tests;
mod transaction;
mod value;
mod wire;

pub use client::Client;
pub use error::{Refused, RefusedRequest};
pub use expression::{
    Compare, Expr, FibFlags, FibResult, NatFlags, NatKind, PayloadBase, Range, Register, Reject,
};
pub use keys::{ct_state, CtDirection, CtKey, MetaKey};
pub use model::{
    priority, BaseChain, Chain, ChainKind, Entry, Family, Hook, Policy, Rule, Table, TableEntry,
    TableFlags, TableKey, Verdict,
};
pub use monitor::{Change, Event, Generation, Monitor, Object};
pub use netlink_batch::{Error, ErrorKind, Failure, Refusal};
pub use set::{Data, DataType, Element, ElementEntry, MapData, Set, SetFlags};
pub use transaction::Transaction;
pub use value::Value;
