//! The report as a picture: costs against the number of endpoints, both axes logarithmic.

use std::fmt::Write as _;

use serde_json::Value;

/// A name and a colour.
type Line = (&'static str, &'static str);

/// A number of endpoints, and a value.
type Point = (f64, f64);

struct Panel {
    title: &'static str,
    /// Of the report of a size.
    value: fn(&Value) -> Option<f64>,
    floor: Option<fn(&Value) -> Option<f64>>,
    /// kube-proxy 1.36.2 in the same kind of guest, measured once and not by this program; of a range, its
    /// lower end.
    others: &'static [(Line, &'static [Point])],
}

const PANELS: [Panel; 3] = [
    Panel {
        title: "resident memory, MiB",
        value: |report| Some(report["memory"]["resident_kib"].as_f64()? / 1024.0),
        floor: None,
        others: &[(KUBE_PROXY, &[(5_000.0, 83.0), (100_000.0, 230.0)])],
    },
    Panel {
        title: "until everything is in the kernel, s",
        value: |report| report["programming"]["step_seconds"].as_f64(),
        floor: Some(|report| report["floor"]["seconds"].as_f64()),
        others: &[(KUBE_PROXY, &[(1_000.0, 59.0)]), (KUBE_PROXY_NFTABLES, &[(5_000.0, 45.0)])],
    },
    Panel {
        title: "processor time of one change, ms",
        value: |report| report["change"]["cpu_milliseconds"].as_f64(),
        floor: None,
        others: &[
            (KUBE_PROXY, &[(1_000.0, 3_000.0)]),
            (KUBE_PROXY_NFTABLES, &[(5_000.0, 3_000.0)]),
        ],
    },
];

// Colours that differ for those who see no red or green, too.
const IPTABLES: Line = ("proxier, iptables", "#0072b2");
const NFTABLES: Line = ("proxier, nftables", "#009e73");
const FLOOR: Line = ("floor: the same messages, and nothing else", "#888888");
const KUBE_PROXY: Line = ("kube-proxy 1.36.2, ipvs", "#d55e00");
const KUBE_PROXY_NFTABLES: Line = ("kube-proxy 1.36.2, nftables", "#cc79a7");

const LEGEND: [Line; 5] = [IPTABLES, NFTABLES, FLOOR, KUBE_PROXY, KUBE_PROXY_NFTABLES];

const WIDTH: f64 = 300.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 44.0;
const TOP: f64 = 30.0;
const PLOT: (f64, f64) = (240.0, 200.0);
/// Endpoints at the left and the right, as powers of ten.
const SPAN: (f64, f64) = (2.5, 5.5);

/// An SVG of the reports of all sizes.
pub fn plot(reports: &[Value]) -> String {
    let (width, height) = (WIDTH * 3.0, HEIGHT + 20.0 * 2.0);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for (n, panel) in (0_u8..).zip(&PANELS) {
        let _ = writeln!(out, "<g transform=\"translate({} 0)\">", f64::from(n) * WIDTH);
        draw(&mut out, panel.title, &lines(panel, reports));
        out.push_str("</g>\n");
    }
    for (n, (name, colour)) in (0_u8..).zip(LEGEND) {
        let (x, y) = (LEFT + f64::from(n % 3) * WIDTH, HEIGHT + 8.0 + f64::from(n / 3) * 18.0);
        let _ = writeln!(
            out,
            "<circle cx=\"{x}\" cy=\"{y}\" r=\"4\" fill=\"{colour}\"/><text x=\"{}\" y=\"{}\">{name}</text>",
            x + 9.0,
            y + 4.0
        );
    }
    out + "</svg>\n"
}

