//! What must hold for any bytes that are read as a certificate signing request.
//!
//! In:    DER of a request, or any bytes.
//! Out:   a panic when a promise of the reader is broken.
//! Never: judges whether input should be accepted; that is for the tables of the authority's tests.

use sluis_ca::{RequestError, SigningRequest};

/// The reader's own bound on PEM.
const PEM_BYTES_MAX: usize = 16 << 10;

/// Reading ends without a panic, as PEM and as what is in PEM; what is too large is refused as such;
/// what is accepted has a key of a known kind.
///
/// # Panics
///
/// When that does not hold.
pub fn signing_request(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        check(text);
    }
    check(&pem(data));
}

fn check(text: &str) {
    match SigningRequest::from_pem(text) {
        Ok(request) => {
            assert!(text.len() <= PEM_BYTES_MAX);
            let known = ["ECDSA P-256", "ECDSA P-384", "Ed25519", "RSA"];
            assert!(known.contains(&request.algorithm()), "{}", request.algorithm());
        }
        Err(RequestError::Large) => assert!(text.len() > PEM_BYTES_MAX),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// The bytes in the frame of PEM (RFC 7468).
fn pem(data: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::from("-----BEGIN CERTIFICATE REQUEST-----\n");
    for (index, chunk) in data.chunks(3).enumerate() {
        let word = chunk
            .iter()
            .enumerate()
            .fold(0_u32, |word, (at, byte)| word | u32::from(*byte) << (16 - 8 * at));
        for at in 0..4 {
            let six = (word >> (18 - 6 * at)) as usize & 63;
            text.push(if at <= chunk.len() { char::from(ALPHABET[six]) } else { '=' });
        }
        if index % 16 == 15 {
            text.push('\n');
        }
    }
    text.push_str("\n-----END CERTIFICATE REQUEST-----\n");
    text
}
