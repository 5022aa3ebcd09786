//! What somebody has to look at, real servers that drain, and the watches.

use std::fmt::Write as _;

use super::{Escaped, more};
use crate::http::view::{Part, View};
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

/// A table under a heading of its own, whose columns from `numbers` on are numbers.
struct Section {
    id: &'static str,
    title: &'static str,
    caption: &'static str,
    heads: &'static [&'static str],
    numbers: usize,
}

impl Section {
    /// Nothing where there is no row.
    fn show<T>(&self, html: &mut String, rows: &Part<T>, row: impl Fn(&T) -> String) {
        if rows.total == 0 {
            return;
        }
        let Self { id, title, caption, heads, numbers } = self;
        let _ = write!(
            html,
            "<section aria-labelledby=\"{id}\">\n<h2 id=\"{id}\">{title}</h2>\n\
             <div class=\"card\"><table><caption>{caption}</caption>\n<thead><tr>"
        );
        for (at, head) in heads.iter().enumerate() {
            let class = if at >= *numbers { " class=\"number\"" } else { "" };
            let _ = write!(html, "<th scope=\"col\"{class}>{head}</th>");
        }
        html.push_str("</tr></thead>\n<tbody>\n");
        for shown in &rows.first {
            html.push_str(&row(shown));
            html.push('\n');
        }
        html.push_str("</tbody></table>");
        more(html, rows);
        html.push_str("</div>\n</section>\n");
    }
}

fn held_back(html: &mut String, view: &View) {
    let section = Section {
        id: "held",
        title: "Held back",
        caption: "Not programmed, since something that it needs has failed",
        heads: &["What", "Waits for"],
        numbers: 2,
    };
    section.show(html, &view.held_back, |held| {
        format!(
            "<tr><th scope=\"row\">{}</th><td>{}</td></tr>",
            Escaped(&held.target),
            Escaped(&held.waits_for)
        )
    });
}

fn conflicts(html: &mut String, view: &View) {
    let section = Section {
        id: "conflicts",
        title: "Conflicts",
        caption: "Services that claim the same",
        heads: &["Address and port", "Goes to", "Claimed by, too"],
        numbers: 3,
    };
    section.show(html, &view.conflicts, |conflict| {
        format!(
            "<tr><th scope=\"row\"><code>{}</code></th><td>{}</td><td>{}</td></tr>",
            Escaped(&conflict.virtual_server),
            Escaped(&conflict.winner),
            Escaped(text::and_more(&conflict.losers.join(", "), conflict.more_losers))
        )
    });
}

pub(super) fn draining(html: &mut String, view: &View) {
    let section = Section {
        id: "draining",
        title: "Draining",
        caption: "Real servers that keep their connections",
        heads: &["Real server", "Virtual server", "Connections", "At most for"],
        numbers: 2,
    };
    section.show(html, &view.draining, |drain| {
        format!(
            "<tr><th scope=\"row\"><code>{}</code></th><td><code>{}</code></td>\
             <td class=\"number\">{}</td><td class=\"number\">{}</td></tr>",
            Escaped(&drain.real_server),
            Escaped(&drain.virtual_server),
            text::number(drain.connections),
            GoDuration::from_secs(drain.seconds_left.cast_signed())
        )
    });
}

pub(super) fn watches(html: &mut String, view: &View) {
    let section = Section {
        id: "watches",
        title: "API server",
        caption: "Watches of the API server",
        heads: &["Watch", "State", "Last heard", "Failures"],
        numbers: 2,
    };
    let all = Part { total: view.watches.len(), first: view.watches.iter().collect() };
    section.show(html, &all, |watch| {
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
    });
}
