//! Templates: literal text with `{variable}` and `{variable:form}` in it; `{{` and `}}` are braces.
//!
//! In:    the text of a template, and where it stands.
//! Out:   a template whose every variable is known and may stand there; later its bytes.
//! Never: runs anything: the list of variables is closed.

use std::ops::Deref;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use crate::{
    BodyDigest, Material, MaterialError, SignError,
    digest::{base64url, hex},
    view::View,
};

/// Longest template, in bytes; a signed text has a dozen lines.
pub const TEMPLATE_BYTES_MAX: usize = 8 * 1024;

/// Room for what most templates make: a signed text, a field.
const USUAL_BYTES: usize = 256;

/// What is wrong with a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("template {template:?}, at byte {at}: {reason}")]
pub struct TemplateError {
    /// The whole of it.
    pub template: String,
    /// Where the fault begins, in bytes from 0.
    pub at: usize,
    /// The fault.
    pub reason: String,
}

/// Where a template stands, which says what may stand in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Site {
    /// What is signed, and what keys are derived with.
    Signed,
    /// A field that is sent.
    Output,
    /// A claim of a token.
    Claim,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Variable {
    Method,
    Host,
    Authority,
    Path,
    Query,
    PathAndQuery,
    Scheme,
    Date,
    Timestamp,
    Nonce,
    BodyDigest,
    Signature,
    Header(String),
    Secret(String),
}

/// How a value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Text as it is; bytes in hexadecimal, a digest as its own setting says.
    Plain,
    Hex,
    Base64,
    Base64Url,
    Lower,
    Upper,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Variable(Variable, Form),
}

/// A template that has been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template(Vec<Part>);

/// What the variables of one signing stand for.
pub(crate) struct Values<'v> {
    pub(crate) view: &'v View<'v>,
    pub(crate) material: &'v Material,
    pub(crate) date: &'v str,
    pub(crate) digest: Option<&'v BodyDigest>,
    pub(crate) signature: Option<&'v [u8]>,
}

impl Template {
    pub(crate) fn parse(text: &str, site: Site) -> Result<Self, TemplateError> {
        let fault = |at, reason: &str| TemplateError {
            template: text.chars().take(200).collect(),
            at,
            reason: reason.to_owned(),
        };
        if text.len() > TEMPLATE_BYTES_MAX {
            return Err(fault(TEMPLATE_BYTES_MAX, "it is too long"));
        }
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut at = 0;
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            if rest.starts_with("{{") || rest.starts_with("}}") {
                literal.push_str(&rest[..1]);
                at += 2;
            } else if rest.starts_with('{') {
                let end = rest.find('}').ok_or_else(|| fault(at, "the brace is not closed"))?;
                let part = variable(&rest[1..end], site).map_err(|reason| fault(at, &reason))?;
                if !literal.is_empty() {
                    parts.push(Part::Literal(std::mem::take(&mut literal)));
                }
                parts.push(part);
                at += end + 1;
            } else if rest.starts_with('}') {
                return Err(fault(at, "a brace that is not opened; a literal one is written }}"));
            } else {
                let end = rest.find(['{', '}']).unwrap_or(rest.len());
                if site == Site::Output && rest[..end].contains(|c: char| c.is_control()) {
                    return Err(fault(at, "a control character cannot stand in a field"));
                }
                literal.push_str(&rest[..end]);
                at += end;
            }
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok(Self(parts))
    }

    /// Its variables.
    pub(crate) fn variables(&self) -> impl Iterator<Item = &Variable> {
        self.0.iter().filter_map(|part| match part {
            Part::Variable(variable, _) => Some(variable),
            Part::Literal(_) => None,
        })
    }

    /// Whether it names a variable.
    pub(crate) fn names(&self, wanted: &Variable) -> bool {
        self.variables().any(|variable| variable == wanted)
    }

    /// Sees that the secret has what is named here.
    pub(crate) fn check(&self, material: &Material) -> Result<(), MaterialError> {
        for variable in self.variables() {
            if let Variable::Secret(entry) = variable {
                material.text(entry)?;
            }
        }
        Ok(())
    }

    pub(crate) fn render(&self, values: &Values<'_>) -> Result<Zeroizing<Vec<u8>>, SignError> {
        let mut out = Zeroizing::new(Vec::with_capacity(USUAL_BYTES));
        for part in &self.0 {
            match part {
                Part::Literal(text) => put(text.as_bytes(), &mut out),
                Part::Variable(variable, form) => write(variable, *form, values, &mut out)?,
            }
        }
        Ok(out)
    }
}

