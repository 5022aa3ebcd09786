//! `/metrics`: kube-proxy's names, types and labels where there is an equal, and ours.
//!
//! As there, a metric with labels appears with its first sample, and those of modes other than
//! ipvs never. Services and slices are counted once, where kube-proxy counts each Service event for
//! each family; a step of the loop serves all families, so each has the same duration.

mod pieces;
mod process;
mod readings;
mod services;
mod text;

use std::time::{SystemTime, UNIX_EPOCH};

use netlink_ipvs::Family;

pub(super) use self::pieces::Pieces;
use self::process::Process;
pub(super) use self::readings::{Lease, Readings};
pub(super) use self::services::Reading;
pub(super) use self::text::CONTENT_TYPE;
use self::text::{Labels, Metric, Text};
use super::Watch;
use super::attention::Attention;
use super::health::Monitor;
use crate::cluster::Annotation;
use crate::dataplane::{NoLocal, Refusal, sysctls};
use crate::reconcile::{Counters, Status};

// kube-proxy's.
const SYNC_DURATION: Metric = Metric::histogram(
    "kubeproxy_sync_proxy_rules_duration_seconds",
    "Duration of the steps of the sync loop.",
);
const SYNC_LAST: Metric = Metric::gauge(
    "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
    "When the kernel was last brought to what is wanted.",
);
const SYNC_QUEUED: Metric = Metric::gauge(
    "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
    "When the last event came.",
);
const SERVICE_CHANGES: Metric =
    Metric::counter("kubeproxy_sync_proxy_rules_service_changes_total", "Events of Services.");
const SERVICE_PENDING: Metric = Metric::gauge(
    "kubeproxy_sync_proxy_rules_service_changes_pending",
    "Events of Services that no step has taken in yet.",
);
const ENDPOINT_CHANGES: Metric = Metric::counter(
    "kubeproxy_sync_proxy_rules_endpoint_changes_total",
    "Events of EndpointSlices.",
);
const ENDPOINT_PENDING: Metric = Metric::gauge(
    "kubeproxy_sync_proxy_rules_endpoint_changes_pending",
    "Events of EndpointSlices that no step has taken in yet.",
);
const RESTORE_FAILURES: Metric = Metric::counter(
    "kubeproxy_sync_proxy_rules_iptables_restore_failures_total",
    "Failures to put the firewall rules in place.",
);
const NO_LOCAL: Metric = Metric::gauge(
    "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
    "Services with a Local traffic policy and endpoints, but none on this node.",
);
const PROGRAMMING: Metric = Metric::histogram(
    "kubeproxy_network_programming_duration_seconds",
    "From the change that an EndpointSlice names as its cause to its being programmed.",
);
const CONNTRACK_DURATION: Metric = Metric::histogram(
    "kubeproxy_conntrack_reconciler_sync_duration_seconds",
    "Duration of searches for stale connection tracking entries.",
);
const CONNTRACK_DELETED: Metric = Metric::counter(
    "kubeproxy_conntrack_reconciler_deleted_entries_total",
    "Stale connection tracking entries deleted.",
);
const HEALTHZ: Metric =
    Metric::counter("kubeproxy_proxy_healthz_total", "Answers of /healthz, by status code.");
const LIVEZ: Metric =
    Metric::counter("kubeproxy_proxy_livez_total", "Answers of /livez, by status code.");

// Those of every program.
const CPU: Metric =
    Metric::counter("process_cpu_seconds_total", "Processor time used, user and system.");
const OPEN_FILES: Metric = Metric::gauge("process_open_fds", "Open files.");
const MOST_FILES: Metric = Metric::gauge("process_max_fds", "Files that may be open.");
const RESIDENT: Metric = Metric::gauge("process_resident_memory_bytes", "Memory in use.");
const VIRTUAL: Metric = Metric::gauge("process_virtual_memory_bytes", "Address space in use.");
const START: Metric =
    Metric::gauge("process_start_time_seconds", "When the process was started, since 1970.");
const THREADS: Metric = Metric::gauge("process_threads", "Threads.");

// Ours.
const BUILD: Metric = Metric::gauge("proxier_build_info", "1, with the version as a label.");
const COMPLETE: Metric =
    Metric::gauge("proxier_complete", "1 when every kind of object has been read completely.");
