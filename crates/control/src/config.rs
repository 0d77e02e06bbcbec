//! One proxy's configuration, shared among the proxies with equal inputs.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use sluis_envoy::{EncodedSet, ResourceSet};
use sluis_model::Snapshot;
use sluis_resources::Fault;
use sluis_translate::{Inputs, ProxyView, render, select};

/// What one view of the mesh comes to.
#[derive(Debug)]
pub struct Config {
    /// The resources.
    pub set: ResourceSet,
    /// The resources as they travel.
    pub encoded: Arc<EncodedSet>,
    /// What users asked for and did not get, each with its place.
    pub faults: Vec<Fault>,
    inputs: Inputs,
}

/// Remembers the configurations in use by the hash of their inputs.
///
/// Bounded by the proxies: it keeps nothing alive itself.
#[derive(Debug, Default)]
pub(crate) struct Configs(Mutex<HashMap<u64, Weak<Config>>>);

impl Configs {
    /// The configuration of a view: the one in use for equal inputs, or a new one.
    pub(crate) fn build(&self, view: &ProxyView, snapshot: &Snapshot) -> Arc<Config> {
        let inputs = select(view, snapshot);
        let fingerprint = inputs.fingerprint();
        if let Some(config) = self.find(fingerprint)
            && config.inputs == inputs
        {
            return config;
        }
        let rendered = render(&inputs);
        let encoded = Arc::new(rendered.set.encode());
        let config =
            Arc::new(Config { set: rendered.set, encoded, faults: rendered.faults, inputs });
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, config| config.strong_count() > 0);
        known.insert(fingerprint, Arc::downgrade(&config));
        config
    }

    fn find(&self, fingerprint: u64) -> Option<Arc<Config>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&fingerprint)?.upgrade()
    }
}
