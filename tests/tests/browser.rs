//! The status page in a real browser: what a person must see in each state of a node, in a light and a dark
//! scheme, on a desk and on a phone; with the keyboard alone; with axe, which looks for what keeps people out.
//! The pictures are left in `target/browser`.

#![allow(clippy::unwrap_used, reason = "what fails outside of a test function fails the test, too")]

#[path = "browser/driver.rs"]
mod driver;
#[path = "browser/node.rs"]
mod node;

use std::path::{Path, PathBuf};

use proxier_tests::daemon::Scratch;
use serde_json::{Value, json};

use self::driver::Browser;
use self::node::{DRAINING, HOSTILE, Node, State};

/// What the keyboard is on: the name of a field, or the text of a link.
const FOCUS: &str = "const at = document.activeElement;
    return at === document.body ? 'nothing' : at.getAttribute('name') ?? at.textContent.trim()";
const TAB: &str = "\u{e004}";
const ENTER: &str = "\u{e007}";
const DOWN: &str = "\u{e015}";

/// As `.ci/run` installs it: `npm install --prefix target/axe axe-core@4.11.0`.
const AXE: &str = "target/axe/node_modules/axe-core/axe.min.js";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn picture(name: &str) -> PathBuf {
    root().join("target/browser").join(name)
}

/// Waits until a script says that it is so; what is seen is in the error.
fn until(browser: &Browser, what: &str) {
    let script = format!("return document.readyState === 'complete' && Boolean({what})");
    for _ in 0..50_000 {
        if browser.script(&script).ok() == Some(true.into()) {
            return;
        }
    }
    panic!("it does not become true that {what}: {}", browser.text().unwrap());
}

/// The names of the services, from above.
fn services(browser: &Browser) -> Vec<String> {
    let script =
        "return [...document.querySelectorAll('tr[data-key]')].map(row => row.dataset.key)";
    serde_json::from_value(browser.script(script).unwrap()).unwrap()
}

/// The colour of the page's paper, and that of its ink, as sums of red, green and blue.
fn colours(browser: &Browser) -> (i64, i64) {
    let script = "const style = getComputedStyle(document.body);
        const sum = (colour) => colour.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + Number(b), 0);
        return [sum(style.backgroundColor), sum(style.color)]";
    let sums = browser.script(script).unwrap();
    (sums[0].as_i64().unwrap(), sums[1].as_i64().unwrap())
}

/// Nothing is wider than the window, and no table than its box: no one has to scroll sideways.
fn fits(browser: &Browser) {
    let widths =
        browser.script("return [document.documentElement.scrollWidth, window.innerWidth]").unwrap();
    assert!(widths[0].as_i64() <= widths[1].as_i64(), "{widths}");
    let cut = "return [...document.querySelectorAll('.card')] \
               .filter(box => box.scrollWidth > box.clientWidth) \
               .map(box => [box.scrollWidth, box.clientWidth, box.innerText.slice(0, 60)])";
    assert_eq!(browser.script(cut).unwrap(), json!([]));
}

/// What axe finds, each with the element.
fn accessible(browser: &Browser, name: &str) {
    let axe = std::fs::read_to_string(root().join(AXE)).unwrap_or_else(|error| {
        panic!("{AXE}: {error}: npm install --no-save --ignore-scripts --prefix target/axe axe-core@4.11.0")
    });
    let script = format!(
        "{axe};\nreturn axe.run(document).then(found => ({{ passes: found.passes.length, \
         violations: found.violations.map(it => [it.id, it.help, it.nodes.map(node => node.html)]) }}))"
    );
    let found = browser.script(&script).unwrap();
    assert_eq!(found["violations"], json!([]), "{name}");
    assert!(found["passes"].as_u64().unwrap() > 15, "{name}: {found}");
}

/// The policy lets the page's own style and script in, and nothing was refused.
fn quiet(browser: &Browser, name: &str) {
    let console = browser.console().unwrap();
    let complaints: Vec<_> = console.iter().filter(|line| !line.contains("favicon")).collect();
    assert!(complaints.is_empty(), "{name}: {complaints:?}");
}

