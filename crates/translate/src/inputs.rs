//! Everything that one proxy's resources are made of, chosen and put in order.
//!
//! In:    what `select` finds in a snapshot for one proxy.
//! Out:   values that `render` turns into Envoy's messages, one to one.
//! Never: refers back to the snapshot; equal inputs give equal resources, whoever asks.
//!
//! Start at [`Inputs`].

use std::{hash::Hash, net::IpAddr, time::Duration};

use serde_json::Value;
use sluis_nouns::{Cidr, SourceRef};
use xxhash_rust::xxh3::Xxh3;

use crate::{Fault, view::Capture};

/// Everything that one proxy's resources are made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Inputs {
    /// What the mesh configuration says to every proxy.
    pub mesh: MeshInputs,
    /// The capturing listener, when the proxy is a sidecar.
    pub outbound: Option<OutboundInputs>,
    /// The listeners, in order of name.
    pub listeners: Vec<ListenerInput>,
    /// The route tables that the listeners name.
    pub routes: Vec<RouteTable>,
    /// The clusters, in order of name.
    pub clusters: Vec<ClusterInput>,
    /// The names that the proxy's resolver answers; `None` when it answers none.
    pub names: Option<Vec<NameInput>>,
    /// The `EnvoyFilter` patches that apply to this proxy, in order of application.
    pub patches: Vec<PatchInput>,
    /// What selection met and could not carry out.
    pub faults: Vec<Fault>,
}

impl Inputs {
    /// The hash of the inputs: the key under which rendered resources may be shared and kept.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = Xxh3::new();
        self.hash(&mut hasher);
        hasher.digest()
    }
}

/// What the mesh configuration says to every proxy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MeshInputs {
    /// Where and how requests and connections are logged; `None` when they are not.
    pub access_log: Option<AccessLogInput>,
    /// How request paths are normalised before they are matched.
    pub normalization: Normalization,
    /// How long a DNS answer is used when it says nothing itself.
    pub dns_refresh: Duration,
}

/// Where and how requests and connections are logged.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AccessLogInput {
    /// A file; `/dev/stdout` is usual.
    pub path: String,
    /// An Envoy format string, or a JSON object of them; `None` for Istio's default.
    pub format: Option<String>,
    /// Whether lines are JSON objects.
    pub json: bool,
}

/// How request paths are normalised before they are matched (Istio's `pathNormalization`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Normalization {
    /// Not at all.
    None,
    /// RFC 3986 §6.2.2: dot segments and percent-encoding.
    #[default]
    Base,
    /// As `Base`, and `//` becomes `/`.
    MergeSlashes,
    /// As `MergeSlashes`, and `%2F` and `%5C` are decoded first.
    DecodeAndMergeSlashes,
}

/// What a sidecar does with connections that no listener of their own claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OutboundPolicy {
    /// They are closed: only what the registry holds may be reached.
    RegistryOnly,
    /// They are passed on to where they were going.
    AllowAny,
}

/// A sidecar's capturing listener.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OutboundInputs {
    /// How connections come in.
    pub capture: Capture,
    /// What happens to those that nothing claims.
    pub policy: OutboundPolicy,
}

/// One listener.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListenerInput {
    /// Istio's name for it: `0.0.0.0_443`.
    pub name: String,
    /// The address that it is bound to, or would be.
    pub address: IpAddr,
    /// The port that it is bound to, or would be.
    pub port: u16,
    /// Whether a socket is bound (gateways) or connections are handed over (sidecars).
    pub is_bound: bool,
    /// The ports by which users know the listener: its own, and those that `Gateway` servers declare
    /// when a Service translates them. `EnvoyFilter` port matches look at all of them.
    pub known_ports: Vec<u16>,
    /// The chains, in order.
    pub chains: Vec<ChainInput>,
    /// What happens to connections that no chain claims; `None` closes them.
    pub fallback: Option<OutboundPolicy>,
}

/// One filter chain of a listener.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ChainInput {
    /// The chain's name; unique in its listener.
    pub name: String,
    /// The server names (SNI) that it claims; empty for any, or none at all.
    pub server_names: Vec<String>,
    /// The original destinations that it claims; empty for any.
    pub subnets: Vec<Cidr>,
    /// Whether it claims only what is not TLS.
    pub is_plain_only: bool,
    /// The TLS that is terminated before anything else is read.
    pub tls: Option<ServerTls>,
    /// What is done with the bytes.
    pub handler: Handler,
    /// The user's resource that asked for it, as Istio's `config` metadata names it.
    pub config: Option<String>,
}

