use serde_json::json;

use super::*;

fn value(text: &str) -> Result<Value, String> {
    first(text).map(|tree| tree.value).map_err(|error| error.to_string())
}

#[allow(clippy::too_many_lines, reason = "one table")]
/// What `sigs.k8s.io/yaml` makes of a scalar: YAML of go-yaml v2, written as JSON by Go.
#[test]
fn scalars_are_those_of_kubernetes() {
    let forms = [
        // Whole numbers.
        ("80", json!(80)),
        ("-5", json!(-5)),
        ("+5", json!(5)),
        ("0", json!(0)),
        ("-0", json!(0)),
        ("0755", json!(493)),
        ("0o755", json!(493)),
        ("0O17", json!(15)),
        ("-0755", json!(-493)),
        ("0x1F", json!(31)),
        ("0X1f", json!(31)),
        ("0b101", json!(5)),
        ("-0b101", json!(-5)),
        ("1_000_000", json!(1_000_000)),
        ("0x_ff", json!(255)),
        ("9223372036854775807", json!(9_223_372_036_854_775_807_u64)),
        ("18446744073709551615", json!(18_446_744_073_709_551_615_u64)),
        ("-9223372036854775808", json!(-9_223_372_036_854_775_808_i64)),
        ("18446744073709551616", json!(18_446_744_073_709_551_616_f64)),
        ("0xffffffffffffffffffff", json!(1_208_925_819_614_629_174_706_175_f64)),
        // Numbers with a point or an exponent; without a fraction they are whole.
        ("80.0", json!(80)),
        ("80.", json!(80)),
        ("1.048576e+06", json!(1_048_576)),
        ("1e6", json!(1_000_000)),
        ("1E+2", json!(100)),
        ("1_0.5", json!(10.5)),
        ("-80.0", json!(-80)),
        ("-0.0", json!(0)),
        ("80.5", json!(80.5)),
        (".5", json!(0.5)),
        ("5e-1", json!(0.5)),
        ("1e22", json!(1e22)),
        // No octal, so decimal by way of a fraction.
        ("08", json!(8)),
        ("09.5", json!(9.5)),
        // Words that look like numbers.
        ("0x", json!("0x")),
        ("0o8", json!("0o8")),
        ("1e", json!("1e")),
        ("1e999", json!("1e999")),
        ("1.2.3", json!("1.2.3")),
        ("10.0.0.1", json!("10.0.0.1")),
        ("12:30", json!("12:30")),
        ("190:20:30", json!("190:20:30")),
        ("+", json!("+")),
        ("-", json!([null])),
        ("-inf", json!("-inf")),
        ("+nan", json!("+nan")),
        ("inf", json!("inf")),
        ("_1", json!("_1")),
        ("30s", json!("30s")),
        ("1h30m", json!("1h30m")),
        ("64Ki", json!("64Ki")),
        ("2024-01-02", json!("2024-01-02")),
        ("2024-01-02T03:04:05Z", json!("2024-01-02T03:04:05Z")),
        ("fd00::1", json!("fd00::1")),
        // Booleans of YAML 1.1.
        ("yes", json!(true)),
        ("On", json!(true)),
        ("TRUE", json!(true)),
        ("y", json!(true)),
        ("no", json!(false)),
        ("OFF", json!(false)),
        ("False", json!(false)),
        ("N", json!(false)),
        ("yES", json!("yES")),
        ("tRue", json!("tRue")),
        // Nothing.
        ("~", Value::Null),
        ("null", Value::Null),
        ("Null", Value::Null),
        ("NULL", Value::Null),
        ("", Value::Null),
        ("nULL", json!("nULL")),
        // Quotes and blocks are text, tags decide.
        ("\"80\"", json!("80")),
        ("'yes'", json!("yes")),
        ("\"\"", json!("")),
        ("|\n  80\n", json!("80\n")),
        (">-\n  a\n  b\n", json!("a b")),
        ("!!str 80", json!("80")),
        ("!!str yes", json!("yes")),
        ("!!int \"80\"", json!(80)),
        ("!!float 80", json!(80)),
        ("!!bool \"yes\"", json!(true)),
        ("!!null \"\"", Value::Null),
        ("!own 80", json!("80")),
    ];
    for (text, expected) in forms {
        // As a field, and as an item.
        let field = format!("a: {text}\n");
        if !text.starts_with('-') || text.len() > 1 {
            assert_eq!(
                value(&field).map(|tree| tree["a"].clone()),
                Ok(expected.clone()),
                "{text:?}"
            );
            assert!(value(&field.replace('\n', "\r\n")).is_ok(), "{text:?}");
        }
        if !text.contains('\n') {
            let item = format!("- {text}\n- 1\n");
            assert_eq!(value(&item), Ok(json!([expected, 1])), "{text:?}");
        }
    }
    for text in [".nan", ".inf", "-.Inf", "!!int yes", "!!bool 1", "!!float abc", "!!null 0"] {
        assert!(value(&format!("a: {text}")).is_err(), "{text}");
    }
}

