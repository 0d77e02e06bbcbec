//! What the control plane counts, in Prometheus' text form and under Istio's names.
//!
//! In:    pushes, answers, changes of the mesh.
//! Out:   text for `/metrics`.
//! Never: a label whose values grow without bound: nodes are those connected now.

use std::{
    collections::BTreeMap,
    fmt::{Display, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sluis_envoy::Kind;
use sluis_resources::{Kind as ResourceKind, Resource};
use sluis_xds::Report;

use crate::{Control, ProxyStatus, Sync};

/// Istio's buckets for the time from a change to the last proxy's answer, in seconds.
const CONVERGENCE_BUCKETS: [f64; 8] = [0.1, 0.5, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0];

/// Istio's buckets for the time that a change takes to be indexed, in seconds.
const APPLY_BUCKETS: [f64; 8] = [0.01, 0.1, 0.5, 1.0, 3.0, 5.0, 10.0, 20.0];

/// What is counted. Gauges are read off the state when they are asked for.
#[derive(Debug, Default)]
pub(crate) struct Metrics(Mutex<Counts>);

#[derive(Debug)]
struct Counts {
    pushes: BTreeMap<Kind, u64>,
    rejects: BTreeMap<Kind, u64>,
    absent: BTreeMap<Kind, u64>,
    convergence: Histogram,
    apply: Histogram,
    updates: u64,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            pushes: BTreeMap::new(),
            rejects: BTreeMap::new(),
            absent: BTreeMap::new(),
            convergence: Histogram::new(&CONVERGENCE_BUCKETS),
            apply: Histogram::new(&APPLY_BUCKETS),
            updates: 0,
        }
    }
}

impl Metrics {
    /// Counts what was sent and refused.
    pub(crate) fn take(&self, reports: &[(Kind, Report)]) {
        let mut counts = self.lock();
        for (kind, report) in reports {
            match report {
                Report::Sent { .. } => *counts.pushes.entry(*kind).or_default() += 1,
                Report::Nack { .. } => *counts.rejects.entry(*kind).or_default() += 1,
                Report::Ack { .. } => {}
            }
        }
    }

    /// A proxy has asked for so many resources that it is not given.
    pub(crate) fn absent(&self, kind: Kind, count: usize) {
        *self.lock().absent.entry(kind).or_default() += count as u64;
    }

    /// How many resources of a kind proxies have asked for and not been given.
    #[cfg(test)]
    pub(crate) fn absent_of(&self, kind: Kind) -> u64 {
        self.lock().absent.get(&kind).copied().unwrap_or_default()
    }

    /// A proxy has answered everything that followed from a change.
    pub(crate) fn converged(&self, after: Duration) {
        self.lock().convergence.observe(after);
    }

    /// A change of the mesh has been indexed.
    pub(crate) fn applied(&self, within: Duration) {
        let mut counts = self.lock();
        counts.apply.observe(within);
        counts.updates += 1;
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A cumulative histogram of seconds.
#[derive(Debug)]
struct Histogram {
    bounds: &'static [f64],
    counts: Vec<u64>,
    sum: f64,
    total: u64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len()], sum: 0.0, total: 0 }
    }

    fn observe(&mut self, value: Duration) {
        let seconds = value.as_secs_f64();
        for (bound, count) in self.bounds.iter().zip(&mut self.counts) {
            *count += u64::from(seconds <= *bound);
        }
        self.sum += seconds;
        self.total += 1;
    }
}

/// Prometheus' text form (exposition format 0.0.4).
#[derive(Debug, Default)]
pub struct Exposition(String);

impl Exposition {
    /// Begins a family: `kind` is `counter`, `gauge` or `histogram`.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing into a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// Adds a sample.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (index, (key, text)) in labels.iter().enumerate() {
            let escaped = text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
            let opening = if index == 0 { '{' } else { ',' };
            let _ = write!(self.0, "{opening}{key}=\"{escaped}\"");
        }
        let closing = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{closing} {value}");
    }

    /// Adds a family of one sample without labels.
    pub fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.family(name, "histogram", help);
        let bucket = format!("{name}_bucket");
        for (bound, count) in histogram.bounds.iter().zip(&histogram.counts) {
            self.sample(&bucket, &[("le", &bound.to_string())], count);
        }
        self.sample(&bucket, &[("le", "+Inf")], histogram.total);
        self.sample(&format!("{name}_sum"), &[], histogram.sum);
        self.sample(&format!("{name}_count"), &[], histogram.total);
    }

    /// The text.
    #[must_use]
    pub fn into_text(self) -> String {
        self.0
    }
}

