//! EnvoyFilter: patches to what is generated, in Envoy's own terms.

use std::collections::BTreeMap;

use serde_json::Value;
use sluis_nouns::{Labels, SourceRef};

/// `networking.istio.io` EnvoyFilter.
#[derive(Clone, Debug, PartialEq)]
pub struct EnvoyFilter {
    /// `workloadSelector.labels`; `None` means all workloads in reach.
    pub workload_selector: Option<Labels>,
    /// `priority`; lower is applied earlier. Default 0.
    pub priority: i32,
    /// `configPatches`, in order.
    pub patches: Vec<Patch>,
}

/// One of `configPatches`.
#[derive(Clone, Debug, PartialEq)]
pub struct Patch {
    /// Place of the list item.
    pub at: SourceRef,
    /// `applyTo`.
    pub apply_to: ApplyTo,
    /// `match.context`.
    pub context: PatchContext,
    /// `match.proxy`.
    pub proxy: Option<ProxyMatch>,
    /// `match.listener`, `match.routeConfiguration` or `match.cluster`; `None` matches all.
    pub object: Option<ObjectMatch>,
    /// `patch.operation`.
    pub operation: PatchOperation,
    /// `patch.filterClass`.
    pub filter_class: FilterClass,
    /// `patch.value`, as JSON. `Null` where nothing is written.
    pub value: Value,
    /// Place of `patch.value` (of the list item where there is none).
    pub value_at: SourceRef,
}

/// What is patched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ApplyTo {
    /// A listener.
    Listener,
    /// A filter chain of a listener.
    FilterChain,
    /// A network filter of a filter chain.
    NetworkFilter,
    /// An HTTP filter of a connection manager.
    HttpFilter,
    /// A route configuration.
    RouteConfiguration,
    /// A virtual host of a route configuration.
    VirtualHost,
    /// A route of a virtual host.
    HttpRoute,
    /// A cluster.
    Cluster,
    /// An extension configuration (ECDS).
    ExtensionConfig,
    /// The bootstrap.
    Bootstrap,
    /// A listener filter.
    ListenerFilter,
}

/// For which side of which proxies a patch is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PatchContext {
    /// All. The default.
    #[default]
    Any,
    /// What sidecars receive.
    SidecarInbound,
    /// What sidecars send.
    SidecarOutbound,
    /// Gateways.
    Gateway,
    /// Waypoints, of which there are none here.
    Waypoint,
}

/// `match.proxy`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyMatch {
    /// `proxyVersion`, a regular expression for Istio's version.
    pub proxy_version: Option<String>,
    /// `metadata` of the node that must be equal.
    pub metadata: BTreeMap<String, String>,
}

/// Which object a patch is meant for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ObjectMatch {
    /// `listener`.
    Listener(ListenerMatch),
    /// `routeConfiguration`.
    RouteConfiguration(RouteConfigurationMatch),
    /// `cluster`.
    Cluster(ClusterMatch),
    /// `waypoint`; never matches here, as there are no waypoints.
    Waypoint,
}

/// `match.listener`. What is not written matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListenerMatch {
    /// `portNumber`.
    pub port_number: Option<u16>,
    /// `portName`, of no effect in Istio.
    pub port_name: Option<String>,
    /// `name` of the listener.
    pub name: Option<String>,
    /// `listenerFilter`, by name.
    pub listener_filter: Option<String>,
    /// `filterChain`.
    pub filter_chain: Option<FilterChainMatch>,
}

/// `match.listener.filterChain`. What is not written matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilterChainMatch {
    /// `name`.
    pub name: Option<String>,
    /// `sni`.
    pub sni: Option<String>,
    /// `transportProtocol`: `tls` or `raw_buffer`.
    pub transport_protocol: Option<String>,
    /// `applicationProtocols`, separated by commas.
    pub application_protocols: Option<String>,
    /// `destinationPort`.
    pub destination_port: Option<u16>,
    /// `transportSocket`, by name.
    pub transport_socket: Option<String>,
    /// `filter`.
    pub filter: Option<FilterMatch>,
}

/// A network filter, and an HTTP filter in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilterMatch {
    /// `name` of the network filter.
    pub name: Option<String>,
    /// `subFilter.name`: the HTTP filter.
    pub sub_filter: Option<String>,
}

/// `match.routeConfiguration`. What is not written matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteConfigurationMatch {
    /// `portNumber`.
    pub port_number: Option<u16>,
    /// `portName`.
    pub port_name: Option<String>,
    /// `gateway`, as `namespace/name`.
    pub gateway: Option<String>,
    /// `name` of the route configuration.
    pub name: Option<String>,
    /// `vhost`.
    pub vhost: Option<VhostMatch>,
}

/// `vhost`. What is not written matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VhostMatch {
    /// `name`, as `host:port`.
    pub name: Option<String>,
    /// `domainName`.
    pub domain_name: Option<String>,
    /// `route`.
    pub route: Option<RouteMatch>,
}

/// `vhost.route`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteMatch {
    /// `name`.
    pub name: Option<String>,
    /// `action`.
    pub action: RouteActionMatch,
}

/// What the matched route does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RouteActionMatch {
    /// Anything. The default.
    #[default]
    Any,
    /// It forwards.
    Route,
    /// It redirects.
    Redirect,
    /// It answers.
    DirectResponse,
}

/// `match.cluster`. What is not written matches all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterMatch {
    /// `portNumber` of the service.
    pub port_number: Option<u16>,
    /// `service`: the full host name.
    pub service: Option<String>,
    /// `subset`.
    pub subset: Option<String>,
    /// `name` of the cluster.
    pub name: Option<String>,
}

/// What is done with the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PatchOperation {
    /// Protobuf merge into the object; lists are appended.
    Merge,
    /// Adds a new object at the end.
    Add,
    /// Removes the object.
    Remove,
    /// Inserts before the match, or first when the match names no filter.
    InsertBefore,
    /// Inserts behind the match, or last when the match names no filter.
    InsertAfter,
    /// Inserts as the first.
    InsertFirst,
    /// Puts the value in the object's place.
    Replace,
    /// Protobuf merge in which lists are replaced.
    MergeAndReplaceList,
}

/// Where in the chain an added filter belongs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FilterClass {
    /// Where the operation says. The default.
    #[default]
    Unspecified,
    /// After Istio's authentication filters.
    Authn,
    /// After Istio's authorization filters.
    Authz,
    /// Before Istio's metrics filters.
    Stats,
}
