//! BackendTLSPolicies: the DestinationRules that they mean.
//!
//! In:    every policy.
//! Out:   a DestinationRule for each host of its targets; the status of each policy.
//! Never: lets a client speak to a target without the TLS that a policy asks for, if its roots are
//!        missing: the rule then names roots that are not there, and connections are refused.

use std::collections::BTreeSet;

use sluis_nouns::{HostPattern, ObjectName};
use sluis_resources::{
    BackendTlsPolicy, ClientTls, ClientTlsMode, DestinationRule, Kind, Meta, ParentRef,
    PolicyTargetRef, PortTrafficPolicy, Resource, Spec, TrafficPolicy,
};

use super::{
    Converted,
    gateways::made_meta,
    status::{ApiStatus, ParentStatus, Why, named, refused, unless},
    world::{World, holds_pem, service_host},
};

/// The annotation of a policy that is for somebody else.
const IGNORED: &str = "istio.io/ignore-policy-attachment";

pub(super) fn convert(world: &World<'_>, converted: &mut Converted) {
    let mut policies: Vec<(&Resource, &BackendTlsPolicy)> = Vec::new();
    for resource in world.resources.values() {
        if let Spec::BackendTlsPolicy(policy) = &resource.spec {
            policies.push((&**resource, policy));
        }
    }
    // Of two for one target the older counts, says the Gateway API.
    policies.sort_by_key(|(resource, _)| {
        (resource.meta.created.unwrap_or(0), resource.meta.name.clone())
    });
    let mut taken: BTreeSet<(String, String, String, Option<String>)> = BTreeSet::new();
    for (resource, policy) in policies {
        let meta = &resource.meta;
        let is_ignored =
            meta.annotations.get(IGNORED).is_some_and(|text| text.eq_ignore_ascii_case("true"));
        let roots = roots(world, meta, policy);
        let mut status = ApiStatus::default();
        for (index, target) in policy.targets.iter().enumerate() {
            let object = target.object.clone();
            let parent = ParentRef { object, section: target.section.clone(), port: None };
            if is_ignored {
                let why = Why::new("IgnoredByIstio", format!("annotation {IGNORED} says so"));
                let conditions = vec![refused("Accepted", &why)];
                status.parents.push(ParentStatus { parent, conditions });
                continue;
            }
            let kind = target.object.kind.clone().unwrap_or_default();
            let place = (meta.name.namespace.to_string(), kind, target.object.name.clone());
            let place = (place.0, place.1, place.2, target.section.clone());
            let found = hosts(world, meta, target);
            let mut why = found.as_ref().err().cloned();
            if why.is_none() && !taken.insert(place) {
                why = Some(Why::new("Conflicted", "an older policy has the same target"));
            }
            if let (None, Ok((hosts, port))) = (&why, found) {
                let name = format!("{}~{index}", meta.name.name);
                let made = hosts.iter().enumerate().map(|(nth, host)| {
                    let name =
                        ObjectName::new(meta.name.namespace.clone(), format!("{name}~{nth}"));
                    rule(meta, policy, &roots, host, port, &name)
                });
                converted.resources.extend(made.map(Into::into));
            }
            let of_roots = roots.as_ref().err();
            let no_roots =
                of_roots.map(|why| Why::new("NoValidCACertificate", why.message.clone()));
            let conditions = vec![
                unless("Accepted", "the policy is valid", why.as_ref().or(no_roots.as_ref())),
                unless("ResolvedRefs", "all references are resolved", of_roots),
            ];
            status.parents.push(ParentStatus { parent, conditions });
        }
        converted.statuses.insert(resource.key(), status);
    }
}

