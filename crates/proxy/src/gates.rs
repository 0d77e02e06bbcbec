//! The drain gates of one worker: one for each filter chain that has served a connection.
//!
//! In:    chains as connections choose them; each newly published configuration.
//! Out:   a [`Gate`] for each connection; drains of chains that changed or went.
//! Never: drains a connection whose chain means the same as before.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    sync::Arc,
};

use foldhash::fast::RandomState;
use sluis_rules::{FilterChain, Listener, Runtime};

use crate::drain::Gate;

#[derive(Debug)]
struct Entry {
    listener: Arc<str>,
    chain: Arc<FilterChain>,
    gate: Gate,
}

/// Gates by their chain's place in memory, which the entry keeps alive.
#[derive(Debug, Default)]
pub(crate) struct Gates {
    entries: RefCell<HashMap<usize, Entry, RandomState>>,
    /// The process drains: connections that choose their chain only now are to finish too.
    is_draining: Cell<bool>,
}

impl Gates {
    /// The gate of a chain's connections.
    pub(crate) fn of(&self, listener: &Listener, chain: &Arc<FilterChain>) -> Gate {
        let mut all = self.entries.borrow_mut();
        let entry = all.entry(Arc::as_ptr(chain) as usize).or_insert_with(|| Entry {
            listener: Arc::clone(&listener.name),
            chain: Arc::clone(chain),
            gate: Gate::default(),
        });
        if self.is_draining.get() {
            entry.gate.drain();
        }
        entry.gate.clone()
    }

    /// Drains the chains that `runtime` does not have; they are returned, to be closed in time.
    pub(crate) fn reconcile(&self, runtime: &Runtime) -> Vec<Gate> {
        let mut all = self.entries.borrow_mut();
        let mut gone = Vec::new();
        let before = std::mem::take(&mut *all);
        for entry in before.into_values() {
            let now = runtime.listeners.get(&entry.listener).and_then(|listener| {
                let mut chains = listener.chains.iter().chain(&listener.default_chain);
                chains.find(|chain| Arc::ptr_eq(chain, &entry.chain) || **chain == entry.chain)
            });
            match now {
                Some(chain) => {
                    let chain = Arc::clone(chain);
                    all.insert(Arc::as_ptr(&chain) as usize, Entry { chain, ..entry });
                }
                None => {
                    entry.gate.drain();
                    gone.push(entry.gate);
                }
            }
        }
        gone
    }

    /// Asks all connections to finish.
    pub(crate) fn drain_all(&self) {
        self.is_draining.set(true);
        self.entries.borrow().values().for_each(|entry| entry.gate.drain());
    }

    /// Ends all connections.
    pub(crate) fn close_all(&self) {
        self.entries.borrow().values().for_each(|entry| entry.gate.close());
    }
}
