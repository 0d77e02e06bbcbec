//! Reads the kinds that sign the request: HMAC by template, RFC 9421, AWS.

use super::{
    AwsSigV4Injection, BODY_BYTES, BodyDigest, CONTENT_DIGEST, Duration, Entry, Fields,
    HashAlgorithm, HeaderName, HmacInjection, HmacOutput, KeyEncoding, KeyId,
    MessageSignatureInjection, Read, SecretKey, SignatureAlgorithm, TextEncoding, Use, Value,
    body_bytes, checked, entry_or, exactly_one, has, key, read_fields, read_names, required_header,
    template,
};

read_fields! {
    HmacInjection => hmac,
    HmacKey => hmac_key,
    HmacOutput => output,
    Date => date,
    MessageSignatureInjection => message_signature,
    AwsSigV4Injection => aws,
}

read_names! {
    SignatureAlgorithm {
        "hmac-sha256" => SignatureAlgorithm::HmacSha256,
        "ed25519" => SignatureAlgorithm::Ed25519,
        "ecdsa-p256-sha256" => SignatureAlgorithm::EcdsaP256Sha256,
        "ecdsa-p384-sha384" => SignatureAlgorithm::EcdsaP384Sha384,
        "rsa-pss-sha512" => SignatureAlgorithm::RsaPssSha512,
        "rsa-v1_5-sha256" => SignatureAlgorithm::RsaV15Sha256,
    }
}

/// ISO 8601 without punctuation, as AWS and many after it have it.
const DATE_FORMAT: &str = "%Y%m%dT%H%M%SZ";

/// The letters of strftime that are understood.
const DATE_LETTERS: &str = "YmdHMSyjaAbBeFTDRsZz%";

/// What is covered where nothing is written: where the request goes, and its body.
const COMPONENTS: [&str; 3] = ["\"@method\"", "\"@target-uri\"", "\"content-digest\""];

/// What of a request can be covered, RFC 9421 §2.2.
const DERIVED: [&str; 8] = [
    "@method",
    "@target-uri",
    "@authority",
    "@scheme",
    "@request-target",
    "@path",
    "@query",
    "@query-param",
];

/// How long AWS takes a presigned URL: up to a week.
const PRESIGN_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

fn hmac(fields: &mut Fields<'_, '_>) -> Option<HmacInjection> {
    let algorithm: HashAlgorithm = fields.or_default("algorithm");
    let allow_weak: bool = fields.or_default("allowWeak");
    if algorithm == HashAlgorithm::Sha1
        && let Some(value) = fields.get("algorithm")
    {
        match allow_weak {
            true => value.warn("sha1 is weak: ask the owner of the API for sha256"),
            false => {
                value.fault_help::<()>(
                    "sha1 is weak",
                    "where nothing else is taken: allowWeak: true",
                );
            }
        }
    }
    let (key, derive) = match fields.get("key") {
        None => (Some(secret_key("secretKey")), Vec::new()),
        Some(value) if !value.is_described() && value.is_text() => {
            (value.read().map(|Entry(entry)| secret_key(&entry)), Vec::new())
        }
        Some(value) => {
            value.read().map_or((None, Vec::new()), |HmacKey(key, derive)| (Some(key), derive))
        }
    };
    let string_to_sign = one_template(fields, "stringToSign", Use::Signed);
    let Date(date_header, date_format) = fields.opt("date").unwrap_or_default();
    let body_digest: Option<BodyDigest> = fields.opt("bodyDigest");
    let lone: Option<HmacOutput> = fields.opt("output");
    let list: Option<Vec<HmacOutput>> = fields.opt("outputs");
    exactly_one(fields, &["output", "outputs"]);
    let written: Vec<HmacOutput> = lone.into_iter().chain(list.unwrap_or_default()).collect();
    if !fields.value().is_described() {
        check_outputs(fields, &written);
        check_digest(fields, string_to_sign.as_deref(), &written, body_digest.as_ref());
    }
    let date = date_header.map(|header| HmacOutput { header, template: "{date}".to_owned() });
    Some(HmacInjection {
        algorithm,
        key: key?,
        derive,
        string_to_sign: string_to_sign?,
        date_format,
        body_digest,
        outputs: date.into_iter().chain(written).collect(),
    })
}

fn secret_key(entry: &str) -> SecretKey {
    SecretKey { entry: entry.to_owned(), encoding: KeyEncoding::Raw }
}

