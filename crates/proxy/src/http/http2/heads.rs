//! Heads between the HTTP/2 codec's types and ours.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method as HttpMethod, Request, Response, StatusCode, Uri,
    uri::{Authority, PathAndQuery, Scheme},
};
use sluis_http1::{
    Ends, Fields, HeadError, Known, Limits, Method, Pseudo, RequestHead, ResponseHead,
};

/// A head that HTTP/2 cannot carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("head cannot be expressed in HTTP/2")]
pub(super) struct Inexpressible;

/// Takes a request off the wire.
pub(super) fn read_request<B>(
    request: &Request<B>,
    head: &mut RequestHead,
    ends: Ends,
    limits: &Limits,
    text: &mut Vec<u8>,
) -> Result<(), HeadError> {
    let uri = request.uri();
    let protocol = request.extensions().get::<h2::ext::Protocol>().map(h2::ext::Protocol::as_str);
    let is_connect = request.method() == HttpMethod::CONNECT && protocol.is_none();
    let pseudo = Pseudo {
        method: request.method().as_str().as_bytes(),
        scheme: uri.scheme_str().map(str::as_bytes),
        authority: uri.authority().map(|authority| authority.as_str().as_bytes()),
        // The codec's type fills in a path where CONNECT has none.
        path: uri.path_and_query().map(|path| path.as_str().as_bytes()).filter(|_| !is_connect),
        protocol: protocol.map(str::as_bytes),
    };
    head.convert(pseudo, pairs(request.headers()), ends, limits, text)
}

/// Takes a response off the wire.
pub(super) fn read_response<B>(
    response: &Response<B>,
    head: &mut ResponseHead,
    (ends, method): (Ends, Method),
    limits: &Limits,
    text: &mut Vec<u8>,
) -> Result<(), HeadError> {
    let status = response.status().as_u16();
    head.convert(status, pairs(response.headers()), (ends, method), limits, text)
}

fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))
}

/// The request as it goes to an endpoint. An upgrade becomes an extended CONNECT.
pub(super) fn request(
    head: &RequestHead,
    scheme: &str,
    is_upgrade: bool,
) -> Result<Request<()>, Inexpressible> {
    let mut uri = http::uri::Parts::default();
    let authority = Authority::try_from(head.authority()).map_err(|_| Inexpressible)?;
    uri.authority = Some(authority);
    let is_connect = head.method() == Method::Connect;
    if !is_connect {
        uri.scheme = Some(Scheme::try_from(scheme).map_err(|_| Inexpressible)?);
        uri.path_and_query = Some(PathAndQuery::try_from(head.path()).map_err(|_| Inexpressible)?);
    }
    let method = match is_upgrade {
        true => HttpMethod::CONNECT,
        false => HttpMethod::from_bytes(head.method_name()).map_err(|_| Inexpressible)?,
    };
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = Uri::from_parts(uri).map_err(|_| Inexpressible)?;
    if is_upgrade {
        let protocol = head.fields.get(Known::Upgrade).unwrap_or_default();
        let protocol = std::str::from_utf8(protocol).map_err(|_| Inexpressible)?;
        request.extensions_mut().insert(h2::ext::Protocol::from(protocol));
    }
    write_fields(&head.fields, request.headers_mut())?;
    Ok(request)
}

/// The response as it goes to a client. An agreed upgrade becomes success.
pub(super) fn response(head: &ResponseHead) -> Result<Response<()>, Inexpressible> {
    let status = if head.status() == 101 { 200 } else { head.status() };
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(status).map_err(|_| Inexpressible)?;
    write_fields(&head.fields, response.headers_mut())?;
    if head.status() == 101 {
        // RFC 8441 §5: HTTP/2 does without.
        response.headers_mut().remove("sec-websocket-accept");
    }
    Ok(response)
}

fn write_fields(fields: &Fields, headers: &mut HeaderMap) -> Result<(), Inexpressible> {
    for (name, value) in fields.iter() {
        // RFC 9113 §8.2.2.
        if let Some(
            Known::Connection
            | Known::Host
            | Known::Http2Settings
            | Known::KeepAlive
            | Known::ProxyConnection
            | Known::TransferEncoding
            | Known::Upgrade,
        ) = Known::of(name)
        {
            continue;
        }
        let name = HeaderName::from_bytes(name).map_err(|_| Inexpressible)?;
        let value = HeaderValue::from_bytes(value).map_err(|_| Inexpressible)?;
        headers.append(name, value);
    }
    Ok(())
}
