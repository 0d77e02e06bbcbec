//! Public keys and signatures, made by OpenSSL's functions as AWS-LC has them.

use aws_lc_rs::{
    encoding::AsDer,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING,
        ECDSA_P521_SHA224_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING, EcdsaKeyPair,
        EcdsaSigningAlgorithm, KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512,
        RsaKeyPair, RsaSignatureEncoding,
    },
};

use crate::support::{eval, failure};

fn literal(bytes: &[u8]) -> String {
    let escaped: String = bytes.iter().map(|byte| format!("\\{byte:03}")).collect();
    format!("'{escaped}'")
}

const DATA: &[u8] = b"the data\0with a zero";

/// What `verifySignature` says of a signature of [`DATA`], and of one of other data.
#[track_caller]
fn check(hash: &str, key: &[u8], signature: &[u8]) {
    let verify = |data: &[u8]| {
        eval(&format!(
            "(function()
               local key, sig, data = {}, {}, {}
               local imported = h:importPublicKey(key, #key)
               assert(imported:get() == key)
               local ok, message = h:verifySignature('{hash}', imported:get(), sig, #sig, data, #data)
               return tostring(ok) .. ' ' .. tostring(message)
             end)()",
            literal(key),
            literal(signature),
            literal(data)
        ))
    };
    assert_eq!(verify(DATA), "true nil", "{hash}");
    assert_eq!(verify(b"other data"), "false Failed to verify digital signature.", "{hash}");
}

#[test]
fn signatures_of_rsa_keys_are_verified() {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let key =
        AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(pair.public_key()).unwrap();
    let sign = |encoding: &'static RsaSignatureEncoding| {
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(encoding, &SystemRandom::new(), DATA, &mut signature).unwrap();
        signature
    };
    check("sha256", key.as_ref(), &sign(&RSA_PKCS1_SHA256));
    check("SHA384", key.as_ref(), &sign(&RSA_PKCS1_SHA384));
    check("sha512", key.as_ref(), &sign(&RSA_PKCS1_SHA512));
}

#[test]
fn signatures_of_elliptic_curves_are_verified() {
    let one = |hash: &str, algorithm: &'static EcdsaSigningAlgorithm| {
        let pair = EcdsaKeyPair::generate(algorithm).unwrap();
        let key =
            AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(pair.public_key()).unwrap();
        let signature = pair.sign(&SystemRandom::new(), DATA).unwrap();
        check(hash, key.as_ref(), signature.as_ref());
    };
    one("sha256", &ECDSA_P256_SHA256_ASN1_SIGNING);
    one("sha384", &ECDSA_P384_SHA384_ASN1_SIGNING);
    one("sha224", &ECDSA_P521_SHA224_ASN1_SIGNING);
    one("sha512", &ECDSA_P521_SHA512_ASN1_SIGNING);
}

#[test]
fn what_is_no_key_or_no_signature_is_refused() {
    assert_eq!(eval("h:importPublicKey('none', 4):get()"), "nil");
    assert_eq!(eval("h:importPublicKey('', 0):get()"), "nil");
    assert!(failure("h:importPublicKey('short', 6)").contains("the length"));
    assert!(failure("h:importPublicKey('short', -1)").contains("the length"));
    assert!(failure("h:importPublicKey('short', 0/0)").contains("the length"));
    assert!(
        failure("h:verifySignature('sha256', 'key', 's', 1, 'd', 1)")
            .contains("invalid public key")
    );
    assert!(failure("h:verifySignature('sha256', 'key', 's', 2, 'd', 1)").contains("the length"));
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let key =
        AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(pair.public_key()).unwrap();
    let with = |hash: &str| {
        eval(&format!(
            "(function() local key = {} h:importPublicKey(key, #key)
             return select(2, h:verifySignature('{hash}', key, 's', 1, 'd', 1)) end)()",
            literal(key.as_ref())
        ))
    };
    assert_eq!(with("md5"), "md5 is not supported.");
    assert_eq!(with("sha224"), "sha224 is not supported for this kind of key.");
}