fn lines(panel: &Panel, reports: &[Value]) -> Vec<(Line, Vec<Point>)> {
    let of = |backend: &Value, value: fn(&Value) -> Option<f64>| {
        let own = reports.iter().filter(|report| report["backend"] == *backend);
        let point = |report: &Value| {
            let size = report["services"].as_f64()? * report["endpoints"].as_f64()?;
            // A logarithm has no place for nothing.
            Some((size, value(report).filter(|value| *value > 0.0)?))
        };
        own.filter_map(point).collect::<Vec<_>>()
    };
    let backends = [(IPTABLES, "iptables"), (NFTABLES, "nftables")];
    let mut all = backends.map(|(line, backend)| (line, of(&backend.into(), panel.value))).to_vec();
    if let (Some(floor), Some(first)) = (panel.floor, reports.first()) {
        all.push((FLOOR, of(&first["backend"], floor)));
    }
    all.extend(panel.others.iter().map(|(line, points)| (*line, points.to_vec())));
    all.retain(|(_, points)| !points.is_empty());
    all
}

fn draw(out: &mut String, title: &str, all: &[(Line, Vec<Point>)]) {
    let values = || all.iter().flat_map(|(_, points)| points.iter().map(|point| point.1.log10()));
    let low = values().fold(f64::INFINITY, f64::min).floor();
    let high = values().fold(low + 1.0, f64::max).ceil();
    let x = |size: f64| LEFT + (size - SPAN.0) / (SPAN.1 - SPAN.0) * PLOT.0;
    let y = |value: f64| TOP + (high - value) / (high - low) * PLOT.1;
    let _ = writeln!(
        out,
        "<text x=\"{LEFT}\" y=\"{}\" font-weight=\"bold\">{title}</text>",
        TOP - 12.0
    );
    let mut power = low;
    while power <= high {
        let (at, value) = (y(power), 10_f64.powf(power));
        let _ = writeln!(
            out,
            "<path d=\"M{LEFT} {at:.1}h{}\" stroke=\"#ddd\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>",
            PLOT.0,
            LEFT - 5.0,
            at + 4.0
        );
        power += 1.0;
    }
    for (power, text) in [(3.0, "1,000"), (4.0, "10,000"), (5.0, "100,000 endpoints")] {
        let at = TOP + PLOT.1 + 15.0;
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{at}\" text-anchor=\"middle\">{text}</text>",
            x(power)
        );
    }
    for ((name, colour), points) in all {
        let places = points.iter().map(|(size, value)| (x(size.log10()), y(value.log10())));
        let line: Vec<String> = places.clone().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>",
            line.join(" ")
        );
        for ((x, y), (size, value)) in places.zip(points) {
            let _ = writeln!(
                out,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"><title>{name}, {size} endpoints: {value:.1}</title></circle>"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn more_is_higher_and_further_right() {
        let report = |services: u32, memory: u32| {
            json!({"services": services, "endpoints": 10, "backend": "iptables",
                   "memory": {"resident_kib": memory * 1024}})
        };
        // The last one, of which nothing was measured, is left out.
        let svg = plot(&[report(100, 20), report(10_000, 40), report(20_000, 0)]);
        let own = svg.lines().find(|line| line.contains("<polyline") && line.contains("#0072b2"));
        let points: Vec<f64> = own
            .unwrap()
            .split('"')
            .nth(1)
            .unwrap()
            .split([' ', ','])
            .map(|number| number.parse().unwrap())
            .collect();
        let [x1, y1, x2, y2] = points[..] else { panic!("{points:?}") };
        // 1,000 and 100,000 endpoints of 2.5 to 5.5 powers of ten; 20 and 40 MiB of one to three.
        assert!((x1 - 84.0).abs() < 0.1 && (x2 - 244.0).abs() < 0.1, "{points:?}");
        let place = |value: f64| 30.0 + (3.0 - value.log10()) / 2.0 * 200.0;
        assert!((y1 - place(20.0)).abs() < 0.1 && (y2 - place(40.0)).abs() < 0.1, "{points:?}");
        assert!(!svg.contains(&format!("fill=\"none\" stroke=\"{}\"", "#009e73")), "no nftables");
        assert!(svg.contains("40.0</title>") && svg.ends_with("</svg>\n"), "{svg}");
    }
}
