//! Asks one endpoint for its health, again and again: Envoy's rules for thresholds and intervals.
//!
//! In:    a health check of a cluster, an endpoint.
//! Out:   the endpoint marked as well or not.
//! Never: asks on a worker; keeps a connection from one question to the next.

mod ask;

pub(in crate::control) use self::ask::{check_request, is_serving};

use std::{rc::Rc, sync::Arc, time::Duration};

use sluis_rules::HealthCheck;
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use tracing::info;

use self::ask::{Asked, ask};
use crate::{config::Backend, hosts::Host, random::Random};

/// What one question came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The endpoint is well.
    Good,
    /// It answered that it is not.
    Bad,
    /// It did not answer, or in a way that counts like that.
    Silent,
}

/// What an answer did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    None,
    Pending,
    Done,
}

/// What is known of one endpoint.
#[derive(Debug)]
struct Session {
    is_failed: bool,
    is_first: bool,
    good: u32,
    bad: u32,
}

impl Session {
    fn new(is_failed: bool, is_first: bool) -> Self {
        Self { is_failed, is_first, good: 0, bad: 0 }
    }

    fn on(&mut self, answer: Answer, check: &HealthCheck) -> Change {
        let is_first = std::mem::take(&mut self.is_first);
        if answer == Answer::Good {
            self.bad = 0;
            if !self.is_failed {
                return Change::None;
            }
            self.good += 1;
            if !is_first && self.good < check.healthy_threshold {
                return Change::Pending;
            }
            self.is_failed = false;
            return Change::Done;
        }
        self.good = 0;
        if self.is_failed {
            // The first answer is news even if it is what was assumed.
            return if is_first { Change::Done } else { Change::None };
        }
        self.bad += 1;
        if answer == Answer::Silent && self.bad < check.unhealthy_threshold {
            return Change::Pending;
        }
        self.is_failed = true;
        Change::Done
    }

    /// The time to the next question.
    fn wait(&self, check: &HealthCheck, change: Change, has_traffic: bool) -> Duration {
        let unhealthy = check.unhealthy_interval.unwrap_or(check.interval);
        match (has_traffic, self.is_failed, change) {
            (false, false, _) => {
                check.no_traffic_healthy_interval.unwrap_or(check.no_traffic_interval)
            }
            (false, true, _) => check.no_traffic_interval,
            (true, true, Change::Pending) => check.healthy_edge_interval.unwrap_or(unhealthy),
            (true, true, _) => unhealthy,
            (true, false, Change::Pending) => check.unhealthy_edge_interval.unwrap_or(unhealthy),
            (true, false, _) => check.interval,
        }
    }
}

/// Asks for ever.
pub(super) async fn watch(
    backend: Arc<Backend>,
    place: usize,
    host: Arc<Host>,
    check: Arc<HealthCheck>,
    known: Rc<Notify>,
) {
    let random = Random::from_os();
    let jitter = |most: Duration| {
        let most = u64::try_from(most.as_millis()).unwrap_or(u64::MAX - 1);
        Duration::from_millis(random.below(most + 1))
    };
    let mut session = Session::new(host.is_failed(), host.is_pending());
    sleep(jitter(check.initial_jitter)).await;
    loop {
        let asked = Asked { backend: &backend, place, check: &check };
        let answer = timeout(check.timeout, ask(asked)).await.unwrap_or(Answer::Silent);
        let change = session.on(answer, &check);
        if change == Change::Done {
            host.set_failed(session.is_failed);
            known.notify_one();
            info!(cluster = %backend.name, endpoint = %host.address(), healthy = !session.is_failed, "health check");
        }
        let readmits = answer == Answer::Good
            && !session.is_failed
            && host.is_ejected()
            && backend.outlier.as_ref().is_some_and(|rules| rules.health_check_readmits);
        if readmits {
            host.set_ejected(false);
        }
        if readmits || change == Change::Done {
            backend.rebalance();
        }
        let wait = session.wait(&check, change, backend.group.has_traffic());
        let part = wait * check.interval_jitter_percent.min(100) / 100;
        sleep(wait + jitter(check.interval_jitter) + jitter(part)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluis_rules::{Probe, TcpProbe};

    fn check() -> HealthCheck {
        HealthCheck {
            timeout: Duration::from_secs(1),
            interval: Duration::from_secs(5),
            no_traffic_interval: Duration::from_secs(60),
            no_traffic_healthy_interval: None,
            unhealthy_interval: Some(Duration::from_secs(2)),
            unhealthy_edge_interval: Some(Duration::from_secs(1)),
            healthy_edge_interval: None,
            initial_jitter: Duration::ZERO,
            interval_jitter: Duration::ZERO,
            interval_jitter_percent: 0,
            unhealthy_threshold: 2,
            healthy_threshold: 2,
            port: 0,
            probe: Probe::Tcp(TcpProbe::default()),
        }
    }

    #[test]
    fn the_first_answer_counts_at_once_and_later_ones_by_their_thresholds() {
        let check = check();
        let mut session = Session::new(true, true);
        let steps = [
            (Answer::Good, Change::Done, false),
            (Answer::Silent, Change::Pending, false),
            (Answer::Good, Change::None, false),
            (Answer::Silent, Change::Pending, false),
            (Answer::Silent, Change::Done, true),
            (Answer::Good, Change::Pending, true),
            (Answer::Good, Change::Done, false),
            // An answer that says no needs no second.
            (Answer::Bad, Change::Done, true),
        ];
        for (answer, change, is_failed) in steps {
            assert_eq!((session.on(answer, &check), session.is_failed), (change, is_failed));
        }
    }

    #[test]
    fn questions_come_more_often_where_it_matters() {
        let check = check();
        let seconds =
            |session: &Session, change, traffic| session.wait(&check, change, traffic).as_secs();
        let (well, ill) = (Session::new(false, false), Session::new(true, false));
        assert_eq!(seconds(&well, Change::None, false), 60);
        assert_eq!(seconds(&well, Change::None, true), 5);
        assert_eq!(seconds(&well, Change::Pending, true), 1);
        assert_eq!(seconds(&ill, Change::Done, true), 2);
    }
}
