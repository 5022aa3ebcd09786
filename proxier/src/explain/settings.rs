//! What annotations have set, and why an endpoint has its weight.

use std::fmt::Write as _;

use netlink_ipvs::RealServerKey;

use super::account::SettingAccount;
use crate::cluster::{self, Annotation, Endpoint, NodeWeights, Service, WeightRule};
use crate::dataplane::{Applied, Contribution, Frontend, InForce, SlowStarts};
use crate::text;

/// What is in force by annotations of the Service.
pub(super) fn in_force(asked: Option<&Contribution>) -> Vec<SettingAccount> {
    let applied = asked.and_then(|asked| asked.applied.as_deref());
    let setting = |it: &InForce| SettingAccount {
        setting: it.setting.to_owned(),
        value: text::line(&it.value).to_string(),
        annotation: it.annotation.to_string(),
    };
    applied.into_iter().flat_map(|applied| &applied.in_force).map(setting).collect()
}

/// What of its annotations cannot be used.
pub(super) fn rejected(asked: Option<&Contribution>) -> Vec<String> {
    let applied = asked.and_then(|asked| asked.applied.as_deref());
    let rejected = applied.into_iter().flat_map(|applied| &applied.rejected);
    rejected.map(|it| text::line(it).to_string()).collect()
}

/// The weight of an endpoint that is led to and why it has it, where annotations have a part in it.
pub(super) fn weight(
    key: &RealServerKey,
    endpoint: &Endpoint,
    (service, nodes): (&Service, &NodeWeights),
    applied: Option<&Applied>,
    frontends: &[&Frontend],
) -> String {
    let Some(applied) = applied else { return String::new() };
    // The scheduler may be by the same annotation.
    let has = |by: Annotation| {
        applied.in_force.iter().any(|it| it.annotation == by && it.setting == by.setting())
    };
    let asked = service.settings.as_deref().and_then(|asked| asked.weights.as_ref());
    let weights = asked.filter(|_| has(Annotation::Weights));
    let nodes = Some(nodes).filter(|_| has(Annotation::NodeWeight));
    let servers = frontends.iter().flat_map(|frontend| &*frontend.server.real_servers);
    let Some(config) = servers.into_iter().find(|it| it.key == *key).map(|it| it.config) else {
        return String::new();
    };
    let mut out = String::new();
    if weights.is_some() || nodes.is_some() || applied.slow_start.is_some() {
        let _ = write!(out, ", weight {}", config.weight);
    }
    if weights.is_some() || nodes.is_some() {
        let zone = endpoint.location.zone.as_deref();
        let (weight, rule) = cluster::weight(weights, nodes, &endpoint.location);
        out.push_str(" by ");
        let _ = match rule {
            WeightRule::Node => write!(out, "the rule for its node"),
            WeightRule::NodeObject => {
                write!(out, "the annotation {} of its Node", Annotation::NodeWeight)
            }
            WeightRule::None if weights.is_none() => {
                write!(out, "default: its Node has no annotation {}", Annotation::NodeWeight)
            }
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
