//! Which firewall marks the daemon of this node has given to which addresses and ports. Nobody else can
//! know: what a mark is depends on all that has been before.

use std::collections::BTreeMap;

use netlink_ipvs::{Family, VirtualServerKey};

use super::Host;
use crate::config::Config;
use crate::dataplane::sets::{Member, SetRole};
use crate::dataplane::{Answer, Dataplane as _, OpError, Query, SetState};
use crate::kernel::Kernel;

/// The sets of the kernel that say so.
pub(in crate::app) struct Marks {
    kernel: Kernel,
    sets: BTreeMap<Family, SetState>,
}

impl Marks {
    /// Where the kernel can be read: that takes privileges.
    pub(in crate::app) fn open(config: &Config) -> Option<Self> {
        let host = Host::look(config).ok()?;
        let families = host.abilities.families;
        let sets = families.iter().map(|family| (*family, SetState::default())).collect();
        let kernel = Kernel::open(host.ipvs, host.filter, families).ok()?;
        Some(Self { kernel, sets })
    }

    /// The virtual servers by mark, each with one by address that clients inside the cluster reach so.
    pub(in crate::app) async fn read(
        &mut self,
    ) -> Result<BTreeMap<VirtualServerKey, VirtualServerKey>, OpError> {
        let mut out = BTreeMap::new();
        for (family, known) in &mut self.sets {
            let set = SetRole::LocalMark.of(*family);
            if let Answer::Set(_, found) = self.kernel.read(&Query::Set(set)).await? {
                *known = found.unwrap_or_default();
            }
            for member in &known.members {
                if let Member::Marked(address, protocol, port, mark) = *member {
                    let by_mark = VirtualServerKey::FirewallMark { mark, family: *family };
                    out.insert(by_mark, VirtualServerKey::new(address, port, protocol));
                }
            }
        }
        Ok(out)
    }
}
