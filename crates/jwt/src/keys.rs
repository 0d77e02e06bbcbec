//! Key sets, RFC 7517, and the verification of signatures, RFC 7518 §3 and RFC 8037.
//!
//! In:    a key set as JSON; a token.
//! Out:   whether one of the keys has signed it.
//! Never: uses a key for an algorithm that its `kty`, `crv` or `alg` is not for, nor an asymmetric
//!        key as a secret: a key is bound to its algorithms when it is read.

use std::fmt;

use aws_lc_rs::{
    hmac,
    signature::{self, ParsedPublicKey, VerificationAlgorithm},
};
use base64::{
    Engine as _,
    alphabet::URL_SAFE,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde_json::{Map, Value};

use crate::{Algorithm, Refusal, Token, json};

/// Longest key set. Large issuers have a dozen keys with certificates, some 20 KiB.
pub const KEY_SET_BYTES_MAX: usize = 1 << 20;

/// Most keys of a set: a token without `kid` is tried with each.
const KEYS_MAX: usize = 100;

/// The sizes of RSA keys: RFC 7518 §3.3 asks for 2048 bits, and what is longer costs too much.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Shortest secret, RFC 7518 §3.2: as long as the hash. Shorter ones can be guessed.
const SECRET_BYTES_MIN: usize = 32;

/// Keys are sometimes written with padding, though RFC 7515 §2 has none.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Where a key set comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The configuration.
    Local,
    /// A server, which gives it to whoever asks: a secret in it is none, and is not used.
    Remote,
}

/// A set of keys.
#[derive(Debug)]
pub struct KeySet {
    keys: Vec<Key>,
}

struct Key {
    kid: Option<String>,
    /// The one that it is for, where it says so.
    algorithm: Option<Algorithm>,
    /// What it verifies, each with the key in the form for that.
    uses: Vec<(Algorithm, Material)>,
}

enum Material {
    Public(ParsedPublicKey),
    Secret(Box<hmac::Key>),
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let algorithms: Vec<_> = self.uses.iter().map(|(algorithm, _)| algorithm.name()).collect();
        f.debug_struct("Key").field("kid", &self.kid).field("for", &algorithms).finish()
    }
}

impl KeySet {
    /// Reads a set. Keys that cannot be used (of an unknown kind, too small, for encryption) are left
    /// out. A secret is used only in a set of secrets in the configuration: beside public keys it
    /// would be public.
    ///
    /// # Errors
    ///
    /// Why there is no set, or no key in it that can be used.
    pub fn parse(text: &str, origin: Origin) -> Result<Self, Refusal> {
        if text.len() > KEY_SET_BYTES_MAX {
            return Err(Refusal::KeySetJson);
        }
        let set = json::object(text.as_bytes()).ok_or(Refusal::KeySetJson)?;
        let list = match set.get("keys") {
            Some(Value::Array(list)) => list,
            Some(_) => return Err(Refusal::KeysKind),
            None => return Err(Refusal::NoKeys),
        };
        let fields: Vec<_> = list.iter().filter_map(Value::as_object).take(KEYS_MAX).collect();
        let is_secret = |key: &&Map<String, Value>| text_of(key, "kty") == Some("oct");
        let may_be_secret = origin == Origin::Local && fields.iter().all(is_secret);
        let keys: Vec<Key> =
            fields.into_iter().filter_map(|fields| Key::read(fields, may_be_secret)).collect();
        if keys.is_empty() { Err(Refusal::NoValidKey) } else { Ok(Self { keys }) }
    }

    /// Sees whether one of the keys has signed a token.
    ///
    /// A token that names a key (`kid`) is tried with that one, and with those that have no name.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoMatchingKey`] when no key is for it, [`Refusal::Signature`] when none has signed
    /// it.
    pub fn verify(&self, token: &Token) -> Result<(), Refusal> {
        self.verify_bytes(token.algorithm(), token.kid(), token.signed(), token.signature())
    }

