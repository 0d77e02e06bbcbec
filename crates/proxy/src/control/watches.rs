//! Watches the endpoints of clusters: outlier detection, health checks, slow start.
//!
//! In:    the clusters of each published configuration.
//! Out:   balancers made anew when an endpoint's state has changed.
//! Never: runs on a worker, or twice for one cluster.

use std::{
    collections::HashMap,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::Notify,
    task::{AbortHandle, JoinSet},
    time::{MissedTickBehavior, interval, sleep},
};

use super::{health, outlier::Detector};
use crate::{config::Backend, hosts::Host, random::Random};

/// How often the shares of new endpoints are made anew (slow start).
const SLOW_START_STEP: Duration = Duration::from_millis(100);

/// The tasks that watch clusters, by name.
#[derive(Debug, Default)]
pub(super) struct Watches {
    tasks: HashMap<Arc<str>, (Arc<Backend>, AbortHandle)>,
    set: JoinSet<()>,
    /// Rings when an endpoint's health has become known.
    pub(super) known: Rc<Notify>,
}

impl Watches {
    /// Watches exactly these clusters.
    pub(super) fn follow<'b>(&mut self, backends: impl Iterator<Item = &'b Arc<Backend>>) {
        while self.set.try_join_next().is_some() {}
        let mut before = std::mem::take(&mut self.tasks);
        for backend in backends.filter(|backend| needs_watch(backend)) {
            let task = match before.remove(&backend.name) {
                Some((known, task)) if Arc::ptr_eq(&known, backend) => task,
                old => {
                    old.into_iter().for_each(|(_, task)| task.abort());
                    self.set.spawn_local(watch(Arc::clone(backend), Rc::clone(&self.known)))
                }
            };
            self.tasks.insert(Arc::clone(&backend.name), (Arc::clone(backend), task));
        }
        before.into_values().for_each(|(_, task)| task.abort());
    }
}

/// Whether a cluster waits for the first answer of its endpoints.
pub(super) fn is_unknown(backend: &Backend) -> bool {
    let mut hosts = backend.hosts.iter().flatten().peekable();
    hosts.peek().is_some() && hosts.all(|host| host.is_pending())
}

fn needs_watch(backend: &Backend) -> bool {
    backend.outlier.is_some() || !backend.health_checks.is_empty() || backend.slow_start.is_some()
}

async fn watch(backend: Arc<Backend>, known: Rc<Notify>) {
    let mut tasks = JoinSet::new();
    tasks.spawn_local(detect(Arc::clone(&backend)));
    tasks.spawn_local(grow(Arc::clone(&backend)));
    for (place, host) in backend.hosts.iter().enumerate() {
        let Some(host) = host.as_ref().filter(|_| !backend.endpoints.list[place].probe.is_disabled)
        else {
            continue;
        };
        for check in &backend.health_checks {
            tasks.spawn_local(health::watch(
                Arc::clone(&backend),
                place,
                Arc::clone(host),
                Arc::clone(check),
                Rc::clone(&known),
            ));
        }
    }
    while tasks.join_next().await.is_some() {}
}

/// Runs outlier detection.
async fn detect(backend: Arc<Backend>) {
    let Some(rules) = backend.outlier.clone() else { return };
    let random = Random::from_os();
    let hosts: Vec<Arc<Host>> = backend.hosts.iter().flatten().cloned().collect();
    let detector =
        Detector { cluster: &backend.name, rules: &rules, hosts: &hosts, random: &random };
    let mut ticks = interval(rules.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        let changed = tokio::select! {
            () = backend.group.alarm.notified() => detector.on_alarm(Instant::now()),
            _ = ticks.tick() => detector.on_interval(Instant::now()),
        };
        if changed {
            backend.rebalance();
        }
    }
}

/// Gives new endpoints their growing share.
async fn grow(backend: Arc<Backend>) {
    let Some(config) = backend.slow_start else { return };
    let mut was_new = true;
    loop {
        let now = Instant::now();
        let is_new = backend.hosts.iter().flatten().any(|host| host.is_new(&config, now));
        // Once more when the last is grown up.
        if is_new || was_new {
            backend.rebalance();
        }
        was_new = is_new;
        sleep(SLOW_START_STEP).await;
    }
}