/// The hosts of a target, and its port where one is named.
fn hosts(
    world: &World<'_>,
    meta: &Meta,
    target: &PolicyTargetRef,
) -> Result<(Vec<HostPattern>, Option<u16>), Why> {
    let missing = |message: String| Why::new("TargetNotFound", message);
    let (namespace, name) = (&*meta.name.namespace, target.object.name.as_str());
    let group = target.object.group.as_deref().unwrap_or_default();
    let kind = target.object.kind.as_deref().unwrap_or_default();
    let (hosts, ports): (Vec<HostPattern>, Vec<(String, u16)>) = match (group, kind) {
        ("", "Service") => {
            let found = world.service(namespace, name);
            let (_, service) =
                found.ok_or_else(|| missing(format!("there is no Service {namespace}/{name}")))?;
            let ports = service.ports.iter().map(|port| (port.name.clone(), port.port));
            (service_host(namespace, name).into_iter().collect(), ports.collect())
        }
        ("networking.istio.io", "ServiceEntry") => {
            let entry = world
                .entry(namespace, name)
                .ok_or_else(|| missing(format!("there is no ServiceEntry {namespace}/{name}")))?;
            let ports = entry.ports.iter().map(|port| (port.name.clone(), port.number));
            (entry.hosts.clone(), ports.collect())
        }
        _ => return Err(missing(format!("{group}/{kind} is not supported as a target"))),
    };
    let Some(section) = target.section.as_deref().filter(|section| !section.is_empty()) else {
        return Ok((hosts, None));
    };
    match ports.iter().find(|(name, _)| name == section) {
        Some((_, port)) => Ok((hosts, Some(*port))),
        None => Err(missing(format!("{kind} {namespace}/{name} has no port {section}"))),
    }
}

/// The credential with the roots; `None` means the operating system's.
fn roots(world: &World<'_>, meta: &Meta, policy: &BackendTlsPolicy) -> Result<Option<String>, Why> {
    // As in Istio only the first counts.
    let Some(reference) = policy.authorities.first() else { return Ok(None) };
    if !matches!(reference.group.as_deref(), None | Some(""))
        || reference.kind.as_deref() != Some("ConfigMap")
    {
        let message = format!("{}: only a ConfigMap is supported", named(reference));
        return Err(Why::new("InvalidKind", message));
    }
    let namespace = &*meta.name.namespace;
    let found = world.data(Kind::ConfigMap, namespace, &reference.name, &["ca.crt", "cacert"]);
    if !found.is_some_and(|roots| holds_pem(&roots, "CERTIFICATE")) {
        let message = format!("{}: it holds no ca.crt, or is not there", named(reference));
        return Err(Why::new("InvalidCACertificateRef", message));
    }
    Ok(Some(format!("configmap://{namespace}/{}", reference.name)))
}

fn rule(
    meta: &Meta,
    policy: &BackendTlsPolicy,
    roots: &Result<Option<String>, Why>,
    host: &HostPattern,
    port: Option<u16>,
    name: &ObjectName,
) -> Resource {
    let credential_name = match roots {
        Ok(name) => name.clone(),
        // Nothing is there: what needs it is refused.
        Err(_) => Some(format!("configmap://{}/~", meta.name.namespace)),
    };
    let tls = ClientTls {
        at: policy.at.clone(),
        mode: ClientTlsMode::Simple,
        credential_name,
        subject_alt_names: policy.subject_alt_names.clone(),
        sni: Some(policy.hostname.clone()),
        ..ClientTls::default()
    };
    let mut traffic_policy = TrafficPolicy { at: policy.at.clone(), ..TrafficPolicy::default() };
    match port {
        None => traffic_policy.tls = Some(tls),
        Some(port) => traffic_policy.port_level.push(PortTrafficPolicy {
            at: policy.at.clone(),
            port,
            load_balancer: None,
            connection_pool: None,
            outlier_detection: None,
            tls: Some(tls),
        }),
    }
    let spec = DestinationRule {
        host: host.clone(),
        export_to: Vec::new(),
        workload_selector: None,
        traffic_policy: Some(traffic_policy),
        subsets: Vec::new(),
    };
    let meta = made_meta(meta, Kind::DestinationRule, name);
    Resource { meta, spec: Spec::DestinationRule(spec) }
}
