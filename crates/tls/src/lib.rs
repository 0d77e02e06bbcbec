//! Who is speaking: certificates, verification and rotation for every TLS connection of the mesh.
//!
//! In:    TLS settings as plain data ([`sluis_rules`]); secrets by SDS name from identity and files.
//! Out:   handshakes that read the current secrets; the verified identity of the peer.
//! Never: weakens a handshake because a secret is missing, prints a key, or reads the environment.
//!
//! Start at [`SecretStore`]; then [`ServerTls`] and [`ClientTls`].

mod client;
mod clock;
mod leaf;
mod secret;
mod server;
mod session;
mod store;
#[cfg(test)]
mod tests;
mod verify;

use std::sync::{Arc, LazyLock};

use rustls::crypto::{CryptoProvider, aws_lc_rs};

pub use client::ClientTls;
pub use clock::Clock;
pub use leaf::{Leaf, LeafError, PeerIdentity, peer_identity};
pub use secret::{KeyPair, Roots, Secret, SecretError};
pub use server::{ServerTls, SettingsError};
pub use session::TlsSession;
pub use store::{MESH_ROOTS, SecretStore, Slot, StoreError, WORKLOAD_CERTIFICATE};
pub use verify::PeerError;

/// The cryptography of every handshake: aws-lc, handed on explicitly, never a process default.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> =
        LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));
    PROVIDER.clone()
}
