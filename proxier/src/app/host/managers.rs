//! Programs that take every interface for theirs, and whether they leave `kube-ipvs0` alone.

use std::fs;
use std::path::{Path, PathBuf};

use crate::dataplane::INTERFACE;

/// Where their files are, the first counting most.
const PLACES: [&str; 3] = ["etc", "run", "usr/lib"];

/// One sentence for each that runs and may take addresses away.
pub(super) fn find(root: &Path) -> Vec<String> {
    let runs = |name: &str| {
        let processes = fs::read_dir(root.join("proc")).into_iter().flatten().flatten();
        let names = processes.filter_map(|it| fs::read_to_string(it.path().join("comm")).ok());
        names.into_iter().any(|it| it.trim_end() == name)
    };
    let mut out = Vec::new();
    if runs("NetworkManager") && !is_left_alone(root) {
        // In a container that sees the node's processes its files are not there.
        let (why, then) =
            if PLACES.iter().any(|place| root.join(place).join("NetworkManager").exists()) {
                ("nothing says", ": ")
            } else {
                ("its files cannot be seen from here; unless they say", ", ")
            };
        out.push(format!(
            "NetworkManager runs here, and {why} that it is to leave {INTERFACE} alone{then}it may take service \
             addresses away; run on the node `printf '[keyfile]\\nunmanaged-devices=interface-name:{INTERFACE}\\n' \
             >/etc/NetworkManager/conf.d/{INTERFACE}.conf && nmcli general reload`"
        ));
    }
    // The kernel cuts names after 15 letters.
    if runs("systemd-network")
        && let Some(file) = taken_by(root)
    {
        out.push(format!(
            "systemd-networkd takes {INTERFACE} by /{}: it removes service addresses when it restarts; run \
             `printf '[Match]\\nName={INTERFACE}\\n[Link]\\nUnmanaged=yes\\n' \
             >/etc/systemd/network/00-{INTERFACE}.network && networkctl reload`",
            file.display()
        ));
    }
    out
}

/// Files of a folder in each of the places, by their names.
fn files(root: &Path, folder: &str, ending: &str) -> Vec<PathBuf> {
    let of = |place: &str| fs::read_dir(root.join(place).join(folder)).into_iter().flatten();
    let all = PLACES.into_iter().flat_map(of).flatten().map(|entry| entry.path());
    let mut all: Vec<PathBuf> =
        all.filter(|path| path.extension().is_some_and(|it| it == ending)).collect();
    all.sort_by(|a, b| a.file_name().cmp(&b.file_name()));
    all
}

/// Whether a configuration of `NetworkManager` names it among the devices that are not its.
fn is_left_alone(root: &Path) -> bool {
    let main = root.join("etc/NetworkManager/NetworkManager.conf");
    let all = files(root, "NetworkManager/conf.d", "conf").into_iter().chain([main]);
    all.filter_map(|path| fs::read_to_string(path).ok()).any(|text| {
        let listed = text.lines().filter_map(|line| line.trim().strip_prefix("unmanaged-devices"));
        let mut devices =
            listed.flat_map(|list| list.trim_start_matches(['+', '=']).split([';', ',']));
        devices.any(|device| match device.trim().strip_prefix("interface-name:") {
            Some(name) => matches(name.trim_start_matches('='), INTERFACE),
            None => device.trim() == "type:dummy",
        })
    })
}

/// The first file of systemd-networkd that is for it, unless it says that the interface is not managed.
fn taken_by(root: &Path) -> Option<PathBuf> {
    let (path, text) = files(root, "systemd/network", "network").into_iter().find_map(|path| {
        let text = fs::read_to_string(&path).ok()?;
        let is_for = text.lines().any(|line| match line.trim().split_once('=') {
            Some(("Name", names)) => names.split_whitespace().any(|it| matches(it, INTERFACE)),
            Some(("Type", kinds)) => kinds.split_whitespace().any(|it| it == "dummy"),
            _ => false,
        });
        is_for.then_some((path, text))
    })?;
    let managed = !text.lines().any(|line| line.trim() == "Unmanaged=yes");
    managed.then(|| path.strip_prefix(root).unwrap_or(&path).to_owned())
}

/// Whether a name fits a pattern; what comes after its first `*` does not matter here.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        Some((start, _)) => name.starts_with(start),
        None => pattern == name,
    }
}

#[cfg(test)]
mod tests {
    use super::super::root::Root;
    use super::*;

    const MANAGER: (&str, &str) = ("proc/70/comm", "NetworkManager\n");
    const NETWORKD: (&str, &str) = ("proc/71/comm", "systemd-network\n");

    fn said(name: &str, files: &[(&str, &str)]) -> String {
        find(&Root::with(name, files).0).concat()
    }

    #[test]
    fn network_manager_is_to_leave_our_interface_alone() {
        let text = said("nm", &[MANAGER]);
        assert!(
            text.contains("its files cannot be seen") && text.contains("nmcli general reload`")
        );
        assert_eq!(said("no-nm", &[("proc/70/comm", "sh\n")]), "");
        for (name, list, alone) in [
            ("nm-own", "unmanaged-devices=interface-name:kube-ipvs0", true),
            ("nm-glob", "unmanaged-devices+=interface-name:cali*;interface-name:kube-*", true),
            ("nm-type", "unmanaged-devices=type:dummy", true),
            ("nm-other", "unmanaged-devices=interface-name:docker0", false),
        ] {
            let text = format!("[keyfile]\n{list}\n");
            let file = ("usr/lib/NetworkManager/conf.d/10.conf", text.as_str());
            let text = said(name, &[MANAGER, file]);
            assert_eq!(text.is_empty(), alone, "{list}");
            assert!(
                alone || text.contains("nothing says that it is to leave kube-ipvs0 alone: "),
                "{text}"
            );
        }
    }

    #[test]
    fn networkd_is_not_to_manage_it() {
        let all =
            ("usr/lib/systemd/network/80-all.network", "[Match]\nName=*\n[Network]\nDHCP=yes\n");
        let text = said("nd", &[NETWORKD, all]);
        assert!(text.contains("by /usr/lib/systemd/network/80-all.network"), "{text}");
        let own = "[Match]\nName=kube-ipvs0\n[Link]\nUnmanaged=yes\n";
        let own = ("etc/systemd/network/00-own.network", own);
        assert_eq!(said("nd-own", &[NETWORKD, all, own]), "");
        let other = ("etc/systemd/network/10-eth.network", "[Match]\nName=eth* en*\n");
        assert_eq!(said("nd-eth", &[NETWORKD, other]), "");
        assert_eq!(said("no-nd", &[all]), "");
    }
}
