//! What a request must be like for a route to match.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::{Fraction, Metadata, MetadataMatch, Pattern, StringMatcher, Text};

/// All values of one header, in order.
pub type HeaderValues<'r> = SmallVec<[&'r [u8]; 4]>;

/// What a route may ask of a request. Implemented by the proxy over its header block.
pub trait RequestFacts {
    /// The method, as `GET`.
    fn method(&self) -> &str;
    /// The host, with its port if it was sent; empty when there is none.
    fn authority(&self) -> &str;
    /// The path with its query; empty for CONNECT.
    fn path(&self) -> &str;
    /// `http` or `https`.
    fn scheme(&self) -> &str;
    /// Appends all values of a header. The name is in lower case and no pseudo-header.
    fn header<'r>(&'r self, name: &str, values: &mut HeaderValues<'r>);
    /// A number drawn for this request, uniformly from all `u64`: the same at every call.
    fn draw(&self) -> u64 {
        0
    }

    /// Appends all values of a header, which may be a pseudo-header, in lower case.
    fn any_header<'r>(&'r self, name: &str, values: &mut HeaderValues<'r>) {
        match name {
            ":method" => values.push(self.method().as_bytes()),
            ":authority" | "host" => values.push(self.authority().as_bytes()),
            ":path" if !self.path().is_empty() => values.push(self.path().as_bytes()),
            ":scheme" => values.push(self.scheme().as_bytes()),
            name if name.starts_with(':') => {}
            name => self.header(name, values),
        }
    }

    /// What filters have found out of the request.
    fn metadata(&self) -> Option<&Metadata> {
        None
    }

    /// Whether the request is one of gRPC, by its content type.
    fn is_grpc(&self) -> bool {
        let mut values = HeaderValues::new();
        self.header("content-type", &mut values);
        values.first().is_some_and(|value| is_grpc_type(value))
    }
}

/// Whether a content type is gRPC's: `application/grpc`, alone or with a suffix.
#[must_use]
pub fn is_grpc_type(content_type: &[u8]) -> bool {
    content_type
        .strip_prefix(b"application/grpc")
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+')))
}

/// What a request must be like. All parts must match.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteMatch {
    /// The path, without query and fragment.
    pub path: PathMatch,
    /// The headers.
    pub headers: Vec<HeaderMatch>,
    /// The query parameters.
    pub query: Vec<QueryMatch>,
    /// The cookies.
    pub cookies: Vec<CookieMatch>,
    /// What filters have found out.
    pub metadata: Vec<MetadataMatch>,
    /// Only requests of gRPC.
    pub is_grpc: bool,
    /// Only this share of them.
    pub fraction: Option<Fraction>,
}

/// What a cookie must be like.
#[derive(Clone, Debug, PartialEq)]
pub struct CookieMatch {
    pub(crate) name: Arc<str>,
    pub(crate) value: StringMatcher,
    pub(crate) invert: bool,
}

/// What a path must be like.
#[derive(Clone, Debug, PartialEq)]
pub enum PathMatch {
    /// The same.
    Exact(Text),
    /// One that starts so.
    Prefix(Text),
    /// The same, or one that starts so and goes on with `/`.
    SeparatedPrefix(Text),
    /// One that the expression matches as a whole.
    Regex(Pattern),
    /// None: the method is CONNECT.
    Connect,
}

/// What a header must be like.
#[derive(Clone, Debug, PartialEq)]
pub struct HeaderMatch {
    pub(crate) name: Arc<str>,
    pub(crate) test: HeaderTest,
    pub(crate) invert: bool,
    pub(crate) missing_is_empty: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum HeaderTest {
    Present(bool),
    String(StringMatcher),
    /// A whole number from the first (included) to the second (excluded).
    Range(i64, i64),
}

/// What a query parameter must be like.
#[derive(Clone, Debug, PartialEq)]
pub struct QueryMatch {
    pub(crate) name: Arc<str>,
    pub(crate) test: QueryTest,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum QueryTest {
    Present(bool),
    String(StringMatcher),
}

impl RouteMatch {
    /// Whether a request matches.
    #[must_use]
    pub fn matches(&self, request: &impl RequestFacts) -> bool {
        self.path.matches(request, path_of(request.path())) && self.conditions_hold(request)
    }

