//! Names that are resolved as clients ask for them: the cluster, and the filters that ask.
//!
//! All of a proxy share one cache: a filter fills the cache that the cluster reads, and both must
//! describe it alike.

use envoy_types::pb::{
    envoy::{
        config::cluster::v3::cluster::DnsLookupFamily,
        extensions::{
            clusters::dynamic_forward_proxy::v3::{
                ClusterConfig, cluster_config::ClusterImplementationSpecifier,
            },
            common::dynamic_forward_proxy::v3::DnsCacheConfig,
            filters::{
                http::dynamic_forward_proxy::v3::{
                    FilterConfig as HttpFilterConfig, filter_config::ImplementationSpecifier,
                },
                network::sni_dynamic_forward_proxy::v3::{
                    FilterConfig as SniFilterConfig, filter_config::PortSpecifier,
                },
            },
        },
    },
    google::protobuf::Any,
};
use sluis_envoy::pack;

use crate::{ClusterInput, DnsFamily};

/// The name of the one cache.
const CACHE: &str = "dynamic_dns";

/// The cluster's own configuration.
pub(super) fn cluster(input: &ClusterInput) -> Any {
    // Envoy wants the server name sent and checked to be the request's, or to be told that it is not.
    let is_loose =
        input.tls.as_ref().is_some_and(|tls| !(tls.is_sni_auto && tls.is_name_check_auto));
    pack(&ClusterConfig {
        allow_insecure_cluster_options: is_loose,
        cluster_implementation_specifier: Some(ClusterImplementationSpecifier::DnsCacheConfig(
            cache(input.dns_family),
        )),
        ..ClusterConfig::default()
    })
}

/// Resolves the Host of requests that are routed to such a cluster; it leaves the others alone.
pub(super) fn http_filter(family: DnsFamily) -> HttpFilterConfig {
    HttpFilterConfig {
        implementation_specifier: Some(ImplementationSpecifier::DnsCacheConfig(cache(family))),
        ..HttpFilterConfig::default()
    }
}

/// Resolves the server name that a client's TLS asks for.
pub(super) fn sni_filter(family: DnsFamily, port: u16) -> SniFilterConfig {
    SniFilterConfig {
        dns_cache_config: Some(cache(family)),
        port_specifier: Some(PortSpecifier::PortValue(u32::from(port))),
        ..SniFilterConfig::default()
    }
}

/// The one cache of a proxy.
fn cache(family: DnsFamily) -> DnsCacheConfig {
    let family = match family {
        DnsFamily::V4 => DnsLookupFamily::V4Only,
        DnsFamily::V6 => DnsLookupFamily::V6Only,
        DnsFamily::All => DnsLookupFamily::All,
    };
    DnsCacheConfig {
        name: CACHE.to_owned(),
        dns_lookup_family: family.into(),
        ..DnsCacheConfig::default()
    }
}
