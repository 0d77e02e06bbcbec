//! Reads ReferenceGrant and BackendTLSPolicy.

use sluis_nouns::SourceRef;

use super::super::forms::{checked, read_fields};
use super::super::shared::some_of;
use crate::kinds::gateway_api::{
    BackendTlsPolicy, GrantFrom, GrantTo, ObjectReference, PolicyTargetRef, ReferenceGrant,
};
use crate::value::Fields;

read_fields! {
    ReferenceGrant => grant,
    GrantFrom => grant_from,
    GrantTo => grant_to,
    BackendTlsPolicy => backend_tls,
    PolicyTargetRef => target,
    Validation => validation,
    AltName => alt_name,
}

fn grant(fields: &mut Fields<'_, '_>) -> Option<ReferenceGrant> {
    let (from, to) = (some_of(fields, "from"), some_of(fields, "to"));
    Some(ReferenceGrant { from: from?, to: to? })
}

fn grant_from(fields: &mut Fields<'_, '_>) -> Option<GrantFrom> {
    let (group, kind) = (fields.req("group"), fields.req("kind"));
    let namespace = fields.req("namespace");
    Some(GrantFrom { group: group?, kind: kind?, namespace: namespace? })
}

fn grant_to(fields: &mut Fields<'_, '_>) -> Option<GrantTo> {
    let (group, kind) = (fields.req("group"), fields.req("kind"));
    Some(GrantTo { group: group?, kind: kind?, name: fields.opt("name") })
}

fn backend_tls(fields: &mut Fields<'_, '_>) -> Option<BackendTlsPolicy> {
    let targets = some_of(fields, "targetRefs");
    let validation: Option<Validation> = fields.req("validation");
    fields.without_effect(&["options"]);
    let validation = validation?;
    Some(BackendTlsPolicy {
        targets: targets?,
        at: validation.at,
        hostname: validation.hostname,
        authorities: validation.authorities,
        subject_alt_names: validation.subject_alt_names,
    })
}

fn target(fields: &mut Fields<'_, '_>) -> Option<PolicyTargetRef> {
    let (group, kind) = (fields.req("group"), fields.req("kind"));
    let name = fields.req("name");
    let section = fields.opt("sectionName");
    let at = fields.at();
    let object = ObjectReference { at, group, kind, name: name?, namespace: None };
    Some(PolicyTargetRef { object, section })
}

struct Validation {
    at: SourceRef,
    hostname: String,
    authorities: Vec<ObjectReference>,
    subject_alt_names: Vec<String>,
}

fn validation(fields: &mut Fields<'_, '_>) -> Option<Validation> {
    let hostname = fields.req("hostname");
    let authorities: Vec<ObjectReference> = fields.or_default("caCertificateRefs");
    let system = fields.get("wellKnownCACertificates").filter(crate::value::Value::is_set);
    let is_system = system.and_then(|value| {
        checked(&value, |text| match text {
            "System" => Ok(()),
            other => Err(format!("{other:?} is not known: System is")),
        })
    });
    if is_system.is_some() != authorities.is_empty() {
        fields.fault_at(
            "caCertificateRefs",
            "one of caCertificateRefs and wellKnownCACertificates is needed, and not both",
        );
    }
    let names: Vec<AltName> = fields.or_default("subjectAltNames");
    let subject_alt_names = names.into_iter().map(|AltName(name)| name).collect();
    Some(Validation { at: fields.at(), hostname: hostname?, authorities, subject_alt_names })
}

struct AltName(String);

fn alt_name(fields: &mut Fields<'_, '_>) -> Option<AltName> {
    let kind: Option<String> = fields.req("type");
    let (hostname, uri) = (fields.opt("hostname"), fields.opt("uri"));
    let (name, field) = match kind?.as_str() {
        "Hostname" => (hostname, "hostname"),
        "URI" => (uri, "uri"),
        other => {
            fields.fault_at("type", format!("{other:?} is none of Hostname, URI"));
            return None;
        }
    };
    if name.is_none() {
        fields.missing(field);
    }
    name.map(AltName)
}
