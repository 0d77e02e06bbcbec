//! The target of a request: its parameters, and percent-encoding.
//!
//! In:    a path, a query, a name, a value.
//! Out:   the same, encoded, decoded, without some parameters.
//! Never: changes what it was not asked to: the parameters that stay keep their bytes.

use std::borrow::Cow;

/// The path, and the query if there is a `?`.
pub(crate) fn split(target: &str) -> (&str, Option<&str>) {
    match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    }
}

/// The parameters, as they stand: name, and value if there is a `=`.
pub(crate) fn pairs(query: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| match pair.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (pair, None),
    })
}

/// The bytes that `%XX` stand for; nothing if a `%` is not followed by two digits.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let digit =
        |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let (high, low) = (bytes.next()?, bytes.next()?);
            out.push(digit(&high)? * 16 + digit(&low)?);
        } else {
            out.push(byte);
        }
    }
    Some(out)
}

/// The same of a form (WHATWG URL §5.1), where `+` is a space.
pub(crate) fn decode_form(text: &str) -> Option<Vec<u8>> {
    if text.contains('+') { decode(&text.replace('+', "%20")) } else { decode(text) }
}

/// Percent-encodes all but RFC 3986's unreserved characters and those of `kept`.
pub(crate) fn encode(bytes: &[u8], kept: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || kept.contains(&byte) {
            out.push(char::from(byte));
        } else {
            const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
            out.push('%');
            out.push(char::from(DIGITS[usize::from(byte >> 4)]));
            out.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    }
    out
}

/// The target without the parameters of some names, whatever their case and encoding.
pub(crate) fn without<'t>(target: &'t str, names: &[String]) -> Cow<'t, str> {
    let (path, Some(query)) = split(target) else { return Cow::Borrowed(target) };
    if names.is_empty() {
        return Cow::Borrowed(target);
    }
    let is_owned = |pair: &str| {
        let name = pair.split_once('=').map_or(pair, |(name, _)| name);
        let name = decode_form(name).unwrap_or_else(|| name.as_bytes().to_vec());
        names.iter().any(|owned| owned.as_bytes().eq_ignore_ascii_case(&name))
    };
    if !query.split('&').any(is_owned) {
        return Cow::Borrowed(target);
    }
    let kept: Vec<&str> = query.split('&').filter(|pair| !is_owned(pair)).collect();
    if kept.is_empty() {
        Cow::Owned(path.to_owned())
    } else {
        Cow::Owned(format!("{path}?{}", kept.join("&")))
    }
}

/// The target with more at the end of its query.
pub(crate) fn with(target: &str, pairs: &str) -> String {
    match split(target) {
        (_, None) => format!("{target}?{pairs}"),
        (_, Some(query)) if query.is_empty() || query.ends_with('&') => format!("{target}{pairs}"),
        _ => format!("{target}&{pairs}"),
    }
}
