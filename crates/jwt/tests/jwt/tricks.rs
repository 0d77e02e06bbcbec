//! Every trick that tokens are known for, and what becomes of it.

use std::sync::LazyLock;

use aws_lc_rs::{hmac, signature::KeyPair as _};
use serde_json::{Value, json};
use sluis_jwt::{Algorithm, Audiences, KeySet, Origin, Refusal, TOKEN_BYTES_MAX, Token};

use crate::signing::{SECRET, Signer, encode};

static SIGNER: LazyLock<Signer> = LazyLock::new(Signer::new);

const ALL: [&str; 5] = ["rsa", "es256", "es384", "es512", "ed"];

fn keys(names: &[&str]) -> KeySet {
    KeySet::parse(&SIGNER.set(names), Origin::Local).unwrap()
}

fn claims() -> Value {
    json!({ "iss": "me", "sub": "you", "exp": 4_000_000_000_u64 })
}

fn judge(text: &str, keys: &KeySet) -> Result<(), Refusal> {
    keys.verify(&Token::parse(text)?)
}

#[track_caller]
fn check(what: &str, text: &str, expected: Result<(), Refusal>) {
    assert_eq!(judge(text, &keys(&ALL)), expected, "{what}: {text}");
}

#[test]
fn tokens_of_all_algorithms_are_good_by_their_own_key_and_by_no_other() {
    let of = |algorithm: &str| match &algorithm[..2] {
        "RS" | "PS" => "rsa",
        "HS" => "oct",
        "Ed" => "ed",
        _ => match algorithm {
            "ES256" => "es256",
            "ES384" => "es384",
            _ => "es512",
        },
    };
    for algorithm in Algorithm::ALL {
        let token = SIGNER.token(algorithm.name(), &claims());
        for name in ALL.into_iter().chain(["oct"]) {
            let judged = judge(&token, &keys(&[name]));
            let expected =
                if of(algorithm.name()) == name { Ok(()) } else { Err(Refusal::Signature) };
            assert_eq!(judged, expected, "{} with {name}", algorithm.name());
        }
    }
}

#[test]
fn an_unsigned_token_is_refused_however_none_is_spelt() {
    for none in ["none", "None", "NONE", "nOnE", "none ", ""] {
        let header = encode(json!({ "alg": none }).to_string());
        let payload = encode(claims().to_string());
        let expected = Refusal::Algorithm;
        check(none, &format!("{header}.{payload}.AAAA"), Err(expected));
        check(none, &format!("{header}.{payload}."), Err(Refusal::Format));
    }
}

/// The classic: HMAC with the text of the public key as its secret.
#[test]
fn a_public_key_is_never_a_secret() {
    let jwk = SIGNER.jwk("rsa");
    let der = SIGNER.rsa.public_key().as_ref().to_vec();
    let texts = [jwk.to_string().into_bytes(), SIGNER.set(&["rsa"]).into_bytes(), der];
    for secret in texts {
        let signed = format!("{}.{}", encode(r#"{"alg":"HS256"}"#), encode(claims().to_string()));
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), signed.as_bytes());
        let token = format!("{signed}.{}", encode(tag));
        check("HS256 by a public key", &token, Err(Refusal::Signature));
    }
}

#[test]
fn a_secret_beside_public_keys_or_from_a_server_is_not_used() {
    let token = SIGNER.token("HS256", &claims());
    assert_eq!(judge(&token, &keys(&["oct"])), Ok(()));
    assert_eq!(judge(&token, &keys(&["oct", "rsa"])), Err(Refusal::Signature));
    let remote = KeySet::parse(&SIGNER.set(&["oct"]), Origin::Remote);
    assert_eq!(remote.unwrap_err(), Refusal::NoValidKey);
    let remote = KeySet::parse(&SIGNER.set(&["oct", "rsa"]), Origin::Remote).unwrap();
    assert_eq!(judge(&token, &remote), Err(Refusal::Signature));
}

