//! The status page in a real browser: what a person must see, in a light and a dark scheme, on a desk
//! and on a phone, with the keyboard alone. The pictures are left in `target/browser`.

#![allow(clippy::unwrap_used, reason = "what fails outside of a test function fails the test, too")]

#[path = "browser/driver.rs"]
mod driver;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use netlink_ipvs::{
    Connections, RealServer, RealServerConfig, RealServerEntry, RealServerKey, VirtualServer,
    VirtualServerEntry,
};
use proxier::args::Args;
use proxier::config::{Config, Host};
use proxier::http::{Counted, Current, Servers, Sources, Table, Watch, serve};
use proxier::memory::Memory;
use proxier::reconcile::{Draining, Event, Reconciler, Resolver, Status, Timing};
use proxier::settings::{Abilities, settings};
use proxier::source::files;
use proxier_tests::daemon::Scratch;
use tokio::sync::{oneshot, watch};

use self::driver::Browser;

/// What the keyboard is on: the kind of a field, or the text of a link.
const FOCUS: &str = "const at = document.activeElement;
    return at === document.body ? 'nothing' : at.getAttribute('type') ?? at.textContent";
const TAB: &str = "\u{e004}";
const ENTER: &str = "\u{e007}";

/// The servers of a node with the examples of `deploy`, in trouble, and with 60 services more.
struct Node {
    address: String,
    _end: oneshot::Sender<()>,
}

impl Node {
    fn start() -> Self {
        let (tell, address) = std::sync::mpsc::channel();
        let (end, ended) = oneshot::channel::<()>();
        std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (servers, _keep) = example().await;
                tell.send(servers.metrics_address().unwrap().to_string()).unwrap();
                let _ = ended.await;
            });
        });
        let address = address.recv().unwrap();
        Self { address: format!("http://{address}/"), _end: end }
    }
}

async fn example() -> (Servers, watch::Sender<Arc<Status>>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let scratch = Scratch::create().unwrap();
    let more: Vec<String> = (0..60)
        .map(|n| {
            format!(
                "---\napiVersion: v1\nkind: Service\nmetadata: {{name: app-{n:02}, namespace: shop}}\n\
                 spec: {{clusterIP: 10.97.0.{n}, ports: [{{port: 80}}]}}\n"
            )
        })
        .collect();
    let more = scratch.replace("more.yaml", more.concat()).unwrap();
    let loaded = files::load(&[root.join("deploy/examples"), more], "node-1").unwrap();
    let arguments = ["proxier", "--hostname-override=node-1", "--cluster-cidr=10.244.0.0/16"];
    let mut config = Config::load(&Args::parse_from(arguments).unwrap(), &Host).unwrap();
    config.metrics_bind = "127.0.0.1:0".parse().unwrap();
    config.healthz_bind = None;
    let config = Arc::new(config);

    let hour = Duration::from_hours(1);
    let timing = Timing {
        sync_period: hour,
        min_sync_period: Duration::ZERO,
        drain_timeout: hour,
        drain_check: hour,
    };
    let for_resolver = config.clone();
    let resolver =
        Resolver::new(move |node, host| settings(&for_resolver, &Abilities::default(), node, host));
    let (mut reconciler, status) = Reconciler::new(Memory::new(), resolver, timing);
    reconciler.take(Event::HostAddresses(vec!["192.168.1.10".parse().unwrap()]));
    loaded.changes.into_iter().for_each(|change| reconciler.take(change.into()));
    reconciler.step().await;

    let mut troubled = (**status.borrow()).clone();
    assert!(troubled.synced, "{:?}", troubled.errors);
    let servers = reconciler.desired().state().virtual_servers.clone();
    let (draining_at, _) =
        servers.iter().find(|(_, server)| server.real_servers.len() > 1).unwrap();
    let gone = RealServerKey::new("10.244.9.9".parse().unwrap(), 8080);
    let draining = Draining {
        virtual_server: *draining_at,
        real_server: gone,
        connections: 4321,
        deadline: tokio::time::Instant::now() + Duration::from_hours(5),
    };
    troubled.draining = [draining].into();
    Arc::make_mut(&mut troubled.errors)
        .push_back("bind 10.96.0.1: <b>no</b> & \"never\"".to_owned());
    let draining_at = *draining_at;

    // What the kernel would count: numbers that can be found again.
    let table: Table = Arc::new(move |keys| {
        let counted = keys.iter().filter_map(|key| {
            let wanted = servers.get(key)?;
            let mut all: Vec<RealServer> = wanted.real_servers.to_vec();
            if *key == draining_at {
                all.push(RealServer { key: gone, config: RealServerConfig::masquerade(0) });
            }
            let entry = |(n, server): (u32, RealServer)| {
                let mut entry = RealServerEntry::from(server);
                entry.connections = Connections { active: 100 + n, inactive: 7, persistent: 0 };
                entry.stats.connections = 123_456 + u64::from(n);
                entry
            };
            let config = wanted.config;
            let mut server = VirtualServerEntry::from(VirtualServer { key: *key, config });
            server.stats.connections = 999_999;
            let real_servers = (0..).zip(all).map(entry).collect();
            Some(Counted { server, real_servers, counts: true })
        });
        Ok(counted.collect())
    });
    let watches = || {
        let services = Watch {
            resource: "services",
            silence: Some(Duration::from_secs(12)),
            connected: true,
            events: 30,
            lists: 1,
            failures: 2,
        };
        let slices = Watch { resource: "endpointslices", connected: false, ..services.clone() };
        vec![services, slices]
    };
    let (publish, status) = watch::channel(Arc::new(troubled));
    let current = watch::channel(Arc::new(Current::new(config))).1;
    let sources = Sources {
        watches: Some(Arc::new(watches)),
        table: Some(table),
        ..Sources::new(current, status)
    };
    (serve(sources).await.unwrap(), publish)
}

