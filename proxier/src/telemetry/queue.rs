//! Lines go to standard error through a thread: nobody waits for a reader who has stopped reading.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{
    CapabilitySet, CapabilitySets, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs,
};
use tracing_subscriber::fmt::MakeWriter;

use crate::config::LogFormat;

/// Lines that wait to be written; what does not fit is counted.
const MOST: usize = 1024;
/// How long the last lines may take.
const LAST: Duration = Duration::from_secs(1);
/// How often it is looked whether there is room again, meanwhile.
const AGAIN: Duration = Duration::from_millis(10);

static LOG: OnceLock<Queue> = OnceLock::new();

/// The way to the thread.
#[derive(Debug, Clone)]
pub(super) struct Queue {
    sender: SyncSender<Message>,
    lost: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Message {
    Line(Vec<u8>),
    /// Answered when everything before it is written.
    Flush(Sender<()>),
}

/// Waits until what was logged so far is written, though not for long.
pub(crate) fn flush() {
    if let Some(queue) = LOG.get() {
        queue.flush(LAST);
    }
}

/// Starts a thread that is there before the process gives up its capabilities, which each thread has for
/// itself. It gives up all of them, and for good.
pub(crate) fn powerless_thread(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let work = move || {
        // What a user other than root may not give up, it cannot get either.
        for capability in CapabilitySet::all().iter() {
            let _ = remove_capability_from_bounding_set(capability);
        }
        let none = CapabilitySet::empty();
        let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
        let _ = set_capabilities(None, sets);
        let _ = set_no_new_privs(true);
        work();
    };
    thread::Builder::new().name(name.to_owned()).spawn(work).map(drop)
}

// === impl Queue ===

impl Queue {
    /// Starts the thread that writes to standard error.
    pub(super) fn start(format: LogFormat) -> io::Result<Self> {
        let queue = Self::to(io::stderr(), format)?;
        Ok(LOG.get_or_init(|| queue).clone())
    }

    fn to(out: impl Write + Send + 'static, format: LogFormat) -> io::Result<Self> {
        let (sender, lines) = sync_channel(MOST);
        let lost = Arc::<AtomicU64>::default();
        let queue = Self { sender, lost: Arc::clone(&lost) };
        let write = move || write(out, &lines, &lost, format);
        powerless_thread("log", write)?;
        Ok(queue)
    }

    fn flush(&self, limit: Duration) {
        let end = Instant::now() + limit;
        let (done, wait) = channel();
        let mut message = Message::Flush(done);
        // A full queue is one that nobody has read, which may change.
        while let Err(TrySendError::Full(back)) = self.sender.try_send(message) {
            if Instant::now() >= end {
                return;
            }
            message = back;
            thread::sleep(AGAIN);
        }
        // Late is too late.
        let _ = wait.recv_timeout(end.saturating_duration_since(Instant::now()));
    }
}

/// The thread. That standard error is closed is nothing that could be said anywhere.
fn write(mut out: impl Write, lines: &Receiver<Message>, lost: &AtomicU64, format: LogFormat) {
    while let Ok(message) = lines.recv() {
        let done = match message {
            Message::Line(line) => {
                let _ = out.write_all(&line);
                None
            }
            Message::Flush(done) => Some(done),
        };
        let count = lost.swap(0, Ordering::Relaxed);
        if count > 0 {
            let text = format!("{count} lines of the log were lost, as nobody read them in time");
            let _ = match format {
                LogFormat::Text => writeln!(out, "{text}"),
                LogFormat::Json => {
                    writeln!(out, "{{\"level\":\"warn\",\"msg\":\"{text}\",\"v\":0}}")
                }
            };
        }
        if let Some(done) = done {
            let _ = out.flush();
            let _ = done.send(());
        }
    }
}

/// Each event is one write.
impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        // What is left out as a repetition is an empty line.
        if !line.is_empty() && self.sender.try_send(Message::Line(line.to_vec())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Queue {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn nobody_waits_for_a_reader_and_lost_lines_are_counted() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut queue = Queue::to(writer, LogFormat::Text).unwrap();
        // More than a pipe and the queue hold together.
        let line = [b'x'; 1023].into_iter().chain([b'\n']).collect::<Vec<u8>>();
        let sent = 5000;
        for _ in 0..sent {
            queue.write_all(&line).unwrap();
        }
        assert!(queue.lost.load(Ordering::Relaxed) > 0);
        queue.flush(Duration::ZERO);
        drop(queue);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        let count = |line: &str| line.split(' ').next().unwrap().parse::<usize>().unwrap();
        let (said, written): (Vec<_>, Vec<_>) =
            text.lines().partition(|line| line.contains("were lost"));
        let lost: usize = said.into_iter().map(count).sum();
        assert!(lost > 0);
        assert_eq!(written.len() + lost, sent);
    }
}
