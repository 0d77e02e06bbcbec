//! The vectors of RFC 9421, Appendix B.2, and the examples of §2.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PSS_2048_8192_SHA512, UnparsedPublicKey, VerificationAlgorithm,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{base, component::Component};
use crate::{
    BodyDigest, Digest, Edits, HashAlgorithm, KeyEncoding, KeyId, KeySource, Kind, Material,
    MessageSignature, Moment, Owned, RequestView, Scheme, SchemeError, Secret, SignError,
    SignatureAlgorithm, keys::Key, view::View,
};

const RSA_PSS: &[u8] = include_bytes!("../../../tests/keys/rfc9421-rsa-pss.pem");
const P256: &[u8] = include_bytes!("../../../tests/keys/rfc9421-ecc-p256.pem");
const ED25519: &[u8] = include_bytes!("../../../tests/keys/rfc9421-ed25519.pem");
const SHARED: &[u8] =
    b"uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ==";

const FIELDS: [(&str, &[u8]); 4] = [
    ("date", b"Tue, 20 Apr 2021 02:07:55 GMT"),
    ("content-type", b"application/json"),
    (
        "content-digest",
        b"sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:",
    ),
    ("content-length", b"18"),
];

const MOMENT: Moment = Moment { unix_nanos: 1_618_884_473_000_000_000, nonce: [0; 16] };

fn request<'r>(target: &'r str, fields: &'r [(&'r str, &'r [u8])]) -> RequestView<'r> {
    let (method, authority) = ("POST", "example.com");
    RequestView { method, scheme: "https", authority, path_and_query: target, fields, body: None }
}

fn components(names: &[&str]) -> Vec<Component> {
    names.iter().map(|name| Component::parse(name).unwrap()).collect()
}

/// The base of a signature over the request of Appendix B.2.
fn base_of(names: &[&str], rest: &str) -> Vec<u8> {
    let request = request("/foo?param=Value&Pet=dog", &FIELDS);
    let owned = Owned::default();
    let view = View::new(&request, &MOMENT, &owned).unwrap();
    let parameters = format!("({}){rest}", names.join(" "));
    base(&components(names), &parameters, |one| one.value(&view)).unwrap()
}

fn key(algorithm: &str, key: &[u8]) -> Key {
    let material: Material = [("k", Secret::new(key.to_vec()))].into_iter().collect();
    let source = KeySource { entry: "k".into(), encoding: KeyEncoding::Pem };
    Key::read(SignatureAlgorithm::of_message(algorithm).unwrap(), &source, &material).unwrap()
}

/// Sees that the published signature, and one of ours, are good over our base.
#[track_caller]
fn both_verify(
    base: &[u8],
    key: &Key,
    algorithm: &'static dyn VerificationAlgorithm,
    published: &str,
) {
    let verifier = UnparsedPublicKey::new(algorithm, key.public().unwrap());
    let published = STANDARD.decode(published).unwrap();
    assert!(verifier.verify(base, &published).is_ok(), "the published one");
    assert!(verifier.verify(base, &key.sign(base).unwrap()).is_ok(), "ours");
    let mut other = base.to_vec();
    other.push(b' ');
    assert!(verifier.verify(&other, &published).is_err());
}

#[test]
fn b_2_1_a_minimal_signature_verifies() {
    let rest = r#";created=1618884473;keyid="test-key-rsa-pss";nonce="b3k2pp5k7z-50gnwp.yemd""#;
    let published = "d2pmTvmbncD3xQm8E9ZV2828BjQWGgiwAaw5bAkgibUopemLJcWDy/lkbbHAve4cRAtx31Iq786U7it\
                     ++wgGxbtRxf8Udx7zFZsckzXaJMkA7ChG52eSkFxykJeNqsrWH5S+oxNFlD4dzVuwe8DhTSja8xxbR/Z\
                     2cOGdCbzR72rgFWhzx2VjBqJzsPLMIQKhO4DGezXehhWwE56YCE+O6c0mKZsfxVrogUvA4HELjVKWmAv\
                     tl6UnCh8jYzuVG5WSb/QEVPnP5TmcAnLH1g+s++v6d4s8m0gCw1fV5/SITLq9mhho8K3+7EPYTU8IU1b\
                     LhdxO5Nyt8C8ssinQ98Xw9Q==";
    let key = key("rsa-pss-sha512", RSA_PSS);
    both_verify(&base_of(&[], rest), &key, &RSA_PSS_2048_8192_SHA512, published);
}

