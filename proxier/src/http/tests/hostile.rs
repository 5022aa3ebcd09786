//! Texts that others wrote, on every page.

use proptest::prelude::*;

use super::*;
use crate::config::ServiceMetrics;
use crate::dataplane::Conflict;

/// A server whose every text is this, and what it answers at each of its paths.
async fn answers(text: &str) -> Vec<(String, String)> {
    let key = || ObjectKey::new(text, text);
    let virtual_server = page::virtual_server(1);
    let mut asks = page::asks(1, &[5]);
    asks.frontends[0].port = text.into();
    let conflict = Conflict { key: virtual_server, winner: key(), losers: vec![key()], more: 1 };
    let no_local = crate::dataplane::NoLocal { internal: vec![Family::Ipv4], external: vec![] };
    let status = Status {
        errors: Arc::new([text.to_owned()].into()),
        observe_error: Some(text.to_owned()),
        conflicts: [(virtual_server, conflict)].into_iter().collect(),
        no_local: [(key(), no_local)].into_iter().collect(),
        ..page::with_services([(key(), asks)])
    };
    let config = Config {
        statusz: true,
        flagz: true,
        node_name: text.into(),
        service_metrics: ServiceMetrics::All,
        ..config()
    };
    let refused = Some(Refused { since: Instant::now(), why: text.to_owned() });
    let current = Current { refused, ..Current::new(Arc::new(config)) };
    let (_publish, status) = publish(status);
    let failing = text.to_owned();
    let failing: Table = Arc::new(move |_| Err(failing.clone()));
    let mut answers = Vec::new();
    for table in [page::table(&[5]), failing] {
        let current = watch::channel(Arc::new(current.clone())).1;
        let status = status.clone();
        let servers =
            serve(Sources { table: Some(table), ..Sources::new(current, status) }).await.unwrap();
        let address = servers.metrics_address().unwrap();
        for path in [
            "/status",
            "/status?q=%1b%E2%80%AE%0AFORGED",
            "/status.json",
            "/status.json?q=%1b%E2%80%AE%0AFORGED",
            "/metrics",
            "/statusz",
            "/flagz",
            "/configz",
            "/%1b%E2%80%AE",
        ] {
            answers.push((path.to_owned(), get(address, path).await));
        }
    }
    answers
}

fn check(path: &str, answer: &str) {
    for c in answer.chars() {
        let invisible = matches!(c,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{ad}');
        assert!(
            matches!(c, '\n' | '\r') || !(c.is_control() || invisible),
            "{path}: {c:?}: {answer:?}"
        );
    }
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(!body.contains('\r'), "{path}: {body:?}");
    assert!(!body.lines().any(|line| line.trim_start().starts_with("FORGED")), "{path}: {body}");
}

#[tokio::test(start_paused = true)]
async fn no_page_shows_them_as_they_are() {
    let evil = "e\u{1b}[2J\r\nFORGED\n\u{202e}\u{2066}\u{200b}\u{9b}31m\u{7f}\u{2028}\0<b>\"'&";
    for (path, answer) in answers(evil).await {
        check(&path, &answer);
        let expected = if path.contains('%') && path.len() < 14 { "404" } else { "200" };
        assert_eq!(code(&answer), expected, "{path}");
    }
}

/// A name of a megabyte is not a megabyte wherever it is shown.
#[tokio::test(start_paused = true)]
async fn no_page_shows_all_of_a_long_one() {
    for (path, answer) in answers(&"x".repeat(1 << 20)).await {
        assert!(answer.len() < 100_000, "{path}: {} bytes", answer.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn no_text_finds_a_way_around(text in "(?s)(.|[\u{0}-\u{1f}\u{7f}-\u{9f}\u{2000}-\u{206f}]){1,40}") {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().start_paused(true).build().unwrap();
        for (path, answer) in runtime.block_on(answers(&text)) {
            check(&path, &answer);
        }
    }
}
