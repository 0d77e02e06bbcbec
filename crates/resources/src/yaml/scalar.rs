//! The type of an unquoted scalar, as kubectl's YAML reader sees it (YAML 1.1 with limits).

/// What an unquoted text means.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Plain {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text,
}

/// Tells the type of an unquoted text.
///
/// kubectl takes `yes`, `on` and their opposites for booleans, unlike YAML 1.2; so do we, that a
/// file means here what it means there.
pub(crate) fn resolve(text: &str) -> Plain {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Plain::Null,
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "y" | "Y" => {
            Plain::Bool(true)
        }
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" | "n" | "N" => {
            Plain::Bool(false)
        }
        _ => number(text).unwrap_or(Plain::Text),
    }
}

fn number(text: &str) -> Option<Plain> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
        return None;
    }
    let radix = |prefix: &str, radix: u32| {
        let rest = digits.strip_prefix(prefix)?;
        // `from_str_radix` takes a sign of its own, which YAML does not.
        let plain = rest.bytes().all(|b| b.is_ascii_alphanumeric());
        i128::from_str_radix(rest, radix).ok().filter(|_| plain)
    };
    let octal = || {
        let old = digits.len() > 1 && digits.starts_with('0');
        old.then(|| i128::from_str_radix(digits, 8).ok()).flatten()
    };
    if let Some(value) = radix("0x", 16).or_else(|| radix("0o", 8)).or_else(|| radix("0b", 2)) {
        return Some(Plain::Int(if text.starts_with('-') { -value } else { value }));
    }
    if digits.bytes().all(|b| b.is_ascii_digit()) {
        let value = octal().or_else(|| digits.parse().ok())?;
        return Some(Plain::Int(if text.starts_with('-') { -value } else { value }));
    }
    let float = digits.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b));
    let value: f64 = text.parse().ok().filter(|_| float)?;
    value.is_finite().then_some(Plain::Float(value))
}

#[cfg(test)]
mod tests {
    use super::{Plain, resolve};

    #[test]
    fn the_type_of_an_unquoted_text_is_the_one_kubectl_sees() {
        for (text, expected) in [
            ("", Plain::Null),
            ("~", Plain::Null),
            ("yes", Plain::Bool(true)),
            ("off", Plain::Bool(false)),
            ("443", Plain::Int(443)),
            ("-1", Plain::Int(-1)),
            ("0x1F", Plain::Int(31)),
            ("0644", Plain::Int(420)),
            ("0", Plain::Int(0)),
            ("1.5", Plain::Float(1.5)),
            ("1e3", Plain::Float(1000.0)),
            ("1.2.3.4", Plain::Text),
            ("300s", Plain::Text),
            ("-", Plain::Text),
            (".", Plain::Text),
            ("1-2", Plain::Text),
            ("0x+1", Plain::Text),
            ("2020-01-01", Plain::Text),
            ("999999999999999999999999999999999999999999", Plain::Text),
        ] {
            assert_eq!(resolve(text), expected, "{text}");
        }
    }
}
