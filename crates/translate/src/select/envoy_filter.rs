//! The patches of EnvoyFilters that apply to a proxy, in order, in Envoy's terms of today.
//!
//! In:    the EnvoyFilters of the proxy's namespace and the root namespace that select it.
//! Out:   patches with v3 messages; a fault for each that is not carried out.
//! Never: drops a patch in silence, or puts a secret into a value.

mod modern;

use regex::Regex;
use sluis_model::Owned;
use sluis_resources::{
    ApplyTo as WrittenApplyTo, EnvoyFilter, FilterClass, ListenerMatch, ObjectMatch, Patch,
    PatchContext, PatchOperation, ProxyMatch, RouteActionMatch, RouteConfigurationMatch,
};

use self::modern::{Met, modernise};
use super::{Selection, lua};
use crate::{
    ApplyTo, Fault, FilterPlace, NodeFacts, Operation, PatchInput, PatchMatch, Role, RouteKind,
    Side,
};

/// Why a patch is not carried out: the field, and what is wrong.
type Refusal = (&'static str, String);

/// The patches that apply to the proxy, in order.
pub(super) fn select(selection: &mut Selection<'_>) -> Vec<PatchInput> {
    let (view, snapshot) = (selection.view, selection.snapshot);
    let mut patches = Vec::new();
    for owned in snapshot.envoy_filters(&view.name.namespace, &view.labels) {
        let prelude = prelude(selection, owned);
        let mut met = Met::default();
        for (index, patch) in owned.spec().patches.iter().enumerate() {
            let Some(side) = side(view.role, patch.context) else { continue };
            if !is_proxy(patch.proxy.as_ref(), &view.node) {
                continue;
            }
            let read = match read(patch, view.role) {
                Ok(read) => read,
                Err((field, message)) => {
                    tell(selection, owned, index, Fault::error(patch.at.clone(), message), field);
                    continue;
                }
            };
            for (field, message) in without_effect(patch, view.role) {
                tell(selection, owned, index, Fault::warning(patch.at.clone(), message), field);
            }
            let (apply_to, operation, matches) = read;
            let mut value = patch.value.clone();
            modernise(&mut value, prelude.as_deref(), &mut met);
            patches.push(PatchInput {
                owner: owned.meta().name.to_string(),
                index,
                at: patch.at.clone(),
                value_at: patch.value_at.clone(),
                is_selective: owned.spec().workload_selector.is_some(),
                side,
                apply_to,
                matches,
                operation,
                class: place(patch.filter_class),
                value,
            });
        }
        if prelude.is_some() && met.scripts == 0 {
            let message = "no patch for this proxy has a Lua script that could use the globals";
            let fault = Fault::warning(owned.meta().at.clone(), message);
            let field = format!("metadata.annotations[{}]", lua::ANNOTATION);
            selection.fault(owned.meta(), fault.field(field));
        }
        for old in met.old_types {
            let message = format!("{old} is a name of Envoy's v2 API: it is read as today's");
            let fault = Fault::warning(owned.meta().at.clone(), message);
            selection.fault(owned.meta(), fault.field("spec.configPatches.patch.value"));
        }
    }
    patches
}

fn tell(
    selection: &mut Selection<'_>,
    owned: &Owned<EnvoyFilter>,
    index: usize,
    fault: Fault,
    field: &str,
) {
    selection.fault(owned.meta(), fault.field(format!("spec.configPatches[{index}].{field}")));
}

/// Which side of the proxy a patch means; `None` for another kind of proxy.
fn side(role: Role, context: PatchContext) -> Option<Side> {
    match (context, role) {
        (PatchContext::Any, _) => Some(Side::Any),
        (PatchContext::Gateway, Role::Gateway) => Some(Side::Gateway),
        (PatchContext::SidecarInbound, Role::Sidecar) => Some(Side::Inbound),
        (PatchContext::SidecarOutbound, Role::Sidecar) => Some(Side::Outbound),
        _ => None,
    }
}

/// Whether a proxy is one of those that a patch is for. One that says no version has none.
fn is_proxy(wanted: Option<&ProxyMatch>, node: &NodeFacts) -> bool {
    let Some(wanted) = wanted else { return true };
    let is_version = wanted.proxy_version.as_deref().is_none_or(|pattern| {
        !node.istio_version.is_empty()
            && Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(&node.istio_version))
    });
    is_version && wanted.metadata.iter().all(|(key, value)| node.metadata.get(key) == Some(value))
}