fn picture(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    root.join("target/browser").join(name)
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
    let cut = "return [...document.querySelectorAll('.scroll')] \
               .filter(box => box.scrollWidth > box.clientWidth).map(box => [box.scrollWidth, box.clientWidth, box.innerText.slice(0, 60)])";
    assert_eq!(browser.script(cut).unwrap(), serde_json::json!([]));
}

#[test]
#[ignore = "needs chromium and chromium-driver: cargo test -p proxier-tests --test browser -- --ignored"]
fn the_status_page_in_a_browser() {
    let node = Node::start();
    let scratch = Scratch::create().unwrap();
    for (name, scheme, width) in [
        ("light", "light", 1100),
        ("dark", "dark", 1100),
        ("phone", "light", 390),
        ("phone-dark", "dark", 390),
    ] {
        let browser = Browser::start(&scratch.path().join(name), scheme, width, 900).unwrap();
        browser.open(&node.address).unwrap();
        let text = browser.text().unwrap();
        for seen in [
            "proxier on node-1",
            "in sync",
            "default/datarc-test-pod",
            "10.98.240.80:80/tcp",
            "node port",
            "cluster IP",
            "draining",
            "10.244.9.9:8080",
            "4321",
            "4h59m",
            "123456",
            "999999 connections so far",
            // A hostile text is shown as it is, not as a tag.
            "bind 10.96.0.1: <b>no</b> & \"never\"",
            "not connected",
            "page 1 of",
        ] {
            assert!(text.contains(seen), "{name}: {seen:?} is not in\n{text}");
        }
        assert_eq!(browser.script("return document.querySelectorAll('b').length").unwrap(), 0);
        let (paper, ink) = colours(&browser);
        assert_eq!(paper < ink, scheme == "dark", "{name}: paper {paper}, ink {ink}");
        fits(&browser);
        browser.picture(&picture(&format!("{name}.png"))).unwrap();
        // The policy lets its own style in and nothing was refused.
        let console = browser.console().unwrap();
        let complaints: Vec<_> = console.iter().filter(|line| !line.contains("favicon")).collect();
        assert!(complaints.is_empty(), "{name}: {complaints:?}");
    }

    // The keyboard alone: skip link, refresh, the search field; then type, and there is the answer.
    let browser = Browser::start(&scratch.path().join("keyboard"), "light", 1100, 900).unwrap();
    browser.open(&node.address).unwrap();
    let focus = || browser.script(FOCUS).unwrap().to_string();
    let mut stops = Vec::new();
    while !focus().contains("search") {
        browser.keys(&[TAB]).unwrap();
        stops.push(focus());
        assert!(stops.len() < 10, "{stops:#?}");
    }
    assert!(stops[0].contains("Skip to the services"), "{stops:#?}");
    let outline =
        browser.script("return getComputedStyle(document.activeElement).outlineStyle").unwrap();
    assert_eq!(outline, "solid", "where the keyboard is can be seen");
    browser.keys(&["a", "p", "p", "-", "4", "2", ENTER]).unwrap();
    let found = "return location.search.includes('q=app-42') && document.readyState === 'complete'";
    // The next document: the driver may still answer for the one before.
    let mut attempts = 0;
    while browser.script(found).ok() != Some(true.into()) {
        attempts += 1;
        assert!(attempts < 1000, "no answer to the search: {}", browser.text().unwrap());
    }
    let text = browser.text().unwrap();
    assert!(text.contains("1 service found") && text.contains("10.97.0.42:80/tcp"), "{text}");
    assert!(text.contains("No endpoint: connections are refused."), "{text}");
    assert!(!text.contains("datarc"), "{text}");
    browser.picture(&picture("search.png")).unwrap();
}
