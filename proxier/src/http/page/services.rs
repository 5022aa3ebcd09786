//! The services: a table of one row each, of which some are open.

use std::fmt::Write as _;

use super::{Escaped, Lines, more};
use crate::http::query::{Only, Query, Sort};
use crate::http::view::{FrontendView, Listing, LoadView, Opened, ServiceView};
use crate::text;
use crate::value::GoDuration;

/// Virtual servers that are named in a row.
const NAMED: usize = 2;
/// Columns of the table.
const COLUMNS: usize = 8;

pub(super) fn services(html: &mut String, listing: &Listing) {
    html.push_str(
        "<section aria-labelledby=\"services\">\n<h2 id=\"services\" tabindex=\"-1\">Services</h2>\n",
    );
    form(html, listing);
    if let Some(error) = &listing.counters_error {
        let _ = writeln!(html, "<p class=\"note warn\">{}</p>", Escaped(error));
    }
    if listing.services.is_empty() {
        let query = &listing.query;
        let any = query.search.is_empty() && query.namespace.is_empty() && query.only.is_none();
        html.push_str(if any {
            "<p class=\"card empty\">No Service is proxied on this node.</p>\n"
        } else {
            "<p class=\"card empty\">No Service is like that. <a href=\"/status\">Show all</a></p>\n"
        });
    } else {
        rows(html, listing);
    }
    pages(html, listing);
    html.push_str("</section>\n");
}

/// What is looked for.
fn form(html: &mut String, listing: &Listing) {
    let query = &listing.query;
    let _ = write!(
        html,
        "<form action=\"/status\" method=\"get\" role=\"search\">\n\
         <input type=\"search\" name=\"q\" value=\"{}\" maxlength=\"100\" aria-label=\"Name or address\" \
         placeholder=\"name or address\">\n\
         <select name=\"namespace\" aria-label=\"Namespace\">\n<option value=\"\">all namespaces</option>\n",
        Escaped(&query.search)
    );
    let chosen = |is: bool| if is { " selected" } else { "" };
    let known = &listing.namespaces.first;
    let other = Some(&query.namespace).filter(|name| !name.is_empty() && !known.contains(name));
    for name in known.iter().chain(other) {
        let selected = chosen(*name == query.namespace);
        let name = Escaped(name);
        let _ = writeln!(html, "<option value=\"{name}\"{selected}>{name}</option>");
    }
    html.push_str(
        "</select>\n<select name=\"only\" aria-label=\"Which\">\n<option value=\"\">all</option>\n",
    );
    for (only, word, text) in Only::ALL {
        let selected = chosen(query.only == Some(only));
        let _ = writeln!(html, "<option value=\"{word}\"{selected}>{text}</option>");
    }
    html.push_str("</select>\n");
    hidden(html, query, &["sort", "refresh", "open"]);
    let found = text::number(listing.matches as u64);
    let _ = write!(
        html,
        "<button>Show</button>\n<span class=\"soft\" role=\"status\">{found} {}</span>\n</form>\n",
        if listing.matches == 1 { "service" } else { "services" }
    );
}

/// What a form keeps of what is asked for.
fn hidden(html: &mut String, query: &Query, names: &[&str]) {
    let kept = query.fields().into_iter().filter(|(name, _)| names.contains(name));
    for (name, value) in kept.filter(|(_, value)| !value.is_empty()) {
        let value = Escaped(&value);
        let _ = writeln!(html, "<input type=\"hidden\" name=\"{name}\" value=\"{value}\">");
    }
}

