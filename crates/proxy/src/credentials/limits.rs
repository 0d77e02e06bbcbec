//! How often each identity has used a grant in the minute that runs.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long uses are counted together.
const WINDOW: Duration = Duration::from_secs(60);

/// Identities and grants at once. Beyond it, uses are refused: who floods with identities must not
/// be counted less.
const COUNTS_MAX: usize = 20_000;

/// A grant's name, and who uses it.
type Key = (Arc<str>, String);

/// The uses of all workers.
#[derive(Debug, Default)]
pub(crate) struct Limits(Mutex<HashMap<Key, (Instant, u32)>>);

impl Limits {
    /// Counts a use; false when there were as many as there may be.
    pub(crate) fn take(&self, grant: &Arc<str>, identity: &str, most: u32, now: Instant) -> bool {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |begun: Instant| now.saturating_duration_since(begun) >= WINDOW;
        if counts.len() >= COUNTS_MAX {
            counts.retain(|_, (begun, _)| !is_over(*begun));
        }
        let is_full = counts.len() >= COUNTS_MAX;
        let key = (Arc::clone(grant), identity.to_owned());
        if is_full && !counts.contains_key(&key) {
            return false;
        }
        let (begun, count) = counts.entry(key).or_insert((now, 0));
        if is_over(*begun) {
            (*begun, *count) = (now, 0);
        }
        let may = *count < most;
        *count += u32::from(may);
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_identity_has_its_own_number_of_uses_in_a_minute() {
        let limits = Limits::default();
        let grant: Arc<str> = "egress/g".into();
        let start = Instant::now();
        assert!(limits.take(&grant, "a", 2, start) && limits.take(&grant, "a", 2, start));
        assert!(!limits.take(&grant, "a", 2, start));
        assert!(limits.take(&grant, "b", 2, start));
        assert!(!limits.take(&grant, "a", 2, start + Duration::from_secs(59)));
        assert!(limits.take(&grant, "a", 2, start + Duration::from_secs(60)));
    }
}
