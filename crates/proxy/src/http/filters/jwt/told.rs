//! What is told of a good token: claims as header values, the payload as metadata.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sluis_jwt::{Map, Value};
use sluis_rules::{MetaFields, MetaValue};

/// The payload, in which some claims are lists although they are written as a text with spaces.
pub(super) fn payload(payload: &Map<String, Value>, spaced: &[Arc<str>]) -> MetaValue {
    let mut fields = meta_fields(payload);
    for claim in spaced {
        if let Some(MetaValue::Text(text)) = fields.get(claim) {
            let words: Vec<_> = text.split(' ').filter(|word| !word.is_empty()).collect();
            if !words.is_empty() {
                let list = MetaValue::List(words.into_iter().map(MetaValue::text).collect());
                fields.insert(Arc::clone(claim), list);
            }
        }
    }
    MetaValue::fields(fields)
}

/// An object.
pub(super) fn fields(object: &Map<String, Value>) -> MetaValue {
    MetaValue::fields(meta_fields(object))
}

fn meta_fields(object: &Map<String, Value>) -> MetaFields {
    object.iter().map(|(name, value)| (name.as_str().into(), meta_value(value))).collect()
}

fn meta_value(value: &Value) -> MetaValue {
    match value {
        Value::Null => MetaValue::Null,
        Value::Bool(flag) => MetaValue::Bool(*flag),
        Value::Number(number) => MetaValue::Number(number.as_f64().unwrap_or(f64::NAN)),
        Value::String(text) => MetaValue::text(text),
        Value::Array(list) => MetaValue::List(list.iter().map(meta_value).collect()),
        Value::Object(object) => fields(object),
    }
}

/// A claim as a header value; `None` when it is not there, empty or null. As in Envoy, whole numbers
/// have no fraction, others six digits of it, and lists and objects are JSON in base64.
pub(super) fn claim(payload: &Map<String, Value>, path: &[Arc<str>]) -> Option<String> {
    let (first, rest) = path.split_first()?;
    let value = rest.iter().try_fold(payload.get(&**first)?, |value, name| value.get(&**name))?;
    let text = match value {
        Value::Null => return None,
        Value::Bool(flag) => flag.to_string(),
        Value::String(text) => text.clone(),
        Value::Number(number) => number_text(number.as_f64()?),
        Value::Array(_) | Value::Object(_) => STANDARD.encode(value.to_string()),
    };
    (!text.is_empty()).then_some(text)
}

fn number_text(number: f64) -> String {
    if number >= 0.0 && number < u64::MAX as f64 && number.fract() == 0.0 {
        (number as u64).to_string()
    } else {
        format!("{number:.6}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(text: &str) -> Map<String, Value> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn claims_are_written_as_envoy_writes_them() {
        let payload = object(
            r#"{"t":"x","n":12,"f":1.5,"neg":-3,"b":false,"l":["a",1],"o":{"i":{"d":"deep"}},
                "e":"","z":null,"big":18446744073709551615}"#,
        );
        let claimed = |path: &str| {
            let path: Vec<Arc<str>> = path.split('.').map(Arc::from).collect();
            claim(&payload, &path)
        };
        for (path, expected) in [
            ("t", Some("x")),
            ("n", Some("12")),
            ("f", Some("1.500000")),
            ("neg", Some("-3.000000")),
            ("b", Some("false")),
            ("l", Some("WyJhIiwxXQ==")),
            ("o.i.d", Some("deep")),
            ("o.i", Some("eyJkIjoiZGVlcCJ9")),
            ("e", None),
            ("z", None),
            ("missing", None),
            ("t.x", None),
        ] {
            assert_eq!(claimed(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn claims_with_spaces_become_lists() {
        let spaced = ["scope".into(), "other".into(), "blank".into()];
        let told = payload(&object(r#"{"scope":"a  b","other":1,"blank":" "}"#), &spaced);
        let mut json = String::new();
        told.write_json(&mut json);
        assert_eq!(json, r#"{"blank":" ","other":1,"scope":["a","b"]}"#);
    }
}