#[test]
#[ignore = "needs chromium, chromium-driver and axe-core: cargo test -p proxier-tests --test browser -- --ignored"]
fn every_state_can_be_seen_by_everyone() {
    let scratch = Scratch::create().unwrap();
    for (state, name, must, must_not) in [
        (
            State::InSync,
            "in-sync",
            &[
                "proxier on node-1",
                "in sync",
                "192.168.1.10",
                "iptables",
                "18 services",
                "default/empty",
                "10.96.90.3:80/tcp has no endpoints, connections are refused",
                "default/hello-service",
                "10.101.173.15:39090/tcp",
                "and 2 more",
                "node port",
                "Draining",
                DRAINING,
                "4,321",
                "4h59m",
                "KiB",
                "every 5 s",
                "connected",
            ][..],
            &["Needs attention", "Last errors"][..],
        ),
        (
            State::NeedsAttention,
            "needs-attention",
            &[
                "in sync, needs attention",
                "Needs attention",
                "No word of services from the API server; the last state stays.",
                "for 1h0m0s; the log says what the server answers",
            ],
            &["Last errors"],
        ),
        (
            State::NotInSync,
            "not-in-sync",
            // A hostile text is shown as it is, not as a tag.
            &["not in sync", "2 things cannot be programmed", "Last errors", HOSTILE],
            &[],
        ),
        (State::Empty, "empty", &["in sync", "No Service is proxied on this node."], &["Previous"]),
        (
            State::Large,
            "10000",
            &["10,000 services", "page", "of 200", "team-00/app-00000", "has no endpoints"],
            &["Needs attention"],
        ),
    ] {
        let node = Node::start(state);
        for (scheme, width) in [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390)] {
            let name = format!("{name}-{scheme}{}", if width < 400 { "-phone" } else { "" });
            let browser = Browser::start(&scratch.path().join(&name), scheme, width, 900).unwrap();
            browser.open(&node.address).unwrap();
            let text = browser.text().unwrap();
            let wide = ["node port", "10.101.173.15:39090/tcp", "and 2 more", "KiB"];
            for seen in must.iter().filter(|seen| width > 400 || !wide.contains(seen)) {
                assert!(text.contains(seen), "{name}: {seen:?} is not in\n{text}");
            }
            for hidden in must_not {
                assert!(!text.contains(hidden), "{name}: {hidden:?} is in\n{text}");
            }
            assert_eq!(browser.script("return document.querySelectorAll('b').length").unwrap(), 0);
            let (paper, ink) = colours(&browser);
            assert_eq!(paper < ink, scheme == "dark", "{name}: paper {paper}, ink {ink}");
            fits(&browser);
            accessible(&browser, &name);
            if matches!(state, State::InSync | State::Large) {
                // Trends come with time.
                browser.open(&format!("{}/status?refresh=1&sort=bytes", node.address)).unwrap();
                until(&browser, "document.querySelector('.trend polyline')?.points.length > 5");
            }
            browser.picture(&picture(&format!("{name}.png"))).unwrap();
            quiet(&browser, &name);
        }
    }
}

#[test]
#[ignore = "needs chromium, chromium-driver and axe-core: cargo test -p proxier-tests --test browser -- --ignored"]
fn the_keyboard_is_enough() {
    let scratch = Scratch::create().unwrap();
    let node = Node::start(State::InSync);
    let browser = Browser::start(&scratch.path().join("keyboard"), "light", 1280, 900).unwrap();
    browser.open(&format!("{}/status?refresh=1", node.address)).unwrap();
    let focus = || browser.script(FOCUS).unwrap().as_str().unwrap().to_owned();
    let tab_to = |wanted: &str| {
        let mut stops = Vec::new();
        while !focus().starts_with(wanted) {
            browser.keys(&[TAB]).unwrap();
            stops.push(focus());
            assert!(stops.len() < 60, "{wanted}: {stops:#?}");
        }
        stops
    };
    let first = tab_to("q");
    assert_eq!(first[0], "Skip to the services");
    assert!(first.contains(&"Pause".to_owned()), "{first:?}");
    let outline =
        browser.script("return getComputedStyle(document.activeElement).outlineStyle").unwrap();
    assert_eq!(outline, "solid", "where the keyboard is can be seen");

    // A row: its link opens and closes it, and keeps the focus while the page looks again.
    tab_to("default/hello-service");
    browser.keys(&[ENTER]).unwrap();
    until(&browser, "document.querySelector('tr.open pre')");
    assert!(focus().starts_with("default/hello-service"), "{}", focus());
    let opened = browser.script("return document.querySelector('tr.open').innerText").unwrap();
    let opened = opened.as_str().unwrap();
    for seen in [
        "10.244.0.41:9090",
        "hello-service-6d5f7c9b8-x7k2m",
        "node-1",
        "this node",
        "used, local",
        "draining: it keeps the connections that it has",
        DRAINING,
        "2,468",
        "999,999 connections so far",
        "proxier explain default/hello-service",
        "Service default/hello-service",
        "IPv4 endpoints, seen from node node-1:",
    ] {
        assert!(opened.contains(seen), "{seen:?} is not in\n{opened}");
    }
    until(
        &browser,
        "document.querySelector('tr.open') && document.querySelector('.trend polyline')?.points.length > 4",
    );
    assert!(focus().starts_with("default/hello-service"), "{}", focus());
    accessible(&browser, "opened");
    fits(&browser);
    browser.picture(&picture("opened.png")).unwrap();
    // The same for who comes with the address alone.
    let address = browser.script("return location.href").unwrap();
    assert!(address.as_str().unwrap().contains("open=default%2Fhello-service"), "{address}");
    browser.keys(&[ENTER]).unwrap();
    until(&browser, "!document.querySelector('tr.open')");

    // Filters: typed, and chosen from a list.
    browser.open(&node.address).unwrap();
    tab_to("q");
    browser.keys(&["m", "y", "s", "q", "l", ENTER]).unwrap();
    until(
        &browser,
        "location.search.includes('q=mysql') && document.querySelectorAll('tr[data-key]').length === 3",
    );
    assert!(browser.text().unwrap().contains("3 services"));
    browser.open(&node.address).unwrap();
    tab_to("namespace");
    browser.keys(&[DOWN]).unwrap();
    until(&browser, "location.search.includes('namespace=business-manager')");
    until(&browser, "document.querySelectorAll('tr[data-key]').length === 2");
    browser.open(&node.address).unwrap();
    tab_to("only");
    browser.keys(&[DOWN]).unwrap();
    until(&browser, "location.search.includes('only=problem')");
    until(&browser, "document.querySelectorAll('tr[data-key]').length === 1");
    assert_eq!(services(&browser), ["default/empty"]);
    for (only, wanted) in [("no-endpoints", "default/empty"), ("draining", "default/hello-service")]
    {
        browser.open(&format!("{}/status?only={only}", node.address)).unwrap();
        assert_eq!(services(&browser), [wanted]);
    }

    // Sorting, by the heads of the columns.
    browser.open(&node.address).unwrap();
    tab_to("Service");
    browser.keys(&[ENTER]).unwrap();
    until(&browser, "document.querySelector('th[aria-sort=ascending]')");
    let names = services(&browser);
    assert!(names.is_sorted() && names[0].starts_with("business-manager/"), "{names:?}");
    browser.keys(&[ENTER]).unwrap();
    until(&browser, "document.querySelector('th[aria-sort=descending]')");
    assert!(services(&browser).iter().rev().is_sorted());
    quiet(&browser, "keyboard");
}

