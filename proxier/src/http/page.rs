//! The status page: one document that needs nothing else, neither scripts nor files.

use std::fmt::{Display, Write as _};
use std::hash::{BuildHasher as _, Hasher as _};

use super::attention::State;
use super::view::{FrontendView, Listing, Part, ServiceView, View};
use crate::text;
use crate::value::GoDuration;

const STYLE: &str = include_str!("page.css");

/// A page, and the policy under which a browser may show it.
pub(super) struct Page {
    pub(super) html: String,
    pub(super) policy: String,
}

/// Text between tags or in an attribute. Whatever it is, it stays text.
struct Escaped<T>(T);

impl<T: Display> Display for Escaped<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        struct Writer<'a, 'b>(&'a mut std::fmt::Formatter<'b>);
        impl std::fmt::Write for Writer<'_, '_> {
            fn write_str(&mut self, text: &str) -> std::fmt::Result {
                for c in text.chars() {
                    match c {
                        '&' => self.0.write_str("&amp;")?,
                        '<' => self.0.write_str("&lt;")?,
                        '>' => self.0.write_str("&gt;")?,
                        '"' => self.0.write_str("&quot;")?,
                        '\'' => self.0.write_str("&#39;")?,
                        c => self.0.write_char(c)?,
                    }
                }
                Ok(())
            }
        }
        write!(Writer(f), "{}", text::line(&self.0))
    }
}

/// The value of a form's field in an address.
struct Encoded<'a>(&'a str);

impl Display for Encoded<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for byte in self.0.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                write!(f, "{}", char::from(byte))?;
            } else {
                write!(f, "%{byte:02X}")?;
            }
        }
        Ok(())
    }
}

/// The page. Writing to a string does not fail, here and below.
pub(super) fn render(view: &View) -> Page {
    // The one style element is let in by a number that nobody can foresee.
    let random = || std::hash::RandomState::new().build_hasher().finish();
    let nonce = format!("{:016x}{:016x}", random(), random());
    let node = Escaped(&view.node);
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>proxier on {node}</title>\n<style nonce=\"{nonce}\">\n{STYLE}</style>\n</head>\n<body>\n\
         <a class=\"skip\" href=\"#services\">Skip to the services</a>\n\
         <header>\n<h1>proxier on {node}</h1>\n"
    );
    state(&mut html, view);
    let _ =
        writeln!(html, "<a href=\"{}\">Refresh</a>\n</header>\n<main>", address(&view.listing, 0));
    troubles(&mut html, view);
    figures(&mut html, view);
    watches(&mut html, view);
    draining(&mut html, view);
    services(&mut html, &view.listing);
    let up = GoDuration::from_secs(view.up_seconds.cast_signed());
    let _ = write!(
        html,
        "</main>\n<footer>proxier {}, up {up}, as of {}. This page only shows; the same as \
         <a href=\"/status.json\">JSON</a>, and the <a href=\"/metrics\">metrics</a>.</footer>\n\
         </body>\n</html>\n",
        view.version,
        Escaped(&view.time),
    );
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; form-action 'self'; base-uri 'none'; \
         frame-ancestors 'none'"
    );
    Page { html, policy }
}

fn state(html: &mut String, view: &View) {
    let class = match view.state {
        State::InSync => "good",
        State::Reading | State::NeedsAttention => "warn",
        State::NotInSync | State::Unhealthy => "bad",
    };
    let _ = writeln!(html, "<span class=\"pill {class}\" role=\"status\">{}</span>", view.state);
}

/// What somebody has to look at.
fn troubles(html: &mut String, view: &View) {
    if let Some(stage) = &view.hand_over {
        let _ = writeln!(
            html,
            "<p class=\"note warn\">This node is handed over to another proxy: {}.</p>",
            Escaped(stage)
        );
    }
    for look in &view.attention {
        let _ = writeln!(
            html,
            "<p class=\"note warn\">For {}: {}. <span class=\"soft\">{}</span></p>",
            GoDuration::from_secs(look.seconds.cast_signed()),
            Escaped(&look.what),
            Escaped(&look.then)
        );
    }
    if let Some(seconds) = view.failing_seconds {
        let _ = writeln!(
            html,
            "<p class=\"note bad\">{} failed and {} tried again; failing for {}.</p>",
            Count(view.failing_targets, "thing"),
            if view.failing_targets == 1 { "is" } else { "are" },
            GoDuration::from_secs(seconds.cast_signed())
        );
    }
    if !view.errors.is_empty() {
        html.push_str("<section aria-labelledby=\"errors\">\n<h2 id=\"errors\">Last errors</h2>\n<ol class=\"errors\">\n");
        for error in &view.errors {
            let _ = writeln!(html, "<li>{}</li>", Escaped(error));
        }
        html.push_str("</ol>\n</section>\n");
    }
    if view.held_back.total > 0 {
        html.push_str("<section aria-labelledby=\"held\">\n<h2 id=\"held\">Held back</h2>\n");
        let row = |held: &super::view::HeldView| {
            format!(
                "<tr><th scope=\"row\">{}</th><td>{}</td></tr>",
                Escaped(&held.target),
                Escaped(&held.waits_for)
            )
        };
        let caption = "Not programmed, since something that it needs has failed";
        table(html, caption, &["What", "Waits for"], 2, &view.held_back, row);
        html.push_str("</section>\n");
    }
    if view.conflicts.total > 0 {
        html.push_str(
            "<section aria-labelledby=\"conflicts\">\n<h2 id=\"conflicts\">Conflicts</h2>\n",
        );
        let row = |conflict: &super::view::ConflictView| {
            format!(
                "<tr><th scope=\"row\"><code>{}</code></th><td>{}</td><td>{}</td></tr>",
                Escaped(&conflict.virtual_server),
                Escaped(&conflict.winner),
                Escaped(text::and_more(&conflict.losers.join(", "), conflict.more_losers))
            )
        };
        let heads = ["Address and port", "Has it", "Wants it too"];
        table(html, "Services that claim the same", &heads, 3, &view.conflicts, row);
        html.push_str("</section>\n");
    }
}

