//! Digests of bodies, and how bytes are written as text.
//!
//! In:    the bytes of a body, as they come.
//! Out:   a [`Digest`]; its text.
//! Never: holds a body.

use aws_lc_rs::{digest, hmac};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};

use crate::SchemeError;

/// A hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HashAlgorithm {
    /// Weak: only for what asks for it by name.
    Sha1,
    /// The default.
    #[default]
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl HashAlgorithm {
    fn digest(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &digest::SHA256,
            Self::Sha384 => &digest::SHA384,
            Self::Sha512 => &digest::SHA512,
        }
    }

    pub(crate) fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha384 => hmac::HMAC_SHA384,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }

    /// The name in `Content-Digest`: RFC 9530 §5 registers these two as active.
    fn structured(self) -> Option<&'static str> {
        match self {
            Self::Sha256 => Some("sha-256"),
            Self::Sha512 => Some("sha-512"),
            Self::Sha1 | Self::Sha384 => None,
        }
    }
}

/// What a scheme needs of the body before the head can be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyNeed {
    /// What digests it.
    pub algorithm: HashAlgorithm,
    /// Longest body, in bytes, that is to be held; what is longer is refused.
    pub bytes_max: u64,
}

/// Digests a body piece by piece.
pub struct Digester {
    algorithm: HashAlgorithm,
    context: digest::Context,
}

impl Digester {
    /// Begins with nothing.
    #[must_use]
    pub fn new(algorithm: HashAlgorithm) -> Self {
        Self { algorithm, context: digest::Context::new(algorithm.digest()) }
    }

    /// Adds a piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.context.update(piece);
    }

    /// The digest of all pieces.
    #[must_use]
    pub fn finish(self) -> Digest {
        Digest { algorithm: self.algorithm, bytes: self.context.finish().as_ref().to_vec() }
    }
}

/// The digest of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    algorithm: HashAlgorithm,
    bytes: Vec<u8>,
}

impl Digest {
    /// Digests what is at hand as a whole; of a request without a body, nothing.
    #[must_use]
    pub fn of(algorithm: HashAlgorithm, bytes: &[u8]) -> Self {
        Self { algorithm, bytes: digest::digest(algorithm.digest(), bytes).as_ref().to_vec() }
    }

    /// What made it.
    #[must_use]
    pub fn algorithm(&self) -> HashAlgorithm {
        self.algorithm
    }

    /// Itself.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// How bytes are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TextEncoding {
    /// Hexadecimal in lower case.
    #[default]
    Hex,
    /// RFC 4648 §4, padded.
    Base64,
    /// RFC 4648 §5, without padding.
    Base64Url,
    /// RFC 9530 §2: `sha-256=:…:`. Only of digests by SHA-256 and SHA-512.
    Structured,
}

/// What becomes of the digest of a body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BodyDigest {
    /// What digests it.
    pub algorithm: HashAlgorithm,
    /// The field that carries it; empty for none.
    pub header: String,
    /// Longest body, in bytes, that is held for it.
    pub bytes_max: u64,
    /// How it is written, in the field and in templates that do not say how.
    pub encoding: TextEncoding,
}

impl BodyDigest {
    pub(crate) fn check(&self) -> Result<(), SchemeError> {
        if self.encoding == TextEncoding::Structured && self.algorithm.structured().is_none() {
            return Err(SchemeError::DigestName { algorithm: self.algorithm });
        }
        Ok(())
    }

    pub(crate) fn need(&self) -> BodyNeed {
        BodyNeed { algorithm: self.algorithm, bytes_max: self.bytes_max }
    }

    /// The digest as text. Of the algorithm of this; [`crate::view::View::digest`] sees to it.
    pub(crate) fn text(&self, digest: &Digest) -> String {
        match (self.encoding, self.algorithm.structured()) {
            (TextEncoding::Hex, _) => hex(&digest.bytes),
            (TextEncoding::Base64, _) => base64(&digest.bytes),
            (TextEncoding::Base64Url, _) => base64url(&digest.bytes),
            (TextEncoding::Structured, name) => {
                format!("{}=:{}:", name.unwrap_or_default(), base64(&digest.bytes))
            }
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

pub(crate) fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
