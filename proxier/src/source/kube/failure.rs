//! What ends an attempt to watch.

use std::time::Duration;

use hyper_util::client::legacy;
use serde::Deserialize;

use super::bounds::Excess;
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
    /// There is no connection: refused, timed out, not trusted, no such host, or no way to try.
    #[error("{}", chain(&**.0))]
    Unreachable(anyhow::Error),
    #[error("{}", chain(&**.0))]
    Lost(anyhow::Error),
    #[error("the server sent nothing for {0:?}")]
    Stalled(Duration),
    #[error("the server sent {received} bytes in {took:.0?}: too slow to wait for the end")]
    Slow { took: Duration, received: u64 },
    #[error("the server ended the watch after {0:?}")]
    TooShort(Duration),
    #[error("the server sent {0}")]
    Garbage(String),
    #[error("the server sent {0}, which is beyond what is read")]
    Excess(Excess),
}

/// `meta/v1.Status`, in which the server describes a refusal.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ApiStatus {
    pub(super) code: u16,
    pub(super) reason: String,
    pub(super) message: String,
}

impl ApiStatus {
    /// From the body of a refusal, which need not be one.
    pub(super) fn parse(body: &[u8]) -> Self {
        serde_json::from_slice(body).unwrap_or_default()
    }
}

/// What a failure says about when to ask again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Nobody answers. To ask costs next to nothing, and it can be over at any moment.
    Unreachable,
    /// The server is there and may work at any moment.
    Answered,
    /// The server is there and will go on refusing until somebody does something.
    Denied,
    /// Reading everything has failed on the way. To ask again costs the server a list.
    Broken,
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

    /// From a request that was not answered.
    pub(super) fn from_request(error: kube::Error, server: &hyper::Uri) -> Self {
        let error = anyhow::Error::new(error);
        let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<legacy::Error>());
        let connect = causes.any(legacy::Error::is_connect);
        let error = error.context(format!("reach the API server {server}"));
        if connect { Self::Unreachable(error) } else { Self::Lost(error) }
    }

    /// What the server asked for.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// What it says about when to ask again. `listing`: everything was being read.
    pub(super) fn class(&self, listing: bool) -> Class {
        match self {
            Self::Unreachable(_) => Class::Unreachable,
            Self::Refused { code: 408 | 429, .. } => Class::Answered,
            Self::Lost(_)
            | Self::Stalled(_)
            | Self::Slow { .. }
            | Self::Garbage(_)
            | Self::Excess(_)
                if listing =>
            {
                Class::Broken
            }
            Self::Refused { code: 400..500, .. } | Self::Excess(_) => Class::Denied,
            _ => Class::Answered,
        }
    }

    /// Whether it hardly gets better by itself within the seconds that somebody waits for an answer.
    pub(super) fn is_lasting(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::Refused { code, .. } => matches!(code, 401 | 403 | 404),
            // The server does not accept this client's certificate.
            Self::Lost(error) => format!("{error:#}").contains("received fatal alert"),
            _ => false,
        }
    }

    /// How long such failures go on before the position of the watch may be the reason; `None`: it
    /// never is. To give one up without need costs the server a list for each node.
    pub(super) fn trusts_position(&self) -> Option<Duration> {
        match self {
            Self::Refused { code: 400 | 422, .. } => Some(Duration::ZERO),
            Self::Refused { code: 401 | 403 | 429 | 502 | 503, .. } => None,
            Self::Refused { .. } | Self::TooShort(_) => Some(Duration::from_mins(1)),
            _ => None,
        }
    }
}