fn figures(html: &mut String, view: &View) {
    html.push_str("<dl class=\"figures\">\n");
    for (name, value) in [
        ("services", view.services),
        ("virtual servers", view.virtual_servers),
        ("real servers", view.real_servers),
        ("draining", view.draining.total),
        ("conflicts", view.conflicts.total),
        ("failing", view.failing_targets),
    ] {
        let _ = writeln!(html, "<div><dt>{name}</dt><dd>{value}</dd></div>");
    }
    html.push_str("</dl>\n");
}

fn draining(html: &mut String, view: &View) {
    if view.draining.total == 0 {
        return;
    }
    html.push_str("<section aria-labelledby=\"draining\">\n<h2 id=\"draining\">Draining</h2>\n");
    let row = |drain: &super::view::DrainView| {
        format!(
            "<tr><th scope=\"row\"><code>{}</code></th><td><code>{}</code></td>\
             <td class=\"number\">{}</td><td class=\"number\">{}</td></tr>",
            Escaped(&drain.real_server),
            Escaped(&drain.virtual_server),
            drain.connections,
            GoDuration::from_secs(drain.seconds_left.cast_signed())
        )
    };
    let heads = ["Real server", "Virtual server", "Connections", "At most for"];
    table(html, "Real servers that keep their connections", &heads, 2, &view.draining, row);
    html.push_str("</section>\n");
}

fn watches(html: &mut String, view: &View) {
    if view.watches.is_empty() {
        return;
    }
    html.push_str("<section aria-labelledby=\"watches\">\n<h2 id=\"watches\">API server</h2>\n");
    let row = |watch: &super::view::WatchView| {
        let (class, state) =
            if watch.connected { ("good", "connected") } else { ("bad", "not connected") };
        let silent = watch.silent_seconds.map_or("never heard".to_owned(), |seconds| {
            format!("{} ago", GoDuration::from_secs(seconds.cast_signed()))
        });
        format!(
            "<tr><th scope=\"row\">{}</th><td><span class=\"pill {class}\">{state}</span></td>\
             <td class=\"number\">{silent}</td><td class=\"number\">{}</td></tr>",
            watch.resource, watch.failures
        )
    };
    let all = Part { total: view.watches.len(), first: view.watches.iter().collect() };
    let heads = ["Watch", "State", "Last heard", "Failures since the start"];
    table(html, "Watches of the API server", &heads, 2, &all, |watch| row(watch));
    html.push_str("</section>\n");
}

fn services(html: &mut String, listing: &Listing) {
    let _ = writeln!(
        html,
        "<section aria-labelledby=\"services\">\n<h2 id=\"services\" tabindex=\"-1\">Services</h2>\n\
         <form action=\"/status\" method=\"get\" role=\"search\">\n\
         <input type=\"search\" name=\"q\" value=\"{}\" maxlength=\"100\" aria-label=\"Name or address\" \
         placeholder=\"name or address\">\n<button>Search</button>\n<span class=\"soft\">{}</span>\n</form>",
        Escaped(&listing.search),
        if listing.search.is_empty() {
            Count(listing.matches, "service").to_string()
        } else {
            format!("{} found", Count(listing.matches, "service"))
        }
    );
    if let Some(error) = &listing.counters_error {
        let _ = writeln!(html, "<p class=\"note warn\">{}</p>", Escaped(error));
    }
    for shown in &listing.services {
        service(html, shown);
    }
    if listing.pages > 1 {
        html.push_str("<nav aria-label=\"Pages\">\n");
        if listing.page > 1 {
            let _ =
                writeln!(html, "<a rel=\"prev\" href=\"{}\">Previous</a>", address(listing, -1));
        }
        let _ = writeln!(html, "<span>page {} of {}</span>", listing.page, listing.pages);
        if listing.page < listing.pages {
            let _ = writeln!(html, "<a rel=\"next\" href=\"{}\">Next</a>", address(listing, 1));
        }
        html.push_str("</nav>\n");
    }
    html.push_str("</section>\n");
}

