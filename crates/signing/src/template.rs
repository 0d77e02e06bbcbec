//! Templates: literal text with `{variable}` and `{variable:form}` in it; `{{` and `}}` are braces.
//!
//! In:    the text of a template, and where it stands.
//! Out:   a template whose every variable is known and may stand there; later its bytes.
//! Never: runs anything: the list of variables is closed.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use crate::{
    BodyDigest, Material, MaterialError, SignError,
    digest::{base64url, hex},
    view::View,
};

/// Longest template, in bytes; a signed text has a dozen lines.
pub const TEMPLATE_BYTES_MAX: usize = 8 * 1024;

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
        let mut out = Zeroizing::new(Vec::new());
        for part in &self.0 {
            match part {
                Part::Literal(text) => out.extend_from_slice(text.as_bytes()),
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
    let text = |text: &str| Zeroizing::new(text.as_bytes().to_vec());
    let (bytes, is_binary) = match variable {
        Variable::Method => (text(view.request.method), false),
        Variable::Host => (text(&view.host()), false),
        Variable::Authority => (text(view.request.authority), false),
        Variable::Path => (text(view.path()), false),
        Variable::Query => (text(view.query().unwrap_or_default()), false),
        Variable::PathAndQuery => (text(view.target()), false),
        Variable::Scheme => (text(&view.request.scheme.to_ascii_lowercase()), false),
        Variable::Date => (text(values.date), false),
        Variable::Timestamp => (text(&view.moment.unix_seconds().to_string()), false),
        Variable::Nonce => (Zeroizing::new(view.moment.nonce.to_vec()), true),
        Variable::Signature => {
            (Zeroizing::new(values.signature.ok_or(SignError::Library)?.to_vec()), true)
        }
        Variable::BodyDigest => {
            let how = values.digest.ok_or(SignError::Library)?;
            let digest = view.digest(how.algorithm)?;
            match form {
                Form::Plain | Form::Lower | Form::Upper => (text(&how.text(digest)), false),
                _ => (Zeroizing::new(digest.bytes().to_vec()), true),
            }
        }
        // An absent field is an empty one: that it is absent is what is signed.
        Variable::Header(name) => (Zeroizing::new(view.field(name).unwrap_or_default()), false),
        Variable::Secret(entry) => {
            let value = values.material.text(entry).map_err(|_| SignError::Library)?;
            (text(value), false)
        }
    };
    match form {
        Form::Plain if !is_binary => out.extend_from_slice(&bytes),
        Form::Plain | Form::Hex => out.extend_from_slice(hex(&bytes).as_bytes()),
        Form::Base64 => out.extend_from_slice(STANDARD.encode(&*bytes).as_bytes()),
        Form::Base64Url => out.extend_from_slice(base64url(&bytes).as_bytes()),
        Form::Lower | Form::Upper => {
            let mut bytes =
                if is_binary { Zeroizing::new(hex(&bytes).into_bytes()) } else { bytes };
            match form {
                Form::Upper => bytes.make_ascii_uppercase(),
                _ => bytes.make_ascii_lowercase(),
            }
            out.extend_from_slice(&bytes);
        }
    }
    Ok(())
}
