//! Long lines in a terminal.

const GAP: &str = "  ";

/// The lines as they are, but what is wider than the terminal goes on below, where the last column of its line
/// begins. Words, addresses among them, stay whole.
pub fn wrapped(text: &str, width: usize) -> String {
    let mut out = String::new();
    for line in text.lines() {
        if seen(line) <= width {
            out.push_str(line);
        } else {
            wrap(line, width, &mut out);
        }
        out.push('\n');
    }
    out
}

fn wrap(line: &str, width: usize, out: &mut String) {
    let (margin, mut at) = (margin(line, width), 0);
    let start = line.len() - line.trim_start_matches(' ').len();
    for (i, word) in line[start..].split(' ').enumerate() {
        let gap = if i == 0 { start } else { 1 };
        if i > 0 && at + gap + seen(word) > width && !word.is_empty() {
            out.truncate(out.trim_end_matches(' ').len());
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', margin));
            at = margin;
        } else {
            out.extend(std::iter::repeat_n(' ', gap));
            at += gap;
        }
        out.push_str(word);
        at += seen(word);
    }
}

/// Where the last column begins, if that leaves room; else a little more than where the line does.
fn margin(line: &str, width: usize) -> usize {
    let text = line.trim_start_matches(' ');
    let start = line.len() - text.len();
    let column = text.rfind(GAP).map(|gap| start + seen(&text[..gap + GAP.len()]));
    column.filter(|column| *column <= width / 2).unwrap_or(start + GAP.len())
}

/// Columns that a text takes, without the escapes that give it colours.
fn seen(text: &str) -> usize {
    let mut escape = false;
    let is_seen = |letter: &char| {
        let before = escape;
        escape = *letter == '\x1b' || escape && *letter != 'm';
        !(before || escape)
    };
    text.chars().filter(is_seen).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_goes_on_in_the_last_column() {
        assert_eq!(
            wrapped(
                "name    one two three four\nname    one\n    10.0.0.1: left out, as it is\n",
                20
            ),
            "name    one two\n\
             \x20       three four\n\
             name    one\n\
             \x20   10.0.0.1: left\n\
             \x20     out, as it is\n"
        );
    }

    #[test]
    fn words_stay_whole_and_escapes_take_no_room() {
        assert_eq!(wrapped("on fd00:10:96::10:1:2:3", 10), "on\n  fd00:10:96::10:1:2:3\n");
        let coloured = "\x1b[31m0123 567\x1b[0m 9";
        assert_eq!(wrapped(coloured, 10), format!("{coloured}\n"));
        assert_eq!(wrapped(coloured, 9), "\x1b[31m0123 567\x1b[0m\n  9\n");
    }

    #[test]
    fn columns_stay_in_line() {
        let text = "  1. start        a b\n  2. prerouting   nat KUBE-SERVICES: accept\n";
        assert_eq!(
            wrapped(text, 38),
            "  1. start        a b\n  2. prerouting   nat KUBE-SERVICES:\n                  accept\n"
        );
    }
}
