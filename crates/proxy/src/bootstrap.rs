//! Reads an Envoy bootstrap: who we are, where the control plane is, what is fixed.
//!
//! In:    an `envoy.config.bootstrap.v3.Bootstrap`.
//! Out:   a [`Bootstrap`], or the field that is not understood.
//! Never: skips a field that changes what the proxy does; reads a file that the message names.

use std::{collections::BTreeMap, path::PathBuf};

use envoy_types::pb::{
    envoy::config::{
        bootstrap::v3::{
            self as pb,
            bootstrap::{DynamicResources, StaticResources},
        },
        core::v3::{
            ApiConfigSource, ConfigSource, Node, address, api_config_source::ApiType,
            config_source::ConfigSourceSpecifier, grpc_service::TargetSpecifier, socket_address,
        },
    },
    google::protobuf::value::Kind as ValueKind,
};
use prost::Message as _;
use sluis_envoy::ResourceSet;
use sluis_rules::Address;

/// What the proxy was started with.
#[derive(Clone, Debug)]
pub struct Bootstrap {
    /// Who we are, as xDS is told.
    pub node: Node,
    /// The strings of the node's metadata.
    pub metadata: BTreeMap<String, String>,
    /// What is fixed: static listeners, clusters and secrets.
    pub fixed: ResourceSet,
    /// The cluster, among the fixed ones, through which ADS is spoken; `None` without a control
    /// plane.
    pub ads_cluster: Option<String>,
    /// Where the admin server listens, and the permissions when that is a Unix socket.
    pub admin: Option<(Address, u32)>,
}

/// Why a bootstrap is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// The bytes are not a bootstrap.
    #[error("not an Envoy bootstrap in binary protobuf: {0}")]
    Bytes(#[from] prost::DecodeError),
    /// A field is not supported, or not with this value.
    #[error("bootstrap field {field}: {message}")]
    Field {
        /// The path of the field.
        field: String,
        /// What is wrong.
        message: String,
    },
}

fn fault<T>(field: &str, message: impl Into<String>) -> Result<T, BootstrapError> {
    Err(BootstrapError::Field { field: field.to_owned(), message: message.into() })
}

/// Permissions of an admin socket whose bootstrap says nothing: the owner alone.
const ADMIN_MODE: u32 = 0o600;

impl Bootstrap {
    /// Reads the binary form.
    ///
    /// # Errors
    ///
    /// [`BootstrapError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BootstrapError> {
        Self::from_message(pb::Bootstrap::decode(bytes)?)
    }

    /// Takes a message over.
    ///
    /// # Errors
    ///
    /// [`BootstrapError::Field`] for the first field that is not supported.
    pub fn from_message(message: pb::Bootstrap) -> Result<Self, BootstrapError> {
        let mut rest = message;
        let node = rest.node.take().unwrap_or_default();
        let fixed = fixed(rest.static_resources.take().unwrap_or_default())?;
        let ads_cluster = rest.dynamic_resources.take().map(ads_cluster).transpose()?;
        let admin = rest.admin.take().map(admin).transpose()?.flatten();
        refuse_the_rest(rest)?;
        if let Some(name) = &ads_cluster
            && !fixed.clusters.contains_key(name)
        {
            return fault(
                "dynamic_resources.ads_config.grpc_services",
                format!("there is no static cluster {name}"),
            );
        }
        Ok(Self { metadata: strings(&node), node, fixed, ads_cluster, admin })
    }

    /// One string of the node's metadata; an empty one counts as absent.
    #[must_use]
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A path in the node's metadata.
    #[must_use]
    pub fn path(&self, key: &str) -> Option<PathBuf> {
        self.metadata(key).map(PathBuf::from)
    }

    /// The workers that the metadata asks for (`SLUIS_WORKERS`).
    ///
    /// # Errors
    ///
    /// [`BootstrapError::Field`] when it is no number from 1 to 1024.
    pub fn workers(&self) -> Result<Option<usize>, BootstrapError> {
        let Some(text) = self.metadata("SLUIS_WORKERS") else { return Ok(None) };
        match text.parse() {
            Ok(count @ 1..=1024) => Ok(Some(count)),
            _ => fault("node.metadata.SLUIS_WORKERS", format!("{text:?} is not 1 to 1024")),
        }
    }
}

