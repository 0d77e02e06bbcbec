//! Reads EnvoyFilter. Values stay JSON: what they mean is Envoy's matter, seen to by the translation.

use serde_json::Value as Json;

use super::forms::{read_fields, read_names};
use super::shared::WorkloadSelector;
use crate::kinds::envoy_filter::{
    ApplyTo, ClusterMatch, EnvoyFilter, FilterChainMatch, FilterClass, FilterMatch, ListenerMatch,
    ObjectMatch, Patch, PatchContext, PatchOperation, ProxyMatch, RouteActionMatch,
    RouteConfigurationMatch, RouteMatch, VhostMatch,
};
use crate::value::Fields;

read_fields! {
    EnvoyFilter => envoy_filter,
    Patch => patch,
    Match => object_match,
    Change => change,
    ProxyMatch => proxy_match,
    ListenerMatch => listener_match,
    FilterChainMatch => filter_chain_match,
    FilterMatch => filter_match,
    Name => name,
    RouteConfigurationMatch => route_configuration_match,
    VhostMatch => vhost_match,
    RouteMatch => route_match,
    ClusterMatch => cluster_match,
    Waypoint => waypoint,
    WaypointRoute => waypoint_route,
}

read_names! {
    ApplyTo {
        "LISTENER" => ApplyTo::Listener,
        "FILTER_CHAIN" => ApplyTo::FilterChain,
        "NETWORK_FILTER" => ApplyTo::NetworkFilter,
        "HTTP_FILTER" => ApplyTo::HttpFilter,
        "ROUTE_CONFIGURATION" => ApplyTo::RouteConfiguration,
        "VIRTUAL_HOST" => ApplyTo::VirtualHost,
        "HTTP_ROUTE" => ApplyTo::HttpRoute,
        "CLUSTER" => ApplyTo::Cluster,
        "EXTENSION_CONFIG" => ApplyTo::ExtensionConfig,
        "BOOTSTRAP" => ApplyTo::Bootstrap,
        "LISTENER_FILTER" => ApplyTo::ListenerFilter,
    }
    PatchContext {
        "ANY" => PatchContext::Any,
        "SIDECAR_INBOUND" => PatchContext::SidecarInbound,
        "SIDECAR_OUTBOUND" => PatchContext::SidecarOutbound,
        "GATEWAY" => PatchContext::Gateway,
        "WAYPOINT" => PatchContext::Waypoint,
    }
    PatchOperation {
        "MERGE" => PatchOperation::Merge,
        "ADD" => PatchOperation::Add,
        "REMOVE" => PatchOperation::Remove,
        "INSERT_BEFORE" => PatchOperation::InsertBefore,
        "INSERT_AFTER" => PatchOperation::InsertAfter,
        "INSERT_FIRST" => PatchOperation::InsertFirst,
        "REPLACE" => PatchOperation::Replace,
        "MERGE_AND_REPLACE_LIST" => PatchOperation::MergeAndReplaceList,
    }
    FilterClass {
        "UNSPECIFIED" => FilterClass::Unspecified,
        "AUTHN" => FilterClass::Authn,
        "AUTHZ" => FilterClass::Authz,
        "STATS" => FilterClass::Stats,
    }
    RouteActionMatch {
        "ANY" => RouteActionMatch::Any,
        "ROUTE" => RouteActionMatch::Route,
        "REDIRECT" => RouteActionMatch::Redirect,
        "DIRECT_RESPONSE" => RouteActionMatch::DirectResponse,
    }
}

fn envoy_filter(fields: &mut Fields<'_, '_>) -> Option<EnvoyFilter> {
    fields.at_most_one(&["workloadSelector", "targetRefs"]);
    fields.unsupported(&["targetRefs"]);
    Some(EnvoyFilter {
        workload_selector: fields.opt("workloadSelector").map(|WorkloadSelector(labels)| labels),
        priority: fields.or_default("priority"),
        patches: fields.or_default("configPatches"),
    })
}

fn patch(fields: &mut Fields<'_, '_>) -> Option<Patch> {
    let at = fields.at();
    let apply_to: Option<ApplyTo> = fields.req("applyTo");
    let matched: Match = fields.or_default("match");
    let change: Option<Change> = fields.req("patch");
    if let (Some(apply_to), Some(object)) = (apply_to, &matched.object)
        && !fits(apply_to, object)
        && let Some(value) = fields.get("match")
    {
        value.fault::<()>("this matches another kind of object than applyTo names");
    }
    let value_at = fields
        .get("patch")
        .and_then(|patch| {
            patch.fields(|fields| {
                fields.ignore_rest();
                fields.get("value").map(|value| value.at())
            })
        })
        .unwrap_or_else(|| at.clone());
    let (apply_to, change) = (apply_to?, change?);
    Some(Patch {
        at,
        apply_to,
        context: matched.context,
        proxy: matched.proxy,
        object: matched.object,
        operation: change.operation,
        filter_class: change.filter_class,
        value: change.value,
        value_at,
    })
}

/// Returns whether a match names the kind of object that is patched, or contains it.
fn fits(apply_to: ApplyTo, object: &ObjectMatch) -> bool {
    use ApplyTo::{
        Cluster, FilterChain, HttpFilter, HttpRoute, Listener, ListenerFilter, NetworkFilter,
        RouteConfiguration, VirtualHost,
    };
    match apply_to {
        Listener | FilterChain | NetworkFilter | HttpFilter | ListenerFilter => {
            matches!(object, ObjectMatch::Listener(_) | ObjectMatch::Waypoint)
        }
        RouteConfiguration | VirtualHost | HttpRoute => {
            matches!(object, ObjectMatch::RouteConfiguration(_) | ObjectMatch::Waypoint)
        }
        Cluster => matches!(object, ObjectMatch::Cluster(_) | ObjectMatch::Waypoint),
        ApplyTo::ExtensionConfig | ApplyTo::Bootstrap => true,
    }
}