const SYNCED: Metric = Metric::gauge("proxier_synced", "1 when the kernel is as wanted.");
const FAILING: Metric =
    Metric::gauge("proxier_failing_targets", "Things that failed and will be tried again.");
const FAILING_SECONDS: Metric =
    Metric::gauge("proxier_failing_seconds", "For how long something has been failing; 0 if not.");
const ATTENTION: Metric = Metric::gauge(
    "proxier_needs_attention",
    "Whether there is something to look at although the kernel may be as it is wanted, by what it is.",
);
const HELD: Metric = Metric::gauge(
    "proxier_held_back",
    "Things that are not programmed, since something that they need has failed.",
);
const HELD_TOTAL: Metric = Metric::counter(
    "proxier_held_back_total",
    "Operations that were not tried, since something that they need had failed.",
);
const SYSCTL_DRIFT: Metric = Metric::counter(
    "proxier_sysctl_drift_total",
    "How often a kernel setting was found changed by somebody else.",
);
const SERVICES: Metric = Metric::gauge("proxier_services", "Services that are proxied.");
const VIRTUAL_SERVERS: Metric =
    Metric::gauge("proxier_virtual_servers", "Virtual servers in the kernel.");
const REAL_SERVERS: Metric = Metric::gauge("proxier_real_servers", "Real servers in the kernel.");
const CONFLICTS: Metric =
    Metric::gauge("proxier_conflicts", "Virtual servers that more than one Service claims.");
const NOT_PROGRAMMED: Metric = Metric::gauge(
    "proxier_refused_addresses",
    "Addresses and ports that Services ask for and do not get on this node, by why not.",
);
const SETTINGS: Metric = Metric::gauge(
    "proxier_annotated_services",
    "Services with a setting of their own in force, by an annotation.",
);
const REJECTED_SETTINGS: Metric = Metric::gauge(
    "proxier_rejected_annotations",
    "Annotations of Services that cannot be used; the cluster-wide setting holds.",
);
const SLOW_STARTS: Metric = Metric::gauge(
    "proxier_slow_starting_endpoints",
    "Endpoints that have not reached their weight yet (annotation proxier.io/slow-start).",
);
const DRAINING: Metric = Metric::gauge(
    "proxier_draining_real_servers",
    "Real servers that keep their connections though no longer wanted.",
);
const DRAINING_CONNECTIONS: Metric = Metric::gauge(
    "proxier_draining_connections",
    "Connections of draining real servers when they were last counted.",
);
const DRAINS_CUT: Metric = Metric::counter(
    "proxier_drains_cut_total",
    "Drains that ended by their time limit, with connections left.",
);
const OPERATIONS: Metric =
    Metric::counter("proxier_operations_total", "Operations on the kernel, by kind and result.");
const DRIFT: Metric = Metric::counter(
    "proxier_drift_total",
    "Things in the kernel that were found changed by somebody else.",
);
const STEPS: Metric = Metric::counter("proxier_steps_total", "Steps of the sync loop.");
const CONTRIBUTIONS: Metric = Metric::counter(
    "proxier_contributions_total",
    "Services computed, one for each step that a change of it touches.",
);
const LATENCY: Metric = Metric::histogram(
    "proxier_event_to_kernel_seconds",
    "From an event's arrival to the end of the step that programmed it.",
);
const KERNEL: Metric = Metric::counter(
    "proxier_kernel_seconds_total",
    "Time that reading and writing the kernel took, by part of it.",
);
const HEALTH_PORTS: Metric =
    Metric::gauge("proxier_health_check_node_ports", "Health check node ports.");
const REFUSED: Metric = Metric::gauge(
    "proxier_configuration_refused",
    "1 while the configuration file, as it is now, cannot be used and an earlier one is in force.",
);
const READ_SECONDS: Metric = Metric::gauge(
    "proxier_service_counters_read_seconds",
    "How long it took to read the counters of services for this answer.",
);
const READ_FAILED: Metric = Metric::gauge(
    "proxier_service_counters_read_failed",
    "1 when the counters of services could not be read.",
);
const LEFT_OUT: Metric = Metric::gauge(
    "proxier_service_counters_left_out",
    "Virtual servers and endpoints without counters in this answer, as there are too many.",
);
const WATCH_SILENCE: Metric = Metric::gauge(
    "proxier_watch_silence_seconds",
    "Time since the API server was last heard on a watch: an object, a list, a bookmark.",
);
const WATCH_CONNECTED: Metric =
    Metric::gauge("proxier_watch_connected", "1 while the stream of a watch is open.");
