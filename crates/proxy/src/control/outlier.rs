//! Takes endpoints out that answer badly, and lets them in again: Envoy's rules.
//!
//! In:    what the endpoints of a cluster have counted; alarms; the interval.
//! Out:   endpoints marked as ejected or not.
//! Never: runs on a worker.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sluis_rules::Outlier;
use tracing::info;

use crate::{
    hosts::{Alarm, Host},
    random::Random,
};

/// Why an endpoint is taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Consecutive(Alarm),
    SuccessRate { is_local: bool },
    FailurePercentage { is_local: bool },
}

/// The detector of one cluster.
pub(crate) struct Detector<'d> {
    pub(crate) cluster: &'d str,
    pub(crate) rules: &'d Outlier,
    pub(crate) hosts: &'d [Arc<Host>],
    pub(crate) random: &'d Random,
}

impl Detector<'_> {
    /// Looks at what rang. Returns whether any endpoint's state changed.
    pub(crate) fn on_alarm(&self, now: Instant) -> bool {
        let mut changed = false;
        for host in self.hosts {
            let rung = host.monitor().take_alarms();
            for alarm in Alarm::ALL.into_iter().filter(|alarm| rung & *alarm as u8 != 0) {
                if host.is_ejected() {
                    continue;
                }
                changed |= self.eject(host, Reason::Consecutive(alarm), now);
                host.monitor().reset(alarm);
            }
        }
        changed
    }

    /// Does what is due each interval. Returns whether any endpoint's state changed.
    pub(crate) fn on_interval(&self, now: Instant) -> bool {
        let mut changed = false;
        for host in self.hosts.iter().filter(|host| host.is_ejected()) {
            let ejection = host.ejection();
            let time = (self.rules.base_time * ejection.backoff).min(self.rules.max_time);
            let is_over =
                ejection.at.is_none_or(|at| now.duration_since(at) >= time + ejection.jitter);
            drop(ejection);
            if is_over {
                self.readmit(host, now);
                changed = true;
            }
        }
        changed |= self.by_rate(false, now);
        changed |= self.by_rate(true, now);
        for host in self.hosts.iter().filter(|host| !host.is_ejected()) {
            let mut ejection = host.ejection();
            let rested = ejection.ended.is_some_and(|at| now - at >= self.rules.interval);
            if rested {
                ejection.backoff = ejection.backoff.saturating_sub(1);
            }
        }
        changed
    }

    /// Lets an endpoint in again.
    pub(crate) fn readmit(&self, host: &Host, now: Instant) {
        host.set_ejected(false);
        Alarm::ALL.into_iter().for_each(|alarm| host.monitor().reset(alarm));
        host.ejection().ended = Some(now);
        info!(cluster = self.cluster, endpoint = %host.address(), "endpoint let in again");
    }

    fn eject(&self, host: &Host, reason: Reason, now: Instant) -> bool {
        let active = self.hosts.iter().filter(|host| host.is_ejected()).count();
        let percent = 100.0 * (active + 1) as f64 / self.hosts.len().max(1) as f64;
        let fits =
            percent <= f64::from(self.rules.max_percent) || (self.rules.always_one && active == 0);
        if !fits || self.random.below(100) >= u64::from(self.enforced(reason)) {
            return false;
        }
        let mut ejection = host.ejection();
        ejection.at = Some(now);
        let jitter = u64::try_from(self.rules.jitter.as_millis()).unwrap_or(u64::MAX - 1);
        ejection.jitter = Duration::from_millis(self.random.below(jitter + 1));
        if self.rules.base_time * ejection.backoff < self.rules.max_time + self.rules.base_time {
            ejection.backoff += 1;
        }
        drop(ejection);
        host.set_ejected(true);
        info!(cluster = self.cluster, endpoint = %host.address(), ?reason, "endpoint taken out");
        true
    }

    /// How often, in percent, a reason has a consequence.
    fn enforced(&self, reason: Reason) -> u32 {
        let rules = self.rules;
        match reason {
            Reason::Consecutive(Alarm::Status5xx) => rules.enforce_5xx,
            Reason::Consecutive(Alarm::Gateway) => rules.enforce_gateway,
            Reason::Consecutive(Alarm::Local) => rules.enforce_local,
            Reason::SuccessRate { is_local: false } => rules.enforce_success_rate,
            Reason::SuccessRate { is_local: true } => rules.enforce_local_success_rate,
            Reason::FailurePercentage { is_local: false } => rules.enforce_failure_percentage,
            Reason::FailurePercentage { is_local: true } => rules.enforce_local_failure_percentage,
        }
    }

    fn by_rate(&self, is_local: bool, now: Instant) -> bool {
        let rules = self.rules;
        let mut by_success: Vec<(&Arc<Host>, f64)> = Vec::new();
        let mut by_failure: Vec<(&Arc<Host>, f64)> = Vec::new();
        for host in self.hosts {
            let (total, good) = host.monitor().take_rate(is_local);
            if host.is_ejected() || total == 0 {
                continue;
            }
            let rate = 100.0 * f64::from(good.min(total)) / f64::from(total);
            if total >= rules.success_rate_volume {
                by_success.push((host, rate));
            }
            if total >= rules.failure_percentage_volume {
                by_failure.push((host, rate));
            }
        }
        let mut changed = false;
        if !by_success.is_empty() && by_success.len() >= rules.success_rate_hosts as usize {
            let least = threshold(&by_success, f64::from(rules.stdev_factor) / 1000.0);
            for (host, _) in by_success.iter().filter(|(_, rate)| *rate < least) {
                changed |= self.eject(host, Reason::SuccessRate { is_local }, now);
            }
        }
        if !by_failure.is_empty() && by_failure.len() >= rules.failure_percentage_hosts as usize {
            let most = f64::from(rules.failure_percentage);
            for (host, _) in by_failure.iter().filter(|(_, rate)| 100.0 - rate >= most) {
                if !host.is_ejected() {
                    changed |= self.eject(host, Reason::FailurePercentage { is_local }, now);
                }
            }
        }
        changed
    }
}

