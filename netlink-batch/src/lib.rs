#![doc = include_str!("../README.md")]

#[cfg(test)]
mod answers;
mod attribute;
mod batch;
mod dump;
mod error;
mod frame;
pub mod netfilter;
mod notifications;
mod report;
mod socket;

pub use attribute::{Attribute, Attributes, AttributesIter, PutAttributes};
pub use batch::{Batch, Limits};
pub use dump::Dump;
pub use error::{Error, ErrorKind, Failure, Refusal};
pub use frame::{messages, Content, Malformed, Message};
pub use notifications::Notifications;
pub use report::Report;
pub use socket::{Options, Socket};
