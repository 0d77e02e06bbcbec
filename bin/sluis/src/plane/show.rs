//! What a running control plane prints: a line when something about a proxy changes, and each new fault.
//!
//! In:    the mesh's report, looked at when the control plane or the supervisor tells of a change.
//! Out:   lines on standard output; events of the libraries on standard error.
//! Never: the same line twice in a row for one proxy.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    io::IsTerminal,
    sync::Arc,
    time::Duration,
};

use tokio::time::sleep;
use tracing_subscriber::EnvFilter;

use super::mesh::Mesh;
use crate::{api::Answers, output};

/// Shortest time between two looks: several changes at once become one look.
const LOOK_APART: Duration = Duration::from_millis(200);
/// Longest: a certificate that was renewed is not told otherwise.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Sends events to standard error, by the level in `SLUIS_LOG` (default `warn`).
pub(crate) fn start_logging() {
    let filter = EnvFilter::try_from_env("SLUIS_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && !no_color)
        .init();
}

/// Prints changes until told to stop.
pub(crate) async fn changes(mesh: Arc<Mesh>, stopped: impl Future<Output = ()>) {
    tokio::pin!(stopped);
    let mut shown = Shown::default();
    let (mut pushes, mut processes) = (mesh.control.events(), mesh.statuses.changes());
    loop {
        let text = shown.news(&mesh);
        if !text.is_empty() && output::print(&text).is_err() {
            // Nobody reads; the mesh goes on.
            return;
        }
        tokio::select! {
            () = &mut stopped => return,
            _ = pushes.changed() => {}
            _ = processes.changed() => {}
            () = sleep(LOOK_EVERY) => {}
        }
        tokio::select! {
            () = &mut stopped => return,
            () = sleep(LOOK_APART) => {}
        }
    }
}

/// What was printed last.
#[derive(Default)]
struct Shown {
    proxies: BTreeMap<String, String>,
    faults: BTreeSet<String>,
    errors: usize,
}

impl Shown {
    /// Lines for what is new since the last call.
    fn news(&mut self, mesh: &Mesh) -> String {
        let report = mesh.report();
        let mut text = String::new();
        let mut proxies = BTreeMap::new();
        for proxy in &report.proxies {
            let (name, line) = (format!("{}/{}", proxy.namespace, proxy.name), proxy.line());
            if self.proxies.get(&name) != Some(&line) {
                text.push_str(&line);
                text.push('\n');
            }
            proxies.insert(name, line);
        }
        let faults: BTreeSet<String> = report.faults.into_iter().collect();
        for fault in faults.difference(&self.faults) {
            text.push_str(&format!("{fault}\n"));
        }
        if faults.is_empty() && !self.faults.is_empty() {
            text.push_str("no faults any more\n");
        } else if report.errors == 0 && self.errors > 0 {
            text.push_str("no errors any more, only warnings\n");
        }
        self.proxies = proxies;
        self.errors = report.errors;
        self.faults = faults;
        text
    }
}
