//! Which changes of IPv6 addresses are this process's own.
//!
//! The kernel says of an IPv4 address who asked for its change, and the monitor's socket leaves
//! ours out. Of an IPv6 address it does not say. So each [`Monitor`](crate::Monitor) knows what was
//! asked for, and a notification that says the same is no news.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// What this process's monitors know.
static MONITORS: Mutex<Vec<Weak<Asked>>> = Mutex::new(Vec::new());

/// What was asked for and has not been superseded by what was told: for each address on each
/// interface, whether it was to be there, in order.
#[derive(Debug, Default)]
pub(crate) struct Asked(Mutex<HashMap<(u32, Ipv6Addr), VecDeque<bool>>>);

/// Notes a change that is about to be asked for.
pub(crate) fn asked(interface: u32, address: IpAddr, added: bool) {
    note(interface, address, |history| history.push_back(added));
}

/// Notes that a change was refused, so that nothing will be told of it.
pub(crate) fn refused(interface: u32, address: IpAddr) {
    note(interface, address, |history| {
        history.pop_back();
    });
}

fn note(interface: u32, address: IpAddr, note: impl Fn(&mut VecDeque<bool>)) {
    let IpAddr::V6(address) = address else { return };
    let mut monitors = locked(&MONITORS);
    monitors.retain(|monitor| monitor.strong_count() > 0);
    for asked in monitors.iter().filter_map(Weak::upgrade) {
        let mut asked = locked(&asked.0);
        let history = asked.entry((interface, address)).or_default();
        note(history);
        if history.is_empty() {
            asked.remove(&(interface, address));
        }
    }
}

impl Asked {
    /// Knows what is asked for from now on.
    pub(crate) fn from_now_on() -> Arc<Self> {
        let new = Arc::new(Self::default());
        locked(&MONITORS).push(Arc::downgrade(&new));
        new
    }

    /// Whether a notification says what was asked for. Keeps no more than the addresses that are
    /// there because of this process.
    pub(crate) fn expects(&self, interface: u32, address: IpAddr, added: bool) -> bool {
        let IpAddr::V6(address) = address else { return false };
        let mut asked = locked(&self.0);
        let Some(history) = asked.get_mut(&(interface, address)) else { return false };
        let place = history.iter().position(|asked| *asked == added);
        // What is there stays: the kernel may tell of it again.
        history.drain(..place.unwrap_or(history.len()));
        if *history == [false] {
            history.clear();
        }
        if history.is_empty() {
            asked.remove(&(interface, address));
        }
        place.is_some()
    }

    /// Notes that an interface is gone with its addresses.
    pub(crate) fn gone(&self, interface: u32) {
        locked(&self.0).retain(|(other, _), _| *other != interface);
    }

    /// Notes that notifications were lost.
    pub(crate) fn lost(&self) {
        locked(&self.0).retain(|_, history| {
            history.drain(..history.len().saturating_sub(1));
            *history == [true]
        });
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_is_no_news_and_what_others_do_is() {
        let asked = Asked::from_now_on();
        let [one, two]: [IpAddr; 2] = ["fd00::1", "fd00::2"].map(|text| text.parse().unwrap());
        // An interface that no other test has.
        let link = u32::MAX;
        let told = |changes: &[(IpAddr, bool)]| {
            for (address, added) in changes {
                super::asked(link, *address, *added);
            }
        };
        told(&[(one, true), (two, true)]);
        assert!(asked.expects(link, one, true));
        assert!(asked.expects(link, one, true), "the kernel may say it again");
        assert!(!asked.expects(link - 1, one, true), "on another interface");
        // Another one removes it, and adds it again.
        assert!(!asked.expects(link, one, false));
        assert!(!asked.expects(link, one, true));
        told(&[(two, false)]);
        assert!(asked.expects(link, two, false));
        assert!(locked(&asked.0).is_empty(), "nothing is kept of what is gone");
        // Told of late.
        told(&[(two, true), (two, false)]);
        assert!(asked.expects(link, two, true));
        assert!(asked.expects(link, two, false));
        told(&[(one, true)]);
        refused(link, one);
        assert!(!asked.expects(link, one, true), "it was not this process");
        told(&[(one, true), (two, false)]);
        asked.lost();
        assert_eq!(locked(&asked.0).len(), 1);
        asked.gone(link);
        assert!(locked(&asked.0).is_empty());
        let v4: IpAddr = "10.0.0.1".parse().unwrap();
        told(&[(v4, true)]);
        assert!(locked(&asked.0).is_empty());
    }
}