#[test]
fn a_secret_that_can_be_guessed_is_not_used() {
    for (bytes, algorithm, how, is_used) in [
        (6, "HS256", hmac::HMAC_SHA256, false),
        (31, "HS256", hmac::HMAC_SHA256, false),
        (32, "HS256", hmac::HMAC_SHA256, true),
        (32, "HS384", hmac::HMAC_SHA384, false),
        (48, "HS384", hmac::HMAC_SHA384, true),
        (63, "HS512", hmac::HMAC_SHA512, false),
        (64, "HS512", hmac::HMAC_SHA512, true),
    ] {
        let secret = &SECRET[..bytes];
        let set = json!({ "keys": [{ "kty": "oct", "k": encode(secret) }] });
        let tag = hmac::sign(&hmac::Key::new(how, secret), b"x");
        let is_good = KeySet::parse(&set.to_string(), Origin::Local).is_ok_and(|keys| {
            let algorithm = Algorithm::of(algorithm).unwrap();
            keys.verify_bytes(algorithm, None, b"x", tag.as_ref()) == Ok(())
        });
        assert_eq!(is_good, is_used, "{bytes} bytes for {algorithm}");
    }
}

/// A key of the attacker's own, in the token or at a place that the token names.
#[test]
fn keys_in_the_tokens_header_are_not_looked_at() {
    let foreign = Signer::new();
    let jwk = foreign.jwk("rsa");
    for extra in [
        json!({ "jwk": jwk }),
        json!({ "jku": "http://127.0.0.1:1/keys" }),
        json!({ "x5u": "http://127.0.0.1:1/cert" }),
        json!({ "x5c": ["MIIB"] }),
        json!({ "jwk": jwk, "kid": "rsa" }),
        json!({ "kid": "rsa" }),
    ] {
        let mut header = json!({ "alg": "RS256" });
        header.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let token = foreign.raw("RS256", &header.to_string(), &claims().to_string());
        check("a key of its own", &token, Err(Refusal::Signature));
        // And the same fields in a token of ours change nothing.
        let token = SIGNER.raw("RS256", &header.to_string(), &claims().to_string());
        check("fields that mean nothing", &token, Ok(()));
    }
}

#[test]
fn the_kid_is_a_name_and_no_path_or_query() {
    for kid in ["../../dev/null", "/dev/null", "rsa' UNION SELECT 'x", "rsa\u{0}", "RSA", "rsa "] {
        let header = json!({ "alg": "RS256", "kid": kid }).to_string();
        let token = SIGNER.raw("RS256", &header, &claims().to_string());
        check(kid, &token, Err(Refusal::NoMatchingKey));
    }
    for kid in [json!(1), json!(null), json!(["rsa"]), json!({})] {
        let header = json!({ "alg": "RS256", "kid": kid }).to_string();
        let token = SIGNER.raw("RS256", &header, &claims().to_string());
        check("kid", &token, Err(Refusal::HeaderKid));
    }
}

#[test]
fn extensions_that_change_what_is_signed_are_refused() {
    for header in [
        r#"{"alg":"RS256","crit":["b64"],"b64":false}"#,
        r#"{"alg":"RS256","b64":false}"#,
        r#"{"alg":"RS256","crit":["exp"],"exp":1}"#,
        r#"{"alg":"RS256","crit":[]}"#,
        r#"{"alg":"RS256","crit":null}"#,
    ] {
        let token = SIGNER.raw("RS256", header, &claims().to_string());
        check(header, &token, Err(Refusal::Critical));
    }
}

