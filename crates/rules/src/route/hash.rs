//! The hash of a request, for clusters that choose an endpoint by it: bit for bit as Envoy's.
//!
//! In:    a route's policies, the request, the client's address.
//! Out:   64 bits, or nothing when no policy finds anything to hash.
//! Never: sets a cookie itself: who asks is told which one to set.

use std::{net::IpAddr, sync::Arc, time::Duration};

use xxhash_rust::xxh64::xxh64;

use super::{
    HeaderValues, RequestFacts,
    predicate::{cookie_value, query_value},
};
use crate::{Pattern, Substitution};

/// What a request's hash is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct HashPolicy {
    /// What is hashed.
    pub source: HashSource,
    /// Whether the policies after it are left out once there is a hash.
    pub is_terminal: bool,
}

/// What is hashed.
#[derive(Clone, Debug, PartialEq)]
pub enum HashSource {
    /// A header's values (sorted), each rewritten first if so configured.
    Header(Arc<str>, Option<(Pattern, Substitution)>),
    /// A cookie's value.
    Cookie(Arc<HashCookie>),
    /// The client's address without its port.
    SourceIp,
    /// A query parameter's value.
    Query(Arc<str>),
}

/// A cookie that keeps a client at its endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashCookie {
    /// Its name.
    pub name: Arc<str>,
    /// How long it lives, where we make it; `None` makes none, zero one for the session.
    pub ttl: Option<Duration>,
    /// Its path; may be empty.
    pub path: Arc<str>,
    /// Further attributes; an empty value is none.
    pub attributes: Vec<(Arc<str>, Arc<str>)>,
}

/// A hash, and the cookies to send with the response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestHash {
    /// The hash.
    pub value: Option<u64>,
    /// `set-cookie` values.
    pub cookies: Vec<String>,
}

/// Hashes a request.
pub fn hash_of(
    policies: &[HashPolicy],
    request: &impl RequestFacts,
    source: Option<IpAddr>,
    seed: impl Fn() -> String,
) -> RequestHash {
    let mut out = RequestHash::default();
    for policy in policies {
        let found = match &policy.source {
            HashSource::Header(name, rewrite) => header(request, name, rewrite.as_ref()),
            HashSource::Cookie(cookie) => self::cookie(request, cookie, &seed, &mut out.cookies),
            HashSource::SourceIp => source.map(|ip| xxh64(ip.to_string().as_bytes(), 0)),
            HashSource::Query(name) => {
                query_value(request.path(), name).map(|value| xxh64(value.as_bytes(), 0))
            }
        };
        if let Some(found) = found {
            // As in Envoy: turned by one bit, so that two equal policies do not cancel out.
            out.value = Some(out.value.map_or(0, |hash| hash.rotate_left(1)) ^ found);
        }
        if policy.is_terminal && out.value.is_some() {
            break;
        }
    }
    out
}

fn header(
    request: &impl RequestFacts,
    name: &str,
    rewrite: Option<&(Pattern, Substitution)>,
) -> Option<u64> {
    let rewritten: Vec<Vec<u8>>;
    let mut values = HeaderValues::new();
    request.any_header(name, &mut values);
    if values.is_empty() {
        return None;
    }
    if let Some((pattern, by)) = rewrite {
        rewritten = values.iter().map(|value| pattern.replace_all(value, by)).collect();
        values = rewritten.iter().map(Vec::as_slice).collect();
    }
    values.sort_unstable();
    // Each value's hash is the seed of the next.
    Some(values.iter().fold(0, |seed, value| xxh64(value, seed)))
}

fn cookie(
    request: &impl RequestFacts,
    cookie: &HashCookie,
    seed: &impl Fn() -> String,
    made: &mut Vec<String>,
) -> Option<u64> {
    let mut values = HeaderValues::new();
    request.header("cookie", &mut values);
    if let Some(value) = cookie_value(&values, &cookie.name) {
        return Some(xxh64(value, 0));
    }
    let ttl = cookie.ttl?;
    let value = format!("{:016x}", xxh64(seed().as_bytes(), 0));
    let mut text = format!("{}=\"{value}\"", cookie.name);
    if !ttl.is_zero() {
        text.push_str(&format!("; Max-Age={}", ttl.as_secs()));
    }
    if !cookie.path.is_empty() {
        text.push_str(&format!("; Path={}", cookie.path));
    }
    for (name, value) in &cookie.attributes {
        text.push_str(&format!("; {name}"));
        if !value.is_empty() {
            text.push_str(&format!("={value}"));
        }
    }
    text.push_str("; HttpOnly");
    made.push(text);
    Some(xxh64(value.as_bytes(), 0))
}
