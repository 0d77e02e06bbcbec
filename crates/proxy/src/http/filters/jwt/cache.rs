//! Tokens that have been verified, so that the next request with one costs no signature.
//!
//! In:    tokens whose signature was good by a key set.
//! Out:   the same tokens, as long as the set is that one.
//! Never: holds more than a bounded number; holds one that was refused; gives one whose keys are not
//!        those of now. Times and audiences are looked at by the caller, every time.
//!
//! Tokens are looked up by their last bytes, which are of the signature: of those that are held nobody
//! could choose them but who signs. The map is std's with its keyed hash all the same.

use std::{
    collections::{HashMap, VecDeque},
    rc::Rc,
    sync::Arc,
};

use sluis_jwt::{KeySet, Token};
use sluis_rules::MetaValue;

/// Tokens of one provider on one worker, where the configuration does not say: with usual tokens of
/// 1 KiB, taken apart to some 6 KiB, that is 1.5 MiB.
const TOKENS_MAX: usize = 256;

/// Longest token that is remembered, where the configuration does not say: Envoy's figure.
const TOKEN_BYTES_MAX: usize = 4096;

/// Bytes of a token by which it is looked up: 192 bits of its signature. One with the same last bytes as
/// another takes its place, and costs that one a signature.
const TAIL_BYTES: usize = 32;

type Tail = [u8; TAIL_BYTES];

/// The last bytes of a token; a shorter one has zeros before.
fn tail(text: &str) -> Tail {
    let mut tail = [0; TAIL_BYTES];
    let len = text.len().min(TAIL_BYTES);
    tail[TAIL_BYTES - len..].copy_from_slice(&text.as_bytes()[text.len() - len..]);
    tail
}

/// A token that is held, with the keys that have verified it.
#[derive(Debug)]
struct Held {
    text: Box<str>,
    by: Arc<KeySet>,
    verified: Rc<Verified>,
}

/// A verified token with what filters are told of it.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) token: Token,
    pub(super) payload: MetaValue,
    pub(super) header: MetaValue,
}

/// The tokens of one provider.
#[derive(Debug)]
pub(super) struct Cache {
    tokens_max: usize,
    bytes_max: usize,
    tokens: HashMap<Tail, Held>,
    /// The oldest first.
    order: VecDeque<Tail>,
}

impl Cache {
    /// An empty cache; `limits` are tokens and bytes of one.
    pub(super) fn new(limits: Option<(usize, usize)>) -> Self {
        let (tokens_max, bytes_max) = limits.unwrap_or((TOKENS_MAX, TOKEN_BYTES_MAX));
        Self { tokens_max, bytes_max, tokens: HashMap::new(), order: VecDeque::new() }
    }

    /// A token that these keys have verified.
    pub(super) fn get(&self, text: &str, keys: &Arc<KeySet>) -> Option<Rc<Verified>> {
        let held = self.tokens.get(&tail(text)).filter(|held| *held.text == *text)?;
        Arc::ptr_eq(&held.by, keys).then(|| Rc::clone(&held.verified))
    }

    /// Forgets a token.
    pub(super) fn forget(&mut self, text: &str) {
        let tail = tail(text);
        if self.tokens.get(&tail).is_some_and(|held| *held.text == *text) {
            self.tokens.remove(&tail);
            self.order.retain(|known| *known != tail);
        }
    }

    /// Remembers a token that these keys have verified.
    pub(super) fn put(&mut self, text: &str, keys: &Arc<KeySet>, verified: &Rc<Verified>) {
        if text.len() > self.bytes_max {
            return;
        }
        let tail = tail(text);
        let held = Held { text: text.into(), by: Arc::clone(keys), verified: Rc::clone(verified) };
        if self.tokens.insert(tail, held).is_some() {
            return;
        }
        self.order.push_back(tail);
        while self.order.len() > self.tokens_max {
            if let Some(oldest) = self.order.pop_front() {
                self.tokens.remove(&oldest);
            }
        }
    }
}
