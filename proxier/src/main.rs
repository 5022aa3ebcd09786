//! The `proxier` program.

use std::process::ExitCode;

use proxier::{app, args::Args};

fn main() -> ExitCode {
    let args = match Args::parse_from(std::env::args_os()) {
        Ok(args) => args,
        Err(error) => return app::usage(&error),
    };
    app::run(&args)
}
