//! What somebody has to look at, real servers that drain, and the watches.

use std::fmt::Write as _;

use super::{Escaped, table};
use crate::http::view::{ConflictView, DrainView, HeldView, Part, View, WatchView};
use crate::text;
use crate::value::GoDuration;

/// Before everything else, and nothing where nothing is wrong.
pub(super) fn problems(html: &mut String, view: &View) {
    let mut items = String::new();
    let mut item = |class: &str, word: &str, what: &str, then: &str| {
        let _ = writeln!(
            items,
            "<li><span class=\"pill {class}\">{word}</span> <span>{} <span class=\"soft\">{}</span></span></li>",
            Escaped(what),
            Escaped(then)
        );
    };
    if let Some(seconds) = view.failing_seconds {
        let (count, since) = (text::count(view.failing_targets, "thing"), since(seconds));
        let what = format!("{count} cannot be programmed and will be tried again, {since}.");
        item("bad", "failing", &what, "The last errors say why.");
    }
    for look in &view.attention {
        let what = format!("{}.", upper(&look.what));
        let then = format!("{}; {}", since(look.seconds), look.then);
        item("warn", look.kind, &what, &then);
    }
    if let Some(stage) = &view.hand_over {
        item(
            "warn",
            "hand-over",
            &format!("This node is handed over to another proxy: {stage}."),
            "",
        );
    }
    if !items.is_empty() {
        let _ = write!(
            html,
            "<section aria-labelledby=\"attention\">\n<h2 id=\"attention\">Needs attention</h2>\n\
             <ul class=\"card looks\">\n{items}</ul>\n</section>\n"
        );
    }
    errors(html, view);
    held_back(html, view);
    conflicts(html, view);
}

fn since(seconds: u64) -> String {
    format!("for {}", GoDuration::from_secs(seconds.cast_signed()))
}

/// As the beginning of a sentence.
fn upper(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

fn errors(html: &mut String, view: &View) {
    if view.errors.is_empty() {
        return;
    }
    html.push_str(
        "<section aria-labelledby=\"errors\">\n<h2 id=\"errors\">Last errors, newest first</h2>\n\
         <ol class=\"card errors\">\n",
    );
    for error in &view.errors {
        let _ = writeln!(html, "<li><code>{}</code></li>", Escaped(error));
    }
    html.push_str("</ol>\n</section>\n");
}

fn held_back(html: &mut String, view: &View) {
    if view.held_back.total == 0 {
        return;
    }
    html.push_str("<section aria-labelledby=\"held\">\n<h2 id=\"held\">Held back</h2>\n");
    let row = |held: &HeldView| {
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

fn conflicts(html: &mut String, view: &View) {
    if view.conflicts.total == 0 {
        return;
    }
    html.push_str("<section aria-labelledby=\"conflicts\">\n<h2 id=\"conflicts\">Conflicts</h2>\n");
    let row = |conflict: &ConflictView| {
        format!(
            "<tr><th scope=\"row\"><code>{}</code></th><td>{}</td><td>{}</td></tr>",
            Escaped(&conflict.virtual_server),
            Escaped(&conflict.winner),
            Escaped(text::and_more(&conflict.losers.join(", "), conflict.more_losers))
        )
    };
    let heads = ["Address and port", "Goes to", "Claimed by, too"];
    table(html, "Services that claim the same", &heads, 3, &view.conflicts, row);
    html.push_str("</section>\n");
}

pub(super) fn draining(html: &mut String, view: &View) {
    if view.draining.total == 0 {
        return;
    }
    html.push_str("<section aria-labelledby=\"draining\">\n<h2 id=\"draining\">Draining</h2>\n");
    let row = |drain: &DrainView| {
        format!(
            "<tr><th scope=\"row\"><code>{}</code></th><td><code>{}</code></td>\
             <td class=\"number\">{}</td><td class=\"number\">{}</td></tr>",
            Escaped(&drain.real_server),
            Escaped(&drain.virtual_server),
            text::number(drain.connections),
            GoDuration::from_secs(drain.seconds_left.cast_signed())
        )
    };
    let heads = ["Real server", "Virtual server", "Connections", "At most for"];
    table(html, "Real servers that keep their connections", &heads, 2, &view.draining, row);
    html.push_str("</section>\n");
}

pub(super) fn watches(html: &mut String, view: &View) {
    if view.watches.is_empty() {
        return;
    }
    html.push_str("<section aria-labelledby=\"watches\">\n<h2 id=\"watches\">API server</h2>\n");
    let row = |watch: &WatchView| {
        let (class, state) =
            if watch.connected { ("good", "connected") } else { ("bad", "not connected") };
        let silent = watch.silent_seconds.map_or("never".to_owned(), |seconds| {
            format!("{} ago", GoDuration::from_secs(seconds.cast_signed()))
        });
        format!(
            "<tr><th scope=\"row\">{}</th><td><span class=\"pill {class}\">{state}</span></td>\
             <td class=\"number\">{silent}</td><td class=\"number\">{}</td></tr>",
            watch.resource,
            text::number(watch.failures)
        )
    };
    let all = Part { total: view.watches.len(), first: view.watches.iter().collect() };
    let heads = ["Watch", "State", "Last heard", "Failures"];
    table(html, "Watches of the API server", &heads, 2, &all, |watch| row(watch));
    html.push_str("</section>\n");
}
