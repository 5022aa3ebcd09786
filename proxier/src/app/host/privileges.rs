//! What this process may do once it has started: program the network, and nothing else.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::Context as _;
use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    configure_capability_in_ambient_set, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs,
};
use tracing::info;

/// `NET_ADMIN` for netlink, kernel settings and the firewall programs, of which those of the
/// legacy flavour need a raw socket as well; `NET_BIND_SERVICE` for health checks on low ports.
const NETWORK: CapabilitySet =
    CapabilitySet::NET_ADMIN.union(CapabilitySet::NET_RAW).union(CapabilitySet::NET_BIND_SERVICE);

/// Gives up every capability but those, for this thread and those that it starts, and for good:
/// neither they nor the firewall programs can get them back. To be called while there is only this
/// thread.
///
/// `files` will be read again later. Where one belongs to another user and cannot be read without
/// it, `DAC_READ_SEARCH` is kept as well; the firewall programs are started without it.
///
/// This program keeps what it has when it executes itself again: the capabilities stay in the bounding set,
/// from which root takes them, and in the ambient set, from which every other user does.
pub(in crate::app) fn give_up<'a>(files: impl Iterator<Item = &'a Path>) -> anyhow::Result<()> {
    let failed = "give up capabilities";
    let mut sets = capabilities(None).context(failed)?;
    let had = sets.permitted;
    let reader = CapabilitySet::DAC_READ_SEARCH;
    sets.effective &= NETWORK | CapabilitySet::SETPCAP;
    sets.inheritable = CapabilitySet::empty();
    set_capabilities(None, sets).context(failed)?;
    clear_ambient_capability_set().context(failed)?;
    set_no_new_privs(true).context(failed)?;
    let mut keep = had & NETWORK;
    if had.contains(reader)
        && let Some(file) = files.into_iter().find(|file| !is_readable(file))
    {
        info!(file = %file.display(), "belongs to another user, DAC_READ_SEARCH is kept");
        keep |= reader;
    }
    for capability in (!(NETWORK | keep)).iter() {
        match remove_capability_from_bounding_set(capability) {
            // A number that this kernel does not know; or not ours to remove, as in a container that
            // was given few of them.
            Ok(()) | Err(Errno::INVAL | Errno::PERM) => {}
            Err(error) => return Err(error).context(failed),
        }
    }
    let sets = CapabilitySets { effective: keep, permitted: keep, inheritable: keep };
    set_capabilities(None, sets).context(failed)?;
    for capability in keep.iter() {
        match configure_capability_in_ambient_set(capability, true) {
            // Root needs no ambient set; the firewall programs of others say what they lack.
            Ok(()) | Err(Errno::PERM) => {}
            Err(error) => return Err(error).context(failed),
        }
    }
    Ok(())
}

/// Whether this process may program the network.
pub(in crate::app) fn may_program() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::NET_ADMIN))
}

/// Whether permission is not what it lacks.
fn is_readable(file: &Path) -> bool {
    let open =
        if file.is_dir() { file.read_dir().map(drop) } else { fs::File::open(file).map(drop) };
    !open.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}
