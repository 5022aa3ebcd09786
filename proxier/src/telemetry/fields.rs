//! The fields of a line of text, each so that it may be shown: whatever a name, an error of a server
//! or a library says, a line stays a line.

use std::fmt::{self, Debug};

use tracing::field::Field;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{Writer, debug_fn};

use crate::text;

/// The format: the message, then `name=value`, separated by spaces.
pub(super) fn fields() -> impl for<'w> FormatFields<'w> + Send + Sync + 'static {
    debug_fn(write).delimited(" ")
}

fn write(out: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> fmt::Result {
    let value = format_args!("{value:?}");
    let value = text::line(value);
    match field.name() {
        "message" => write!(out, "{value}"),
        name if out.has_ansi_escapes() => {
            write!(out, "\u{1b}[3m{name}\u{1b}[0m\u{1b}[2m=\u{1b}[0m{value}")
        }
        name => write!(out, "{name}={value}"),
    }
}
