//! The patches of `EnvoyFilter`s that apply to one proxy.

use serde_json::Value;
use sluis_nouns::SourceRef;

/// One patch of an `EnvoyFilter`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PatchInput {
    /// The `EnvoyFilter`, as `namespace/name`.
    pub owner: String,
    /// The patch's place in the list, from 0.
    pub index: usize,
    /// Where the patch is written.
    pub at: SourceRef,
    /// Where its value is written.
    pub value_at: SourceRef,
    /// Whether the `EnvoyFilter` selects its workloads: a patch that finds nothing is then odd.
    pub is_selective: bool,
    /// Which side of the proxy is patched.
    pub side: Side,
    /// What is patched.
    pub apply_to: ApplyTo,
    /// Which ones.
    pub matches: PatchMatch,
    /// How.
    pub operation: Operation,
    /// Where a filter that is added belongs.
    pub class: FilterPlace,
    /// With what: protobuf's JSON mapping of Envoy's v3 messages.
    pub value: Value,
}

/// Which side of a proxy a patch means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Side {
    /// Every side. Objects that are added go to the outbound one.
    #[default]
    Any,
    /// What a sidecar's workload receives.
    Inbound,
    /// What a sidecar's workload sends.
    Outbound,
    /// All of a gateway.
    Gateway,
}

/// What a patch is applied to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ApplyTo {
    /// Listeners.
    Listener,
    /// Listener filters.
    ListenerFilter,
    /// Filter chains.
    FilterChain,
    /// Network filters.
    NetworkFilter,
    /// HTTP filters.
    HttpFilter,
    /// Route tables.
    RouteConfiguration,
    /// Virtual hosts.
    VirtualHost,
    /// Routes.
    HttpRoute,
    /// Clusters.
    Cluster,
    /// Filters that listeners name and that travel by themselves (ECDS).
    ExtensionConfig,
}

/// How a patch is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Merged into what is there; lists are appended.
    Merge,
    /// Merged into what is there; lists are replaced.
    MergeReplacingLists,
    /// Added at the end.
    Add,
    /// Taken out.
    Remove,
    /// Put before the named one, or in front of all.
    InsertBefore,
    /// Put behind the named one, or at the end.
    InsertAfter,
    /// Put in front of all.
    InsertFirst,
    /// Put in the place of the named one.
    Replace,
}

/// Where in a chain of filters an added one belongs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum FilterPlace {
    /// Where the operation says.
    #[default]
    AsWritten,
    /// Behind the filters that find out who the client is.
    Authentication,
    /// Behind the filters that decide what the client may do.
    Authorization,
    /// In front of the filters that count.
    Statistics,
}

/// What a route does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RouteKind {
    /// It forwards.
    Forward,
    /// It redirects.
    Redirect,
    /// It answers.
    Respond,
}

/// Which objects a patch means. All parts must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PatchMatch {
    /// The listener's name.
    pub listener_name: Option<String>,
    /// A port by which the listener or route table is known.
    pub port: Option<u16>,
    /// The listener filter's name.
    pub listener_filter: Option<String>,
    /// The filter chain's name.
    pub chain_name: Option<String>,
    /// A server name that the filter chain claims.
    pub chain_sni: Option<String>,
    /// The filter chain's transport protocol.
    pub chain_transport: Option<String>,
    /// Application protocols that the filter chain claims, all of them.
    pub chain_alpn: Vec<String>,
    /// The destination port that the filter chain claims.
    pub chain_port: Option<u16>,
    /// The name of the filter chain's transport socket.
    pub chain_socket: Option<String>,
    /// The network filter's name.
    pub network_filter: Option<String>,
    /// The HTTP filter's name.
    pub http_filter: Option<String>,
    /// The route table's name.
    pub route_config: Option<String>,
    /// The name of the `Gateway` server's port, in the name of its route table.
    pub port_name: Option<String>,
    /// The `Gateway` of the route table, as `namespace/name`.
    pub gateway: Option<String>,
    /// The virtual host's name.
    pub virtual_host: Option<String>,
    /// A domain of the virtual host.
    pub domain: Option<String>,
    /// Whether one route is meant, and not the ends of the list.
    pub names_route: bool,
    /// The route's name.
    pub route: Option<String>,
    /// What the route does.
    pub route_kind: Option<RouteKind>,
    /// The cluster's name; when it is given nothing else is looked at.
    pub cluster: Option<String>,
    /// The service of the cluster.
    pub service: Option<String>,
    /// The subset of the cluster.
    pub subset: Option<String>,
    /// The port of the cluster.
    pub cluster_port: Option<u16>,
}
