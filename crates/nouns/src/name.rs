//! The name of an object: its namespace and its own name.

use std::fmt;
use std::sync::Arc;

/// Longest DNS label, RFC 1035 §2.3.4.
const LABEL_BYTES_MAX: usize = 63;

/// Longest DNS name in text form, RFC 1035 §2.3.4 without the root dot.
const NAME_BYTES_MAX: usize = 253;

/// A namespace and a name. Prints as `namespace/name`, or `name` when the namespace is empty (as
/// for a Namespace itself). Cheap to clone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectName {
    /// The namespace; empty for an object that has none.
    pub namespace: Arc<str>,
    /// The name inside the namespace.
    pub name: Arc<str>,
}

impl ObjectName {
    /// Makes a name from its two parts, unchecked: [`is_dns_label`] and [`is_dns_name`] check them.
    pub fn new(namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// Returns whether `text` is a label as RFC 1123 §2.1 allows it: letters, digits and inner dashes,
/// 1 to 63 bytes. Letters of both cases are taken.
pub fn is_dns_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    (1..=LABEL_BYTES_MAX).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Returns whether `text` is one or more labels with dots between them, at most 253 bytes.
pub fn is_dns_name(text: &str) -> bool {
    text.len() <= NAME_BYTES_MAX && text.split('.').all(is_dns_label)
}

#[cfg(test)]
mod tests {
    use super::{is_dns_label, is_dns_name};

    #[test]
    fn dns_names_are_labels_with_dots_between_them() {
        let long = "a".repeat(64);
        for (text, label, name) in [
            ("a", true, true),
            ("a-1", true, true),
            ("a.b", false, true),
            ("", false, false),
            ("-a", false, false),
            ("a-", false, false),
            ("a..b", false, false),
            ("a.", false, false),
            ("a_b", false, false),
            (long.as_str(), false, false),
        ] {
            assert_eq!((is_dns_label(text), is_dns_name(text)), (label, name), "{text}");
        }
    }
}
