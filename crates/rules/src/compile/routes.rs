//! Route tables: virtual hosts, matches, actions.

#![expect(deprecated, reason = "deprecated fields must be looked at to be refused or understood")]

mod action;
mod hash;
pub(super) mod matches;
mod retry;

use std::sync::Arc;

use envoy_types::pb::{
    envoy::config::{
        core::v3::{HeaderValueOption, Metadata},
        route::v3::{
            Route as PbRoute, RouteConfiguration, VirtualHost as PbHost,
            virtual_host::TlsRequirementType,
        },
    },
    google::protobuf::{Struct, value::Kind as ValueKind},
};

use super::{
    at::{At, fields},
    filters, messages, values,
};
use crate::{
    HeaderMutations, Route, RouteTable, TlsRequirement, VirtualHost,
    route::{DuplicateDomain, HostTable, RouteIndex},
};

pub(super) fn table(at: &At<'_>, config: &RouteConfiguration) -> Option<RouteTable> {
    fields!(at, config => RouteConfiguration {
        use {
            name, virtual_hosts, response_headers_to_add, response_headers_to_remove,
            request_headers_to_add, request_headers_to_remove, most_specific_header_mutations_wins,
            ignore_port_in_host_matching, typed_per_filter_config, request_mirror_policies,
        }
        // A route to a cluster that does not exist answers 503 either way. Direct responses are
        // bounded by the size of a message. Metadata is not for us.
        accept { validate_clusters, max_direct_response_body_size_bytes, metadata }
        refuse {
            vhds, internal_only_headers, cluster_specifier_plugins, vhost_header, ignore_path_parameters_in_path_matching, route_specifiers,
        }
    });
    let hosts = at.field("virtual_hosts");
    let virtual_hosts: Vec<VirtualHost> = virtual_hosts
        .iter()
        .enumerate()
        .map(|(index, host)| virtual_host(&hosts.nth(index), host))
        .collect();
    let domains = virtual_hosts
        .iter()
        .enumerate()
        .flat_map(|(at, host)| host.domains.iter().map(move |domain| (at, &**domain)));
    let table = HostTable::build(domains).map_err(|DuplicateDomain(domain)| {
        hosts.fault(format!("has the domain {domain:?} twice"));
    });
    Some(RouteTable {
        name: name.as_str().into(),
        mutations: mutations(
            at,
            request_headers_to_add,
            request_headers_to_remove,
            response_headers_to_add,
            response_headers_to_remove,
        ),
        ignore_port: *ignore_port_in_host_matching,
        most_specific_mutations_win: *most_specific_header_mutations_wins,
        mirrors: action::mirrors(&at.field("request_mirror_policies"), request_mirror_policies)
            .unwrap_or_default(),
        filters: filters::overrides(&at.field("typed_per_filter_config"), typed_per_filter_config),
        hosts: table.ok()?,
        virtual_hosts,
    })
}

