//! Credentials for Lua scripts: names in the manifest, values only in the gateway's own process.
//!
//! The annotation `sluis.dev/lua-globals` on an `EnvoyFilter` says which globals its scripts find:
//!
//! ```yaml
//! metadata:
//!   annotations:
//!     sluis.dev/lua-globals: |
//!       access_key: {env: DATA_API_ACCESS_KEY}
//!       secret_key: {file: /etc/credentials/secret}
//! ```
//!
//! A prelude of Lua in front of the script, on the script's own first line so that line numbers in
//! errors stay true, reads them when the script is loaded. So what travels over xDS is the name of a
//! variable or file, never its value, and it works in a real Envoy as well. When a value is missing
//! the script does not load: the proxy refuses the configuration instead of letting requests pass
//! unsigned.

use std::collections::BTreeMap;

use serde::Deserialize;

/// The annotation on an `EnvoyFilter`.
pub(super) const ANNOTATION: &str = "sluis.dev/lua-globals";

/// Lua's reserved words (Lua 5.1 reference manual §2.1, and LuaJIT's `goto`).
const RESERVED: [&str; 22] = [
    "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "goto", "if", "in",
    "local", "nil", "not", "or", "repeat", "return", "then", "true", "until", "while",
];

/// Where the value of a global is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
enum Source {
    /// In this environment variable.
    Env(String),
    /// In this file, without the newline at its end.
    File(String),
}

/// Makes the prelude from the annotation's text.
///
/// # Errors
///
/// What is wrong with the text; nothing of it is then used.
pub(super) fn prelude(annotation: &str) -> Result<String, String> {
    let globals: BTreeMap<String, Source> = serde_saphyr::from_str(annotation)
        .map_err(|error| format!("expected a map such as `key: {{env: NAME}}`: {error}"))?;
    let mut prelude = String::new();
    for (name, source) in &globals {
        if !is_identifier(name) {
            return Err(format!("{name:?} is not a name in Lua"));
        }
        prelude.push_str(&assignment(name, source)?);
    }
    Ok(prelude)
}

/// The prelude for an annotation that cannot be read: the script must not load without its globals.
pub(super) fn broken() -> String {
    format!("error({}) ", quoted(&format!("annotation {ANNOTATION} cannot be read")))
}

fn assignment(name: &str, source: &Source) -> Result<String, String> {
    let (field, place) = match source {
        Source::Env(place) => ("environment variable", place),
        Source::File(place) => ("file", place),
    };
    if place.is_empty() || place.contains('\0') {
        return Err(format!("the {field} of {name} has no usable name"));
    }
    let missing = quoted(&format!("no value for {name}: {field} {place} is missing or empty"));
    let place = quoted(place);
    Ok(match source {
        Source::Env(_) => format!(
            "{name}=(function() local v=os.getenv({place}) if not v or v==\"\" then \
             error({missing},0) end return v end)() "
        ),
        Source::File(_) => format!(
            "{name}=(function() local f=io.open({place},\"rb\") if not f then error({missing},0) end \
             local v=f:read(\"*a\") f:close() v=v and v:gsub(\"\\r?\\n$\",\"\") if not v or v==\"\" \
             then error({missing},0) end return v end)() "
        ),
    })
}

fn is_identifier(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !RESERVED.contains(&name)
}

/// A Lua string literal without newlines: everything but plain characters as `\ddd`.
fn quoted(text: &str) -> String {
    let mut literal = String::from("\"");
    for byte in text.bytes() {
        if (byte.is_ascii_graphic() || byte == b' ') && byte != b'"' && byte != b'\\' {
            literal.push(char::from(byte));
        } else {
            literal.push_str(&format!("\\{byte:03}"));
        }
    }
    literal.push('"');
    literal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prelude_names_the_places_and_stays_on_one_line() {
        let text = "access_key: {env: DATA_API_ACCESS_KEY}\nsecret_key: {file: /run/secret}\n";
        let prelude = prelude(text).unwrap();
        assert!(!prelude.contains('\n'), "{prelude}");
        assert!(
            prelude.contains("access_key=(function() local v=os.getenv(\"DATA_API_ACCESS_KEY\")")
        );
        assert!(prelude.contains("io.open(\"/run/secret\",\"rb\")"));
    }

    #[test]
    fn what_could_be_code_is_refused_or_quoted() {
        for text in ["end: {env: A}", "\"a=1 b\": {env: A}", "\"\": {env: A}", "1a: {env: A}"] {
            assert!(prelude(text).unwrap_err().contains("is not a name in Lua"), "{text}");
        }
        assert_eq!(quoted("a\"]]\n\\"), "\"a\\034]]\\010\\092\"");
    }

    #[test]
    fn other_shapes_are_refused() {
        for text in ["- a", "a: b", "a: {value: secret}", "a: {env: A, file: b}", "a: {env: \"\"}"]
        {
            assert!(prelude(text).is_err(), "{text}");
        }
    }
}
