//! Checks templates: literal text and `{variable}` or `{variable:encoding}`, of a closed list. Doubled
//! braces are literal ones.

use super::super::forms::checked;
use super::is_entry;
use crate::value::{Value, nearest};

/// What a template can say of the request.
const VARIABLES: [&str; 11] = [
    "method",
    "host",
    "authority",
    "path",
    "query",
    "path_and_query",
    "scheme",
    "date",
    "timestamp",
    "nonce",
    "body_digest",
];

/// How a value can be written.
const ENCODINGS: [&str; 5] = ["hex", "base64", "base64url", "lower", "upper"];

/// Longest template.
const BYTES_MAX: usize = 8 << 10;

/// Where a template stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// What is signed: never the secret itself, nor the signature.
    Signed,
    /// What is sent: all of it.
    Sent,
    /// What makes a key, or a claim: all but the signature.
    Made,
}

/// Reads a template.
pub(super) fn template(value: &Value<'_>, used: Use) -> Option<String> {
    checked(value, |text| match value.is_described() {
        true => Ok(text.to_owned()),
        false => check(text, used).map(|()| text.to_owned()),
    })
}

fn check(text: &str, used: Use) -> Result<(), String> {
    if text.len() > BYTES_MAX {
        return Err(format!("this is longer than {BYTES_MAX} bytes"));
    }
    // Doubled braces are literal ones.
    let text = text.replace("{{", "").replace("}}", "");
    let mut rest = text.as_str();
    while let Some(at) = rest.find(['{', '}']) {
        let inner = rest[at..].strip_prefix('{').and_then(|rest| rest.split_once('}'));
        let Some((inner, after)) = inner else {
            return Err("a brace is not closed, or not opened".to_owned());
        };
        let (name, encoding) = inner.split_once(':').map_or((inner, None), |(n, e)| (n, Some(e)));
        variable(name, used)?;
        if let Some(encoding) = encoding.filter(|encoding| !ENCODINGS.contains(encoding)) {
            return Err(format!("{encoding:?} is none of {}", ENCODINGS.join(", ")));
        }
        rest = after;
    }
    Ok(())
}

fn variable(name: &str, used: Use) -> Result<(), String> {
    if let Some(entry) = name.strip_prefix("secret.") {
        return match used {
            Use::Signed => Err(format!("{{{name}}} would be part of what is signed")),
            _ if is_entry(entry) => Ok(()),
            _ => Err(format!("{entry:?} is not the name of an entry")),
        };
    }
    if let Some(header) = name.strip_prefix("header.") {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"-_".contains(&b);
        let is_name = !header.is_empty() && header.bytes().all(fits);
        return is_name.then_some(()).ok_or_else(|| format!("{header:?} is not a header"));
    }
    if name == "signature" {
        let is_possible = used == Use::Sent;
        let message = || "{signature} is there only where a header is written".to_owned();
        return is_possible.then_some(()).ok_or_else(message);
    }
    if VARIABLES.contains(&name) {
        return Ok(());
    }
    let known = VARIABLES.iter().copied().chain(["signature"]).collect::<Vec<_>>();
    Err(match nearest(name, &known) {
        Some(meant) => format!("{{{name}}} is unknown: did you mean {{{meant}}}?"),
        None if is_entry(name) => {
            format!("{{{name}}} is unknown: an entry of the secret is {{secret.{name}}}")
        }
        None => format!("{{{name}}} is unknown: there are {}", known.join(", ")),
    })
}

/// Whether a template has a variable.
pub(super) fn has(text: &str, name: &str) -> bool {
    text.split('{').skip(1).any(|rest| {
        let inner = rest.split_once('}').map_or("", |(inner, _)| inner);
        inner.split(':').next() == Some(name)
    })
}
