//! The examples of RFC 9449.

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{DpopKey, ProofOf, claims, thumbprint};
use crate::Moment;

const X: &str = "l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs";
const Y: &str = "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA";

/// Figure 12's proof: who asks for a resource with the token of Figure 12.
const PROOF: &str = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA";

const TOKEN: &str = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU";

fn parts(token: &str) -> (Value, Value) {
    let part = |part: &str| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
    let parts: Vec<&str> = token.split('.').collect();
    (part(parts[0]), part(parts[1]))
}

fn is_signed_by(token: &str, jwk: &Value) -> bool {
    let coordinate = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str().unwrap()).unwrap();
    let point = [vec![4], coordinate("x"), coordinate("y")].concat();
    let (text, signature) = token.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
    key.verify(text.as_bytes(), &signature).is_ok()
}

/// §6.1: the `jkt` of the example's key.
#[test]
fn a_thumbprint_is_that_of_the_specification() {
    assert_eq!(thumbprint(X, Y), "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I");
}

/// Figures 2 and 12: what we say of the same requests is what they say.
#[test]
fn claims_are_those_of_the_specification() {
    let at = |seconds: i128| Moment { unix_nanos: seconds * 1_000_000_000, nonce: [0; 16] };
    let of = ProofOf {
        method: "GET",
        url: "https://resource.example.org/protectedresource?a=b#c",
        token: Some(TOKEN),
        nonce: None,
    };
    let mut ours = claims(of, &at(1_562_262_618));
    ours["jti"] = "e1j3V_bKic8-LAEB".into();
    assert_eq!(ours, parts(PROOF).1);
    assert!(is_signed_by(PROOF, &json!({"x": X, "y": Y})));

    let of = ProofOf {
        method: "POST",
        url: "https://server.example.com/token",
        token: None,
        nonce: Some("eyJ7S_zG.eyJH0-Z.HX4w-7v"),
    };
    let expected = json!({
        "jti": "00000000000000000000000000000000",
        "htm": "POST",
        "htu": "https://server.example.com/token",
        "iat": 1_562_262_616,
        "nonce": "eyJ7S_zG.eyJH0-Z.HX4w-7v",
    });
    assert_eq!(claims(of, &at(1_562_262_616)), expected);
}

#[test]
fn a_proof_is_signed_by_the_key_that_it_shows() {
    let key = DpopKey::generate().unwrap();
    let of = ProofOf { method: "GET", url: "https://a.example/", token: None, nonce: None };
    let proof = key.proof(of, &Moment { unix_nanos: 0, nonce: [1; 16] }).unwrap();
    let (header, _) = parts(&proof);
    assert_eq!((&header["typ"], &header["alg"]), (&json!("dpop+jwt"), &json!("ES256")));
    assert!(is_signed_by(&proof, &header["jwk"]));
    assert_eq!(header["jwk"].as_object().unwrap().len(), 4, "the private key is not shown");
    let text = |name: &str| header["jwk"][name].as_str().unwrap().to_owned();
    assert_eq!(key.thumbprint(), thumbprint(&text("x"), &text("y")));
}
