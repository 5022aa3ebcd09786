//! What the kernel says of this process (`/proc/self`, proc(5)).

use std::fs;

use rustix::process::{Resource, getrlimit};

/// Units of the times in `/proc`: `USER_HZ`, 100 on every architecture that Rust's Linux has.
const TICKS: f64 = 100.0;

/// What can be read; what cannot is missing.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Process {
    /// Processor time used, in seconds.
    pub(super) cpu: Option<f64>,
    /// When it was started, in seconds since 1970.
    pub(super) start: Option<f64>,
    /// Bytes of memory in use.
    pub(super) resident: Option<u64>,
    /// Bytes of address space.
    pub(super) virtual_size: Option<u64>,
    /// Open files.
    pub(super) open_files: Option<usize>,
    /// Files that may be open.
    pub(super) most_files: Option<u64>,
    /// Threads.
    pub(super) threads: Option<u64>,
}

impl Process {
    pub(super) fn read() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self {
            open_files: fs::read_dir("/proc/self/fd").ok().map(Iterator::count),
            most_files: getrlimit(Resource::Nofile).current,
            ..Self::parse(&read("/proc/self/stat"), &read("/proc/self/status"), &read("/proc/stat"))
        }
    }

    fn parse(stat: &str, status: &str, system: &str) -> Self {
        // The program's name, in brackets, may contain anything.
        let fields: Vec<&str> = stat
            .rsplit_once(')')
            .map(|(_, rest)| rest.split_whitespace().collect())
            .unwrap_or_default();
        // Numbered as in proc(5), where the name is 2.
        let ticks = |field: usize| fields.get(field - 3)?.parse::<f64>().ok();
        let boot = || number(system, "btime").map(|seconds| f64::from(seconds as u32));
        let kilobytes = |name: &str| number(status, name).map(|size| size * 1024);
        Self {
            cpu: ticks(14).zip(ticks(15)).map(|(user, system)| (user + system) / TICKS),
            start: ticks(22).zip(boot()).map(|(after, boot)| boot + after / TICKS),
            resident: kilobytes("VmRSS:"),
            virtual_size: kilobytes("VmSize:"),
            open_files: None,
            most_files: None,
            threads: number(status, "Threads:"),
        }
    }
}

/// The number after a word at the beginning of a line.
fn number(text: &str, word: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(word));
    lines.next()?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_those_of_proc() {
        let stat = "42 (a) b) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 12345 \
                    99999 555 18446744073709551615";
        let status = "Name:\ta\nVmSize:\t  2048 kB\nVmRSS:\t     512 kB\nThreads:\t3\n";
        let system = "cpu 1 2 3\nbtime 1700000000\n";
        let process = Process::parse(stat, status, system);
        assert_eq!(process.cpu, Some(3.0));
        assert_eq!(process.start, Some(1_700_000_123.45));
        assert_eq!(process.resident, Some(524_288));
        assert_eq!(process.virtual_size, Some(2_097_152));
        assert_eq!(process.threads, Some(3));
        assert_eq!(Process::parse("", "x", "btime"), Process::default());
    }

    #[test]
    fn this_process_can_be_read() {
        let process = Process::read();
        assert!(process.resident.is_some_and(|bytes| bytes > 100_000), "{process:?}");
        assert!(process.open_files.is_some_and(|files| files > 2), "{process:?}");
        assert!(process.start.is_some_and(|start| start > 1_600_000_000.0), "{process:?}");
        assert!(process.cpu.is_some() && process.threads.is_some(), "{process:?}");
    }
}
