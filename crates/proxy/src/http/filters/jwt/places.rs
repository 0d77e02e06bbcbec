//! Where tokens stand in a request: headers, query parameters, cookies.
//!
//! In:    a request head, and where providers have said that they look.
//! Out:   the tokens, in Envoy's order; the head without one.
//! Never: judges a token.

use std::{borrow::Cow, collections::BTreeMap, str, sync::Arc};

use sluis_http1::{FieldError, Known, RequestHead};
use sluis_rules::JwtProvider;
use smallvec::SmallVec;

/// The characters of a token: base64url (RFC 4648 §5) and dots.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}

/// Whose tokens are taken at a place.
#[derive(Clone, Debug, Default)]
struct Issuers {
    any: bool,
    named: Vec<Arc<str>>,
}

impl Issuers {
    fn add(&mut self, issuer: &Arc<str>) {
        if issuer.is_empty() {
            self.any = true;
        } else {
            self.named.push(Arc::clone(issuer));
        }
    }

    fn allow(&self, issuer: &str) -> bool {
        self.any || self.named.iter().any(|named| &**named == issuer)
    }
}

/// The places where some providers look. Their order is Envoy's: headers by name and the text before
/// the token, then parameters and cookies by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    headers: BTreeMap<(Arc<str>, Arc<str>), Issuers>,
    params: BTreeMap<Arc<str>, Issuers>,
    cookies: BTreeMap<Arc<str>, Issuers>,
    /// Headers that only we may set.
    ours: Vec<Arc<str>>,
}

/// A token, and where it stands.
#[derive(Debug)]
pub(super) struct Found<'p> {
    pub(super) token: String,
    place: Place<'p>,
    issuers: &'p Issuers,
}

#[derive(Debug)]
enum Place<'p> {
    Header(&'p str),
    Param(&'p str),
    /// As in Envoy, cookies are left alone.
    Cookie,
}

impl Places {
    pub(super) fn of<'p>(providers: impl IntoIterator<Item = &'p Arc<JwtProvider>>) -> Self {
        let mut places = Self::default();
        for provider in providers {
            let issuer = &provider.issuer;
            for header in &provider.headers {
                places.headers.entry(header.clone()).or_default().add(issuer);
            }
            for param in &provider.params {
                places.params.entry(Arc::clone(param)).or_default().add(issuer);
            }
            for cookie in &provider.cookies {
                places.cookies.entry(Arc::clone(cookie)).or_default().add(issuer);
            }
            places.ours.extend(provider.payload_header.clone());
            places.ours.extend(provider.claims.iter().map(|claim| Arc::clone(&claim.header)));
        }
        places
    }

    /// Whether tokens may stand in the path.
    pub(super) fn has_params(&self) -> bool {
        !self.params.is_empty()
    }

    /// Removes headers that only we may set.
    pub(super) fn sanitize(&self, head: &mut RequestHead) {
        for name in &self.ours {
            head.fields.remove_name(name.as_bytes());
        }
    }

    /// All tokens. What stands in a place and is none is refused later, by its form.
    pub(super) fn find(&self, head: &RequestHead) -> Vec<Found<'_>> {
        let mut found = Vec::new();
        for ((name, prefix), issuers) in &self.headers {
            for value in values(head, name).iter() {
                let Some(token) = in_header(value, prefix.as_bytes()) else { continue };
                found.push(Found { token: text(token), place: Place::Header(name), issuers });
            }
        }
        let path = head.path();
        for (name, issuers) in &self.params {
            if let Some(token) = in_query(path, name.as_bytes()) {
                found.push(Found { token, place: Place::Param(name), issuers });
            }
        }
        for (name, issuers) in &self.cookies {
            if let Some(token) = in_cookies(head, name.as_bytes()) {
                found.push(Found { token: text(token), place: Place::Cookie, issuers });
            }
        }
        found
    }
}

impl Found<'_> {
    /// Whether tokens of this issuer are taken there.
    pub(super) fn is_from(&self, issuer: &str) -> bool {
        self.issuers.allow(issuer)
    }

    /// Takes the token out of the head.
    pub(super) fn remove(&self, head: &mut RequestHead) -> Result<(), FieldError> {
        match self.place {
            Place::Header(name) => head.fields.remove_name(name.as_bytes()),
            Place::Param(name) => {
                let path = without_param(head.path(), name.as_bytes());
                head.set_path(&path)?;
            }
            Place::Cookie => {}
        }
        Ok(())
    }
}

/// A token's text: almost always it is one, which is checked at a stride.
fn text(token: &[u8]) -> String {
    match str::from_utf8(token) {
        Ok(text) => text.to_owned(),
        Err(_) => String::from_utf8_lossy(token).into_owned(),
    }
}

