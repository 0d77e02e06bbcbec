//! How names become addresses: the old fields of a cluster, the newer extension, dynamic clusters.

#![expect(deprecated, reason = "deprecated fields must be looked at to be refused or understood")]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::{
                Cluster as PbCluster,
                cluster::{DnsLookupFamily, RefreshRate},
            },
            core::v3::{Address, DnsResolutionConfig, DnsResolverOptions, TypedExtensionConfig},
        },
        extensions::{
            clusters::{
                dns::v3::{DnsCluster, dns_cluster::RefreshRate as NewRefreshRate},
                dynamic_forward_proxy::v3::{
                    ClusterConfig, cluster_config::ClusterImplementationSpecifier,
                },
            },
            common::dynamic_forward_proxy::v3::DnsCacheConfig,
            filters::http::dynamic_forward_proxy::v3::{
                FilterConfig as HttpForward, filter_config::ImplementationSpecifier,
            },
            network::dns_resolver::{
                cares::v3::CaresDnsResolverConfig, getaddrinfo::v3::GetAddrInfoDnsResolverConfig,
            },
        },
    },
    google::protobuf::{Any, Duration as PbDuration, value::Kind as ValueKind},
};

use super::{
    at::{At, fields, message_of},
    messages,
};
use crate::{DnsFamily, DnsOptions, DynamicForward, Reach};

/// Envoy's refresh rates.
const REFRESH: Duration = Duration::from_secs(5);
const CACHE_REFRESH: Duration = Duration::from_secs(60);
const CACHE_MIN_REFRESH: Duration = Duration::from_secs(5);
const HOST_TTL: Duration = Duration::from_secs(300);

/// Metadata of a cluster that says what it may reach.
const REACH: &str = "sluis.dev";

/// What a cluster's own fields say.
pub(super) fn options(at: &At<'_>, cluster: &PbCluster) -> DnsOptions {
    let mut dns = DnsOptions {
        family: family(at, cluster.dns_lookup_family),
        refresh: refresh(&at.field("dns_refresh_rate"), cluster.dns_refresh_rate.as_ref(), REFRESH),
        respect_ttl: cluster.respect_dns_ttl,
        jitter: messages::duration(&at.field("dns_jitter"), cluster.dns_jitter.as_ref())
            .unwrap_or_default(),
        failure: failure(
            &at.field("dns_failure_refresh_rate"),
            cluster.dns_failure_refresh_rate.as_ref(),
        ),
        use_tcp: cluster.use_tcp_for_dns_lookups,
        ..DnsOptions::default()
    };
    if !cluster.dns_resolvers.is_empty() {
        dns.resolvers = addresses(&at.field("dns_resolvers"), &cluster.dns_resolvers);
    }
    resolution(at, cluster.dns_resolution_config.as_ref(), &mut dns);
    resolver(at, cluster.typed_dns_resolver_config.as_ref(), &mut dns);
    dns
}

/// `envoy.clusters.dns`: the options, and whether all addresses are one endpoint (LOGICAL_DNS).
pub(super) fn cluster(at: &At<'_>, any: &Any) -> Option<(DnsOptions, bool)> {
    let config = at.unpack::<DnsCluster>(any)?;
    fields!(at, &config => DnsCluster {
        use {
            dns_refresh_rate, dns_failure_refresh_rate, respect_dns_ttl, dns_jitter,
            typed_dns_resolver_config, dns_lookup_family, all_addresses_in_single_endpoint,
            dns_min_refresh_rate,
        }
        accept {}
        refuse {}
    });
    let failure = dns_failure_refresh_rate.as_ref().map(|rate| {
        let NewRefreshRate { base_interval, max_interval } = *rate;
        RefreshRate { base_interval, max_interval }
    });
    // The newer enumeration has one more value before the others.
    let older = (*dns_lookup_family - 1).max(0);
    let mut dns = DnsOptions {
        family: family(at, older),
        refresh: refresh(&at.field("dns_refresh_rate"), dns_refresh_rate.as_ref(), REFRESH),
        respect_ttl: *respect_dns_ttl,
        min_refresh: messages::duration(
            &at.field("dns_min_refresh_rate"),
            dns_min_refresh_rate.as_ref(),
        )
        .unwrap_or_default(),
        jitter: messages::duration(&at.field("dns_jitter"), dns_jitter.as_ref())
            .unwrap_or_default(),
        failure: self::failure(&at.field("dns_failure_refresh_rate"), failure.as_ref()),
        ..DnsOptions::default()
    };
    resolver(at, typed_dns_resolver_config.as_ref(), &mut dns);
    Some((dns, *all_addresses_in_single_endpoint))
}

