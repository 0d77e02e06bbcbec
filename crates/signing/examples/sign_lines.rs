//! Signs what it reads: one request in JSON on each line of standard input, one result on each line of
//! standard output. The oracles of `tests/oracles` are its only callers.
//!
//! In:    `{"kind": "aws"|"message"|"jwt", …, "secret": {ENTRY: TEXT}, "method", "scheme", "authority",
//!        "target", "fields": [[NAME, VALUE]], "body", "time"}`.
//! Out:   `{"set": [[NAME, VALUE]], "target": TEXT|null}`, or `{"error": TEXT}`.

use std::{
    io::{BufRead as _, Write as _},
    sync::Arc,
};

use serde_json::{Value, json};
use sluis_signing::{
    AwsSigV4, BodyDigest, Digest, Edits, HashAlgorithm, JwtSign, KeyEncoding, KeyId, KeySource,
    Kind, Material, MessageSignature, Moment, Place, RequestView, Scheme, Secret, SignedFields,
};

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let job: Value = serde_json::from_str(&line?)?;
        let result = match sign(&job) {
            Ok(edits) => shown(&edits),
            Err(error) => json!({"error": error.to_string()}),
        };
        writeln!(out, "{result}")?;
        out.flush()?;
    }
    Ok(())
}

fn shown(edits: &Edits) -> Value {
    let field = |(name, value): (&str, &[u8])| json!([name, String::from_utf8_lossy(value)]);
    json!({"set": edits.set().map(field).collect::<Vec<_>>(), "target": edits.path_and_query()})
}

fn text(job: &Value, name: &str) -> String {
    job[name].as_str().unwrap_or_default().to_owned()
}

fn texts(job: &Value, name: &str) -> Vec<String> {
    let list = job[name].as_array().into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn number(job: &Value, name: &str) -> u32 {
    job[name].as_u64().and_then(|number| number.try_into().ok()).unwrap_or_default()
}

fn is(job: &Value, name: &str) -> bool {
    job[name].as_bool().unwrap_or_default()
}

fn sign(job: &Value) -> Result<Edits, Box<dyn std::error::Error>> {
    let scheme = Scheme::compile(kind(job))?;
    let entries = job["secret"].as_object().into_iter().flatten();
    let secret = |value: &Value| Secret::new(value.as_str().unwrap_or_default().into());
    let material: Material = entries.map(|(name, value)| (name.clone(), secret(value))).collect();
    let body = text(job, "body");
    let body = scheme.needs_body().map(|need| Digest::of(need.algorithm, body.as_bytes()));
    let pairs = job["fields"].as_array().into_iter().flatten();
    let fields: Vec<(&str, &[u8])> =
        pairs.filter_map(|pair| Some((pair[0].as_str()?, pair[1].as_str()?.as_bytes()))).collect();
    let (method, scheme_name) = (text(job, "method"), text(job, "scheme"));
    let (authority, target) = (text(job, "authority"), text(job, "target"));
    let view = RequestView {
        method: &method,
        scheme: &scheme_name,
        authority: &authority,
        path_and_query: &target,
        fields: &fields,
        body: body.as_ref(),
    };
    let seconds = i128::from(job["time"].as_i64().unwrap_or_default());
    let moment = Moment { unix_nanos: seconds * 1_000_000_000, nonce: [3; 16] };
    Ok(scheme.signer(Arc::new(material))?.sign(&view, &moment)?)
}

fn kind(job: &Value) -> Kind {
    let encoding = match text(job, "encoding").as_str() {
        "base64" => KeyEncoding::Base64,
        "pem" => KeyEncoding::Pem,
        _ => KeyEncoding::Raw,
    };
    let key = KeySource { entry: "key".into(), encoding };
    match text(job, "kind").as_str() {
        "message" => Kind::MessageSignature(message(job, key)),
        "jwt" => Kind::JwtSign(JwtSign {
            algorithm: text(job, "algorithm"),
            key,
            key_id: text(job, "key_id"),
            issuer: text(job, "issuer"),
            audiences: texts(job, "audiences"),
            lifetime_seconds: 300,
            claims: vec![("target".into(), "{method} {path_and_query}".into())],
            prefix: "Bearer ".into(),
            ..JwtSign::default()
        }),
        _ => Kind::AwsSigV4(aws(job)),
    }
}

fn aws(job: &Value) -> AwsSigV4 {
    let expires_seconds = number(job, "expires");
    AwsSigV4 {
        service: text(job, "service"),
        region: text(job, "region"),
        access_key_id_key: "id".into(),
        secret_access_key_key: "secret".into(),
        session_token_key: if is(job, "token") { "token".into() } else { String::new() },
        place: if expires_seconds == 0 { Place::Fields } else { Place::Query { expires_seconds } },
        unsigned_payload: is(job, "unsigned"),
        body_bytes_max: 1 << 20,
        payload_field: is(job, "payload_field"),
        signed_fields: SignedFields::Listed(texts(job, "signed")),
        s3: is(job, "s3"),
    }
}

fn message(job: &Value, key: KeySource) -> MessageSignature {
    let algorithm = match text(job, "digest").as_str() {
        "sha-256" => Some(HashAlgorithm::Sha256),
        "sha-512" => Some(HashAlgorithm::Sha512),
        _ => None,
    };
    let digest = |algorithm| BodyDigest { algorithm, bytes_max: 1 << 20, ..BodyDigest::default() };
    MessageSignature {
        label: text(job, "label"),
        components: texts(job, "components"),
        algorithm: text(job, "algorithm"),
        key,
        key_id: KeyId::Text(text(job, "key_id")),
        expires_seconds: number(job, "expires"),
        nonce: is(job, "nonce"),
        tag: text(job, "tag"),
        send_algorithm: is(job, "send_algorithm"),
        body_digest: algorithm.map(digest),
        ..MessageSignature::default()
    }
}
