//! How everything is read, and what is remembered of how it cannot be.

use std::time::Duration;

use tokio::time::Instant;

/// How long a server that refused streaming lists is not asked for one. A server that is upgraded
/// may have learned them; until it is asked again, pages do as well. So once a day is enough, and
/// what it costs is one request.
const MEMORY: Duration = Duration::from_hours(24);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// `sendInitialEvents`: the server streams objects as it streams events.
    Streaming,
    /// Lists with `limit` and `continue`.
    Pages,
}

#[derive(Debug)]
pub(super) struct Reading {
    way: Way,
    /// Streaming was refused, and nothing has been read since then.
    suspected: bool,
    /// Streaming was refused, while pages could be read.
    refused: Option<Instant>,
}

impl Reading {
    pub(super) fn new() -> Self {
        Self { way: Way::Streaming, suspected: false, refused: None }
    }

    /// The way to try now.
    pub(super) fn way(&self) -> Way {
        if self.knows_refusal() { Way::Pages } else { self.way }
    }

    fn knows_refusal(&self) -> bool {
        self.refused.is_some_and(|at| at.elapsed() < MEMORY)
    }

    /// The server does not stream lists.
    pub(super) fn refused(&mut self) {
        self.way = Way::Pages;
        self.suspected = true;
        self.refused = None;
    }

    /// It did not work. `often`: not for a while, and one way may work where the other one does not.
    pub(super) fn failed(&mut self, often: bool) {
        self.suspected = false;
        if often {
            self.way = match self.way {
                Way::Streaming => Way::Pages,
                Way::Pages => Way::Streaming,
            };
        }
    }

    /// Everything was read. A refusal was about streaming only where pages could be read after it:
    /// a server that refused both had other reasons.
    pub(super) fn listed(&mut self) {
        if std::mem::take(&mut self.suspected) {
            self.refused = Some(Instant::now());
        }
        self.way = Way::Streaming;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_remembered_for_a_day() {
        let mut reading = Reading::new();
        assert_eq!(reading.way(), Way::Streaming);
        reading.refused();
        assert_eq!(reading.way(), Way::Pages);
        reading.listed();
        for _ in 0..3 {
            assert_eq!(reading.way(), Way::Pages, "one refusal was enough");
            reading.failed(true);
            reading.listed();
            tokio::time::advance(MEMORY / 3).await;
        }
        assert_eq!(reading.way(), Way::Streaming, "it may have been upgraded");
        reading.refused();
        reading.listed();
        assert_eq!(reading.way(), Way::Pages);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_refuses_everything_says_nothing_about_streaming() {
        let mut reading = Reading::new();
        reading.refused();
        reading.failed(false);
        assert_eq!(reading.way(), Way::Pages);
        reading.listed();
        assert_eq!(reading.way(), Way::Streaming);
        // Pages by chance.
        reading.failed(true);
        assert_eq!(reading.way(), Way::Pages);
        reading.listed();
        assert_eq!(reading.way(), Way::Streaming);
    }
}
