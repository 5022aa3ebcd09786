//! The text of a reading as it is sent.

use hyper::body::Bytes;

use super::readings::Lease;
use super::services::{ENDPOINT, SERVICE};
use super::text::Text;
use crate::http::body::Cut;

/// Bytes of a piece of text: so much is kept for each connection.
const PIECE: usize = 16 * 1024;

/// The text of a reading, piece by piece, after what is said before it.
#[derive(Debug)]
pub(in crate::http) struct Pieces {
    before: Option<Bytes>,
    reading: Lease,
    /// Of those of services and of endpoints together.
    metric: usize,
    /// Of its samples.
    sample: usize,
}

// === impl Pieces ===

impl Pieces {
    pub(super) fn new(before: String, reading: Lease) -> Self {
        Self { before: Some(before.into()), reading, metric: 0, sample: 0 }
    }
}

impl Iterator for Pieces {
    type Item = Result<Bytes, Cut>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(before) = self.before.take() {
            return Some(Ok(before));
        }
        let last = SERVICE.len() + ENDPOINT.len();
        if self.metric == last {
            return None;
        }
        let Some(reading) = self.reading.get() else {
            self.metric = last;
            return Some(Err(Cut));
        };
        let mut out = Text::default();
        while self.metric < last && out.len() < PIECE {
            if reading.write(&mut out, self.metric, self.sample) {
                self.sample += 1;
            } else {
                (self.metric, self.sample) = (self.metric + 1, 0);
            }
        }
        Some(out.into_string()).filter(|text| !text.is_empty()).map(|text| Ok(text.into()))
    }
}
