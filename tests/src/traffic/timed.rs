//! The client's end: how long it takes to connect.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::{Place, Protocol};

/// So many of each are not counted: neighbours and routes are looked up by the first ones.
const FIRST: u32 = 20;

/// How long connections to a place took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Took {
    /// Half of them took less, in milliseconds.
    pub p50: f64,
    /// 99 of 100 took less, in milliseconds.
    pub p99: f64,
}

/// Connects so many times to each of these places by TCP, in turn, so that whatever else the machine does
/// meets all of them alike.
pub fn time(rounds: u32, places: &[Place]) -> Result<Vec<Took>> {
    let mut all = vec![Vec::new(); places.len()];
    for round in 0..FIRST + rounds {
        for (place, took) in places.iter().zip(&mut all) {
            ensure!(place.protocol == Protocol::Tcp, "only of TCP");
            let begin = Instant::now();
            let stream = TcpStream::connect(place.address);
            let elapsed = begin.elapsed();
            drop(stream.with_context(|| format!("connect to {place}"))?);
            if round >= FIRST {
                took.push(elapsed);
            }
        }
    }
    all.into_iter().map(|took| quantiles(took).context("no connection")).collect()
}

fn quantiles(mut took: Vec<Duration>) -> Option<Took> {
    took.sort_unstable();
    let at = |part: usize| Some(took.get(took.len() * part / 100)?.as_secs_f64() * 1000.0);
    Some(Took { p50: at(50)?, p99: at(99)? })
}
