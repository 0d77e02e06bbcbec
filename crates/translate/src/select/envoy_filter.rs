//! The patches of EnvoyFilters that apply to a proxy, in order, in Envoy's terms of today.
//!
//! In:    the EnvoyFilters of the proxy's namespace and the root namespace that select it.
//! Out:   patches with v3 messages; a fault for each that is not carried out.
//! Never: drops a patch in silence, or puts a secret into a value.

use serde_json::{Map, Value, json};
use sluis_model::Owned;
use sluis_resources::{
    ApplyTo as WrittenApplyTo, EnvoyFilter, FilterClass, ListenerMatch, ObjectMatch, Patch,
    PatchContext, PatchOperation, RouteActionMatch, RouteConfigurationMatch,
};

use super::{Selection, lua};
use crate::{ApplyTo, Fault, Operation, PatchInput, PatchMatch, Role};

/// The type of Envoy's Lua filter.
const LUA: &str = "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua";

/// Types that Envoy dropped with its v2 API, and what they are called since.
const RENAMED: [(&str, &str); 13] = [
    ("envoy.config.filter.http.lua.v2.Lua", "envoy.extensions.filters.http.lua.v3.Lua"),
    ("envoy.config.filter.http.router.v2.Router", "envoy.extensions.filters.http.router.v3.Router"),
    ("envoy.config.filter.http.cors.v2.Cors", "envoy.extensions.filters.http.cors.v3.Cors"),
    (
        "envoy.config.filter.http.fault.v2.HTTPFault",
        "envoy.extensions.filters.http.fault.v3.HTTPFault",
    ),
    ("envoy.config.filter.http.rbac.v2.RBAC", "envoy.extensions.filters.http.rbac.v3.RBAC"),
    (
        "envoy.config.filter.http.ext_authz.v2.ExtAuthz",
        "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
    ),
    (
        "envoy.config.filter.http.header_to_metadata.v2.Config",
        "envoy.extensions.filters.http.header_to_metadata.v3.Config",
    ),
    (
        "envoy.config.filter.http.jwt_authn.v2alpha.JwtAuthentication",
        "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
    ),
    (
        "envoy.config.filter.network.tcp_proxy.v2.TcpProxy",
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
    ),
    ("envoy.config.filter.network.rbac.v2.RBAC", "envoy.extensions.filters.network.rbac.v3.RBAC"),
    (
        "envoy.config.filter.network.http_connection_manager.v2.HttpConnectionManager",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
    ),
    (
        "envoy.api.v2.auth.UpstreamTlsContext",
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
    ),
    (
        "envoy.api.v2.auth.DownstreamTlsContext",
        "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
    ),
];

const URL_PREFIX: &str = "type.googleapis.com/";

