//! Reads CredentialGrant.

use sluis_nouns::{ObjectName, is_dns_label, is_dns_name};

use super::forms::{checked, read_fields};
use super::virtual_service::entry;
use crate::kinds::authorization::{Operation, Source};
use crate::kinds::credential_grant::CredentialGrant;
use crate::value::{Fields, Read, Value};

read_fields! {
    CredentialGrant => grant,
    Limits => limits,
}

/// Most entries of `from` and `to`, as Istio has it for rules.
const ENTRIES_MAX: usize = 512;

fn grant(fields: &mut Fields<'_, '_>) -> Option<CredentialGrant> {
    let written = fields.get("credential");
    let credential = match &written {
        Some(value) => checked(value, |text| credential_name(&value.doc.namespace, text)),
        None => {
            fields.missing("credential");
            None
        }
    };
    let from: Vec<Unwrapped<Source>> = fields.or_default("from");
    let to: Vec<Unwrapped<Operation>> = fields.or_default("to");
    for name in ["from", "to"] {
        if let Some(value) = fields.get(name)
            && value.items().is_some_and(|items| items.len() > ENTRIES_MAX)
        {
            value.fault::<()>(format!("there are more than {ENTRIES_MAX} entries"));
        }
    }
    if from.is_empty() && !fields.value().is_described() {
        fields
            .value()
            .warn("without `from` everybody who reaches the gateway may have the credential used");
    }
    let when = fields.or_default("when");
    let Limits(per_identity_per_minute) = fields.or_default("limits");
    let dry_run = fields.or_default("dryRun");
    Some(CredentialGrant {
        credential_at: written.map(|value| value.at())?,
        credential: credential?,
        from: from.into_iter().map(|Unwrapped(source)| source).collect(),
        to: to.into_iter().map(|Unwrapped(operation)| operation).collect(),
        when,
        per_identity_per_minute,
        dry_run,
    })
}

fn credential_name(own: &str, text: &str) -> Result<ObjectName, String> {
    let (namespace, name) = text.split_once('/').unwrap_or((own, text));
    if !is_dns_label(namespace) || !is_dns_name(name) {
        return Err(format!("{text:?} has neither the form name nor namespace/name"));
    }
    Ok(ObjectName::new(namespace, name))
}

/// A source or operation, which may stand under its own name, as in an AuthorizationPolicy.
struct Unwrapped<T>(T);

fn unwrap<T: Read>(value: &Value<'_>, name: &'static str) -> Option<Unwrapped<T>> {
    if entry(value, name).is_some() && !value.is_described() {
        return value.fields(|fields| fields.req(name)).map(Unwrapped);
    }
    value.read().map(Unwrapped)
}

impl Read for Unwrapped<Source> {
    fn read(value: &Value<'_>) -> Option<Self> {
        unwrap(value, "source")
    }
}

impl Read for Unwrapped<Operation> {
    fn read(value: &Value<'_>) -> Option<Self> {
        unwrap(value, "operation")
    }
}

#[derive(Default)]
struct Limits(u32);

fn limits(fields: &mut Fields<'_, '_>) -> Option<Limits> {
    let value = fields.get("perIdentityPerMinute");
    let count: Option<u32> = fields.opt("perIdentityPerMinute");
    if count == Some(0)
        && let Some(value) = value
    {
        value.fault_help::<()>(
            "no use at all would be possible",
            "leave it out for any number; delete the grant to take it back",
        );
    }
    Some(Limits(count.unwrap_or_default()))
}
