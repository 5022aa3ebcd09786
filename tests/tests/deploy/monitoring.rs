//! `deploy/monitoring` and `docs/metrics.md` speak of metrics that the program exports.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;

use serde_json::Value;

use super::{documents, read, root};

/// What the program exports, as its own test records it.
const EXPORTED: &str = "proxier/src/http/tests/metrics.txt";
const DASHBOARD: &str = "deploy/monitoring/dashboard.json";
/// The part of `docs/metrics.md` that is generated.
const DOCUMENT: &str = "docs/metrics.md";
const TABLE: (&str, &str) = ("<!-- table -->\n", "<!-- end of table -->\n");

#[derive(Default)]
struct Metric {
    kind: String,
    help: String,
    labels: BTreeSet<String>,
}

#[test]
fn alerts_and_dashboard_use_metrics_and_labels_that_are_exported() {
    let exported = exported();
    let expressions = alert_expressions().into_iter().chain(dashboard_expressions());
    let mut used = 0;
    for expression in expressions {
        for name in words(&expression).filter(|word| is_metric(word)) {
            used += 1;
            assert!(series(&exported, name).is_some(), "{name} is not exported: {expression}");
        }
        for label in selected(&expression) {
            let known = exported.values().any(|metric| metric.labels.contains(&label));
            assert!(known || PROMETHEUS.contains(&label.as_str()), "{label}: {expression}");
        }
    }
    assert!(used > 20);
}

/// Labels that Prometheus or its configuration gives.
const PROMETHEUS: [&str; 3] = ["instance", "job", "le"];

#[test]
fn the_dashboard_is_one() {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut ids = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "two panels have the id of {title}");
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{title} does not fit into the 24 columns");
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(taken.insert((x, y)), "{title} lies over another panel");
            }
        }
        if panel["type"] == "row" {
            continue;
        }
        assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        assert!(!panel["description"].as_str().unwrap().is_empty(), "{title}");
        assert!(!panel["fieldConfig"]["defaults"]["unit"].as_str().unwrap().is_empty(), "{title}");
        assert!(!panel["targets"].as_array().unwrap().is_empty(), "{title}");
    }
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    let names: Vec<_> = variables.iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["datasource", "job", "instance"]);
}

/// Who is woken by an alert gets to where it says what to do.
#[test]
fn every_alert_has_a_section_of_its_own_in_the_runbook() {
    let workspace = read("Cargo.toml");
    let repository = workspace.lines().find_map(|line| line.strip_prefix("repository = "));
    let documents_at = format!("{}/blob/main/docs", repository.unwrap().trim_matches('"'));
    let runbook = read("docs/alerts.md");
    let mut sections: BTreeSet<String> =
        runbook.lines().filter_map(|line| line.strip_prefix("## ")).map(str::to_owned).collect();
    let rules = &documents("deploy/monitoring/alerts.yaml")[0]["groups"][0]["rules"];
    for rule in rules.as_array().unwrap() {
        let name = rule["alert"].as_str().unwrap();
        assert_eq!(
            rule["annotations"]["runbook_url"],
            format!("{documents_at}/alerts.md#{}", name.to_lowercase()),
            "{name}"
        );
        assert!(sections.remove(name), "docs/alerts.md has no section {name}");
    }
    assert!(sections.is_empty(), "docs/alerts.md: no such alerts: {sections:?}");
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    let links = dashboard["links"].as_array().unwrap();
    assert!(!links.is_empty());
    for link in links {
        let file = link["url"].as_str().unwrap().strip_prefix(&documents_at).unwrap();
        assert!(!read(&format!("docs{file}")).is_empty(), "{link}");
    }
}

/// One table names each node with each reason to look at it, and leads there.
#[test]
fn the_dashboard_names_the_nodes_that_need_a_look() {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let panel = |title: &str| panels.iter().find(|panel| panel["title"] == title).unwrap();
    let look = panel("Nodes that need a look");
    assert_eq!((&look["type"], &panel("Versions")["type"]), (&"table".into(), &"table".into()));
    let expression = look["targets"][0]["expr"].as_str().unwrap();
    for metric in ["up", "synced", "held_back", "drift_total", "needs_attention"] {
        assert!(
            words(expression).any(|word| word.trim_start_matches("proxier_") == metric),
            "{metric}"
        );
    }
    assert_eq!(expression.matches("\"why\"").count(), expression.matches("\nor ").count() + 1);
    // What promtool evaluates.
    let tested = &documents("deploy/monitoring/dashboard-test.yaml")[0]["tests"][0];
    let tested = tested["promql_expr_test"][0]["expr"].as_str().unwrap().trim();
    assert_eq!(tested, expression.replace("$job", ".*").replace("$instance", ".*"));
    let link = &look["fieldConfig"]["overrides"][0]["properties"][0]["value"][0]["url"];
    assert_eq!(link, "http://${__data.fields.Node}/status");
}

