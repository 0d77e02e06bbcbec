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
mod probe;
mod secret;
mod server;
mod session;
mod store;
#[cfg(test)]
mod tests;
mod verify;

use std::sync::{Arc, LazyLock};

use rustls::{
    CipherSuite,
    crypto::{CryptoProvider, aws_lc_rs},
};
use sluis_rules::CipherSuites;

pub use client::ClientTls;
pub use clock::Clock;
pub use leaf::{Leaf, LeafError, PeerIdentity, peer_identity};
pub use probe::{TlsAnswer, ask_plain, ask_tls};
pub use secret::{Crls, KeyPair, Roots, Secret, SecretError, certificate_pem};
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

/// The same, with some cipher suites of TLS 1.2 only.
pub(crate) fn provider_of(suites: CipherSuites) -> Arc<CryptoProvider> {
    if suites == CipherSuites::ALL {
        return provider();
    }
    let mut part = (*provider()).clone();
    part.cipher_suites
        .retain(|suite| openssl_name(suite.suite()).is_none_or(|name| suites.has(name)));
    Arc::new(part)
}

/// OpenSSL's name of a suite of TLS 1.2.
fn openssl_name(suite: CipherSuite) -> Option<&'static str> {
    Some(match suite {
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => "ECDHE-ECDSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => "ECDHE-ECDSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => {
            "ECDHE-ECDSA-CHACHA20-POLY1305"
        }
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => "ECDHE-RSA-AES256-GCM-SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => "ECDHE-RSA-AES128-GCM-SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => "ECDHE-RSA-CHACHA20-POLY1305",
        _ => return None,
    })
}