/// Clears what cannot change our behaviour; anything that is then left is refused by name.
#[expect(deprecated, reason = "deprecated fields are refused by name like the others")]
fn refuse_the_rest(mut rest: pb::Bootstrap) -> Result<(), BootstrapError> {
    // Envoy's own metrics, watchdog, allocator and thread tuning: nothing here behaves by them.
    rest.stats_config = None;
    rest.stats_flush_interval = None;
    rest.stats_flush = None;
    rest.stats_eviction = None;
    rest.deferred_stat_options = None;
    rest.watchdog = None;
    rest.watchdogs = None;
    rest.enable_dispatcher_stats = false;
    rest.stats_server_version_override = None;
    rest.perf_tracing_file_path.clear();
    rest.memory_allocator_manager = None;
    rest.grpc_async_client_manager_config = None;
    rest.enable_worker_cpu_affinity = false;
    rest.application_log_config = None;
    // Envoy's feature flags are named after its own code.
    rest.layered_runtime = None;
    rest.flags_path.clear();
    rest.node_context_params.clear();
    // Names are resolved by the operating system here.
    rest.typed_dns_resolver_config = None;
    // No circuit of ours is outside of clusters.
    if let Some(manager) = &mut rest.cluster_manager {
        manager.enable_deferred_cluster_creation = false;
        if manager.outlier_detection.is_none()
            && manager.upstream_bind_config.is_none()
            && manager.load_stats_config.is_none()
        {
            rest.cluster_manager = None;
        }
    }
    macro_rules! refuse {
        ($($field:ident),* $(,)?) => {
            $(if rest.$field != pb::Bootstrap::default().$field {
                return fault(stringify!($field), "is not supported");
            })*
        };
    }
    refuse!(
        cluster_manager,
        hds_config,
        stats_sinks,
        tracing,
        overload_manager,
        header_prefix,
        use_tcp_for_dns_lookups,
        dns_resolution_config,
        bootstrap_extensions,
        fatal_actions,
        config_sources,
        default_config_source,
        default_socket_interface,
        certificate_provider_instances,
        inline_headers,
        default_regex_engine,
        xds_delegate_extension,
        xds_config_tracker_extension,
        listener_manager,
    );
    if rest != pb::Bootstrap::default() {
        return fault("", "a field that this version does not know");
    }
    Ok(())
}

fn fixed(resources: StaticResources) -> Result<ResourceSet, BootstrapError> {
    let mut set = ResourceSet::default();
    for (index, cluster) in resources.clusters.into_iter().enumerate() {
        let name = cluster.name.clone();
        if set.clusters.insert(name.clone(), cluster.into()).is_some() {
            return fault(
                &format!("static_resources.clusters[{index}].name"),
                format!("{name:?} is there twice"),
            );
        }
    }
    for (index, listener) in resources.listeners.into_iter().enumerate() {
        // Envoy gives nameless listeners a name of its own.
        let name = match listener.name.as_str() {
            "" => format!("listener_{index}"),
            name => name.to_owned(),
        };
        let mut listener = listener;
        listener.name.clone_from(&name);
        if set.listeners.insert(name.clone(), listener.into()).is_some() {
            return fault(
                &format!("static_resources.listeners[{index}].name"),
                format!("{name:?} is there twice"),
            );
        }
    }
    for secret in resources.secrets {
        set.secrets.insert(secret.name.clone(), secret.into());
    }
    Ok(set)
}