fn check_outputs(fields: &mut Fields<'_, '_>, outputs: &[HmacOutput]) {
    if outputs.is_empty() || outputs.iter().any(|output| has(&output.template, "signature")) {
        return;
    }
    let name = if fields.has("output") { "output" } else { "outputs" };
    if let Some(value) = fields.get(name) {
        value.fault_help::<()>(
            "the signature is sent nowhere",
            "a template has {signature}, such as {signature:base64}",
        );
    }
}

/// A digest that nothing signs protects nothing, and one that is signed must be made.
fn check_digest(
    fields: &mut Fields<'_, '_>,
    string_to_sign: Option<&str>,
    outputs: &[HmacOutput],
    digest: Option<&BodyDigest>,
) {
    const NAME: &str = "body_digest";
    let is_signed = string_to_sign.is_some_and(|text| has(text, NAME));
    let is_named = is_signed || outputs.iter().any(|output| has(&output.template, NAME));
    match (digest, is_named) {
        (None, true) => {
            fields.value().fault_help::<()>(
                "{body_digest} is used, and no digest is made",
                "write bodyDigest: {} beside it",
            );
        }
        (Some(_), _) if !is_signed && string_to_sign.is_some() => {
            if let Some(value) = fields.get("bodyDigest") {
                value.warn("the digest is not signed: stringToSign has no {body_digest}");
            }
        }
        _ => {}
    }
}

/// `key` of an HMAC, with the chain that makes the key.
struct HmacKey(SecretKey, Vec<String>);

fn hmac_key(fields: &mut Fields<'_, '_>) -> Option<HmacKey> {
    let entry = entry_or(fields, "from", "secretKey");
    let encoding = fields.or_default("encoding");
    if encoding == KeyEncoding::Pem
        && let Some(value) = fields.get("encoding")
    {
        value.fault::<()>("the key of an HMAC is raw, base64 or hex");
    }
    let steps = fields.get("derive").and_then(|value| value.items()).unwrap_or_default();
    let derive = steps.iter().filter_map(|step| template(step, Use::Made)).collect();
    Some(HmacKey(SecretKey { entry, encoding }, derive))
}

fn one_template(fields: &mut Fields<'_, '_>, name: &'static str, used: Use) -> Option<String> {
    match fields.get(name) {
        Some(value) => template(&value, used),
        None => {
            fields.missing(name);
            None
        }
    }
}

fn output(fields: &mut Fields<'_, '_>) -> Option<HmacOutput> {
    let header = required_header(fields, "header");
    let template = one_template(fields, "template", Use::Sent);
    Some(HmacOutput { header: header?, template: template? })
}

/// `date`: the field that carries it, if one does, and its format.
struct Date(Option<String>, String);

impl Default for Date {
    fn default() -> Self {
        Self(None, DATE_FORMAT.to_owned())
    }
}

fn date(fields: &mut Fields<'_, '_>) -> Option<Date> {
    let header = super::secret_header(fields, "header");
    let format = fields.get("format").and_then(|value| {
        checked(&value, |text| {
            let letters = text.split('%').skip(1).map(|rest| rest.chars().next());
            let mut is_escape = false;
            for letter in letters {
                // `%%` gives an empty piece, and the piece behind it is literal.
                match letter {
                    _ if is_escape => is_escape = false,
                    None => is_escape = true,
                    Some(letter) if DATE_LETTERS.contains(letter) => {}
                    Some(letter) => return Err(format!("%{letter} is not known in dates")),
                }
            }
            Ok(text.to_owned())
        })
    });
    Some(Date(header, format.unwrap_or_else(|| DATE_FORMAT.to_owned())))
}

