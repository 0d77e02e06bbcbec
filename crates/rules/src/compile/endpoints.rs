//! Endpoints: addresses, weights, priorities, health.

use std::sync::Arc;

use envoy_types::pb::envoy::config::{
    core::v3::HealthStatus,
    endpoint::v3::{
        ClusterLoadAssignment, Endpoint as PbEndpoint, LbEndpoint, LocalityLbEndpoints,
        cluster_load_assignment::Policy, lb_endpoint::HostIdentifier,
    },
};

use super::{
    at::{At, fields},
    cluster::Sockets,
    messages,
};
use crate::{Endpoint, Endpoints, Health};

/// Metadata under which an endpoint says which transport socket it wants.
const SOCKET_METADATA: &str = "envoy.transport_socket_match";

/// The only factor that the balancer knows; Envoy's default.
const OVERPROVISIONING: u32 = 140;

/// Steps into which the share of a locality is cut among its endpoints.
const LOCALITY_STEPS: u64 = 1 << 16;

pub(super) fn endpoints(
    at: &At<'_>,
    assignment: &ClusterLoadAssignment,
    sockets: &Sockets,
    locality_weighted: bool,
) -> Endpoints {
    fields!(at, assignment => ClusterLoadAssignment {
        use { endpoints, policy }
        accept { cluster_name }
        refuse { named_endpoints }
    });
    if let Some(policy) = policy {
        let at = at.field("policy");
        fields!(&at, policy => Policy {
            use { overprovisioning_factor }
            accept {}
            refuse { drop_overloads, endpoint_stale_after, weighted_priority_health }
        });
        if messages::number(overprovisioning_factor.as_ref()).unwrap_or(OVERPROVISIONING)
            != OVERPROVISIONING
        {
            at.field("overprovisioning_factor").unsupported();
        }
    }
    let field = at.field("endpoints");
    let mut list = Vec::new();
    for (index, group) in endpoints.iter().enumerate() {
        locality(&field.nth(index), group, sockets, locality_weighted, &mut list);
    }
    list.sort_by_key(|endpoint| endpoint.priority);
    Endpoints { list }
}

fn locality(
    at: &At<'_>,
    group: &LocalityLbEndpoints,
    sockets: &Sockets,
    weighted: bool,
    list: &mut Vec<Endpoint>,
) {
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
    let first = list.len();
    let field = at.field("lb_endpoints");
    for (index, entry) in lb_endpoints.iter().enumerate() {
        let at = field.nth(index);
        if let Some(endpoint) = endpoint(&at, entry, sockets) {
            list.push(Endpoint { priority: *priority, locality: Arc::clone(&name), ..endpoint });
        }
    }
    if !weighted {
        return;
    }
    // A locality without a weight gets nothing when localities are weighted.
    let Some(share) = messages::number(load_balancing_weight.as_ref()).filter(|share| *share > 0)
    else {
        list.truncate(first);
        return;
    };
    let total: u64 = list[first..].iter().map(|endpoint| u64::from(endpoint.weight)).sum();
    for endpoint in &mut list[first..] {
        let weight = u128::from(endpoint.weight) * u128::from(share) * u128::from(LOCALITY_STEPS);
        let weight = weight / u128::from(total.max(1));
        endpoint.weight = u32::try_from(weight).unwrap_or(u32::MAX).max(1);
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
        Ok(HealthStatus::Unhealthy | HealthStatus::Draining | HealthStatus::Timeout) => {
            Health::Unhealthy
        }
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
        use { address, hostname }
        // There is no active health checking: clusters that ask for it are refused.
        accept { health_check_config, observability_name }
        refuse { additional_addresses }
    });
    let wanted = metadata.as_ref().and_then(|all| all.filter_metadata.get(SOCKET_METADATA));
    Some(Endpoint {
        address: messages::endpoint_address(&place.field("address"), address.as_ref())?,
        hostname: (!hostname.is_empty()).then(|| hostname.as_str().into()),
        weight: messages::positive(
            &at.field("load_balancing_weight"),
            load_balancing_weight.as_ref(),
            1,
        ),
        priority: 0,
        health,
        locality: Arc::default(),
        tls: sockets.of(wanted),
    })
}
