//! The components of a request that a signature covers (RFC 9421 §2).
//!
//! In:    an identifier, as in `Signature-Input`; the request.
//! Out:   the component's value.
//! Never: covers what a gateway cannot know when it sends the head: trailers, the response.

use crate::{SchemeError, SignError, digest::base64, query, view::View, view::is_token};

/// A covered component, and how it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Component {
    identifier: String,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Method,
    TargetUri,
    Authority,
    Scheme,
    RequestTarget,
    Path,
    Query,
    /// The name, encoded as §2.2.8 says.
    QueryParam(String),
    Field(String),
    /// §2.1.3: each line of the field as bytes.
    FieldBytes(String),
}

impl Component {
    /// Reads an identifier.
    pub(super) fn parse(text: &str) -> Result<Self, SchemeError> {
        let fault = |reason| SchemeError::Component { component: text.to_owned(), reason };
        let quoted = text.strip_prefix('"').and_then(|rest| rest.split_once('"'));
        let (name, parameters) = quoted.ok_or(fault("its name is not in quotes"))?;
        let what = match (name, parameters) {
            ("@query-param", parameters) => {
                let value =
                    parameters.strip_prefix(";name=\"").and_then(|rest| rest.strip_suffix('"'));
                let value = value.ok_or(fault("it must be followed by ;name=\"…\""))?;
                if !value.bytes().all(is_form_byte) {
                    return Err(fault("the name must be percent-encoded"));
                }
                What::QueryParam(value.to_owned())
            }
            (name, ";bs") if is_field(name) => What::FieldBytes(name.to_owned()),
            (_, parameters) if !parameters.is_empty() => {
                return Err(fault(
                    "of parameters only ;bs, and ;name of @query-param, are carried out",
                ));
            }
            ("@method", _) => What::Method,
            ("@target-uri", _) => What::TargetUri,
            ("@authority", _) => What::Authority,
            ("@scheme", _) => What::Scheme,
            ("@request-target", _) => What::RequestTarget,
            ("@path", _) => What::Path,
            ("@query", _) => What::Query,
            ("@status", _) => return Err(fault("a request has no status")),
            (name, _) if is_field(name) => What::Field(name.to_owned()),
            _ => return Err(fault("there is no such component")),
        };
        Ok(Self { identifier: text.to_owned(), what })
    }

    /// As it stands in `Signature-Input`.
    pub(super) fn identifier(&self) -> &str {
        &self.identifier
    }

    /// Whether it is a field of this name.
    pub(super) fn is_field(&self, wanted: &str) -> bool {
        matches!(&self.what, What::Field(name) | What::FieldBytes(name) if name == wanted)
    }

    /// Its value in a request.
    pub(super) fn value(&self, view: &View<'_>) -> Result<Vec<u8>, SignError> {
        let request = view.request;
        let absent = || SignError::NoComponent { component: self.identifier.clone() };
        let is_star = view.target() == "*";
        let text = match &self.what {
            What::Method => request.method.to_owned(),
            What::Scheme => request.scheme.to_ascii_lowercase(),
            What::Authority => authority(view),
            What::RequestTarget => view.target().to_owned(),
            // RFC 9110 §7.1: the URI of `OPTIONS *` has no path and no query. The authority is as the
            // server receives it: only `@authority` is normalised.
            What::TargetUri => {
                let target = if is_star { "" } else { view.target() };
                format!("{}://{}{target}", request.scheme.to_ascii_lowercase(), request.authority)
            }
            What::Path if is_star => "/".to_owned(),
            What::Path => view.path().to_owned(),
            // §2.2.7: "If the query string is absent from the request message, the component value
            // is the leading ? character alone."
            What::Query => format!("?{}", view.query().unwrap_or_default()),
            What::QueryParam(name) => parameter(view, name)?.ok_or_else(absent)?,
            What::Field(name) => return view.field(name).ok_or_else(absent),
            What::FieldBytes(name) => {
                let lines: Vec<String> =
                    view.values(name).map(|value| format!(":{}:", base64(value))).collect();
                if lines.is_empty() {
                    return Err(absent());
                }
                lines.join(", ")
            }
        };
        Ok(text.into_bytes())
    }
}

/// A field, in lower case as §2.1 asks.
fn is_field(name: &str) -> bool {
    is_token(name) && !name.bytes().any(|byte| byte.is_ascii_uppercase())
}

/// §2.2.3: in lower case, without the default port.
fn authority(view: &View<'_>) -> String {
    let authority = view.request.authority.to_ascii_lowercase();
    let port = if view.request.scheme.eq_ignore_ascii_case("https") { ":443" } else { ":80" };
    authority.strip_suffix(port).unwrap_or(&authority).to_owned()
}

/// §2.2.8: the value of the only parameter of a name, decoded as a form's and encoded anew.
fn parameter(view: &View<'_>, wanted: &str) -> Result<Option<String>, SignError> {
    let mut found = None;
    for (name, value) in query::pairs(view.query().unwrap_or_default()) {
        let bad = SignError::AmbiguousQuery { what: "a % without two digits" };
        let name = query::decode_form(name).ok_or_else(|| bad.clone())?;
        if encoded(&name) != wanted {
            continue;
        }
        let value = query::decode_form(value.unwrap_or_default()).ok_or(bad)?;
        if found.replace(encoded(&value)).is_some() {
            return Err(SignError::Repeated { name: wanted.to_owned() });
        }
    }
    Ok(found)
}

/// Encodes all but what a form leaves as it is (WHATWG URL §1.3), a space as `%20`.
fn encoded(bytes: &[u8]) -> String {
    query::encode(bytes, b"*").replace('~', "%7E")
}

fn is_form_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"*-._%".contains(&byte)
}
