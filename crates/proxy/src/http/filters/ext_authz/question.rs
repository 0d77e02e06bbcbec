//! What the authorization service is told of a request.

use std::fmt::Write as _;

use bytes::Bytes;
use envoy_types::pb::envoy::{
    config::core::v3::{HeaderMap as PbHeaderMap, HeaderValue as PbHeader},
    service::auth::v3::{
        AttributeContext, CheckRequest,
        attribute_context::{HttpRequest, Request as PbRequest},
    },
};
use http::{HeaderName, HeaderValue, Method, Request, Uri, uri};
use sluis_http1::{Known, RequestHead};
use sluis_rules::{AuthzBody, AuthzCheck, AuthzHttp, ExtAuthz};

use super::Seen;
use crate::http::{
    authz::{attributes, context, joined, timestamp},
    desk::Desk,
    question::Question,
    scene::Scene,
    trace::Trace,
};

/// Says whether the body that goes along is whole. A client's own is never told.
const PARTIAL: &str = "x-envoy-auth-partial-body";

const SERVICE: &[u8] = b"x-envoy-downstream-service-cluster";

/// Longest answer of an HTTP service.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// What is told.
pub(super) struct Told<'t, 'c> {
    pub(super) scene: Scene<'t>,
    pub(super) desk: &'t Desk,
    pub(super) trace: &'t Trace<'c>,
    pub(super) check: &'t AuthzCheck,
    pub(super) body: Option<&'t (Seen, AuthzBody)>,
}

impl Told<'_, '_> {
    fn head(&self) -> &RequestHead {
        &self.desk.request
    }

    /// Pseudo-headers and headers, as far as the service is to see them.
    fn headers(&self, allows: impl Fn(&[u8]) -> bool) -> Vec<(Vec<u8>, Vec<u8>)> {
        let head = self.head();
        let scheme = self.scene.scheme(head).as_bytes();
        let pseudo = [
            (&b":authority"[..], head.authority()),
            (b":method", head.method_name()),
            (b":path", head.path()),
            (b":scheme", scheme),
        ];
        let fields = head.fields.iter().filter(|(name, _)| Known::of(name) != Some(Known::Host));
        pseudo
            .into_iter()
            .chain(fields)
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_vec()))
            .filter(|(name, value)| {
                let is_there = !name.starts_with(b":") || !value.is_empty();
                is_there && name != PARTIAL.as_bytes() && allows(name)
            })
            .collect()
    }
}

fn is_allowed(own: &ExtAuthz, name: &[u8], by_default: bool) -> bool {
    let allowed = match &own.allowed {
        Some(list) => list.iter().any(|one| one.matches(name)),
        None => by_default,
    };
    allowed && !own.disallowed.iter().any(|one| one.matches(name))
}

/// The question to a gRPC service.
pub(super) fn grpc(own: &ExtAuthz, told: &Told<'_, '_>) -> CheckRequest {
    let Told { scene, trace, check, .. } = told;
    let head = told.head();
    let mut told_headers = told.headers(|name| is_allowed(own, name, true));
    if let Some((seen, _)) = told.body {
        let is_part = if seen.is_part { &b"true"[..] } else { b"false" };
        told_headers.push((PARTIAL.as_bytes().to_vec(), is_part.to_vec()));
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut http = HttpRequest {
        id: scene.draw.to_string(),
        method: text(head.method_name()),
        path: text(head.path()),
        host: text(head.authority()),
        scheme: scene.scheme(head).to_owned(),
        protocol: scene.protocol.name().to_owned(),
        size: i64::try_from(told.body.map_or(0, |(seen, _)| seen.arrived)).unwrap_or(0),
        ..HttpRequest::default()
    };
    if own.raw_headers {
        let raw = told_headers.into_iter().map(|(name, value)| PbHeader {
            key: text(&name),
            raw_value: value,
            ..PbHeader::default()
        });
        http.header_map = Some(PbHeaderMap { headers: raw.collect() });
    } else {
        let pairs = told_headers.iter().map(|(name, value)| (&**name, &**value));
        http.headers = joined(pairs).into_iter().collect();
    }
    if let Some((seen, limits)) = told.body {
        match limits.as_bytes {
            true => http.raw_body.clone_from(&seen.bytes),
            false => http.body = text(&seen.bytes),
        }
    }
    let about = attributes(scene.connection, (own.peer_certificate, own.tls_session));
    let mut source = about.source;
    if let Some(service) = head.fields.get_name(SERVICE)
        && let Some(source) = &mut source
    {
        source.service = text(service);
    }
    let extensions = check.extensions.iter();
    let attributes = AttributeContext {
        source,
        request: Some(PbRequest { time: Some(timestamp(trace.wall)), http: Some(http) }),
        context_extensions: extensions
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect(),
        metadata_context: Some(context(&trace.metadata, own.namespaces.iter().map(|name| &**name))),
        ..about
    };
    CheckRequest { attributes: Some(attributes) }
}

/// The question to an HTTP service: the request's own method, host and path, and few of its headers.
/// `None` when it cannot be asked.
pub(super) fn http(own: &ExtAuthz, service: &AuthzHttp, told: &Told<'_, '_>) -> Option<Question> {
    let head = told.head();
    let mut question = Request::new(());
    *question.method_mut() = Method::from_bytes(head.method_name()).ok()?;
    let mut path = String::new();
    match &*service.path_override {
        "" => {
            let own = std::str::from_utf8(head.path()).ok()?;
            write!(path, "{}{own}", service.path_prefix).ok()?;
        }
        instead => path.push_str(instead),
    }
    // CONNECT has none (CVE-2026-73547).
    if path.is_empty() {
        path.push('/');
    }
    *question.uri_mut() = Uri::builder()
        .scheme("http")
        .authority(uri::Authority::try_from(head.authority()).ok()?)
        .path_and_query(path)
        .build()
        .ok()?;
    let usual = |name: &[u8]| name == b"authorization" && is_allowed_usual(own, name);
    let chosen = told.headers(|name| is_allowed(own, name, false) || usual(name));
    let pairs = chosen.iter().map(|(name, value)| (&**name, &**value));
    let all: Vec<(Vec<u8>, Vec<u8>)> = match own.raw_headers {
        true => pairs.map(|(name, value)| (name.to_vec(), value.to_vec())).collect(),
        false => joined(pairs)
            .into_iter()
            .map(|(name, value)| (name.into_bytes(), value.into_bytes()))
            .collect(),
    };
    let headers = question.headers_mut();
    for (name, value) in &all {
        // The question has a frame of its own.
        if name.starts_with(b":") || super::verdict::is_frame(name) {
            continue;
        }
        let value = HeaderValue::from_bytes(value).ok()?;
        headers.append(HeaderName::from_bytes(name).ok()?, value);
    }
    for (name, value) in &service.set {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        headers.insert(name, HeaderValue::from_str(value).ok()?);
    }
    let body = match told.body {
        Some((seen, _)) => {
            let is_part = if seen.is_part { "true" } else { "false" };
            headers.insert(PARTIAL, HeaderValue::from_static(is_part));
            Bytes::copy_from_slice(&seen.bytes)
        }
        None => Bytes::new(),
    };
    Some(Question { head: question, body, answer_max: ANSWER_BYTES_MAX })
}

fn is_allowed_usual(own: &ExtAuthz, name: &[u8]) -> bool {
    !own.disallowed.iter().any(|one| one.matches(name))
}