/// The words by which a translation's fault tells of a conflict, and Istio's name for it.
const CONFLICTS: [(&str, &str, &str); 1] = [(
    "pilot_conflict_outbound_listener_tcp_over_current_tcp",
    "older service, which keeps them",
    "Number of conflicting tcp listeners with current tcp listener.",
)];

impl Control {
    /// Adds the control plane's own metrics.
    pub fn expose(&self, text: &mut Exposition) {
        let proxies: Vec<ProxyStatus> =
            self.proxies().into_iter().filter(|proxy| proxy.connected.is_some()).collect();
        text.single(
            "pilot_xds",
            "gauge",
            "Number of endpoints connected to this pilot using XDS.",
            proxies.len(),
        );
        self.expose_counts(text);
        expose_rejects(text, &proxies);
        let snapshot = self.snapshot();
        let services = snapshot.all_services().count();
        text.single("pilot_services", "gauge", "Total services known to pilot.", services);
        let is_virtual_service =
            |resource: &&Arc<Resource>| resource.meta.kind == ResourceKind::VirtualService;
        let hosts = snapshot.resources().filter(is_virtual_service).count();
        text.single(
            "pilot_virt_services",
            "gauge",
            "Total virtual services known to pilot.",
            hosts,
        );
        let no_ip =
            snapshot.workloads().filter(|workload| workload.spec().address.is_none()).count();
        text.single(
            "pilot_no_ip",
            "gauge",
            "Pods not found in the endpoint table, possibly invalid.",
            no_ip,
        );
        let faults = self.faults();
        for (name, words, help) in CONFLICTS {
            let count = faults.iter().filter(|fault| fault.message.contains(words)).count();
            text.single(name, "gauge", help, count);
        }
    }

    fn expose_counts(&self, text: &mut Exposition) {
        let counts = self.metrics().lock();
        text.family("pilot_xds_pushes", "counter", "Responses sent to proxies, by type.");
        for (kind, count) in &counts.pushes {
            text.sample("pilot_xds_pushes", &[("type", &type_label(*kind))], count);
        }
        text.family(
            "pilot_total_xds_rejects",
            "counter",
            "Total number of XDS responses from pilot rejected by proxy.",
        );
        for (kind, count) in &counts.rejects {
            text.sample("pilot_total_xds_rejects", &[("type", &type_label(*kind))], count);
        }
        let help = "Resources that proxies asked for by name and were not given, by type.";
        text.family("sluis_xds_absent_total", "counter", help);
        for (kind, count) in &counts.absent {
            text.sample("sluis_xds_absent_total", &[("type", &type_label(*kind))], count);
        }
        text.histogram(
            "pilot_proxy_convergence_time",
            "Delay in seconds between config change and a proxy receiving all required configuration.",
            &counts.convergence,
        );
        text.histogram(
            "pilot_pushcontext_init_seconds",
            "Total time in seconds Pilot takes to init pushContext.",
            &counts.apply,
        );
        text.family(
            "pilot_inbound_updates",
            "counter",
            "Total number of updates received by pilot.",
        );
        text.sample("pilot_inbound_updates", &[("type", "config")], counts.updates);
    }
}

/// The proxies that refuse now, by kind.
fn expose_rejects(text: &mut Exposition, proxies: &[ProxyStatus]) {
    for kind in [Kind::Cluster, Kind::Endpoints, Kind::Listener, Kind::Route] {
        let label = type_label(kind);
        let name = format!("pilot_xds_{label}_reject");
        text.family(&name, "gauge", &format!("Pilot rejected {} configs.", kind.short()));
        for proxy in proxies {
            if let Some(Sync::Nack(_)) = proxy.kinds.get(&kind).map(|status| &status.sync) {
                let node = proxy.node.as_deref().unwrap_or_default();
                text.sample(&name, &[("node", node)], 1);
            }
        }
    }
}

/// The kind as Istio's metrics call it.
fn type_label(kind: Kind) -> String {
    kind.short().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_is_cumulative_and_labels_are_escaped() {
        let mut histogram = Histogram::new(&CONVERGENCE_BUCKETS);
        histogram.observe(Duration::from_millis(200));
        histogram.observe(Duration::from_secs(60));
        let mut text = Exposition::default();
        text.histogram("t", "Time.", &histogram);
        text.sample("x", &[("a", "say \"hi\"\n"), ("b", "c")], 1);
        let text = text.into_text();
        for line in [
            "# TYPE t histogram",
            "t_bucket{le=\"0.1\"} 0",
            "t_bucket{le=\"0.5\"} 1",
            "t_bucket{le=\"30\"} 1",
            "t_bucket{le=\"+Inf\"} 2",
            "t_sum 60.2",
            "t_count 2",
            r#"x{a="say \"hi\"\n",b="c"} 1"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }
}
