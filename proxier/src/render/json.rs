//! A state as JSON, for programs.

use serde_json::{Map, Value, json};

use netlink_ipvs::{Flags, VirtualServerKey};

use super::scheduler_flags;
use crate::dataplane::{Desired, State, VirtualServerState};
use crate::iptables;

/// The whole desired state; virtual servers name the service and frontend they are for.
pub fn desired(desired: &Desired) -> Value {
    let mut out = state(desired.state());
    let servers = out["virtualServers"].as_array_mut().into_iter().flatten();
    for (value, key) in servers.zip(desired.state().virtual_servers.keys()) {
        if let Some((owner, frontend)) = desired.owner(key) {
            value["service"] = json!(owner.to_string());
            value["servicePort"] = json!(&*frontend.port);
            value["frontend"] = json!(frontend.kind.to_string());
        }
    }
    let conflicts = desired.conflicts().into_iter().map(|conflict| {
        let losers: Vec<String> = conflict.losers.iter().map(ToString::to_string).collect();
        json!({
            "virtualServer": conflict.key.to_string(),
            "winner": conflict.winner.to_string(),
            "losers": losers,
            "moreLosers": conflict.more,
        })
    });
    out["conflicts"] = conflicts.collect();
    let mut applied: Vec<_> = desired
        .contributions()
        .filter_map(|(service, asked)| Some((service, asked.applied.as_deref()?)))
        .collect();
    applied.sort_unstable_by_key(|(service, _)| *service);
    let settings = applied.iter().flat_map(|(service, applied)| {
        applied.in_force.iter().map(move |it| {
            json!({
                "service": service.to_string(),
                "setting": it.setting,
                "value": it.value,
                "annotation": it.annotation.name(),
            })
        })
    });
    out["settings"] = settings.collect();
    let rejected = applied.iter().flat_map(|(service, applied)| {
        applied.rejected.iter().map(move |it| {
            json!({
                "service": service.to_string(),
                "annotation": it.annotation.name(),
                "value": it.value,
                "reason": it.reason,
            })
        })
    });
    out["rejectedSettings"] = rejected.collect();
    out
}

/// A state without its owners.
pub fn state(state: &State) -> Value {
    let servers: Vec<Value> =
        state.virtual_servers.iter().map(|(key, server)| virtual_server(key, server)).collect();
    let sets: Map<String, Value> = state
        .sets
        .iter()
        .map(|(set, content)| {
            let members: Vec<String> = content.members.iter().map(ToString::to_string).collect();
            (set.name().to_owned(), json!(members))
        })
        .collect();
    let firewall: Map<String, Value> = state
        .firewall
        .iter()
        .map(|(family, rules)| {
            (family.to_string(), json!(iptables::save_text(rules).lines().collect::<Vec<_>>()))
        })
        .collect();
    json!({
        "virtualServers": servers,
        "addresses": state.interface.addresses,
        "sets": sets,
        "firewall": firewall,
    })
}

fn virtual_server(key: &VirtualServerKey, server: &VirtualServerState) -> Value {
    let config = &server.config;
    let real_servers: Vec<Value> = server
        .real_servers
        .iter()
        .map(|real| {
            let mut out = json!({
                "address": real.key.address,
                "port": real.key.port,
                "weight": real.config.weight,
            });
            if real.config.upper_threshold > 0 {
                out["upperThreshold"] = json!(real.config.upper_threshold);
            }
            out
        })
        .collect();
    let mut out = json!({
        "scheduler": config.scheduler.to_string(),
        "schedulerFlags": scheduler_flags(config),
        "realServers": real_servers,
    });
    match *key {
        VirtualServerKey::Address { address, port, protocol } => {
            out["address"] = json!(address);
            out["port"] = json!(port);
            out["protocol"] = json!(protocol.to_string());
        }
        VirtualServerKey::FirewallMark { mark, family } => {
            out["firewallMark"] = json!(mark);
            out["family"] = json!(family.to_string());
        }
    }
    if config.flags.contains(Flags::ONE_PACKET) {
        out["onePacket"] = json!(true);
    }
    if config.flags.contains(Flags::PERSISTENT) {
        out["persistenceSeconds"] = json!(config.timeout);
    }
    out
}
