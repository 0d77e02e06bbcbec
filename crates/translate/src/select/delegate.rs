//! Delegation: rules that hand over to the rules of another VirtualService.
//!
//! In:    the `http` list of a VirtualService with hosts (the root).
//! Out:   the list with each delegating rule replaced by those of its delegate, merged with it.
//! Never: follows more than one step, or widens what the root's match claims.
//!
//! Istio's rules: a delegate has no hosts and must be exported to the root's namespace. Each of its
//! matches must lie within one of the root's; a rule that does not is dropped. What the delegate does
//! not say is taken from the root.

use std::borrow::Cow;

use sluis_model::{Owned, SERVICE_DOMAIN, is_exported};
use sluis_resources::{
    Destination, HttpAction, HttpMatch, HttpRoute, Key, Kind, Meta, Spec, StringMatch,
    VirtualService,
};

use super::Selection;
use crate::Fault;

/// The rules of a VirtualService, with those of its delegates in place.
pub(super) fn expand<'a>(
    selection: &mut Selection<'_>,
    owned: &'a Owned<VirtualService>,
) -> Vec<Cow<'a, HttpRoute>> {
    let mut rules = Vec::new();
    for root in &owned.spec().http {
        let HttpAction::Delegate(name) = &root.action else {
            rules.push(Cow::Borrowed(root));
            continue;
        };
        let key = Key { kind: Kind::VirtualService, name: name.clone() };
        let resource = selection.snapshot.get(&key).cloned();
        let found = resource.as_deref().and_then(|resource| match &resource.spec {
            Spec::VirtualService(delegate) => Some((&resource.meta, delegate)),
            _ => None,
        });
        let found = match found {
            Some((meta, delegate)) if is_meant(selection, owned.meta(), meta, delegate) => {
                Ok((meta, delegate))
            }
            Some((_, delegate)) if !delegate.hosts.is_empty() => Err("has hosts of its own"),
            Some(_) => Err("is not exported to this namespace"),
            None => Err("does not exist"),
        };
        match found {
            Ok((meta, delegate)) => {
                let merged = merged(selection, root, meta, delegate);
                rules.extend(merged.into_iter().map(Cow::Owned));
            }
            Err(why) => {
                let message = format!("the delegate {name} {why}: the rule is dropped");
                report(selection, owned.meta(), root, message);
            }
        }
    }
    rules
}

fn report(selection: &mut Selection<'_>, meta: &Meta, route: &HttpRoute, message: String) {
    selection.fault(meta, Fault::error(route.at.clone(), message).field("spec.http.delegate"));
}

fn is_meant(
    selection: &Selection<'_>,
    root: &Meta,
    meta: &Meta,
    delegate: &VirtualService,
) -> bool {
    let default = &selection.snapshot.mesh().default_virtual_service_export_to;
    let (owner, viewer) = (&meta.name.namespace, &root.name.namespace);
    delegate.hosts.is_empty() && is_exported(&delegate.export_to, default, owner, viewer)
}

/// The rules of a delegate, each merged with the rule that delegates to it.
fn merged(
    selection: &mut Selection<'_>,
    root: &HttpRoute,
    meta: &Meta,
    delegate: &VirtualService,
) -> Vec<HttpRoute> {
    let mut rules = Vec::new();
    for rule in &delegate.http {
        if matches!(rule.action, HttpAction::Delegate(_)) {
            let message = "a delegate cannot delegate: the rule is dropped";
            report(selection, meta, rule, message.to_owned());
            continue;
        }
        let Some(matches) = merge_matches(&root.matches, &rule.matches) else {
            let message = "a match lies outside of those of the rule that delegates: the rule is \
                           dropped";
            let fault = Fault::error(rule.at.clone(), message).field("spec.http.match");
            selection.fault(meta, fault);
            continue;
        };
        let mut rule = qualified(rule, meta);
        rule.matches = matches;
        inherit(&mut rule, root);
        rules.push(rule);
    }
    rules
}

/// A rule with its destinations in full: short names belong to the delegate's namespace.
fn qualified(rule: &HttpRoute, meta: &Meta) -> HttpRoute {
    let mut rule = rule.clone();
    let complete = |destination: &mut Destination| {
        destination.host = destination.host.qualified(&meta.name.namespace, SERVICE_DOMAIN);
    };
    if let HttpAction::Route(destinations) = &mut rule.action {
        destinations.iter_mut().for_each(|weighted| complete(&mut weighted.destination));
    }
    rule.mirrors.iter_mut().for_each(|mirror| complete(&mut mirror.destination));
    rule
}

