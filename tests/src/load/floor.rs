//! The floor for exactly what the daemon programs: its desired state, encoded beforehand and sent
//! by a loop that does nothing else.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use dummy_iface::DummyInterface;
use netlink_ipvs::{Client, Command, Family, Limits, RealServerConfig, RealServerKey};
use netlink_ipvs::{RealServer, Scheduler, VirtualServer};
use netlink_nftables as nft;
use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use proxier::cluster::{Cluster, Dirty};
use proxier::dataplane::firewall::Backend;
use proxier::dataplane::{Desired, INTERFACE, Settings, State, contribution};
use proxier::kernel::ipset::{IpsetClient, SetSpec};
use proxier::nftables;
use serde_json::{Value, json};

use crate::floor::Part;
use crate::floor::message::{new_address, new_member};
use crate::live::{NODE, NODE_ADDRESS};

/// What a manifest asks for on the node of the load test.
pub fn desired(manifest: &Path, backend: Backend) -> Result<State> {
    let loaded = proxier::source::files::load(&[manifest.to_owned()], NODE)?;
    let mut cluster = Cluster::new();
    let mut dirty = Dirty::default();
    loaded.changes.into_iter().for_each(|change| cluster.apply(change, &mut dirty));
    let mut settings: Settings = proxier::builders::settings();
    let address: IpAddr = NODE_ADDRESS.parse()?;
    settings.backend = backend;
    settings.place.node = NODE.into();
    settings.scheduler = Scheduler::RR;
    settings.host_addresses = [address].into();
    settings.node_port_addresses = [address].into();
    settings.node_ips = vec![address];
    let mut desired = Desired::new(&settings);
    let mut touched = std::collections::BTreeSet::new();
    for service in cluster.services() {
        let wanted = contribution(service, &cluster.slices(&service.key), &settings);
        desired.set(&service.key, Some((service.created, wanted)), &mut touched);
    }
    Ok(desired.state().clone())
}

/// What a page of memory costs that is touched for the first time, in microseconds: much in a kernel
/// that is a process itself, and part of everything that takes new memory.
fn first_touch() -> f64 {
    const PAGE: usize = 4096;
    const PAGES: u32 = 4096;
    let mut memory = vec![0_u8; PAGE * PAGES as usize];
    let began = Instant::now();
    for page in memory.chunks_mut(PAGE) {
        page[0] = 1;
    }
    let took = began.elapsed().as_secs_f64() * 1e6 / f64::from(PAGES);
    std::hint::black_box(memory);
    took
}

/// Exchanges a real server of each virtual server for another and back, which is what a change of an
/// endpoint asks of the kernel: milliseconds for each on the way back. By then as many were deleted, and
/// the kernel looks through all of those for each that it adds.
fn exchange(client: &Client, state: &State) -> Result<f64> {
    let servers = state.virtual_servers.iter();
    let servers = servers.filter_map(|(key, server)| Some((*key, *server.real_servers.first()?)));
    let servers: Vec<_> = servers.filter(|(key, _)| key.family() == Family::Ipv4).collect();
    let way = |back: bool| {
        let commands = servers.iter().flat_map(move |(key, server)| {
            let mut other = *server;
            if let IpAddr::V4(address) = server.key.address {
                other.key.address = Ipv4Addr::from_bits(address.to_bits() ^ (1 << 22)).into();
            }
            let (mut from, to) = if back { (other, *server) } else { (*server, other) };
            from.config.weight = 0;
            [
                Command::SetRealServer(*key, from),
                Command::AddRealServer(*key, to),
                Command::DeleteRealServer(*key, from.key),
            ]
        });
        Part::of_commands("changes", client, Limits::default(), commands).send()
    };
    way(false)?;
    let seconds = way(true)?["seconds"].as_f64().context("seconds")?;
    #[allow(clippy::cast_precision_loss, reason = "small numbers")]
    Ok(seconds * 1000.0 / servers.len() as f64)
}

