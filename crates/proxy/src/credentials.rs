//! A cluster's credentials with the places of their secrets, ready for use by every worker.
//!
//! In:    the upstream filters of a cluster, the secret store.
//! Out:   [`Ready`] filters, whose slots hold the values of now.
//! Never: holds a value longer than its slot does, but for what was derived from it.

mod limits;
mod tokens;

use std::{fmt, sync::Arc};

use arc_swap::ArcSwapOption;
use sluis_rules::{Cluster, Credentials, Injector, SecretName, Signature, UpstreamFilter};
use sluis_signing::{Material, Secret, Signer};
use sluis_tls::{GenericSecret, SecretStore, Slot};
use tracing::warn;

pub(crate) use limits::Limits;
pub(crate) use tokens::{Held, Tokens};

/// One upstream filter.
#[derive(Debug)]
pub(crate) enum Ready {
    /// Our own, with the places of each credential's secrets, in the same order.
    Credentials(Arc<Credentials>, Vec<Places>),
    /// Envoy's `credential_injector`.
    Injector(Arc<Injector>, Option<Arc<Slot>>),
}

/// Where the values of one credential are. `None` where there is none, or no place for it: what
/// needs it fails.
pub(crate) struct Places {
    pub(crate) current: Option<Arc<Slot>>,
    pub(crate) previous: Option<Arc<Slot>>,
    /// What signs by the values that were used last: of now, and of the version before.
    signers: [ArcSwapOption<Kept>; 2],
}

/// A signer with the values that it was made of.
struct Kept {
    secret: Arc<GenericSecret>,
    signer: Signer,
}

impl Places {
    /// Uses the signer of these values; it is made when they are used for the first time.
    ///
    /// # Errors
    ///
    /// Why the values do not fit. The text holds none of them.
    pub(crate) fn with_signer<T>(
        &self,
        signature: &Signature,
        (secret, is_previous): (&Arc<GenericSecret>, bool),
        then: impl FnOnce(&Signer) -> Result<T, String>,
    ) -> Result<T, String> {
        let kept = &self.signers[usize::from(is_previous)];
        if let Some(known) = &*kept.load()
            && Arc::ptr_eq(&known.secret, secret)
        {
            return then(&known.signer);
        }
        let entries = secret
            .keys()
            .filter_map(|key| Some((key.to_owned(), Secret::new(secret.entry(key)?.to_vec()))));
        let material = Arc::new(entries.collect::<Material>());
        let signer = signature.scheme().signer(material).map_err(|error| error.to_string())?;
        let made = Arc::new(Kept { secret: Arc::clone(secret), signer });
        let done = then(&made.signer);
        kept.store(Some(made));
        done
    }

    /// Gives up what was derived from values that are no longer there.
    pub(crate) fn forget(&self, is_previous: bool) {
        let kept = &self.signers[usize::from(is_previous)];
        if kept.load().is_some() {
            kept.store(None);
        }
    }
}

impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Places").field("current", &self.current).finish_non_exhaustive()
    }
}

/// Makes a cluster's filters ready. Not for data threads.
pub(crate) fn ready(cluster: &Cluster, store: &SecretStore) -> Vec<Ready> {
    let slot = |name: &SecretName| {
        let slot = store.slot(name.as_str());
        slot.inspect_err(|error| {
            warn!(cluster = %cluster.name, %error, "a credential has no place for its secret");
        })
        .ok()
    };
    let of = |filter: &UpstreamFilter| match filter {
        UpstreamFilter::Credentials(rules) => {
            let places = rules.list.iter().map(|credential| Places {
                current: credential.secret.as_ref().and_then(slot),
                previous: credential.previous.as_ref().and_then(slot),
                signers: Default::default(),
            });
            Ready::Credentials(Arc::clone(rules), places.collect())
        }
        UpstreamFilter::Injector(rules) => Ready::Injector(Arc::clone(rules), slot(&rules.secret)),
    };
    cluster.filters.iter().map(of).collect()
}
