//! A token, taken apart: RFC 7515 §3.1 (compact form) with the claims of RFC 7519 §4.1.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use crate::{Refusal, json};

/// Longest token. Those of real issuers with many groups have a few KiB; a longer one costs more to
/// read than a request may.
pub const TOKEN_BYTES_MAX: usize = 32 * 1024;

/// How a token is signed (RFC 7518 §3.1, RFC 8037 §3.1). There is no `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the RFCs' own")]
pub enum Algorithm {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    Es512,
    EdDsa,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Hs256,
        Self::Hs384,
        Self::Hs512,
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::Es512,
        Self::EdDsa,
    ];

    /// The name in `alg`; case matters.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Hs384 => "HS384",
            Self::Hs512 => "HS512",
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Es512 => "ES512",
            Self::EdDsa => "EdDSA",
        }
    }

    /// The algorithm of this name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.name() == name)
    }
}

/// A token that has been read and not yet verified. Nothing in it is to be believed before
/// [`crate::KeySet::verify`].
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    algorithm: Algorithm,
    kid: Option<String>,
    header: Map<String, Value>,
    payload: Map<String, Value>,
    issuer: String,
    subject: String,
    audiences: Vec<String>,
    /// Seconds since 1970; 0 when absent, as in Envoy.
    not_before: u64,
    expires: u64,
    payload_text: String,
    /// Header and payload as they were signed.
    signed: String,
    signature: Vec<u8>,
}

impl Token {
    /// Takes a token apart.
    ///
    /// # Errors
    ///
    /// Why it is none that is taken here, whoever has signed it.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        if text.len() > TOKEN_BYTES_MAX {
            return Err(Refusal::Format);
        }
        let mut parts = text.split('.');
        let (Some(first), Some(second), Some(third), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Refusal::Format);
        };
        if first.is_empty() || second.is_empty() || third.is_empty() {
            return Err(Refusal::Format);
        }
        // Strict: no padding, no white space, no bits left over (RFC 7515 §2).
        let decode = |part: &str, refusal| URL_SAFE_NO_PAD.decode(part).map_err(|_| refusal);
        let header = decode(first, Refusal::HeaderBase64)?;
        let header = json::object(&header).ok_or(Refusal::HeaderJson)?;
        let algorithm = header.get("alg").and_then(Value::as_str).ok_or(Refusal::HeaderAlg)?;
        let algorithm = Algorithm::of(algorithm).ok_or(Refusal::Algorithm)?;
        let kid = text_of(&header, "kid", Refusal::HeaderKid)?;
        // RFC 7515 §4.1.11: who does not carry out what is critical must refuse the token. `b64`
        // changes what was signed.
        if header.contains_key("crit") || header.contains_key("b64") {
            return Err(Refusal::Critical);
        }
        let payload = decode(second, Refusal::PayloadBase64)?;
        let payload = json::object(&payload).ok_or(Refusal::PayloadJson)?;
        let issuer = text_of(&payload, "iss", Refusal::Issuer)?.unwrap_or_default();
        let subject = text_of(&payload, "sub", Refusal::Subject)?.unwrap_or_default();
        seconds(&payload, "iat", Refusal::IatKind, Refusal::IatRange)?;
        let not_before = seconds(&payload, "nbf", Refusal::NbfKind, Refusal::NbfRange)?;
        let expires = seconds(&payload, "exp", Refusal::ExpKind, Refusal::ExpRange)?;
        text_of(&payload, "jti", Refusal::Jti)?;
        let audiences = audiences(&payload)?;
        let signature = decode(third, Refusal::SignatureBase64)?;
        Ok(Self {
            algorithm,
            kid: kid.filter(|kid| !kid.is_empty()),
            header,
            payload,
            issuer,
            subject,
            audiences,
            not_before,
            expires,
            payload_text: second.to_owned(),
            signed: text[..first.len() + 1 + second.len()].to_owned(),
            signature,
        })
    }

    /// Sees whether the token is valid at a time, in seconds since 1970, when clocks differ by as
    /// much as `skew` seconds. `exp` is the last second at which it is.
    ///
    /// # Errors
    ///
    /// [`Refusal::NotYetValid`] and [`Refusal::Expired`].
    pub fn check_time(&self, now: u64, skew: u64) -> Result<(), Refusal> {
        if now.saturating_add(skew) < self.not_before {
            return Err(Refusal::NotYetValid);
        }
        if self.expires != 0 && now > self.expires.saturating_add(skew) {
            return Err(Refusal::Expired);
        }
        Ok(())
    }

    /// How it is signed.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Which key it says it is signed with.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &Map<String, Value> {
        &self.header
    }

    /// The claims.
    #[must_use]
    pub fn payload(&self) -> &Map<String, Value> {
        &self.payload
    }

    /// The payload as it stands in the token.
    #[must_use]
    pub fn payload_text(&self) -> &str {
        &self.payload_text
    }

    /// `iss`; empty when absent.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// `sub`; empty when absent.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// `aud`.
    #[must_use]
    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// `exp` in seconds since 1970; `None` when absent or 0.
    #[must_use]
    pub fn expires(&self) -> Option<u64> {
        (self.expires != 0).then_some(self.expires)
    }

    pub(crate) fn signed(&self) -> &[u8] {
        self.signed.as_bytes()
    }

    pub(crate) fn signature(&self) -> &[u8] {
        &self.signature
    }
}

/// For whom tokens must be. Empty takes all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audiences(Vec<String>);

impl Audiences {
    /// Makes a list. As in Envoy, the scheme and a slash at the end do not count.
    #[must_use]
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        Self(names.into_iter().map(|name| bare(name).to_owned()).collect())
    }

    /// Whether one of a token's audiences is listed.
    #[must_use]
    pub fn allow(&self, audiences: &[String]) -> bool {
        self.0.is_empty()
            || audiences.iter().any(|name| self.0.iter().any(|listed| listed == bare(name)))
    }
}

fn bare(name: &str) -> &str {
    let rest = name.strip_prefix("http://").or_else(|| name.strip_prefix("https://"));
    let rest = rest.unwrap_or(name);
    rest.strip_suffix('/').unwrap_or(rest)
}

fn text_of(
    fields: &Map<String, Value>,
    name: &str,
    refusal: Refusal,
) -> Result<Option<String>, Refusal> {
    match fields.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(refusal),
    }
}

/// Whole seconds of a time; 0 when absent.
fn seconds(
    fields: &Map<String, Value>,
    name: &str,
    kind: Refusal,
    range: Refusal,
) -> Result<u64, Refusal> {
    match fields.get(name) {
        None => Ok(0),
        Some(Value::Number(number)) => {
            let seconds = number.as_f64().ok_or(kind)?;
            // As in Envoy, which has all numbers as doubles; a part of a second does not count.
            if seconds < 0.0 || seconds >= u64::MAX as f64 {
                return Err(range);
            }
            Ok(seconds as u64)
        }
        Some(_) => Err(kind),
    }
}

fn audiences(payload: &Map<String, Value>) -> Result<Vec<String>, Refusal> {
    let text = |value: &Value| value.as_str().map(str::to_owned).ok_or(Refusal::AudienceKind);
    match payload.get("aud") {
        None => Ok(Vec::new()),
        Some(Value::Array(list)) => list.iter().map(text).collect(),
        Some(value) => Ok(vec![text(value)?]),
    }
}