fn prelude(selection: &mut Selection<'_>, owned: &Owned<EnvoyFilter>) -> Option<String> {
    let annotation = owned.meta().annotations.get(lua::ANNOTATION)?;
    Some(lua::prelude(annotation).unwrap_or_else(|message| {
        let fault = Fault::error(owned.meta().at.clone(), message)
            .field(format!("metadata.annotations[{}]", lua::ANNOTATION))
            .help("the script refuses to load until this is put right");
        selection.fault(owned.meta(), fault);
        lua::broken()
    }))
}

fn read(patch: &Patch, role: Role) -> Result<(ApplyTo, Operation, PatchMatch), Refusal> {
    let apply_to = match patch.apply_to {
        WrittenApplyTo::Listener => ApplyTo::Listener,
        WrittenApplyTo::FilterChain => ApplyTo::FilterChain,
        WrittenApplyTo::NetworkFilter => ApplyTo::NetworkFilter,
        WrittenApplyTo::HttpFilter => ApplyTo::HttpFilter,
        WrittenApplyTo::RouteConfiguration => ApplyTo::RouteConfiguration,
        WrittenApplyTo::VirtualHost => ApplyTo::VirtualHost,
        WrittenApplyTo::HttpRoute => ApplyTo::HttpRoute,
        WrittenApplyTo::Cluster => ApplyTo::Cluster,
        WrittenApplyTo::ListenerFilter => ApplyTo::ListenerFilter,
        WrittenApplyTo::ExtensionConfig => ApplyTo::ExtensionConfig,
        WrittenApplyTo::Bootstrap => {
            let message = "a bootstrap is written before a proxy starts, and never sent to one: \
                           change the one that the proxy is started with";
            return Err(("applyTo", message.to_owned()));
        }
    };
    let operation = operation(patch.operation);
    if !is_carried_out(apply_to, operation) {
        let message = format!("{} does nothing there", shown(patch.operation));
        return Err(("patch.operation", message));
    }
    let matches = match &patch.object {
        None => PatchMatch::default(),
        Some(ObjectMatch::Listener(listener)) => listener_match(listener),
        Some(ObjectMatch::RouteConfiguration(routes)) => route_match(routes, role),
        Some(ObjectMatch::Cluster(cluster)) => PatchMatch {
            cluster: cluster.name.clone(),
            service: cluster.service.clone(),
            subset: cluster.subset.clone(),
            cluster_port: cluster.port_number,
            ..PatchMatch::default()
        },
        Some(ObjectMatch::Waypoint) => {
            return Err(("match.waypoint", "there are no waypoints here".to_owned()));
        }
    };
    let names_filter = match apply_to {
        ApplyTo::NetworkFilter => matches.network_filter.is_some(),
        ApplyTo::HttpFilter => matches.http_filter.is_some(),
        ApplyTo::ListenerFilter => matches.listener_filter.is_some(),
        _ => true,
    };
    if !names_filter && matches!(operation, Operation::Remove | Operation::Replace) {
        let message = format!("{} needs the name of a filter", shown(patch.operation));
        return Err(("match.listener", message));
    }
    Ok((apply_to, operation, matches))
}

fn operation(written: PatchOperation) -> Operation {
    match written {
        PatchOperation::Merge => Operation::Merge,
        PatchOperation::MergeAndReplaceList => Operation::MergeReplacingLists,
        PatchOperation::Add => Operation::Add,
        PatchOperation::Remove => Operation::Remove,
        PatchOperation::InsertBefore => Operation::InsertBefore,
        PatchOperation::InsertAfter => Operation::InsertAfter,
        PatchOperation::InsertFirst => Operation::InsertFirst,
        PatchOperation::Replace => Operation::Replace,
    }
}

fn shown(written: PatchOperation) -> &'static str {
    match written {
        PatchOperation::Merge => "MERGE",
        PatchOperation::MergeAndReplaceList => "MERGE_AND_REPLACE_LIST",
        PatchOperation::Add => "ADD",
        PatchOperation::Remove => "REMOVE",
        PatchOperation::InsertBefore => "INSERT_BEFORE",
        PatchOperation::InsertAfter => "INSERT_AFTER",
        PatchOperation::InsertFirst => "INSERT_FIRST",
        PatchOperation::Replace => "REPLACE",
    }
}

