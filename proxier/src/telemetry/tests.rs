use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::*;

fn logging(verbosity: u32, vmodule: &[(&str, u32)]) -> Logging {
    let vmodule = vmodule.iter().map(|(pattern, v)| ((*pattern).to_owned(), *v)).collect();
    Logging { format: LogFormat::Text, verbosity, vmodule }
}

/// Collects what is written.
#[derive(Debug, Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink {
    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
    }

    fn writer(&self) -> impl for<'a> MakeWriter<'a> + Send + Sync + 'static {
        let sink = self.clone();
        move || sink.clone()
    }
}

#[test]
fn verbosity_decides_the_level_of_ours_and_of_libraries() {
    for (verbosity, own, library) in [
        (0, LevelFilter::INFO, LevelFilter::WARN),
        (1, LevelFilter::INFO, LevelFilter::WARN),
        (2, LevelFilter::DEBUG, LevelFilter::WARN),
        (4, LevelFilter::TRACE, LevelFilter::INFO),
        (6, LevelFilter::TRACE, LevelFilter::DEBUG),
        (10, LevelFilter::TRACE, LevelFilter::TRACE),
    ] {
        let logging = logging(verbosity, &[]);
        assert_eq!(most(&logging, "proxier::reconcile", None), own, "{verbosity}");
        assert_eq!(most(&logging, "netlink_ipvs", None), own, "{verbosity}");
        assert_eq!(most(&logging, "kube_runtime::watcher", None), library, "{verbosity}");
        assert_eq!(most(&logging, "proxier_like", None), library, "{verbosity}");
        assert_eq!(most(&logging, MUTED, None), LevelFilter::OFF, "{verbosity}");
    }
}

#[test]
fn vmodule_goes_by_source_file_first_match_wins() {
    let logging = logging(0, &[("plan", 2), ("p*n", 4), ("proxier/src/k?rnel", 9), ("bu*r", 8)]);
    let most = |target, file| most(&logging, target, Some(file));
    assert_eq!(most("proxier", "proxier/src/dataplane/plan.rs"), LevelFilter::DEBUG);
    assert_eq!(most("proxier", "proxier/src/pn.rs"), LevelFilter::TRACE);
    assert_eq!(most("proxier", "proxier/src/kernel.rs"), LevelFilter::TRACE);
    assert_eq!(most("proxier", "src/kernel.rs"), LevelFilter::INFO);
    assert_eq!(most("proxier", "proxier/src/plans.rs"), LevelFilter::INFO);
    assert_eq!(most(MUTED, "src/client/builder.rs"), LevelFilter::TRACE);
}

#[test]
fn text_lines_have_no_colour_codes_outside_a_terminal() {
    let sink = Sink::default();
    let (subscriber, _) = subscriber(&logging(0, &[]), sink.writer(), false);
    tracing::subscriber::with_default(subscriber, || {
        tracing::info!(service = "dev/web", "programmed");
        tracing::debug!("detail");
    });
    let text = sink.take();
    assert!(text.contains(" INFO proxier::telemetry::tests: programmed service=\"dev/web\"\n"));
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(!text.contains('\u{1b}'), "{text}");
}

#[test]
fn json_lines_are_objects_with_the_fields_of_kubernetes_components() {
    let sink = Sink::default();
    let at = || UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(sink.writer())
        .event_format(json::Json::at(at as fn() -> SystemTime));
    let subscriber = tracing_subscriber::registry().with(lines);
    let cause = io::Error::new(io::ErrorKind::NotFound, "no \"file\"");
    let error = TelemetryError { action: "open", source: cause.into() };
    let line = line!() + 2;
    tracing::subscriber::with_default(subscriber, || {
        tracing::info!(services = 3, ok = true, name = %"dev/web", "synced {}", "all");
        tracing::error!(error = &error as &dyn Error, "cannot log");
        tracing::trace!("step");
    });
    let text = sink.take();
    let [info, failure, step] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
    assert_eq!(
        info,
        format!(
            "{{\"ts\":1700000000123.456,\"caller\":\"tests.rs:{line}\",\"level\":\"info\",\
             \"msg\":\"synced all\",\"v\":0,\"services\":3,\"ok\":true,\"name\":\"dev/web\"}}"
        )
    );
    let failure: serde_json::Value = serde_json::from_str(failure).unwrap();
    assert_eq!(failure["err"], "cannot open the log: no \"file\"");
    assert_eq!(failure["level"], "error");
    assert!(failure.get("v").is_none());
    let step: serde_json::Value = serde_json::from_str(step).unwrap();
    assert_eq!(step["v"], 4);
}

