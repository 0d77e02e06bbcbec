//! What a request's dynamic metadata must be like (Envoy's metadata matcher).

use crate::{MetaValue, Metadata, StringMatcher};

/// What the value at a path of a namespace must be like.
#[derive(Clone, Debug, PartialEq)]
pub struct MetadataMatch {
    pub(crate) namespace: Box<str>,
    pub(crate) path: Vec<Box<str>>,
    pub(crate) value: ValueMatch,
    pub(crate) invert: bool,
}

/// What a value must be like.
#[derive(Clone, Debug, PartialEq)]
pub enum ValueMatch {
    /// JSON's null.
    Null,
    /// From the first number (included) to the second (excluded).
    Range(f64, f64),
    /// The same number.
    Number(f64),
    /// A text like this.
    Text(StringMatcher),
    /// The same flag.
    Bool(bool),
    /// There; `false` matches nothing.
    Present(bool),
    /// A list with such a value in it.
    OneOf(Box<Self>),
    /// One of these holds.
    Any(Vec<Self>),
}

impl MetadataMatch {
    /// Whether it matches; without metadata everything is missing.
    #[must_use]
    pub fn matches(&self, metadata: Option<&Metadata>) -> bool {
        let value = metadata.and_then(|metadata| metadata.get(&self.namespace, &self.path));
        self.value.matches(value) != self.invert
    }

    /// The filter that says the value.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }
}

impl ValueMatch {
    /// Whether a value matches.
    #[must_use]
    pub fn matches(&self, value: Option<&MetaValue>) -> bool {
        match (self, value) {
            // As Envoy: to ask for absence matches nothing; an inverted match says it.
            (Self::Present(wanted), value) => *wanted && value.is_some(),
            (Self::Any(list), value) => list.iter().any(|one| one.matches(value)),
            (Self::Null, Some(MetaValue::Null)) => true,
            (Self::Range(from, to), Some(MetaValue::Number(number))) => {
                (*from..*to).contains(number)
            }
            (Self::Number(wanted), Some(MetaValue::Number(number))) => number == wanted,
            (Self::Text(matcher), Some(MetaValue::Text(text))) => matcher.matches(text.as_bytes()),
            (Self::Bool(wanted), Some(MetaValue::Bool(flag))) => flag == wanted,
            (Self::OneOf(inner), Some(MetaValue::List(list))) => {
                list.iter().any(|value| inner.matches(Some(value)))
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Case, Text};

    fn metadata() -> Metadata {
        let list = vec![MetaValue::text("admin"), MetaValue::Number(2.0)];
        let mut metadata = Metadata::default();
        metadata.set("n", "list", MetaValue::List(list));
        metadata.set("n", "text", MetaValue::text("admin"));
        metadata.set("n", "number", MetaValue::Number(2.0));
        metadata.set("n", "flag", MetaValue::Bool(true));
        metadata.set("n", "null", MetaValue::Null);
        metadata
    }

    #[track_caller]
    fn check(key: &str, value: ValueMatch, expected: bool) {
        let namespace = "n".into();
        let matcher = MetadataMatch { namespace, path: vec![key.into()], value, invert: false };
        assert_eq!(matcher.matches(Some(&metadata())), expected, "{matcher:?}");
        let turned = MetadataMatch { invert: true, ..matcher };
        assert_eq!(turned.matches(Some(&metadata())), !expected, "{turned:?}");
    }

    #[test]
    fn each_kind_matches_values_of_its_own() {
        let admin = || ValueMatch::Text(StringMatcher::Exact(Text::new("admin", Case::Sensitive)));
        check("text", admin(), true);
        check("list", admin(), false);
        check("list", ValueMatch::OneOf(admin().into()), true);
        check("text", ValueMatch::OneOf(admin().into()), false);
        check("text", ValueMatch::Any(vec![ValueMatch::OneOf(admin().into()), admin()]), true);
        check("missing", admin(), false);
        check("missing", ValueMatch::Present(true), false);
        check("missing", ValueMatch::Present(false), false);
        check("null", ValueMatch::Present(true), true);
        check("null", ValueMatch::Null, true);
        check("missing", ValueMatch::Null, false);
        check("number", ValueMatch::Number(2.0), true);
        check("number", ValueMatch::Range(1.0, 2.0), false);
        check("number", ValueMatch::Range(2.0, 3.0), true);
        check("flag", ValueMatch::Bool(true), true);
        check("flag", ValueMatch::Bool(false), false);
    }

    #[test]
    fn without_metadata_everything_is_missing() {
        let value = ValueMatch::Present(true);
        let path = vec!["text".into()];
        let matcher = MetadataMatch { namespace: "n".into(), path, value, invert: false };
        assert!(!matcher.matches(None));
    }
}
