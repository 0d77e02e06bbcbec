//! Join tokens: each lets one workload ask once, soon, for its first certificate.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest::{SHA256, SHA256_OUTPUT_LEN, digest},
    rand,
};
use sluis_nouns::WorkloadId;
use sluis_tls::Clock;

/// The random secret: nobody guesses 256 bits.
const SECRET_BYTES: usize = 32;
/// The public part, by which a token is found: enough not to collide.
const HANDLE_BYTES: usize = 8;
/// Tokens that wait to be used. One machine starts far fewer workloads within a token's life.
const TOKENS_MAX: usize = 16_384;

/// A token, as given to the workload. Only its holder has it: the authority keeps a hash.
pub struct JoinToken(String);

/// The tokens that wait to be used. They do not outlive the process.
#[derive(Debug)]
pub struct JoinTokens {
    clock: Clock,
    waiting: Mutex<HashMap<String, Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    hash: [u8; SHA256_OUTPUT_LEN],
    id: WorkloadId,
    expires: SystemTime,
    /// Kept until it expires, so that a replay is known as one.
    is_used: bool,
}

/// Why there is no token, or why one is not accepted.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Never made, or malformed.
    #[error("the join token is unknown or used")]
    Unknown,
    /// Used already: the caller is shown no difference to an unknown one, the log is.
    #[error("the join token is unknown or used")]
    Used,
    /// It was not used in time.
    #[error("the join token has expired")]
    Expired,
    /// The bound on tokens is reached.
    #[error("{TOKENS_MAX} join tokens wait already")]
    TooMany,
    /// The machine gives no random numbers.
    #[error("no random numbers")]
    NoRandom,
}

impl JoinTokens {
    /// No tokens yet.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self { clock, waiting: Mutex::default() }
    }

    /// Makes a token with which `id` may ask once, within `life` (60 s are plenty for a process
    /// that is being started).
    ///
    /// # Errors
    ///
    /// [`TokenError::TooMany`], [`TokenError::NoRandom`].
    pub fn create(&self, id: WorkloadId, life: Duration) -> Result<JoinToken, TokenError> {
        let (mut handle, mut secret) = ([0; HANDLE_BYTES], [0; SECRET_BYTES]);
        rand::fill(&mut handle)
            .and_then(|()| rand::fill(&mut secret))
            .map_err(|_| TokenError::NoRandom)?;
        let (handle, secret) = (hex(&handle), hex(&secret));
        let now = self.clock.now();
        let mut waiting = self.waiting();
        waiting.retain(|_, token| token.expires > now);
        if waiting.len() >= TOKENS_MAX {
            return Err(TokenError::TooMany);
        }
        let token = JoinToken(format!("{handle}.{secret}"));
        waiting.insert(
            handle,
            Waiting { hash: hash(&secret), id, expires: now + life, is_used: false },
        );
        Ok(token)
    }

    /// Whose token this is. It stays usable.
    ///
    /// # Errors
    ///
    /// [`TokenError::Unknown`], [`TokenError::Used`], [`TokenError::Expired`].
    pub fn check(&self, token: &str) -> Result<WorkloadId, TokenError> {
        let (handle, secret) = token.split_once('.').ok_or(TokenError::Unknown)?;
        let waiting = self.waiting();
        let found = waiting.get(handle).ok_or(TokenError::Unknown)?;
        verify_slices_are_equal(&found.hash, &hash(secret)).map_err(|_| TokenError::Unknown)?;
        if found.is_used {
            return Err(TokenError::Used);
        }
        if found.expires <= self.clock.now() {
            return Err(TokenError::Expired);
        }
        Ok(found.id.clone())
    }

    /// Uses a token up. Of two who try, one succeeds.
    ///
    /// # Errors
    ///
    /// [`TokenError::Unknown`], [`TokenError::Used`], [`TokenError::Expired`].
    pub fn redeem(&self, token: &str) -> Result<WorkloadId, TokenError> {
        self.check(token)?;
        let handle = token.split('.').next().unwrap_or_default();
        let mut waiting = self.waiting();
        let found = waiting.get_mut(handle).ok_or(TokenError::Unknown)?;
        if std::mem::replace(&mut found.is_used, true) {
            return Err(TokenError::Used);
        }
        Ok(found.id.clone())
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<String, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl JoinToken {
    /// The token's text, for the file or the header in which it travels.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinToken(…)")
    }
}

fn hash(secret: &str) -> [u8; SHA256_OUTPUT_LEN] {
    let mut out = [0; SHA256_OUTPUT_LEN];
    out.copy_from_slice(digest(&SHA256, secret.as_bytes()).as_ref());
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicU64, Ordering},
        },
        time::UNIX_EPOCH,
    };

    use super::*;

    const LIFE: Duration = Duration::from_secs(60);

    fn tokens() -> (JoinTokens, Arc<AtomicU64>) {
        let seconds = Arc::new(AtomicU64::new(1_000));
        let read = seconds.clone();
        let now = move || UNIX_EPOCH + Duration::from_secs(read.load(Ordering::Relaxed));
        (JoinTokens::new(Clock::new(now)), seconds)
    }

    fn notebook() -> WorkloadId {
        "spiffe://cluster.local/ns/team-a/sa/notebook".parse().unwrap()
    }

    #[test]
    fn a_token_is_good_for_one_use_and_for_its_workload() {
        let (tokens, _) = tokens();
        let token = tokens.create(notebook(), LIFE).unwrap();
        assert_eq!(tokens.check(token.reveal()), Ok(notebook()));
        assert_eq!(tokens.redeem(token.reveal()), Ok(notebook()));
        assert_eq!(tokens.redeem(token.reveal()), Err(TokenError::Used));
        assert_eq!(tokens.check(token.reveal()), Err(TokenError::Used));
        let (handle, _) = token.reveal().split_once('.').unwrap();
        let guessed = tokens.check(&format!("{handle}.00"));
        assert_eq!(
            guessed,
            Err(TokenError::Unknown),
            "who does not know the secret learns nothing"
        );
    }

    #[test]
    fn a_token_expires() {
        let (tokens, seconds) = tokens();
        let token = tokens.create(notebook(), LIFE).unwrap();
        seconds.fetch_add(59, Ordering::Relaxed);
        assert_eq!(tokens.check(token.reveal()), Ok(notebook()));
        seconds.fetch_add(1, Ordering::Relaxed);
        assert_eq!(tokens.redeem(token.reveal()), Err(TokenError::Expired));
        tokens.create(notebook(), LIFE).unwrap();
        assert_eq!(tokens.redeem(token.reveal()), Err(TokenError::Unknown));
    }

    #[test]
    fn a_wrong_secret_neither_passes_nor_uses_the_token_up() {
        let (tokens, _) = tokens();
        let token = tokens.create(notebook(), LIFE).unwrap();
        let (handle, secret) = token.reveal().split_once('.').unwrap();
        assert_eq!(secret.len(), SECRET_BYTES * 2);
        for wrong in ["", ".", handle, &format!("{handle}."), &format!("{handle}.{handle}")] {
            assert_eq!(tokens.redeem(wrong), Err(TokenError::Unknown), "{wrong}");
        }
        assert_eq!(tokens.redeem(token.reveal()), Ok(notebook()));
    }

    #[test]
    fn what_is_kept_and_printed_does_not_give_the_token_away() {
        let (tokens, _) = tokens();
        let token = tokens.create(notebook(), LIFE).unwrap();
        let secret = token.reveal().split_once('.').unwrap().1;
        assert!(!format!("{tokens:?} {token:?}").contains(secret));
    }
}