#[test]
fn keys_are_text() {
    let text = "1: a\n0x10: b\n1.5: c\n2.0: d\nyes: e\nn: f\n'3': g\n? !!str yes\n: h\n";
    let expected = json!({
        "1": "a", "16": "b", "1.5": "c", "2": "d", "true": "e", "false": "f", "3": "g", "yes": "h"
    });
    assert_eq!(value(text), Ok(expected));
    for text in ["~: a", "? [a]\n: b", "? {a: b}\n: c", "{a: b, null: c}"] {
        assert!(value(text).is_err(), "{text}");
    }
}

#[test]
fn of_a_key_that_is_there_twice_the_last_one_counts_and_it_is_named() {
    for text in [
        "a: 1\nspec: {ports: [{port: 1}, {port: 80, name: x, port: 81}]}\na: 2\n",
        r#"{"a": 1, "spec": {"ports": [{"port": 1}, {"port": 80, "name": "x", "port": 81}]}, "a": 2}"#,
    ] {
        let tree = first(text).unwrap();
        assert_eq!(tree.value["a"], 2, "{text}");
        assert_eq!(tree.value["spec"]["ports"][1]["port"], 81, "{text}");
        assert_eq!(tree.duplicates, ["spec.ports[1].port", "a"], "{text}");
    }
    let many: Vec<_> = (0..100).map(|n| format!("a{n}: 1\na{n}: 2\n")).collect();
    assert_eq!(first(&many.concat()).unwrap().duplicates.len(), NAMED);
}

#[test]
fn aliases_and_merge_keys() {
    let text = "base: &b {port: 80, name: x}\nsame: *b\nname: &n web\nother: *n\n*n : key\n";
    let expected = json!({
        "base": {"port": 80, "name": "x"}, "same": {"port": 80, "name": "x"},
        "name": "web", "other": "web", "web": "key",
    });
    assert_eq!(value(text), Ok(expected));
    for (text, expected) in [
        ("x: &x {a: 1, b: 2}\nm: {<<: *x, b: 3}", json!({"a": 1, "b": 3})),
        // go-yaml v2 takes them in the order of the text.
        ("x: &x {a: 1, b: 2}\nm: {b: 3, <<: *x}", json!({"a": 1, "b": 2})),
        ("x: &x {a: 1}\nz: &z {a: 2, b: 2}\nm: {<<: [*x, *z]}", json!({"a": 1, "b": 2})),
        ("m: {<<: {a: 1}}", json!({"a": 1})),
        ("m: {'<<': {a: 1}}", json!({"<<": {"a": 1}})),
    ] {
        let tree = first(text).unwrap();
        assert_eq!(tree.value["m"], expected, "{text}");
        assert!(tree.duplicates.is_empty(), "{text}");
    }
    for text in ["m: {<<: 1}", "x: &x [1]\nm: {<<: *x}", "a: *nobody", "a: &a [*a]", "&a {b: *a}"] {
        assert!(value(text).is_err(), "{text}");
    }
}