/// The values of a header. As in Envoy, two of `authorization` are one with a comma, and so no token:
/// a server behind might look at either.
fn values<'h>(head: &'h RequestHead, name: &'h str) -> SmallVec<[Cow<'h, [u8]>; 1]> {
    let all: SmallVec<[&[u8]; 1]> = head.fields.all_named(name.as_bytes()).collect();
    if name == "authorization" && all.len() > 1 {
        return SmallVec::from_elem(all.join(&b","[..]).into(), 1);
    }
    all.into_iter().map(Cow::Borrowed).collect()
}

/// As in Envoy: the text may stand anywhere in the value, and the token begins behind it with the
/// first character that can be in one.
fn in_header<'v>(value: &'v [u8], prefix: &[u8]) -> Option<&'v [u8]> {
    if prefix.is_empty() {
        return Some(value);
    }
    // Most often it stands at the start, which is cheaper to see.
    let at = if value.starts_with(prefix) { 0 } else { memchr::memmem::find(value, prefix)? };
    let behind = at + prefix.len();
    let start = value[behind..].iter().position(|byte| is_token(*byte));
    Some(start.map_or(value, |start| &value[behind + start..]))
}

fn query(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(b'?', path)?;
    Some((&path[..at], &path[at + 1..]))
}

fn named<'p>(pair: &'p [u8], name: &[u8]) -> Option<&'p [u8]> {
    let end = memchr::memchr(b'=', pair).unwrap_or(pair.len());
    let (found, value) = pair.split_at(end);
    (*decoded(found) == *name).then(|| value.get(1..).unwrap_or_default())
}

fn in_query(path: &[u8], name: &[u8]) -> Option<String> {
    let (_, query) = query(path)?;
    let value = query.split(|byte| *byte == b'&').find_map(|pair| named(pair, name))?;
    Some(String::from_utf8_lossy(&decoded(value)).into_owned())
}

fn without_param(path: &[u8], name: &[u8]) -> Vec<u8> {
    let Some((path, query)) = query(path) else { return path.to_vec() };
    let kept = query.split(|byte| *byte == b'&').filter(|pair| named(pair, name).is_none());
    let kept = kept.collect::<Vec<_>>().join(&b'&');
    if kept.is_empty() { path.to_vec() } else { [path, &kept].join(&b'?') }
}

fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'%', text).is_none() {
        return text.into();
    }
    let digit =
        |byte: Option<&u8>| char::from(*byte?).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        let escaped = digit(text.get(at + 1)).zip(digit(text.get(at + 2)));
        match (byte, escaped) {
            (b'%', Some((high, low))) => {
                out.push(high << 4 | low);
                at += 3;
            }
            _ => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    out.into()
}

/// The first cookie of this name, without quotes around it.
fn in_cookies<'h>(head: &'h RequestHead, name: &[u8]) -> Option<&'h [u8]> {
    head.fields.all(Known::Cookie).find_map(|value| {
        value.split(|byte| *byte == b';').find_map(|pair| {
            let pair = pair.trim_ascii();
            let at = memchr::memchr(b'=', pair)?;
            let (found, value) = (pair[..at].trim_ascii(), pair[at + 1..].trim_ascii());
            let value =
                value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(value);
            (found == name).then_some(value)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_begins_behind_the_text_before_it() {
        for (value, prefix, expected) in [
            ("Bearer a.b.c", "Bearer ", Some("a.b.c")),
            ("Bearer   a.b.c", "Bearer ", Some("a.b.c")),
            ("bearer a.b.c", "Bearer ", None),
            ("Basic x", "Bearer ", None),
            ("a.b.c", "", Some("a.b.c")),
            ("Bearer a.b.c, Bearer d.e.f", "Bearer ", Some("a.b.c, Bearer d.e.f")),
            ("Bearer ", "Bearer ", Some("Bearer ")),
        ] {
            let found = in_header(value.as_bytes(), prefix.as_bytes());
            assert_eq!(found, expected.map(str::as_bytes), "{value:?} {prefix:?}");
        }
    }

    #[test]
    fn a_parameter_is_decoded_and_taken_out_with_all_of_its_name() {
        let path = b"/p?x=1&access%5Ftoken=a%2Eb&access_token=c&y";
        assert_eq!(in_query(path, b"access_token").as_deref(), Some("a.b"));
        assert_eq!(without_param(path, b"access_token"), b"/p?x=1&y");
        assert_eq!(without_param(b"/p?access_token=c", b"access_token"), b"/p");
        assert_eq!(without_param(b"/p", b"access_token"), b"/p");
        assert_eq!(in_query(b"/p?access_token", b"access_token").as_deref(), Some(""));
        assert_eq!(in_query(b"/access_token=1", b"access_token"), None);
        assert_eq!(&*decoded(b"%zz%4"), b"%zz%4");
    }
}