    /// The same, of any bytes.
    ///
    /// # Errors
    ///
    /// As [`Self::verify`].
    pub fn verify_bytes(
        &self,
        algorithm: Algorithm,
        kid: Option<&str>,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), Refusal> {
        let mut refusal = Refusal::NoMatchingKey;
        for key in &self.keys {
            let is_named = match (kid, &key.kid) {
                (Some(wanted), Some(kid)) => wanted == kid,
                _ => true,
            };
            if !is_named || key.algorithm.is_some_and(|wanted| wanted != algorithm) {
                continue;
            }
            // As in Envoy a key that says no algorithm might have been meant, whatever its kind.
            refusal = Refusal::Signature;
            let material = key.uses.iter().find(|(known, _)| *known == algorithm);
            let is_good = match material {
                Some((_, Material::Public(key))) => key.verify_sig(message, signature).is_ok(),
                // In constant time.
                Some((_, Material::Secret(key))) => hmac::verify(key, message, signature).is_ok(),
                None => false,
            };
            if is_good {
                return Ok(());
            }
        }
        Err(refusal)
    }

    /// How many keys can be used.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none. A set that was read has one at least.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

fn text_of<'f>(fields: &'f Map<String, Value>, name: &str) -> Option<&'f str> {
    fields.get(name).and_then(Value::as_str)
}

fn bytes_of(fields: &Map<String, Value>, name: &str) -> Option<Vec<u8>> {
    BASE64.decode(text_of(fields, name)?).ok()
}

impl Key {
    fn read(fields: &Map<String, Value>, may_be_secret: bool) -> Option<Self> {
        if !is_for_signatures(fields) {
            return None;
        }
        let algorithm = match fields.get("alg") {
            None => None,
            Some(Value::String(name)) if name.is_empty() => None,
            Some(Value::String(name)) => Some(Algorithm::of(name)?),
            Some(_) => return None,
        };
        let uses = match text_of(fields, "kty")? {
            "RSA" => rsa(fields, algorithm)?,
            "EC" => elliptic(fields)?,
            "OKP" => edwards(fields)?,
            "oct" if may_be_secret => secret(fields)?,
            _ => return None,
        };
        // A key with an `alg` is for that one alone.
        let uses: Vec<_> = uses
            .into_iter()
            .filter(|(known, _)| algorithm.is_none_or(|wanted| wanted == *known))
            .collect();
        let kid = text_of(fields, "kid").filter(|kid| !kid.is_empty()).map(str::to_owned);
        (!uses.is_empty()).then_some(Self { kid, algorithm, uses })
    }
}

/// RFC 7517 §4.2 and §4.3: what a key is for, where it says so.
fn is_for_signatures(fields: &Map<String, Value>) -> bool {
    let by_use = match fields.get("use") {
        None => true,
        Some(value) => value == "sig",
    };
    let by_operations = match fields.get("key_ops") {
        None => true,
        Some(Value::Array(list)) => list.iter().any(|operation| operation == "verify"),
        Some(_) => false,
    };
    by_use && by_operations
}

type Uses = Vec<(Algorithm, Material)>;

fn public(algorithm: &'static dyn VerificationAlgorithm, bytes: &[u8]) -> Option<Material> {
    ParsedPublicKey::new(algorithm, bytes).ok().map(Material::Public)
}

