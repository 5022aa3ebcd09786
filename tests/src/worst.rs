//! The worst that one namespace can do to the daemon's memory: a search over what a tenant may write.
//!
//! A [`Shape`] says what the tenant has. It is measured by a daemon that the test API server feeds,
//! beside the Services of innocent others, while everything is listed and then changed.

mod measure;
mod objects;

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result, bail};

pub use measure::{Cost, measure};
pub use objects::documents;

/// What a shape consists of: a name, and the largest number that is tried.
const GENES: [(&str, u32); 21] = [
    // Services, and what each of them has.
    ("services", 120_000),
    ("ports", 15_000),
    ("external", 5_000),
    ("vips", 5_000),
    ("ranges", 5_000),
    ("node-ports", 1),
    ("dual", 1),
    ("local", 1),
    // Whether all of them claim the same addresses.
    ("contested", 1),
    // Slices of each Service, and what each of them has.
    ("slices", 20_000),
    ("slice-ports", 15_000),
    ("endpoints", 1_000),
    ("addresses", 100),
    ("hints", 8),
    // Slices whose Service does not exist.
    ("orphans", 120_000),
    // Whether slices repeat what others say.
    ("same", 1),
    // Whether no two names are the same, and how long they are.
    ("distinct", 1),
    ("name", 240),
    // Bytes of annotations on each object.
    ("padding", 1_000_000),
    // MiB of JSON in all.
    ("mebibytes", 192),
    // How everything changes: not at all, in place, away and back, listed anew.
    ("change", 3),
];

/// What a tenant writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape([u32; GENES.len()]);

impl Shape {
    /// The number of a gene.
    pub fn get(&self, name: &str) -> u32 {
        GENES.iter().position(|(gene, _)| *gene == name).map_or(0, |at| self.0[at])
    }

    /// Any shape. Small numbers are as likely as large ones.
    pub fn random(random: &mut Random) -> Self {
        Self(GENES.map(|(_, most)| random.below_log(most)))
    }

    /// This one as objects of some kilobytes.
    #[must_use]
    pub fn smaller(mut self) -> Self {
        for ((name, _), number) in GENES.iter().zip(&mut self.0) {
            *number = match *name {
                "mebibytes" => 1,
                "padding" => *number % 1000,
                "name" => *number % 100,
                _ if *number > 300 => *number % 300,
                _ => *number,
            };
        }
        self
    }

    /// This one with a few numbers changed.
    #[must_use]
    pub fn mutated(&self, random: &mut Random) -> Self {
        let mut shape = self.clone();
        for _ in 0..=random.below(2) {
            let at = random.below(GENES.len() as u32 - 1) as usize;
            let (most, now) = (GENES[at].1, shape.0[at]);
            shape.0[at] = match random.below(3) {
                0 => random.below_log(most),
                1 => now.saturating_mul(2).max(1).min(most),
                2 => now / 2,
                _ => (now + now / 4 + 1).min(most),
            };
        }
        shape
    }
}

/// `services=3 ports=100`; what is 0 is left out.
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let genes = GENES.iter().zip(self.0).filter(|(_, number)| *number > 0);
        let words: Vec<String> =
            genes.map(|((name, _), number)| format!("{name}={number}")).collect();
        f.write_str(&words.join(" "))
    }
}

impl FromStr for Shape {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut shape = Self([0; GENES.len()]);
        for word in text.split_whitespace() {
            let (name, number) = word.split_once('=').context("NAME=NUMBER")?;
            let Some(at) = GENES.iter().position(|(gene, _)| *gene == name) else {
                bail!("no such thing as {name}");
            };
            shape.0[at] = number.parse().with_context(|| format!("number {number}"))?;
        }
        Ok(shape)
    }
}

/// Numbers that are the same for the same seed.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// At most this.
    pub fn below(&mut self, most: u32) -> u32 {
        (self.next() % (u64::from(most) + 1)) as u32
    }

    /// At most this, each order of magnitude as likely as the others; in a quarter of all cases 0.
    fn below_log(&mut self, most: u32) -> u32 {
        if most < 9 {
            return self.below(most);
        }
        if self.below(3) == 0 {
            return 0;
        }
        let bits = self.below(most.ilog2());
        self.below((1 << bits) - 1) + (1 << bits).min(most)
    }
}

/// Shapes that are known to be costly, each in its way: where the search begins.
pub const KNOWN: [&str; 12] = [
    "services=3 ports=5000 slices=1 slice-ports=5000 endpoints=200 mebibytes=64 change=1",
    "services=1 ports=1000 external=600 mebibytes=8 change=2",
    "services=60000 ports=1 slices=1 slice-ports=1 endpoints=1 mebibytes=192 change=1",
    "services=120000 ports=1 mebibytes=192 change=3",
    "orphans=120000 slice-ports=1 endpoints=1 mebibytes=192 change=3",
    "orphans=120000 slice-ports=1 endpoints=1 mebibytes=192 change=1",
    "orphans=1000 slice-ports=1 endpoints=1000 hints=8 distinct=1 name=4 mebibytes=192 change=3",
    "orphans=5000 slice-ports=1 endpoints=1000 mebibytes=192 change=2",
    "orphans=200 slice-ports=15000 distinct=1 mebibytes=192 change=3",
    "services=200 ports=100 vips=10 ranges=100 slices=1 slice-ports=100 endpoints=1 mebibytes=64 change=1",
    "services=1 ports=1 slices=20000 slice-ports=1 endpoints=10 mebibytes=96 change=2",
    "services=120 ports=15000 mebibytes=192 change=3",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_is_what_its_text_says() {
        for known in KNOWN {
            let shape: Shape = known.parse().unwrap();
            assert_eq!(shape.to_string().split(' ').count(), known.split(' ').count());
            assert_eq!(shape.to_string().parse::<Shape>().unwrap(), shape);
        }
        assert!("pods=3".parse::<Shape>().is_err());
        let mut random = Random::new(7);
        for _ in 0..1000 {
            let shape = Shape::random(&mut random).mutated(&mut random);
            assert_eq!(shape.to_string().parse::<Shape>().unwrap(), shape);
            assert!(GENES.iter().zip(shape.0).all(|((_, most), number)| number <= 2 * most));
        }
    }
}