/// Programs this network namespace, which must be new, and says how long each part took.
pub fn program(state: &State, backend: Backend) -> Result<Value> {
    let mut client = Client::open().context("IPVS")?;
    let (interface, _) = DummyInterface::ensure(INTERFACE)?;
    let mut sets = Sets::create(state, backend)?;
    // The scheduler's module is loaded with the first virtual server, and what the first messages
    // of each kind set up is not counted either.
    if let Some((key, server)) = state.virtual_servers.first_key_value() {
        client
            .run(Command::AddVirtualServer(VirtualServer { key: *key, config: server.config }))?;
        let pod = RealServerKey::new(IpAddr::from([192, 0, 2, 99]), 1);
        let config = RealServerConfig::masquerade(1);
        if key.family() == Family::Ipv4 {
            client.run(Command::AddRealServer(*key, RealServer { key: pod, config }))?;
        }
        client.run(Command::Flush)?;
    }
    let limits = Limits::default();
    let virtual_servers = state.virtual_servers.iter().map(|(key, server)| {
        Command::AddVirtualServer(VirtualServer { key: *key, config: server.config })
    });
    let real_servers = state.virtual_servers.iter().flat_map(|(key, server)| {
        server.real_servers.iter().map(|real| Command::AddRealServer(*key, *real))
    });
    let addresses =
        state.interface.addresses.iter().map(|address| new_address(*address, interface.index()));
    let members = sets.fill(state, limits)?;
    let parts = [
        Part::of_commands("virtual servers", &client, limits, virtual_servers),
        Part::of_commands("real servers", &client, limits, real_servers),
        Part::of_messages("addresses", NETLINK_ROUTE, addresses, limits),
    ];
    let others = parts.iter().map(Part::send);
    let parts: Vec<Value> = std::iter::once(Ok(members)).chain(others).collect::<Result<_>>()?;
    let seconds: f64 = parts.iter().filter_map(|part| part["seconds"].as_f64()).sum();
    let bound = interface.addresses()?;
    ensure!(bound == state.interface.addresses, "{} addresses are there", bound.len());
    sets.check(state)?;
    Ok(json!({
        "parts": parts, "seconds": seconds, "page_microseconds": first_touch(),
        "change_milliseconds": exchange(&client, state)?,
    }))
}

/// The sets of a backend.
enum Sets {
    Ipset(IpsetClient),
    Nftables(nft::Client),
}

impl Sets {
    /// Empty ones.
    fn create(state: &State, backend: Backend) -> Result<Self> {
        if backend == Backend::Iptables {
            let mut sets = IpsetClient::open()?;
            for (set, content) in &state.sets {
                sets.create(&SetSpec::of(*set, content.capacity))?;
            }
            return Ok(Self::Ipset(sets));
        }
        let mut client = nft::Client::open()?;
        let mut transaction = nft::Transaction::new();
        for set in state.sets.keys() {
            transaction.add_table(&nftables::new_table(set.family));
            transaction.add_set(&nftables::table(set.family), &nftables::new_set(*set));
        }
        client.commit(&transaction, None)?;
        Ok(Self::Nftables(client))
    }

    /// All members, in messages that were made before. Nothing else is timed.
    fn fill(&mut self, state: &State, limits: Limits) -> Result<Value> {
        let Self::Nftables(client) = self else {
            let members = state.sets.iter().flat_map(|(set, content)| {
                content.members.iter().map(|member| new_member(set.name(), member))
            });
            return Part::of_messages("members", NETLINK_NETFILTER, members, limits).send();
        };
        let mut transaction = nft::Transaction::new();
        for (set, content) in &state.sets {
            let elements = content.members.iter().map(nftables::element);
            let (table, name) = (nftables::table(set.family), nftables::set_name(set.role));
            transaction.add_elements(&table, name, elements);
        }
        let began = Instant::now();
        client.commit(&transaction, None)?;
        let seconds = began.elapsed().as_secs_f64();
        let (messages, bytes) = (transaction.len(), transaction.bytes().len());
        Ok(
            json!({"name": "members", "messages": messages, "sends": 1, "bytes": bytes, "seconds": seconds}),
        )
    }

    fn check(&mut self, state: &State) -> Result<()> {
        for (set, content) in &state.sets {
            let there = match self {
                Self::Ipset(sets) => sets.members(set.name())?.members.len(),
                Self::Nftables(client) => {
                    let (table, name) = (nftables::table(set.family), nftables::set_name(set.role));
                    client.elements(&table, name)?.len()
                }
            };
            ensure!(there == content.members.len(), "{set} has {there} members");
        }
        Ok(())
    }
}