#[test]
#[ignore = "needs chromium, chromium-driver and axe-core: cargo test -p proxier-tests --test browser -- --ignored"]
fn ten_thousand_services_are_of_use() {
    let scratch = Scratch::create().unwrap();
    let node = Node::start(State::Large);
    let browser = Browser::start(&scratch.path().join("large"), "light", 1280, 900).unwrap();
    browser.open(&node.address).unwrap();
    // The problems first, whatever their names.
    assert_eq!(services(&browser).len(), 50);
    assert!(services(&browser).iter().all(|name| name.ends_with("00")), "{:?}", services(&browser));
    // The busiest of all, not of a page.
    let click = |selector: &str| {
        browser.script(&format!("document.querySelector({selector:?}).click()")).unwrap();
    };
    click("th.number a[href*='sort=bytes']");
    until(&browser, "document.querySelector('th[aria-sort=descending]')");
    let busiest = services(&browser);
    assert!(busiest.iter().all(|name| name.contains("/app-09")), "{busiest:?}");
    // To a page, by its number.
    browser.script("const field = document.querySelector('nav input[name=page]'); field.value = 137; field.form.requestSubmit()").unwrap();
    until(
        &browser,
        "location.search.includes('page=137') && document.querySelector('nav input[name=page]').getAttribute('value') === '137'",
    );
    assert_ne!(services(&browser), busiest);
    // One of them all, in full.
    browser.open(&format!("{}/status?q=app-04242&open=team-02%2Fapp-04242", node.address)).unwrap();
    let text = browser.text().unwrap();
    assert!(text.contains("1 service") && text.contains("app-04242-7d4b9c-x2k4p"), "{text}");
    browser.picture(&picture("search.png")).unwrap();
}

/// What the server sends can be read as it is: no script has to run for it.
#[test]
#[ignore = "needs chromium, chromium-driver and axe-core: cargo test -p proxier-tests --test browser -- --ignored"]
fn all_can_be_read_without_scripts() {
    let scratch = Scratch::create().unwrap();
    let node = Node::start(State::NotInSync);
    let browser = Browser::start(&scratch.path().join("plain"), "light", 1280, 900).unwrap();
    browser.without_scripts().unwrap();
    browser.open(&format!("{}/status?open=default%2Fhello-service", node.address)).unwrap();
    let text = browser.text().unwrap();
    for seen in [HOSTILE, "18 services", "used, local", "IPv4 endpoints, seen from", "Refresh"] {
        assert!(text.contains(seen), "{seen:?} is not in\n{text}");
    }
    assert!(!text.contains("every 5 s") && !text.contains("Pause"), "{text}");
    let shown: Value =
        browser.script("return document.querySelectorAll('.trend polyline').length").unwrap();
    assert_eq!(shown, 0);
}
