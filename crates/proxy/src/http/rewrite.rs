//! New paths, hosts and locations, as routes ask for them.

use std::{borrow::Cow, io::Write as _, str};

use sluis_http1::{Authority, FieldError, Known, RequestHead, is_dns_name};
use sluis_rules::{HostRewrite, PathMatch, PathRedirect, PathRewrite, Redirect, Route};

use super::plan::Plan;

/// The path without its query.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    path.split_at(memchr::memchr(b'?', path).unwrap_or(path.len()))
}

/// The path (with query) that a rewrite makes of `path`; `None` when it stays.
fn rewritten(rewrite: &PathRewrite, route: &Route, target: &[u8]) -> Option<Vec<u8>> {
    let (path, query) = split(target);
    let mut new = match rewrite {
        PathRewrite::Keep => return None,
        PathRewrite::Prefix(prefix) => {
            let matched = match &route.matches.path {
                PathMatch::Prefix(text) | PathMatch::SeparatedPrefix(text) => text.as_str().len(),
                _ => path.len(),
            };
            let rest = path.get(matched..).unwrap_or_default();
            [prefix.as_bytes(), rest].concat()
        }
        PathRewrite::Regex(pattern, by) => pattern.replace_all(path, by),
    };
    if new.first() != Some(&b'/') {
        new.insert(0, b'/');
    }
    new.extend_from_slice(query);
    Some(new)
}

/// Rewrites the path as the route says, telling the endpoint the former one.
pub(super) fn path(
    plan: &Plan<'_>,
    hides_envoy: bool,
    head: &mut RequestHead,
) -> Result<(), FieldError> {
    let Some(new) = rewritten(&plan.forward.path, plan.matched.route, head.path()) else {
        return Ok(());
    };
    if !hides_envoy && !head.fields.has(Known::XEnvoyOriginalPath) {
        let old = head.path().to_vec();
        head.fields.set_trusted(Known::XEnvoyOriginalPath, &old);
    }
    head.set_path(&new)
}

/// Rewrites the host as the route says, telling the endpoint the former one. `endpoint` is the
/// chosen endpoint's host name.
pub(super) fn host(
    plan: &Plan<'_>,
    hides_envoy: bool,
    endpoint: Option<&str>,
    head: &mut RequestHead,
) -> Result<(), FieldError> {
    let from_cluster = plan.weighted.and_then(|cluster| cluster.host.as_deref());
    let new: Cow<'_, [u8]> = match (&plan.forward.host, from_cluster) {
        (_, Some(host)) => host.as_bytes().into(),
        (HostRewrite::To(host), _) => host.as_bytes().into(),
        (HostRewrite::Endpoint, _) => match endpoint {
            Some(host) => host.as_bytes().into(),
            None => return Ok(()),
        },
        (HostRewrite::Header(name), _) => match head.fields.get_name(name.as_bytes()) {
            Some(host) => host.to_vec().into(),
            None => return Ok(()),
        },
        (HostRewrite::Path(pattern, by), _) => pattern.replace_all(split(head.path()).0, by).into(),
        (HostRewrite::Keep, _) => return Ok(()),
    };
    if *new == *head.authority() {
        return Ok(());
    }
    let old = head.authority().to_vec();
    if plan.forward.append_x_forwarded_host {
        let values = head.fields.all(Known::XForwardedHost).chain([&old[..]]);
        let joined = values.collect::<Vec<_>>().join(&b","[..]);
        head.fields.set_trusted(Known::XForwardedHost, &joined);
    }
    // At a further try the host is that of the endpoint before.
    if !hides_envoy && !head.fields.has(Known::XEnvoyOriginalHost) {
        head.fields.set_trusted(Known::XEnvoyOriginalHost, &old);
    }
    head.set_authority(&new)
}

/// The location that a redirect sends the client to.
pub(super) fn location(
    redirect: &Redirect,
    route: &Route,
    head: &RequestHead,
    scheme: &str,
) -> Vec<u8> {
    let new_scheme = redirect.scheme.as_deref().unwrap_or(scheme);
    let mut out = Vec::with_capacity(64);
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{new_scheme}://");
    let now = Authority::parse(head.authority()).ok();
    match (&redirect.host, now) {
        (Some(host), _) => out.extend_from_slice(host.as_bytes()),
        (None, Some(now)) => out.extend_from_slice(now.host),
        (None, None) => {}
    }
    let kept_port = now.and_then(|now| now.port).filter(|port| {
        let is_default = matches!((scheme, port), ("http", 80) | ("https", 443));
        redirect.host.is_none() && !(is_default && new_scheme != scheme)
    });
    let port = match redirect.port {
        // As in Envoy: said is said, default or not.
        Some(port) => Some(port),
        None => kept_port,
    };
    if let Some(port) = port {
        let _ = write!(out, ":{port}");
    }
    let target = redirected(redirect, route, head.path());
    let (path, query) = split(&target);
    out.extend_from_slice(path);
    if !redirect.strip_query {
        out.extend_from_slice(query);
    }
    out
}

fn redirected<'p>(redirect: &Redirect, route: &Route, target: &'p [u8]) -> Cow<'p, [u8]> {
    match &redirect.path {
        PathRedirect::Keep => target.into(),
        PathRedirect::To(path) if path.contains('?') => path.as_bytes().to_vec().into(),
        PathRedirect::To(path) => [path.as_bytes(), split(target).1].concat().into(),
        PathRedirect::Rewrite(rewrite) => {
            rewritten(rewrite, route, target).map_or(target.into(), Into::into)
        }
    }
}

/// The port of the request's host, where it names one.
pub(super) fn host_port(head: &RequestHead) -> Option<u16> {
    Authority::parse(head.authority()).ok()?.port
}

/// The host that a request names, as a certificate would: a name in lower case, and no address
/// ([`is_dns_name`] has none).
pub(super) fn dns_host(request: &RequestHead) -> Option<String> {
    let host = host_name(request)?.trim_end_matches('.');
    is_dns_name(host.as_bytes()).then(|| host.to_ascii_lowercase())
}

/// The request's host without its port, lower-case letters or not; `None` when there is none.
pub(super) fn host_name(head: &RequestHead) -> Option<&str> {
    let parsed = Authority::parse(head.authority()).ok()?;
    str::from_utf8(parsed.host).ok()
}
