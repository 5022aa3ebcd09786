//! Text of a manifest as documents, each of which stands or falls alone.

use serde_json::Value;

/// One document of a file.
#[derive(Debug, PartialEq)]
pub(super) struct Document {
    /// Counted from 1.
    pub(super) number: usize,
    /// Line on which it begins, from 1.
    pub(super) line: usize,
    /// Its content, or what is wrong with it.
    pub(super) content: Result<Value, String>,
}

/// The documents of a file, empty ones left out.
pub(super) fn documents(text: &str) -> Vec<Document> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut documents = if text.trim_start().starts_with('{') { json(text) } else { yaml(text) };
    for (n, document) in documents.iter_mut().enumerate() {
        document.number = n + 1;
    }
    documents
}

/// JSON values one after the other. After a broken one reading goes on at the next line that
/// begins with a brace.
fn json(text: &str) -> Vec<Document> {
    let mut documents = Vec::new();
    let mut start = 0;
    while let Some(rest) = text.get(start..).filter(|rest| !rest.trim().is_empty()) {
        let begin = start + (rest.len() - rest.trim_start().len());
        let line = line_of(text, begin);
        let mut values = serde_json::Deserializer::from_str(&text[begin..]).into_iter::<Value>();
        let Some(content) = values.next() else { break };
        start = match &content {
            Ok(_) => begin + values.byte_offset(),
            Err(_) => text[begin + 1..].find("\n{").map_or(text.len(), |at| begin + 1 + at + 1),
        };
        let content = content.map_err(|error| {
            format!("line {}: {}", line + error.line().saturating_sub(1), without_position(&error))
        });
        documents.push(Document { number: 0, line, content });
    }
    documents
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text[..offset].matches('\n').count()
}

/// Without the position that `serde_json` appends, which counts from the start of the document.
fn without_position(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rfind(" at line ").map_or(text.as_str(), |at| &text[..at]).to_owned()
}

/// YAML documents, separated by lines that begin with `---`.
fn yaml(text: &str) -> Vec<Document> {
    let mut documents = Vec::new();
    let mut start = 0;
    let mut first_line = 1;
    let mut position = 0;
    for (lines, line) in text.split_inclusive('\n').enumerate() {
        let separator = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        if separator && position > start {
            push_yaml(&text[start..position], first_line, &mut documents);
            start = position;
            first_line = lines + 1;
        }
        position += line.len();
    }
    push_yaml(&text[start..], first_line, &mut documents);
    documents
}

fn push_yaml(text: &str, line: usize, documents: &mut Vec<Document>) {
    let is_empty = text.lines().all(|line| {
        let line = line.strip_prefix("---").unwrap_or(line).trim();
        line.is_empty() || line.starts_with(['#', '%']) || line == "..."
    });
    if is_empty {
        return;
    }
    let content = parse_yaml(text).map_err(|(at, message)| match at {
        Some(at) => format!("line {}: {message}", line + at.saturating_sub(1)),
        None => message,
    });
    if content != Ok(Value::Null) {
        documents.push(Document { number: 0, line, content });
    }
}

/// The only place that knows the YAML library. The error is one line, with the line it is about.
fn parse_yaml(text: &str) -> Result<Value, (Option<usize>, String)> {
    // The library's limits on size would refuse a list of some thousand Services. No text has
    // more nodes than characters, so these leave only what aliases would multiply to be refused.
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: text.len() * 2 + 100,
            max_nodes: text.len() + 100,
            max_total_scalar_bytes: text.len() + 100,
        },
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let error = error.without_snippet();
        let line = error.location().and_then(|location| usize::try_from(location.line()).ok());
        (line, error.to_string().lines().next().unwrap_or_default().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(text: &str) -> Vec<(usize, usize, bool)> {
        documents(text).iter().map(|d| (d.number, d.line, d.content.is_ok())).collect()
    }

    #[test]
    fn a_broken_yaml_document_does_not_cost_the_others() {
        let text = "a: 1\n---\n# nothing\n---\nb: [1,\nc: }\n--- \nd: |\n  text\n  ---\n---\n";
        assert_eq!(shape(text), [(1, 1, true), (2, 4, false), (3, 7, true)]);
    }

    #[test]
    fn an_error_names_its_line_in_the_file() {
        let documents = documents("a: 1\n---\nb: 2\nc: [\n");
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
        let error = documents("{}\n{\n\"x\": nope}").pop().unwrap().content.unwrap_err();
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
}
