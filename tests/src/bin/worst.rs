//! Looks for the worst that the objects of one namespace can do to the daemon's memory.
//!
//! ```text
//! worst SECONDS [SEED]       searches for so long; prints each shape that was tried, and the worst
//! worst SHAPE                measures one, in the words that the search prints
//! ```

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use proxier_tests::worst::{Cost, KNOWN, Random, Shape, measure};

/// The limit of the deployment, in MiB.
const LIMIT: u32 = 512;

/// How long one shape may take.
const PATIENCE: Duration = Duration::from_mins(4);

/// Of how many of the worst others are made.
const PARENTS: usize = 8;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("worst: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[String]) -> Result<()> {
    let first = words.first().context("usage: worst SECONDS [SEED] | worst NAME=NUMBER...")?;
    if first.contains('=') {
        let shape = words.join(" ").parse()?;
        say(&shape, measure(&shape, LIMIT, PATIENCE)?);
        return Ok(());
    }
    let time = Duration::from_secs(first.parse().context("SECONDS")?);
    let seed = words.get(1).map_or(Ok(1), |seed| seed.parse()).context("SEED")?;
    search(time, &mut Random::new(seed))
}

fn search(time: Duration, random: &mut Random) -> Result<()> {
    let begin = Instant::now();
    let mut known = KNOWN.iter();
    let mut worst: Vec<(u64, Shape)> = Vec::new();
    let mut tried = 0;
    while begin.elapsed() < time {
        let shape = match known.next() {
            Some(known) => known.parse()?,
            None if random.below(4) == 0 => Shape::random(random),
            None => worst[random.below(worst.len() as u32 - 1) as usize].1.mutated(random),
        };
        match measure(&shape, LIMIT, PATIENCE) {
            Ok(cost) => {
                say(&shape, cost);
                worst.push((cost.peak, shape));
            }
            // An end of the process is a finding, too.
            Err(error) => println!("FAILED {error:#}: {shape}"),
        }
        tried += 1;
        worst.sort_by_key(|(peak, _)| std::cmp::Reverse(*peak));
        worst.truncate(PARENTS);
    }
    println!("\n{tried} shapes in {} s; the worst:", begin.elapsed().as_secs());
    for (peak, shape) in worst {
        println!("{:5} MiB  {shape}", peak >> 10);
    }
    Ok(())
}

fn say(shape: &Shape, cost: Cost) {
    let Cost { peak, objects, took, given_up } = cost;
    let given_up = if given_up { ", given up" } else { "" };
    println!(
        "{:5} MiB  {:4} s  {objects:6} objects{given_up}  {shape}",
        peak >> 10,
        took.as_secs()
    );
}
