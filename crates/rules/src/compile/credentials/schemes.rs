//! The kinds of injection, from the message into what signs.

use std::sync::Arc;

use sluis_envoy::credentials::{self as wire, credential::Injection as PbInjection};
use sluis_signing as signing;
use sluis_signing::{Kind, Scheme};

use crate::{
    Injection, Signature,
    compile::at::{At, fields},
};

use wire::{
    AwsSigV4 as PbAws, Basic as PbBasic, BodyDigest as PbDigest, Cookie as PbCookie,
    Header as PbHeader, Hmac as PbHmac, JwtSign as PbJwt, MessageSignature as PbMessage,
    Query as PbQuery,
};

/// Longest body that is held for its digest, whatever the message says: workers hold it in memory.
const BODY_BYTES_MAX: u64 = 16 << 20;

/// How a credential is added, and the entries of its secret that no response may hold.
pub(super) fn injection(at: &At<'_>, message: &PbInjection) -> Option<(Injection, Vec<Arc<str>>)> {
    let (field, kind, hidden) = match message {
        PbInjection::Header(header) => header_of(header),
        PbInjection::Basic(basic) => basic_of(basic),
        PbInjection::Query(query) => query_of(query),
        PbInjection::Cookie(cookie) => cookie_of(cookie),
        PbInjection::Hmac(hmac) => hmac_of(&at.field("hmac"), hmac)?,
        PbInjection::MessageSignature(own) => message_of(&at.field("message_signature"), own)?,
        PbInjection::AwsSigV4(own) => aws_of(own),
        PbInjection::JwtSign(own) => jwt_of(&at.field("jwt_sign"), own)?,
        PbInjection::Oauth2(own) => return super::tokens::injection(&at.field("oauth2"), own),
        PbInjection::ClientCertificate(wire::ClientCertificate {}) => {
            return Some((Injection::ClientCertificate, Vec::new()));
        }
    };
    let at = at.field(field);
    let scheme = Scheme::compile(kind).map_err(|error| at.fault(error.to_string())).ok()?;
    if scheme.needs_body().is_some_and(|need| need.bytes_max > BODY_BYTES_MAX) {
        at.fault(format!("holds bodies of more than {BODY_BYTES_MAX} bytes"));
    }
    let hidden = hidden.into_iter().filter(|key| !key.is_empty()).map(Arc::from).collect();
    Some((Injection::Signed(Signature::new(scheme, message.clone())), hidden))
}

type Found<'m> = (&'static str, Kind, Vec<&'m str>);

fn header_of(PbHeader { name, prefix, key }: &PbHeader) -> Found<'_> {
    let kind = signing::Header { name: name.clone(), prefix: prefix.clone(), key: key.clone() };
    ("header", Kind::Header(kind), vec![key])
}

fn basic_of(PbBasic { username_key, password_key, header }: &PbBasic) -> Found<'_> {
    let kind = signing::Basic {
        username_key: username_key.clone(),
        password_key: password_key.clone(),
        header: header.clone(),
    };
    ("basic", Kind::Basic(kind), vec![password_key])
}

fn query_of(PbQuery { name, key }: &PbQuery) -> Found<'_> {
    let kind = signing::Query { name: name.clone(), key: key.clone() };
    ("query", Kind::Query(kind), vec![key])
}

fn cookie_of(PbCookie { name, key }: &PbCookie) -> Found<'_> {
    let kind = signing::Cookie { name: name.clone(), key: key.clone() };
    ("cookie", Kind::Cookie(kind), vec![key])
}

fn hmac_of<'m>(at: &At<'_>, message: &'m PbHmac) -> Option<Found<'m>> {
    fields!(at, message => PbHmac {
        use {
            algorithm, key, key_encoding, derive, string_to_sign, date_format, body_digest, outputs,
        }
        accept {}
        refuse {}
    });
    let outputs = outputs.iter().map(|wire::hmac::Output { header, template }| signing::Output {
        header: header.clone(),
        template: template.clone(),
    });
    let kind = signing::Hmac {
        algorithm: hash(&at.field("algorithm"), *algorithm)?,
        key: key_of(&at.field("key_encoding"), key, *key_encoding)?,
        derive: derive.clone(),
        string_to_sign: string_to_sign.clone(),
        date_format: date_format.clone(),
        body_digest: digest(&at.field("body_digest"), body_digest.as_ref())?,
        outputs: outputs.collect(),
    };
    Some(("hmac", Kind::Hmac(kind), vec![key]))
}

fn message_of<'m>(at: &At<'_>, message: &'m PbMessage) -> Option<Found<'m>> {
    fields!(at, message => PbMessage {
        use {
            label, components, algorithm, key, key_encoding, key_id_key, key_id, omit_created,
            expires_seconds, nonce, tag, send_algorithm, body_digest,
        }
        accept {}
        refuse {}
    });
    let key_id = match (key_id.is_empty(), key_id_key.is_empty()) {
        (true, true) => signing::KeyId::None,
        (false, true) => signing::KeyId::Text(key_id.clone()),
        (true, false) => signing::KeyId::Entry(key_id_key.clone()),
        (false, false) => {
            at.field("key_id").fault("does not go with key_id_key");
            return None;
        }
    };
    let kind = signing::MessageSignature {
        label: label.clone(),
        components: components.clone(),
        algorithm: algorithm.clone(),
        key: key_of(&at.field("key_encoding"), key, *key_encoding)?,
        key_id,
        omit_created: *omit_created,
        expires_seconds: *expires_seconds,
        nonce: *nonce,
        tag: tag.clone(),
        send_algorithm: *send_algorithm,
        body_digest: digest(&at.field("body_digest"), body_digest.as_ref())?,
    };
    Some(("message_signature", Kind::MessageSignature(kind), vec![key]))
}

