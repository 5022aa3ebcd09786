//! The two ends of test traffic, to be started in network namespaces; every result is a line of JSON.
//!
//! ```text
//! traffic serve NAME PLACE...
//! traffic connect PLACE [--times N] [--source ADDRESS:PORT] [--timeout MILLISECONDS] [--one-socket]
//! traffic hold    PLACE [the same]                 asks again for every line on standard input
//! traffic rate    PLACE --per-second N [the same]  reports for every line on standard input
//!                                                  as soon as one more has ended
//! traffic time    N PLACE...                       how long N connections to each take, in turn
//! traffic ping    ADDRESS                          prints a word
//! traffic flood   ADDRESS:PORT THREADS HELD        connects until its standard input ends
//! ```
//! A PLACE is `tcp:10.96.0.1:80`, `udp:[fd00::1]:53` or `sctp:10.96.0.1:7777`.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use proxier_tests::traffic::{Load, Place, connect, flood, hold, kind, ping, rate, serve, time};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("traffic: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[String]) -> Result<()> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let report = match words.as_slice() {
        ["serve", name, places @ ..] => {
            let places =
                places.iter().map(|place| place.parse()).collect::<Result<Vec<Place>>>()?;
            return serve(name, &places);
        }
        ["time", rounds, places @ ..] => {
            let places =
                places.iter().map(|place| place.parse()).collect::<Result<Vec<Place>>>()?;
            let took = time(rounds.parse().context("number of rounds")?, &places)?;
            println!("{}", serde_json::to_string(&took)?);
            return Ok(());
        }
        ["ping", address] => {
            let result = ping(address.parse().context("address")?, Duration::from_secs(5));
            println!("{}", result.map_or_else(|error| kind(&error), |()| "answered".to_owned()));
            return Ok(());
        }
        ["flood", to, threads, held] => {
            let number = |text: &str| text.parse().with_context(|| format!("number {text}"));
            let (threads, held) = (number(threads)?, number(held)?);
            return flood(to.parse().context("address")?, threads, held).context("flood");
        }
        ["connect", place, options @ ..] => connect(&load(place, options)?.0),
        ["hold", place, options @ ..] => {
            return hold(&load(place, options)?.0).context("hold connections");
        }
        ["rate", place, options @ ..] => {
            let (load, per_second) = load(place, options)?;
            rate(&load, per_second)?
        }
        _ => bail!(
            "usage: traffic serve NAME PLACE... | connect|hold|rate PLACE [OPTION...] | \
             time N PLACE... | ping ADDRESS | \
             flood ADDRESS:PORT THREADS HELD"
        ),
    };
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

/// Reads the options of a client.
fn load(place: &str, options: &[&str]) -> Result<(Load, u32)> {
    let mut load =
        Load { to: place.parse()?, times: 1, source: None, timeout: 5000, one_socket: false };
    let mut per_second = 100;
    let mut options = options.iter();
    while let Some(option) = options.next() {
        let mut value = || options.next().with_context(|| format!("{option} needs a value"));
        match *option {
            "--times" => load.times = value()?.parse().context("--times")?,
            "--source" => load.source = Some(value()?.parse::<SocketAddr>().context("--source")?),
            "--timeout" => load.timeout = value()?.parse().context("--timeout")?,
            "--per-second" => per_second = value()?.parse().context("--per-second")?,
            "--one-socket" => load.one_socket = true,
            _ => bail!("unknown option {option}"),
        }
    }
    Ok((load, per_second))
}