#[test]
fn verbosity_changes_while_running() {
    let sink = Sink::default();
    let (subscriber, handle) = subscriber(&logging(0, &[]), sink.writer(), false);
    tracing::subscriber::with_default(subscriber, || {
        let detail = || tracing::debug!("detail");
        detail();
        assert_eq!(sink.take(), "");
        handle.apply(&logging(2, &[])).unwrap();
        detail();
        assert!(sink.take().contains("detail"));
        handle.apply(&logging(0, &[])).unwrap();
        detail();
        assert_eq!(sink.take(), "");
    });
}

#[test]
fn what_is_repeated_is_not_written_again() {
    for format in [LogFormat::Text, LogFormat::Json] {
        let sink = Sink::default();
        let logging = Logging { format, ..logging(0, &[]) };
        let (subscriber, _) = subscriber(&logging, sink.writer(), false);
        tracing::subscriber::with_default(subscriber, || {
            for n in 0..100 {
                tracing::warn!(op = "bind 10.96.0.1", failures = n, "failed");
                tracing::info!("programmed");
            }
            for n in 0..100 {
                tracing::error!(n, "failed");
            }
        });
        let text = sink.take();
        assert_eq!(text.matches("bind 10.96.0.1").count(), 1, "{text}");
        assert_eq!(text.matches("programmed").count(), 100, "real changes are never left out");
        assert_eq!(text.matches("failed").count(), 1 + 30, "{text}");
    }
}

/// Whatever a name, a server or a library says.
#[test]
fn a_line_stays_a_line_and_obeys_nobody() {
    let evil = "x\n2026-01-01T00:00:00Z  INFO proxier: ready\u{1b}[2J\u{202e}\r\u{9b}31m";
    for format in [LogFormat::Text, LogFormat::Json] {
        for colour in [false, true] {
            let sink = Sink::default();
            let logging = Logging { format, ..logging(9, &[]) };
            let (subscriber, _) = subscriber(&logging, sink.writer(), colour);
            tracing::subscriber::with_default(subscriber, || {
                let cause = io::Error::other(evil);
                let error = TelemetryError { action: "open", source: cause.into() };
                tracing::warn!(a = evil, b = %evil, c = ?evil, "{evil}");
                tracing::info!(error = &error as &dyn Error, raw = ?format_args!("{evil}"), "{evil}");
                tracing::debug!(a = "x".repeat(1_000_000), "{}", evil.repeat(100_000));
            });
            let text = sink.take();
            assert_eq!(text.lines().count(), 3, "{text}");
            assert!(text.len() < 20_000, "{} bytes", text.len());
            let own =
                ["\u{1b}[0m", "\u{1b}[2m", "\u{1b}[3m", "\u{1b}[32m", "\u{1b}[33m", "\u{1b}[34m"];
            let rest = own.iter().fold(text.clone(), |text, own| text.replace(own, ""));
            assert!(colour || rest == text);
            assert!(rest.chars().all(|c| c == '\n' || !c.is_control()), "{rest:?}");
            assert!(!rest.contains('\u{202e}'), "{rest:?}");
        }
    }
}

#[test]
fn a_command_writes_so_many_warnings_and_counts_the_rest() {
    let sink = Sink::default();
    let (subscriber, quiet) = quiet(sink.writer(), false);
    tracing::subscriber::with_default(subscriber, || {
        tracing::warn!("something else\u{1b}[2J");
        assert_eq!(quiet.left_out(), None);
        for n in 0..5000 {
            tracing::warn!(n, "conflict");
            tracing::warn!("again");
        }
    });
    let text = sink.take();
    assert_eq!(text.lines().next(), Some(" WARN something else\\u{1b}[2J"));
    assert_eq!(text.lines().count(), 1 + 200 + 1, "{text}");
    let left_out = quiet.left_out().unwrap();
    assert!(left_out.starts_with(&format!("{} more warnings", 4800 + 4999)), "{left_out}");
}
