//! Rows G01 to G18 and GS: EndpointSlices before and after, and what follows from the difference.

use std::collections::BTreeSet;
use std::time::Duration;

use proxier::builders::*;
use proxier::cluster::{Change, Cluster, EndpointSlice, ObjectKey};
use proxier::dataplane::{Desired, Drains, Op, Planning, contribution, plan};

use super::slices::{apply, services, udp};

/// One transition of slices and what follows from it.
struct Transition {
    id: &'static str,
    before: Vec<EndpointSlice>,
    after: Vec<EndpointSlice>,
    /// Services that are computed again.
    changed: &'static [&'static str],
    /// Service ports whose stale UDP flows are deleted.
    forgotten: &'static [&'static str],
    /// Local ready endpoints of the services that have any.
    ready: &'static [(&'static str, usize)],
    /// All real servers afterwards: `SERVICE PORT ADDRESS:PORT`.
    servers: &'static [&'static str],
}

#[allow(clippy::too_many_lines, reason = "one table")]
fn transitions() -> Vec<Transition> {
    let one = |ports: &[(&str, u16)], addresses: &[&str]| udp("a", "ns1/ep1", ports, addresses);
    let local = "1.1.1.1 @node-1";
    let p11 = [("p11", 11)];
    let both = [("p11", 11), ("p12", 12)];
    let unnamed = one(&[("", 11)], &["1.1.1.1"]);
    let two_slices =
        vec![one(&p11, &["1.1.1.1"]), udp("b", "ns1/ep1", &[("p12", 12)], &["1.1.1.2"])];
    let local_and_remote =
        vec![one(&both, &[local]), udp("b", "ns1/ep1", &[("p13", 13)], &["1.1.1.3 @node-2"])];
    let two_services = vec![
        one(&both, &[local, "1.1.1.2 @node-2"]),
        udp("b", "ns1/ep1", &[("p13", 13), ("p14", 14)], &["1.1.1.3 @node-2", "1.1.1.4 @node-1"]),
        udp("c", "ns2/ep2", &[("p21", 21), ("p22", 22)], &["2.2.2.1 @node-2", "2.2.2.2 @node-1"]),
    ];
    let plain = vec![one(&p11, &["1.1.1.1"])];
    let with_local = vec![one(&p11, &[local])];
    let wide = vec![one(&both, &["1.1.1.1", "1.1.1.2 @node-1"])];
    let second =
        vec![one(&p11, &["1.1.1.1"]), udp("b", "ns1/ep1", &[("p12", 12)], &["1.1.1.2 @node-1"])];
    let terminating = vec![one(&p11, &["1.1.1.1 terminating"])];
    let row = |id, before: &[EndpointSlice], after: &[EndpointSlice]| Transition {
        id,
        before: before.to_vec(),
        after: after.to_vec(),
        changed: &[],
        forgotten: &[],
        ready: &[],
        servers: &[],
    };
    vec![
        row("G01", &[], &[]),
        Transition {
            servers: &["ep1  1.1.1.1:11"],
            ..row("G02", std::slice::from_ref(&unnamed), std::slice::from_ref(&unnamed))
        },
        Transition {
            ready: &[("ep1", 1)],
            servers: &["ep1 p11 1.1.1.1:11"],
            ..row("G03", &with_local, &with_local)
        },
        Transition {
            servers: &["ep1 p11 1.1.1.1:11", "ep1 p12 1.1.1.2:12"],
            ..row("G04", &two_slices, &two_slices)
        },
        Transition {
            ready: &[("ep1", 1)],
            servers: &["ep1 p11 1.1.1.1:11", "ep1 p12 1.1.1.1:12", "ep1 p13 1.1.1.3:13"],
            ..row("G05", &local_and_remote, &local_and_remote)
        },
        Transition {
            ready: &[("ep1", 2), ("ep2", 1)],
            servers: &[
                "ep1 p11 1.1.1.1:11",
                "ep1 p11 1.1.1.2:11",
                "ep1 p12 1.1.1.1:12",
                "ep1 p12 1.1.1.2:12",
                "ep1 p13 1.1.1.3:13",
                "ep1 p13 1.1.1.4:13",
                "ep1 p14 1.1.1.3:14",
                "ep1 p14 1.1.1.4:14",
                "ep2 p21 2.2.2.1:21",
                "ep2 p21 2.2.2.2:21",
                "ep2 p22 2.2.2.1:22",
                "ep2 p22 2.2.2.2:22",
            ],
            ..row("G06", &two_services, &two_services)
        },
        Transition {
            changed: &["ep1"],
            forgotten: &["ep1 p11"],
            ready: &[("ep1", 1)],
            servers: &["ep1 p11 1.1.1.1:11"],
            ..row("G07", &[], &with_local)
        },
        Transition { changed: &["ep1"], forgotten: &["ep1 p11"], ..row("G08", &with_local, &[]) },
        // The flows of a port to which only an endpoint is added are all still good.
        Transition {
            changed: &["ep1"],
            forgotten: &["ep1 p12"],
            ready: &[("ep1", 1)],
            servers: &[
                "ep1 p11 1.1.1.1:11",
                "ep1 p11 1.1.1.2:11",
                "ep1 p12 1.1.1.1:12",
                "ep1 p12 1.1.1.2:12",
            ],
            ..row("G09", &plain, &wide)
        },
        Transition {
            changed: &["ep1"],
            forgotten: &["ep1 p11", "ep1 p12"],
            servers: &["ep1 p11 1.1.1.1:11"],
            ..row("G10", &wide, &plain)
        },
        Transition {
            changed: &["ep1"],
            forgotten: &["ep1 p12"],
            ready: &[("ep1", 1)],
            servers: &["ep1 p11 1.1.1.1:11", "ep1 p12 1.1.1.2:12"],
            ..row("G11", &plain, &second)
        },
        Transition {
            changed: &["ep1"],
            forgotten: &["ep1 p12"],
            servers: &["ep1 p11 1.1.1.1:11"],
            ..row("G12", &second, &plain)
        },
        Transition {
            changed: &["ep1"],
            forgotten: &["ep1 p11", "ep1 p11-2"],
            servers: &["ep1 p11-2 1.1.1.1:11"],
            ..row("G13", &plain, &[one(&[("p11-2", 11)], &["1.1.1.1"])])
        },
        Transition {
            changed: &["ep1"],
            forgotten: &["ep1 p11"],
            servers: &["ep1 p11 1.1.1.1:22"],
            ..row("G14", &plain, &[one(&[("p11", 22)], &["1.1.1.1"])])
        },
        Transition {
            changed: &["ep1", "ep2", "ep3", "ep4"],
            forgotten: &[
                "ep1 p12", "ep1 p122", "ep2 p22", "ep2 p23", "ep3 p33", "ep4 p44", "ep4 p45",
            ],
            ready: &[("ep4", 1)],
            servers: &[
                "ep1 p11 1.1.1.1:11",
                "ep1 p11 1.1.1.11:11",
                "ep1 p12 1.1.1.2:12",
                "ep1 p122 1.1.1.2:122",
                "ep3 p33 3.3.3.3:33",
                "ep4 p44 4.4.4.4:44",
            ],
            ..row(
                "G15",
                &[
                    one(&p11, &["1.1.1.1"]),
                    udp("b", "ns2/ep2", &[("p22", 22)], &["2.2.2.2 @node-1", "2.2.2.22 @node-1"]),
                    udp("c", "ns2/ep2", &[("p23", 23)], &["2.2.2.3 @node-1"]),
                    udp("d", "ns4/ep4", &[("p44", 44)], &["4.4.4.4 @node-1", "4.4.4.5 @node-1"]),
                    udp("e", "ns4/ep4", &[("p45", 45)], &["4.4.4.6 @node-1"]),
                ],
                &[
                    one(&p11, &["1.1.1.1", "1.1.1.11"]),
                    udp("f", "ns1/ep1", &[("p12", 12), ("p122", 122)], &["1.1.1.2"]),
                    udp("g", "ns3/ep3", &[("p33", 33)], &["3.3.3.3"]),
                    udp("d", "ns4/ep4", &[("p44", 44)], &["4.4.4.4 @node-1"]),
                ],
            )
        },
        Transition {
            changed: &["ep1"],
            forgotten: &["ep1 p11"],
            servers: &["ep1 p11 1.1.1.1:11"],
            ..row("G16", &[one(&p11, &[])], &plain)
        },
        // It still serves: its flows stay where they are.
        Transition {
            changed: &["ep1"],
            servers: &["ep1 p11 1.1.1.1:11"],
            ..row("G17", &plain, &terminating)
        },
        Transition {
            changed: &["ep1"],
            forgotten: &["ep1 p11"],
            ..row("G18", &terminating, &[one(&p11, &[])])
        },
    ]
}

