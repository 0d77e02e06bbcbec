//! Who is speaking: certificates, verification and rotation for every TLS connection of the mesh.
//!
//! In:    TLS settings as plain data ([`sluis_rules`]); secrets by SDS name from identity and files.
//! Out:   handshakes that read the current secrets; the verified identity of the peer.
//! Never: weakens a handshake because a secret is missing, prints a key, or reads the environment.
//!
//! Start at [`SecretStore`]; then [`ServerTls`] and [`ClientTls`].

mod client;
mod clock;
mod describe;
mod generic;
mod leaf;
mod probe;
mod secret;
mod server;
mod session;
mod statement;
mod store;
#[cfg(test)]
mod tests;
mod verify;

use std::sync::{Arc, LazyLock};

use rustls::{
    CipherSuite,
    crypto::{
        CryptoProvider, SupportedKxGroup,
        aws_lc_rs::{self, kx_group},
    },
};
use sluis_rules::{CipherSuites, KeyGroups};

pub use client::ClientTls;
pub use clock::Clock;
pub use describe::{Description, describe};
pub use generic::{GenericSecret, NOT_AFTER_ENTRY, VERSION_ENTRY};
pub use leaf::{Leaf, LeafError, PeerIdentity, peer_identity};
pub use probe::{TlsAnswer, ask_plain, ask_tls};
pub use secret::{Crls, KeyPair, Roots, Secret, SecretError, certificate_pem};
pub use server::{ServerTls, SettingsError};
pub use session::TlsSession;
pub use statement::{StatementError, StatementSigner, verify_statement};
pub use store::{MESH_ROOTS, SecretStore, Slot, StoreError, WORKLOAD_CERTIFICATE};
pub use verify::PeerError;

/// The cryptography of every handshake: aws-lc, handed on explicitly, never a process default.
/// Suites of AES-128 come first, as Envoy has it: they cost less, and nobody breaks either.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let mut provider = aws_lc_rs::default_provider();
        provider.cipher_suites.sort_by_key(|suite| !is_aes_128(suite.suite()));
        Arc::new(provider)
    });
    PROVIDER.clone()
}

fn is_aes_128(suite: CipherSuite) -> bool {
    matches!(
        suite,
        CipherSuite::TLS13_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
    )
}

/// The same, with some cipher suites of TLS 1.2 and some groups only.
pub(crate) fn provider_of(suites: CipherSuites, groups: KeyGroups) -> Arc<CryptoProvider> {
    if (suites, groups) == (CipherSuites::ALL, KeyGroups::ALL) {
        return provider();
    }
    let mut part = (*provider()).clone();
    part.kx_groups = groups.names().filter_map(group).collect();
    part.cipher_suites
        .retain(|suite| openssl_name(suite.suite()).is_none_or(|name| suites.has(name)));
    Arc::new(part)
}

/// A group by BoringSSL's name.
fn group(name: &str) -> Option<&'static dyn SupportedKxGroup> {
    Some(match name {
        "X25519MLKEM768" => kx_group::X25519MLKEM768,
        "X25519" => kx_group::X25519,
        "P-256" => kx_group::SECP256R1,
        "P-384" => kx_group::SECP384R1,
        _ => return None,
    })
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