fn rows(html: &mut String, listing: &Listing) {
    html.push_str(
        "<div class=\"card\"><table class=\"services\"><caption>Services with what goes through them</caption>\n\
         <thead><tr>",
    );
    for (head, class, sort) in [
        ("Service", "", Some(Sort::Name)),
        ("Frontends", " class=\"wide\"", None),
        (
            "<abbr title=\"ready endpoints, of all\">Endpoints</abbr>",
            " class=\"number\"",
            Some(Sort::Endpoints),
        ),
        ("Active", " class=\"number mid\"", None),
        ("Conn/s", " class=\"number\"", Some(Sort::Connections)),
        ("<abbr title=\"bytes a second from clients\">In/s</abbr>", " class=\"number mid\"", None),
        (
            "<abbr title=\"bytes a second to clients; sorted by both ways together\">Out/s</abbr>",
            " class=\"number mid\"",
            Some(Sort::Bytes),
        ),
        ("Scheduler", " class=\"wide\"", None),
    ] {
        let Some(sort) = sort else {
            let _ = write!(html, "<th scope=\"col\"{class}>{head}</th>");
            continue;
        };
        let query = &listing.query;
        let (aria, arrow) = match (query.sort == sort, sort.descends() != query.reversed) {
            (false, _) => ("", ""),
            (true, true) => (" aria-sort=\"descending\"", " \u{2193}"),
            (true, false) => (" aria-sort=\"ascending\"", " \u{2191}"),
        };
        let address = query.sorted(sort).address();
        let _ = write!(
            html,
            "<th scope=\"col\"{class}{aria}><a href=\"{address}\">{head}<span aria-hidden=\"true\">{arrow}</span></a></th>"
        );
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    for (at, service) in listing.services.iter().enumerate() {
        row(html, at, service, &listing.query);
        if let Some(opened) = &service.opened {
            open(html, at, service, opened);
        }
    }
    html.push_str("</tbody></table></div>\n");
}

fn row(html: &mut String, at: usize, service: &ServiceView, query: &Query) {
    let key = service.key();
    let is_open = service.opened.is_some();
    let controls = if is_open { format!(" aria-controls=\"open-{at}\"") } else { String::new() };
    let _ = write!(
        html,
        "<tr id=\"row-{at}\" data-key=\"{}\"{}><th scope=\"row\"><a class=\"opener\" href=\"{}#row-{at}\" \
         aria-expanded=\"{is_open}\"{controls}><small>{}/</small>{}</a>",
        Escaped(&key),
        rates(service.load),
        query.toggled(&key).address(),
        Escaped(&service.namespace),
        Escaped(&service.name),
    );
    if let Some(first) = service.problems.first.first() {
        let problem = text::and_more(first, service.problems.total - 1);
        let _ = write!(html, "<span class=\"problem\">{}</span>", Escaped(problem));
    }
    html.push_str("</th><td class=\"wide\">");
    for shown in service.frontends.first.iter().take(NAMED) {
        let _ = write!(
            html,
            "<span class=\"frontend\"><code>{}</code> <small>{}</small></span>",
            Escaped(&shown.virtual_server),
            Escaped(&shown.kind)
        );
    }
    let more = service.frontends.total.saturating_sub(NAMED);
    if more > 0 {
        let _ = write!(html, "<small>and {more} more</small>");
    } else if service.frontends.total == 0 {
        html.push_str("<small>none on this node</small>");
    }
    let counts = service.endpoints;
    let class = if counts.ready == 0 { " none" } else { "" };
    let _ = write!(
        html,
        "</td><td class=\"number{class}\">{}<small>/{}</small></td>",
        text::number(counts.ready as u64),
        text::number(counts.all as u64)
    );
    load(html, service.load);
    let mut schedulers: Vec<&str> =
        service.frontends.first.iter().map(|it| it.scheduler.as_str()).collect();
    schedulers.dedup();
    let _ = writeln!(html, "<td class=\"wide\">{}</td></tr>", Escaped(schedulers.join(", ")));
}

/// For the script, which draws how they go.
fn rates(load: Option<LoadView>) -> String {
    let rates = load.and_then(|load| load.rates);
    rates.map_or_else(String::new, |rates| {
        let bytes = rates.bytes_in + rates.bytes_out;
        format!(" data-connections=\"{}\" data-bytes=\"{bytes}\"", rates.connections)
    })
}

fn load(html: &mut String, load: Option<LoadView>) {
    let unknown = "<span class=\"soft\" title=\"not known\">-</span>".to_owned();
    let active = load.map_or(unknown.clone(), |load| text::number(load.active_connections));
    let rates = load.and_then(|load| load.rates);
    let connections = rates.map_or(unknown.clone(), |rates| text::number(rates.connections));
    let bytes_in = rates.map_or(unknown.clone(), |rates| text::bytes(rates.bytes_in));
    let bytes_out = rates.map_or(unknown, |rates| text::bytes(rates.bytes_out));
    let trend = |of: &str| {
        format!(
            "<svg class=\"trend\" data-of=\"{of}\" viewBox=\"0 0 60 14\" aria-hidden=\"true\"></svg>"
        )
    };
    let _ = write!(
        html,
        "<td class=\"number mid\">{active}</td><td class=\"number\">{}{connections}</td>\
         <td class=\"number mid\">{bytes_in}</td><td class=\"number mid\">{}{bytes_out}</td>",
        trend("connections"),
        trend("bytes")
    );
}

/// The row below that of a service: its endpoints, its virtual servers, and the text of `explain`.
fn open(html: &mut String, at: usize, service: &ServiceView, opened: &Opened) {
    let key = service.key();
    let _ = writeln!(html, "<tr id=\"open-{at}\" class=\"open\"><td colspan=\"{COLUMNS}\">");
    if service.problems.total > 1 {
        html.push_str("<ul class=\"problems\">\n");
        for problem in &service.problems.first {
            let _ = writeln!(html, "<li>{}</li>", Escaped(problem));
        }
        html.push_str("</ul>\n");
        more(html, &service.problems);
    }
    let _ = write!(
        html,
        "<table class=\"endpoints\"><caption>Endpoints of {}</caption>\n<thead><tr><th scope=\"col\">Endpoint</th>\
         <th scope=\"col\" class=\"mid\">Pod</th><th scope=\"col\" class=\"mid\">Node, zone</th>\
         <th scope=\"col\" class=\"number\">Weight</th><th scope=\"col\" class=\"number\">Active</th>\
         <th scope=\"col\" class=\"number wide\">Inactive</th><th scope=\"col\">Why</th></tr></thead>\n<tbody>\n",
        Escaped(&key)
    );
    let known = |value: Option<u64>| value.map_or("-".to_owned(), text::number);
    for endpoint in &opened.endpoints.first {
        let place = [&endpoint.node, &endpoint.zone].into_iter().flatten();
        let place: Vec<&str> = place.map(String::as_str).collect();
        let local = match endpoint.local {
            Some(true) => " <span class=\"pill\">this node</span>",
            _ => "",
        };
        let class = if endpoint.used { "" } else { " class=\"unused\"" };
        let _ = writeln!(
            html,
            "<tr{class}><th scope=\"row\"><code>{}</code></th><td class=\"mid\">{}</td><td class=\"mid\">{}{local}</td>\
             <td class=\"number\">{}</td><td class=\"number\">{}</td><td class=\"number wide\">{}</td><td>{}</td></tr>",
            Escaped(&endpoint.address),
            Escaped(endpoint.pod.as_deref().unwrap_or("-")),
            Escaped(if place.is_empty() { "-".to_owned() } else { place.join(", ") }),
            known(endpoint.weight.map(u64::from)),
            known(endpoint.active),
            known(endpoint.inactive),
            Escaped(&endpoint.verdict)
        );
    }
    html.push_str("</tbody></table>\n");
    if opened.endpoints.total == 0 {
        html.push_str("<p class=\"more\">No endpoints: connections are refused.</p>\n");
    }
    more(html, &opened.endpoints);
    settings(html, service);
    html.push_str("<ul class=\"frontends\">\n");
    for shown in &service.frontends.first {
        frontend(html, shown);
    }
    html.push_str("</ul>\n");
    more(html, &service.frontends);
    match &opened.explanation {
        Some(text) => {
            let _ = writeln!(
                html,
                "<h3>proxier explain {}</h3>\n<pre>{}</pre>",
                Escaped(&key),
                Lines(text)
            );
        }
        None => {
            let _ = writeln!(
                html,
                "<p class=\"more\">More on the node: <code>proxier explain {}</code></p>",
                Escaped(&key)
            );
        }
    }
    html.push_str("</td></tr>\n");
}

/// What annotations have set, and those that cannot be used.
fn settings(html: &mut String, service: &ServiceView) {
    for set in &service.settings {
        let _ = writeln!(
            html,
            "<p class=\"more\">{} <code>{}</code>, by its annotation <code>{}</code></p>",
            set.setting,
            Escaped(&set.value),
            set.annotation
        );
    }
    for rejected in &service.rejected_settings {
        let _ = writeln!(
            html,
            "<p class=\"more\"><span class=\"pill warn\">annotation</span> {}</p>",
            Escaped(rejected)
        );
    }
}

fn frontend(html: &mut String, frontend: &FrontendView) {
    let _ = write!(
        html,
        "<li><code>{}</code> {}<span class=\"soft\">, {}{}",
        Escaped(&frontend.virtual_server),
        Escaped(&frontend.kind),
        if frontend.port.is_empty() {
            String::new()
        } else {
            format!("port {}, ", Escaped(&frontend.port))
        },
        Escaped(&frontend.scheduler)
    );
    for flag in &frontend.scheduler_flags {
        let _ = write!(html, " {flag}");
    }
    if frontend.one_packet {
        html.push_str(", one packet at a time");
    }
    if let Some(seconds) = frontend.sticky_seconds {
        let _ = write!(html, ", sticky {}", GoDuration::from_secs(seconds.into()));
    }
    if let Some(connections) = frontend.connections {
        let _ = write!(html, ", {} connections so far", text::number(connections));
    }
    html.push_str("</span>");
    if let Some(winner) = &frontend.taken_by {
        let _ = write!(html, " <span class=\"pill warn\">goes to {}</span>", Escaped(winner));
    } else if frontend.programmed == Some(false) {
        html.push_str(" <span class=\"pill bad\">not in the kernel</span>");
    }
    html.push_str("</li>\n");
}

/// To the pages before and behind, and to any.
fn pages(html: &mut String, listing: &Listing) {
    if listing.pages == 1 {
        return;
    }
    let query = &listing.query;
    html.push_str("<nav aria-label=\"Pages\">\n");
    let mut link = |to: usize, is_there: bool, rel: &str, text: &str| {
        if is_there {
            let address = query.at(to).address();
            let _ = writeln!(html, "<a rel=\"{rel}\" href=\"{address}\">{text}</a>");
        } else {
            let _ = writeln!(html, "<span class=\"soft\">{text}</span>");
        }
    };
    link(1, listing.page > 2, "first", "First");
    link(listing.page.saturating_sub(1), listing.page > 1, "prev", "Previous");
    link(listing.page + 1, listing.page < listing.pages, "next", "Next");
    html.push_str("<form action=\"/status\" method=\"get\">\n");
    hidden(html, query, &["q", "namespace", "only", "sort", "refresh", "open"]);
    let _ = writeln!(
        html,
        "<label>page <input type=\"number\" name=\"page\" min=\"1\" max=\"{}\" value=\"{}\"></label> of {} \
         <button>Go</button>\n</form>\n</nav>",
        listing.pages,
        listing.page,
        text::number(listing.pages as u64)
    );
}