/// `envoy.clusters.dynamic_forward_proxy`.
pub(super) fn dynamic_cluster(
    at: &At<'_>,
    any: &Any,
    cluster: &PbCluster,
) -> Option<DynamicForward> {
    let config = at.unpack::<ClusterConfig>(any)?;
    fields!(at, &config => ClusterConfig {
        use { cluster_implementation_specifier }
        // Connections of one host are never given to another; what is insecure is refused below.
        accept { allow_coalesced_connections, allow_insecure_cluster_options }
        refuse {}
    });
    let Some(ClusterImplementationSpecifier::DnsCacheConfig(cache)) =
        cluster_implementation_specifier
    else {
        at.field("sub_clusters_config").unsupported();
        return None;
    };
    let reach = reach(cluster);
    Some(DynamicForward { reach, ..dns_cache(&at.field("dns_cache_config"), cache)? })
}

fn reach(cluster: &PbCluster) -> Reach {
    let metadata = cluster.metadata.as_ref().and_then(|all| all.filter_metadata.get(REACH));
    let value = |key: &str| metadata.and_then(|m| m.fields.get(key)).and_then(|v| v.kind.as_ref());
    let mut patterns: Vec<Arc<str>> = Vec::new();
    for key in ["pattern", "patterns"] {
        match value(key) {
            Some(ValueKind::StringValue(text)) => patterns.push(text.to_lowercase().into()),
            Some(ValueKind::ListValue(list)) => {
                patterns.extend(list.values.iter().filter_map(|value| match &value.kind {
                    Some(ValueKind::StringValue(text)) => Some(text.to_lowercase().into()),
                    _ => None,
                }));
            }
            _ => {}
        }
    }
    Reach {
        allow_private: matches!(value("allow_private"), Some(ValueKind::BoolValue(true))),
        patterns,
    }
}

/// A cache of names, as clusters and filters describe it.
pub(super) fn dns_cache(at: &At<'_>, config: &DnsCacheConfig) -> Option<DynamicForward> {
    fields!(at, config => DnsCacheConfig {
        use {
            name, dns_lookup_family, dns_refresh_rate, dns_min_refresh_rate, host_ttl, max_hosts,
            dns_failure_refresh_rate, dns_cache_circuit_breaker, use_tcp_for_dns_lookups,
            dns_resolution_config, typed_dns_resolver_config, dns_query_timeout,
        }
        // A failed look-up is asked again when somebody wants the name.
        accept { disable_dns_refresh_on_failure, preresolve_hostnames }
        refuse { key_value_config, resolved_address_filter }
    });
    if name.is_empty() {
        at.field("name").fault("is missing");
    }
    let time = |field: &str, value: &Option<PbDuration>, default| {
        messages::duration(&at.field(field), value.as_ref()).unwrap_or(default)
    };
    let mut dns = DnsOptions {
        family: family(at, *dns_lookup_family),
        refresh: time("dns_refresh_rate", dns_refresh_rate, CACHE_REFRESH),
        respect_ttl: true,
        min_refresh: time("dns_min_refresh_rate", dns_min_refresh_rate, CACHE_MIN_REFRESH),
        failure: failure(&at.field("dns_failure_refresh_rate"), dns_failure_refresh_rate.as_ref()),
        use_tcp: *use_tcp_for_dns_lookups,
        timeout: time("dns_query_timeout", dns_query_timeout, Duration::from_secs(5)),
        ..DnsOptions::default()
    };
    resolution(at, dns_resolution_config.as_ref(), &mut dns);
    resolver(at, typed_dns_resolver_config.as_ref(), &mut dns);
    let pending = dns_cache_circuit_breaker.as_ref().and_then(|b| b.max_pending_requests.as_ref());
    Some(DynamicForward {
        cache: name.as_str().into(),
        dns,
        host_ttl: time("host_ttl", host_ttl, HOST_TTL),
        max_hosts: messages::positive(&at.field("max_hosts"), max_hosts.as_ref(), 1024),
        max_pending: messages::number(pending).unwrap_or(1024),
        reach: Reach::default(),
    })
}

fn refresh(at: &At<'_>, value: Option<&PbDuration>, default: Duration) -> Duration {
    messages::duration(at, value).filter(|rate| !rate.is_zero()).unwrap_or(default)
}