fn aws_of(message: &PbAws) -> Found<'_> {
    let PbAws {
        service,
        region,
        access_key_id_key,
        secret_access_key_key,
        session_token_key,
        query_expires_seconds,
        unsigned_payload,
        max_body_bytes,
        signed_headers,
        s3,
    } = message;
    let place = match *query_expires_seconds {
        0 => signing::Place::Fields,
        expires_seconds => signing::Place::Query { expires_seconds },
    };
    let kind = signing::AwsSigV4 {
        service: service.clone(),
        region: region.clone(),
        access_key_id_key: access_key_id_key.clone(),
        secret_access_key_key: secret_access_key_key.clone(),
        session_token_key: session_token_key.clone(),
        place,
        unsigned_payload: *unsigned_payload,
        body_bytes_max: *max_body_bytes,
        payload_field: true,
        signed_fields: signing::SignedFields::Listed(signed_headers.clone()),
        s3: *s3,
    };
    let hidden = vec![secret_access_key_key.as_str(), session_token_key];
    ("aws_sig_v4", Kind::AwsSigV4(kind), hidden)
}

fn jwt_of<'m>(at: &At<'_>, message: &'m PbJwt) -> Option<Found<'m>> {
    fields!(at, message => PbJwt {
        use {
            algorithm, key, key_encoding, key_id, issuer, subject, audiences, lifetime_seconds,
            claims, header, prefix,
        }
        accept {}
        refuse {}
    });
    let bearer = prefix.is_empty() && header.is_empty();
    let kind = signing::JwtSign {
        algorithm: algorithm.clone(),
        key: key_of(&at.field("key_encoding"), key, *key_encoding)?,
        key_id: key_id.clone(),
        issuer: issuer.clone(),
        subject: subject.clone(),
        audiences: audiences.clone(),
        lifetime_seconds: *lifetime_seconds,
        claims: claims.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
        header: header.clone(),
        prefix: if bearer { "Bearer ".to_owned() } else { prefix.clone() },
    };
    Some(("jwt_sign", Kind::JwtSign(kind), vec![key]))
}

fn key_of(at: &At<'_>, entry: &str, encoding: i32) -> Option<signing::KeySource> {
    let encoding = match wire::KeyEncoding::try_from(encoding) {
        Ok(wire::KeyEncoding::Raw) => signing::KeyEncoding::Raw,
        Ok(wire::KeyEncoding::Base64) => signing::KeyEncoding::Base64,
        Ok(wire::KeyEncoding::Hex) => signing::KeyEncoding::Hex,
        Ok(wire::KeyEncoding::Pem) => signing::KeyEncoding::Pem,
        Err(_) => {
            at.unsupported();
            return None;
        }
    };
    Some(signing::KeySource { entry: entry.to_owned(), encoding })
}

fn hash(at: &At<'_>, algorithm: i32) -> Option<signing::HashAlgorithm> {
    Some(match wire::HashAlgorithm::try_from(algorithm) {
        Ok(wire::HashAlgorithm::HashUnspecified | wire::HashAlgorithm::Sha256) => {
            signing::HashAlgorithm::Sha256
        }
        Ok(wire::HashAlgorithm::Sha1) => signing::HashAlgorithm::Sha1,
        Ok(wire::HashAlgorithm::Sha384) => signing::HashAlgorithm::Sha384,
        Ok(wire::HashAlgorithm::Sha512) => signing::HashAlgorithm::Sha512,
        Err(_) => {
            at.unsupported();
            return None;
        }
    })
}

fn digest(at: &At<'_>, message: Option<&PbDigest>) -> Option<Option<signing::BodyDigest>> {
    let Some(message) = message else { return Some(None) };
    fields!(at, message => PbDigest {
        use { algorithm, header, max_bytes, encoding }
        accept {}
        refuse {}
    });
    let encoding = match wire::TextEncoding::try_from(*encoding) {
        Ok(wire::TextEncoding::TextHex) => signing::TextEncoding::Hex,
        Ok(wire::TextEncoding::TextBase64) => signing::TextEncoding::Base64,
        Ok(wire::TextEncoding::TextBase64url) => signing::TextEncoding::Base64Url,
        Ok(wire::TextEncoding::TextStructured) => signing::TextEncoding::Structured,
        Err(_) => {
            at.field("encoding").unsupported();
            return None;
        }
    };
    Some(Some(signing::BodyDigest {
        algorithm: hash(&at.field("algorithm"), *algorithm)?,
        header: header.clone(),
        bytes_max: *max_bytes,
        encoding,
    }))
}
