//! A response body as lines, and as a whole.

use std::time::Duration;

use http_body_util::BodyExt as _;
use kube::client::Body;
use tokio::time::timeout_at;

use super::bounds::{Excess, OBJECT};
use super::failure::Failure;
use super::pace::Pace;

/// Reads line by line.
pub(super) struct Lines {
    body: Body,
    buffer: Vec<u8>,
    /// Start of what has not been returned yet.
    start: usize,
    /// Up to here there is no newline after `start`.
    searched: usize,
    received: u64,
}

impl Lines {
    pub(super) fn new(body: Body) -> Self {
        Self { body, buffer: Vec::new(), start: 0, searched: 0, received: 0 }
    }

    /// Bytes so far.
    pub(super) fn received(&self) -> u64 {
        self.received
    }

    /// The next line that is not blank. `None` at the end; a last line without newline was cut and
    /// is not returned. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Result<Option<&[u8]>, Failure> {
        loop {
            let newline = memchr::memchr(b'\n', &self.buffer[self.searched..]);
            if let Some(at) = newline {
                let (start, end) = (self.start, self.searched + at);
                self.start = end + 1;
                self.searched = self.start;
                if !self.buffer[start..end].trim_ascii().is_empty() {
                    return Ok(Some(&self.buffer[start..end]));
                }
                continue;
            }
            self.buffer.drain(..self.start);
            // One huge object must not cost its memory for the rest of the stream.
            if self.buffer.is_empty() && self.buffer.capacity() > 1 << 20 {
                self.buffer = Vec::new();
            }
            self.start = 0;
            self.searched = self.buffer.len();
            if self.buffer.len() > OBJECT {
                return Err(Failure::Excess(Excess::Object));
            }
            match frame(&mut self.body).await? {
                Some(bytes) => {
                    self.received += bytes.len() as u64;
                    self.buffer.extend_from_slice(&bytes);
                }
                None => return Ok(None),
            }
        }
    }

    /// As [`Self::next`], if that is there to be read; `None` where it would have to be waited for.
    pub(super) async fn ready(&mut self) -> Option<Result<Option<&[u8]>, Failure>> {
        tokio::select! {
            biased;
            line = self.next() => Some(line),
            // The task that has the connection gets one turn to hand on what it holds.
            () = tokio::task::yield_now() => None,
        }
    }
}

/// The next piece of a body.
async fn frame(body: &mut Body) -> Result<Option<hyper::body::Bytes>, Failure> {
    loop {
        match body.frame().await {
            Some(Ok(frame)) => {
                if let Ok(bytes) = frame.into_data() {
                    return Ok(Some(bytes));
                }
            }
            Some(Err(error)) => {
                return Err(Failure::Lost(anyhow::Error::new(error).context("read the answer")));
            }
            None => return Ok(None),
        }
    }
}

/// A whole body of at most `most` bytes. It may take as long as it comes: no piece may keep us
/// waiting for longer than `patience`, and drops are not waited for.
pub(super) async fn whole(
    mut body: Body,
    patience: Duration,
    most: usize,
    excess: Excess,
) -> Result<Vec<u8>, Failure> {
    let pace = Pace::new(patience);
    let mut bytes = Vec::new();
    loop {
        let received = bytes.len() as u64;
        let piece = timeout_at(pace.deadline(received), frame(&mut body)).await;
        let Some(piece) = piece.map_err(|_| pace.missed(received))?? else { return Ok(bytes) };
        if bytes.len() + piece.len() > most {
            return Err(Failure::Excess(excess));
        }
        bytes.extend_from_slice(&piece);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_whole_or_not_at_all() {
        let text = "{\"a\":1}\n\n  \n{\"b\":2}\r\n{\"cut\":".to_owned();
        let mut lines = Lines::new(Body::from(text.into_bytes()));
        assert_eq!(lines.next().await.unwrap(), Some(&b"{\"a\":1}"[..]));
        assert_eq!(lines.ready().await.unwrap().unwrap(), Some(&b"{\"b\":2}\r"[..]));
        assert_eq!(lines.next().await.unwrap(), None);
        assert_eq!(lines.next().await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_line_and_a_body_have_an_end() {
        let endless = || Body::from(vec![b' '; OBJECT + 1]);
        let failure = Lines::new(endless()).next().await.unwrap_err();
        assert!(matches!(failure, Failure::Excess(Excess::Object)), "{failure}");
        let failure = whole(endless(), Duration::MAX / 4, OBJECT, Excess::Page).await.unwrap_err();
        assert!(matches!(failure, Failure::Excess(Excess::Page)), "{failure}");
    }
}