/// `match`.
#[derive(Default)]
struct Match {
    context: PatchContext,
    proxy: Option<ProxyMatch>,
    object: Option<ObjectMatch>,
}

fn object_match(fields: &mut Fields<'_, '_>) -> Option<Match> {
    fields.at_most_one(&["listener", "routeConfiguration", "cluster", "waypoint"]);
    let context = fields.or_default("context");
    let listener = fields.opt("listener").map(ObjectMatch::Listener);
    let route = fields.opt("routeConfiguration").map(ObjectMatch::RouteConfiguration);
    let cluster = fields.opt("cluster").map(ObjectMatch::Cluster);
    let waypoint = fields.opt("waypoint").map(|Waypoint| ObjectMatch::Waypoint);
    if (context == PatchContext::Waypoint) != fields.has("waypoint") {
        fields.value().fault::<()>("context WAYPOINT and waypoint belong together");
    }
    let object = listener.or(route).or(cluster).or(waypoint);
    Some(Match { context, proxy: fields.opt("proxy"), object })
}

/// `patch`.
struct Change {
    operation: PatchOperation,
    filter_class: FilterClass,
    value: Json,
}

fn change(fields: &mut Fields<'_, '_>) -> Option<Change> {
    let operation: Option<PatchOperation> = fields.req("operation");
    let filter_class = fields.or_default("filterClass");
    let value: Json = fields.or_default("value");
    if operation.is_some_and(|operation| operation != PatchOperation::Remove) {
        match (&value, fields.get("value")) {
            (_, None) => fields.missing("value"),
            (Json::Object(_), _) => {}
            (_, Some(value)) => {
                value.fault::<()>("the value of a patch must be a map");
            }
        }
    }
    Some(Change { operation: operation?, filter_class, value })
}

fn proxy_match(fields: &mut Fields<'_, '_>) -> Option<ProxyMatch> {
    let proxy_version: Option<String> = fields.opt("proxyVersion");
    if let (Some(text), Some(value)) = (&proxy_version, fields.get("proxyVersion"))
        && regex::Regex::new(text).is_err()
    {
        value.fault::<()>(format!("{text:?} is not a regular expression"));
    }
    Some(ProxyMatch { proxy_version, metadata: fields.or_default("metadata") })
}

fn listener_match(fields: &mut Fields<'_, '_>) -> Option<ListenerMatch> {
    Some(ListenerMatch {
        port_number: fields.opt("portNumber"),
        port_name: fields.opt("portName"),
        name: fields.opt("name"),
        listener_filter: fields.opt("listenerFilter"),
        filter_chain: fields.opt("filterChain"),
    })
}

fn filter_chain_match(fields: &mut Fields<'_, '_>) -> Option<FilterChainMatch> {
    Some(FilterChainMatch {
        name: fields.opt("name"),
        sni: fields.opt("sni"),
        transport_protocol: fields.opt("transportProtocol"),
        application_protocols: fields.opt("applicationProtocols"),
        destination_port: fields.opt("destinationPort"),
        transport_socket: fields.opt("transportSocket"),
        filter: fields.opt("filter"),
    })
}

fn filter_match(fields: &mut Fields<'_, '_>) -> Option<FilterMatch> {
    let sub_filter = fields.opt("subFilter").and_then(|Name(name)| name);
    Some(FilterMatch { name: fields.opt("name"), sub_filter })
}

/// `{name: …}`.
struct Name(Option<String>);

fn name(fields: &mut Fields<'_, '_>) -> Option<Name> {
    Some(Name(fields.opt("name")))
}

fn route_configuration_match(fields: &mut Fields<'_, '_>) -> Option<RouteConfigurationMatch> {
    Some(RouteConfigurationMatch {
        port_number: fields.opt("portNumber"),
        port_name: fields.opt("portName"),
        gateway: fields.opt("gateway"),
        name: fields.opt("name"),
        vhost: fields.opt("vhost"),
    })
}

fn vhost_match(fields: &mut Fields<'_, '_>) -> Option<VhostMatch> {
    let (name, domain_name) = (fields.opt("name"), fields.opt("domainName"));
    Some(VhostMatch { name, domain_name, route: fields.opt("route") })
}

fn route_match(fields: &mut Fields<'_, '_>) -> Option<RouteMatch> {
    Some(RouteMatch { name: fields.opt("name"), action: fields.or_default("action") })
}

fn cluster_match(fields: &mut Fields<'_, '_>) -> Option<ClusterMatch> {
    Some(ClusterMatch {
        port_number: fields.opt("portNumber"),
        service: fields.opt("service"),
        subset: fields.opt("subset"),
        name: fields.opt("name"),
    })
}

/// `waypoint`, checked and not kept.
struct Waypoint;

fn waypoint(fields: &mut Fields<'_, '_>) -> Option<Waypoint> {
    fields.opt::<u16>("portNumber");
    fields.opt::<FilterMatch>("filter");
    fields.opt::<WaypointRoute>("route");
    Some(Waypoint)
}

struct WaypointRoute;

fn waypoint_route(fields: &mut Fields<'_, '_>) -> Option<WaypointRoute> {
    fields.opt::<String>("name");
    Some(WaypointRoute)
}