/// Which operations Istio carries out on what.
fn is_carried_out(apply_to: ApplyTo, operation: Operation) -> bool {
    use Operation::{
        Add, InsertAfter, InsertBefore, InsertFirst, Merge, MergeReplacingLists, Remove, Replace,
    };
    let merges = matches!(operation, Merge | MergeReplacingLists);
    match apply_to {
        ApplyTo::Listener | ApplyTo::FilterChain | ApplyTo::Cluster => {
            merges || matches!(operation, Add | Remove)
        }
        ApplyTo::ListenerFilter => {
            matches!(operation, Add | Remove | InsertFirst | InsertBefore | InsertAfter | Replace)
        }
        ApplyTo::NetworkFilter | ApplyTo::HttpFilter => operation != MergeReplacingLists,
        ApplyTo::RouteConfiguration => merges,
        ApplyTo::VirtualHost => merges || matches!(operation, Add | Remove | Replace),
        ApplyTo::HttpRoute => operation != Replace,
        ApplyTo::ExtensionConfig => operation == Add,
    }
}

/// What is written and, as in Istio, changes nothing.
fn without_effect(patch: &Patch, role: Role) -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    let mut tell = |field, why: &str| found.push((field, format!("of no effect: {why}")));
    match &patch.object {
        Some(ObjectMatch::Listener(listener)) if listener.port_name.is_some() => {
            tell("match.listener.portName", "listeners are known by number");
        }
        Some(ObjectMatch::RouteConfiguration(routes)) if role == Role::Sidecar => {
            if routes.port_name.is_some() {
                tell("match.routeConfiguration.portName", "it is looked at on gateways only");
            }
            if routes.gateway.is_some() {
                tell("match.routeConfiguration.gateway", "it is looked at on gateways only");
            }
        }
        _ => {}
    }
    let is_placed =
        patch.apply_to == WrittenApplyTo::HttpFilter && patch.operation == PatchOperation::Add;
    if patch.filter_class != FilterClass::Unspecified && !is_placed {
        tell("patch.filterClass", "it places HTTP filters that are ADDed");
    }
    found
}

fn place(class: FilterClass) -> FilterPlace {
    match class {
        FilterClass::Unspecified => FilterPlace::AsWritten,
        FilterClass::Authn => FilterPlace::Authentication,
        FilterClass::Authz => FilterPlace::Authorization,
        FilterClass::Stats => FilterPlace::Statistics,
    }
}

fn listener_match(written: &ListenerMatch) -> PatchMatch {
    let mut matches = PatchMatch {
        listener_name: written.name.clone(),
        port: written.port_number,
        listener_filter: written.listener_filter.clone(),
        ..PatchMatch::default()
    };
    let Some(chain) = &written.filter_chain else { return matches };
    matches.chain_name.clone_from(&chain.name);
    matches.chain_sni.clone_from(&chain.sni);
    matches.chain_transport.clone_from(&chain.transport_protocol);
    matches.chain_port = chain.destination_port;
    matches.chain_socket.clone_from(&chain.transport_socket);
    if let Some(protocols) = &chain.application_protocols {
        matches.chain_alpn = protocols.split(',').map(|name| name.trim().to_owned()).collect();
    }
    if let Some(filter) = &chain.filter {
        matches.network_filter.clone_from(&filter.name);
        matches.http_filter.clone_from(&filter.sub_filter);
    }
    matches
}

fn route_match(written: &RouteConfigurationMatch, role: Role) -> PatchMatch {
    let is_gateway = role == Role::Gateway;
    let mut matches = PatchMatch {
        route_config: written.name.clone(),
        port: written.port_number,
        port_name: written.port_name.clone().filter(|_| is_gateway),
        gateway: written.gateway.clone().filter(|_| is_gateway),
        ..PatchMatch::default()
    };
    let Some(host) = &written.vhost else { return matches };
    matches.virtual_host.clone_from(&host.name);
    matches.domain.clone_from(&host.domain_name);
    if let Some(route) = &host.route {
        matches.names_route = true;
        matches.route.clone_from(&route.name);
        matches.route_kind = match route.action {
            RouteActionMatch::Any => None,
            RouteActionMatch::Route => Some(RouteKind::Forward),
            RouteActionMatch::Redirect => Some(RouteKind::Redirect),
            RouteActionMatch::DirectResponse => Some(RouteKind::Respond),
        };
    }
    matches
}