const WATCH_EVENTS: Metric = Metric::counter("proxier_watch_events_total", "Events of a watch.");
const WATCH_LISTS: Metric =
    Metric::counter("proxier_watch_lists_total", "Complete reads of what a watch follows.");
const WATCH_FAILURES: Metric = Metric::counter(
    "proxier_watch_failures_total",
    "Failed attempts and broken streams of a watch.",
);

/// Everything but the counters of services, as text.
pub(super) fn render(monitor: &Monitor, status: &Status, watches: &[Watch]) -> Text {
    let mut out = Text::default();
    kube_proxy(&mut out, status, monitor);
    process(&mut out, &Process::read());
    ours(&mut out, status);
    let current = monitor.current();
    out.value(&REFUSED, u8::from(current.refused.is_some()));
    let attention = Attention::of(status, &current, watches, monitor.deaf().as_ref());
    let kinds = Attention::KINDS.into_iter().map(|kind| {
        let is_there = attention.iter().any(|one| one.kind == kind);
        (Labels::one("what", kind), u8::from(is_there))
    });
    out.samples(&ATTENTION, kinds);
    watched(&mut out, watches);
    out
}

/// That, and the counters of services after it.
pub(super) fn with_services(mut out: Text, reading: Lease) -> Pieces {
    if let Some(reading) = reading.get() {
        out.value(&READ_FAILED, u8::from(reading.failed));
        out.value(&READ_SECONDS, reading.took.as_secs_f64());
        out.value(&LEFT_OUT, reading.left_out);
    }
    Pieces::new(out.into_string(), reading)
}

fn kube_proxy(out: &mut Text, status: &Status, monitor: &Monitor) {
    let measures = &status.measures;
    let families = || status.families.iter();
    out.histograms(&SYNC_DURATION, families().map(|(family, _)| (of(*family), &measures.step)));
    let last = families()
        .filter_map(|(family, state)| Some((of(*family), timestamp(state.last_success?))));
    out.samples(&SYNC_LAST, last);
    let queued = timestamp(status.live.last_event());
    out.samples(&SYNC_QUEUED, families().map(|(family, _)| (of(*family), queued)));
    out.value(&SERVICE_CHANGES, status.live.service_changes());
    out.value(&SERVICE_PENDING, status.live.service_changes_pending());
    out.value(&ENDPOINT_CHANGES, status.live.slice_changes());
    out.value(&ENDPOINT_PENDING, status.live.slice_changes_pending());
    let failures = &status.counters.firewall_failures;
    out.samples(&RESTORE_FAILURES, failures.iter().map(|(family, count)| (of(*family), count)));
    out.samples(&NO_LOCAL, no_local(status));
    let programming = measures.programming.iter();
    out.histograms(&PROGRAMMING, programming.map(|(family, values)| (of(*family), values)));
    let conntrack = measures.conntrack.iter();
    out.histograms(&CONNTRACK_DURATION, conntrack.map(|(family, values)| (of(*family), values)));
    let deleted = measures.flows_deleted.iter();
    out.samples(&CONNTRACK_DELETED, deleted.map(|(family, count)| (of(*family), count)));
    let answers = monitor.answers();
    for (metric, counts) in [(&HEALTHZ, answers.healthz()), (&LIVEZ, answers.livez())] {
        let given = counts.into_iter().filter(|(_, count)| *count > 0);
        out.samples(metric, given.map(|(code, count)| (Labels::one("code", code), count)));
    }
}

/// Services without local endpoints, by policy and family.
fn no_local(status: &Status) -> Vec<(Labels, usize)> {
    let mut samples = Vec::new();
    for family in status.families.keys() {
        let count = |lacks: fn(&NoLocal, &Family) -> bool| {
            status.no_local.values().filter(|no_local| lacks(no_local, family)).count()
        };
        let internal = count(|no_local, family| no_local.internal.contains(family));
        let external = count(|no_local, family| no_local.external.contains(family));
        for (policy, count) in [("internal", internal), ("external", external)] {
            samples.push((of(*family).and("traffic_policy", policy), count));
        }
    }
    samples
}

