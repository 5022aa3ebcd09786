//! Which services are shown: those that are asked for, in the order that is asked for, page by page.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use netlink_ipvs::VirtualServerKey;
use serde::Serialize;

use super::load::{Rates, Read, count};
use super::opened::Opened;
use super::service::{EndpointCounts, ServiceView, has_problem, lacks_endpoints};
use super::{FRONTENDS, Part, ROWS, SERVICES};
use crate::cluster::ObjectKey;
use crate::dataplane::Contribution;
use crate::http::counters::{NOT_COUNTED, Table, Totals};
use crate::http::query::{Only, Query, Sort};
use crate::reconcile::Status;
use crate::text;

/// Namespaces that can be chosen.
const NAMESPACES: usize = 200;

/// The services that were asked for.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct Listing {
    #[serde(skip)]
    pub(in crate::http) query: Query,
    pub(in crate::http) search: String,
    pub(in crate::http) page: usize,
    pub(in crate::http) pages: usize,
    pub(in crate::http) matches: usize,
    /// Of all services.
    pub(in crate::http) namespaces: Part<String>,
    /// Why there are no counters.
    pub(in crate::http) counters_error: Option<String>,
    pub(in crate::http) services: Vec<ServiceView>,
}

type Asked<'a> = (&'a ObjectKey, &'a Arc<Contribution>);

// === impl Listing ===

impl Listing {
    pub(super) fn new(
        status: &Status,
        table: Option<&Table>,
        totals: Option<&Totals>,
        mut query: Query,
    ) -> Self {
        let all = status.directory.clone();
        let is_so = selection(status, query.only);
        let mut found: Vec<Asked<'_>> =
            all.iter().filter(|(key, asks)| query.matches(key, asks) && is_so(key, asks)).collect();
        let sorting_error = sort(&mut found, status, totals, &query).err();
        let pages = found.len().div_ceil(SERVICES).max(1);
        query.page = query.page.min(pages);
        let shown = || found.iter().skip((query.page - 1) * SERVICES).take(SERVICES);
        let frontends = shown().flat_map(|(_, asks)| asks.frontends.iter().take(FRONTENDS));
        let counted = table.map(|table| count(table, frontends.map(|frontend| frontend.key)));
        let (kernel, counters_error) = match counted {
            None => (None, None),
            Some(Ok(kernel)) => {
                let uncounted = kernel.values().any(|read: &Read| !read.counts());
                (Some(kernel), uncounted.then(|| NOT_COUNTED.to_owned()))
            }
            Some(Err(error)) => (None, Some(error)),
        };
        let unreadable = |error| {
            let shown = "the kernel's counters cannot be read, what is wanted is shown";
            format!("{shown}: {}", text::line(error))
        };
        let counters_error = match (counters_error, sorting_error) {
            (Some(error), _) if error != NOT_COUNTED => Some(unreadable(error)),
            (_, Some(error)) => Some(unreadable(error)),
            (known, None) => known,
        };
        let mut rows = ROWS;
        let service = |(key, asks): &Asked<'_>| {
            let mut view = ServiceView::new(key, asks, status, kernel.as_ref(), &mut rows);
            if query.is_open(&view.key()) {
                view.opened = Some(Opened::new(key, asks, status, kernel.as_ref()));
            }
            view
        };
        Self {
            services: shown().map(service).collect(),
            search: text::line(&query.search).to_string(),
            page: query.page,
            pages,
            matches: found.len(),
            namespaces: namespaces(status),
            counters_error,
            query,
        }
    }
}

fn namespaces(status: &Status) -> Part<String> {
    let all: BTreeSet<&str> = status.directory.iter().map(|(key, _)| key.namespace()).collect();
    Part::of(all.into_iter(), NAMESPACES, |name| text::name(name).to_string())
}

/// Whether a service is one of those that are asked for by how they are.
fn selection(
    status: &Status,
    only: Option<Only>,
) -> impl Fn(&ObjectKey, &Contribution) -> bool + '_ {
    // There may be as many as services.
    let draining: HashSet<VirtualServerKey> = match only {
        Some(Only::Draining) => status.draining.iter().map(|drain| drain.virtual_server).collect(),
        _ => HashSet::new(),
    };
    move |key, asks| match only {
        None => true,
        Some(Only::Problem) => has_problem(key, asks, status),
        Some(Only::NoEndpoints) => lacks_endpoints(asks),
        Some(Only::Draining) => asks.frontends.iter().any(|it| draining.contains(&it.key)),
    }
}

/// Sorts what is in the order of names. An error says why it could not be sorted by counters.
fn sort(
    found: &mut [Asked<'_>],
    status: &Status,
    totals: Option<&Totals>,
    query: &Query,
) -> Result<(), String> {
    match query.sort {
        Sort::Name => {}
        Sort::Problem => found.sort_by_cached_key(|(key, asks)| !has_problem(key, asks, status)),
        Sort::Endpoints => found.sort_by_cached_key(|(key, asks)| {
            let EndpointCounts { ready, all } = EndpointCounts::of(asks, status.objects.get(key));
            (ready, all)
        }),
        Sort::Connections | Sort::Bytes => {
            let rates = totals.map_or(Ok(HashMap::new()), |read| read().map(by_key))?;
            found.sort_by_cached_key(|(_, asks)| {
                let all = asks.frontends.iter().filter_map(|it| rates.get(&it.key));
                Reverse(all.map(|it| rank(query.sort, it)).sum::<u64>())
            });
        }
    }
    if query.reversed {
        found.reverse();
    }
    Ok(())
}

fn rank(sort: Sort, rates: &Rates) -> u64 {
    match sort {
        Sort::Bytes => rates.bytes_in + rates.bytes_out,
        _ => rates.connections,
    }
}

fn by_key(all: Vec<netlink_ipvs::VirtualServerEntry>) -> HashMap<VirtualServerKey, Rates> {
    let rates = |entry: netlink_ipvs::VirtualServerEntry| {
        let rates = Rates {
            connections: entry.stats.connection_rate,
            bytes_in: entry.stats.byte_rate_in,
            bytes_out: entry.stats.byte_rate_out,
        };
        (entry.server.key, rates)
    };
    all.into_iter().map(rates).collect()
}
