//! Keys that sign, read once for each version of a secret.
//!
//! In:    an entry of a secret, its encoding, the algorithm it is for.
//! Out:   signatures.
//! Never: uses a key for another algorithm than it was read for.

use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
        Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512,
        RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
    },
};
use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject as _};
use zeroize::Zeroizing;

use crate::{HashAlgorithm, Material, MaterialError, SignError};

/// Secrets are written with padding and without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// RFC 7518 §3.3 asks for keys of 2048 bits at least.
const RSA_BYTES_MIN: usize = 256;

/// How an entry holds a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyEncoding {
    /// As it is: the bytes of an HMAC key, or DER of a private key.
    #[default]
    Raw,
    /// RFC 4648 §4, padded or not.
    Base64,
    /// Hexadecimal, in either case.
    Hex,
    /// A private key in PEM: PKCS #8, SEC 1 or PKCS #1.
    Pem,
}

/// Where a key is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeySource {
    /// The entry of the secret.
    pub entry: String,
    /// How it holds the key.
    pub encoding: KeyEncoding,
}

impl KeySource {
    pub(crate) fn bytes(&self, material: &Material) -> Result<Zeroizing<Vec<u8>>, MaterialError> {
        let bytes = material.bytes(&self.entry)?;
        let refusal = |wanted| MaterialError::Encoding { entry: self.entry.clone(), wanted };
        let text = bytes.trim_ascii();
        let decoded = match self.encoding {
            KeyEncoding::Raw => bytes.to_vec(),
            KeyEncoding::Base64 => BASE64.decode(text).map_err(|_| refusal("base64"))?,
            KeyEncoding::Hex => unhex(text).ok_or_else(|| refusal("hexadecimal"))?,
            KeyEncoding::Pem => {
                let key = PrivateKeyDer::from_pem_slice(bytes).map_err(|_| refusal("PEM"))?;
                key.secret_der().to_vec()
            }
        };
        if decoded.is_empty() {
            return Err(MaterialError::Missing { entry: self.entry.clone() });
        }
        Ok(Zeroizing::new(decoded))
    }
}

fn unhex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let (pairs, []) = text.as_chunks::<2>() else { return None };
    let byte = |[high, low]: &[u8; 2]| u8::try_from(digit(*high)? * 16 + digit(*low)?).ok();
    pairs.iter().map(byte).collect()
}

/// How a signature is made. Each name of an algorithm in JOSE and in RFC 9421 is one of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureAlgorithm {
    /// HMAC (RFC 2104). Never SHA-1 here.
    Hmac(HashAlgorithm),
    /// RSASSA-PKCS1-v1_5 (RFC 8017).
    RsaPkcs1(HashAlgorithm),
    /// RSASSA-PSS (RFC 8017), with a salt as long as the hash.
    RsaPss(HashAlgorithm),
    /// On P-256 with SHA-256, as two numbers in a row.
    EcdsaP256,
    /// On P-384 with SHA-384, as two numbers in a row.
    EcdsaP384,
    /// RFC 8032.
    Ed25519,
}

impl SignatureAlgorithm {
    /// By its name in JOSE (RFC 7518 §3.1, RFC 8037). `none` is none of them.
    #[must_use]
    pub fn of_jose(name: &str) -> Option<Self> {
        Some(match name {
            "HS256" => Self::Hmac(HashAlgorithm::Sha256),
            "HS384" => Self::Hmac(HashAlgorithm::Sha384),
            "HS512" => Self::Hmac(HashAlgorithm::Sha512),
            "RS256" => Self::RsaPkcs1(HashAlgorithm::Sha256),
            "RS384" => Self::RsaPkcs1(HashAlgorithm::Sha384),
            "RS512" => Self::RsaPkcs1(HashAlgorithm::Sha512),
            "PS256" => Self::RsaPss(HashAlgorithm::Sha256),
            "PS384" => Self::RsaPss(HashAlgorithm::Sha384),
            "PS512" => Self::RsaPss(HashAlgorithm::Sha512),
            "ES256" => Self::EcdsaP256,
            "ES384" => Self::EcdsaP384,
            "EdDSA" => Self::Ed25519,
            _ => return None,
        })
    }

    /// By its name in RFC 9421 §6.2.2.
    #[must_use]
    pub fn of_message(name: &str) -> Option<Self> {
        Some(match name {
            "hmac-sha256" => Self::Hmac(HashAlgorithm::Sha256),
            "rsa-v1_5-sha256" => Self::RsaPkcs1(HashAlgorithm::Sha256),
            "rsa-pss-sha512" => Self::RsaPss(HashAlgorithm::Sha512),
            "ecdsa-p256-sha256" => Self::EcdsaP256,
            "ecdsa-p384-sha384" => Self::EcdsaP384,
            "ed25519" => Self::Ed25519,
            _ => return None,
        })
    }

