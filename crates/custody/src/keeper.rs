//! Decides which versions of one credential are in force.
//!
//! In:    what the source gave, or why it gave nothing, with the time.
//! Out:   an [`Account`], and when to ask again.
//! Never: reads a clock or draws by itself; lets a failing source take away what is good, or keeps what
//!        has expired or is staler than its bound.
//!
//! ```text
//!   nothing ──fetched──▶ current ──fetched, other values──▶ current + previous ──grace──▶ current
//!      ▲                    │
//!      └── expired, or the source silent for `max_stale` ──┘     (a failure alone changes nothing)
//! ```

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{FetchError, Fetched, Label, Reason, Version};

/// First wait after a failure.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Longest wait after a failure: what comes back is in use within a minute.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// How often sources are looked at that cost nothing: a changed file is in use within this time.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Shortest time between two questions, however soon a version ends.
const ASK_APART: Duration = Duration::from_secs(1);

/// How one credential is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// How often the source is asked.
    pub refresh: Duration,
    /// How long the version before is kept beside the new one.
    pub grace: Duration,
    /// How long before its end a version is warned of.
    pub alert_before: Duration,
    /// How long the last good version is used while the source fails.
    pub max_stale: Duration,
}

/// What is in force, and how it stands with the source.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// The version to use.
    pub current: Option<Arc<Version>>,
    /// The version before, while its grace lasts.
    pub previous: Option<Arc<Version>>,
    /// For people.
    pub status: Status,
}

impl Account {
    /// Whether proxies are told the same by both.
    #[must_use]
    pub fn gives_same(&self, other: &Self) -> bool {
        self.current == other.current && self.previous == other.previous
    }
}

/// How it stands with the source. Holds no value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The kind of source.
    pub source: &'static str,
    /// When the source last gave an answer that can be used.
    pub fetched: Option<SystemTime>,
    /// When the current version came into force.
    pub changed: Option<SystemTime>,
    /// Until when the version before is kept.
    pub previous_until: Option<SystemTime>,
    /// Why the source gives nothing now, and since when.
    pub failing: Option<(Reason, String, SystemTime)>,
    /// Whether there was a version that is no longer used, because it expired or is too stale.
    pub withdrawn: Option<&'static str>,
    /// Whether the current version ends within the time that is warned of.
    pub expires_soon: bool,
    /// Answers that could be used.
    pub fetches: u64,
    /// Failures.
    pub failures: u64,
    /// Changes of the values.
    pub rotations: u64,
}

/// One credential's versions over time.
#[derive(Debug)]
pub struct Keeper {
    schedule: Schedule,
    account: Account,
    is_watched: bool,
    tries: u32,
}

impl Keeper {
    /// Nothing is known yet. `is_watched`: the source is looked at every second.
    #[must_use]
    pub fn new(source: &'static str, schedule: Schedule, is_watched: bool) -> Self {
        let status = Status { source, ..Status::default() };
        Self { schedule, account: Account { status, ..Account::default() }, is_watched, tries: 0 }
    }

    /// What is in force.
    #[must_use]
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// Goes on with another schedule.
    pub fn reschedule(&mut self, schedule: Schedule) {
        self.schedule = schedule;
    }

    /// Takes in what the source said. Returns when to ask again; `draw` is a random number.
    pub fn on(
        &mut self,
        answer: Result<Fetched, FetchError>,
        now: SystemTime,
        draw: u64,
    ) -> Duration {
        let expired = |fetched: &Fetched| fetched.not_after.is_some_and(|end| end <= now);
        match answer {
            Ok(fetched) if expired(&fetched) => self.failed(&FetchError::Expired, now),
            Ok(fetched) => self.fetched(fetched, now),
            Err(error) => self.failed(&error, now),
        }
        self.pass(now);
        self.next(now, draw)
    }