/// What a chain does with the bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Handler {
    /// Reads HTTP and routes by this route table.
    Http {
        /// The name of the route table.
        routes: String,
        /// The prefix of its statistics.
        stat_prefix: String,
        /// Whether the proxy is the first hop that sees the client (a gateway).
        is_edge: bool,
    },
    /// Forwards bytes.
    Tcp {
        /// Where to; more than one share by weight.
        targets: Vec<Target>,
        /// The prefix of its statistics.
        stat_prefix: String,
    },
}

/// A cluster and its share.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// The name of the cluster.
    pub cluster: String,
    /// The share, relative to the other targets. Never 0.
    pub weight: u32,
    /// Header changes for requests that go there (HTTP only).
    pub headers: HeaderChanges,
    /// A Host header in place of the client's, for requests that go there (HTTP only).
    pub host_rewrite: Option<String>,
}

/// The TLS that a gateway terminates.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerTls {
    /// The SDS name of the certificate: `file-cert:CERT~KEY`, `default`.
    pub certificate: String,
    /// The SDS name of the roots for client certificates; `None` when none is asked for.
    pub client_roots: Option<String>,
    /// Whether a client certificate is demanded.
    pub is_client_required: bool,
    /// The names of which a client certificate must hold one; empty for any.
    pub client_names: Vec<NameMatch>,
    /// The protocols offered by ALPN.
    pub alpn: Vec<String>,
    /// The oldest TLS version accepted.
    pub version_min: TlsVersion,
    /// The newest TLS version accepted.
    pub version_max: TlsVersion,
    /// Cipher suites, in OpenSSL's spelling; empty for the defaults.
    pub ciphers: Vec<String>,
}

/// A TLS protocol version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TlsVersion {
    /// Left to the proxy.
    #[default]
    Auto,
    /// TLS 1.0.
    V1_0,
    /// TLS 1.1.
    V1_1,
    /// TLS 1.2.
    V1_2,
    /// TLS 1.3.
    V1_3,
}

/// A subject alternative name that a certificate must hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NameMatch {
    /// This name: a URI when it has a scheme, an address when it parses as one, else a DNS name.
    Exact(String),
    /// A URI that starts so: any identity of a trust domain.
    UriPrefix(String),
}

/// One route table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RouteTable {
    /// Its RDS name.
    pub name: String,
    /// The ports by which users know the listener that it belongs to.
    pub known_ports: Vec<u16>,
    /// The `Gateway`, as `namespace/name`, for gateways.
    pub gateway: Option<String>,
    /// The hosts, in order.
    pub hosts: Vec<VirtualHostInput>,
    /// What happens to requests for other hosts; `None` answers 404.
    pub fallback: Option<OutboundPolicy>,
}

/// The routes of one or more host names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VirtualHostInput {
    /// Istio's name for it: `host:port`.
    pub name: String,
    /// The names in the Host header.
    pub domains: Vec<String>,
    /// Whether plain HTTP is redirected to https.
    pub is_tls_required: bool,
    /// The routes, in order.
    pub routes: Vec<RouteInput>,
}

/// One route.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RouteInput {
    /// The user's name for it, or `default`.
    pub name: String,
    /// Which requests it claims.
    pub matches: RequestMatch,
    /// What is done with them.
    pub action: RouteAction,
    /// Header changes.
    pub headers: HeaderChanges,
    /// The user's resource that asked for it, as Istio's `config` metadata names it.
    pub config: Option<String>,
}

/// Which requests a route claims. All parts must hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RequestMatch {
    /// The path.
    pub path: PathMatch,
    /// Whether the path is matched without regard to case.
    pub is_case_ignored: bool,
    /// Headers and pseudo-headers.
    pub headers: Vec<HeaderMatch>,
    /// Query parameters.
    pub query: Vec<(String, TextMatch)>,
}

/// How a path is matched.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathMatch {
    /// The whole path, without the query.
    Exact(String),
    /// The start of the path.
    Prefix(String),
    /// The whole path, by an RE2 expression.
    Regex(String),
}

/// How a text is matched.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TextMatch {
    /// The whole text.
    Exact(String),
    /// The start of the text.
    Prefix(String),
    /// The whole text, by an RE2 expression.
    Regex(String),
    /// Anything, as long as it is there.
    Present,
}

/// How a header is matched.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HeaderMatch {
    /// The header, or a pseudo-header such as `:method`.
    pub name: String,
    /// What its value must be.
    pub value: TextMatch,
    /// Whether the match is turned round.
    pub is_inverted: bool,
}

/// What a route does.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RouteAction {
    /// Forwards the request.
    Forward(Forward),
    /// Answers with a redirect.
    Redirect(Redirect),
    /// Answers at once.
    Respond {
        /// The status code.
        status: u32,
        /// The body.
        body: Option<Vec<u8>>,
    },
}

