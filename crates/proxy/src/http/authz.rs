//! What an authorization service of gRPC is asked and says: `envoy.service.auth.v3.Authorization`.
//!
//! In:    a connection's facts, a service of the configuration.
//! Out:   attributes; the service's answer, or why there is none.
//! Never: takes the lack of an answer for a yes: that is for the filters to say, by their setting.

use std::{collections::BTreeMap, net::SocketAddr};

use bytes::{BufMut as _, Bytes, BytesMut};
use envoy_types::pb::{
    envoy::{
        config::core::v3::{
            Address as PbAddress, EnvoyInternalAddress, Metadata as PbMetadata, Pipe,
            SocketAddress, address::Address as Kind, envoy_internal_address::AddressNameSpecifier,
            socket_address::PortSpecifier,
        },
        service::auth::v3::{
            AttributeContext, CheckRequest, CheckResponse,
            attribute_context::{Peer, TlsSession},
        },
    },
    google::protobuf::{ListValue, Struct, Timestamp, Value, value::Kind as ValueKind},
};
use http::{HeaderName, HeaderValue, Method, Request, Uri, uri};
use prost::Message as _;
use sluis_rules::{Address, AuthzGrpc, MetaFields, MetaValue, Metadata};

use super::{
    call,
    question::{CallError, Question},
    state::HttpWorker,
};
use crate::{config::Config, conn::ConnectionFacts};

/// The method of the service.
const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

/// What stands before a message of gRPC: whether it is compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// Why a service gave no verdict.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuthzError {
    #[error("there is no cluster {0}")]
    NoCluster(Box<str>),
    #[error("the question cannot be asked")]
    Inexpressible,
    #[error("{0}")]
    Call(String),
    #[error("the service answered with HTTP status {0}")]
    Http(u16),
    #[error("the service answered with gRPC status {0}")]
    Grpc(String),
    #[error("the answer is malformed")]
    Malformed,
}

impl From<CallError> for AuthzError {
    fn from(error: CallError) -> Self {
        Self::Call(error.to_string())
    }
}

/// Asks a gRPC service.
pub(crate) async fn check(
    worker: &HttpWorker,
    config: &Config,
    service: &AuthzGrpc,
    request: &CheckRequest,
) -> Result<CheckResponse, AuthzError> {
    let backend = config.backend(&service.cluster);
    let backend = backend.ok_or_else(|| AuthzError::NoCluster((&*service.cluster).into()))?;
    let question = question(service, request).ok_or(AuthzError::Inexpressible)?;
    let how = (service.timeout, true);
    let answer = call::ask(worker, backend, &question, how).await?;
    if answer.status != 200 {
        return Err(AuthzError::Http(answer.status));
    }
    // An answer without a message has its status in the head.
    let status = answer.trailers.get("grpc-status").or_else(|| answer.headers.get("grpc-status"));
    match status.map(HeaderValue::as_bytes) {
        Some(b"0") => {}
        Some(status) => {
            return Err(AuthzError::Grpc(String::from_utf8_lossy(status).into_owned()));
        }
        None => return Err(AuthzError::Malformed),
    }
    message(&answer.body).ok_or(AuthzError::Malformed)
}

fn question(service: &AuthzGrpc, request: &CheckRequest) -> Option<Question> {
    let mut head = Request::new(());
    *head.method_mut() = Method::POST;
    *head.uri_mut() = Uri::builder()
        .scheme("http")
        .authority(authority(&service.authority))
        .path_and_query(CHECK)
        .build()
        .ok()?;
    let headers = head.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    headers.insert("te", HeaderValue::from_static("trailers"));
    if let Some(limit) = service.timeout {
        headers.insert("grpc-timeout", format!("{}m", limit.as_millis()).parse().ok()?);
    }
    for (name, value) in &service.metadata {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_str(value).ok()?);
    }
    let length = request.encoded_len();
    let mut body = BytesMut::with_capacity(PREFIX_BYTES + length);
    body.put_u8(0);
    body.put_u32(u32::try_from(length).ok()?);
    request.encode(&mut body).ok()?;
    let answer_max = service.answer_max + PREFIX_BYTES;
    Some(Question { head, body: body.freeze(), answer_max })
}

/// A cluster's name may hold what an authority must not.
fn authority(name: &str) -> String {
    let plain = |char: char| match char {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' | '_' | ':' | '[' | ']' => char,
        _ => '_',
    };
    let authority: String = name.chars().map(plain).collect();
    match uri::Authority::try_from(&*authority) {
        Ok(_) => authority,
        Err(_) => authority.replace([':', '[', ']'], "_"),
    }
}

/// The one message of an answer; compressed ones were not asked for.
fn message(body: &[u8]) -> Option<CheckResponse> {
    let (prefix, message) = body.split_at_checked(PREFIX_BYTES)?;
    let length = u32::from_be_bytes(prefix[1..].try_into().ok()?);
    let is_whole = usize::try_from(length) == Ok(message.len());
    (prefix[0] == 0 && is_whole)
        .then(|| CheckResponse::decode(Bytes::copy_from_slice(message)))?
        .ok()
}

