//! The `proxier` program.

fn main() {}