    fn rsa(self) -> Option<&'static dyn RsaEncoding> {
        use HashAlgorithm::{Sha256, Sha384, Sha512};
        Some(match self {
            Self::RsaPkcs1(Sha256) => &RSA_PKCS1_SHA256,
            Self::RsaPkcs1(Sha384) => &RSA_PKCS1_SHA384,
            Self::RsaPkcs1(Sha512) => &RSA_PKCS1_SHA512,
            Self::RsaPss(Sha256) => &RSA_PSS_SHA256,
            Self::RsaPss(Sha384) => &RSA_PSS_SHA384,
            Self::RsaPss(Sha512) => &RSA_PSS_SHA512,
            _ => return None,
        })
    }
}

/// A key, and what it is for.
pub(crate) enum Key {
    Hmac(Box<hmac::Key>),
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl Key {
    /// Reads the key of an algorithm.
    pub(crate) fn read(
        algorithm: SignatureAlgorithm,
        source: &KeySource,
        material: &Material,
    ) -> Result<Self, MaterialError> {
        let bytes = source.bytes(material)?;
        let refusal = |wanted| MaterialError::Key { entry: source.entry.clone(), wanted };
        match algorithm {
            SignatureAlgorithm::Hmac(hash) => {
                Ok(Self::Hmac(Box::new(hmac::Key::new(hash.hmac(), &bytes))))
            }
            SignatureAlgorithm::RsaPkcs1(_) | SignatureAlgorithm::RsaPss(_) => {
                let wanted = "private RSA key of 2048 bits or more";
                let encoding = algorithm.rsa().ok_or_else(|| refusal(wanted))?;
                let key = rsa(&bytes).filter(|key| key.public_modulus_len() >= RSA_BYTES_MIN);
                Ok(Self::Rsa(key.ok_or_else(|| refusal(wanted))?, encoding))
            }
            SignatureAlgorithm::EcdsaP256 => {
                EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, &bytes)
                    .map(Self::Ecdsa)
                    .map_err(|_| refusal("private key on P-256"))
            }
            SignatureAlgorithm::EcdsaP384 => {
                EcdsaKeyPair::from_private_key_der(&ECDSA_P384_SHA384_FIXED_SIGNING, &bytes)
                    .map(Self::Ecdsa)
                    .map_err(|_| refusal("private key on P-384"))
            }
            SignatureAlgorithm::Ed25519 => Ed25519KeyPair::from_pkcs8_maybe_unchecked(&bytes)
                .map(Self::Ed25519)
                .map_err(|_| refusal("private Ed25519 key")),
        }
    }

    /// Signs.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let random = SystemRandom::new();
        match self {
            Self::Hmac(key) => Ok(hmac::sign(key, message).as_ref().to_vec()),
            Self::Rsa(key, encoding) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(*encoding, &random, message, &mut signature)
                    .map_err(|_| SignError::Library)?;
                Ok(signature)
            }
            Self::Ecdsa(key) => key
                .sign(&random, message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| SignError::Library),
            Self::Ed25519(key) => Ok(key.sign(message).as_ref().to_vec()),
        }
    }

    /// The public key, as its kind writes it: of an elliptic curve the uncompressed point.
    pub(crate) fn public(&self) -> Option<Vec<u8>> {
        match self {
            Self::Hmac(_) => None,
            Self::Rsa(key, _) => Some(key.public_key().as_ref().to_vec()),
            Self::Ecdsa(key) => Some(key.public_key().as_ref().to_vec()),
            Self::Ed25519(key) => Some(key.public_key().as_ref().to_vec()),
        }
    }
}

/// A private RSA key: PKCS #8, PKCS #1, or PKCS #8 of a key that is for PSS alone (RFC 4055 §1.2).
fn rsa(der: &[u8]) -> Option<RsaKeyPair> {
    let own = RsaKeyPair::from_pkcs8(der).or_else(|_| RsaKeyPair::from_der(der)).ok();
    own.or_else(|| RsaKeyPair::from_der(pss_key(der)?).ok())
}

/// The key inside of `PrivateKeyInfo` (RFC 5208 §5) whose algorithm is `id-RSASSA-PSS`, which the
/// library does not read.
fn pss_key(der: &[u8]) -> Option<&[u8]> {
    const ID_RSASSA_PSS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a];
    let (info, []) = element(der, 0x30)? else { return None };
    let (_version, rest) = element(info, 0x02)?;
    let (algorithm, rest) = element(rest, 0x30)?;
    let (name, _parameters) = element(algorithm, 0x06)?;
    let (key, _attributes) = element(rest, 0x04)?;
    (name == ID_RSASSA_PSS).then_some(key)
}

/// The content of the DER element in front, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&first, rest) = der.split_first()?;
    let (&length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            (bytes.iter().fold(0, |sum, byte| (sum << 8) | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    if first == tag { rest.split_at_checked(length) } else { None }
}

#[cfg(test)]
mod tests;