fn failure(at: &At<'_>, rate: Option<&RefreshRate>) -> Option<(Duration, Duration)> {
    let rate = rate?;
    let base = messages::duration(&at.field("base_interval"), rate.base_interval.as_ref())?;
    let max = messages::duration(&at.field("max_interval"), rate.max_interval.as_ref());
    let max = max.unwrap_or(base * 10);
    if base.is_zero() || max < base {
        at.fault("needs a base_interval above 0 and a max_interval that is not shorter");
    }
    Some((base, max))
}

fn family(at: &At<'_>, family: i32) -> DnsFamily {
    match DnsLookupFamily::try_from(family) {
        Ok(DnsLookupFamily::Auto) => DnsFamily::V6Preferred,
        Ok(DnsLookupFamily::V4Only) => DnsFamily::V4Only,
        Ok(DnsLookupFamily::V6Only) => DnsFamily::V6Only,
        Ok(DnsLookupFamily::V4Preferred) => DnsFamily::V4Preferred,
        Ok(DnsLookupFamily::All) => DnsFamily::All,
        Err(_) => {
            at.field("dns_lookup_family").unsupported();
            DnsFamily::All
        }
    }
}

fn addresses(at: &At<'_>, list: &[Address]) -> Arc<[SocketAddr]> {
    let found = list.iter().enumerate().filter_map(|(index, address)| {
        let at = at.nth(index);
        match messages::address(&at, Some(address))? {
            crate::Address::Socket(address) => Some(address),
            crate::Address::Pipe(_) | crate::Address::Internal(_) => {
                at.fault("is not an IP address");
                None
            }
        }
    });
    found.collect()
}

fn resolution(at: &At<'_>, config: Option<&DnsResolutionConfig>, dns: &mut DnsOptions) {
    let Some(config) = config else { return };
    let at = at.field("dns_resolution_config");
    dns.resolvers = addresses(&at.field("resolvers"), &config.resolvers);
    resolver_options(config.dns_resolver_options.as_ref(), dns);
}

fn resolver_options(options: Option<&DnsResolverOptions>, dns: &mut DnsOptions) {
    let Some(options) = options else { return };
    dns.use_tcp = options.use_tcp_for_dns_lookups;
    dns.no_search = options.no_default_search_domain;
}

fn resolver(at: &At<'_>, config: Option<&TypedExtensionConfig>, dns: &mut DnsOptions) {
    let Some(any) = config.and_then(|config| config.typed_config.as_ref()) else { return };
    let at = at.field("typed_dns_resolver_config");
    let at = at.field("typed_config");
    match message_of(any) {
        "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig" => {
            let Some(config) = at.unpack::<CaresDnsResolverConfig>(any) else { return };
            fields!(&at, &config => CaresDnsResolverConfig {
                use { resolvers, dns_resolver_options, query_timeout_seconds, query_tries }
                // The library's own sockets and caches.
                accept {
                    filter_unroutable_families, udp_max_queries, edns0_max_payload_size,
                    max_udp_channel_duration, reinit_channel_on_timeout, qcache_max_ttl,
                    rotate_nameservers,
                }
                refuse { use_resolvers_as_fallback }
            });
            dns.resolvers = addresses(&at.field("resolvers"), resolvers);
            resolver_options(dns_resolver_options.as_ref(), dns);
            if let Some(seconds) = query_timeout_seconds {
                dns.timeout = Duration::from_secs(seconds.value.clamp(1, 300));
            }
            if let Some(tries) = messages::number(query_tries.as_ref()) {
                dns.tries = tries.clamp(1, 16);
            }
        }
        "envoy.extensions.network.dns_resolver.getaddrinfo.v3.GetAddrInfoDnsResolverConfig" => {
            // The system's servers, which are asked anyway.
            let _ = at.unpack::<GetAddrInfoDnsResolverConfig>(any);
        }
        other => at.fault(format!("{other} is not supported")),
    }
}

/// The HTTP filter that fills the cache in Envoy.
pub(super) fn http_filter(at: &At<'_>, any: &Any) {
    let Some(filter) = at.unpack::<HttpForward>(any) else { return };
    fields!(at, &filter => HttpForward {
        use { implementation_specifier }
        accept { save_upstream_address }
        refuse { allow_dynamic_host_from_filter_state }
    });
    match implementation_specifier {
        Some(ImplementationSpecifier::DnsCacheConfig(cache)) => {
            drop(dns_cache(&at.field("dns_cache_config"), cache));
        }
        _ => at.field("dns_cache_config").fault("is missing"),
    }
}