fn virtual_host(at: &At<'_>, host: &PbHost) -> VirtualHost {
    fields!(at, host => PbHost {
        use {
            name, domains, routes, require_tls, request_headers_to_add, request_headers_to_remove,
            response_headers_to_add, response_headers_to_remove, typed_per_filter_config,
            include_request_attempt_count, include_attempt_count_in_response, retry_policy,
            cors, hedge_policy, request_mirror_policies, metadata,
        }
        // Virtual clusters only name statistics.
        accept { virtual_clusters }
        refuse {
            matcher, rate_limits, retry_policy_typed_config, per_request_buffer_limit_bytes,
            request_body_buffer_limit, route_specifiers, include_is_timeout_retry_header,
        }
    });
    action::hedges(&at.field("hedge_policy"), hedge_policy.as_ref());
    if domains.is_empty() {
        at.field("domains").fault("is empty");
    }
    let list = at.field("domains");
    for (index, domain) in domains.iter().enumerate() {
        let inner = domain.strip_prefix('*').unwrap_or(domain);
        let inner = if inner.len() == domain.len() {
            inner.strip_suffix('*').unwrap_or(inner)
        } else {
            inner
        };
        if domain.is_empty() || inner.contains('*') {
            list.nth(index).fault("is not a name, *suffix, prefix* or *");
        }
    }
    let list = at.field("routes");
    let routes: Vec<Arc<Route>> = routes
        .iter()
        .enumerate()
        .filter_map(|(index, value)| route(&list.nth(index), value).map(Arc::new))
        .collect();
    VirtualHost {
        name: name.as_str().into(),
        domains: domains.iter().map(|domain| domain.as_str().into()).collect(),
        require_tls: match TlsRequirementType::try_from(*require_tls) {
            Ok(TlsRequirementType::None) => TlsRequirement::None,
            Ok(TlsRequirementType::ExternalOnly) => TlsRequirement::External,
            Ok(TlsRequirementType::All) => TlsRequirement::All,
            Err(_) => {
                at.field("require_tls").unsupported();
                TlsRequirement::All
            }
        },
        mutations: mutations(
            at,
            request_headers_to_add,
            request_headers_to_remove,
            response_headers_to_add,
            response_headers_to_remove,
        ),
        retry: retry::retry(&at.field("retry_policy"), retry_policy.as_ref()),
        request_attempt_count: *include_request_attempt_count,
        response_attempt_count: *include_attempt_count_in_response,
        mirrors: action::mirrors(&at.field("request_mirror_policies"), request_mirror_policies),
        cors: cors.as_ref().and_then(|cors| filters::cors(&at.field("cors"), cors)),
        filters: filters::overrides(&at.field("typed_per_filter_config"), typed_per_filter_config),
        metadata: values::of_place(metadata.as_ref()),
        index: RouteIndex::build(&routes),
        routes,
    }
}

fn route(at: &At<'_>, route: &PbRoute) -> Option<Route> {
    fields!(at, route => PbRoute {
        use {
            name, r#match, metadata, typed_per_filter_config, request_headers_to_add,
            request_headers_to_remove, response_headers_to_add, response_headers_to_remove, action,
        }
        // Tracing and statistics.
        accept { decorator, tracing, stat_prefix }
        refuse { per_request_buffer_limit_bytes, request_body_buffer_limit, route_specifiers }
    });
    let matches = matches::route_match(&at.field("match"), r#match.as_ref());
    let action = action::action(at, action.as_ref());
    let mutations = mutations(
        at,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
    );
    Some(Route {
        name: name.as_str().into(),
        matches: matches?,
        action: action?,
        mutations,
        origin: origin(metadata.as_ref()),
        metadata: values::of_place(metadata.as_ref()),
        filters: filters::overrides(&at.field("typed_per_filter_config"), typed_per_filter_config),
    })
}

/// The user's resource, as Istio writes it: metadata `istio`, key `config`.
fn origin(metadata: Option<&Metadata>) -> Option<Arc<str>> {
    let istio: &Struct = metadata?.filter_metadata.get("istio")?;
    match istio.fields.get("config")?.kind.as_ref()? {
        ValueKind::StringValue(text) => Some(text.as_str().into()),
        _ => None,
    }
}

fn mutations(
    at: &At<'_>,
    request_set: &[HeaderValueOption],
    request_remove: &[String],
    response_set: &[HeaderValueOption],
    response_remove: &[String],
) -> HeaderMutations {
    HeaderMutations {
        request_remove: messages::header_names(
            &at.field("request_headers_to_remove"),
            request_remove,
        ),
        request_set: messages::header_edits(&at.field("request_headers_to_add"), request_set),
        response_remove: messages::header_names(
            &at.field("response_headers_to_remove"),
            response_remove,
        ),
        response_set: messages::header_edits(&at.field("response_headers_to_add"), response_set),
    }
}
