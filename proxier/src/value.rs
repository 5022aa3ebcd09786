//! Values as Kubernetes writes them in flags, files and objects.

mod address;
mod duration;
mod mark_range;
pub(crate) mod tree;

pub use address::{parse_cidr, parse_ip, split_host_port, with_port};
pub use duration::{GoDuration, ParseDurationError};
pub use mark_range::{MarkRange, MarkRangeError};
