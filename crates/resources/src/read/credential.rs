//! Reads Credential. What would leave a secret less guarded than it looks is refused here.

mod inject;
mod source;
mod template;

use std::time::Duration;

use sluis_nouns::{HostPattern, is_dns_label};

use super::forms::{checked, read_fields, read_names};
use super::shared::some_of;
use crate::kinds::credential::{Credential, CredentialGuard, Injection, Rotation};
use crate::kinds::credential_source::SecretSource;
use crate::resource::Meta;
use crate::value::{Fields, Read, Value};

read_fields! {
    Spec => spec,
    Rotation => rotation,
    CredentialGuard => guard,
}

read_names! {
    OnFailure {
        "deny" => OnFailure::Deny,
        "allowWithout" => OnFailure::AllowWithout,
    }
    Scheme {
        "https" => Scheme,
    }
}

/// Most bytes of a response that are searched.
const SCAN_BYTES_MAX: u64 = 1 << 20;

/// Longest that two versions are kept side by side.
const GRACE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// Fields that belong to the connection or to the message's framing, and `host`, which belongs to
/// routing: no credential is carried there (RFC 9110 §7.6.1, RFC 9112 §6).
const NOT_FOR_SECRETS: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];

/// What a `Credential` says, before it is known where its Secret is by default.
struct Spec(Credential);

pub(super) fn credential(fields: &mut Fields<'_, '_>, meta: Option<&Meta>) -> Option<Credential> {
    let Spec(mut credential) = fields.req("spec")?;
    if let SecretSource::SecretRef(source) = &mut credential.source
        && source.name.is_empty()
    {
        source.name = meta?.name.name.to_string();
    }
    Some(credential)
}

fn spec(fields: &mut Fields<'_, '_>) -> Option<Spec> {
    let source: Option<SecretSource> = match fields.has("source") {
        true => fields.opt("source"),
        false => Some(source::default()),
    };
    let rotation = fields.or_default("rotation");
    let injection: Option<Injection> = fields.req("inject");
    let guard: Option<CredentialGuard> = fields.req("guard");
    let allow_grants_from = fields.get("allowGrantsFrom").map(|value| namespaces(&value));
    if let (Some(source), Some(injection)) = (&source, &injection) {
        check_entries(fields, source, injection);
    }
    Some(Spec(Credential {
        source: source?,
        rotation,
        injection: injection?,
        guard: guard?,
        allow_grants_from: allow_grants_from.unwrap_or_default(),
    }))
}

/// Sees that what is injected is among what the source is said to have.
fn check_entries(fields: &mut Fields<'_, '_>, source: &SecretSource, injection: &Injection) {
    let Some(there) = source.entries() else { return };
    let missing: Vec<&str> =
        injection.entries().into_iter().filter(|entry| !there.contains(entry)).collect();
    if let Some(value) = fields.get("source").filter(|_| !missing.is_empty()) {
        let message = format!("the injection needs {}, which is not here", missing.join(", "));
        let help = format!("here are {}", there.join(", "));
        value.fault_help::<()>(message, &help);
    }
}

fn namespaces(value: &Value<'_>) -> Vec<String> {
    let name = |value: Value<'_>| {
        checked(&value, |text| {
            let is_name = is_dns_label(text);
            is_name.then(|| text.to_owned()).ok_or_else(|| {
                format!("{text:?} is not a namespace: each is named, without wildcards")
            })
        })
    };
    value.items().unwrap_or_default().into_iter().filter_map(name).collect()
}

fn rotation(fields: &mut Fields<'_, '_>) -> Option<Rotation> {
    let default = Rotation::default();
    let grace: Option<crate::value::OpenDuration> = fields.opt("grace");
    let grace = grace.map_or(default.grace, |grace| grace.0);
    if grace > GRACE_MAX
        && let Some(value) = fields.get("grace")
    {
        value.fault_help::<()>(
            "an old version would be taken for longer than a week",
            "the grace is for requests on their way and servers that learn of a version late",
        );
    }
    let refresh = fields.opt("refresh").unwrap_or(default.refresh);
    let alert_before = fields.opt("alertBefore").unwrap_or(default.alert_before);
    let max_stale = fields.opt("maxStale").unwrap_or(default.max_stale);
    Some(Rotation { grace, refresh, alert_before, max_stale })
}

/// `onFailure`.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum OnFailure {
    #[default]
    Deny,
    AllowWithout,
}

/// One of `schemes`; there is one.
#[derive(Clone, Copy)]
struct Scheme;

