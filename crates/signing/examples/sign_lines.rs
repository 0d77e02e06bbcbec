//! Signs what it reads: one request in JSON on each line of standard input, one result on each line of
//! standard output. The oracles of `tests/oracles` are its only callers.
//!
//! In:    `{"kind": "aws"|"message"|"jwt", …, "secret": {ENTRY: TEXT}, "method", "scheme", "authority",
//!        "target", "fields": [[NAME, VALUE]], "body", "time"}`.
//!        Of kind `ask`, with a `flow`, `subject` and `nonce`: what to post to the token endpoint. Of
//!        kind `carry`, with `flow`, `status` and `answer` of it besides: the request with its token.
//! Out:   `{"set": [[NAME, VALUE]], "target": TEXT|null}`, or `{"error": TEXT}`; of `ask`
//!        `{"fields": [[NAME, VALUE]], "body": TEXT}`.

use std::{
    io::{BufRead as _, Write as _},
    sync::Arc,
};

use serde_json::{Value, json};
use sluis_signing::{
    AwsSigV4, BodyDigest, ClientAuthentication, Digest, DpopKey, Edits, Grant, HashAlgorithm,
    JwtSign, KeyEncoding, KeyId, KeySource, Kind, Material, MessageSignature, Moment, Place,
    RequestView, Scheme, Secret, SignedFields, TokenFlow,
};

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let key = DpopKey::generate().map_err(std::io::Error::other)?;
    for line in std::io::stdin().lock().lines() {
        let job: Value = serde_json::from_str(&line?)?;
        let result = if job["kind"] == "ask" {
            ask(&job, &key)
        } else {
            sign(&job, &key).map(|edits| shown(&edits))
        };
        let result = result.unwrap_or_else(|error| json!({"error": error.to_string()}));
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

type Failure = Box<dyn std::error::Error>;

fn material(job: &Value) -> Material {
    let entries = job["secret"].as_object().into_iter().flatten();
    let secret = |value: &Value| Secret::new(value.as_str().unwrap_or_default().into());
    entries.map(|(name, value)| (name.clone(), secret(value))).collect()
}

fn moment(job: &Value, nonce: u8) -> Moment {
    let seconds = i128::from(job["time"].as_i64().unwrap_or_default());
    let mut bytes = [nonce; 16];
    bytes[..4].copy_from_slice(&number(job, "count").to_be_bytes());
    Moment { unix_nanos: seconds * 1_000_000_000, nonce: bytes }
}

fn ask(job: &Value, key: &DpopKey) -> Result<Value, Failure> {
    let flow = flow(&job["flow"]).compile()?;
    let moments = [moment(job, 1), moment(job, 2), moment(job, 3)];
    let dpop = Some((key, job["nonce"].as_str()));
    let client = flow.client(&material(job))?;
    let request = client.request(&flow, job["subject"].as_str(), dpop, moments.each_ref())?;
    let shown = |secret: &Secret| String::from_utf8_lossy(secret.expose()).into_owned();
    let fields = request.fields.iter().map(|(name, value)| json!([name, shown(value)]));
    Ok(json!({"fields": fields.collect::<Vec<_>>(), "body": shown(&request.body)}))
}

fn flow(job: &Value) -> TokenFlow {
    let entry = |name: &str, key: &str| if is(job, name) { key.to_owned() } else { String::new() };
    TokenFlow {
        token_url: text(job, "token_url"),
        grant: match text(job, "grant").as_str() {
            "exchange" => Grant::TokenExchange,
            "assertion" => Grant::JwtBearer,
            _ => Grant::ClientCredentials,
        },
        authentication: match text(job, "authentication").as_str() {
            "body" => ClientAuthentication::Body,
            "private_key_jwt" => ClientAuthentication::PrivateKeyJwt,
            "none" => ClientAuthentication::None,
            _ => ClientAuthentication::Basic,
        },
        client_id_key: "id".into(),
        client_secret_key: entry("has_secret", "secret"),
        private_key: KeySource { entry: entry("has_key", "key"), encoding: KeyEncoding::Pem },
        private_key_algorithm: text(job, "algorithm"),
        private_key_id: text(job, "key_id"),
        scopes: texts(job, "scopes"),
        audiences: texts(job, "audiences"),
        resources: texts(job, "resources"),
        claims: vec![("sub".into(), "robot".into())],
        dpop: is(job, "dpop"),
        ..TokenFlow::default()
    }
}

fn sign(job: &Value, key: &DpopKey) -> Result<Edits, Failure> {
    let scheme = match &job["kind"] {
        kind if kind == "carry" => None,
        _ => Some(Scheme::compile(kind(job))?),
    };
    let need = scheme.as_ref().and_then(Scheme::needs_body);
    let body = text(job, "body");
    let body = need.map(|need| Digest::of(need.algorithm, body.as_bytes()));
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
    let moment = moment(job, 4);
    let Some(scheme) = scheme else {
        let flow = flow(&job["flow"]).compile()?;
        let answer = text(job, "answer");
        let status = u16::try_from(number(job, "status"))?;
        let token = flow.answer(status, answer.as_bytes(), job["subject"].as_str(), &moment)?;
        return Ok(flow.carry(&token, &view, &moment, Some((key, None)))?);
    };
    Ok(scheme.signer(Arc::new(material(job)))?.sign(&view, &moment)?)
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
