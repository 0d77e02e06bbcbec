//! Makes keys and signs tokens with them.

use aws_lc_rs::{
    hmac,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// A secret for HMAC, long enough for SHA-512.
pub(crate) const SECRET: [u8; 64] = [7; 64];

/// Keys for all algorithms.
pub(crate) struct Signer {
    pub(crate) rsa: RsaKeyPair,
    es256: EcdsaKeyPair,
    es384: EcdsaKeyPair,
    es512: EcdsaKeyPair,
    ed: Ed25519KeyPair,
}

pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Signer {
    pub(crate) fn new() -> Self {
        let ec = |how| EcdsaKeyPair::generate(how).unwrap();
        Self {
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
            es256: ec(&signature::ECDSA_P256_SHA256_FIXED_SIGNING),
            es384: ec(&signature::ECDSA_P384_SHA384_FIXED_SIGNING),
            es512: ec(&signature::ECDSA_P521_SHA512_FIXED_SIGNING),
            ed: Ed25519KeyPair::generate().unwrap(),
        }
    }

    /// The key as a JWK: `rsa`, `es256`, `es384`, `es512`, `ed` or `oct`, with that as `kid`.
    pub(crate) fn jwk(&self, name: &str) -> Value {
        let point = |key: &EcdsaKeyPair, crv: &str| {
            let bytes = key.public_key().as_ref()[1..].to_vec();
            let (x, y) = bytes.split_at(bytes.len() / 2);
            json!({ "kty": "EC", "crv": crv, "x": encode(x), "y": encode(y), "kid": name })
        };
        match name {
            "rsa" => rsa_jwk(&self.rsa, name),
            "es256" => point(&self.es256, "P-256"),
            "es384" => point(&self.es384, "P-384"),
            "es512" => point(&self.es512, "P-521"),
            "ed" => {
                let x = encode(self.ed.public_key().as_ref());
                json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "kid": name })
            }
            "oct" => json!({ "kty": "oct", "k": encode(SECRET), "kid": name }),
            other => panic!("no key {other}"),
        }
    }

    /// A set of some keys.
    pub(crate) fn set(&self, names: &[&str]) -> String {
        let keys: Vec<Value> = names.iter().map(|name| self.jwk(name)).collect();
        json!({ "keys": keys }).to_string()
    }

    /// The signature of some bytes.
    pub(crate) fn signature(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        let rsa = |how: &'static dyn signature::RsaEncoding| {
            let mut out = vec![0; self.rsa.public_modulus_len()];
            self.rsa.sign(how, &random, message, &mut out).unwrap();
            out
        };
        let hmac = |how| hmac::sign(&hmac::Key::new(how, &SECRET), message).as_ref().to_vec();
        let ec = |key: &EcdsaKeyPair| key.sign(&random, message).unwrap().as_ref().to_vec();
        match algorithm {
            "RS256" => rsa(&signature::RSA_PKCS1_SHA256),
            "RS384" => rsa(&signature::RSA_PKCS1_SHA384),
            "RS512" => rsa(&signature::RSA_PKCS1_SHA512),
            "PS256" => rsa(&signature::RSA_PSS_SHA256),
            "PS384" => rsa(&signature::RSA_PSS_SHA384),
            "PS512" => rsa(&signature::RSA_PSS_SHA512),
            "ES256" => ec(&self.es256),
            "ES384" => ec(&self.es384),
            "ES512" => ec(&self.es512),
            "EdDSA" => self.ed.sign(message).as_ref().to_vec(),
            "HS256" => hmac(hmac::HMAC_SHA256),
            "HS384" => hmac(hmac::HMAC_SHA384),
            "HS512" => hmac(hmac::HMAC_SHA512),
            other => panic!("no algorithm {other}"),
        }
    }

    /// A token of these texts, signed by an algorithm.
    pub(crate) fn raw(&self, algorithm: &str, header: &str, payload: &str) -> String {
        let signed = format!("{}.{}", encode(header), encode(payload));
        let signature = self.signature(algorithm, signed.as_bytes());
        format!("{signed}.{}", encode(signature))
    }

    /// A token of these claims.
    pub(crate) fn token(&self, algorithm: &str, claims: &Value) -> String {
        let header = json!({ "alg": algorithm, "typ": "JWT" }).to_string();
        self.raw(algorithm, &header, &claims.to_string())
    }
}

/// The public half of an RSA key.
pub(crate) fn rsa_jwk(key: &RsaKeyPair, kid: &str) -> Value {
    // `RSAPublicKey` in DER: nine bytes, the modulus of 2048 bits, and 65537.
    let der = key.public_key().as_ref();
    let (n, e) = (encode(&der[9..9 + 256]), encode([1, 0, 1]));
    json!({ "kty": "RSA", "n": n, "e": e, "kid": kid })
}