#[test]
fn b_2_2_selected_components_verify() {
    let names = [r#""@authority""#, r#""content-digest""#, r#""@query-param";name="Pet""#];
    let rest = r#";created=1618884473;keyid="test-key-rsa-pss";tag="header-example""#;
    let published = "LjbtqUbfmvjj5C5kr1Ugj4PmLYvx9wVjZvD9GsTT4F7GrcQEdJzgI9qHxICagShLRiLMlAJjtq6N4CD\
                     fKtjvuJyE5qH7KT8UCMkSowOB4+ECxCmT8rtAmj/0PIXxi0A0nxKyB09RNrCQibbUjsLS/2YyFYXEu4T\
                     RJQzRw1rLEuEfY17SARYhpTlaqwZVtR8NV7+4UKkjqpcAoFqWFQh62s7Cl+H2fjBSpqfZUJcsIk4N6wi\
                     KYd4je2U/lankenQ99PZfB4jY3I5rSV2DSBVkSFsURIjYErOs0tFTQosMTAoxk//0RoKUqiYY8Bh0aaU\
                     Eb0rQl3/XaVe4bXTugEjHSw==";
    let key = key("rsa-pss-sha512", RSA_PSS);
    both_verify(&base_of(&names, rest), &key, &RSA_PSS_2048_8192_SHA512, published);
}

#[test]
fn b_2_3_full_coverage_verifies() {
    let names = [
        "date",
        "@method",
        "@path",
        "@query",
        "@authority",
        "content-type",
        "content-digest",
        "content-length",
    ]
    .map(|name| format!("\"{name}\""));
    let names = names.each_ref().map(String::as_str);
    let rest = r#";created=1618884473;keyid="test-key-rsa-pss""#;
    let published = "bbN8oArOxYoyylQQUU6QYwrTuaxLwjAC9fbY2F6SVWvh0yBiMIRGOnMYwZ/5MR6fb0Kh1rIRASVxFke\
                     Gt683+qRpRRU5p2voTp768ZrCUb38K0fUxN0O0iC59DzYx8DFll5GmydPxSmme9v6ULbMFkl+V5B1TP/\
                     yPViV7KsLNmvKiLJH1pFkh/aYA2HXXZzNBXmIkoQoLd7YfW91kE9o/CCoC1xMy7JA1ipwvKvfrs65ldm\
                     lu9bpG6A9BmzhuzF8Eim5f8ui9eH8LZH896+QIF61ka39VBrohr9iyMUJpvRX2Zbhl5ZJzSRxpJyoEZA\
                     FL2FUo5fTIztsDZKEgM4cUA==";
    let key = key("rsa-pss-sha512", RSA_PSS);
    both_verify(&base_of(&names, rest), &key, &RSA_PSS_2048_8192_SHA512, published);
}

/// Of a response: a gateway signs none, but the base and the key are of the same making.
#[test]
fn b_2_4_a_response_verifies() {
    let base = "\"@status\": 200\n\
                \"content-type\": application/json\n\
                \"content-digest\": sha-512=:mEWXIS7MaLRuGgxOBdODa3xqM1XdEvxoYhvlCFJ41QJgJc4GTsPp29l5\
                oGX69wWdXymyU0rjJuahq4l5aGgfLQ==:\n\
                \"content-length\": 23\n\
                \"@signature-params\": (\"@status\" \"content-type\" \"content-digest\" \
                \"content-length\");created=1618884473;keyid=\"test-key-ecc-p256\"";
    let published = "wNmSUAhwb5LxtOtOpNa6W5xj067m5hFrj0XQ4fvpaCLx0NKocgPquLgyahnzDnDAUy5eCdlYUEkLIj+3\
                     2oiasw==";
    let key = key("ecdsa-p256-sha256", P256);
    both_verify(base.as_bytes(), &key, &ECDSA_P256_SHA256_FIXED, published);
}

/// Signs the request of Appendix B.2 through the front door.
fn sign(kind: MessageSignature, key: &[u8], body: Option<&Digest>) -> Edits {
    let material = [("k", Secret::new(key.to_vec()))].into_iter().collect::<Material>();
    let signer = Scheme::compile(Kind::MessageSignature(kind)).unwrap();
    let signer = signer.signer(std::sync::Arc::new(material)).unwrap();
    let request = RequestView { body, ..request("/foo?param=Value&Pet=dog", &FIELDS) };
    signer.sign(&request, &MOMENT).unwrap()
}

fn kind(label: &str, algorithm: &str, key_id: &str, names: &[&str]) -> MessageSignature {
    let encoding = if algorithm == "hmac-sha256" { KeyEncoding::Base64 } else { KeyEncoding::Pem };
    MessageSignature {
        label: label.into(),
        algorithm: algorithm.into(),
        key: KeySource { entry: "k".into(), encoding },
        key_id: KeyId::Text(key_id.into()),
        components: names.iter().map(|name| format!("\"{name}\"")).collect(),
        ..MessageSignature::default()
    }
}

fn values(edits: &Edits) -> Vec<&str> {
    edits.set().map(|(_, value)| str::from_utf8(value).unwrap()).collect()
}

#[test]
fn b_2_5_hmac_sha256_is_the_same_to_the_byte() {
    let names = ["date", "@authority", "content-type"];
    let edits = sign(kind("sig-b25", "hmac-sha256", "test-shared-secret", &names), SHARED, None);
    assert_eq!(
        values(&edits),
        [
            "sig-b25=(\"date\" \"@authority\" \"content-type\");created=1618884473;\
             keyid=\"test-shared-secret\"",
            "sig-b25=:pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=:",
        ]
    );
}

#[test]
fn b_2_6_ed25519_is_the_same_to_the_byte() {
    let names = ["date", "@method", "@path", "@authority", "content-type", "content-length"];
    let edits = sign(kind("sig-b26", "ed25519", "test-key-ed25519", &names), ED25519, None);
    assert_eq!(
        values(&edits),
        [
            "sig-b26=(\"date\" \"@method\" \"@path\" \"@authority\" \"content-type\" \
             \"content-length\");created=1618884473;keyid=\"test-key-ed25519\"",
            "sig-b26=:wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5W\
             PpBKRCw==:",
        ]
    );
}

/// RFC 9530, Appendix B and D, and the digest that Appendix B.2 of RFC 9421 has.
#[test]
fn the_digest_of_the_body_is_added_and_covered() {
    let mut kind = kind("sig", "ed25519", "key", &["content-digest"]);
    let algorithm = HashAlgorithm::Sha512;
    kind.body_digest = Some(BodyDigest { algorithm, bytes_max: 100, ..BodyDigest::default() });
    kind.expires_seconds = 60;
    kind.nonce = true;
    kind.send_algorithm = true;
    kind.tag = "a\"b".into();
    let body = Digest::of(algorithm, b"{\"hello\": \"world\"}");
    let edits = sign(kind, ED25519, Some(&body));
    // The client's own is taken away, though it is the same.
    assert_eq!(edits.removed(), ["content-digest"]);
    assert_eq!(values(&edits)[0].as_bytes(), FIELDS[2].1);
    assert_eq!(
        values(&edits)[1],
        "sig=(\"content-digest\");created=1618884473;expires=1618884533;keyid=\"key\";\
         nonce=\"AAAAAAAAAAAAAAAAAAAAAA\";alg=\"ed25519\";tag=\"a\\\"b\""
    );
}

#[track_caller]
fn check(target: &str, component: &str, expected: Result<&str, &str>) {
    let fields: [(&str, &[u8]); 4] =
        [("x-ows", b"  a  "), ("x-two", b"one, two"), ("x-two", b" three "), ("x-empty", b"")];
    let (request, owned) = (request(target, &fields), Owned::default());
    let view = View::new(&request, &MOMENT, &owned).unwrap();
    let value = Component::parse(component).unwrap().value(&view);
    let value = value.map(|value| String::from_utf8(value).unwrap());
    assert_eq!(
        value.as_deref().map_err(SignError::to_string),
        expected.map_err(str::to_owned),
        "{component} of {target}"
    );
}

#[test]
fn components_have_the_values_of_section_2() {
    let plain = "/path?param=value&foo=bar&baz=batman&qux=";
    check(plain, r#""@method""#, Ok("POST"));
    check(plain, r#""@scheme""#, Ok("https"));
    check(plain, r#""@authority""#, Ok("example.com"));
    check(plain, r#""@path""#, Ok("/path"));
    check(plain, r#""@query""#, Ok("?param=value&foo=bar&baz=batman&qux="));
    check(plain, r#""@request-target""#, Ok(plain));
    check("/path?", r#""@query""#, Ok("?"));
    check("/path", r#""@query""#, Ok("?"));
    check("/a?b", r#""@target-uri""#, Ok("https://example.com/a?b"));
    check("*", r#""@target-uri""#, Ok("https://example.com"));
    check("/p?queryString", r#""@query""#, Ok("?queryString"));
    check(plain, r#""@query-param";name="baz""#, Ok("batman"));
    check(plain, r#""@query-param";name="qux""#, Ok(""));
    let odd = "/parameters?var=this%20is%20a%20big%0Amultiline%20value&bar=with+plus+whitespace\
               &fa%C3%A7ade%22%3A%20=something";
    check(odd, r#""@query-param";name="var""#, Ok("this%20is%20a%20big%0Amultiline%20value"));
    check(odd, r#""@query-param";name="bar""#, Ok("with%20plus%20whitespace"));
    check(odd, r#""@query-param";name="fa%C3%A7ade%22%3A%20""#, Ok("something"));
    check(
        "/?a=1&a=2",
        r#""@query-param";name="a""#,
        Err("the parameter a is there more than once"),
    );
    check(
        "/?a=1",
        r#""@query-param";name="b""#,
        Err("the request has no \"@query-param\";name=\"b\", which is to be signed"),
    );
    check("/", r#""x-ows""#, Ok("a"));
    check("/", r#""x-two""#, Ok("one, two, three"));
    check("/", r#""x-empty""#, Ok(""));
    check("/", r#""x-two";bs"#, Ok(":b25lLCB0d28=:, :dGhyZWU=:"));
    check("/", r#""none""#, Err("the request has no \"none\", which is to be signed"));
}

#[test]
fn a_component_that_cannot_be_covered_is_refused_by_name() {
    let check = |component: &str| {
        let error = Component::parse(component).unwrap_err();
        assert!(
            matches!(&error, SchemeError::Component { component: named, .. } if named == component)
        );
    };
    for component in [
        "\"@status\"",
        "\"@none\"",
        "@method",
        "\"@method\";req",
        "\"a\";sf",
        "\"a\";key=\"b\"",
        "\"a\";tr",
        "\"A\"",
        "\"a b\"",
        "\"\"",
        "\"@query-param\"",
        "\"@query-param\";name=\"a b\"",
    ] {
        check(component);
    }
    let twice = kind("sig", "ed25519", "k", &["@method", "@method"]);
    assert!(Scheme::compile(Kind::MessageSignature(twice)).is_err());
    let bare = kind("sig", "ed25519", "k", &["content-digest"]);
    let error = Scheme::compile(Kind::MessageSignature(bare)).unwrap_err();
    assert_eq!(error, SchemeError::Missing { what: "body_digest" });
    let label = kind("Sig", "ed25519", "k", &[]);
    assert!(Scheme::compile(Kind::MessageSignature(label)).is_err());
}
