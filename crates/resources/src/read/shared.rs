//! Reads what several kinds have in common.

use sluis_nouns::{HostPattern, Labels, is_dns_label, is_dns_name};

use super::forms::{checked, read_fields, read_names};
use crate::kinds::shared::{ExportTo, Protocol, TlsVersion};
use crate::value::{Fields, Read, Value};

impl Read for ExportTo {
    fn read(value: &Value<'_>) -> Option<Self> {
        // An unquoted `~` is YAML's null; in a list of namespaces only the character is meant.
        if value.is_null() {
            return Some(Self::None);
        }
        checked(value, |text| match text {
            "*" => Ok(Self::All),
            "." => Ok(Self::Same),
            "~" => Ok(Self::None),
            name if is_dns_label(name) => Ok(Self::Namespace(name.to_owned())),
            other => Err(format!("{other:?} is neither a namespace nor one of *, . and ~")),
        })
    }
}

impl Read for Protocol {
    fn read(value: &Value<'_>) -> Option<Self> {
        checked(value, |text| {
            Self::from_name(text).ok_or_else(|| {
                format!(
                    "{text:?} is not a protocol: HTTP, HTTPS, HTTP2, GRPC, GRPC-WEB, MONGO, TCP \
                     and TLS are"
                )
            })
        })
    }
}

read_names! {
    TlsVersion {
        "TLS_AUTO" => TlsVersion::Auto,
        "TLSV1_0" => TlsVersion::V1_0,
        "TLSV1_1" => TlsVersion::V1_1,
        "TLSV1_2" => TlsVersion::V1_2,
        "TLSV1_3" => TlsVersion::V1_3,
    }
}

/// Longest value of a label, as Kubernetes has it.
const LABEL_BYTES_MAX: usize = 63;

/// `workloadSelector: {labels: …}`.
pub(super) struct WorkloadSelector(pub(super) Labels);

/// `workloadSelector: {matchLabels: …}`.
pub(super) struct LabelSelector(pub(super) Labels);

read_fields! {
    WorkloadSelector => workload_selector,
    LabelSelector => label_selector,
}

fn workload_selector(fields: &mut Fields<'_, '_>) -> Option<WorkloadSelector> {
    Some(WorkloadSelector(selector_labels(fields.get("labels").as_ref())))
}

fn label_selector(fields: &mut Fields<'_, '_>) -> Option<LabelSelector> {
    Some(LabelSelector(selector_labels(fields.get("matchLabels").as_ref())))
}

/// Reads the labels of a selector, in which wildcards would be taken for what they are not.
fn selector_labels(value: Option<&Value<'_>>) -> Labels {
    let Some(value) = value else { return Labels::new() };
    for (key, label) in value.entries().unwrap_or_default() {
        let wild = |text: &str| text.contains('*');
        if key.is_empty() {
            label.fault::<()>("a label's key must not be empty");
        } else if label.read::<String>().is_some_and(|text| text.len() > LABEL_BYTES_MAX) {
            label.fault::<()>(format!("this is longer than {LABEL_BYTES_MAX} bytes"));
        } else if wild(key) || label.read::<String>().is_some_and(|text| wild(&text)) {
            label.fault::<()>("wildcards are not supported in a selector");
        }
    }
    value.read().unwrap_or_default()
}

/// Refuses `*`, where one service is meant. Another wildcard may be the host of a ServiceEntry.
pub(super) fn service_host(fields: &mut Fields<'_, '_>, name: &'static str) -> Option<HostPattern> {
    let host: Option<HostPattern> = fields.req(name);
    if host.as_ref().is_some_and(HostPattern::is_any)
        && let Some(value) = fields.get(name)
    {
        return value.fault("\"*\" does not name one service");
    }
    host
}

/// Which kind of object is exported.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Exporter {
    /// A service, which may be exported to nobody.
    Service,
    /// A VirtualService or DestinationRule.
    Rule,
    /// A DestinationRule with a selector, which stays in its namespace.
    Selected,
}

/// Reads `exportTo` and holds it to Istio's rules.
pub(super) fn export_to(fields: &mut Fields<'_, '_>, exporter: Exporter) -> Vec<ExportTo> {
    let list: Vec<ExportTo> = fields.or_default("exportTo");
    let Some(value) = fields.get("exportTo") else { return list };
    let own = value.doc.namespace.as_str();
    let resolved = |to: &ExportTo| match to {
        ExportTo::Same => ExportTo::Namespace(own.to_owned()),
        other => other.clone(),
    };
    let mut seen = std::collections::BTreeSet::new();
    for (to, item) in list.iter().zip(value.items().unwrap_or_default()) {
        if !seen.insert(resolved(to)) {
            item.fault::<()>("this namespace is there twice");
        }
        if *to == ExportTo::None && exporter != Exporter::Service {
            item.fault::<()>("~ (nobody) is possible only for services");
        }
    }
    if list.len() > 1 {
        if list.contains(&ExportTo::All) {
            value.fault::<()>("* (all) cannot be beside other namespaces");
        }
        if list.contains(&ExportTo::None) {
            value.fault::<()>("~ (nobody) cannot be beside namespaces");
        }
    }
    let stays = list.iter().all(|to| resolved(to) == resolved(&ExportTo::Same));
    if exporter == Exporter::Selected && !stays {
        value.fault::<()>("a rule with a workloadSelector stays in its own namespace");
    }
    list
}

/// Checks labels as Kubernetes does: a key is `name` or `dns.prefix/name`.
pub(super) fn check_labels(value: &Value<'_>) {
    let word = |text: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        let edge =
            |text: &str| !text.starts_with(['-', '_', '.']) && !text.ends_with(['-', '_', '.']);
        text.bytes().all(inner) && edge(text)
    };
    for (key, value) in value.entries().unwrap_or_default() {
        let (prefix, name) = key.split_once('/').unwrap_or(("a", key));
        if !(is_dns_name(prefix) && !name.is_empty() && name.len() <= 63 && word(name)) {
            value.fault::<()>(format!("{key:?} is not the key of a label"));
        }
        if value.read::<String>().is_some_and(|text| !word(&text)) {
            value.fault::<()>("this is not the value of a label");
        }
    }
}

/// Reads a list that must not be empty.
pub(super) fn some_of<T: Read>(fields: &mut Fields<'_, '_>, name: &'static str) -> Option<Vec<T>> {
    let list: Option<Vec<T>> = fields.req(name);
    if list.as_ref().is_some_and(Vec::is_empty)
        && let Some(value) = fields.get(name)
    {
        return value.fault("this list must not be empty");
    }
    list
}

/// Notes a fault at each item whose name was there before.
pub(super) fn unique<'a>(
    fields: &mut Fields<'_, '_>,
    list: &'static str,
    names: impl Iterator<Item = &'a str>,
    what: &str,
) {
    let Some(items) = fields.get(list).and_then(|value| value.items()) else { return };
    let mut seen = std::collections::BTreeSet::new();
    for (name, item) in names.zip(items) {
        if !seen.insert(name) {
            item.fault::<()>(format!("{what} {name:?} is used twice"));
        }
    }
}
