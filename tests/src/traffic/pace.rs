//! The client's end: new TCP connections at a steady rate.

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, sleep_until, timeout};

use super::client::print;
use super::{Answer, Load, Protocol, Report};

/// How many may be open at once. Where the kernel is slower than the pace, so is the client: or they
/// would pile up until all of them take too long.
const OPEN: usize = 32;

/// How often new ones are made, all that are due at once: processes change place once for all of them,
/// which costs the test kernel more than the connections.
const BEAT: Duration = Duration::from_millis(40);

/// New connections at an even pace, each closed after its answer, until there were as many as asked
/// for, or the end of the standard input; for every line on it, reports what came of them so far, as soon
/// as one more has ended. A few that wait do not slow the others down.
pub fn rate(load: &Load, per_second: u32) -> Result<Report> {
    ensure!(load.to.protocol == Protocol::Tcp && load.source.is_none(), "only of plain TCP");
    let (sender, questions) = unbounded_channel();
    // Not waited for: the input may stay open longer than there is work.
    std::thread::spawn(move || io::stdin().lines().try_for_each(|_| sender.send(()).map_err(drop)));
    // One thread for all of them: changing from one to another costs the test kernel much.
    let runtime = Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, connect(load, per_second, questions))
}

async fn connect(
    load: &Load,
    per_second: u32,
    mut questions: UnboundedReceiver<()>,
) -> Result<Report> {
    let report = Rc::new(RefCell::new(Report::default()));
    let begin = Instant::now();
    // When the connection of this number is made.
    let due = |number: u32| {
        let exact = Duration::from_secs(1) / per_second.max(1) * number;
        begin + BEAT * u32::try_from(exact.as_nanos().div_ceil(BEAT.as_nanos())).unwrap_or(u32::MAX)
    };
    let mut open = JoinSet::new();
    let (mut next, mut asked) = (0, 0_u32);
    while next < load.times {
        tokio::select! {
            biased;
            question = questions.recv() => match question {
                Some(()) => asked += 1,
                None => break,
            },
            Some(ended) = open.join_next() => {
                ended.context("a connection's task")?;
                for _ in 0..std::mem::take(&mut asked) {
                    print(&report.borrow())?;
                }
            }
            () = sleep_until(due(next)), if open.len() < OPEN => {
                next += 1;
                let (load, report) = (load.clone(), Rc::clone(&report));
                open.spawn_local(async move {
                    let result = once(&load).await;
                    report.borrow_mut().count(&result);
                });
            }
        }
    }
    while let Some(ended) = open.join_next().await {
        ended.context("a connection's task")?;
    }
    Ok(report.take())
}

/// One connection, one answer, and closed.
async fn once(load: &Load) -> io::Result<Answer> {
    let answer = async {
        let mut stream = BufReader::new(TcpStream::connect(load.to.address).await?);
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(serde_json::from_str(&line)?)
    };
    timeout(Duration::from_millis(load.timeout), answer).await?
}
