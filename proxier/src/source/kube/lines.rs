//! A response body as lines, and as a whole.

use std::time::Duration;

use http_body_util::BodyExt as _;
use kube::client::Body;

use super::failure::Failure;

/// Longest line: an object in etcd has at most 1.5 MiB.
const LINE: usize = 32 << 20;
/// Longest list page.
const PAGE: usize = 512 << 20;

/// Reads line by line.
pub(super) struct Lines {
    body: Body,
    buffer: Vec<u8>,
    /// Start of what has not been returned yet.
    start: usize,
    /// Up to here there is no newline after `start`.
    searched: usize,
}

impl Lines {
    pub(super) fn new(body: Body) -> Self {
        Self { body, buffer: Vec::new(), start: 0, searched: 0 }
    }

    /// The next line that is not blank. `None` at the end; a last line without newline was cut and
    /// is not returned.
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
            if self.buffer.len() > LINE {
                return Err(Failure::Garbage(format!("an event of more than {} MiB", LINE >> 20)));
            }
            match frame(&mut self.body).await? {
                Some(bytes) => self.buffer.extend_from_slice(&bytes),
                None => return Ok(None),
            }
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

/// A whole body, none of whose pieces may keep us waiting for longer than `patience`.
pub(super) async fn whole(mut body: Body, patience: Duration) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    loop {
        let piece = tokio::time::timeout(patience, frame(&mut body))
            .await
            .map_err(|_| Failure::Stalled(patience))??;
        match piece {
            Some(piece) => bytes.extend_from_slice(&piece),
            None => return Ok(bytes),
        }
        if bytes.len() > PAGE {
            return Err(Failure::Garbage(format!("a list page of more than {} MiB", PAGE >> 20)));
        }
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
        assert_eq!(lines.next().await.unwrap(), Some(&b"{\"b\":2}\r"[..]));
        assert_eq!(lines.next().await.unwrap(), None);
        assert_eq!(lines.next().await.unwrap(), None);
    }
}