/// What is told of a connection, whatever it carries.
pub(crate) fn attributes(
    facts: &ConnectionFacts,
    (with_certificate, with_session): (bool, bool),
) -> AttributeContext {
    let peer = facts.peer.as_ref();
    let principal = peer.map(|peer| {
        let name = peer.uris.first().or_else(|| peer.dns_names.first());
        name.unwrap_or(&peer.subject).clone()
    });
    let certificate = peer.filter(|_| with_certificate).map(|peer| peer.pem_of_leaf());
    AttributeContext {
        source: Some(Peer {
            address: Some(address(&facts.remote)),
            principal: principal.unwrap_or_default(),
            certificate: certificate.unwrap_or_default(),
            ..Peer::default()
        }),
        destination: Some(Peer {
            address: Some(address(&facts.local)),
            principal: facts.own_uris.first().cloned().unwrap_or_default(),
            ..Peer::default()
        }),
        tls_session: (with_session && facts.tls_terminated)
            .then(|| TlsSession { sni: facts.sni.as_deref().unwrap_or_default().to_owned() }),
        ..AttributeContext::default()
    }
}

fn address(address: &Address) -> PbAddress {
    let kind = match address {
        Address::Socket(at) => socket(*at),
        Address::Pipe(path) => {
            Kind::Pipe(Pipe { path: path.display().to_string(), ..Pipe::default() })
        }
        Address::Internal(name) => Kind::EnvoyInternalAddress(EnvoyInternalAddress {
            address_name_specifier: Some(AddressNameSpecifier::ServerListenerName(
                name.to_string(),
            )),
            ..EnvoyInternalAddress::default()
        }),
    };
    PbAddress { address: Some(kind) }
}

fn socket(at: SocketAddr) -> Kind {
    Kind::SocketAddress(SocketAddress {
        address: at.ip().to_string(),
        port_specifier: Some(PortSpecifier::PortValue(u32::from(at.port()))),
        ..SocketAddress::default()
    })
}

/// The namespaces of dynamic metadata that are told, as far as they say anything.
pub(crate) fn context<'n>(
    metadata: &Metadata,
    namespaces: impl Iterator<Item = &'n str>,
) -> PbMetadata {
    let told = namespaces.filter_map(|name| {
        let fields = metadata.namespace(name)?;
        Some((name.to_owned(), structure(fields)))
    });
    PbMetadata { filter_metadata: told.collect(), ..PbMetadata::default() }
}

fn structure(fields: &MetaFields) -> Struct {
    let fields = fields.iter().map(|(name, value)| (name.to_string(), told(value)));
    Struct { fields: fields.collect() }
}

fn told(value: &MetaValue) -> Value {
    let kind = match value {
        MetaValue::Null => ValueKind::NullValue(0),
        MetaValue::Bool(flag) => ValueKind::BoolValue(*flag),
        MetaValue::Number(number) => ValueKind::NumberValue(*number),
        MetaValue::Text(text) => ValueKind::StringValue(text.to_string()),
        MetaValue::List(list) => {
            ValueKind::ListValue(ListValue { values: list.iter().map(told).collect() })
        }
        MetaValue::Fields(fields) => ValueKind::StructValue(structure(fields)),
    };
    Value { kind: Some(kind) }
}

/// What a service says, as metadata. The codec bounds how deep it is nested.
pub(crate) fn heard(fields: &Struct) -> MetaFields {
    fields.fields.iter().map(|(name, value)| (name.as_str().into(), meta(value))).collect()
}

fn meta(value: &Value) -> MetaValue {
    match &value.kind {
        None | Some(ValueKind::NullValue(_)) => MetaValue::Null,
        Some(ValueKind::BoolValue(flag)) => MetaValue::Bool(*flag),
        Some(ValueKind::NumberValue(number)) => MetaValue::Number(*number),
        Some(ValueKind::StringValue(text)) => MetaValue::text(text),
        Some(ValueKind::ListValue(list)) => MetaValue::List(list.values.iter().map(meta).collect()),
        Some(ValueKind::StructValue(fields)) => MetaValue::fields(heard(fields)),
    }
}

/// A moment as the protocol writes it.
pub(crate) fn timestamp(at: std::time::SystemTime) -> Timestamp {
    let since = at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0),
    }
}

/// Values of one name in the order of their coming, joined as a list (RFC 9110 §5.3): none is lost
/// (CVE-2021-32777).
pub(super) fn joined<'f>(
    fields: impl Iterator<Item = (&'f [u8], &'f [u8])>,
) -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in fields {
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        let value = text(value);
        all.entry(name)
            .and_modify(|known| {
                known.push(',');
                known.push_str(&value);
            })
            .or_insert(value);
    }
    all
}

/// A value as text; as in Envoy `!` takes the place of what is none.
fn text(value: &[u8]) -> String {
    let mut out = String::with_capacity(value.len());
    for chunk in value.utf8_chunks() {
        out.push_str(chunk.valid());
        out.extend(chunk.invalid().iter().map(|_| '!'));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_of_a_name_is_told() {
        let fields: [(&[u8], &[u8]); 4] =
            [(b"X-A", b"1"), (b"b", b"\xff2"), (b"x-a", b""), (b"x-A", b"3")];
        let all = joined(fields.into_iter());
        assert_eq!(all["x-a"], "1,,3");
        assert_eq!(all["b"], "!2");
    }

    #[test]
    fn a_message_must_be_whole_alone_and_plain() {
        assert_eq!(message(&[0, 0, 0, 0, 0]), Some(CheckResponse::default()));
        for bad in [&[0, 0, 0, 0][..], &[1, 0, 0, 0, 0], &[0, 0, 0, 0, 1], &[0, 0, 0, 0, 0, 0]] {
            assert_eq!(message(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn an_authority_is_made_of_any_cluster_name() {
        assert_eq!(authority("outbound|9000||authz.ns.svc"), "outbound_9000__authz.ns.svc");
        assert_eq!(authority("authz.ns:9000"), "authz.ns:9000");
        assert_eq!(authority("a:b:c"), "a_b_c");
    }
}