#[test]
fn the_document_lists_every_metric_as_it_is_exported() {
    let mut table =
        String::from("| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n");
    for (name, Metric { kind, help, labels }) in exported() {
        let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
        let _ = writeln!(table, "| `{name}` | {kind} | {} | {help} |", labels.join(", "));
    }
    let document = read(DOCUMENT);
    let (before, rest) = document.split_once(TABLE.0).unwrap();
    let (_, after) = rest.split_once(TABLE.1).unwrap();
    let wanted = format!("{before}{}{table}{}{after}", TABLE.0, TABLE.1);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(root().join(DOCUMENT), &wanted).unwrap();
    } else {
        assert!(wanted == document, "{DOCUMENT} is out of date: UPDATE=1 writes it anew");
    }
}

/// The record has one of each: every name in the source is in it.
#[test]
fn the_record_is_complete() {
    let exported = exported();
    let source =
        read("proxier/src/http/metrics.rs") + &read("proxier/src/http/metrics/services.rs");
    let names: Vec<_> =
        source.split('"').skip(1).step_by(2).filter(|text| is_metric(text)).collect();
    assert!(names.len() > 40);
    for name in names {
        assert!(exported.contains_key(name), "{name} is not in {EXPORTED}");
    }
}

fn exported() -> BTreeMap<String, Metric> {
    let mut metrics = BTreeMap::<String, Metric>::new();
    for line in read(EXPORTED).lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            metrics.entry(name.to_owned()).or_default().help.push_str(help);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            metrics.entry(name.to_owned()).or_default().kind.push_str(kind);
        } else {
            let name = words(line).next().unwrap();
            let base = series(&metrics, name).unwrap().to_owned();
            let labels =
                line.split_once('{').map_or("", |(_, rest)| rest.split('}').next().unwrap());
            let names =
                labels.split(',').filter_map(|pair| pair.split_once('=')).map(|(name, _)| name);
            let of_histogram = metrics[&base].kind == "histogram";
            let names = names.filter(|name| !(of_histogram && *name == "le")).map(str::to_owned);
            metrics.get_mut(&base).unwrap().labels.extend(names);
        }
    }
    metrics
}

/// The metric that a series belongs to.
fn series<'a>(metrics: &'a BTreeMap<String, Metric>, name: &str) -> Option<&'a str> {
    let of = |name: &str| metrics.get_key_value(name);
    let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| {
        of(name.strip_suffix(end)?).filter(|(_, metric)| metric.kind == "histogram")
    });
    of(name)
        .filter(|(_, metric)| metric.kind != "histogram")
        .or(base)
        .map(|(name, _)| name.as_str())
}

fn alert_expressions() -> Vec<String> {
    let rules = &documents("deploy/monitoring/alerts.yaml")[0]["groups"][0]["rules"];
    let rules = rules.as_array().unwrap().iter();
    rules.map(|rule| rule["expr"].as_str().unwrap().to_owned()).collect()
}

/// Of the panels and of the variables.
fn dashboard_expressions() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&read(DASHBOARD)).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let queries = targets.map(|target| target["expr"].as_str().unwrap().to_owned());
    let variables = dashboard["templating"]["list"].as_array().unwrap().iter();
    let asked = variables.filter_map(|variable| variable["definition"].as_str().map(str::to_owned));
    queries.chain(asked).collect()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

fn is_metric(word: &str) -> bool {
    let begins = ["kubeproxy_", "proxier_", "process_"].iter().any(|start| word.starts_with(start));
    begins && words(word).eq([word])
}

/// Names of labels in the selectors of an expression: `{instance=~"$instance"}`.
fn selected(expression: &str) -> Vec<String> {
    let braces =
        expression.split('{').skip(1).map(|rest| rest.split('}').next().unwrap_or_default());
    let pairs = braces.flat_map(|inside| inside.split(','));
    let names = pairs.filter_map(|pair| pair.split(['=', '!']).next());
    names.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
}