/// RSA of 2048 to 8192 bits, RFC 7518 §3.3 and §3.5. As in Envoy the exponent is 3 or 65537.
fn rsa(fields: &Map<String, Value>, algorithm: Option<Algorithm>) -> Option<Uses> {
    let (modulus, exponent) = (bytes_of(fields, "n")?, bytes_of(fields, "e")?);
    let exponent = trimmed(&exponent);
    if !matches!(exponent, [3] | [1, 0, 1]) {
        return None;
    }
    let modulus = trimmed(&modulus);
    let unused = modulus.first().map_or(0, |byte| byte.leading_zeros() as usize);
    if !RSA_BITS.contains(&(modulus.len() * 8 - unused)) {
        return None;
    }
    let key = rsa_key(modulus, exponent);
    let all: [(Algorithm, &'static dyn VerificationAlgorithm); 6] = [
        (Algorithm::Rs256, &signature::RSA_PKCS1_2048_8192_SHA256),
        (Algorithm::Rs384, &signature::RSA_PKCS1_2048_8192_SHA384),
        (Algorithm::Rs512, &signature::RSA_PKCS1_2048_8192_SHA512),
        (Algorithm::Ps256, &signature::RSA_PSS_2048_8192_SHA256),
        (Algorithm::Ps384, &signature::RSA_PSS_2048_8192_SHA384),
        (Algorithm::Ps512, &signature::RSA_PSS_2048_8192_SHA512),
    ];
    let wanted = all.into_iter().filter(|(known, _)| algorithm.is_none_or(|one| one == *known));
    wanted.map(|(known, how)| Some((known, public(how, &key)?))).collect()
}

/// A number without leading zeros.
fn trimmed(number: &[u8]) -> &[u8] {
    let start = number.iter().position(|byte| *byte != 0).unwrap_or(number.len());
    &number[start..]
}

/// `RSAPublicKey` of RFC 8017 §A.1.1 in DER: a sequence of two integers.
fn rsa_key(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let mut numbers = Vec::with_capacity(modulus.len() + 16);
    for number in [modulus, exponent] {
        // A leading bit would be a sign.
        let sign = number.first().is_none_or(|byte| byte & 0x80 != 0);
        numbers.push(0x02);
        write_length(number.len() + usize::from(sign), &mut numbers);
        if sign {
            numbers.push(0);
        }
        numbers.extend_from_slice(number);
    }
    let mut key = vec![0x30];
    write_length(numbers.len(), &mut key);
    key.extend(numbers);
    key
}

/// The length of a DER value.
fn write_length(length: usize, out: &mut Vec<u8>) {
    if let Ok(short @ 0..=0x7f) = u8::try_from(length) {
        out.push(short);
        return;
    }
    let bytes = length.to_be_bytes();
    let bytes = trimmed(&bytes);
    out.push(0x80 | u8::try_from(bytes.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(bytes);
}

/// Elliptic curves, RFC 7518 §3.4: each has its one algorithm. As in Envoy, a missing `crv` means
/// that of the `alg`, or P-256.
fn elliptic(fields: &Map<String, Value>) -> Option<Uses> {
    let by_algorithm = match text_of(fields, "alg").unwrap_or_default() {
        "ES384" => "P-384",
        "ES512" => "P-521",
        _ => "P-256",
    };
    let curve = match fields.get("crv") {
        None => by_algorithm,
        Some(value) => value.as_str()?,
    };
    let (algorithm, how, len): (_, &'static dyn VerificationAlgorithm, usize) = match curve {
        "P-256" => (Algorithm::Es256, &signature::ECDSA_P256_SHA256_FIXED, 32),
        "P-384" => (Algorithm::Es384, &signature::ECDSA_P384_SHA384_FIXED, 48),
        "P-521" => (Algorithm::Es512, &signature::ECDSA_P521_SHA512_FIXED, 66),
        _ => return None,
    };
    // An uncompressed point: 4, then both coordinates in full length.
    let mut point = vec![4];
    for name in ["x", "y"] {
        let number = bytes_of(fields, name)?;
        let number = trimmed(&number);
        point.resize(point.len() + len.checked_sub(number.len())?, 0);
        point.extend_from_slice(number);
    }
    Some(vec![(algorithm, public(how, &point)?)])
}

/// Ed25519, RFC 8037 §2.
fn edwards(fields: &Map<String, Value>) -> Option<Uses> {
    if text_of(fields, "crv")? != "Ed25519" {
        return None;
    }
    let key = public(&signature::ED25519, &bytes_of(fields, "x")?)?;
    Some(vec![(Algorithm::EdDsa, key)])
}

/// A secret, RFC 7518 §3.2: for the algorithms whose hash is not longer than it.
fn secret(fields: &Map<String, Value>) -> Option<Uses> {
    let secret = bytes_of(fields, "k")?;
    let all = [
        (Algorithm::Hs256, hmac::HMAC_SHA256, SECRET_BYTES_MIN),
        (Algorithm::Hs384, hmac::HMAC_SHA384, 48),
        (Algorithm::Hs512, hmac::HMAC_SHA512, 64),
    ];
    let fitting = all.into_iter().filter(|(_, _, least)| secret.len() >= *least);
    Some(
        fitting
            .map(|(known, how, _)| {
                (known, Material::Secret(Box::new(hmac::Key::new(how, &secret))))
            })
            .collect(),
    )
}
