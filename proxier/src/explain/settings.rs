//! What annotations have set, and why an endpoint has its weight.

use std::fmt::Write as _;

use netlink_ipvs::RealServerKey;

use crate::cluster::{Annotation, Endpoint, Service, WeightRule};
use crate::dataplane::{Applied, Contribution, Frontend, SlowStarts};
use crate::text;

/// What is in force by annotations of the Service, and what of them cannot be used.
pub(super) fn of_service(out: &mut String, asked: Option<&Contribution>) {
    let Some(applied) = asked.and_then(|asked| asked.applied.as_deref()) else { return };
    for setting in &applied.in_force {
        let value = text::line(&setting.value);
        let _ =
            writeln!(out, "  {} {value}, by annotation {}", setting.setting, setting.annotation);
    }
    for rejected in &applied.rejected {
        let _ = writeln!(out, "  annotation {}", text::line(rejected));
    }
}

/// The weight of an endpoint that is led to and why it has it, where annotations have a part in it.
pub(super) fn weight(
    key: &RealServerKey,
    endpoint: &Endpoint,
    service: &Service,
    applied: Option<&Applied>,
    frontends: &[&Frontend],
) -> String {
    let Some(applied) = applied else { return String::new() };
    let has = |setting: &str| applied.in_force.iter().any(|it| it.setting == setting);
    let asked = service.settings.as_deref().and_then(|asked| asked.weights.as_ref());
    let weights = asked.filter(|_| has(Annotation::Weights.setting()));
    let servers = frontends.iter().flat_map(|frontend| &*frontend.server.real_servers);
    let Some(config) = servers.into_iter().find(|it| it.key == *key).map(|it| it.config) else {
        return String::new();
    };
    let mut out = String::new();
    if weights.is_some() || applied.slow_start.is_some() {
        let _ = write!(out, ", weight {}", config.weight);
    }
    if let Some(weights) = weights {
        let zone = endpoint.location.zone.as_deref();
        let (weight, rule) = weights.of(endpoint.location.node.as_deref(), zone);
        out.push_str(" by ");
        let _ = match rule {
            WeightRule::Node => write!(out, "the rule for its node"),
            WeightRule::Zone => {
                write!(out, "the rule for its zone {}", text::name(zone.unwrap_or_default()))
            }
            WeightRule::Default => write!(out, "default:{weight}"),
            WeightRule::None => write!(out, "no rule, its zone is {}", zone_text(zone)),
        };
    }
    if applied.slow_start.is_some() {
        let _ = write!(out, " (times {} for slow start)", SlowStarts::STEPS);
    }
    if config.upper_threshold > 0 {
        let _ = write!(out, ", no new connections above {}", config.upper_threshold);
    }
    out
}

fn zone_text(zone: Option<&str>) -> String {
    zone.map_or("not known".to_owned(), |zone| text::name(zone).to_string())
}