fn process(out: &mut Text, process: &Process) {
    fn known<V: std::fmt::Display>(out: &mut Text, metric: &Metric, value: Option<V>) {
        out.samples(metric, value.map(|value| (Labels::none(), value)));
    }
    known(out, &CPU, process.cpu);
    known(out, &OPEN_FILES, process.open_files);
    known(out, &MOST_FILES, process.most_files);
    known(out, &RESIDENT, process.resident);
    known(out, &VIRTUAL, process.virtual_size);
    known(out, &START, process.start);
    known(out, &THREADS, process.threads);
}

fn ours(out: &mut Text, status: &Status) {
    let Counters { steps, contributions, drift, drains_cut, operations, .. } = &status.counters;
    let Counters { held_back, sysctl_drift, .. } = &status.counters;
    out.samples(&BUILD, [(Labels::one("version", env!("CARGO_PKG_VERSION")), 1)]);
    out.value(&COMPLETE, u8::from(status.complete));
    out.value(&SYNCED, u8::from(status.synced));
    out.value(&FAILING, status.pending);
    let failing = status.failing_since.map(|since| since.elapsed()).unwrap_or_default();
    out.value(&FAILING_SECONDS, failing.as_secs_f64());
    out.value(&SERVICES, status.services);
    out.value(&VIRTUAL_SERVERS, status.virtual_servers);
    out.value(&REAL_SERVERS, status.real_servers);
    out.value(&CONFLICTS, status.conflicts.len());
    let refused = |kind| (Labels::one("reason", kind), status.refused.get(kind).copied());
    let refused = Refusal::KINDS.into_iter().map(refused);
    let refused = refused.map(|(labels, count)| (labels, count.unwrap_or_default()));
    out.samples(&NOT_PROGRAMMED, refused);
    let setting = |setting| (Labels::one("setting", setting), status.settings.get(setting));
    let settings = Annotation::SETTINGS.into_iter().map(setting);
    let settings = settings.map(|(labels, count)| (labels, count.copied().unwrap_or_default()));
    out.samples(&SETTINGS, settings);
    out.value(&REJECTED_SETTINGS, status.rejected_settings);
    out.value(&SLOW_STARTS, status.slow_starts);
    out.value(&DRAINING, status.draining.len());
    let connections: u64 = status.draining.iter().map(|draining| draining.connections).sum();
    out.value(&DRAINING_CONNECTIONS, connections);
    out.value(&DRAINS_CUT, drains_cut);
    let results = |(kind, (done, failed)): (&&str, &(u64, u64))| {
        let labels = |result| Labels::one("kind", kind).and("result", result);
        [(labels("done"), *done), (labels("failed"), *failed)]
    };
    out.samples(&OPERATIONS, operations.iter().flat_map(results));
    out.value(&HELD, status.held);
    out.value(&HELD_TOTAL, held_back);
    out.value(&DRIFT, drift);
    let settings = sysctl_drift.iter().map(|(path, times)| (sysctls::name(path), times));
    out.samples(&SYSCTL_DRIFT, settings.map(|(name, times)| (Labels::one("setting", name), times)));
    out.value(&STEPS, steps);
    out.value(&CONTRIBUTIONS, contributions);
    out.histograms(&LATENCY, [(Labels::none(), &status.measures.latency)]);
    let kernel = status.measures.kernel.iter();
    out.samples(&KERNEL, kernel.map(|(part, t)| (Labels::one("part", part), t.as_secs_f64())));
    out.value(&HEALTH_PORTS, status.health.len());
}

fn watched(out: &mut Text, watches: &[Watch]) {
    let resource = |watch: &Watch| Labels::one("resource", watch.resource);
    let silence =
        watches.iter().filter_map(|watch| Some((resource(watch), watch.silence?.as_secs_f64())));
    out.samples(&WATCH_SILENCE, silence);
    let connected = watches.iter().map(|watch| (resource(watch), u8::from(watch.connected)));
    out.samples(&WATCH_CONNECTED, connected);
    out.samples(&WATCH_EVENTS, watches.iter().map(|watch| (resource(watch), watch.events)));
    out.samples(&WATCH_LISTS, watches.iter().map(|watch| (resource(watch), watch.lists)));
    out.samples(&WATCH_FAILURES, watches.iter().map(|watch| (resource(watch), watch.failures)));
}

fn of(family: Family) -> Labels {
    Labels::one("ip_family", family)
}

/// Seconds since 1970.
fn timestamp(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
