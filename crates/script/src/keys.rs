//! Public keys, and the signatures that they verify.

use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA1_ASN1, ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1,
    ECDSA_P256_SHA512_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA512_ASN1,
    ECDSA_P521_SHA1_ASN1, ECDSA_P521_SHA224_ASN1, ECDSA_P521_SHA256_ASN1, ECDSA_P521_SHA384_ASN1,
    ECDSA_P521_SHA512_ASN1, ParsedPublicKey, RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY,
    RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY,
    RSA_PKCS1_2048_8192_SHA384, VerificationAlgorithm,
};
use mlua::{
    Error, IntoLuaMulti as _, Lua, LuaString, MultiValue, UserData, UserDataMethods, Value,
};

use crate::handle::Handle;

/// Bytes that a public key may have: RSA of 8192 bits has about 1100.
const DER_BYTES_MAX: usize = 4096;

/// What `importPublicKey()` returns: the key in DER, if it is one.
pub(crate) struct Key(pub(crate) Handle, pub(crate) Option<Vec<u8>>);

impl UserData for Key {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("get", |lua, this, ()| {
            this.0.get()?;
            this.1.as_ref().map(|der| lua.create_string(der)).transpose()
        });
    }
}

type Algorithm = &'static dyn VerificationAlgorithm;

/// The kinds of keys, each by an algorithm that takes only keys of it, and by all that it verifies:
/// the hash functions in the order of [`HASHES`].
static KINDS: [[Option<Algorithm>; 5]; 4] = [
    [
        Some(&RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY),
        None,
        Some(&RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY),
        Some(&RSA_PKCS1_2048_8192_SHA384),
        Some(&RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY),
    ],
    [
        Some(&ECDSA_P256_SHA1_ASN1),
        None,
        Some(&ECDSA_P256_SHA256_ASN1),
        Some(&ECDSA_P256_SHA384_ASN1),
        Some(&ECDSA_P256_SHA512_ASN1),
    ],
    [
        None,
        None,
        Some(&ECDSA_P384_SHA256_ASN1),
        Some(&ECDSA_P384_SHA384_ASN1),
        Some(&ECDSA_P384_SHA512_ASN1),
    ],
    [
        Some(&ECDSA_P521_SHA1_ASN1),
        Some(&ECDSA_P521_SHA224_ASN1),
        Some(&ECDSA_P521_SHA256_ASN1),
        Some(&ECDSA_P521_SHA384_ASN1),
        Some(&ECDSA_P521_SHA512_ASN1),
    ],
];

const HASHES: [&str; 5] = ["sha1", "sha224", "sha256", "sha384", "sha512"];

/// The place of SHA-256, which every kind of key has.
const SHA256: usize = 2;

/// What the key verifies.
fn kind(der: &[u8]) -> Option<&'static [Option<Algorithm>; 5]> {
    // A key in DER is a sequence; a bare point of a curve is not taken.
    if der.len() > DER_BYTES_MAX || der.first() != Some(&0x30) {
        return None;
    }
    KINDS.iter().find(|kind| kind[SHA256].is_some_and(|one| ParsedPublicKey::new(one, der).is_ok()))
}

/// Whether these bytes are a public key of a kind that is known.
pub(crate) fn is_public_key(der: &[u8]) -> bool {
    kind(der).is_some()
}

/// `verifySignature()`.
pub(crate) fn verify(lua: &Lua, handle: &Handle, arguments: &[Value]) -> mlua::Result<MultiValue> {
    let text = |index: usize| -> mlua::Result<LuaString> {
        match arguments.get(index) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(Value::UserData(key)) if index == 1 => {
                let key = key.borrow::<Key>()?;
                let der = key.1.as_ref().ok_or_else(|| Error::runtime("invalid public key"))?;
                lua.create_string(der)
            }
            _ => Err(Error::runtime("verifySignature() takes a hash function, a key, texts")),
        }
    };
    let length = |index: usize| match arguments.get(index) {
        Some(Value::Integer(length)) => Ok(*length as f64),
        Some(Value::Number(length)) => Ok(*length),
        _ => Err(Error::runtime("verifySignature() takes the lengths of its texts")),
    };
    let hash = text(0)?.to_string_lossy().to_ascii_lowercase();
    let key = text(1)?.as_bytes().to_vec();
    let signature = prefix(&text(2)?, length(3)?)?;
    let data = prefix(&text(4)?, length(5)?)?;
    if !handle.get()?.keys.contains(&key) {
        return Err(Error::runtime("invalid public key"));
    }
    let no = |message: String| (false, message).into_lua_multi(lua);
    let Some(hash_at) = HASHES.iter().position(|known| *known == hash) else {
        return no(format!("{hash} is not supported."));
    };
    let Some(algorithm) = kind(&key).and_then(|kind| kind[hash_at]) else {
        return no(format!("{hash} is not supported for this kind of key."));
    };
    match signature::UnparsedPublicKey::new(algorithm, &key).verify(&data, &signature) {
        Ok(()) => (true, Value::Nil).into_lua_multi(lua),
        Err(_) => no("Failed to verify digital signature.".to_owned()),
    }
}

/// The first bytes of a text, as many as the script says.
pub(crate) fn prefix(text: &LuaString, length: f64) -> mlua::Result<Vec<u8>> {
    let bytes = text.as_bytes();
    let len = if length >= 0.0 && length <= bytes.len() as f64 {
        length as usize
    } else {
        return Err(Error::runtime("the length is not that of the text, or less"));
    };
    Ok(bytes[..len].to_vec())
}
