//! What the client takes and gives.

use std::collections::BTreeSet;
use std::fmt;

use netlink_batch::Error;
use netlink_ipvs::Family;

use super::codec::{Element, ForeignElement};
use super::refusal::About;
use crate::dataplane::sets::{Member, SetId, SetType};

/// A set to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetSpec<'a> {
    /// Name, 1 to 31 bytes.
    pub name: &'a str,
    /// Type.
    pub set_type: SetType,
    /// Family of its addresses; bitmaps of ports have none.
    pub family: Family,
    /// Members that a hash can hold (`maxelem`); a bitmap of ports holds all 65536.
    pub capacity: u32,
}

/// What the kernel says about a set without its members.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SetHeader {
    /// Name.
    pub name: String,
    /// Type, as ipset calls it.
    pub type_name: String,
    /// Type, if it is one that this program uses.
    pub set_type: Option<SetType>,
    /// Revision of the type.
    pub revision: u8,
    /// Family of its addresses; `None` for a bitmap of ports.
    pub family: Option<Family>,
    /// Buckets of a hash.
    pub hash_size: Option<u32>,
    /// Members that a hash can hold (`maxelem`).
    pub capacity: Option<u32>,
    /// First and last port of a bitmap of ports.
    pub ports: Option<(u16, u16)>,
    /// Rules and other sets that refer to it.
    pub references: u32,
    /// Members that it holds; older kernels do not say.
    pub members: Option<u32>,
    /// Bytes of kernel memory.
    pub memory: u32,
    /// Its members go after [`EXPIRY`](crate::dataplane::split::EXPIRY).
    pub expires: bool,
    /// Its members have marks.
    pub marks: bool,
    /// It was made with options that this program never gives to a set of its type, such as another
    /// timeout, a netmask, counters or comments, or does not know.
    pub has_options: bool,
}

/// What a set holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SetContent {
    /// Members that this program could have added.
    pub members: BTreeSet<Member>,
    /// Everything else.
    pub foreign: BTreeSet<ForeignElement>,
}

/// One change of the elements of a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change<'a> {
    /// Add to the set of this name.
    Add(&'a str, Member),
    /// Remove from the set of this name.
    Remove(&'a str, Member),
    /// Remove an element that was listed as foreign from the set of this name.
    RemoveForeign(&'a str, &'a ForeignElement),
}

/// What became of a sequence of changes.
pub type Report = netlink_batch::Report<Error>;

impl<'a> SetSpec<'a> {
    /// One of the sets that the firewall rules refer to.
    pub const fn of(set: SetId, capacity: u32) -> SetSpec<'static> {
        SetSpec { name: set.name(), set_type: set.set_type(), family: set.family, capacity }
    }

    /// Whether `found` is such a set, whatever its capacity and members.
    pub fn matches(&self, found: &SetHeader) -> bool {
        let bitmap = self.set_type == SetType::BitmapPort;
        found.set_type == Some(self.set_type)
            && (bitmap || found.family == Some(self.family))
            && (!bitmap || found.ports == Some((0, u16::MAX)))
            && !found.has_options
    }

    pub(super) fn named<'b>(&self, name: &'b str) -> SetSpec<'b>
    where
        'a: 'b,
    {
        SetSpec { name, ..*self }
    }
}

impl SetContent {
    pub(super) fn insert(&mut self, element: Element) {
        match element {
            Element::Member(member) => self.members.insert(member),
            Element::Foreign(element) => self.foreign.insert(element),
        };
    }
}

impl Change<'_> {
    pub(super) fn about(&self) -> About {
        match self {
            Self::Add(_, Member::Port(_)) | Self::Remove(_, Member::Port(_)) => About::BitmapMember,
            _ => About::HashMember,
        }
    }
}

impl fmt::Display for Change<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add(set, member) => write!(f, "add {member} to set {set}"),
            Self::Remove(set, member) => write!(f, "remove {member} from set {set}"),
            Self::RemoveForeign(set, element) => write!(f, "remove {element} from set {set}"),
        }
    }
}