/// What stands between two braces.
fn variable(inside: &str, site: Site) -> Result<Part, String> {
    let (name, form) = match inside.rsplit_once(':') {
        None => (inside, Form::Plain),
        Some((name, "hex")) => (name, Form::Hex),
        Some((name, "base64")) => (name, Form::Base64),
        Some((name, "base64url")) => (name, Form::Base64Url),
        Some((name, "lower")) => (name, Form::Lower),
        Some((name, "upper")) => (name, Form::Upper),
        Some((_, form)) => return Err(format!("no value can be written as {form:?}")),
    };
    let variable = match name {
        "method" => Variable::Method,
        "host" => Variable::Host,
        "authority" => Variable::Authority,
        "path" => Variable::Path,
        "query" => Variable::Query,
        "path_and_query" => Variable::PathAndQuery,
        "scheme" => Variable::Scheme,
        "date" => Variable::Date,
        "timestamp" => Variable::Timestamp,
        "nonce" => Variable::Nonce,
        "body_digest" => Variable::BodyDigest,
        "signature" => Variable::Signature,
        _ => match name.split_once('.') {
            Some(("header", field)) if crate::view::is_token(field) => {
                Variable::Header(field.to_ascii_lowercase())
            }
            Some(("secret", entry)) if !entry.is_empty() => Variable::Secret(entry.to_owned()),
            _ => return Err(format!("there is no variable {name:?}")),
        },
    };
    let is_welcome = match (&variable, site) {
        (Variable::Signature | Variable::Secret(_), site) => site == Site::Output,
        (Variable::Date | Variable::BodyDigest, site) => site != Site::Claim,
        _ => true,
    };
    if is_welcome {
        Ok(Part::Variable(variable, form))
    } else {
        Err(format!("{name:?} may not stand here"))
    }
}

fn write(
    variable: &Variable,
    form: Form,
    values: &Values<'_>,
    out: &mut Zeroizing<Vec<u8>>,
) -> Result<(), SignError> {
    let view = values.view;
    let (value, is_binary) = match variable {
        Variable::Method => (text(view.request.method), false),
        Variable::Host => (made(view.host()), false),
        Variable::Authority => (text(view.request.authority), false),
        Variable::Path => (text(view.path()), false),
        Variable::Query => (text(view.query().unwrap_or_default()), false),
        Variable::PathAndQuery => (text(view.target()), false),
        Variable::Scheme => (made(view.request.scheme.to_ascii_lowercase()), false),
        Variable::Date => (text(values.date), false),
        Variable::Timestamp => (made(view.moment.unix_seconds().to_string()), false),
        Variable::Nonce => (Value::Lent(&view.moment.nonce), true),
        Variable::Signature => (Value::Lent(values.signature.ok_or(SignError::Library)?), true),
        Variable::BodyDigest => {
            let how = values.digest.ok_or(SignError::Library)?;
            let digest = view.digest(how.algorithm)?;
            match form {
                Form::Plain | Form::Lower | Form::Upper => (made(how.text(digest)), false),
                _ => (Value::Lent(digest.bytes()), true),
            }
        }
        // An absent field is an empty one: that it is absent is what is signed.
        Variable::Header(name) => {
            (Value::Made(Zeroizing::new(view.field(name).unwrap_or_default())), false)
        }
        Variable::Secret(entry) => {
            (text(values.material.text(entry).map_err(|_| SignError::Library)?), false)
        }
    };
    match form {
        Form::Plain if !is_binary => put(&value, out),
        Form::Plain | Form::Hex => put(hex(&value).as_bytes(), out),
        Form::Base64 => put(STANDARD.encode(&*value).as_bytes(), out),
        Form::Base64Url => put(base64url(&value).as_bytes(), out),
        Form::Lower | Form::Upper => {
            let start = out.len();
            match is_binary {
                true => put(hex(&value).as_bytes(), out),
                false => put(&value, out),
            }
            match form {
                Form::Upper => out[start..].make_ascii_uppercase(),
                _ => out[start..].make_ascii_lowercase(),
            }
        }
    }
    Ok(())
}

/// Appends, and overwrites the memory that is left where there is no room.
fn put(bytes: &[u8], out: &mut Zeroizing<Vec<u8>>) {
    if out.capacity() - out.len() < bytes.len() {
        let mut moved = Zeroizing::new(Vec::with_capacity(2 * (out.len() + bytes.len())));
        moved.extend_from_slice(out);
        *out = moved;
    }
    out.extend_from_slice(bytes);
}

/// What a variable stands for.
enum Value<'v> {
    Lent(&'v [u8]),
    Made(Zeroizing<Vec<u8>>),
}

impl Deref for Value<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Lent(bytes) => bytes,
            Self::Made(bytes) => bytes,
        }
    }
}

fn text(text: &str) -> Value<'_> {
    Value::Lent(text.as_bytes())
}

fn made(text: String) -> Value<'static> {
    Value::Made(Zeroizing::new(text.into_bytes()))
}
