//! One proxy's configuration, shared among the proxies with equal inputs.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    Secret, secret::Type as SecretKind,
};
use sluis_envoy::{EncodedSet, Kind, ResourceSet};
use sluis_model::Snapshot;
use sluis_resources::Fault;
use sluis_translate::{Inputs, ProxyView, render, select};
use sluis_xds::Peer;

/// What one view of the mesh comes to.
#[derive(Debug)]
pub struct Config {
    /// The resources.
    pub set: ResourceSet,
    /// The resources as they travel.
    pub encoded: Arc<EncodedSet>,
    /// As `encoded`, without private keys: for peers that proved nothing.
    pub public: Arc<EncodedSet>,
    /// What users asked for and did not get, each with its place.
    pub faults: Vec<Fault>,
    inputs: Inputs,
}

impl Config {
    /// What travels to a peer: private keys only to one that proved who it is.
    #[must_use]
    pub fn encoded_for(&self, peer: &Peer) -> &Arc<EncodedSet> {
        match peer {
            Peer::Verified(_) => &self.encoded,
            Peer::Local => &self.public,
        }
    }
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
        let public = without_keys(&rendered.set, &encoded);
        let (set, faults) = (rendered.set, rendered.faults);
        let config = Arc::new(Config { set, encoded, public, faults, inputs });
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

/// The set without the secrets that hold more than roots; the very same one where there are none.
fn without_keys(set: &ResourceSet, encoded: &Arc<EncodedSet>) -> Arc<EncodedSet> {
    let is_public =
        |secret: &Secret| matches!(secret.r#type, Some(SecretKind::ValidationContext(_)));
    let keys = set.secrets.iter().filter(|(_, secret)| !is_public(secret));
    let names: Vec<&String> = keys.map(|(name, _)| name).collect();
    if names.is_empty() {
        return Arc::clone(encoded);
    }
    let mut public = (**encoded).clone();
    for name in names {
        public.remove(Kind::Secret, name);
    }
    Arc::new(public)
}
