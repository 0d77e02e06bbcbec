//! Compact JWS (RFC 7515 §7.1), and the assertions by which a client proves itself (RFC 7523).
//!
//! In:    a header, claims, a key, the moment.
//! Out:   a token.
//! Never: makes an unsigned one.

use serde_json::{Map, Value, json};

use crate::{
    KeySource, Material, MaterialError, Moment, SchemeError, Secret, SignError, SignatureAlgorithm,
    digest::{base64url, hex},
    keys::Key,
};

pub(crate) fn header(algorithm: &str, kind: &str, key_id: &str) -> Value {
    let mut header = json!({"alg": algorithm, "typ": kind});
    if !key_id.is_empty() {
        header["kid"] = key_id.into();
    }
    header
}

/// `aud`: nothing, a text, or a list.
pub(crate) fn audience(audiences: &[String]) -> Option<Value> {
    match audiences {
        [] => None,
        [one] => Some(one.clone().into()),
        more => Some(more.into()),
    }
}

pub(crate) fn compact(header: &Value, claims: &Value, key: &Key) -> Result<String, SignError> {
    let part = |value: &Value| base64url(value.to_string().as_bytes());
    signed(&part(header), &part(claims), key)
}

fn signed(header: &str, claims: &str, key: &Key) -> Result<String, SignError> {
    let text = format!("{header}.{claims}");
    let signature = key.sign(text.as_bytes())?;
    Ok(format!("{text}.{}", base64url(&signature)))
}

/// A statement that a client signs about itself or about a user (RFC 7523 §3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assertion {
    /// As in RFC 7518 §3.1.
    pub algorithm: String,
    /// Where the key is.
    pub key: KeySource,
    /// `kid`; empty leaves it out.
    pub key_id: String,
    /// `iss`.
    pub issuer: String,
    /// `sub`.
    pub subject: String,
    /// `aud`: the token endpoint, mostly.
    pub audiences: Vec<String>,
    /// `exp` after `iat`.
    pub lifetime_seconds: u32,
    /// More claims.
    pub claims: Vec<(String, String)>,
}

/// An assertion with its key.
pub struct AssertionSigner {
    assertion: Assertion,
    key: Key,
}

impl Assertion {
    /// Checks the algorithm.
    ///
    /// # Errors
    ///
    /// [`SchemeError::Algorithm`].
    pub fn check(&self) -> Result<SignatureAlgorithm, SchemeError> {
        let name = self.algorithm.clone();
        SignatureAlgorithm::of_jose(&name).ok_or(SchemeError::Algorithm { name })
    }

    /// Reads the key.
    ///
    /// # Errors
    ///
    /// Why the secret does not fit; of an unknown algorithm [`MaterialError::Key`].
    pub fn signer(self, material: &Material) -> Result<AssertionSigner, MaterialError> {
        let algorithm = self.check().map_err(|_| MaterialError::Key {
            entry: self.key.entry.clone(),
            wanted: "key of a known algorithm",
        })?;
        let key = Key::read(algorithm, &self.key, material)?;
        Ok(AssertionSigner { assertion: self, key })
    }
}

impl AssertionSigner {
    /// The assertion of one moment; `jti` is its nonce, so that it can be used once.
    ///
    /// # Errors
    ///
    /// [`SignError::Library`].
    pub fn sign(&self, moment: &Moment) -> Result<Secret, SignError> {
        let own = &self.assertion;
        let mut claims: Map<String, Value> =
            own.claims.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
        for (name, value) in [("iss", &own.issuer), ("sub", &own.subject)] {
            if !value.is_empty() {
                claims.insert(name.to_owned(), value.clone().into());
            }
        }
        if let Some(audience) = audience(&own.audiences) {
            claims.insert("aud".to_owned(), audience);
        }
        let now = moment.unix_seconds();
        claims.insert("iat".to_owned(), now.into());
        claims.insert("exp".to_owned(), now.saturating_add(own.lifetime_seconds.into()).into());
        claims.insert("jti".to_owned(), hex(&moment.nonce).into());
        let header = header(&own.algorithm, "JWT", &own.key_id);
        let token = compact(&header, &Value::Object(claims), &self.key)?;
        Ok(Secret::new(token.into_bytes()))
    }
}

#[cfg(test)]
mod tests;