    /// Whether everything but the path matches.
    pub(crate) fn conditions_hold(&self, request: &impl RequestFacts) -> bool {
        self.fraction.is_none_or(|fraction| fraction.holds(request.draw()))
            && (!self.is_grpc || request.is_grpc())
            && self.headers.iter().all(|header| header.matches(request))
            && self.cookies_hold(request)
            && self.metadata.iter().all(|wanted| wanted.matches(request.metadata()))
            && (self.query.is_empty() || {
                let query = query_of(request.path());
                self.query.iter().all(|parameter| parameter.matches(query))
            })
    }
}

impl RouteMatch {
    fn cookies_hold(&self, request: &impl RequestFacts) -> bool {
        if self.cookies.is_empty() {
            return true;
        }
        let mut values = HeaderValues::new();
        request.header("cookie", &mut values);
        self.cookies.iter().all(|cookie| {
            let found = cookie_value(&values, &cookie.name);
            found.is_some_and(|value| cookie.value.matches(value)) != cookie.invert
        })
    }
}

impl PathMatch {
    /// Whether a path (without query and fragment) matches.
    pub(crate) fn matches(&self, request: &impl RequestFacts, path: &str) -> bool {
        // Envoy's rule: a request without a path (CONNECT) matches no path specifier.
        if path.is_empty() {
            return matches!(self, Self::Connect) && request.method() == "CONNECT";
        }
        match self {
            Self::Exact(text) => text.equals(path.as_bytes()),
            Self::Prefix(text) => text.starts(path.as_bytes()),
            Self::SeparatedPrefix(text) => {
                text.starts(path.as_bytes())
                    && matches!(path.as_bytes().get(text.as_str().len()), None | Some(b'/'))
            }
            Self::Regex(pattern) => pattern.matches(path.as_bytes()),
            Self::Connect => request.method() == "CONNECT",
        }
    }
}

impl HeaderMatch {
    /// Whether a request's header of this name matches.
    ///
    /// Of several headers of one name each is compared by itself, and one that matches is enough, as
    /// in Envoy since 1.38; inverted, none may match. A missing header matches nothing, inverted or
    /// not, unless it counts as empty.
    #[must_use]
    pub fn matches(&self, request: &impl RequestFacts) -> bool {
        let mut values = HeaderValues::new();
        request.any_header(&self.name, &mut values);
        self.matches_values(&values)
    }

    /// Whether these values of the header match; for responses too.
    #[must_use]
    pub fn matches_values(&self, values: &[&[u8]]) -> bool {
        if let HeaderTest::Present(wanted) = self.test {
            let present = !values.is_empty() || self.missing_is_empty;
            return (present == wanted) != self.invert;
        }
        let holds = match values {
            [] if self.missing_is_empty => self.test.holds(b""),
            [] => return false,
            values => values.iter().any(|value| self.test.holds(value)),
        };
        holds != self.invert
    }

    /// The header's name in lower case.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl HeaderTest {
    fn holds(&self, value: &[u8]) -> bool {
        match self {
            Self::Present(wanted) => *wanted,
            Self::String(matcher) => matcher.matches(value),
            Self::Range(start, end) => std::str::from_utf8(value)
                .ok()
                .and_then(|text| text.parse::<i64>().ok())
                .is_some_and(|number| (*start..*end).contains(&number)),
        }
    }
}

impl QueryMatch {
    /// Whether the first parameter of this name matches. Nothing is decoded, as in Envoy.
    fn matches(&self, query: &str) -> bool {
        let value = value_in(query, &self.name);
        match &self.test {
            QueryTest::Present(wanted) => value.is_some() == *wanted,
            QueryTest::String(matcher) => {
                value.is_some_and(|value| matcher.matches(value.as_bytes()))
            }
        }
    }
}

/// The path without query and fragment.
pub(crate) fn path_of(target: &str) -> &str {
    &target[..memchr::memchr2(b'?', b'#', target.as_bytes()).unwrap_or(target.len())]
}

/// The query without its question mark and without the fragment; empty when there is none.
fn query_of(target: &str) -> &str {
    let target = &target[..memchr::memchr(b'#', target.as_bytes()).unwrap_or(target.len())];
    target.split_once('?').map_or("", |(_, query)| query)
}

/// The first value of a query parameter of a target. Nothing is decoded, as in Envoy.
pub(crate) fn query_value<'t>(target: &'t str, name: &str) -> Option<&'t str> {
    value_in(query_of(target), name)
}

fn value_in<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    query.split('&').find_map(|pair| {
        let (found, value) = pair.split_once('=').unwrap_or((pair, ""));
        (found == name).then_some(value)
    })
}

/// A cookie's value: not empty, and without the quotes around it, as Envoy reads it.
pub(crate) fn cookie_value<'v>(values: &[&'v [u8]], name: &str) -> Option<&'v [u8]> {
    let pairs = values.iter().flat_map(|value| value.split(|byte| *byte == b';'));
    let found = pairs.filter_map(|pair| {
        let pair = pair.trim_ascii();
        let equals = memchr::memchr(b'=', pair)?;
        let (key, value) = (&pair[..equals], &pair[equals + 1..]);
        let inner = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
        (key == name.as_bytes()).then_some(inner.unwrap_or(value))
    });
    found.into_iter().next().filter(|value| !value.is_empty())
}