/// Takes what a delegate's rule does not say from the rule that delegates.
fn inherit(rule: &mut HttpRoute, root: &HttpRoute) {
    rule.name = match (root.name.as_deref(), rule.name.as_deref()) {
        (Some(root), Some(own)) => Some(format!("{root}-{own}")),
        (root, own) => own.or(root).map(ToOwned::to_owned),
    };
    rule.rewrite = rule.rewrite.take().or_else(|| root.rewrite.clone());
    rule.timeout = rule.timeout.or(root.timeout);
    rule.retries = rule.retries.take().or_else(|| root.retries.clone());
    rule.fault = rule.fault.take().or_else(|| root.fault.clone());
    rule.cors = rule.cors.take().or_else(|| root.cors.clone());
    if rule.mirrors.is_empty() {
        rule.mirrors.clone_from(&root.mirrors);
    }
    if rule.headers.is_empty() {
        rule.headers.clone_from(&root.headers);
    }
}

/// Each match of the delegate within each of the root's that holds it; `None` when one is held by none.
fn merge_matches(root: &[HttpMatch], own: &[HttpMatch]) -> Option<Vec<HttpMatch>> {
    if root.is_empty() {
        return Some(own.to_vec());
    }
    if own.is_empty() {
        return Some(root.to_vec());
    }
    let mut merged = Vec::new();
    for own in own {
        let before = merged.len();
        let holding = root.iter().filter(|root| holds(root, own));
        merged.extend(holding.map(|root| merge_match(root, own)));
        if merged.len() == before {
            return None;
        }
    }
    Some(merged)
}

fn merge_match(root: &HttpMatch, own: &HttpMatch) -> HttpMatch {
    let mut merged = own.clone();
    merged.name = match (root.name.as_deref(), own.name.as_deref()) {
        (Some(root), Some(own)) => Some(format!("{root}-{own}")),
        (root, own) => own.or(root).map(ToOwned::to_owned),
    };
    for (own, root) in [
        (&mut merged.uri, &root.uri),
        (&mut merged.scheme, &root.scheme),
        (&mut merged.method, &root.method),
        (&mut merged.authority, &root.authority),
    ] {
        if own.is_none() {
            own.clone_from(root);
        }
    }
    for (own, root) in [
        (&mut merged.headers, &root.headers),
        (&mut merged.without_headers, &root.without_headers),
        (&mut merged.query_params, &root.query_params),
    ] {
        for (name, value) in root {
            own.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }
    for (name, value) in root.source_labels.iter() {
        if merged.source_labels.get(name).is_none() {
            merged.source_labels.insert(name.clone(), value.clone());
        }
    }
    merged.port = merged.port.or(root.port);
    merged.source_namespace = merged.source_namespace.or_else(|| root.source_namespace.clone());
    merged.stat_prefix = merged.stat_prefix.or_else(|| root.stat_prefix.clone());
    if merged.gateways.is_empty() {
        merged.gateways.clone_from(&root.gateways);
    }
    merged
}

/// Whether a match of the root and one of its delegate can hold together, as Istio judges it.
fn holds(root: &HttpMatch, own: &HttpMatch) -> bool {
    let texts = [
        (&root.uri, &own.uri),
        (&root.scheme, &own.scheme),
        (&root.method, &own.method),
        (&root.authority, &own.authority),
    ];
    let maps = [
        (&root.headers, &own.headers),
        (&root.without_headers, &own.without_headers),
        (&root.query_params, &own.query_params),
    ];
    let namespace = root.source_namespace.as_ref();
    texts.into_iter().all(|(root, own)| text_holds(root.as_ref(), own.as_ref()))
        && maps.into_iter().all(|(root, own)| {
            own.iter().all(|(name, own)| {
                let root = root.get(name).and_then(Option::as_ref);
                text_holds(root, own.as_ref())
            })
        })
        && root.ignore_uri_case == own.ignore_uri_case
        && (root.port.is_none() || own.port.is_none() || root.port == own.port)
        && namespace.is_none_or(|namespace| own.source_namespace.as_ref() == Some(namespace))
        && own
            .source_labels
            .iter()
            .all(|(name, own)| root.source_labels.get(name).is_none_or(|root| root == own))
        && (root.gateways.is_empty() || own.gateways.iter().all(|own| root.gateways.contains(own)))
}

/// Whether every text of the delegate's match is one of the root's; expressions are not compared.
fn text_holds(root: Option<&StringMatch>, own: Option<&StringMatch>) -> bool {
    match (root, own) {
        (None, _) | (_, None) => true,
        (Some(StringMatch::Exact(root)), Some(StringMatch::Exact(own))) => root == own,
        (
            Some(StringMatch::Prefix(root)),
            Some(StringMatch::Exact(own) | StringMatch::Prefix(own)),
        ) => own.starts_with(root.as_str()),
        _ => false,
    }
}
