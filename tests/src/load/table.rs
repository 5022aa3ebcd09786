//! The report as a table.

use std::fmt::Write as _;

use serde_json::Value;

/// One line of the table: what it says of the report of a size.
type Line = (&'static str, fn(&Value) -> Option<String>);

const LINES: [Line; 20] = [
    ("messages to an empty kernel", |r| number(&r["programming"]["writes"], 0)),
    ("floor: those messages, s", |r| number(&r["floor"]["seconds"], 3)),
    ("a page touched for the first time, us", |r| {
        number(&r["floor"]["runs"][0]["page_microseconds"], 1)
    }),
    ("netlink part, x floor", |r| number(&r["ratios"]["netlink"], 2)),
    ("lists complete to all programmed, x floor", |r| number(&r["ratios"]["all"], 2)),
    ("  of it iptables, s", |r| number(&r["programming"]["firewall_seconds"], 3)),
    ("resident memory then, MiB", |r| mebibytes(&r["memory"]["resident_kib"])),
    ("  of it no file, MiB", |r| mebibytes(&r["memory"]["anonymous_kib"])),
    ("  most ever, MiB", |r| mebibytes(&r["memory"]["most_kib"])),
    ("one endpoint: netlink messages", |r| number(&r["change"]["netlink_messages"], 1)),
    ("  system calls", |r| number(&r["change"]["syscalls"], 1)),
    ("  of them netlink", |r| number(&r["change"]["netlink_calls"], 1)),
    ("  services computed", |r| number(&r["change"]["services_computed"], 2)),
    ("  processes started in 100 changes", |r| number(&r["change"]["processes"], 0)),
    ("  CPU, ms", |r| number(&r["change"]["cpu_milliseconds"], 2)),
    ("  event to kernel p50 / p99, ms", |r| latency(&r["change"]["latency"])),
    ("  in the kernel alone, after as many, ms", |r| {
        number(&r["floor"]["runs"][1]["change_milliseconds"], 3)
    }),
    ("idle CPU, ms a second", |r| {
        let (cpu, seconds) = (&r["idle"]["cpu_seconds"], &r["idle"]["seconds"]);
        Some(format!("{:.1}", cpu.as_f64()? * 1000.0 / seconds.as_f64()?))
    }),
    ("restart: writes", |r| number(&r["restart"]["writes"], 0)),
    ("  first step, s", |r| number(&r["restart"]["step_seconds"], 2)),
];

/// The reports of all sizes side by side, in Markdown, and below it many changes and the larger
/// events.
pub fn table(reports: &[Value]) -> String {
    let mut out = String::from("| services x endpoints |");
    for report in reports {
        let backend = match report["backend"].as_str() {
            None | Some("iptables") => String::new(),
            Some(other) => format!(" {other}"),
        };
        let _ = write!(out, " {} x {}{backend} |", report["services"], report["endpoints"]);
    }
    let _ = write!(out, "\n| --- |{}\n", " --: |".repeat(reports.len()));
    for (name, value) in LINES {
        let cells: Vec<Option<String>> = reports.iter().map(value).collect();
        if cells.iter().all(Option::is_none) {
            continue;
        }
        let cells: Vec<String> =
            cells.into_iter().map(|cell| format!(" {} |", cell.unwrap_or_default())).collect();
        let _ = writeln!(out, "| {name} |{}", cells.concat());
    }
    for report in reports {
        out.push_str(&churn(report).unwrap_or_default());
        let Some(profiles) = report["profiles"].as_object() else { continue };
        let _ = write!(
            out,
            "\n| {} x {} | s | CPU s | writes | steps | most memory, MiB |\n| --- | --: | --: | --: | --: | --: |\n",
            report["services"], report["endpoints"]
        );
        for (name, profile) in profiles {
            let cell = |field: &str, digits| number(&profile[field], digits).unwrap_or_default();
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | {} | {} |",
                name.replace('_', " "),
                cell("seconds", 2),
                cell("cpu_seconds", 2),
                cell("writes", 0),
                cell("steps", 0),
                mebibytes(&profile["most_kib"]).unwrap_or_default(),
            );
        }
    }
    out
}

/// Many changes: a line for each rate.
fn churn(report: &Value) -> Option<String> {
    let mut out = format!(
        "\n| {} x {}, changes a second | made | lost | event to kernel p50, ms | p99, ms | CPU, cores | resident memory, MiB |\n| --: | --: | --: | --: | --: | --: | --: |\n",
        report["services"], report["endpoints"]
    );
    for run in report["churn"].as_array()? {
        let seconds = run["seconds"].as_f64()?;
        let _ = writeln!(
            out,
            "| {} | {:.0} | {} | {} | {} | {:.2} | {} |",
            run["asked_for_a_second"],
            run["changes"].as_f64()? / seconds,
            run["lost"],
            number(&run["latency"]["p50_milliseconds"], 1)?,
            number(&run["latency"]["p99_milliseconds"], 1)?,
            run["cpu_seconds"].as_f64()? / seconds,
            mebibytes(&run["resident_kib"])?,
        );
    }
    Some(out)
}

/// How long it takes to connect: a line for each backend.
pub fn connections(reports: &[Value]) -> Option<String> {
    let mut out = String::from("\n| to connect, p50 / p99 in ms |");
    let places = |report: &Value| report["took"].as_array().cloned().unwrap_or_default();
    let first = places(reports.first()?);
    for place in &first {
        let _ = write!(out, " {} |", place["to"].as_str()?);
    }
    let _ = writeln!(out, "\n| --- |{}", " --: |".repeat(first.len()));
    for report in reports {
        let _ = write!(out, "| {} |", report["backend"].as_str()?);
        for place in places(report) {
            let _ = write!(out, " {} / {} |", number(&place["p50"], 3)?, number(&place["p99"], 3)?);
        }
        out.push('\n');
    }
    Some(out)
}

fn number(value: &Value, digits: usize) -> Option<String> {
    let value = value.as_f64()?;
    Some(format!("{value:.digits$}"))
}

fn mebibytes(kib: &Value) -> Option<String> {
    Some(format!("{:.1}", kib.as_f64()? / 1024.0))
}

fn latency(value: &Value) -> Option<String> {
    let of = |name: &str| number(&value[name], 1);
    Some(format!("{} / {}", of("p50_milliseconds")?, of("p99_milliseconds")?))
}
