//! A test in a network namespace of its own. Tests of the other crates take it by its path.

use std::process::Command;

/// Set for the test that runs inside.
const INSIDE: &str = "PROXIER_TEST_NAMESPACE";

/// Runs `body` in a fresh network namespace: starts this test, which must be ignored, again under
/// `unshare --net` with these options, where it calls `body`.
///
/// # Panics
/// When it fails there, with all that it printed.
pub fn in_namespace(test: &str, options: &[&str], body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let output = Command::new("unshare")
        .args(options)
        .args(["--net", "--"])
        .arg(std::env::current_exe().expect("the path of this test"))
        .args([test, "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .output()
        .expect("unshare of util-linux");
    let printed = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && printed.contains("1 passed"), "{printed}\n{errors}");
    print!("{printed}");
}