fn message_signature(fields: &mut Fields<'_, '_>) -> Option<MessageSignatureInjection> {
    let label = fields.opt("label").map_or_else(|| "sig1".to_owned(), |Label(label)| label);
    let components: Option<Vec<Component>> = fields.opt("components");
    if components.as_ref().is_some_and(Vec::is_empty)
        && let Some(value) = fields.get("components")
    {
        value.fault::<()>("a signature that covers nothing proves nothing");
    }
    let components: Vec<String> = match components {
        Some(list) => list.into_iter().map(|Component(name)| name).collect(),
        None => COMPONENTS.map(str::to_owned).to_vec(),
    };
    let algorithm: Option<SignatureAlgorithm> = fields.req("algorithm");
    let encoding = match algorithm {
        Some(SignatureAlgorithm::HmacSha256) => KeyEncoding::Raw,
        _ => KeyEncoding::Pem,
    };
    let key = key(fields, "key", encoding);
    let literal = fields.opt("keyId").map(KeyId::Literal);
    let named = fields.opt("keyIdFrom").map(|Entry(entry)| KeyId::Entry(entry));
    fields.at_most_one(&["keyId", "keyIdFrom"]);
    let created: Option<bool> = fields.opt("created");
    let expires = fields.opt("expires");
    let (nonce, tag) = (fields.or_default("nonce"), fields.opt("tag"));
    let send_algorithm = fields.or_default("sendAlgorithm");
    let body_digest: Option<BodyDigest> = fields.opt("bodyDigest");
    let covers = |name: &str| components.iter().any(|one| one.trim_matches('"') == name);
    let body_digest = body_digest.or_else(|| covers(CONTENT_DIGEST).then(standard_digest));
    if let Some(digest) = &body_digest
        && !covers(&digest.header)
        && let Some(value) = fields.get("bodyDigest")
    {
        value.warn(format!("the digest is not signed: components do not have {}", digest.header));
    }
    Some(MessageSignatureInjection {
        label,
        components,
        algorithm: algorithm?,
        key: key?,
        key_id: literal.or(named),
        omit_created: created == Some(false),
        expires,
        nonce,
        tag,
        send_algorithm,
        body_digest,
    })
}

fn standard_digest() -> BodyDigest {
    BodyDigest {
        algorithm: HashAlgorithm::Sha256,
        header: CONTENT_DIGEST.to_owned(),
        max_bytes: BODY_BYTES,
        encoding: TextEncoding::Structured,
    }
}

/// A key of a dictionary, RFC 8941 §3.2.
struct Label(String);

impl Read for Label {
    fn read(value: &Value<'_>) -> Option<Self> {
        checked(value, |text| {
            let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-.*".contains(&b);
            let is_key = text.starts_with(|c: char| c.is_ascii_lowercase() || c == '*');
            let is_key = is_key && text.bytes().all(fits);
            is_key.then(|| Self(text.to_owned())).ok_or_else(|| format!("{text:?} is not a label"))
        })
    }
}

/// One of `components`; what stands without quotes gets them.
struct Component(String);

impl Read for Component {
    fn read(value: &Value<'_>) -> Option<Self> {
        checked(value, |text| {
            if value.is_described() {
                return Ok(Self(text.to_owned()));
            }
            let (name, parameters) = match text.strip_prefix('"') {
                Some(rest) => rest
                    .split_once('"')
                    .ok_or_else(|| format!("{text:?}: a quote is not closed"))?,
                None => text.split_at(text.find(';').unwrap_or(text.len())),
            };
            let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b);
            let is_known = match name.starts_with('@') {
                true => DERIVED.contains(&name),
                false => !name.is_empty() && name.bytes().all(fits),
            };
            if !is_known {
                return Err(format!(
                    "{name:?} is neither a field in lower case nor one of {}",
                    DERIVED.join(", ")
                ));
            }
            if name == "@query-param" && !parameters.starts_with(";name=\"") {
                return Err("@query-param needs its name: @query-param;name=\"q\"".to_owned());
            }
            if !parameters.is_empty() && !parameters.starts_with(';') {
                return Err(format!("{parameters:?} are not parameters: they begin with ';'"));
            }
            Ok(Self(format!("\"{name}\"{parameters}")))
        })
    }
}

fn aws(fields: &mut Fields<'_, '_>) -> Option<AwsSigV4Injection> {
    let service: Option<String> = fields.req("service");
    let region: Option<String> = fields.req("region");
    let presign: Option<Duration> = fields.opt("presign");
    if presign.is_some_and(|life| life > PRESIGN_MAX || life < Duration::from_secs(1))
        && let Some(value) = fields.get("presign")
    {
        value.fault::<()>("a presigned URL is valid for a second to a week");
    }
    let signed: Vec<HeaderName> = fields.or_default("signedHeaders");
    Some(AwsSigV4Injection {
        access_key_id_key: entry_or(fields, "accessKeyId", "accessKeyId"),
        secret_access_key_key: entry_or(fields, "secretAccessKey", "secretAccessKey"),
        session_token_key: fields.opt("sessionToken").map(|Entry(entry)| entry),
        presign,
        unsigned_payload: fields.or_default("unsignedPayload"),
        max_body_bytes: body_bytes(fields, "maxBodyBytes"),
        signed_headers: signed.into_iter().map(|HeaderName(name)| name).collect(),
        service: service?,
        region: region?,
    })
}