#[test]
fn the_first_document_that_is_not_empty_counts() {
    for (text, followed) in [
        ("a: 1", false),
        ("---\na: 1\n", false),
        ("\u{feff}a: 1\r\n", false),
        ("---\n# nothing\n---\na: 1\n", false),
        ("a: 1\n---\n", false),
        ("a: 1\n---\n# nothing\n...\n", false),
        ("a: 1\n---\nb: 2\n", true),
        ("a: 1\n---\n[broken\n", true),
        ("a: 1\n...\n---\nb\n", true),
        ("{\"a\": 1}", false),
        ("\u{feff}{\"a\": 1}\n", false),
        ("{\"a\": 1}\n{\"b\": 2}", true),
        ("{a: 1}\n---\n{b: 2}", true),
    ] {
        let tree = first(text).unwrap();
        assert_eq!((tree.value, tree.followed), (json!({"a": 1}), followed), "{text:?}");
    }
    for text in ["", "\n", "# nothing\n", "---\n---\n", "~"] {
        assert_eq!(value(text), Ok(Value::Null), "{text:?}");
    }
}

#[test]
fn json_is_read_as_json() {
    let text = r#"{"a": 80.0, "b": 1.048576e+06, "c": "yes", "d": null, "e": "\ud83d\ude00\/", "f": 1e400}"#;
    let (tree, _) = json(text, &mut ());
    assert_eq!(tree.unwrap_err().line, Some(1), "1e400 is no number");
    let expected = json!({"a": 80, "b": 1_048_576, "c": "yes", "d": null, "e": "\u{1f600}/"});
    assert_eq!(value(&text.replace(", \"f\": 1e400", "")), Ok(expected));
    // Tabs separate in JSON and within YAML's braces, but indent nothing.
    assert_eq!(value("{\n\t\"a\":\t1\n}"), Ok(json!({"a": 1})));
    assert!(value("a:\n\tb: 1\n").is_err());
}

#[test]
fn errors_are_one_line_and_name_it() {
    for (text, line) in [("a: 1\nb: [\n", 3), ("a: 1\nb: c: d\n", 2), ("a: 1\nb: .nan\n", 2)] {
        let error = first(text).unwrap_err();
        assert!(error.line.is_some_and(|at| at.abs_diff(line) <= 1), "{text:?}: {error}");
        assert!(!error.to_string().contains('\n') && !error.text.is_empty(), "{text:?}: {error}");
    }
}

/// Takes the items of a list, those that say so, and notes them.
#[derive(Default)]
struct Taken(Vec<Value>);

impl Items for Taken {
    fn begin(&mut self) {
        self.0.clear();
    }

    fn take(&mut self, item: Value) -> Option<Value> {
        if item.get("keep").is_some() {
            return Some(item);
        }
        self.0.push(item);
        None
    }
}

