use super::*;

fn documents(text: &str) -> impl Iterator<Item = Document<'_, ()>> {
    let mut documents = Documents::new(text);
    std::iter::from_fn(move || documents.next(|_, _| ()))
}

fn shape(text: &str) -> Vec<(usize, usize, bool)> {
    documents(text).map(|d| (d.number, d.line, d.content.is_ok())).collect()
}

#[test]
fn a_broken_yaml_document_does_not_cost_the_others() {
    let text = "a: 1\n---\n# nothing\n---\nb: [1,\nc: }\n--- \nd: |\n  text\n  ---\n---\n";
    assert_eq!(shape(text), [(1, 1, true), (2, 4, false), (3, 7, true)]);
}

#[test]
fn an_error_names_its_line_in_the_file() {
    let documents: Vec<_> = documents("a: 1\n---\nb: 2\nc: [\n").collect();
    let error = documents[1].content.as_ref().unwrap_err();
    assert!(error.starts_with("line "), "{error}");
    let line: usize = error[5..].split(':').next().unwrap().parse().unwrap();
    assert!((4..=5).contains(&line), "{error}");
    assert!(!error.contains('\n'));
}

#[test]
fn json_values_follow_each_other() {
    let text = "{\"a\": 1}\n{\"b\": 2} {\"c\": 3}\n{\"d\": \n{\"e\": 5}\n";
    assert_eq!(
        shape(text),
        [(1, 1, true), (2, 2, true), (3, 2, true), (4, 3, false), (5, 4, true)]
    );
    let error = documents("{}\n{\n\"x\": nope}").last().unwrap().content.unwrap_err();
    assert!(error.starts_with("line 3:"), "{error}");
}

#[test]
fn truncated_and_empty_texts() {
    assert_eq!(shape(""), []);
    assert_eq!(shape("\n# only a comment\n---\n...\n"), []);
    assert_eq!(shape("{\"a\":"), [(1, 1, false)]);
    assert_eq!(shape("%YAML 1.2\n---\na: 1\n"), [(1, 2, true)]);
    assert_eq!(shape("\u{feff}a: 1\r\n---\r\nb: 2\r\n"), [(1, 1, true), (2, 2, true)]);
}

#[test]
fn aliases_cannot_explode() {
    let mut lines = vec![String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]")];
    for n in 1..12 {
        let before = format!("*a{}", n - 1);
        lines.push(format!("a{n}: &a{n} [{}]", vec![before; 10].join(", ")));
    }
    let text = lines.join("\n");
    assert_eq!(shape(&text), [(1, 1, false)]);
}

/// Counted, not timed: a text is looked through once, and what is broken in it at most once more.
#[test]
fn every_text_is_read_a_bounded_number_of_times() {
    for (what, unit) in [
        ("values", "{\"a\": 1}\n"),
        ("values in a line", "{\"a\": 1} "),
        ("braces", "{\n"),
        ("lists without an end", "{\"a\": [\n"),
        ("a list without an end", "{\"a\": [0]},\n"),
        ("broken values", "{\"a\": nope}\n"),
    ] {
        for count in [1000, 2000, 4000] {
            let text = format!("{{\"a\": [\n{}", unit.repeat(count));
            for text in [&text, &unit.repeat(count)] {
                let mut json = Json::new(text);
                let mut read = 0;
                while json.at < text.len() {
                    let begin = json.at;
                    let length = tree::json(text[begin..].trim_start(), &mut ()).1;
                    if json.next(&|_| ()).is_none() {
                        break;
                    }
                    assert!(json.at > begin, "{what}: it goes on");
                    read += length;
                }
                assert!(read <= 2 * text.len() + 1, "{what}: {read} of {}", text.len());
                let lines = 1 + text[..json.at].matches('\n').count();
                assert_eq!(json.line, lines, "{what}: counted on the way");
            }
        }
    }
}
