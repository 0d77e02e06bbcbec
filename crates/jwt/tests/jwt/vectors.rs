//! The signatures that RFC 7515 (appendix A), RFC 7520 (§4) and RFC 8037 (appendix A.4) give.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sluis_jwt::{Algorithm, KeySet, Origin, Refusal, Token};

const VECTORS: &str = include_str!("vectors.json");

struct Vector {
    from: String,
    keys: KeySet,
    algorithm: Algorithm,
    kid: Option<String>,
    token: String,
    message: Vec<u8>,
    signature: Vec<u8>,
}

fn vectors() -> Vec<Vector> {
    let all: Vec<Value> = serde_json::from_str(VECTORS).unwrap();
    let read = |vector: Value| {
        let token = vector["token"].as_str().unwrap().to_owned();
        let parts: Vec<&str> = token.split('.').collect();
        let header = URL_SAFE_NO_PAD.decode(parts[0]).unwrap();
        let header: Value = serde_json::from_slice(&header).unwrap();
        let set = json!({ "keys": [vector["key"]] }).to_string();
        Vector {
            from: vector["from"].as_str().unwrap().to_owned(),
            keys: KeySet::parse(&set, Origin::Local).unwrap(),
            algorithm: Algorithm::of(header["alg"].as_str().unwrap()).unwrap(),
            kid: header["kid"].as_str().map(str::to_owned),
            message: format!("{}.{}", parts[0], parts[1]).into_bytes(),
            signature: URL_SAFE_NO_PAD.decode(parts[2]).unwrap(),
            token,
        }
    };
    all.into_iter().map(read).collect()
}

#[test]
fn every_signature_of_the_rfcs_is_good() {
    let all = vectors();
    assert_eq!(all.len(), 9);
    for Vector { from, keys, algorithm, kid, message, signature, .. } in all {
        let verified = keys.verify_bytes(algorithm, kid.as_deref(), &message, &signature);
        assert_eq!(verified, Ok(()), "{from}");
    }
}

#[test]
fn none_is_good_with_one_bit_turned() {
    for Vector { from, keys, algorithm, kid, message, signature, .. } in vectors() {
        for at in [0, signature.len() / 2, signature.len() - 1] {
            let mut turned = signature.clone();
            turned[at] ^= 1;
            let verified = keys.verify_bytes(algorithm, kid.as_deref(), &message, &turned);
            assert_eq!(verified, Err(Refusal::Signature), "{from}, byte {at}");
        }
        let mut turned = message.clone();
        *turned.last_mut().unwrap() ^= 1;
        let verified = keys.verify_bytes(algorithm, kid.as_deref(), &turned, &signature);
        assert_eq!(verified, Err(Refusal::Signature), "{from}, message");
        let short = &signature[..signature.len() - 1];
        let verified = keys.verify_bytes(algorithm, kid.as_deref(), &message, short);
        assert_eq!(verified, Err(Refusal::Signature), "{from}, short");
    }
}

#[test]
fn none_is_good_by_another_algorithm_or_name() {
    for Vector { from, keys, algorithm, message, signature, .. } in vectors() {
        for other in Algorithm::ALL.into_iter().filter(|other| *other != algorithm) {
            let verified = keys.verify_bytes(other, None, &message, &signature);
            assert!(verified.is_err(), "{from} by {}", other.name());
        }
        let has_name = from.starts_with("RFC 7520");
        let verified = keys.verify_bytes(algorithm, Some("another"), &message, &signature);
        let expected = if has_name { Err(Refusal::NoMatchingKey) } else { Ok(()) };
        assert_eq!(verified, expected, "{from}");
    }
}

#[test]
fn what_has_claims_is_a_token_and_what_has_none_is_not() {
    for Vector { from, keys, token, .. } in vectors() {
        match Token::parse(&token) {
            Ok(token) => {
                assert!(matches!(&*from, "RFC 7515 A.1" | "RFC 7515 A.2" | "RFC 7515 A.3"));
                assert_eq!(token.issuer(), "joe");
                assert_eq!(token.expires(), Some(1_300_819_380));
                assert_eq!(keys.verify(&token), Ok(()));
                assert_eq!(token.check_time(1_300_819_380, 0), Ok(()));
                assert_eq!(token.check_time(1_300_819_381, 0), Err(Refusal::Expired));
                assert_eq!(token.check_time(1_300_819_440, 60), Ok(()));
            }
            Err(refusal) => assert_eq!(refusal, Refusal::PayloadJson, "{from}"),
        }
    }
}
