//! What became of many requests.

use std::ops::Range;

use crate::{Batch, Failure};

/// What became of a sequence of commands.
///
/// A command is identified by its place in the sequence, from 0. The ones that are in neither list
/// were carried out, or were so already.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Report<E> {
    /// How many commands were handed to the kernel.
    pub sent: usize,
    /// Of these, the ones that were so already.
    pub unchanged: usize,
    /// The commands that were certainly not carried out, and why; in order.
    pub failed: Vec<(usize, E)>,
    /// The commands whose answers were lost: read back what they were about.
    pub uncertain: Vec<Range<usize>>,
    /// System calls that sent commands.
    pub sends: usize,
    /// System calls that received replies.
    pub receives: usize,
    /// Bytes sent.
    pub bytes: usize,
}

impl<E> Default for Report<E> {
    fn default() -> Self {
        Self {
            sent: 0,
            unchanged: 0,
            failed: Vec::new(),
            uncertain: Vec::new(),
            sends: 0,
            receives: 0,
            bytes: 0,
        }
    }
}

impl<E> Report<E> {
    /// Whether every command was certainly carried out, or was so already.
    pub fn is_success(&self) -> bool {
        self.failed.is_empty() && self.uncertain.is_empty()
    }

    /// Adds what became of a batch whose first command is the next of this report. `error` is
    /// given the place within the batch; `None` means that it was so already.
    pub fn add(&mut self, batch: &Batch, mut error: impl FnMut(usize, Failure) -> Option<E>) {
        let start = self.sent;
        self.sent += batch.len();
        batch.failures(|index, failure| match error(index, failure) {
            Some(error) => self.failed.push((start + index, error)),
            None => self.unchanged += 1,
        });
        batch.uncertain(|range, _| self.uncertain.push(start + range.start..start + range.end));
    }
}
