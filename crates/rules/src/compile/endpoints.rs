//! Endpoints: addresses, weights, priorities, health.

use std::sync::Arc;

use envoy_types::pb::{
    envoy::config::{
        core::v3::HealthStatus,
        endpoint::v3::{
            ClusterLoadAssignment, Endpoint as PbEndpoint, LbEndpoint, LocalityLbEndpoints,
            cluster_load_assignment::Policy, lb_endpoint::HostIdentifier,
        },
    },
    google::protobuf::value::Kind as ValueKind,
};

use super::{
    at::{At, fields},
    balance, checks, messages,
    sockets::Sockets,
};
use crate::{Endpoint, Endpoints, Health};

/// Metadata under which an endpoint says which transport socket it wants.
const SOCKET_METADATA: &str = "envoy.transport_socket_match";

/// Metadata under which an endpoint says which subsets it belongs to, and by what it is placed.
const BALANCE_METADATA: &str = "envoy.lb";

pub(super) fn endpoints(
    at: &At<'_>,
    assignment: &ClusterLoadAssignment,
    sockets: &Sockets,
) -> Endpoints {
    fields!(at, assignment => ClusterLoadAssignment {
        use { endpoints, policy }
        accept { cluster_name }
        refuse { named_endpoints }
    });
    let mut compiled = Endpoints::default();
    if let Some(policy) = policy {
        let at = at.field("policy");
        fields!(&at, policy => Policy {
            use { overprovisioning_factor, drop_overloads, weighted_priority_health }
            // What was sent holds until something else is sent.
            accept { endpoint_stale_after }
            refuse {}
        });
        compiled.overprovisioning = messages::positive(
            &at.field("overprovisioning_factor"),
            overprovisioning_factor.as_ref(),
            compiled.overprovisioning,
        );
        compiled.weighted_health = *weighted_priority_health;
        for drop in drop_overloads {
            let Some(fraction) = &drop.drop_percentage else { continue };
            let scale = match fraction.denominator {
                0 => 10_000,
                1 => 100,
                _ => 1,
            };
            let millionths = fraction.numerator.saturating_mul(scale).min(1_000_000);
            compiled.drops.push((drop.category.as_str().into(), millionths));
        }
    }
    let field = at.field("endpoints");
    for (index, group) in endpoints.iter().enumerate() {
        locality(&field.nth(index), group, sockets, &mut compiled.list);
    }
    compiled.list.sort_by_key(|endpoint| endpoint.priority);
    compiled
}

fn locality(at: &At<'_>, group: &LocalityLbEndpoints, sockets: &Sockets, list: &mut Vec<Endpoint>) {
    fields!(at, group => LocalityLbEndpoints {
        use { locality, lb_endpoints, load_balancing_weight, priority }
        accept { metadata, proximity }
        refuse { lb_config }
    });
    let name: Arc<str> = locality.as_ref().map_or_else(Arc::default, |locality| {
        let parts = [&locality.region, &locality.zone, &locality.sub_zone];
        let parts: Vec<&str> =
            parts.into_iter().map(String::as_str).take_while(|part| !part.is_empty()).collect();
        parts.join("/").into()
    });
    let share = messages::number(load_balancing_weight.as_ref()).unwrap_or(0);
    let field = at.field("lb_endpoints");
    for (index, entry) in lb_endpoints.iter().enumerate() {
        let at = field.nth(index);
        if let Some(endpoint) = endpoint(&at, entry, sockets) {
            list.push(Endpoint {
                priority: *priority,
                locality: Arc::clone(&name),
                locality_weight: share,
                ..endpoint
            });
        }
    }
}

fn endpoint(at: &At<'_>, entry: &LbEndpoint, sockets: &Sockets) -> Option<Endpoint> {
    fields!(at, entry => LbEndpoint {
        use { health_status, metadata, load_balancing_weight, host_identifier }
        accept {}
        refuse {}
    });
    let health = match HealthStatus::try_from(*health_status) {
        Ok(HealthStatus::Unknown | HealthStatus::Healthy) => Health::Healthy,
        Ok(HealthStatus::Degraded) => Health::Degraded,
        Ok(HealthStatus::Unhealthy | HealthStatus::Timeout) => Health::Unhealthy,
        Ok(HealthStatus::Draining) => Health::Draining,
        Err(_) => {
            at.field("health_status").unsupported();
            Health::Unhealthy
        }
    };
    let Some(HostIdentifier::Endpoint(host)) = host_identifier else {
        at.field("endpoint").fault("is missing");
        return None;
    };
    let place = at.field("endpoint");
    fields!(&place, host => PbEndpoint {
        use { address, hostname, health_check_config }
        accept { observability_name }
        refuse { additional_addresses }
    });
    let of = |key| metadata.as_ref().and_then(|all| all.filter_metadata.get(key));
    let transport = sockets.of(of(SOCKET_METADATA));
    let balance = of(BALANCE_METADATA);
    let hash_key = balance.and_then(|all| all.fields.get("hash_key")?.kind.as_ref());
    Some(Endpoint {
        hostname: (!hostname.is_empty()).then(|| hostname.as_str().into()),
        weight: messages::positive(
            &at.field("load_balancing_weight"),
            load_balancing_weight.as_ref(),
            1,
        ),
        health,
        labels: balance::labels(balance),
        hash_key: match hash_key {
            Some(ValueKind::StringValue(key)) => Some(key.as_str().into()),
            _ => None,
        },
        tls: transport.tls,
        hop: transport.hop,
        probe: checks::probe_address(
            &place.field("health_check_config"),
            health_check_config.as_ref(),
        ),
        ..Endpoint::new(messages::endpoint_address(&place.field("address"), address.as_ref())?)
    })
}
