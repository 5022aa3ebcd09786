//! A kernel whose sockets have the smallest buffers. Tests of the other crates take it by its path.

use std::process::Command;

/// Runs a script in the namespace that the test kernel began with: only that has these settings.
fn set(send: &str, receive: &str) {
    let script = format!(
        "cd /proc/sys/net/core; for s in wmem_max wmem_default; do echo {send} >$s; done;
         for s in rmem_max rmem_default; do echo {receive} >$s; done"
    );
    let status = Command::new("nsenter")
        .args(["--net=/run/initial-netns", "--", "sh", "-ec", &script])
        .status()
        .expect("nsenter of util-linux");
    assert!(status.success(), "{script}");
}

/// While it lives, a socket gets the smallest buffers that there are, unless it may force others.
#[derive(Debug)]
pub struct SmallBuffers(());

impl SmallBuffers {
    /// Sets them.
    ///
    /// # Panics
    /// Outside of the test kernel.
    #[must_use]
    pub fn set() -> Self {
        set("4608", "2304");
        Self(())
    }
}

impl Drop for SmallBuffers {
    fn drop(&mut self) {
        set("212992", "212992");
    }
}