/// The success rate below which an endpoint differs too much from the others.
fn threshold(rates: &[(&Arc<Host>, f64)], factor: f64) -> f64 {
    let count = rates.len() as f64;
    let mean = rates.iter().map(|(_, rate)| rate).sum::<f64>() / count;
    let variance = rates.iter().map(|(_, rate)| (rate - mean).powi(2)).sum::<f64>() / count;
    mean - factor * variance.sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hosts::Group;

    fn hosts(count: u16) -> Vec<Arc<Host>> {
        let address = |port| sluis_rules::Address::Socket(([127, 0, 0, 1], port).into());
        (1..=count).map(|port| Arc::new(Host::new(address(port), false))).collect()
    }

    fn detector<'d>(
        rules: &'d Outlier,
        hosts: &'d [Arc<Host>],
        random: &'d Random,
    ) -> Detector<'d> {
        Detector { cluster: "c", rules, hosts, random }
    }

    fn ejected(hosts: &[Arc<Host>]) -> Vec<bool> {
        hosts.iter().map(|host| host.is_ejected()).collect()
    }

    #[test]
    fn bad_answers_in_a_row_take_an_endpoint_out_and_time_lets_it_in_again() {
        let rules = Outlier { max_percent: 50, ..Outlier::default() };
        let (hosts, random, group) = (hosts(2), Random::from_os(), Group::default());
        let detector = detector(&rules, &hosts, &random);
        let now = Instant::now();
        for status in [500, 500, 200, 500, 500, 500, 500] {
            hosts[0].answered(Some(&rules), &group, status);
        }
        assert!(!detector.on_alarm(now));
        hosts[0].answered(Some(&rules), &group, 502);
        assert!(detector.on_alarm(now));
        assert_eq!(ejected(&hosts), [true, false]);
        // The second would be more than half.
        (0..5).for_each(|_| hosts[1].answered(Some(&rules), &group, 500));
        assert!(!detector.on_alarm(now));
        assert!(!detector.on_interval(now + Duration::from_secs(29)));
        assert!(detector.on_interval(now + Duration::from_secs(30)));
        assert_eq!(ejected(&hosts), [false, false]);
        // Out again, for twice as long.
        (0..5).for_each(|_| hosts[0].answered(Some(&rules), &group, 500));
        let again = now + Duration::from_secs(31);
        assert!(detector.on_alarm(again));
        assert!(!detector.on_interval(again + Duration::from_secs(59)));
        assert!(detector.on_interval(again + Duration::from_secs(60)));
    }

    #[test]
    fn gateway_errors_are_counted_apart_and_enforced_only_when_asked() {
        let (hosts, random, group) = (hosts(1), Random::from_os(), Group::default());
        let lax = Outlier { max_percent: 100, consecutive_5xx: 99, ..Outlier::default() };
        let strict = Outlier { enforce_gateway: 100, ..lax.clone() };
        (0..5).for_each(|_| hosts[0].answered(Some(&lax), &group, 503));
        assert!(!detector(&lax, &hosts, &random).on_alarm(Instant::now()));
        (0..5).for_each(|_| hosts[0].answered(Some(&strict), &group, 503));
        assert!(detector(&strict, &hosts, &random).on_alarm(Instant::now()));
    }

    #[test]
    fn failed_connections_count_as_answers_unless_they_are_counted_apart() {
        let (hosts, random, group) = (hosts(2), Random::from_os(), Group::default());
        let together = Outlier { max_percent: 100, ..Outlier::default() };
        let apart = Outlier { splits_local: true, consecutive_local: 2, ..together.clone() };
        (0..5).for_each(|_| hosts[0].failed(Some(&together), &group, false));
        assert!(detector(&together, &hosts, &random).on_alarm(Instant::now()));
        hosts[1].failed(Some(&apart), &group, true);
        hosts[1].reached(Some(&apart), &group, false);
        hosts[1].failed(Some(&apart), &group, false);
        assert!(!detector(&apart, &hosts, &random).on_alarm(Instant::now()));
        hosts[1].failed(Some(&apart), &group, false);
        assert!(detector(&apart, &hosts, &random).on_alarm(Instant::now()));
        assert_eq!(ejected(&hosts), [true, true]);
    }

    #[test]
    fn an_endpoint_that_succeeds_much_less_often_than_the_others_is_taken_out() {
        let (hosts, random, group) = (hosts(6), Random::from_os(), Group::default());
        let rules = Outlier { max_percent: 100, consecutive_5xx: 10_000, ..Outlier::default() };
        for host in &hosts {
            (0..100).for_each(|_| host.answered(Some(&rules), &group, 200));
        }
        (0..100).for_each(|_| hosts[5].answered(Some(&rules), &group, 500));
        assert!(detector(&rules, &hosts, &random).on_interval(Instant::now()));
        assert_eq!(ejected(&hosts), [false, false, false, false, false, true]);
        // What was counted is gone with the interval.
        assert!(!detector(&rules, &hosts, &random).on_interval(Instant::now()));
    }

    #[test]
    fn a_failure_percentage_counts_alone_when_it_is_enforced() {
        let (hosts, random, group) = (hosts(5), Random::from_os(), Group::default());
        let rules = Outlier {
            max_percent: 100,
            consecutive_5xx: 10_000,
            enforce_failure_percentage: 100,
            enforce_success_rate: 0,
            ..Outlier::default()
        };
        for host in &hosts {
            (0..50).for_each(|_| host.answered(Some(&rules), &group, 500));
        }
        assert!(detector(&rules, &hosts, &random).on_interval(Instant::now()));
        assert_eq!(ejected(&hosts), [true; 5]);
    }
}