/// How a request is forwarded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Forward {
    /// Where to.
    pub targets: Vec<Target>,
    /// How long the whole answer may take; `None` for no limit.
    pub timeout: Option<Duration>,
    /// When and how often to try again; `None` for never.
    pub retries: Option<Retries>,
    /// A Host header in place of the client's.
    pub host_rewrite: Option<String>,
    /// What replaces the matched prefix, or the whole path of an exact match.
    pub path_rewrite: Option<String>,
    /// An RE2 expression on the path, and its substitution.
    pub regex_rewrite: Option<(String, String)>,
}

/// When and how often to try again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Retries {
    /// The number of tries after the first.
    pub attempts: u32,
    /// How long one try may take; `None` for as long as the whole.
    pub per_try_timeout: Option<Duration>,
    /// Envoy's conditions, joined by commas.
    pub on: String,
    /// The status codes that `retriable-status-codes` stands for.
    pub status_codes: Vec<u32>,
    /// The wait before the second try; `None` for the proxy's own (25 ms).
    pub backoff: Option<Duration>,
    /// Whether another endpoint is drawn when one was tried already.
    pub avoids_tried: bool,
}

/// Where a redirect points.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Redirect {
    /// Another host.
    pub host: Option<String>,
    /// Another path.
    pub path: Option<String>,
    /// What replaces the matched prefix.
    pub prefix: Option<String>,
    /// Another scheme.
    pub scheme: Option<String>,
    /// Another port.
    pub port: Option<u16>,
    /// 301, 302, 303, 307 or 308.
    pub status: u32,
}

/// Header changes, of requests and of responses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HeaderChanges {
    /// Of the request.
    pub request: HeaderEdits,
    /// Of the response.
    pub response: HeaderEdits,
}

/// Changes to one set of headers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HeaderEdits {
    /// Replaced or added.
    pub set: Vec<(String, String)>,
    /// Added beside what is there.
    pub add: Vec<(String, String)>,
    /// Taken out.
    pub remove: Vec<String>,
}

/// One cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClusterInput {
    /// Its name: `outbound|443|subset|host`.
    pub name: String,
    /// The host of the service, for `EnvoyFilter` matches.
    pub host: String,
    /// The service's port, for `EnvoyFilter` matches; 0 for built-in clusters.
    pub port: u16,
    /// The subset, for `EnvoyFilter` matches; empty for the whole service.
    pub subset: String,
    /// How its endpoints are found.
    pub discovery: Discovery,
    /// How an endpoint is chosen.
    pub balance: Balance,
    /// Which HTTP it speaks.
    pub protocol: UpstreamProtocol,
    /// The TLS that is originated.
    pub tls: Option<ClientTls>,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// The user's `DestinationRule`, as Istio's `config` metadata names it.
    pub config: Option<String>,
}

/// How a cluster's endpoints are found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Discovery {
    /// Sent over EDS under the cluster's name.
    Eds(Vec<EndpointInput>),
    /// By resolving these names; every address of an answer is an endpoint.
    Dns(Vec<EndpointInput>),
    /// By resolving this name; a new connection goes to the first address of the newest answer.
    LogicalDns(EndpointInput),
    /// By the address that the client was going to.
    OriginalDestination,
    /// There are none: the cluster refuses everything.
    BlackHole,
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointInput {
    /// An IP address, a name for the DNS kinds of [`Discovery`], or the path of a unix socket.
    pub address: String,
    /// The port; `None` for a unix socket.
    pub port: Option<u16>,
    /// The share; at least 1.
    pub weight: u32,
}

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Balance {
    /// The less loaded of two drawn at random.
    #[default]
    LeastRequest,
    /// One after the other.
    RoundRobin,
    /// Drawn at random.
    Random,
    /// The address that the client was going to.
    Passthrough,
}

/// Which HTTP a cluster speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum UpstreamProtocol {
    /// HTTP/1.1, or bytes.
    #[default]
    Http1,
    /// HTTP/2.
    Http2,
}

/// The TLS that a cluster originates.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientTls {
    /// The SDS name of the client certificate.
    pub certificate: Option<String>,
    /// The SDS name of the roots; `None` verifies nothing (`insecureSkipVerify`).
    pub roots: Option<String>,
    /// The server name sent; empty for none of its own.
    pub sni: String,
    /// The names of which the server's certificate must hold one.
    pub names: Vec<NameMatch>,
    /// Whether the request's host is sent as server name.
    pub is_sni_auto: bool,
    /// Whether the server name sent is verified in the certificate.
    pub is_name_check_auto: bool,
    /// The protocols offered by ALPN.
    pub alpn: Vec<String>,
}

/// What the resolver answers for one name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NameInput {
    /// The name; `*.suffix` for all below.
    pub host: String,
    /// The addresses.
    pub addresses: Vec<IpAddr>,
    /// Whether it is a Service of the platform, and then its short name and namespace.
    pub service: Option<(String, String)>,
}

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
