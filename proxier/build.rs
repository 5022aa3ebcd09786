//! Tells the program what it is built with. The commit is what `PROXIER_COMMIT` says, as only whoever builds a
//! release knows that there are no other changes.

use std::env;
use std::process::Command;

fn main() {
    for name in ["RUSTC", "PROXIER_COMMIT"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    println!("cargo::rerun-if-changed=build.rs");
    let rustc = env::var_os("RUSTC").unwrap_or("rustc".into());
    let version = Command::new(rustc).arg("--version").output();
    let version = version.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    println!("cargo::rustc-env=PROXIER_RUSTC={}", version.unwrap_or_default());
    for name in ["TARGET", "PROFILE"] {
        println!("cargo::rustc-env=PROXIER_{name}={}", env::var(name).unwrap_or_default());
    }
    let commit = env::var("PROXIER_COMMIT").unwrap_or_default();
    println!("cargo::rustc-env=PROXIER_COMMIT={commit}");
}
