use proptest::prelude::*;

use super::*;

/// An error with causes.
#[derive(Debug)]
struct Told(&'static str, Option<Box<Told>>);

impl Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for Told {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.1.as_deref().map(|cause| cause as _)
    }
}

fn told(texts: &[&'static str]) -> String {
    let error = texts.iter().rev().fold(None, |cause, text| Some(Box::new(Told(text, cause))));
    chain(&*error.unwrap())
}

#[test]
fn what_a_terminal_or_an_eye_would_obey_is_written_out() {
    for (hostile, shown) in [
        ("a\nproxier: all is well", "a\\nproxier: all is well"),
        ("\u{1b}[2J\r\u{7}\u{9b}31m\u{7f}", "\\u{1b}[2J\\r\\u{7}\\u{9b}31m\\u{7f}"),
        ("user\u{202e}txt\u{2066}\u{200f}", "user\\u{202e}txt\\u{2066}\\u{200f}"),
        ("a\u{200b}\u{feff}\u{ad}\u{e0041}", "a\\u{200b}\\u{feff}\\u{ad}\\u{e0041}"),
        ("\u{2028}\u{2029}\u{85}\u{a0}\u{3164}", "\\u{2028}\\u{2029}\\u{85}\\u{a0}\\u{3164}"),
        ("café, 名前, \"x\" 'y' \\n", "café, 名前, \"x\" 'y' \\n"),
    ] {
        assert_eq!(line(hostile).to_string(), shown);
        assert_eq!(line(shown).to_string(), shown, "a second time changes nothing");
    }
}

#[test]
fn what_is_too_long_is_cut_and_counted() {
    assert_eq!(name("x".repeat(256)).to_string(), "x".repeat(256));
    let long = name("x".repeat(1_000_000)).to_string();
    assert_eq!(long, format!("{}... (999744 more bytes)", "x".repeat(256)));
    // Neither a letter nor an escape is taken apart.
    let letters = name("é".repeat(200)).to_string();
    assert_eq!(letters, format!("{}... (144 more bytes)", "é".repeat(128)));
    let escapes = name("\u{1b}".repeat(100)).to_string();
    assert_eq!(escapes, format!("{}... (58 more bytes)", "\\u{1b}".repeat(42)));
}

#[test]
fn a_json_document_keeps_its_meaning() {
    let value = serde_json::json!({"a\u{202e}": "\u{1b}\u{9b}\u{7f}\n\u{e0041}é", "b": [1, "x"]});
    for text in [value.to_string(), format!("{value:#}")] {
        let shown = json(&text);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
        assert!(shown.chars().all(|c| c == '\n' || is_printable(c)), "{shown}");
        assert!(shown.contains("\\u202e") && shown.contains("\\udb40\\udc41"), "{shown}");
        assert!(shown.contains('é'), "{shown}");
    }
}

#[test]
fn causes_follow_unless_they_repeat_what_was_said() {
    for (texts, expected) in [
        (&["open", "no such file"][..], "open: no such file"),
        (&["open: No such file", "No such file"], "open: No such file"),
        (&["No such file", "No such file"], "No such file"),
        (
            &["client error (Connect)", "client error (Connect)", "refused"],
            "client error (Connect): refused",
        ),
        (&["a: b: c", "b: c", "c"], "a: b: c"),
        (&["a: b: c", "b", "c"], "a: b: c"),
        (&["cannot", "no"], "cannot: no"),
        (&["", "no"], "no"),
        (
            &[
                "send",
                "peer closed connection without sending TLS close_notify: \
                 https://docs.rs/rustls/latest/rustls/manual/_03_howto/index.html#unexpected-eof",
            ],
            "send: peer closed connection without sending TLS close_notify",
        ),
        (&["read\n\u{1b}[2J", "x"], "read\\n\\u{1b}[2J: x"),
    ] {
        assert_eq!(told(texts), expected);
    }
}

#[test]
fn of_many_a_few_are_named() {
    assert_eq!(few([1, 2], 2), "1, 2");
    assert_eq!(few(1..=5000, 3), "1, 2, 3 and 4997 more");
    assert_eq!(few([""; 0], 3), "");
}

proptest! {
    #[test]
    fn no_text_finds_a_way_around(text in "\\PC*|(?s).*") {
        for shown in [line(&text).to_string(), name(&text).to_string()] {
            prop_assert!(shown.chars().all(is_printable), "{shown:?}");
            prop_assert!(!shown.chars().any(char::is_control), "{shown:?}");
            prop_assert!(shown.len() <= LINE + 40);
        }
        let name = name(&text).to_string();
        prop_assert_eq!(line(&name).to_string(), name);
    }

    #[test]
    fn pieces_are_shown_as_the_whole(pieces in proptest::collection::vec("(?s).{0,9}", 0..60)) {
        struct Pieces<'a>(&'a [String]);
        impl Display for Pieces<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|piece| f.write_str(piece))
            }
        }
        prop_assert_eq!(name(Pieces(&pieces)).to_string(), name(pieces.concat()).to_string());
    }
}

#[test]
fn bytes_have_the_largest_unit_that_they_fill() {
    for (count, text) in [
        (0, "0 B"),
        (1023, "1023 B"),
        (1536, "1.5 KiB"),
        (1_048_575, "1023.9 KiB"),
        (1_048_576, "1.0 MiB"),
        (u64::MAX, "1677721.5 TiB"),
    ] {
        assert_eq!(bytes(count), text);
    }
}

#[test]
fn numbers_have_separators() {
    for (n, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (12_345, "12,345")] {
        assert_eq!(number(n), text);
    }
    assert_eq!(number(u64::MAX), "18,446,744,073,709,551,615");
}
