//! The examples of RFC 7515, Appendix A, and RFC 8037, Appendix A.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{Assertion, signed};
use crate::{
    KeyEncoding, KeySource, Material, Moment, Secret, SignatureAlgorithm, digest::base64url,
    keys::Key,
};

const CLAIMS: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";

fn material(key: &[u8]) -> Material {
    [("k", Secret::new(key.to_vec()))].into_iter().collect()
}

fn key(algorithm: &str, encoding: KeyEncoding, bytes: &[u8]) -> Key {
    let source = KeySource { entry: "k".into(), encoding };
    let algorithm = SignatureAlgorithm::of_jose(algorithm).unwrap();
    Key::read(algorithm, &source, &material(bytes)).unwrap()
}

#[track_caller]
fn check(header: &str, claims: &str, key: &Key, signature: &str) {
    let token = signed(header, claims, key).unwrap();
    assert_eq!(token, format!("{header}.{claims}.{signature}"));
}

#[test]
fn hs256_is_that_of_appendix_a_1() {
    let secret =
        "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
    let key = key("HS256", KeyEncoding::Raw, &URL_SAFE_NO_PAD.decode(secret).unwrap());
    let header = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9";
    check(header, CLAIMS, &key, "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
}

#[test]
fn rs256_is_that_of_appendix_a_2() {
    let key = key("RS256", KeyEncoding::Pem, include_bytes!("../../tests/keys/rfc7515-a2.pem"));
    let signature = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF\
                     5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK\
                     5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqt\
                     FZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrB\
                     p0igcN_IoypGlUPQGe77Rw";
    check("eyJhbGciOiJSUzI1NiJ9", CLAIMS, &key, signature);
}

/// ECDSA's signatures are random: the example's and ours are both good by the same key.
#[test]
fn es256_verifies_as_that_of_appendix_a_3() {
    let key = key("ES256", KeyEncoding::Pem, include_bytes!("../../tests/keys/rfc7515-a3.pem"));
    let public = key.public().unwrap();
    assert_eq!(base64url(&public[1..33]), "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU");
    let verifier = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, public);
    let text = format!("eyJhbGciOiJFUzI1NiJ9.{CLAIMS}");
    let example = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg\
                   6NU1Q";
    let ours = signed("eyJhbGciOiJFUzI1NiJ9", CLAIMS, &key).unwrap();
    for signature in [example, ours.rsplit_once('.').unwrap().1] {
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        assert!(verifier.verify(text.as_bytes(), &signature).is_ok());
    }
}

#[test]
fn eddsa_is_that_of_rfc_8037() {
    let key = key("EdDSA", KeyEncoding::Pem, include_bytes!("../../tests/keys/rfc8037-a1.pem"));
    let signature =
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    check("eyJhbGciOiJFZERTQSJ9", "RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc", &key, signature);
}

/// RFC 7523 §3: who says it, of whom, to whom, until when, and once.
#[test]
fn an_assertion_says_what_rfc_7523_asks_for() {
    let assertion = Assertion {
        algorithm: "EdDSA".into(),
        key: KeySource { entry: "k".into(), encoding: KeyEncoding::Pem },
        key_id: "key-1".into(),
        issuer: "client".into(),
        subject: "client".into(),
        audiences: vec!["https://as.example/token".into()],
        lifetime_seconds: 60,
        claims: vec![("tenant".into(), "a\"b".into())],
    };
    let signer =
        assertion.signer(&material(include_bytes!("../../tests/keys/rfc8037-a1.pem"))).unwrap();
    let moment = Moment { unix_nanos: 1_440_938_160_999_999_999, nonce: [0xab; 16] };
    let token = signer.sign(&moment).unwrap();
    let token = str::from_utf8(token.expose()).unwrap();
    let parts: Vec<_> = token
        .split('.')
        .take(2)
        .map(|part| String::from_utf8(URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap())
        .collect();
    let claims = r#"{"aud":"https://as.example/token","exp":1440938220,"iat":1440938160,"iss":"client","jti":"abababababababababababababababab","sub":"client","tenant":"a\"b"}"#;
    assert_eq!(parts, [r#"{"alg":"EdDSA","kid":"key-1","typ":"JWT"}"#, claims]);
}