fn service(html: &mut String, service: &ServiceView) {
    let _ = writeln!(
        html,
        "<article class=\"service\">\n<h3><small>{}/</small>{}</h3>",
        Escaped(&service.namespace),
        Escaped(&service.name)
    );
    settings(html, service);
    for shown in &service.frontends.first {
        frontend(html, shown);
    }
    if service.frontends.total == 0 {
        html.push_str("<p class=\"empty\">It asks for nothing on this node.</p>\n");
    }
    more(html, &service.frontends, "virtual server");
    html.push_str("</article>\n");
}

/// What annotations have set, and those that cannot be used.
fn settings(html: &mut String, service: &ServiceView) {
    for set in &service.settings {
        let _ = writeln!(
            html,
            "<p class=\"soft\">{} <code>{}</code>, by its annotation <code>{}</code></p>",
            set.setting,
            Escaped(&set.value),
            set.annotation
        );
    }
    for rejected in &service.rejected_settings {
        let _ = writeln!(
            html,
            "<p class=\"empty\"><span class=\"pill warn\">annotation</span> {}</p>",
            Escaped(rejected)
        );
    }
}

fn frontend(html: &mut String, frontend: &FrontendView) {
    let _ = write!(
        html,
        "<div class=\"frontend\">\n<p><code>{}</code> <span>{}</span> <span class=\"soft\">{}{}",
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
        let _ = write!(html, ", {} so far", Count(connections, "connection"));
    }
    html.push_str("</span>");
    if frontend.programmed == Some(false) && frontend.taken_by.is_none() {
        html.push_str(" <span class=\"pill bad\">not in the kernel</span>");
    }
    html.push_str("</p>\n");
    if let Some(winner) = &frontend.taken_by {
        let _ = writeln!(
            html,
            "<p class=\"empty\"><span class=\"pill warn\">conflict</span> {} has this address and port.</p>",
            Escaped(winner)
        );
    } else if frontend.real_servers.total == 0 {
        html.push_str("<p class=\"empty\">No endpoint: connections are refused.</p>\n");
    } else {
        let row = |real: &super::view::RealServerView| {
            let known =
                |value: Option<u64>| value.map_or("?".to_owned(), |value| value.to_string());
            let most = real.upper_threshold.map_or(String::new(), |most| format!(" of {most}"));
            format!(
                "<tr><th scope=\"row\"><code>{}</code>{}</th><td class=\"number\">{}</td>\
                 <td class=\"number\">{}{most}</td><td class=\"number\">{}</td><td class=\"number\">{}</td></tr>",
                Escaped(&real.address),
                if real.draining { " <span class=\"pill warn\">draining</span>" } else { "" },
                real.weight,
                known(real.active.map(u64::from)),
                known(real.inactive.map(u64::from)),
                known(real.connections)
            )
        };
        let heads = ["Endpoint", "Weight", "Active", "Inactive", "Total"];
        let caption = format!("Endpoints of {}", Escaped(&frontend.virtual_server));
        table(html, &caption, &heads, 1, &frontend.real_servers, row);
    }
    html.push_str("</div>\n");
}

/// A table whose columns from `numbers` on are numbers. `caption` is HTML.
fn table<T>(
    html: &mut String,
    caption: &str,
    heads: &[&str],
    numbers: usize,
    rows: &Part<T>,
    row: impl Fn(&T) -> String,
) {
    let _ = write!(html, "<div class=\"scroll\"><table><caption>{caption}</caption>\n<thead><tr>");
    for (at, head) in heads.iter().enumerate() {
        let class = if at >= numbers { " class=\"number\"" } else { "" };
        let _ = write!(html, "<th scope=\"col\"{class}>{head}</th>");
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    for shown in &rows.first {
        html.push_str(&row(shown));
        html.push('\n');
    }
    html.push_str("</tbody></table></div>\n");
    more(html, rows, "");
}

fn more<T>(html: &mut String, part: &Part<T>, what: &str) {
    let more = part.more();
    if more > 0 {
        let what = if what.is_empty() { more.to_string() } else { Count(more, what).to_string() };
        let _ = writeln!(html, "<p class=\"empty\">and {what} more</p>");
    }
}

/// The address of a page so many pages on.
fn address(listing: &Listing, on: isize) -> String {
    let page = listing.page.saturating_add_signed(on);
    format!("/status?q={}&amp;page={page}", Encoded(&listing.search))
}

/// `1 service`, `2 services`.
struct Count<'a, N>(N, &'a str);

impl<N: Display + PartialEq + From<u8>> Display for Count<'_, N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(number, what) = self;
        write!(f, "{number} {what}{}", if *number == N::from(1) { "" } else { "s" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_stay_texts() {
        let hostile = "\"><script>alert('1')</script>&\u{1b}[31m";
        assert_eq!(
            Escaped(hostile).to_string(),
            "&quot;&gt;&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&amp;\\u{1b}[31m"
        );
        assert_eq!(Encoded("a b&c=\"é/").to_string(), "a%20b%26c%3D%22%C3%A9%2F");
    }
}
