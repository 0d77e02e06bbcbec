//! Reads `inject` of a Credential.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::forms::{checked, read_fields, read_names};
use super::template::{Use, has, template};
use super::{Bytes, Entry, HeaderName, entry_or, exactly_one, secret_header};
use crate::kinds::credential::{
    AwsSigV4Injection, BasicInjection, BodyDigest, ClientAuthentication,
    ClientCertificateInjection, HashAlgorithm, HeaderInjection, HmacInjection, HmacOutput,
    Injection, JwtAlgorithm, JwtSignInjection, KeyEncoding, KeyId, MessageSignatureInjection,
    NamedInjection, Oauth2Grant, Oauth2Injection, SecretKey, SignatureAlgorithm, TextEncoding,
};
use crate::value::{Fields, Read, Value};

mod signatures;
mod tokens;

read_fields! {
    Injection => inject,
    HeaderInjection => header,
    Bearer => bearer,
    BasicInjection => basic,
    NamedInjection => named,
    BodyDigest => body_digest,
    Key => key_map,
    ClientCertificateInjection => client_certificate,
}

read_names! {
    HashAlgorithm {
        "sha1" => HashAlgorithm::Sha1,
        "sha256" => HashAlgorithm::Sha256,
        "sha384" => HashAlgorithm::Sha384,
        "sha512" => HashAlgorithm::Sha512,
    }
    KeyEncoding {
        "raw" => KeyEncoding::Raw,
        "base64" => KeyEncoding::Base64,
        "hex" => KeyEncoding::Hex,
        "pem" => KeyEncoding::Pem,
    }
    TextEncoding {
        "hex" => TextEncoding::Hex,
        "base64" => TextEncoding::Base64,
        "base64url" => TextEncoding::Base64Url,
        "structured" => TextEncoding::Structured,
    }
}

const KINDS: [&str; 11] = [
    "header",
    "bearer",
    "basic",
    "query",
    "cookie",
    "hmac",
    "httpMessageSignature",
    "awsSigV4",
    "oauth2",
    "jwtSign",
    "clientCertificate",
];

const AUTHORIZATION: &str = "authorization";
const CONTENT_DIGEST: &str = "content-digest";

/// Longest body that is held for its digest, where nothing is written.
const BODY_BYTES: u64 = 1 << 20;

/// Longest body that can be held.
const BODY_BYTES_MAX: u64 = 64 << 20;

fn inject(fields: &mut Fields<'_, '_>) -> Option<Injection> {
    let header = fields.opt("header").map(Injection::Header);
    let bearer = fields.opt("bearer").map(|Bearer(header)| Injection::Header(header));
    let basic = fields.opt("basic").map(Injection::Basic);
    let query = fields.opt("query").map(Injection::Query);
    let cookie = fields.opt("cookie").map(Injection::Cookie);
    let hmac = fields.opt("hmac").map(|one: HmacInjection| Injection::Hmac(Box::new(one)));
    let message = fields
        .opt("httpMessageSignature")
        .map(|one: MessageSignatureInjection| Injection::MessageSignature(Box::new(one)));
    let aws =
        fields.opt("awsSigV4").map(|one: AwsSigV4Injection| Injection::AwsSigV4(Box::new(one)));
    let oauth2 = fields.opt("oauth2").map(|one: Oauth2Injection| Injection::Oauth2(Box::new(one)));
    let jwt = fields.opt("jwtSign").map(|one: JwtSignInjection| Injection::JwtSign(Box::new(one)));
    let certificate = fields.opt("clientCertificate").map(Injection::ClientCertificate);
    exactly_one(fields, &KINDS);
    let plain = header.or(bearer).or(basic).or(query).or(cookie);
    plain.or(hmac).or(message).or(aws).or(oauth2).or(jwt).or(certificate)
}

fn header(fields: &mut Fields<'_, '_>) -> Option<HeaderInjection> {
    let name = required_header(fields, "name");
    let prefix: String = fields.or_default("prefix");
    if prefix.contains(|c: char| c.is_control())
        && let Some(value) = fields.get("prefix")
    {
        value.fault::<()>("a header cannot have control characters");
    }
    let key = entry_or(fields, "key", "value");
    Some(HeaderInjection { name: name?, prefix, key })
}

struct Bearer(HeaderInjection);