fn ads_cluster(dynamic: DynamicResources) -> Result<String, BootstrapError> {
    for (field, source) in [("lds_config", dynamic.lds_config), ("cds_config", dynamic.cds_config)]
    {
        if source.is_some_and(|source| !is_ads(&source)) {
            return fault(&format!("dynamic_resources.{field}"), "only ads is supported");
        }
    }
    for (field, text) in [
        ("lds_resources_locator", dynamic.lds_resources_locator),
        ("cds_resources_locator", dynamic.cds_resources_locator),
    ] {
        if !text.is_empty() {
            return fault(&format!("dynamic_resources.{field}"), "is not supported");
        }
    }
    let at = "dynamic_resources.ads_config";
    let Some(ads) = dynamic.ads_config else { return fault(at, "is missing") };
    ads_service(at, ads)
}

fn ads_service(at: &str, ads: ApiConfigSource) -> Result<String, BootstrapError> {
    if !matches!(ads.api_type(), ApiType::Grpc | ApiType::DeltaGrpc) {
        return fault(&format!("{at}.api_type"), "only GRPC and DELTA_GRPC are supported");
    }
    let [service] = &ads.grpc_services[..] else {
        return fault(&format!("{at}.grpc_services"), "exactly one is supported");
    };
    match &service.target_specifier {
        Some(TargetSpecifier::EnvoyGrpc(target)) => Ok(target.cluster_name.clone()),
        _ => fault(&format!("{at}.grpc_services[0]"), "only envoy_grpc is supported"),
    }
}

fn is_ads(source: &ConfigSource) -> bool {
    matches!(source.config_source_specifier, Some(ConfigSourceSpecifier::Ads(_)))
}

fn admin(admin: pb::Admin) -> Result<Option<(Address, u32)>, BootstrapError> {
    // Its access log and profile path concern Envoy's own admin server.
    let Some(address) = admin.address.and_then(|address| address.address) else { return Ok(None) };
    match address {
        address::Address::SocketAddress(socket) => {
            let at = "admin.address.socket_address";
            let Some(socket_address::PortSpecifier::PortValue(port)) = socket.port_specifier else {
                return fault(at, "has no port_value");
            };
            let ip = socket.address.parse().ok();
            match ip.zip(u16::try_from(port).ok()) {
                Some((ip, port)) => {
                    Ok(Some((Address::Socket(std::net::SocketAddr::new(ip, port)), ADMIN_MODE)))
                }
                None => fault(at, format!("{}:{port} is no IP address and port", socket.address)),
            }
        }
        address::Address::Pipe(pipe) => {
            let mode = if pipe.mode == 0 { ADMIN_MODE } else { pipe.mode };
            Ok(Some((Address::Pipe(PathBuf::from(pipe.path).into()), mode)))
        }
        address::Address::EnvoyInternalAddress(_) => {
            fault("admin.address.envoy_internal_address", "is not supported")
        }
    }
}

fn strings(node: &Node) -> BTreeMap<String, String> {
    let fields = node.metadata.iter().flat_map(|metadata| &metadata.fields);
    fields
        .filter_map(|(key, value)| match &value.kind {
            Some(ValueKind::StringValue(text)) => Some((key.clone(), text.clone())),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(message: pb::Bootstrap, field: &str) {
        match Bootstrap::from_message(message) {
            Err(BootstrapError::Field { field: found, .. }) => assert_eq!(found, field),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_field_that_is_not_understood_is_refused_by_name() {
        let header_prefix = "x-".to_owned();
        refused(pb::Bootstrap { header_prefix, ..Default::default() }, "header_prefix");
        let dynamic_resources = Some(DynamicResources::default());
        refused(
            pb::Bootstrap { dynamic_resources, ..Default::default() },
            "dynamic_resources.ads_config",
        );
        assert!(Bootstrap::from_bytes(b"\xff\xff").is_err());
    }

    #[test]
    fn what_only_tunes_envoy_itself_is_let_through() {
        let message = pb::Bootstrap {
            enable_dispatcher_stats: true,
            layered_runtime: Some(pb::LayeredRuntime::default()),
            ..Default::default()
        };
        let bootstrap = Bootstrap::from_message(message).unwrap();
        assert!(bootstrap.ads_cluster.is_none() && bootstrap.admin.is_none());
        assert_eq!(bootstrap.workers().unwrap(), None);
    }
}
