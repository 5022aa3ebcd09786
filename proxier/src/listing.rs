//! Services, endpoints and virtual servers of this node as rows: what needs somebody comes first. Pure.

mod endpoints;
mod load;
mod services;
mod virtual_servers;

use std::net::IpAddr;

use serde::Serialize;

pub use self::endpoints::{EndpointRow, endpoints};
pub use self::load::{
    Counters, EndpointLoad, Load, Measured, ServiceLoad, load_table, loads, total,
};
pub use self::services::{ServiceRow, services};
pub use self::virtual_servers::{VirtualServerRow, virtual_servers};
use crate::explain::{EndpointAccount, FrontendAccount, ServiceAccount};
use crate::render::{Columns, Style};

/// What the running proxy cannot program of an address, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// An address of a Service.
    pub address: IpAddr,
    /// What is lacking, and what it waits for.
    pub text: String,
}

/// One line of a listing.
pub trait Row: Serialize {
    /// What all of them are called in JSON and YAML.
    const NAME: &'static str;
    /// Titles of [`Self::cells`]; the first is the namespace.
    const HEADERS: &'static [&'static str];
    /// Titles of [`Self::wide`].
    const WIDE: &'static [&'static str];
    /// Title of [`Self::last`].
    const LAST: &'static str = "PROBLEM";

    /// What is always shown.
    fn cells(&self) -> Vec<String>;
    /// What is shown where there is room.
    fn wide(&self) -> Vec<String>;
    /// The name by which `explain` knows it.
    fn name(&self) -> String;
    /// Why somebody has to look at it.
    fn problem(&self) -> Option<String>;

    /// The last column, which may be long.
    fn last(&self) -> String {
        self.problem().unwrap_or_default()
    }
}

/// Those with a problem first, else as they were.
pub fn problems_first<R: Row>(mut rows: Vec<R>) -> Vec<R> {
    rows.sort_by_key(|row| row.problem().is_none());
    rows
}

/// A table for people; of one namespace it does not say which, row by row.
pub fn table<R: Row>(rows: &[R], namespaced: bool, wide: bool, style: Style) -> String {
    let first = usize::from(!namespaced);
    let mut headers = R::HEADERS[first..].to_vec();
    headers.extend(wide.then_some(R::WIDE).into_iter().flatten());
    headers.push(R::LAST);
    let mut columns = Columns::new(headers);
    for row in rows {
        let mut cells = row.cells().split_off(first);
        cells.extend(wide.then(|| row.wide()).into_iter().flatten());
        cells.push(row.last());
        columns.push(cells, row.problem().is_some());
    }
    columns.text(style)
}

/// The names, one a line.
pub fn names<R: Row>(rows: &[R]) -> String {
    rows.iter().map(|row| row.name() + "\n").collect()
}

/// What is wrong with a virtual server; one that another Service has counts once, as that.
fn problem(frontend: &FrontendAccount, held: &[Held]) -> Option<String> {
    let key = &frontend.virtual_server;
    if let Some(winner) = &frontend.taken_by {
        return Some(format!("{key} is taken by {winner}"));
    }
    let of = |held: &&Held| frontend.address() == Some(held.address);
    if let Some(held) = held.iter().find(of) {
        return Some(format!("not programmed by the running proxy: {}", held.text));
    }
    let none = frontend.real_servers.is_empty();
    none.then(|| format!("{key} has no endpoints, connections are refused"))
}

/// Those that are used on this node, those that are used elsewhere, those that are not used. Each address
/// counts once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Used, on this node.
    pub local: usize,
    /// Used, on other nodes.
    pub remote: usize,
    /// Left out.
    pub unused: usize,
}

impl Counts {
    fn of<'a>(endpoints: impl Iterator<Item = &'a EndpointAccount>) -> Self {
        let mut counts = Self::default();
        for endpoint in endpoints {
            match (endpoint.used, endpoint.local) {
                (true, true) => counts.local += 1,
                (true, false) => counts.remote += 1,
                (false, _) => counts.unused += 1,
            }
        }
        counts
    }

    fn cells(self) -> [String; 2] {
        [self.local.to_string(), self.remote.to_string()]
    }
}

/// `a,b`, or a dash.
fn list(items: &[String]) -> String {
    if items.is_empty() { "-".to_owned() } else { items.join(",") }
}

fn place(service: &ServiceAccount) -> (String, String) {
    (service.namespace.clone(), service.name.clone())
}