#[test]
fn a_name_that_stands_twice_is_refused() {
    for (header, payload, expected) in [
        (r#"{"alg":"none","alg":"RS256"}"#, "{}", Refusal::HeaderJson),
        (r#"{"alg":"RS256","alg":"RS256"}"#, "{}", Refusal::HeaderJson),
        (r#"{"alg":"RS256","al\u0067":"none"}"#, "{}", Refusal::HeaderJson),
        (r#"{"alg":"RS256"}"#, r#"{"sub":"me","sub":"admin"}"#, Refusal::PayloadJson),
        (r#"{"alg":"RS256"}"#, r#"{"exp":1,"e\u0078p":4000000000}"#, Refusal::PayloadJson),
        (r#"{"alg":"RS256"}"#, r#"{"a":{"b":[{"c":1,"c":2}]}}"#, Refusal::PayloadJson),
    ] {
        check("twice", &SIGNER.raw("RS256", header, payload), Err(expected));
    }
}

#[test]
fn what_has_not_three_parts_of_base64url_is_no_token() {
    let good = SIGNER.token("RS256", &claims());
    check("good", &good, Ok(()));
    let parts: Vec<&str> = good.split('.').collect();
    let (header, payload, signature) = (parts[0], parts[1], parts[2]);
    let padded = |part: &str| format!("{part}{}", "=".repeat(part.len().wrapping_neg() % 4));
    let long = "A".repeat(TOKEN_BYTES_MAX);
    let one_json = json!({ "payload": payload, "protected": header, "signature": signature });
    for (what, text, expected) in [
        ("nothing", String::new(), Refusal::Format),
        ("one part", header.to_owned(), Refusal::Format),
        ("two parts", format!("{header}.{payload}"), Refusal::Format),
        ("no signature", format!("{header}.{payload}."), Refusal::Format),
        ("four parts", format!("{good}.AAAA"), Refusal::Format),
        ("an encrypted token", format!("{header}.a.b.c.d"), Refusal::Format),
        ("a dot before", format!(".{good}"), Refusal::Format),
        ("JSON in one piece", one_json.to_string(), Refusal::Format),
        ("too long", format!("{good}{long}"), Refusal::Format),
        ("a space", format!("{header} .{payload}.{signature}"), Refusal::HeaderBase64),
        ("a line break", format!("{header}.{payload}\n.{signature}"), Refusal::PayloadBase64),
        ("plus and slash", format!("{header}.{payload}.+/+/"), Refusal::SignatureBase64),
        ("an empty header", format!("e30.{payload}.{signature}"), Refusal::HeaderAlg),
        ("a header of a list", format!("W10.{payload}.{signature}"), Refusal::HeaderJson),
        ("a payload of a text", format!("{header}.ImEi.{signature}"), Refusal::PayloadJson),
        (
            "a token in a token",
            format!("{header}.{}.{signature}", encode(&good)),
            Refusal::PayloadJson,
        ),
        (
            "not UTF-8",
            format!("{header}.{}.{signature}", encode(b"{\"a\":\"\xff\"}")),
            Refusal::PayloadJson,
        ),
    ] {
        check(what, &text, Err(expected));
    }
    if padded(signature) != signature {
        let text = format!("{header}.{payload}.{}", padded(signature));
        check("padding", &text, Err(Refusal::SignatureBase64));
    }
    // The same bytes in another spelling: bits that are left over.
    let mut turned = signature.to_owned();
    let last = turned.pop().unwrap();
    assert_eq!(signature.len() % 4, 2, "a signature of 256 bytes leaves bits over");
    turned.push(char::from(last as u8 + 1));
    check("bits left over", &format!("{header}.{payload}.{turned}"), Err(Refusal::SignatureBase64));
}

#[test]
fn an_algorithm_is_a_text_that_is_known_to_the_letter() {
    for (alg, expected) in [
        (json!(null), Refusal::HeaderAlg),
        (json!(1), Refusal::HeaderAlg),
        (json!(["RS256"]), Refusal::HeaderAlg),
        (json!("rs256"), Refusal::Algorithm),
        (json!("RS1"), Refusal::Algorithm),
        (json!("ES256K"), Refusal::Algorithm),
        (json!("RSA-OAEP"), Refusal::Algorithm),
        (json!("dir"), Refusal::Algorithm),
    ] {
        let header = json!({ "alg": alg }).to_string();
        check("alg", &SIGNER.raw("RS256", &header, "{}"), Err(expected));
    }
}

/// CVE-2022-21449 and its like: numbers that verify by arithmetic alone.
#[test]
fn signatures_of_zeros_and_of_other_forms_are_refused() {
    for (algorithm, len) in [("ES256", 64), ("ES384", 96), ("ES512", 132), ("EdDSA", 64)] {
        let header = encode(json!({ "alg": algorithm }).to_string());
        let signed = format!("{header}.{}", encode(claims().to_string()));
        for bytes in
            [vec![0; len], vec![0xff; len], vec![0; len + 1], vec![0x30, 6, 2, 1, 0, 2, 1, 0]]
        {
            let token = format!("{signed}.{}", encode(bytes));
            check(algorithm, &token, Err(Refusal::Signature));
        }
    }
    let header = encode(r#"{"alg":"RS256"}"#);
    let signed = format!("{header}.{}", encode(claims().to_string()));
    for bytes in [vec![0; 256], vec![1; 256], vec![0]] {
        check("RS256", &format!("{signed}.{}", encode(bytes)), Err(Refusal::Signature));
    }
}

#[test]
fn claims_of_the_wrong_kind_are_refused() {
    for (payload, expected) in [
        (r#"{"iss":1}"#, Refusal::Issuer),
        (r#"{"sub":["a"]}"#, Refusal::Subject),
        (r#"{"jti":1}"#, Refusal::Jti),
        (r#"{"aud":1}"#, Refusal::AudienceKind),
        (r#"{"aud":["a",1]}"#, Refusal::AudienceKind),
        (r#"{"aud":null}"#, Refusal::AudienceKind),
        (r#"{"exp":"4000000000"}"#, Refusal::ExpKind),
        (r#"{"exp":null}"#, Refusal::ExpKind),
        (r#"{"exp":-1}"#, Refusal::ExpRange),
        (r#"{"exp":1e30}"#, Refusal::ExpRange),
        (r#"{"exp":1e999}"#, Refusal::PayloadJson),
        (r#"{"nbf":"1"}"#, Refusal::NbfKind),
        (r#"{"nbf":-1}"#, Refusal::NbfRange),
        (r#"{"iat":true}"#, Refusal::IatKind),
        (r#"{"iat":-5}"#, Refusal::IatRange),
    ] {
        check(payload, &SIGNER.raw("RS256", r#"{"alg":"RS256"}"#, payload), Err(expected));
    }
}

#[test]
fn times_are_judged_to_the_second() {
    let token = SIGNER.token("RS256", &json!({ "nbf": 1000, "exp": 2000.9 }));
    let token = Token::parse(&token).unwrap();
    for (now, skew, expected) in [
        (999, 0, Err(Refusal::NotYetValid)),
        (999, 1, Ok(())),
        (1000, 0, Ok(())),
        (2000, 0, Ok(())),
        (2001, 0, Err(Refusal::Expired)),
        (2060, 60, Ok(())),
        (2061, 60, Err(Refusal::Expired)),
        (u64::MAX, u64::MAX, Ok(())),
    ] {
        assert_eq!(token.check_time(now, skew), expected, "{now} {skew}");
    }
    let forever = Token::parse(&SIGNER.token("RS256", &json!({}))).unwrap();
    assert_eq!(forever.check_time(u64::MAX, 0), Ok(()));
    assert_eq!(forever.expires(), None);
}

#[test]
fn audiences_are_compared_without_scheme_and_slash() {
    let allowed = Audiences::new(["https://a.test/", "b"]);
    for (audiences, expected) in [
        (vec!["a.test"], true),
        (vec!["http://a.test"], true),
        (vec!["x", "b/"], true),
        (vec!["a.test/x"], false),
        (vec!["B"], false),
        (vec![], false),
    ] {
        let audiences: Vec<String> = audiences.into_iter().map(str::to_owned).collect();
        assert_eq!(allowed.allow(&audiences), expected, "{audiences:?}");
    }
    assert!(Audiences::default().allow(&[]));
}

#[test]
fn keys_that_cannot_be_trusted_are_left_out_of_their_set() {
    let change = |name: &str, field: &str, value: Value| {
        let mut key = SIGNER.jwk(name);
        key[field] = value;
        key
    };
    let point = SIGNER.jwk("es256");
    let small = "AQ".repeat(85);
    for (what, key) in [
        ("for encryption", change("rsa", "use", json!("enc"))),
        ("use of no text", change("rsa", "use", json!(1))),
        ("to sign only", change("rsa", "key_ops", json!(["sign"]))),
        ("key_ops of no list", change("rsa", "key_ops", json!("verify"))),
        ("of another family", change("rsa", "alg", json!("ES256"))),
        ("for HMAC", change("rsa", "alg", json!("HS256"))),
        ("for none", change("rsa", "alg", json!("none"))),
        ("alg of no text", change("rsa", "alg", json!(256))),
        ("of 1000 bits", change("rsa", "n", json!(encode(vec![0xff; 125])))),
        ("of even exponent", change("rsa", "e", json!("Ag"))),
        ("of exponent 1", change("rsa", "e", json!("AQ"))),
        ("of no modulus", change("rsa", "n", json!(""))),
        ("no base64", change("rsa", "n", json!("!"))),
        ("of other curve", change("es256", "crv", json!("P-384"))),
        ("of curve for Bitcoin", change("es256", "crv", json!("secp256k1"))),
        ("off the curve", change("es256", "y", point["x"].clone())),
        ("at infinity", change("es256", "x", json!("AA"))),
        ("too long", change("es256", "x", json!(small))),
        ("X25519", change("ed", "crv", json!("X25519"))),
        ("short", change("ed", "x", json!("AAAA"))),
        ("of unknown kind", json!({ "kty": "XYZ" })),
        ("of no kind", json!({ "k": "AAAA" })),
        ("empty secret", json!({ "kty": "oct", "k": "" })),
    ] {
        let alone = json!({ "keys": [key] }).to_string();
        let parsed = KeySet::parse(&alone, Origin::Local);
        assert_eq!(parsed.map(|set| set.len()), Err(Refusal::NoValidKey), "{what}");
        // The others of the set are used.
        let with = json!({ "keys": [key, SIGNER.jwk("ed")] }).to_string();
        assert_eq!(KeySet::parse(&with, Origin::Local).unwrap().len(), 1, "{what}");
    }
}

#[test]
fn a_keys_own_algorithm_holds() {
    let mut key = SIGNER.jwk("rsa");
    key["alg"] = json!("PS256");
    let set = json!({ "keys": [key] }).to_string();
    let keys = KeySet::parse(&set, Origin::Remote).unwrap();
    assert_eq!(judge(&SIGNER.token("PS256", &claims()), &keys), Ok(()));
    for other in ["RS256", "PS384"] {
        let judged = judge(&SIGNER.token(other, &claims()), &keys);
        assert_eq!(judged, Err(Refusal::NoMatchingKey), "{other}");
    }
}

#[test]
fn what_is_no_key_set_is_refused() {
    for (text, expected) in [
        ("", Refusal::KeySetJson),
        ("[]", Refusal::KeySetJson),
        ("{\"keys\":[]} x", Refusal::KeySetJson),
        ("{\"keys\":[],\"keys\":[]}", Refusal::KeySetJson),
        ("<html>", Refusal::KeySetJson),
        ("{}", Refusal::NoKeys),
        ("{\"keys\":{}}", Refusal::KeysKind),
        ("{\"keys\":[]}", Refusal::NoValidKey),
        ("{\"keys\":[1,null]}", Refusal::NoValidKey),
    ] {
        assert_eq!(KeySet::parse(text, Origin::Remote).unwrap_err(), expected, "{text}");
    }
    let long = format!("{{\"keys\":[],\"x\":\"{}\"}}", "x".repeat(sluis_jwt::KEY_SET_BYTES_MAX));
    assert_eq!(KeySet::parse(&long, Origin::Remote).unwrap_err(), Refusal::KeySetJson);
}

#[test]
fn neither_keys_nor_secrets_are_shown() {
    let shown = format!("{:?}", keys(&["oct"]));
    assert!(!shown.contains("BwcH") && !shown.contains("7, 7"), "{shown}");
}
