//! The status page: one document that needs no other file, and can be read without its script.

mod problems;
mod services;

use std::fmt::{Display, Write as _};
use std::hash::{BuildHasher as _, Hasher as _};

use super::attention::State;
use super::view::{Part, View};
use crate::text;
use crate::value::GoDuration;

const STYLE: &str = include_str!("page.css");
/// Keeps the page up to date, and draws the trends.
const SCRIPT: &str = include_str!("page.js");

/// A page, and the policy under which a browser may show it.
pub(super) struct Page {
    pub(super) html: String,
    pub(super) policy: String,
}

/// Text between tags or in an attribute. Whatever it is, it stays text.
struct Escaped<T>(T);

impl<T: Display> Display for Escaped<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        escape(f, format_args!("{}", text::line(&self.0)))
    }
}

/// The same of several lines, whose ends stay.
struct Lines<'a>(&'a str);

impl Display for Lines<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.lines().try_for_each(|line| {
            escape(f, format_args!("{}", text::line(line)))?;
            f.write_str("\n")
        })
    }
}

fn escape(f: &mut std::fmt::Formatter<'_>, text: std::fmt::Arguments<'_>) -> std::fmt::Result {
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
    Writer(f).write_fmt(text)
}

/// The page. Writing to a string does not fail, here and below.
pub(super) fn render(view: &View) -> Page {
    // The one style and the one script are let in by a number that nobody can foresee.
    let random = || std::hash::RandomState::new().build_hasher().finish();
    let nonce = format!("{:016x}{:016x}", random(), random());
    let node = Escaped(&view.node);
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{node}: {} - proxier</title>\n<style nonce=\"{nonce}\">\n{STYLE}</style>\n</head>\n\
         <body data-refresh=\"{}\">\n<a class=\"skip\" href=\"#services\">Skip to the services</a>\n",
        view.state, view.listing.query.refresh
    );
    header(&mut html, view);
    html.push_str("<main>\n");
    problems::problems(&mut html, view);
    services::services(&mut html, &view.listing);
    problems::draining(&mut html, view);
    problems::watches(&mut html, view);
    html.push_str("</main>\n");
    let _ = write!(
        html,
        "<footer>This page changes nothing. The same as <a href=\"/status.json\">JSON</a>, and the \
         <a href=\"/metrics\">metrics</a>; on the node, <code>proxier status</code>, <code>proxier explain</code> \
         and <code>proxier top</code>.</footer>\n<script nonce=\"{nonce}\">\n{SCRIPT}</script>\n</body>\n</html>\n",
    );
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; \
         form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    );
    Page { html, policy }
}

/// Which node, how it is, and since when that is known.
fn header(html: &mut String, view: &View) {
    let class = match view.state {
        State::InSync => "good",
        State::Reading | State::NeedsAttention => "warn",
        State::NotInSync | State::Unhealthy => "bad",
    };
    let _ = writeln!(
        html,
        "<header>\n<div class=\"title\">\n<h1><small>proxier on</small> {}</h1>\n\
         <span class=\"pill {class}\" role=\"status\">{}</span>\n\
         <p class=\"fresh\"><span id=\"fresh\">as of <time datetime=\"{}\">{}</time></span> <a href=\"{}\">Refresh</a> \
         <button type=\"button\" id=\"pause\" hidden>Pause</button></p>\n</div>",
        Escaped(&view.node),
        view.state,
        Escaped(&view.time),
        Escaped(clock(&view.time)),
        view.listing.query.address()
    );
    let up = GoDuration::from_secs(view.up_seconds.cast_signed());
    let addresses: Vec<String> = view.addresses.iter().map(ToString::to_string).collect();
    html.push_str("<dl class=\"facts\">\n");
    for (name, value) in [
        ("address", addresses.join(" ")),
        ("kernel", view.kernel.clone()),
        ("rules by", view.backend.clone().unwrap_or_default()),
        ("proxier", view.version.to_owned()),
        ("up", up.to_string()),
        ("services", text::number(view.services as u64)),
        ("virtual servers", text::number(view.virtual_servers as u64)),
        ("real servers", text::number(view.real_servers as u64)),
        ("draining", text::number(view.draining.total as u64)),
    ] {
        if !value.is_empty() {
            let _ = writeln!(html, "<div><dt>{name}</dt><dd>{}</dd></div>", Escaped(&value));
        }
    }
    html.push_str("</dl>\n</header>\n");
}

/// A time in UTC (RFC 3339) for people, without fractions of a second.
fn clock(time: &str) -> String {
    let whole = time.split(['.', 'Z']).next().unwrap_or_default();
    format!("{} UTC", whole.replace('T', " "))
}

fn more<T>(html: &mut String, part: &Part<T>) {
    let more = part.more();
    if more > 0 {
        let _ = writeln!(html, "<p class=\"more\">and {} more</p>", text::number(more as u64));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_stay_texts() {
        let hostile = "\"><script>alert('1')</script>&\u{1b}[31m";
        let escaped = "&quot;&gt;&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&amp;\\u{1b}[31m";
        assert_eq!(Escaped(hostile).to_string(), escaped);
        assert_eq!(Lines(&format!("a\n{hostile}\n")).to_string(), format!("a\n{escaped}\n"));
    }
}
