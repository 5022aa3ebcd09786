//! How much memory this process may have, as its control group says.

use std::fs;
use std::path::Path;

/// The lowest limit of the process's control group and of those around it, if there is one.
pub(in crate::app) fn of_cgroup() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    lowest(&groups, |path| fs::read_to_string(path).ok())
}

fn lowest(groups: &str, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let files = groups.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, group) = (fields.next()?, fields.next()?);
        match controllers {
            "" => Some(("/sys/fs/cgroup", group, "memory.max")),
            names if names.split(',').any(|name| name == "memory") => {
                Some(("/sys/fs/cgroup/memory", group, "memory.limit_in_bytes"))
            }
            _ => None,
        }
    });
    let limits = files.flat_map(|(root, group, file)| {
        // In a container the group's name may be one of the host, where only the root can be seen.
        let group = Path::new(group.trim_start_matches('/'));
        let places: Vec<_> =
            group.ancestors().map(|part| Path::new(root).join(part).join(file)).collect();
        places.into_iter().filter_map(|path| read(&path)?.trim().parse::<u64>().ok())
    });
    // Without a limit version 2 has `max`, version 1 a number that is larger than any memory.
    limits.filter(|bytes| *bytes < 1 << 60).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(groups: &str, files: &[(&str, &str)]) -> Option<u64> {
        lowest(groups, |path| {
            let file = files.iter().find(|(name, _)| Path::new(name) == path);
            file.map(|(_, content)| (*content).to_owned())
        })
    }

    #[test]
    fn the_lowest_limit_around_counts() {
        let v2 = "0::/kubepods/pod1/a\n";
        let own = ("/sys/fs/cgroup/kubepods/pod1/a/memory.max", "max\n");
        let pod = ("/sys/fs/cgroup/kubepods/pod1/memory.max", "536870912\n");
        let all = ("/sys/fs/cgroup/kubepods/memory.max", "8589934592\n");
        assert_eq!(found(v2, &[own, pod, all]), Some(512 << 20));
        assert_eq!(found(v2, &[own]), None);
        assert_eq!(found("0::/\n", &[("/sys/fs/cgroup/memory.max", "1048576\n")]), Some(1 << 20));
        // A container that sees the name which its group has on the host.
        assert_eq!(found(v2, &[("/sys/fs/cgroup/memory.max", "1048576\n")]), Some(1 << 20));
        let v1 = "12:pids:/docker/a\n4:cpu,memory:/docker/a\n0::/\n";
        let limit = "/sys/fs/cgroup/memory/docker/a/memory.limit_in_bytes";
        assert_eq!(found(v1, &[(limit, "1048576\n")]), Some(1 << 20));
        assert_eq!(found(v1, &[(limit, "9223372036854771712\n")]), None);
        assert_eq!(found("", &[]), None);
    }
}
