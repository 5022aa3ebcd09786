//! Manifests of any size that once took more than their share, each to be read in time in proportion to
//! its size.

use std::fmt::Write as _;

/// The kinds.
pub const KINDS: [&str; 13] = [
    "values",
    "documents",
    "broken",
    "braces",
    "unclosed",
    "nested",
    "long-line",
    "list",
    "endpoints",
    "slices",
    "addresses",
    "legacy",
    "subsets",
];

/// A text of a kind with so many of what it consists of.
///
/// # Panics
/// There is no such kind.
pub fn text(kind: &str, count: u32) -> String {
    let mut text = String::new();
    let mut each = |of: &dyn Fn(u32) -> String| {
        for n in 0..count {
            text.push_str(&of(n));
        }
    };
    match kind {
        // Services as JSON values, one a line.
        "values" => each(&|n| {
            format!(
                "{{\"kind\": \"Service\", \"metadata\": {{\"name\": \"s{n}\"}}, \"spec\": \
             {{\"clusterIP\": \"{}\", \"ports\": [{{\"port\": 80}}]}}}}\n",
                ip(n)
            )
        }),
        "documents" => each(&|n| service(&format!("s{n}"), n)),
        "broken" => each(&|n| format!("---\nkind: Service\nmetadata: {{name: s{n}}}\nspec: [\n")),
        "braces" => each(&|_| "{\n".to_owned()),
        // Lists that never end, each on a line where a value may begin.
        "unclosed" => {
            each(&|n| if n < 100 { "{\"a\":[\n".to_owned() } else { "{\"b\":[0]},\n".to_owned() });
        }
        "nested" => each(&|_| "[".to_owned()),
        "long-line" => {
            text.push_str("kind: Service\nmetadata: {name: ");
            (0..count).for_each(|_| text.push('x'));
            text.push_str("}\nspec: [\n");
        }
        "list" => {
            text.push_str("kind: List\nitems:\n");
            for n in 0..count {
                let service = service(&format!("s{n}"), n).replace("---\n", "");
                let _ = writeln!(text, "- {}", service.trim_end().replace('\n', "\n  "));
            }
        }
        "endpoints" => {
            text.push_str(&service("web", 0));
            text.push_str(&slice(0, 0..count));
        }
        "slices" => {
            text.push_str(&service("web", 0));
            for n in 0..count.div_ceil(100) {
                text.push_str(&slice(n, n * 100..count.min((n + 1) * 100)));
            }
        }
        // Every address of one Service.
        "addresses" => {
            let addresses = (0..count).map(|n| format!("\"{}\"", ip(n + 1)));
            let addresses = addresses.collect::<Vec<_>>().join(", ");
            text.push_str(&service("web", 0));
            let _ = writeln!(text, "  externalIPs: [{addresses}]");
        }
        // An Endpoints object for each of so many Services.
        "legacy" => each(&|n| {
            format!(
                "---\nkind: Endpoints\nmetadata: {{name: s{n}}}\nsubsets: [{{addresses: [{{ip: {}}}], \
                 ports: [{{port: 80}}]}}]\n",
                ip(n)
            )
        }),
        "subsets" => {
            text.push_str(&service("web", 0));
            text.push_str("---\nkind: Endpoints\nmetadata: {name: web}\nsubsets:\n");
            for n in 0..count {
                let _ =
                    writeln!(text, "- {{addresses: [{{ip: {}}}], ports: [{{port: 80}}]}}", ip(n));
            }
        }
        other => panic!("there is no kind {other}: {}", KINDS.join(" ")),
    }
    text
}

fn ip(n: u32) -> String {
    let [_, b, c, d] = n.to_be_bytes();
    format!("10.{}.{c}.{d}", b + 1)
}

fn service(name: &str, n: u32) -> String {
    format!(
        "---\nkind: Service\nmetadata: {{name: {name}}}\nspec:\n  clusterIP: {}\n  ports: [{{port: 80}}]\n",
        ip(n)
    )
}

fn slice(n: u32, endpoints: std::ops::Range<u32>) -> String {
    let mut text = format!(
        "---\nkind: EndpointSlice\nmetadata: {{name: web-{n}, labels: {{kubernetes.io/service-name: \
         web}}}}\naddressType: IPv4\nports: [{{port: 80}}]\nendpoints:\n"
    );
    for n in endpoints {
        let _ = writeln!(text, "- {{addresses: [{}], nodeName: n{}}}", ip(n), n % 100);
    }
    text
}