#[test]
fn transitions_of_slices() {
    for row in transitions() {
        let settings = settings();
        let services = services(&row.before.iter().chain(&row.after).collect::<Vec<_>>());
        let mut cluster = Cluster::new();
        let mut desired = Desired::new(&settings);
        let compute = |cluster: &Cluster, dirty: &BTreeSet<ObjectKey>, desired: &mut Desired| {
            let mut touched = BTreeSet::new();
            for key in dirty {
                let asked = cluster
                    .service(key)
                    .map(|service| (0, contribution(service, &cluster.slices(key), &settings)));
                desired.set(key, asked, &mut touched);
            }
            touched
        };
        let objects = services.iter().cloned().map(Change::Service);
        let slices = row.before.iter().cloned().map(Change::Slice);
        let dirty = apply(&mut cluster, objects.chain(slices));
        compute(&cluster, &dirty, &mut desired);
        let believed = desired.state().clone();

        let gone = row
            .before
            .iter()
            .filter(|slice| row.after.iter().all(|after| after.key != slice.key))
            .map(|slice| Change::SliceGone(slice.key.clone()));
        let slices = row.after.iter().cloned().map(Change::Slice);
        let dirty = apply(&mut cluster, gone.chain(slices));
        let changed: Vec<_> = dirty.iter().map(|key| key.name().to_owned()).collect();
        assert_eq!(changed, row.changed, "{}: changed", row.id);

        let touched = compute(&cluster, &dirty, &mut desired);
        let drains = Drains::new(Duration::ZERO);
        let planned = plan(Planning::new(desired.state(), &believed, &drains, &settings), &touched);
        let name = |op: &Op| match op {
            Op::ForgetFlows(key, _) => {
                let (service, frontend) = desired.owner(key).unwrap();
                Some(format!("{} {}", service.name(), frontend.port))
            }
            _ => None,
        };
        let mut forgotten: Vec<_> = planned.ops.iter().filter_map(name).collect();
        forgotten.sort_unstable();
        assert_eq!(forgotten, row.forgotten, "{}: flows", row.id);

        let mut ready: Vec<(&str, usize)> = Vec::new();
        let mut servers = Vec::new();
        for service in &services {
            let asked = desired.contribution(&service.key).unwrap();
            let health = asked.health.as_ref().unwrap();
            let count = health.local_endpoints.iter().map(|(_, count)| count).sum();
            ready.extend(Some((service.key.name(), count)).filter(|(_, count)| *count > 0));
            for frontend in &asked.frontends {
                let real = frontend.server.real_servers.iter();
                servers.extend(
                    real.map(|real| {
                        format!("{} {} {}", service.key.name(), frontend.port, real.key)
                    }),
                );
            }
        }
        assert_eq!(ready, row.ready, "{}: local ready endpoints", row.id);
        assert_eq!(servers, row.servers, "{}: real servers", row.id);
    }
}
