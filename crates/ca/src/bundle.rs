//! The trust bundle in the form of the SPIFFE Trust Domain and Bundle specification: a JWK set.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _, public_key::PublicKey};

/// How often a reader should ask again, seconds: well within a phase of a change of the root.
const REFRESH_HINT: u64 = 300;

/// The roots as JWKs with `use: x509-svid`; a root with a key that JWK has no name for is left out.
pub(crate) fn spiffe(roots: &[CertificateDer<'_>], sequence: u64) -> Value {
    let keys: Vec<Value> = roots.iter().filter_map(key).collect();
    json!({"keys": keys, "spiffe_sequence": sequence, "spiffe_refresh_hint": REFRESH_HINT})
}

fn key(root: &CertificateDer<'_>) -> Option<Value> {
    let (_, cert) = X509Certificate::from_der(root).ok()?;
    let x5c = [STANDARD.encode(root)];
    match cert.public_key().parsed().ok()? {
        PublicKey::EC(point) => {
            // SEC 1 §2.3.3: 4, then both coordinates.
            let (4, rest) = point.data().split_first()? else { return None };
            let crv = match rest.len() {
                64 => "P-256",
                96 => "P-384",
                132 => "P-521",
                _ => return None,
            };
            let (x, y) = rest.split_at(rest.len() / 2);
            let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
            Some(json!({"use": "x509-svid", "kty": "EC", "crv": crv, "x": x, "y": y, "x5c": x5c}))
        }
        PublicKey::RSA(rsa) => {
            let number = |bytes: &[u8]| {
                let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
                URL_SAFE_NO_PAD.encode(&bytes[start..])
            };
            let (n, e) = (number(rsa.modulus), number(rsa.exponent));
            Some(json!({"use": "x509-svid", "kty": "RSA", "n": n, "e": e, "x5c": x5c}))
        }
        _ => None,
    }
}
