//! The CustomResourceDefinitions of our own kinds, for a cluster that is to hold them.
//!
//! In:    what the readers know of their fields; which fields are no texts, below.
//! Out:   YAML for `kubectl apply`.
//! Never: is stricter than the reader, which has the last word on every object.

use std::fmt::Write;

use crate::read::describe;
use crate::value::{Schema, Shape};

/// The kinds: `kind`, plural and short name.
const KINDS: [(&str, &str, &str); 2] =
    [("Credential", "credentials", "cred"), ("CredentialGrant", "credentialgrants", "credgrant")];

const GROUP: &str = "egress.sluis.dev";

/// Fields that are true or false.
const BOOLEANS: [&str; 7] =
    ["allowWeak", "created", "dpop", "dryRun", "nonce", "sendAlgorithm", "unsignedPayload"];

/// Sizes: a number of bytes, or a text such as `1Mi`.
const SIZES: [&str; 3] = ["maxBodyBytes", "maxBytes", "scanResponse"];

/// Maps of texts.
const MAPS: [&str; 7] = ["ciphertexts", "claims", "env", "keys", "parameters", "paths", "sealed"];

/// Lists of texts, beside those of sources and operations, which are all lists.
const LISTS: [&str; 12] = [
    "allowGrantsFrom",
    "audiences",
    "command",
    "components",
    "derive",
    "hosts",
    "resources",
    "schemes",
    "scopes",
    "signedHeaders",
    "stripFromRequest",
    "stripFromResponse",
];

/// Lists of sections; `from` and `to` also take the section under its name in an AuthorizationPolicy.
const SECTION_LISTS: [(&str, &str); 4] =
    [("outputs", ""), ("from", "source"), ("to", "operation"), ("when", "")];

/// Sections in which every plain field is a list.
const LIST_SECTIONS: [&str; 2] = ["spec.rules[].from[].source", "spec.rules[].to[].operation"];

/// Deeper than any section is.
const DEPTH_MAX: usize = 12;

/// Writes the definitions, as several documents.
pub fn crds() -> String {
    let (schema, _) = describe();
    let mut text = String::new();
    for (kind, plural, short) in KINDS {
        let singular = kind.to_ascii_lowercase();
        let _ = write!(
            text,
            "---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: {plural}.{GROUP}
spec:
  group: {GROUP}
  scope: Namespaced
  names: {{kind: {kind}, listKind: {kind}List, plural: {plural}, singular: {singular}, \
             shortNames: [{short}], categories: [sluis]}}
  versions:
  - name: v1alpha1
    served: true
    storage: true
    subresources: {{status: {{}}}}
    schema:
      openAPIV3Schema:
        type: object
        required: [spec]
        properties:
          spec:
"
        );
        let is_spec = |kind_of: &str, path: &str| kind_of == kind && path == "spec";
        let spec = schema.sections.iter().position(|one| is_spec(&one.kind, &one.path));
        section(&schema, spec.unwrap_or_default(), 12, 0, None, &mut text);
        text.push_str(
            "          status: {type: object, x-kubernetes-preserve-unknown-fields: true}\n",
        );
    }
    text
}

/// Writes the fields of a section, `indent` deep. `also` is a name under which it may stand as well.
fn section(
    schema: &Schema,
    index: usize,
    indent: usize,
    depth: usize,
    also: Option<&str>,
    text: &mut String,
) {
    let pad = " ".repeat(indent);
    if depth > DEPTH_MAX {
        let _ = writeln!(text, "{pad}x-kubernetes-preserve-unknown-fields: true");
        return;
    }
    let _ = writeln!(text, "{pad}type: object\n{pad}properties:");
    let section_here = &schema.sections[index];
    if let Some(name) = also {
        let _ = writeln!(text, "{pad}  {name}:");
        section(schema, index, indent + 4, depth + 1, None, text);
    }
    for field in &section_here.fields {
        let name = field.name;
        let _ = write!(text, "{pad}  {name}:");
        match &field.shape {
            // Short for an entry alone, or a map.
            Shape::Section(_) if name == "key" => {
                text.push_str(" {x-kubernetes-preserve-unknown-fields: true}\n");
            }
            Shape::Section(inner) => {
                text.push('\n');
                match SECTION_LISTS.iter().find(|(list, _)| *list == name) {
                    Some((_, also)) => {
                        let _ = writeln!(text, "{pad}    type: array\n{pad}    items:");
                        let also = Some(*also).filter(|also| !also.is_empty());
                        section(schema, *inner, indent + 6, depth + 1, also, text);
                    }
                    None => section(schema, *inner, indent + 4, depth + 1, None, text),
                }
            }
            Shape::Names(names) if LISTS.contains(&name) => {
                let names = names.join(", ");
                let _ =
                    writeln!(text, " {{type: array, items: {{type: string, enum: [{names}]}}}}");
            }
            Shape::Names(names) => {
                let _ = writeln!(text, " {{type: string, enum: [{}]}}", names.join(", "));
            }
            Shape::Plain => {
                let _ = writeln!(text, " {}", plain(&section_here.path, name));
            }
        }
    }
}

/// The type of a field that is no section.
fn plain(section: &str, name: &str) -> &'static str {
    const LIST: &str = "{type: array, items: {type: string}}";
    if LIST_SECTIONS.contains(&section) || LISTS.contains(&name) {
        return LIST;
    }
    match name {
        "values" | "notValues" => LIST,
        "perIdentityPerMinute" => "{type: integer, minimum: 1}",
        _ if BOOLEANS.contains(&name) => "{type: boolean}",
        _ if SIZES.contains(&name) => "{x-kubernetes-int-or-string: true}",
        _ if MAPS.contains(&name) => "{type: object, additionalProperties: {type: string}}",
        _ => "{type: string}",
    }
}
