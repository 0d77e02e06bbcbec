//! Tokens that have been verified, so that the next request with one costs no signature.
//!
//! In:    tokens whose signature was good by a key set.
//! Out:   the same tokens, as long as the set is that one.
//! Never: holds more than a bounded number; holds one that was refused; gives one whose keys are not
//!        those of now. Times and audiences are looked at by the caller, every time.
//!
//! The map is std's with its keyed hash: who chooses tokens cannot choose collisions.

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
    tokens: HashMap<Rc<str>, (Arc<KeySet>, Rc<Verified>)>,
    /// The oldest first.
    order: VecDeque<Rc<str>>,
}

impl Cache {
    /// An empty cache; `limits` are tokens and bytes of one.
    pub(super) fn new(limits: Option<(usize, usize)>) -> Self {
        let (tokens_max, bytes_max) = limits.unwrap_or((TOKENS_MAX, TOKEN_BYTES_MAX));
        Self { tokens_max, bytes_max, tokens: HashMap::new(), order: VecDeque::new() }
    }

    /// A token that these keys have verified.
    pub(super) fn get(&self, text: &str, keys: &Arc<KeySet>) -> Option<Rc<Verified>> {
        let (by, verified) = self.tokens.get(text)?;
        Arc::ptr_eq(by, keys).then(|| Rc::clone(verified))
    }

    /// Forgets a token.
    pub(super) fn forget(&mut self, text: &str) {
        if self.tokens.remove(text).is_some() {
            self.order.retain(|known| &**known != text);
        }
    }

    /// Remembers a token that these keys have verified.
    pub(super) fn put(&mut self, text: &str, keys: &Arc<KeySet>, verified: &Rc<Verified>) {
        if text.len() > self.bytes_max {
            return;
        }
        let text: Rc<str> = text.into();
        let entry = (Arc::clone(keys), Rc::clone(verified));
        if self.tokens.insert(Rc::clone(&text), entry).is_some() {
            return;
        }
        self.order.push_back(text);
        while self.order.len() > self.tokens_max {
            if let Some(oldest) = self.order.pop_front() {
                self.tokens.remove(&oldest);
            }
        }
    }
}
