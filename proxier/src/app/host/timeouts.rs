//! The idle times of IPVS connections.

use anyhow::Context as _;
use netlink_ipvs::{Client, Command, ErrorKind, Timeouts};
use tracing::{info, warn};

/// Sets those that are given. One that is longer than the kernel takes becomes the longest that it
/// takes: that depends on its clock (`INT_MAX / HZ`), so it is found by trying.
pub(in crate::app) fn set(ipvs: &mut Client, wanted: Timeouts) -> anyhow::Result<()> {
    if wanted == Timeouts::default() {
        return Ok(());
    }
    let before = ipvs.timeouts().context("read the IPVS timeouts")?;
    let warnings = set_by(wanted, |timeouts| match ipvs.run(Command::SetTimeouts(timeouts)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::Invalid => Ok(false),
        Err(error) => Err(error),
    })
    .context("set the IPVS timeouts")?;
    for text in warnings {
        warn!("{text}");
    }
    let after = ipvs.timeouts().context("read the IPVS timeouts")?;
    if after != before {
        info!("IPVS timeouts: {before} -> {after}");
    }
    Ok(())
}

/// Sets them all, or each by itself where the kernel does not accept one; what was shortened.
fn set_by<E>(
    wanted: Timeouts,
    mut accepts: impl FnMut(Timeouts) -> Result<bool, E>,
) -> Result<Vec<String>, E> {
    let Timeouts { tcp, tcp_fin, udp } = wanted;
    if accepts(wanted)? {
        return Ok(Vec::new());
    }
    let mut warnings = Vec::new();
    let none = Timeouts::default();
    for (field, seconds, only) in [
        ("tcpTimeout", tcp, (|tcp| Timeouts { tcp, ..Timeouts::default() }) as fn(u32) -> Timeouts),
        ("tcpFinTimeout", tcp_fin, |tcp_fin| Timeouts { tcp_fin, ..Timeouts::default() }),
        ("udpTimeout", udp, |udp| Timeouts { udp, ..Timeouts::default() }),
    ] {
        if only(seconds) == none || accepts(only(seconds))? {
            continue;
        }
        // The longest that is accepted is in front of the first that is not.
        let (mut longest, mut refused) = (0, seconds);
        while refused - longest > 1 {
            let middle = longest + (refused - longest) / 2;
            if accepts(only(middle))? {
                longest = middle;
            } else {
                refused = middle;
            }
        }
        accepts(only(longest))?;
        warnings.push(format!(
            "ipvs.{field} {seconds} s is longer than this kernel takes: {longest} s is used, its largest \
             value ({} h)",
            longest / 3600
        ));
    }
    Ok(warnings)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A kernel that takes so much, and what it has after these timeouts were set.
    fn kernel(longest: u32, wanted: [u32; 3]) -> ([u32; 3], Vec<String>) {
        let mut state = [900, 120, 300];
        let [tcp, tcp_fin, udp] = wanted;
        let warnings = set_by(Timeouts { tcp, tcp_fin, udp }, |new| {
            let new = [new.tcp, new.tcp_fin, new.udp];
            if new.iter().any(|seconds| *seconds > longest) {
                return Ok::<_, ()>(false);
            }
            for (state, new) in state.iter_mut().zip(new).filter(|(_, new)| *new != 0) {
                *state = new;
            }
            Ok(true)
        });
        (state, warnings.unwrap())
    }

    #[test]
    fn a_timeout_beyond_the_kernels_limit_becomes_its_limit() {
        // INT_MAX / HZ of the clocks that kernels have.
        for longest in [21_474_836, 8_589_934, 7_158_278, 2_147_483] {
            let (state, warnings) = kernel(longest, [u32::MAX, 0, longest + 1]);
            assert_eq!(state, [longest, 120, longest]);
            assert_eq!(warnings.len(), 2, "{warnings:?}");
            assert!(warnings[0].contains(&format!("tcpTimeout {} s", u32::MAX)), "{warnings:?}");
            assert!(warnings[1].contains(&format!("{longest} s is used")), "{warnings:?}");
            assert_eq!(kernel(longest, [longest, 1, 0]), ([longest, 1, 300], vec![]));
            assert_eq!(kernel(longest, [1, u32::MAX, 2]).0, [1, longest, 2]);
        }
    }
}
