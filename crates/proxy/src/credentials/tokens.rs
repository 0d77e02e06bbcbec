//! Tokens of authorization servers, for all workers: what has been fetched, until when it is good, and
//! whose turn it is to fetch.
//!
//! In:    tokens and failures, by whom they were fetched for.
//! Out:   tokens that are good now.
//! Never: gives a token that was had with other values of the secret, by another flow or for another
//!        subject; shows one; holds more than a bound.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sluis_signing::{DpopKey, SignError, Token};
use sluis_tls::GenericSecret;
use tokio::time::Instant;

/// Tokens at once, of all credentials and users. Beyond it the one that was used the longest ago goes.
const TOKENS_MAX: usize = 10_000;

/// How long a failure is not asked about again.
const FAILURE_TIME: Duration = Duration::from_secs(2);

/// How old a token must be to be fetched anew because its server says no: a client whose requests are
/// refused for reasons of their own must not make us ask each time.
const REFUSED_AGE_MIN: Duration = Duration::from_secs(10);

/// Servers whose nonces are remembered.
const NONCES_MAX: usize = 256;

/// Longest nonce: RFC 9449 has examples of 24 characters.
const NONCE_BYTES_MAX: usize = 256;

/// All tokens of the process, and the key that they are bound to.
#[derive(Default)]
pub(crate) struct Tokens {
    slots: Mutex<HashMap<Key, (Arc<Slot>, Instant)>>,
    key: OnceLock<DpopKey>,
    nonces: Mutex<HashMap<String, String>>,
}

/// A credential's name, and what [`sluis_signing::Flow::key`] says of flow and subject.
pub(crate) type Key = (Arc<str>, [u8; 32]);

/// The place of one token.
#[derive(Default)]
pub(crate) struct Slot {
    known: Mutex<Known>,
    /// Held by whoever fetches.
    pub(crate) turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Known {
    held: Option<Arc<Held>>,
    /// When the last try failed, with which values.
    failure: Option<(Arc<GenericSecret>, Instant)>,
}

/// A token.
pub(crate) struct Held {
    pub(crate) token: Token,
    /// The values that it was had with.
    pub(crate) secret: Arc<GenericSecret>,
    had_at: Instant,
    fresh_until: Instant,
    good_until: Instant,
    is_refused: AtomicBool,
}

impl Held {
    pub(crate) fn new(token: Token, secret: Arc<GenericSecret>, now: Instant) -> Self {
        let until = |seconds| now + Duration::from_secs(seconds);
        let fresh_until = until(token.fresh_seconds());
        let good_until = until(token.lifetime_seconds());
        let is_refused = AtomicBool::new(false);
        Self { token, secret, had_at: now, fresh_until, good_until, is_refused }
    }

    /// The server that it is for has said no (401): it may have been taken back.
    pub(crate) fn refuse(&self, now: Instant) {
        if now.saturating_duration_since(self.had_at) >= REFUSED_AGE_MIN {
            self.is_refused.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it may be used.
    pub(crate) fn is_good(&self, now: Instant) -> bool {
        now < self.good_until
    }

    /// Whether it need not be fetched anew yet.
    pub(crate) fn is_fresh(&self, now: Instant) -> bool {
        now < self.fresh_until
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Held")
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").field("count", &lock(&self.slots).len()).finish_non_exhaustive()
    }
}

impl Tokens {
    /// The place of a token; room is made for it.
    pub(crate) fn slot(&self, key: Key, now: Instant) -> Arc<Slot> {
        let mut slots = lock(&self.slots);
        if let Some((slot, used)) = slots.get_mut(&key) {
            *used = now;
            return Arc::clone(slot);
        }
        if slots.len() >= TOKENS_MAX {
            slots.retain(|_, (slot, _)| slot.is_worth_keeping(now));
        }
        if slots.len() >= TOKENS_MAX {
            let oldest =
                slots.iter().min_by_key(|(_, (_, used))| *used).map(|(key, _)| key.clone());
            oldest.map(|key| slots.remove(&key));
        }
        let slot = Arc::<Slot>::default();
        slots.insert(key, (Arc::clone(&slot), now));
        slot
    }

    /// The key that tokens are bound to: made when it is needed first, and never leaves.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub(crate) fn key(&self) -> Result<&DpopKey, SignError> {
        if let Some(key) = self.key.get() {
            return Ok(key);
        }
        let made = DpopKey::generate()?;
        Ok(self.key.get_or_init(|| made))
    }

    /// What a server gave last in `DPoP-Nonce`.
    pub(crate) fn nonce(&self, authority: &str) -> Option<String> {
        lock(&self.nonces).get(authority).cloned()
    }

    /// Remembers a nonce (RFC 9449 §8.1: the characters of a nonce); whether it is a new one.
    pub(crate) fn remember(&self, authority: &str, nonce: &[u8]) -> bool {
        let is_good = |byte: &u8| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
        let nonce = match std::str::from_utf8(nonce) {
            Ok(nonce) if nonce.bytes().all(|byte| is_good(&byte)) => nonce,
            _ => return false,
        };
        if nonce.is_empty() || nonce.len() > NONCE_BYTES_MAX {
            return false;
        }
        let mut nonces = lock(&self.nonces);
        if nonces.get(authority).is_some_and(|known| known == nonce) {
            return false;
        }
        if nonces.len() >= NONCES_MAX && !nonces.contains_key(authority) {
            nonces.clear();
        }
        nonces.insert(authority.to_owned(), nonce.to_owned());
        true
    }
}

impl Slot {
    /// The token that is here, if it is good and was had with these values.
    pub(crate) fn good(&self, secret: &Arc<GenericSecret>, now: Instant) -> Option<Arc<Held>> {
        let known = lock(&self.known);
        let held = known.held.as_ref().filter(|held| Arc::ptr_eq(&held.secret, secret))?;
        let is_refused = held.is_refused.load(Ordering::Relaxed);
        (held.is_good(now) && !is_refused).then(|| Arc::clone(held))
    }

    /// Whether fetching it with these values has just failed.
    pub(crate) fn has_failed(&self, secret: &Arc<GenericSecret>, now: Instant) -> bool {
        let known = lock(&self.known);
        known.failure.as_ref().is_some_and(|(with, at)| {
            Arc::ptr_eq(with, secret) && now.saturating_duration_since(*at) < FAILURE_TIME
        })
    }

    pub(crate) fn fill(&self, held: Arc<Held>) {
        *lock(&self.known) = Known { held: Some(held), failure: None };
    }

    pub(crate) fn fail(&self, secret: &Arc<GenericSecret>, now: Instant) {
        lock(&self.known).failure = Some((Arc::clone(secret), now));
    }

    fn is_worth_keeping(&self, now: Instant) -> bool {
        let is_fetching = self.turn.try_lock().is_err();
        is_fetching || lock(&self.known).held.as_ref().is_some_and(|held| held.is_good(now))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