fn bearer(fields: &mut Fields<'_, '_>) -> Option<Bearer> {
    let key = entry_or(fields, "key", "token");
    Some(Bearer(HeaderInjection {
        name: AUTHORIZATION.to_owned(),
        prefix: "Bearer ".to_owned(),
        key,
    }))
}

fn basic(fields: &mut Fields<'_, '_>) -> Option<BasicInjection> {
    Some(BasicInjection {
        username_key: entry_or(fields, "username", "username"),
        password_key: entry_or(fields, "password", "password"),
        header: secret_header(fields, "header").unwrap_or_else(|| AUTHORIZATION.to_owned()),
    })
}

fn named(fields: &mut Fields<'_, '_>) -> Option<NamedInjection> {
    let name = match fields.get("name") {
        Some(value) => checked(&value, |text| {
            // RFC 6265 §4.1.1 for cookies; a parameter of the query needs no more.
            let fits = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
            let is_name = !text.is_empty() && text.bytes().all(fits);
            is_name.then(|| text.to_owned()).ok_or_else(|| format!("{text:?} is not a name"))
        }),
        None => {
            fields.missing("name");
            None
        }
    };
    let key = entry_or(fields, "key", "value");
    Some(NamedInjection { name: name?, key })
}

fn client_certificate(fields: &mut Fields<'_, '_>) -> Option<ClientCertificateInjection> {
    Some(ClientCertificateInjection {
        certificate_key: entry_or(fields, "certificate", "tls.crt"),
        private_key_key: entry_or(fields, "privateKey", "tls.key"),
    })
}

/// The name of a field that must be written.
fn required_header(fields: &mut Fields<'_, '_>, name: &'static str) -> Option<String> {
    if !fields.has(name) {
        fields.missing(name);
    }
    secret_header(fields, name)
}

fn body_digest(fields: &mut Fields<'_, '_>) -> Option<BodyDigest> {
    let algorithm: HashAlgorithm = fields.or_default("algorithm");
    if algorithm == HashAlgorithm::Sha1
        && let Some(value) = fields.get("algorithm")
    {
        value.fault::<()>("a body's digest by sha1 proves nothing: use sha256");
    }
    let header = secret_header(fields, "header").unwrap_or_else(|| CONTENT_DIGEST.to_owned());
    let is_standard = matches!(header.as_str(), CONTENT_DIGEST | "repr-digest");
    let default = if is_standard { TextEncoding::Structured } else { TextEncoding::Hex };
    let encoding = fields.opt("encoding").unwrap_or(default);
    if is_standard
        && encoding != TextEncoding::Structured
        && let Some(value) = fields.get("encoding")
    {
        value.fault::<()>(format!("{header} is a structured field (RFC 9530)"));
    }
    let max_bytes = body_bytes(fields, "maxBytes");
    Some(BodyDigest { algorithm, header, max_bytes, encoding })
}

fn body_bytes(fields: &mut Fields<'_, '_>, name: &'static str) -> u64 {
    let count = fields.opt(name).map_or(BODY_BYTES, |Bytes(count)| count);
    if (count == 0 || count > BODY_BYTES_MAX)
        && let Some(value) = fields.get(name)
    {
        value.fault::<()>("1 byte to 64Mi can be held for a digest");
    }
    count
}

/// `key`, of everything but HMAC: the entry alone, or with its encoding.
struct Key(SecretKey);

fn key_map(fields: &mut Fields<'_, '_>) -> Option<Key> {
    let entry = fields.req("from").map(|Entry(entry)| entry);
    let encoding = fields.or_default("encoding");
    Some(Key(SecretKey { entry: entry?, encoding }))
}

/// Reads `key`, whose short form is the entry's name.
fn key(
    fields: &mut Fields<'_, '_>,
    default: &str,
    default_encoding: KeyEncoding,
) -> Option<SecretKey> {
    let Some(value) = fields.get("key") else {
        return Some(SecretKey { entry: default.to_owned(), encoding: default_encoding });
    };
    if !value.is_described() && value.is_text() {
        let Entry(entry) = value.read()?;
        return Some(SecretKey { entry, encoding: default_encoding });
    }
    let Key(mut key) = value.read()?;
    if super::super::virtual_service::entry(&value, "encoding").is_none() {
        key.encoding = default_encoding;
    }
    Some(key)
}
