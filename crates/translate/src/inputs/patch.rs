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
    /// What is patched.
    pub apply_to: ApplyTo,
    /// Which ones.
    pub matches: PatchMatch,
    /// How.
    pub operation: Operation,
    /// With what: protobuf's JSON mapping of Envoy's v3 messages.
    pub value: Value,
}

/// What a patch is applied to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ApplyTo {
    /// Listeners.
    Listener,
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
}

/// How a patch is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Merged into what is there.
    Merge,
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

/// Which objects a patch means. All parts must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PatchMatch {
    /// The listener's name.
    pub listener_name: Option<String>,
    /// A port by which the listener or route table is known.
    pub port: Option<u16>,
    /// The filter chain's name.
    pub chain_name: Option<String>,
    /// A server name that the filter chain claims.
    pub chain_sni: Option<String>,
    /// The filter chain's transport protocol.
    pub chain_transport: Option<String>,
    /// The network filter's name.
    pub network_filter: Option<String>,
    /// The HTTP filter's name.
    pub http_filter: Option<String>,
    /// The route table's name.
    pub route_config: Option<String>,
    /// The `Gateway` of the route table, as `namespace/name`.
    pub gateway: Option<String>,
    /// The virtual host's name.
    pub virtual_host: Option<String>,
    /// A domain of the virtual host.
    pub domain: Option<String>,
    /// The route's name.
    pub route: Option<String>,
    /// The cluster's name.
    pub cluster: Option<String>,
    /// The service of the cluster.
    pub service: Option<String>,
    /// The subset of the cluster.
    pub subset: Option<String>,
    /// The port of the cluster.
    pub cluster_port: Option<u16>,
}
