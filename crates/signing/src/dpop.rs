//! Proofs that a token's user holds its key: DPoP (RFC 9449).
//!
//! In:    what is asked for, of whom, with which token.
//! Out:   the value of the field `DPoP`; the thumbprint of the key (RFC 7638).
//! Never: gives the private key away.

use aws_lc_rs::{
    digest,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use serde_json::{Value, json};

use crate::{
    Moment, SignError,
    digest::{base64url, hex},
    jws,
    keys::Key,
};

/// A key on P-256 that tokens are bound to.
pub struct DpopKey {
    key: Key,
    jwk: Value,
    thumbprint: String,
}

/// What a proof is of.
#[derive(Clone, Copy, Debug)]
pub struct ProofOf<'p> {
    /// As sent.
    pub method: &'p str,
    /// The target; what follows a `?` or a `#` is left out.
    pub url: &'p str,
    /// The token that is sent beside it; none at the token endpoint.
    pub token: Option<&'p str>,
    /// What the server gave last in `DPoP-Nonce` (RFC 9449 §8).
    pub nonce: Option<&'p str>,
}

impl DpopKey {
    /// Makes one, of the library's own random bytes.
    ///
    /// # Errors
    ///
    /// [`SignError::Library`].
    pub fn generate() -> Result<Self, SignError> {
        let document =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
                .map_err(|_| SignError::Library)?;
        Self::from_der(document.as_ref())
    }

    /// Reads one in PKCS #8 or SEC 1.
    ///
    /// # Errors
    ///
    /// [`SignError::Library`].
    pub fn from_der(der: &[u8]) -> Result<Self, SignError> {
        let pair = EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, der)
            .map_err(|_| SignError::Library)?;
        let key = Key::Ecdsa(pair);
        // An uncompressed point: 4, then both coordinates in full length.
        let point = key.public().ok_or(SignError::Library)?;
        let (x, y) = (base64url(&point[1..33]), base64url(&point[33..]));
        let thumbprint = thumbprint(&x, &y);
        let jwk = json!({"kty": "EC", "crv": "P-256", "x": x, "y": y});
        Ok(Self { key, jwk, thumbprint })
    }

    /// `jkt` of what is bound to it.
    #[must_use]
    pub fn thumbprint(&self) -> &str {
        &self.thumbprint
    }

    /// Makes a proof (RFC 9449 §4.2); `jti` is the moment's nonce.
    ///
    /// # Errors
    ///
    /// [`SignError::Library`].
    pub fn proof(&self, of: ProofOf<'_>, moment: &Moment) -> Result<String, SignError> {
        let header = json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": self.jwk});
        jws::compact(&header, &claims(of, moment), &self.key)
    }
}

/// RFC 7638 §3.2: the hash of the required members, in this order, without space.
fn thumbprint(x: &str, y: &str) -> String {
    let text = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
    base64url(digest::digest(&digest::SHA256, text.as_bytes()).as_ref())
}

fn claims(of: ProofOf<'_>, moment: &Moment) -> Value {
    let url = of.url.split(['?', '#']).next().unwrap_or_default();
    let mut claims = json!({
        "jti": hex(&moment.nonce),
        "htm": of.method,
        "htu": url,
        "iat": moment.unix_seconds(),
    });
    if let Some(token) = of.token {
        let hash = digest::digest(&digest::SHA256, token.as_bytes());
        claims["ath"] = base64url(hash.as_ref()).into();
    }
    if let Some(nonce) = of.nonce {
        claims["nonce"] = nonce.into();
    }
    claims
}

#[cfg(test)]
mod tests;