fn guard(fields: &mut Fields<'_, '_>) -> Option<CredentialGuard> {
    let at = fields.at();
    let hosts: Option<Vec<GuardHost>> = some_of(fields, "hosts");
    // Credentials never go over plain text; who writes it down is right.
    let _: Vec<Scheme> = fields.or_default("schemes");
    let strip_request = header_names(fields, "stripFromRequest");
    let strip_response = header_names(fields, "stripFromResponse");
    let scan_response_bytes = fields.opt("scanResponse").map_or(0, |Bytes(count)| count);
    if scan_response_bytes > SCAN_BYTES_MAX
        && let Some(value) = fields.get("scanResponse")
    {
        value.fault::<()>("more than 1Mi of a response cannot be searched");
    }
    let on_failure: OnFailure = fields.or_default("onFailure");
    if on_failure == OnFailure::AllowWithout
        && let Some(value) = fields.get("onFailure")
    {
        value.warn("requests go without the credential when it cannot be had");
    }
    Some(CredentialGuard {
        at,
        hosts: hosts?.into_iter().map(|GuardHost(host)| host).collect(),
        strip_request,
        strip_response,
        scan_response_bytes,
        allow_without: on_failure == OnFailure::AllowWithout,
    })
}

/// One of `hosts`.
struct GuardHost(HostPattern);

impl Read for GuardHost {
    fn read(value: &Value<'_>) -> Option<Self> {
        let host: HostPattern = value.read()?;
        if value.is_described() {
            return Some(Self(host));
        }
        let Some(suffix) = host.suffix() else { return Some(Self(host)) };
        match suffix.strip_prefix('.') {
            None => value.fault_help(
                format!("\"{host}\" is too wide for a secret"),
                "name the host, or *.example.com for all below a domain of yours",
            ),
            Some(domain) if !domain.contains('.') => value.fault_help(
                format!("\"{host}\" is everything below a top-level domain"),
                "name the host, or *.example.com for all below a domain of yours",
            ),
            Some(_) => Some(Self(host)),
        }
    }
}

fn header_names(fields: &mut Fields<'_, '_>, name: &'static str) -> Vec<String> {
    let names: Vec<HeaderName> = fields.or_default(name);
    names.into_iter().map(|HeaderName(name)| name).collect()
}

/// The name of a field, lower case.
#[derive(Clone)]
struct HeaderName(String);

impl Read for HeaderName {
    fn read(value: &Value<'_>) -> Option<Self> {
        checked(value, |text| {
            let name = text.to_ascii_lowercase();
            // RFC 9110 §5.6.2: token.
            let fits = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
            if name.is_empty() || !name.bytes().all(fits) {
                return Err(format!("{text:?} is not the name of a header"));
            }
            Ok(Self(name))
        })
    }
}

/// The name of a field that may carry a credential.
fn secret_header(fields: &mut Fields<'_, '_>, name: &'static str) -> Option<String> {
    let value = fields.get(name)?;
    let HeaderName(header) = value.read()?;
    if NOT_FOR_SECRETS.contains(&header.as_str()) {
        return value.fault(format!("{header} belongs to the connection or the message itself"));
    }
    Some(header)
}

/// The name of an entry of a secret, as Kubernetes has them.
#[derive(Clone)]
struct Entry(String);

impl Read for Entry {
    fn read(value: &Value<'_>) -> Option<Self> {
        checked(value, |text| {
            if value.is_described() || is_entry(text) {
                Ok(Self(text.to_owned()))
            } else {
                Err(format!(
                    "{text:?} is not the name of an entry: letters, digits, '-', '_' and '.' are"
                ))
            }
        })
    }
}

fn is_entry(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    !text.is_empty() && text.len() <= 253 && text.bytes().all(fits)
}

/// The name of an entry; `default` where none is written.
fn entry_or(fields: &mut Fields<'_, '_>, name: &'static str, default: &str) -> String {
    fields.opt(name).map_or_else(|| default.to_owned(), |Entry(entry)| entry)
}

/// A number of bytes: `65536`, `64Ki`, `1Mi`.
struct Bytes(u64);

impl Read for Bytes {
    fn read(value: &Value<'_>) -> Option<Self> {
        if value.is_described() {
            return Some(Self(1));
        }
        if !value.is_text() {
            return value.read().map(Self);
        }
        checked(value, |text| {
            let units = [("Ki", 10), ("Mi", 20), ("Gi", 30)];
            let found = units.iter().find_map(|(unit, bits)| {
                let count: u64 = text.strip_suffix(unit)?.parse().ok()?;
                count.checked_mul(1 << bits)
            });
            found.map(Self).ok_or_else(|| format!("{text:?} is not a size such as 65536 or 1Mi"))
        })
    }
}

/// Notes a fault unless exactly one of the fields is written.
fn exactly_one(fields: &mut Fields<'_, '_>, names: &[&'static str]) {
    fields.at_most_one(names);
    if !names.iter().any(|name| fields.has(name)) {
        fields.value().fault_help::<()>(
            "nothing is chosen here",
            &format!("write one of {}", names.join(", ")),
        );
    }
}
