//! What ends an attempt to watch.

use std::time::Duration;

use super::decode::ApiStatus;
use crate::text::{self, chain};

/// Why an attempt ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// There is nobody to send to any more.
    #[error("the receiver is gone")]
    Receiver,
    #[error("the server no longer knows where this watch was: {0}")]
    Gone(String),
    #[error(
        "the server has gone back from resource version {from} to {to}: was its database restored?"
    )]
    WentBack { from: String, to: String },
    #[error("streaming lists do not work: {0}")]
    NoStreaming(String),
    #[error("the server refused with {code}: {text}")]
    Refused { code: u16, text: String, retry_after: Option<Duration> },
    #[error("{}", chain(&**.0))]
    Lost(anyhow::Error),
    #[error("the server sent nothing for {0:?}")]
    Stalled(Duration),
    #[error("the server ended the watch after {0:?}")]
    TooShort(Duration),
    #[error("the server sent {0}")]
    Garbage(String),
}

impl Failure {
    /// From what the server says, as the answer or inside a stream.
    pub(super) fn from_status(status: ApiStatus, retry_after: Option<Duration>) -> Self {
        let ApiStatus { code, reason, message } = status;
        let text = text::line(if message.is_empty() { &reason } else { &message }).to_string();
        if code == 410 || reason == "Expired" || reason == "Gone" {
            Self::Gone(text)
        } else {
            Self::Refused { code, text, retry_after }
        }
    }

    /// What the server asked for.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