#[test]
fn items_of_the_document_are_taken_as_they_are_read() {
    for (text, taken, left) in [
        (
            r#"{"items": [{"a": 1}, [2], {"keep": 3}, 4]}"#,
            json!([{"a": 1}, [2], 4]),
            json!([{"keep": 3}]),
        ),
        // Of what is there twice the last counts, whatever it is.
        (r#"{"items": [1], "items": [2]}"#, json!([2]), json!([])),
        (r#"{"items": [1], "items": 2}"#, json!([]), json!(2)),
        (r#"{"items": 2, "items": [1]}"#, json!([1]), json!([])),
        // Only those of the document.
        (r#"{"items": {"items": [1]}}"#, json!([]), json!({"items": [1]})),
        (r#"{"items": [{"items": [1]}]}"#, json!([{"items": [1]}]), json!([])),
    ] {
        let mut items = Taken::default();
        let tree = json(text, &mut items).0.unwrap();
        assert_eq!((&json!(items.0), &tree.value["items"]), (&taken, &left), "{text}");
        let tree = yaml(text, &mut items).unwrap();
        assert_eq!((&json!(items.0), &tree.value["items"]), (&taken, &left), "{text} as YAML");
    }
    for (text, taken, left) in [
        ("items:\n- &a {b: 1}\n- *a\nother: *a\n", json!([{"b": 1}, {"b": 1}]), json!([])),
        ("a: &a [1]\nitems: *a\n", json!([]), json!([1])),
        ("a: &a {items: [1]}\nitems: [2]\n<<: *a\n", json!([]), json!([1])),
        ("a: &a {b: [1]}\nitems: [2]\n<<: *a\n", json!([2]), json!([])),
        ("items: &a [1]\nother: *a\n", json!([]), json!([1])),
    ] {
        let mut items = Taken::default();
        let tree = yaml(text, &mut items).unwrap();
        assert_eq!((&json!(items.0), &tree.value["items"]), (&taken, &left), "{text}");
    }
    for text in [r#"[{"items": [1]}]"#, "&a {items: [1]}"] {
        let mut items = Taken::default();
        yaml(text, &mut items).unwrap();
        assert!(items.0.is_empty(), "{text}");
    }
}

/// Only what is in memory together is bounded, and the place of a duplicate is that in the list.
#[test]
fn a_list_of_which_items_are_taken_may_be_long() {
    let item = r#"{"a": [1, 2, 3], "b": 1},"#;
    let twice = r#"{"a": [{"b": 1, "b": 2}]}"#;
    let text = format!("{{\"items\": [{}{twice}]}}", item.repeat(MOST_VALUES / 4));
    let path = format!("items[{}].a[0].b", MOST_VALUES / 4);
    let trees = [json(&text, &mut Taken::default()).0, yaml(&text, &mut Taken::default())];
    for tree in trees {
        assert_eq!(tree.unwrap().duplicates, [&*path]);
    }
    let trees = [json(&text, &mut ()).0, yaml(&text, &mut ())];
    assert!(
        trees.iter().all(|tree| tree.as_ref().is_err_and(|error| error.text.contains("values")))
    );
}

/// Nothing that is small becomes large or deep.
#[test]
fn what_explodes_is_refused() {
    let mut bomb = vec![String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]")];
    let mut chain = vec![String::from("a0: &a0 x")];
    let mut long = vec![format!("a: &a {}", "x".repeat(10_000))];
    for n in 1..1000 {
        let before = format!("*a{}", n - 1);
        if n < 12 {
            bomb.push(format!("a{n}: &a{n} [{}]", vec![before.clone(); 10].join(", ")));
        }
        chain.push(format!("a{n}: &a{n} [{before}] # {}", "x".repeat(10_000)));
        long.push(format!("b{n}: *a"));
    }
    for (text, why) in [
        (bomb.join("\n"), "aliases"),
        (long.join("\n"), "aliases"),
        (chain.join("\n"), "inside each other"),
        ("[".repeat(100_000), "inside each other"),
        ("{".repeat(100_000), "inside each other"),
        ("{a: ".repeat(100_000), "inside each other"),
        ("- ".repeat(100_000), "inside each other"),
        ("{\"a\":".repeat(100_000), "inside each other"),
        ("[0,".repeat(65), "inside each other"),
        (format!("[{}]", "0,".repeat(MOST_VALUES)), "values"),
        (format!("{{\"a\": [{}0]}}", "0,".repeat(MOST_VALUES)), "values"),
    ] {
        let error = first(&text).unwrap_err().to_string();
        assert!(error.contains(why), "{text:.20}: {error}");
    }
    // As deep as is allowed.
    let deep = format!("{}1{}", "[".repeat(DEPTH), "]".repeat(DEPTH));
    assert!(value(&deep).is_ok());
}

proptest::proptest! {
    #[test]
    fn any_text_has_an_answer(text in "[-{}\\[\\]:,&*<>!|\"'#%a0~\\n\\t ?.\\-]{0,60}") {
        let _ = first(&text);
        let _ = json(&text, &mut ());
    }

    /// Numbers, by another way than the one that reads them.
    #[test]
    fn whole_numbers_are_read_in_every_base(number: i64) {
        let sign = if number < 0 { "-" } else { "" };
        let size = number.unsigned_abs();
        for text in [
            format!("{sign}{size}"), format!("{sign}0x{size:x}"), format!("{sign}0o{size:o}"),
            format!("{sign}0{size:o}"), format!("{sign}0b{size:b}"),
        ] {
            proptest::prop_assert_eq!(value(&format!("[{text}]")), Ok(json!([number])), "{}", text);
        }
    }
}
