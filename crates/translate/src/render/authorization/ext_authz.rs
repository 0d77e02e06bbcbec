//! The filters that ask another server, as Istio makes them of an extension provider.
//!
//! They ask only where the RBAC filter before them has noted a match: its shadow rules write the name
//! of the rule that matched into metadata, and these filters look for Istio's prefix in it.

use std::time::Duration;

use envoy_types::pb::envoy::{
    config::core::v3::{
        ApiVersion, GrpcService, HeaderValue, HttpUri, grpc_service, http_uri::HttpUpstreamType,
    },
    extensions::filters::{
        http::ext_authz::v3::{
            AuthorizationRequest, AuthorizationResponse, BufferSettings, ExtAuthz, HttpService,
            ext_authz::Services,
        },
        network::ext_authz::v3::ExtAuthz as NetworkExtAuthz,
    },
    r#type::{
        matcher::v3::{ListStringMatcher, MetadataMatcher, StringMatcher},
        v3::HttpStatus,
    },
};
use sluis_resources::TextPattern;

use super::{super::wrap, EXT_AUTHZ, HTTP_RBAC, NETWORK_RBAC, TCP, matchers};
use crate::{ExtAuthzInput, select::CUSTOM_RULE};

pub(super) const HTTP: &str = "envoy.filters.http.ext_authz";
pub(super) const NETWORK: &str = "envoy.filters.network.ext_authz";

/// The key, behind its prefix, under which RBAC notes the shadow rule that matched.
const EFFECTIVE_POLICY: &str = "shadow_effective_policy_id";

/// How long the server may take where nothing is written (Istio's figure).
const TIMEOUT: Duration = Duration::from_mins(10);

/// The filter for requests.
pub(super) fn http(provider: &str, input: &ExtAuthzInput) -> ExtAuthz {
    let settings = &input.settings;
    let services = if input.is_http {
        Services::HttpService(http_service(input))
    } else {
        Services::GrpcService(grpc(input))
    };
    ExtAuthz {
        services: Some(services),
        transport_api_version: ApiVersion::V3.into(),
        failure_mode_allow: settings.fail_open,
        clear_route_cache: settings.clear_route_cache,
        status_on_error: settings.status_on_error.map(|code| HttpStatus { code: i32::from(code) }),
        with_request_body: settings.request_body.map(|body| BufferSettings {
            max_request_bytes: body.max_bytes,
            allow_partial_message: body.allow_partial,
            pack_as_bytes: body.pack_as_bytes,
        }),
        allowed_headers: if input.is_http { headers(&settings.request_headers) } else { None },
        filter_enabled_metadata: Some(matched(HTTP_RBAC, provider)),
        ..ExtAuthz::default()
    }
}

/// The filter for connections.
pub(super) fn network(provider: &str, input: &ExtAuthzInput) -> NetworkExtAuthz {
    NetworkExtAuthz {
        stat_prefix: TCP.to_owned(),
        grpc_service: Some(grpc(input)),
        failure_mode_allow: input.settings.fail_open,
        transport_api_version: ApiVersion::V3.into(),
        filter_enabled_metadata: Some(matched(NETWORK_RBAC, provider)),
        ..NetworkExtAuthz::default()
    }
}

/// That a rule of the provider has matched.
fn matched(filter: &str, provider: &str) -> MetadataMatcher {
    let key = format!("{EXT_AUTHZ}{EFFECTIVE_POLICY}");
    matchers::metadata(filter, &key, matchers::prefix(format!("{CUSTOM_RULE}-{provider}")))
}

fn grpc(input: &ExtAuthzInput) -> GrpcService {
    let envoy_grpc = grpc_service::EnvoyGrpc {
        cluster_name: input.cluster.clone(),
        authority: input.host.clone(),
        ..grpc_service::EnvoyGrpc::default()
    };
    GrpcService {
        target_specifier: Some(grpc_service::TargetSpecifier::EnvoyGrpc(envoy_grpc)),
        timeout: Some(wrap::duration(input.settings.timeout.unwrap_or(TIMEOUT))),
        ..GrpcService::default()
    }
}

fn http_service(input: &ExtAuthzInput) -> HttpService {
    let settings = &input.settings;
    let added = settings.additional_headers.iter().map(|(key, value)| HeaderValue {
        key: key.clone(),
        value: value.clone(),
        ..HeaderValue::default()
    });
    let added: Vec<HeaderValue> = added.collect();
    let request = (!added.is_empty())
        .then(|| AuthorizationRequest { headers_to_add: added, ..AuthorizationRequest::default() });
    let response = AuthorizationResponse {
        allowed_upstream_headers: headers(&settings.headers_to_upstream_on_allow),
        allowed_client_headers: headers(&settings.headers_to_downstream_on_deny),
        allowed_client_headers_on_success: headers(&settings.headers_to_downstream_on_allow),
        ..AuthorizationResponse::default()
    };
    HttpService {
        server_uri: Some(HttpUri {
            uri: format!("http://{}", input.host),
            timeout: Some(wrap::duration(settings.timeout.unwrap_or(TIMEOUT))),
            http_upstream_type: Some(HttpUpstreamType::Cluster(input.cluster.clone())),
        }),
        path_prefix: settings.path_prefix.clone().unwrap_or_default(),
        authorization_request: request,
        authorization_response: (response != AuthorizationResponse::default()).then_some(response),
        ..HttpService::default()
    }
}

/// Names of headers, letter case aside; `None` for none.
fn headers(names: &[String]) -> Option<ListStringMatcher> {
    let one = |name: &String| StringMatcher {
        ignore_case: true,
        ..matchers::text(&TextPattern::new(name))
    };
    let patterns: Vec<StringMatcher> = names.iter().map(one).collect();
    (!patterns.is_empty()).then_some(ListStringMatcher { patterns })
}