/// Why a patch is not carried out: the field, and what is wrong.
type Refusal = (&'static str, String);

/// The patches that apply to the proxy, in order.
pub(super) fn select(selection: &mut Selection<'_>) -> Vec<PatchInput> {
    let (view, snapshot) = (selection.view, selection.snapshot);
    let mut patches = Vec::new();
    for owned in snapshot.envoy_filters(&view.name.namespace, &view.labels) {
        let prelude = prelude(selection, owned);
        let mut scripts = 0;
        for (index, patch) in owned.spec().patches.iter().enumerate() {
            if !is_meant(view.role, patch.context) {
                continue;
            }
            let (apply_to, operation, matches) = match read(patch) {
                Ok(read) => read,
                Err((field, message)) => {
                    let fault = Fault::error(patch.at.clone(), message);
                    selection.fault(
                        owned.meta(),
                        fault.field(format!("spec.configPatches[{index}].{field}")),
                    );
                    continue;
                }
            };
            let mut value = patch.value.clone();
            scripts += modernise(&mut value, prelude.as_deref());
            patches.push(PatchInput {
                owner: owned.meta().name.to_string(),
                index,
                at: patch.at.clone(),
                value_at: patch.value_at.clone(),
                is_selective: owned.spec().workload_selector.is_some(),
                apply_to,
                matches,
                operation,
                value,
            });
        }
        if prelude.is_some() && scripts == 0 {
            let message = "no patch for this proxy has a Lua script that could use the globals";
            let fault = Fault::warning(owned.meta().at.clone(), message);
            let field = format!("metadata.annotations[{}]", lua::ANNOTATION);
            selection.fault(owned.meta(), fault.field(field));
        }
    }
    patches
}

fn is_meant(role: Role, context: PatchContext) -> bool {
    match context {
        PatchContext::Any => true,
        PatchContext::Gateway => role == Role::Gateway,
        // What sidecars receive is not configured yet, so there is nothing to patch; the patch is
        // named in a fault all the same.
        PatchContext::SidecarOutbound | PatchContext::SidecarInbound => role == Role::Sidecar,
        PatchContext::Waypoint => false,
    }
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

fn read(patch: &Patch) -> Result<(ApplyTo, Operation, PatchMatch), Refusal> {
    let refuse = |field, what: &str| Err((field, format!("{what} is not supported yet")));
    if patch.context == PatchContext::SidecarInbound {
        return refuse("match.context", "SIDECAR_INBOUND");
    }
    if patch.proxy.is_some() {
        return refuse("match.proxy", "a match on the proxy");
    }
    if patch.filter_class != FilterClass::Unspecified {
        return refuse("patch.filterClass", "filterClass");
    }
    let apply_to = match patch.apply_to {
        WrittenApplyTo::Listener => ApplyTo::Listener,
        WrittenApplyTo::FilterChain => ApplyTo::FilterChain,
        WrittenApplyTo::NetworkFilter => ApplyTo::NetworkFilter,
        WrittenApplyTo::HttpFilter => ApplyTo::HttpFilter,
        WrittenApplyTo::RouteConfiguration => ApplyTo::RouteConfiguration,
        WrittenApplyTo::VirtualHost => ApplyTo::VirtualHost,
        WrittenApplyTo::HttpRoute => ApplyTo::HttpRoute,
        WrittenApplyTo::Cluster => ApplyTo::Cluster,
        WrittenApplyTo::ExtensionConfig => return refuse("applyTo", "EXTENSION_CONFIG"),
        WrittenApplyTo::Bootstrap => return refuse("applyTo", "BOOTSTRAP"),
        WrittenApplyTo::ListenerFilter => return refuse("applyTo", "LISTENER_FILTER"),
    };
    let operation = match patch.operation {
        PatchOperation::Merge => Operation::Merge,
        PatchOperation::Add => Operation::Add,
        PatchOperation::Remove => Operation::Remove,
        PatchOperation::InsertBefore => Operation::InsertBefore,
        PatchOperation::InsertAfter => Operation::InsertAfter,
        PatchOperation::InsertFirst => Operation::InsertFirst,
        PatchOperation::Replace => Operation::Replace,
        PatchOperation::MergeAndReplaceList => {
            return refuse("patch.operation", "MERGE_AND_REPLACE_LIST");
        }
    };
    let matches = match &patch.object {
        None => PatchMatch::default(),
        Some(ObjectMatch::Listener(listener)) => listener_match(listener)?,
        Some(ObjectMatch::RouteConfiguration(routes)) => route_match(routes)?,
        Some(ObjectMatch::Cluster(cluster)) => PatchMatch {
            cluster: cluster.name.clone(),
            service: cluster.service.clone(),
            subset: cluster.subset.clone(),
            cluster_port: cluster.port_number,
            ..PatchMatch::default()
        },
        Some(ObjectMatch::Waypoint) => return refuse("match.waypoint", "waypoint"),
    };
    Ok((apply_to, operation, matches))
}

fn listener_match(written: &ListenerMatch) -> Result<PatchMatch, Refusal> {
    let mut matches = PatchMatch {
        listener_name: written.name.clone(),
        port: written.port_number,
        ..PatchMatch::default()
    };
    let mut unsupported = vec![
        ("match.listener.listenerFilter", written.listener_filter.is_some()),
        ("match.listener.portName", written.port_name.is_some()),
    ];
    if let Some(chain) = &written.filter_chain {
        matches.chain_name.clone_from(&chain.name);
        matches.chain_sni.clone_from(&chain.sni);
        matches.chain_transport.clone_from(&chain.transport_protocol);
        if let Some(filter) = &chain.filter {
            matches.network_filter.clone_from(&filter.name);
            matches.http_filter.clone_from(&filter.sub_filter);
        }
        unsupported.extend([
            (
                "match.listener.filterChain.applicationProtocols",
                chain.application_protocols.is_some(),
            ),
            ("match.listener.filterChain.destinationPort", chain.destination_port.is_some()),
            ("match.listener.filterChain.transportSocket", chain.transport_socket.is_some()),
        ]);
    }
    none_of(&unsupported)?;
    Ok(matches)
}

fn route_match(written: &RouteConfigurationMatch) -> Result<PatchMatch, Refusal> {
    let mut matches = PatchMatch {
        route_config: written.name.clone(),
        port: written.port_number,
        gateway: written.gateway.clone(),
        ..PatchMatch::default()
    };
    let mut unsupported = vec![("match.routeConfiguration.portName", written.port_name.is_some())];
    if let Some(host) = &written.vhost {
        matches.virtual_host.clone_from(&host.name);
        matches.domain.clone_from(&host.domain_name);
        if let Some(route) = &host.route {
            matches.route.clone_from(&route.name);
            let is_any = route.action == RouteActionMatch::Any;
            unsupported.push(("match.routeConfiguration.vhost.route.action", !is_any));
        }
    }
    none_of(&unsupported)?;
    Ok(matches)
}

fn none_of(fields: &[(&'static str, bool)]) -> Result<(), Refusal> {
    match fields.iter().find(|(_, is_written)| *is_written) {
        Some((field, _)) => Err((field, "this match is not supported yet".to_owned())),
        None => Ok(()),
    }
}

/// Brings a value to Envoy's v3 API and puts the prelude in front of its Lua scripts.
///
/// Returns the number of scripts.
fn modernise(value: &mut Value, prelude: Option<&str>) -> usize {
    match value {
        Value::Array(items) => items.iter_mut().map(|item| modernise(item, prelude)).sum(),
        Value::Object(fields) => {
            let url = fields.get("@type").and_then(Value::as_str).map(modern_url);
            if let Some(url) = &url {
                fields.insert("@type".to_owned(), Value::String(url.clone()));
            }
            let inner: usize = fields.values_mut().map(|field| modernise(field, prelude)).sum();
            inner + if url.as_deref() == Some(LUA) { script(fields, prelude) } else { 0 }
        }
        _ => 0,
    }
}

fn modern_url(url: &str) -> String {
    let name = url.strip_prefix(URL_PREFIX).unwrap_or(url);
    let renamed = RENAMED.iter().find(|(old, _)| *old == name).map(|(_, new)| new);
    renamed.map_or_else(|| url.to_owned(), |new| format!("{URL_PREFIX}{new}"))
}

/// Moves `inlineCode` to where Envoy wants it today, and puts the prelude in front.
fn script(fields: &mut Map<String, Value>, prelude: Option<&str>) -> usize {
    for old in ["inlineCode", "inline_code"] {
        if let Some(code) = fields.remove(old) {
            fields.insert("default_source_code".to_owned(), json!({ "inline_string": code }));
        }
    }
    let source = ["default_source_code", "defaultSourceCode"]
        .into_iter()
        .find(|name| fields.contains_key(*name))
        .and_then(|name| fields.get_mut(name))
        .and_then(Value::as_object_mut);
    let Some(source) = source else { return 0 };
    let code = ["inline_string", "inlineString"]
        .into_iter()
        .find(|name| source.contains_key(*name))
        .and_then(|name| source.get_mut(name));
    match code {
        Some(Value::String(code)) => {
            if let Some(prelude) = prelude {
                code.insert_str(0, prelude);
            }
            1
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_of_the_v2_api_becomes_one_of_today_with_its_lines_in_place() {
        let mut value = json!({
            "name": "envoy.lua",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.config.filter.http.lua.v2.Lua",
                "inlineCode": "first()\nsecond()",
            },
        });
        assert_eq!(modernise(&mut value, Some("key=1 ")), 1);
        assert_eq!(value["typed_config"]["@type"], LUA);
        let code = &value["typed_config"]["default_source_code"]["inline_string"];
        assert_eq!(code, "key=1 first()\nsecond()");
    }

    #[test]
    fn other_values_stay_as_they_are() {
        let written = json!({"a": [{"@type": "type.googleapis.com/envoy.x.v3.Y", "b": 1}]});
        let mut value = written.clone();
        assert_eq!(modernise(&mut value, Some("x")), 0);
        assert_eq!(value, written);
    }
}
