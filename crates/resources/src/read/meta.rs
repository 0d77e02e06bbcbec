//! Reads `metadata`.

use std::collections::BTreeMap;

use sluis_nouns::{CAPTURE_ANNOTATIONS, Labels, ObjectName, SourceRef, is_dns_label, is_dns_name};

use super::forms::{checked, read_fields};
use crate::resource::{Kind, Meta};
use crate::value::{Fields, nearest};

/// `metadata` before the kind is added.
pub(super) struct Metadata {
    namespace: Option<String>,
    name: String,
    labels: Labels,
    annotations: BTreeMap<String, String>,
    created: Option<i64>,
}

impl Metadata {
    pub(super) fn into_meta(self, kind: Kind, at: SourceRef) -> Meta {
        let namespace = match kind {
            kind if kind.is_cluster_wide() => String::new(),
            _ => self.namespace.unwrap_or_else(|| "default".to_owned()),
        };
        let name = ObjectName::new(namespace, self.name);
        let Self { labels, annotations, created, .. } = self;
        Meta { kind, name, labels, annotations, created, at }
    }
}

read_fields!(Metadata => metadata);

/// What all annotations of our own begin with.
const OWN: &str = "sluis.dev/";

/// The annotation by which a policy only tells its verdict.
pub(super) const DRY_RUN: &str = "istio.io/dry-run";

/// The annotations that are read of a kind.
pub(super) fn known_annotations(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::WorkloadEntry => &[
            "sluis.dev/run",
            "sluis.dev/proxy",
            "sluis.dev/env",
            "sluis.dev/lua-path",
            "sluis.dev/workload-api",
            "sluis.dev/hide",
            "sluis.dev/read-only",
            "sluis.dev/writable",
            "sluis.dev/unix-sockets",
            "sluis.dev/clean-env",
            "sluis.dev/ca-certificates",
            "sluis.dev/netns",
            "proxy.istio.io/config",
        ],
        Kind::AuthorizationPolicy => &[DRY_RUN],
        Kind::EnvoyFilter => &["sluis.dev/lua-globals"],
        Kind::Gateway => &["sluis.dev/inner-tls"],
        Kind::DestinationRule => &["sluis.dev/verify-name"],
        // For files that Kubernetes mounts for all to read.
        Kind::Credential => &["sluis.dev/readable-by-others"],
        // When a secret ends (RFC 3339), and a label for its version.
        Kind::Secret => &["sluis.dev/not-after", "sluis.dev/version"],
        Kind::Service => &["networking.istio.io/exportTo"],
        _ => &[],
    }
}

/// Names annotations that look as if they did something. One of our own that is misspelled may have
/// hidden a secret, so it is an error.
pub(super) fn check_annotations(kind: Kind, fields: &mut Fields<'_, '_>) {
    let known = known_annotations(kind);
    let annotations = fields.get("metadata").and_then(|value| {
        let entry = value.entries()?.into_iter().find(|(key, _)| *key == "annotations");
        entry.map(|(_, value)| value).filter(|value| !value.is_null())
    });
    for (key, value) in annotations.and_then(|value| value.entries()).unwrap_or_default() {
        let domain = key.split_once('/').map_or("", |(domain, _)| domain);
        let says_capture =
            matches!(kind, Kind::Pod | Kind::WorkloadEntry) && CAPTURE_ANNOTATIONS.contains(&key);
        if known.contains(&key) || says_capture {
            continue;
        }
        if key == DRY_RUN {
            value.fault::<()>("only an AuthorizationPolicy has this annotation");
        } else if key.starts_with(OWN) {
            let message = format!("a {kind} has no such annotation");
            match nearest(key, known) {
                Some(name) => value.fault_help(message, &format!("did you mean {name:?}?")),
                None => value.fault::<()>(message),
            };
        } else if domain == "istio.io" || domain.ends_with(".istio.io") {
            value.warn("this annotation has no effect here");
        }
    }
}

/// Istio: the name of a Gateway is a label, as VirtualServices name it before a dot.
pub(super) fn check_name(kind: Kind, fields: &mut Fields<'_, '_>) {
    if kind == Kind::Gateway
        && let Some(value) = fields.get("metadata").and_then(|value| {
            value.entries()?.into_iter().find(|(key, _)| *key == "name").map(|(_, value)| value)
        })
        && value.read::<String>().is_some_and(|name| is_dns_name(&name) && !is_dns_label(&name))
    {
        value.fault::<()>("the name of a Gateway must be a DNS label, without dots");
    }
}

fn metadata(fields: &mut Fields<'_, '_>) -> Option<Metadata> {
    let name = match fields.get("name") {
        Some(value) => checked(&value, |text| {
            is_dns_name(text)
                .then(|| text.to_owned())
                .ok_or_else(|| format!("{text:?} is not a name: it must be a DNS name"))
        }),
        None => {
            fields.missing("name");
            None
        }
    };
    let namespace = fields.get("namespace").and_then(|value| {
        checked(&value, |text| {
            is_dns_label(text)
                .then(|| text.to_owned())
                .ok_or_else(|| format!("{text:?} is not a namespace: it must be a DNS label"))
        })
    });
    let created = fields.get("creationTimestamp").and_then(|value| {
        checked(&value, |text| {
            seconds(text)
                .ok_or_else(|| format!("{text:?} is not a time such as 2024-01-31T12:00:00Z"))
        })
    });
    let labels = fields.or_default("labels");
    let annotations = fields.or_default("annotations");
    fields.ignore(&[
        "uid",
        "resourceVersion",
        "generation",
        "managedFields",
        "ownerReferences",
        "finalizers",
        "selfLink",
        "generateName",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ]);
    Some(Metadata { namespace, name: name?, labels, annotations, created })
}

/// Reads an RFC 3339 time in UTC, as Kubernetes writes it, into seconds since 1970.
fn seconds(text: &str) -> Option<i64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let numbers = |text: &str, separator: char| -> Option<[i64; 3]> {
        let parts: Option<Vec<i64>> =
            text.split(separator).map(|part| part.parse::<u32>().ok().map(i64::from)).collect();
        parts?.try_into().ok()
    };
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(time.split('.').next()?, ':')?;
    let valid = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (1..=9999).contains(&year)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !valid {
        return None;
    }
    // Days since 1970 in the proleptic Gregorian calendar; years start in March, so that the leap
    // day comes last. https://howardhinnant.github.io/date_algorithms.html#days_from_civil
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn creation_times_are_seconds_since_1970() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T12:00:00Z", Some(951_825_600)),
            ("2024-01-31T23:59:59.5Z", Some(1_706_745_599)),
            ("2024-13-01T00:00:00Z", None),
            ("2024-01-01", None),
            ("yesterday", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }
}
