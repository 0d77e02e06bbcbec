//! Token buckets of local rate limits: one for each limit, shared by all workers.
//!
//! In:    a limit of the configuration, the time.
//! Out:   a token or none, and what is left.
//! Never: blocks: a bucket is one atomic number.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Instant,
};

use sluis_rules::{LocalRateLimit, TokenBucket};

/// Buckets of the process, by their limit's place in memory, which the entry keeps alive.
#[derive(Debug, Default)]
pub(crate) struct Buckets(Mutex<HashMap<usize, Shared>>);

/// A bucket, and the limit that it belongs to.
type Shared = (Arc<LocalRateLimit>, Arc<Bucket>);

impl Buckets {
    /// The bucket of a limit, full when it is asked for the first time; `None` when it has none.
    pub(crate) fn of(&self, limit: &Arc<LocalRateLimit>) -> Option<Arc<Bucket>> {
        let settings = limit.bucket?;
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Limits of configurations that are gone.
        all.retain(|_, (limit, _)| Arc::strong_count(limit) > 1);
        let entry = all.entry(Arc::as_ptr(limit) as usize);
        let (_, bucket) =
            entry.or_insert_with(|| (Arc::clone(limit), Arc::new(Bucket::full(settings))));
        Some(Arc::clone(bucket))
    }
}

/// Tokens that come back steadily, as in Envoy: with each moment a part of one.
#[derive(Debug)]
pub(crate) struct Bucket {
    tokens_max: u32,
    /// Nanoseconds in which one token comes back.
    token_nanos: i64,
    origin: Instant,
    /// Nanoseconds from `origin` to the moment at which the bucket was, or would have been, empty.
    empty_at: AtomicI64,
}

/// What is left in a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) tokens_max: u32,
    pub(crate) tokens: u64,
    /// Seconds until there is a token; 0 when there is one.
    pub(crate) reset_seconds: u64,
}

impl Bucket {
    pub(crate) fn full(settings: TokenBucket) -> Self {
        let nanos = settings.fill_interval.as_nanos() / u128::from(settings.per_fill);
        let token_nanos = i64::try_from(nanos).unwrap_or(i64::MAX / 2).max(1);
        let bucket = Self {
            tokens_max: settings.tokens_max,
            token_nanos,
            origin: Instant::now(),
            empty_at: AtomicI64::new(0),
        };
        bucket.empty_at.store(bucket.capacity().saturating_neg(), Ordering::Relaxed);
        bucket
    }

    fn capacity(&self) -> i64 {
        self.token_nanos.saturating_mul(i64::from(self.tokens_max))
    }

    fn since_origin(&self, now: Instant) -> i64 {
        i64::try_from(now.saturating_duration_since(self.origin).as_nanos()).unwrap_or(i64::MAX)
    }

    /// Takes a token, if there is one.
    pub(crate) fn take(&self, now: Instant) -> bool {
        let now = self.since_origin(now);
        let step = |empty_at: i64| {
            let oldest = now.saturating_sub(self.capacity());
            let next = empty_at.max(oldest).saturating_add(self.token_nanos);
            (next <= now).then_some(next)
        };
        self.empty_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step).is_ok()
    }

    /// What is left.
    pub(crate) fn left(&self, now: Instant) -> Left {
        let now = self.since_origin(now);
        let stored = now.saturating_sub(self.empty_at.load(Ordering::Relaxed));
        let stored = stored.clamp(0, self.capacity());
        let tokens = u64::try_from(stored / self.token_nanos).unwrap_or(0);
        let missing = if tokens > 0 { 0 } else { self.token_nanos - stored };
        Left {
            tokens_max: self.tokens_max,
            tokens,
            reset_seconds: u64::try_from(missing / 1_000_000_000).unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn tokens_run_out_and_come_back() {
        let fill_interval = Duration::from_secs(10);
        let bucket = Bucket::full(TokenBucket { tokens_max: 2, per_fill: 1, fill_interval });
        let start = Instant::now();
        assert!(bucket.take(start) && bucket.take(start) && !bucket.take(start));
        assert_eq!(bucket.left(start).tokens, 0);
        let later = start + Duration::from_secs(11);
        assert!(bucket.take(later) && !bucket.take(later));
        let much_later = start + Duration::from_secs(1000);
        assert!(bucket.take(much_later) && bucket.take(much_later) && !bucket.take(much_later));
    }
}
