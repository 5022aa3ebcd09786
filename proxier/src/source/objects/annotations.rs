//! Annotations of a Service, or of a Node, as the settings that they are: pure, and never wrong about more than the
//! annotation itself. One that cannot be used is kept with the reason.

use std::time::Duration;

use netlink_ipvs::Scheduler;

use super::{Lenient, Report, quote, raw};
use crate::cluster::{Annotated, Annotation, Rejected, SchedulerFlags, ServiceSettings, Weights};
use crate::value::GoDuration;

/// Rules of one annotation for weights.
const RULES: usize = 100;
/// Longest name of a node or zone.
const NAME: usize = 253;
/// The kernel multiplies the threshold by four in 32 bits.
const MOST_CONNECTIONS: u32 = 1_000_000_000;
const SLOW_START: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_hours(1);

type Text = Lenient<Box<str>>;

/// The settings of a Service; none if it has no such annotation.
pub(super) fn settings(raw: raw::Annotations) -> Option<Box<ServiceSettings>> {
    let mut out = ServiceSettings::default();
    let rejected = &mut out.rejected;
    out.scheduler = first(
        [
            (Annotation::Scheduler, raw.scheduler, scheduler),
            (Annotation::KubeRouterScheduler, raw.kube_router_scheduler, scheduler),
            (Annotation::CiliumAlgorithm, raw.cilium_algorithm, cilium_algorithm),
        ],
        rejected,
    );
    out.scheduler_flags = first(
        [
            (Annotation::SchedulerFlags, raw.scheduler_flags, scheduler_flags),
            (Annotation::KubeRouterFlags, raw.kube_router_flags, scheduler_flags),
        ],
        rejected,
    );
    let one_packet = first([(Annotation::OnePacket, raw.one_packet, flag)], rejected);
    out.one_packet = one_packet.is_some_and(|it| it.value);
    out.weights = first([(Annotation::Weights, raw.weights, weights)], rejected).map(|it| it.value);
    let slow = first([(Annotation::SlowStart, raw.slow_start, slow_start)], rejected);
    out.slow_start = slow.map(|it| it.value);
    let most =
        first([(Annotation::MaxConnections, raw.max_connections, max_connections)], rejected);
    out.max_connections = most.map(|it| it.value);
    (out != ServiceSettings::default()).then(|| Box::new(out))
}

/// The weight that a Node gives its endpoints.
pub(super) fn node_weight(raw: raw::Annotations, report: &mut Report<'_>) -> Option<u16> {
    let mut rejected = Vec::new();
    let weight = first([(Annotation::NodeWeight, raw.weight, node_weight_of)], &mut rejected);
    for it in rejected {
        report.warn(format_args!("annotation {it}"));
    }
    weight.map(|it| it.value)
}

fn node_weight_of(text: &str) -> Result<u16, &'static str> {
    let weight = number(text).and_then(|weight| u16::try_from(weight).ok());
    weight.ok_or("it takes a number from 0 to 65535")
}

/// A text as a value, or what it should have been.
type Parse<T> = fn(&str) -> Result<T, &'static str>;

/// The first annotation that is there decides, even if it cannot be used: what somebody else's says
/// is not what was meant.
fn first<T, const N: usize>(
    of: [(Annotation, Text, Parse<T>); N],
    rejected: &mut Vec<Rejected>,
) -> Option<Annotated<T>> {
    let is_there = |text: &Text| !matches!(text, Lenient::Absent);
    let (annotation, text, parse) = of.into_iter().find(|(_, text, _)| is_there(text))?;
    let (value, reason) = match &text {
        Lenient::Is(text) => match parse(text.trim()) {
            Ok(value) => return Some(Annotated { value, annotation }),
            Err(reason) => (quote(text).to_string(), reason),
        },
        Lenient::Wrong(found) => (found.to_string(), "it must be text, in quotes"),
        Lenient::Absent => return None,
    };
    rejected.push(Rejected { annotation, value: value.into(), reason: reason.into() });
    None
}

fn scheduler(text: &str) -> Result<Scheduler, &'static str> {
    let known = ServiceSettings::SCHEDULERS.into_iter();
    let mut named = known.filter(|known| known.as_bytes() == text.as_bytes());
    named
        .next()
        .ok_or("it takes rr, wrr, lc, wlc, lblc, lblcr, dh, sh, sed, nq, fo, ovf, mh or twos")
}

fn cilium_algorithm(text: &str) -> Result<Scheduler, &'static str> {
    match text {
        "random" => Ok(Scheduler::RR),
        "maglev" => Ok(Scheduler::MH),
        least if least.starts_with("least") => Ok(Scheduler::LC),
        _ => Err("it takes random (rr here), maglev (mh) or least-connections (lc)"),
    }
}

fn scheduler_flags(text: &str) -> Result<SchedulerFlags, &'static str> {
    const WRONG: &str = "it takes none, or of sh-fallback, sh-port, or of mh-fallback, mh-port, or \
                         of flag-1, flag-2, flag-3, separated by commas";
    let mut out = SchedulerFlags::default();
    if matches!(text, "" | "none") {
        return Ok(out);
    }
    for name in text.split(',') {
        let mut names = SchedulerFlags::NAMES.into_iter();
        let (_, flag, of) = names.find(|(known, ..)| *known == name.trim()).ok_or(WRONG)?;
        if of.is_some() && out.of.is_some() && of != out.of {
            return Err("flags of two schedulers do not go together");
        }
        out.flags = out.flags | flag;
        out.of = out.of.or(of);
    }
    Ok(out)
}

fn flag(text: &str) -> Result<bool, &'static str> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("it takes \"true\" or \"false\""),
    }
}

fn weights(text: &str) -> Result<Weights, &'static str> {
    const WRONG: &str = "it takes zone=NAME:N, node=NAME:N and default:N, separated by commas, with \
                         N from 0 to 65535";
    let (mut nodes, mut zones, mut default) = (Vec::new(), Vec::new(), None);
    for (n, rule) in text.split(',').enumerate() {
        if n == RULES {
            return Err("it takes at most 100 rules");
        }
        let (whom, weight) = rule.trim().rsplit_once(':').ok_or(WRONG)?;
        let weight = number(weight).and_then(|weight| u16::try_from(weight).ok()).ok_or(WRONG)?;
        let (kind, name) = whom.split_once('=').unwrap_or((whom, ""));
        match (kind, name) {
            ("default", "") if whom == kind => {
                if default.replace(weight).is_some() {
                    return Err("default is there twice");
                }
            }
            ("node", name) if is_name(name) => nodes.push((name.into(), weight)),
            ("zone", name) if is_name(name) => zones.push((name.into(), weight)),
            _ => return Err(WRONG),
        }
    }
    Weights::new(nodes, zones, default).ok_or("a node or zone is there twice")
}

fn slow_start(text: &str) -> Result<Duration, &'static str> {
    let duration = text.parse::<GoDuration>().ok().map(GoDuration::unsigned);
    duration
        .filter(|duration| SLOW_START.contains(duration))
        .ok_or("it takes a duration from 1s to 1h, such as 30s")
}

fn max_connections(text: &str) -> Result<u32, &'static str> {
    number(text)
        .filter(|most| (1..=MOST_CONNECTIONS).contains(most))
        .ok_or("it takes a number from 1 to 1000000000")
}

/// Digits alone: no sign, no blanks.
fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// What a node or the value of a label can be called.
fn is_name(text: &str) -> bool {
    (1..=NAME).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

#[cfg(test)]
mod tests;
