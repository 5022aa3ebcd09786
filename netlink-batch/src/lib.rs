//! Netlink for programs that change much at once, whatever the family.
//!
//! * [`Socket::execute`] carries out thousands of requests in few system calls and says of each one
//!   what became of it: done, refused, or unknown because an answer was lost.
//! * [`Socket::dump`] reads a list that is whole, or fails: one that changed meanwhile is read
//!   again.
//! * [`Socket::ask`] reads one answer, [`Socket::run`] carries out one request.
//! * [`netfilter`] has what all netfilter families need, transactions too.
//! * [`Notifications`] receives what the kernel sends to multicast groups.
//! * [`Batch`] and [`Dump`] are the same without a socket.
//! * [`PutAttributes`] appends attributes to the one buffer that is sent; [`messages`] and
//!   [`Attributes`] read what comes back, without copies. No bytes make them panic.
//!
//! What the kernel does, and what is made of it:
//!
//! * It carries out all messages of one send in order, within the `send` call, and goes on after
//!   one that it refuses. It reports a refusal whether or not an acknowledgement was asked for. So
//!   only the last message asks: a batch without failures costs one `send` and one `recv`.
//! * A reply that does not fit into the receive buffer is lost, and the next `recv` says `ENOBUFS`.
//!   Then silence does not mean success any more, and the requests without a reply are
//!   [uncertain](Report::uncertain).
//! * A send that does not fit into the send buffer is refused with `EMSGSIZE`. Buffers are forced
//!   to their size where that is permitted (`CAP_NET_ADMIN`); elsewhere messages are split to what
//!   fits.
//!
//! ```no_run
//! use netlink_batch::{Failure, Options, PutAttributes, Socket};
//! use netlink_sys::protocols::NETLINK_ROUTE;
//!
//! # fn main() -> std::io::Result<()> {
//! const RTM_DELLINK: u16 = 17;
//! const IFLA_IFNAME: u16 = 3;
//!
//! let mut socket = Socket::open(NETLINK_ROUTE, &Options::default())?;
//! let report = socket.execute(
//!     ["dummy0", "dummy1"],
//!     |batch, name| {
//!         batch.push(RTM_DELLINK, 0, |out| {
//!             out.extend([0; 16]); // struct ifinfomsg
//!             out.text(IFLA_IFNAME, name);
//!         });
//!     },
//!     |name, failure: Failure| Some(format!("delete {name}: {failure}")),
//! );
//! for (_, error) in &report.failed {
//!     eprintln!("{error}");
//! }
//! # Ok(())
//! # }
//! ```

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

/// Compiles the README's example.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
