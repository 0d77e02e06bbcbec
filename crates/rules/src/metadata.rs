//! What filters have found out of a request, for the filters after them and for the log.
//!
//! In:    values under a filter's name, as Envoy's dynamic metadata.
//! Out:   values by path, JSON text.
//! Never: keeps more than one value for a path; a later one takes the place of the earlier.
//!
//! Start at [`Metadata::get`].

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

/// The fields of a structure, by name.
pub type MetaFields = BTreeMap<Arc<str>, MetaValue>;

/// A value of the kinds that JSON has.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum MetaValue {
    /// Nothing.
    #[default]
    Null,
    /// Yes or no.
    Bool(bool),
    /// A number.
    Number(f64),
    /// A text.
    Text(Arc<str>),
    /// Several values.
    List(Vec<Self>),
    /// Values by name, shared: those of a token are told of each request that has it.
    Fields(Arc<MetaFields>),
}

/// A request's dynamic metadata: what each filter says, by the filter's namespace
/// (`envoy.filters.http.rbac`, `envoy.filters.http.jwt_authn`, `istio_authn`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    namespaces: BTreeMap<Arc<str>, MetaFields>,
}

impl Metadata {
    /// Whether nothing has been said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.namespaces.is_empty()
    }

    /// Sets one value of a namespace.
    pub fn set(&mut self, namespace: &str, key: &str, value: MetaValue) {
        match self.namespaces.get_mut(namespace) {
            Some(fields) => drop(fields.insert(key.into(), value)),
            None => {
                let fields = MetaFields::from([(key.into(), value)]);
                self.namespaces.insert(namespace.into(), fields);
            }
        }
    }

    /// The same, with names that are there already.
    pub fn put(&mut self, namespace: &Arc<str>, key: Arc<str>, value: MetaValue) {
        match self.namespaces.get_mut(namespace) {
            Some(fields) => drop(fields.insert(key, value)),
            None => {
                let mut fields = MetaFields::new();
                fields.insert(key, value);
                self.namespaces.insert(Arc::clone(namespace), fields);
            }
        }
    }

    /// All that a namespace says.
    #[must_use]
    pub fn namespace(&self, namespace: &str) -> Option<&MetaFields> {
        self.namespaces.get(namespace)
    }

    /// All namespaces, by name.
    pub fn namespaces(&self) -> impl Iterator<Item = (&str, &MetaFields)> {
        self.namespaces.iter().map(|(name, fields)| (&**name, fields))
    }

    /// The value at a path of names within a namespace. An empty path has none.
    #[must_use]
    pub fn get<'m, S: AsRef<str>>(&'m self, namespace: &str, path: &[S]) -> Option<&'m MetaValue> {
        let (first, rest) = path.split_first()?;
        let first = self.namespaces.get(namespace)?.get(first.as_ref())?;
        rest.iter().try_fold(first, |value, key| match value {
            MetaValue::Fields(fields) => fields.get(key.as_ref()),
            _ => None,
        })
    }
}

impl MetaValue {
    /// A text.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self::Text(text.into())
    }

    /// Values by name.
    #[must_use]
    pub fn fields(fields: MetaFields) -> Self {
        Self::Fields(Arc::new(fields))
    }

    /// The text, if it is one.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Appends the value as JSON without white space.
    pub fn write_json(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
            // JSON has neither infinity nor "not a number". Writing to a String cannot fail.
            Self::Number(number) if number.is_finite() => drop(write!(out, "{number}")),
            Self::Number(_) => out.push_str("null"),
            Self::Text(text) => json_text(text, out),
            Self::List(list) => {
                out.push('[');
                for (index, value) in list.iter().enumerate() {
                    if index > 0 {
                        out.push(',');
                    }
                    value.write_json(out);
                }
                out.push(']');
            }
            Self::Fields(fields) => fields_json(fields, out),
        }
    }
}

/// Appends fields as a JSON object.
pub fn fields_json(fields: &MetaFields, out: &mut String) {
    out.push('{');
    for (index, (name, value)) in fields.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        json_text(name, out);
        out.push(':');
        value.write_json(out);
    }
    out.push('}');
}

fn json_text(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // Writing to a String cannot fail.
            control if control < ' ' => drop(write!(out, "\\u{:04x}", u32::from(control))),
            other => out.push(other),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_by_its_path_within_its_namespace() {
        let mut metadata = Metadata::default();
        let inner = MetaFields::from([("iss".into(), MetaValue::text("me"))]);
        metadata.set("jwt", "payload", MetaValue::fields(inner));
        metadata.set("jwt", "n", MetaValue::Number(1.0));
        assert_eq!(metadata.get("jwt", &["payload", "iss"]), Some(&MetaValue::text("me")));
        assert_eq!(metadata.get("jwt", &["payload", "sub"]), None);
        assert_eq!(metadata.get("jwt", &["n", "iss"]), None);
        assert_eq!(metadata.get("other", &["n"]), None);
        assert_eq!(metadata.get::<&str>("jwt", &[]), None);
    }

    #[test]
    fn values_are_written_as_json() {
        let mut metadata = Metadata::default();
        let list = vec![MetaValue::Null, MetaValue::Bool(true), MetaValue::Number(1.5)];
        metadata.set("n", "list", MetaValue::List(list));
        metadata.set("n", "count", MetaValue::Number(3.0));
        metadata.set("n", "text", MetaValue::text("a\"\n\u{1}"));
        let mut out = String::new();
        fields_json(metadata.namespace("n").unwrap(), &mut out);
        assert_eq!(out, r#"{"count":3,"list":[null,true,1.5],"text":"a\"\n\u0001"}"#);
    }
}
