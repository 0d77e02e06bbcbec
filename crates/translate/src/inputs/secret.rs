//! Secrets that the control plane itself sends to a proxy.

use std::collections::BTreeMap;

use sluis_resources::SecretValue;

/// A secret of a proxy. `Debug` shows no key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SecretInput {
    /// Its SDS name: `kubernetes://NAME`, `kubernetes://NAME-cacert`, `credential://NAMESPACE/NAME`.
    pub name: String,
    /// What it holds.
    pub content: SecretContent,
}

/// What a secret holds. Pairs and roots are PEM.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SecretContent {
    /// A certificate chain and its key.
    Pair {
        /// The chain.
        chain: SecretValue,
        /// The key.
        key: SecretValue,
    },
    /// Certificates of authorities, and those that they have taken back.
    Roots {
        /// The authorities.
        roots: SecretValue,
        /// The revocation list.
        crl: Option<SecretValue>,
    },
    /// The values of a credential by entry; `@version` and `@not_after` are about them.
    Generic(BTreeMap<String, SecretValue>),
    /// One value, as Envoy's own filters take it.
    Single(SecretValue),
}