    /// Lets time pass: drops what is no longer in force. True when something was.
    pub fn pass(&mut self, now: SystemTime) -> bool {
        let before = self.account.clone();
        let account = &mut self.account;
        let ended = |version: &Arc<Version>| version.is_expired(now);
        let grace_over = account.status.previous_until.is_some_and(|until| until <= now);
        if grace_over || account.previous.as_ref().is_some_and(ended) {
            account.previous = None;
            account.status.previous_until = None;
        }
        let stale = account
            .status
            .fetched
            .and_then(|at| now.duration_since(at).ok())
            .is_some_and(|age| age >= self.schedule.max_stale);
        let withdrawn = match &account.current {
            Some(current) if ended(current) => Some("expired"),
            Some(_) if stale && account.status.failing.is_some() => Some("stale"),
            _ => None,
        };
        if let Some(why) = withdrawn {
            account.current = None;
            account.previous = None;
            account.status.previous_until = None;
            account.status.withdrawn = Some(why);
        }
        let end = account.current.as_ref().and_then(|current| current.not_after);
        account.status.expires_soon = end.is_some_and(|end| {
            end.duration_since(now).unwrap_or_default() < self.schedule.alert_before
        });
        !account.gives_same(&before) || account.status != before.status
    }

    /// When time alone next changes something.
    #[must_use]
    pub fn next_change(&self) -> Option<SystemTime> {
        let Account { current, previous, status } = &self.account;
        let ends = [current, previous].into_iter().flatten().filter_map(|one| one.not_after);
        let alert = current
            .as_ref()
            .and_then(|one| one.not_after)
            .filter(|_| !status.expires_soon)
            .and_then(|end| end.checked_sub(self.schedule.alert_before));
        let stale = (status.failing.is_some() && current.is_some())
            .then_some(status.fetched)
            .flatten()
            .and_then(|at| at.checked_add(self.schedule.max_stale));
        ends.chain(status.previous_until).chain(alert).chain(stale).min()
    }

    fn fetched(&mut self, fetched: Fetched, now: SystemTime) {
        self.tries = 0;
        let status = &mut self.account.status;
        status.fetched = Some(now);
        status.failing = None;
        status.withdrawn = None;
        status.fetches += 1;
        let Fetched { entries, label, not_after } = fetched;
        let current = self.account.current.take();
        if let Some(current) = &current
            && current.entries == entries
        {
            // The same values: a word of the source is taken over, a file's new time says nothing.
            let label = match label {
                Label::Told(told) => told,
                Label::Changed(_) | Label::None => current.label.clone(),
            };
            let same = Version { entries, label, not_after };
            let kept = if **current == same { Arc::clone(current) } else { Arc::new(same) };
            self.account.current = Some(kept);
            return;
        }
        let mut label = match label {
            Label::Told(told) => told,
            Label::Changed(at) => rfc3339(at),
            Label::None => rfc3339(now),
        };
        // Two versions never have one name, whatever the source says.
        while current.as_ref().is_some_and(|current| current.label == label) {
            label.push_str("+1");
        }
        if let Some(current) = current {
            status.rotations += 1;
            if !self.schedule.grace.is_zero() {
                self.account.previous = Some(current);
                status.previous_until = now.checked_add(self.schedule.grace);
            }
        }
        status.changed = Some(now);
        self.account.current = Some(Arc::new(Version { entries, label, not_after }));
    }

    fn failed(&mut self, error: &FetchError, now: SystemTime) {
        self.tries = self.tries.saturating_add(1);
        let status = &mut self.account.status;
        status.failures += 1;
        let since = status.failing.as_ref().map_or(now, |(_, _, since)| *since);
        status.failing = Some((error.reason(), error.to_string(), since));
    }

    /// Up to a half is taken off at random, so that many do not ask together.
    fn next(&self, now: SystemTime, draw: u64) -> Duration {
        if self.tries > 0 {
            let doubled = RETRY_FIRST.saturating_mul(1 << (self.tries.min(16) - 1));
            let most = if self.is_watched { LOOK_EVERY } else { RETRY_MAX };
            return jitter(doubled.min(most), 2, draw);
        }
        if self.is_watched {
            return LOOK_EVERY;
        }
        let end = self.account.current.as_ref().and_then(|current| current.not_after);
        // With two thirds of its life to go there is time for several attempts.
        let before_end = end.map(|end| end.duration_since(now).unwrap_or_default() / 3);
        let wait = before_end.map_or(self.schedule.refresh, |left| left.min(self.schedule.refresh));
        jitter(wait, 10, draw).max(ASK_APART)
    }
}

/// The wait, less up to one `part`-th of it.
fn jitter(wait: Duration, part: u32, draw: u64) -> Duration {
    let spread = u64::try_from((wait / part).as_millis()).unwrap_or(u64::MAX);
    wait - Duration::from_millis(if spread == 0 { 0 } else { draw % spread })
}

fn rfc3339(at: SystemTime) -> String {
    let time = OffsetDateTime::from(at).replace_nanosecond(0).ok();
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
