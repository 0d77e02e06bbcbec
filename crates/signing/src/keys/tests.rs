//! The vectors of RFC 4231 and RFC 2202, and how keys are read.

use super::{Key, KeyEncoding, KeySource, SignatureAlgorithm};
use crate::{HashAlgorithm, Material, MaterialError, Secret, digest::hex};

fn read(
    algorithm: SignatureAlgorithm,
    encoding: KeyEncoding,
    bytes: &[u8],
) -> Result<Key, MaterialError> {
    let material: Material = [("k", Secret::new(bytes.to_vec()))].into_iter().collect();
    Key::read(algorithm, &KeySource { entry: "k".into(), encoding }, &material)
}

#[track_caller]
fn check(key: &[u8], text: &[u8], tags: [&str; 3]) {
    let hashes = [HashAlgorithm::Sha256, HashAlgorithm::Sha384, HashAlgorithm::Sha512];
    for (hash, tag) in hashes.into_iter().zip(tags) {
        let key = read(SignatureAlgorithm::Hmac(hash), KeyEncoding::Raw, key).unwrap();
        assert!(hex(&key.sign(text).unwrap()).starts_with(tag), "{hash:?}");
    }
}

/// RFC 4231 §4.2 to §4.8; of §4.5 the first 128 bits, as there.
#[test]
fn hmac_is_that_of_rfc_4231() {
    check(
        &[0x0b; 20],
        b"Hi There",
        [
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
            "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59cfaea9ea9076ede7f4af152e8b2fa9cb6",
            "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cdedaa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854",
        ],
    );
    check(
        b"Jefe",
        b"what do ya want for nothing?",
        [
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
            "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
        ],
    );
    check(
        &[0xaa; 20],
        &[0xdd; 50],
        [
            "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
            "88062608d3e6ad8a0aa2ace014c8a86f0aa635d947ac9febe83ef4e55966144b2a5ab39dc13814b94e3ab6e101a34f27",
            "fa73b0089d56a284efb0f0756c890be9b1b5dbdd8ee81a3655f83e33b2279d39bf3e848279a722c806b485a47e67c807b946a337bee8942674278859e13292fb",
        ],
    );
    let counted: Vec<u8> = (1..=25).collect();
    check(
        &counted,
        &[0xcd; 50],
        [
            "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b",
            "3e8a69b7783c25851933ab6290af6ca77a9981480850009cc5577c6e1f573b4e6801dd23c4a7d679ccf8a386c674cffb",
            "b0ba465637458c6990e5a8c5f61d4af7e576d97ff94b872de76f8050361ee3dba91ca5c11aa25eb4d679275cc5788063a5f19741120c4f2de2adebeb10a298dd",
        ],
    );
    check(
        &[0x0c; 20],
        b"Test With Truncation",
        [
            "a3b6167473100ee06e0c796c2955552b",
            "3abf34c3503b2a23a46efc619baef897",
            "415fad6271580a531d4179bc891d87a6",
        ],
    );
    check(
        &[0xaa; 131],
        b"Test Using Larger Than Block-Size Key - Hash Key First",
        [
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            "4ece084485813e9088d2c63a041bc5b44f9ef1012a2b588f3cd11f05033ac4c60c2ef6ab4030fe8296248df163f44952",
            "80b24263c7c1a3ebb71493c1dd7be8b49b46d1f41b4aeec1121b013783f8f3526b56d037e05f2598bd0fd2215d6a1e5295e64f73f63f0aec8b915a985d786598",
        ],
    );
    let long =
        b"This is a test using a larger than block-size key and a larger than block-size data. \
The key needs to be hashed before being used by the HMAC algorithm.";
    check(
        &[0xaa; 131],
        long,
        [
            "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2",
            "6617178e941f020d351e2f254e8fd32c602420feb0b8fb9adccebb82461e99c5a678cc31e799176d3860e6110c46523e",
            "e37b6a775dc87dbaa4dfa9f96e5e3ffddebd71f8867289865df5a32d20cdc944b6022cac3c4982b10d5eeb55c3e4de15134676fb6de0446065c97440fa8c6a58",
        ],
    );
}

/// RFC 2202 §3, case 2: weak, and there for what asks for it.
#[test]
fn hmac_with_sha_1_is_that_of_rfc_2202() {
    let hash = SignatureAlgorithm::Hmac(HashAlgorithm::Sha1);
    let key = read(hash, KeyEncoding::Raw, b"Jefe").unwrap();
    let tag = hex(&key.sign(b"what do ya want for nothing?").unwrap());
    assert_eq!(tag, "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79");
}

#[test]
fn a_key_that_is_not_what_it_is_said_to_be_is_refused() {
    let check = |algorithm: &str, encoding: KeyEncoding, bytes: &[u8], refusal: &str| {
        let algorithm = SignatureAlgorithm::of_jose(algorithm).unwrap();
        let error = read(algorithm, encoding, bytes).err().map(|error| error.to_string());
        assert_eq!(error.as_deref(), Some(refusal));
    };
    let p256 = include_bytes!("../../tests/keys/rfc9421-ecc-p256.pem");
    let rsa = include_bytes!("../../tests/keys/rfc9421-rsa.pem");
    check("ES384", KeyEncoding::Pem, p256, "entry k is no private key on P-384");
    check("EdDSA", KeyEncoding::Pem, p256, "entry k is no private Ed25519 key");
    check("RS256", KeyEncoding::Pem, p256, "entry k is no private RSA key of 2048 bits or more");
    check("ES256", KeyEncoding::Pem, rsa, "entry k is no private key on P-256");
    check("RS256", KeyEncoding::Pem, b"-----BEGIN", "entry k is not PEM");
    check("HS256", KeyEncoding::Hex, b"0g", "entry k is not hexadecimal");
    check("HS256", KeyEncoding::Hex, b"012", "entry k is not hexadecimal");
    check("HS256", KeyEncoding::Base64, b"!", "entry k is not base64");
    check("HS256", KeyEncoding::Base64, b"\n", "the secret has no entry k");
}

#[test]
fn no_algorithm_is_called_none() {
    for name in ["none", "None", "hs256", "HS1", ""] {
        assert_eq!(SignatureAlgorithm::of_jose(name), None, "{name}");
        assert_eq!(SignatureAlgorithm::of_message(name), None, "{name}");
    }
}
