//! What never happens, whatever comes in.

use proptest::prelude::*;
use sluis_signing::{
    AwsSigV4, BodyDigest, Cookie, Digest, HashAlgorithm, Header, Hmac, JwtSign, KeyEncoding, KeyId,
    KeySource, Kind, MessageSignature, Moment, Output, Place, Query, RequestView, Scheme, Secret,
    SignedFields,
};

fn key() -> KeySource {
    KeySource { entry: "k".into(), encoding: KeyEncoding::Raw }
}

fn kinds(name: &str, template: &str) -> Vec<Kind> {
    let (k, name) = (|| "k".to_owned(), name.to_owned());
    let aws = |place, s3| AwsSigV4 {
        service: "s3".into(),
        region: "r".into(),
        access_key_id_key: k(),
        secret_access_key_key: k(),
        session_token_key: k(),
        place,
        payload_field: true,
        signed_fields: SignedFields::AllExcept(vec![]),
        s3,
        ..AwsSigV4::default()
    };
    let components =
        ["@target-uri", "@path", "@query", "cookie"].map(|one| format!("\"{one}\"")).to_vec();
    vec![
        Kind::Header(Header { name: name.clone(), prefix: template.into(), key: k() }),
        Kind::Query(Query { name: name.clone(), key: k() }),
        Kind::Cookie(Cookie { name: name.clone(), key: k() }),
        Kind::AwsSigV4(aws(Place::Fields, true)),
        Kind::AwsSigV4(aws(Place::Fields, false)),
        Kind::AwsSigV4(aws(Place::Query { expires_seconds: 5 }, false)),
        Kind::Hmac(Hmac {
            key: key(),
            string_to_sign: "{method}{path}{query}{header.cookie}{nonce}".into(),
            outputs: vec![
                Output { header: "s".into(), template: "{signature}{secret.k}".into() },
                Output { header: name, template: template.into() },
            ],
            date_format: template.into(),
            ..Hmac::default()
        }),
        Kind::MessageSignature(MessageSignature {
            algorithm: "hmac-sha256".into(),
            key: key(),
            key_id: KeyId::Entry(k()),
            components,
            tag: template.into(),
            body_digest: Some(BodyDigest::default()),
            ..MessageSignature::default()
        }),
        Kind::JwtSign(JwtSign {
            algorithm: "HS256".into(),
            key: key(),
            lifetime_seconds: 5,
            claims: vec![("c".into(), "{header.cookie}{query}".into())],
            ..JwtSign::default()
        }),
    ]
}

/// Text that hurts: with what ends lines, opens templates, and escapes.
fn hostile() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ -~\r\n\t\u{0}é%{}/?&=;:#.]{0,24}",
        "/[a-z%/.?&=+;]{0,24}",
        "\\{(method|header\\.x|secret\\.k|signature|date)(:(hex|upper))?\\}[\r\n]?",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn no_line_ends_in_what_is_set(
        (name, template) in ("[a-zA-Z_\r\n -]{1,8}", hostile()),
        (method, authority, target) in ("[A-Z\r\n ]{1,6}", hostile(), hostile()),
        fields in prop::collection::vec(
            ("(cookie|x-amz-a|x|X_Y|[a-z\r\n]{1,4})", prop::collection::vec(any::<u8>(), 0..16)),
            0..5,
        ),
        secret in prop::collection::vec(any::<u8>(), 0..40),
        unix_nanos in any::<i128>(),
    ) {
        let fields: Vec<_> =
            fields.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        let body = Digest::of(HashAlgorithm::Sha256, b"");
        let view = RequestView {
            method: &method,
            scheme: "https",
            authority: &authority,
            path_and_query: &target,
            fields: &fields,
            body: Some(&body),
        };
        let moment = Moment { unix_nanos, nonce: [1; 16] };
        for kind in kinds(&name, &template) {
            for secret in [secret.clone(), b"an-ordinary-secret".to_vec()] {
                let Ok(scheme) = Scheme::compile(kind.clone()) else { continue };
                let material = [("k", Secret::new(secret))].into_iter().collect();
                let Ok(signer) = scheme.signer(std::sync::Arc::new(material)) else { continue };
                let Ok(edits) = signer.sign(&view, &moment) else { continue };
                for (name, value) in edits.set() {
                    let ends = |byte: &u8| matches!(byte, b'\r' | b'\n' | 0);
                    prop_assert!(!name.bytes().any(|byte| ends(&byte)), "{name:?}");
                    prop_assert!(!value.iter().any(ends), "{name:?}: {value:?}");
                    prop_assert!(name.bytes().all(|byte| !byte.is_ascii_uppercase()));
                }
                let target = edits.path_and_query().unwrap_or("/");
                prop_assert!(target.bytes().all(|byte| byte > 0x20 && byte != 0x7f), "{target:?}");
            }
        }
    }

    #[test]
    fn a_template_is_read_or_refused(text in "[a-z{}:.%é]{0,40}") {
        let kind = Hmac {
            key: key(),
            string_to_sign: text,
            outputs: vec![Output { header: "s".into(), template: "{signature}".into() }],
            ..Hmac::default()
        };
        let _ = Scheme::compile(Kind::Hmac(kind));
    }
}
