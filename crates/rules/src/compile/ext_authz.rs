//! The filters that ask an authorization service.

#![expect(deprecated, reason = "deprecated fields must be looked at to be refused or understood")]

use std::{sync::Arc, time::Duration};

use envoy_types::pb::{
    envoy::{
        config::core::v3::{
            GrpcService, HeaderValue, HttpUri,
            grpc_service::{EnvoyGrpc, TargetSpecifier},
            http_uri::HttpUpstreamType,
        },
        extensions::filters::{
            http::ext_authz::v3::{
                AuthorizationRequest, AuthorizationResponse, BufferSettings, CheckSettings,
                ExtAuthz as PbAuthz, ExtAuthzPerRoute, HttpService, ext_authz::Services,
                ext_authz_per_route::Override,
            },
            network::ext_authz::v3::ExtAuthz as PbTcpAuthz,
        },
        r#type::matcher::v3::ListStringMatcher,
    },
    google::protobuf::Any,
};

use super::{
    at::{At, fields},
    messages, metadata,
};
use crate::{
    AuthzBody, AuthzCheck, AuthzGrpc, AuthzHttp, AuthzService, ExtAuthz, FilterSetting, Fraction,
    StringMatcher, TcpAuthz,
};

/// Envoy's default.
const TIMEOUT: Duration = Duration::from_millis(200);

/// Most bytes of a body that are held back for the service: what is held for other purposes too.
const BODY_BYTES_MAX: u32 = 1024 * 1024;

/// Longest answer of a service where nothing is said: its headers and a page for the client.
const ANSWER_BYTES_MAX: u32 = 1024 * 1024;

const FORBIDDEN: u16 = 403;

/// `core.v3.ApiVersion.V3`: the only version that is spoken. Envoy takes AUTO for V3 too.
const V3: i32 = 2;

pub(super) fn http(at: &At<'_>, any: &Any) -> Option<ExtAuthz> {
    let filter = at.unpack::<PbAuthz>(any)?;
    fields!(at, &filter => PbAuthz {
        use {
            transport_api_version, failure_mode_allow, failure_mode_allow_header_add,
            with_request_body, clear_route_cache, status_on_error,
            metadata_context_namespaces, filter_enabled, filter_enabled_metadata, deny_at_disable,
            include_peer_certificate, include_tls_session, allowed_headers, disallowed_headers,
            encode_raw_headers, enable_dynamic_metadata_ingestion, max_denied_response_body_bytes,
            services,
        }
        // Statistics and tracing; what cannot stand in a head always makes the answer invalid.
        accept {
            stat_prefix, validate_mutations, charge_cluster_response_stats, filter_metadata, emit_filter_state_stats,
            emit_client_span, enforce_response_header_limits,
        }
        refuse {
            typed_metadata_context_namespaces, route_metadata_context_namespaces,
            route_typed_metadata_context_namespaces, bootstrap_metadata_labels_key,
            decoder_header_mutation_rules, shadow_mode,
        }
    });
    let service = service(at, services.as_ref(), *transport_api_version)?;
    let enabled = match filter_enabled {
        Some(share) => messages::runtime_fraction(&at.field("filter_enabled"), share),
        None => Fraction::ALL,
    };
    let denies = deny_at_disable.as_ref().and_then(|flag| flag.default_value.as_ref());
    let list = |field: &str, value: Option<&_>| matchers(&at.field(field), value);
    let enabled_metadata = match filter_enabled_metadata {
        Some(value) => Some(metadata::matcher(&at.field("filter_enabled_metadata"), value)?),
        None => None,
    };
    Some(ExtAuthz {
        service,
        fails_open: *failure_mode_allow,
        marks_failure: *failure_mode_allow_header_add,
        body: with_request_body
            .as_ref()
            .map(|settings| body(&at.field("with_request_body"), settings)),
        clears_route: *clear_route_cache,
        status_on_error: status_on_error
            .as_ref()
            .map_or(FORBIDDEN, |status| status_of(&at.field("status_on_error"), status.code)),
        namespaces: texts(metadata_context_namespaces),
        enabled,
        enabled_metadata,
        denies_when_disabled: messages::flag(denies, false),
        peer_certificate: *include_peer_certificate,
        tls_session: *include_tls_session,
        allowed: allowed_headers
            .as_ref()
            .map(|value| list("allowed_headers", Some(value)))
            .or_else(|| older(at, services.as_ref())),
        disallowed: list("disallowed_headers", disallowed_headers.as_ref()),
        raw_headers: *encode_raw_headers,
        takes_metadata: messages::flag(enable_dynamic_metadata_ingestion.as_ref(), true),
        denied_body_max: usize::try_from(*max_denied_response_body_bytes)
            .ok()
            .filter(|most| *most > 0),
    })
}

fn service(at: &At<'_>, services: Option<&Services>, version: i32) -> Option<AuthzService> {
    match services {
        Some(Services::GrpcService(service)) => {
            is_v3(at, version);
            grpc_service(&at.field("grpc_service"), service).map(AuthzService::Grpc)
        }
        Some(Services::HttpService(service)) => {
            let service = http_service(&at.field("http_service"), service)?;
            Some(AuthzService::Http(service.into()))
        }
        None => {
            at.field("grpc_service").fault("is missing");
            None
        }
    }
}

/// The headers that are sent to an HTTP service, in the place where they used to be written.
fn older(at: &At<'_>, services: Option<&Services>) -> Option<Vec<StringMatcher>> {
    let Some(Services::HttpService(service)) = services else { return None };
    let list = service.authorization_request.as_ref()?.allowed_headers.as_ref()?;
    let at = at.field("http_service");
    let at = at.field("authorization_request");
    Some(matchers(&at.field("allowed_headers"), Some(list)))
}

pub(super) fn tcp(at: &At<'_>, any: &Any) -> Option<TcpAuthz> {
    let filter = at.unpack::<PbTcpAuthz>(any)?;
    fields!(at, &filter => PbTcpAuthz {
        use {
            grpc_service, failure_mode_allow, include_peer_certificate, transport_api_version,
            filter_enabled_metadata, include_tls_session, metadata_context_namespaces,
        }
        // Statistics, and how the end of a connection looks that is closed either way.
        accept { stat_prefix, send_tls_alert_on_denial }
        refuse { bootstrap_metadata_labels_key, typed_metadata_context_namespaces, shadow_mode }
    });
    is_v3(at, *transport_api_version);
    let Some(service) = grpc_service else {
        at.field("grpc_service").fault("is missing");
        return None;
    };
    let enabled_metadata = match filter_enabled_metadata {
        Some(value) => Some(metadata::matcher(&at.field("filter_enabled_metadata"), value)?),
        None => None,
    };
    Some(TcpAuthz {
        service: self::grpc_service(&at.field("grpc_service"), service)?,
        fails_open: *failure_mode_allow,
        peer_certificate: *include_peer_certificate,
        tls_session: *include_tls_session,
        enabled_metadata,
        namespaces: texts(metadata_context_namespaces),
    })
}

/// What a route says.
pub(super) fn per_route(at: &At<'_>, any: &Any) -> Option<FilterSetting> {
    let route = at.unpack::<ExtAuthzPerRoute>(any)?;
    let check = match &route.r#override {
        Some(Override::Disabled(true)) => return Some(FilterSetting::Disabled),
        Some(Override::CheckSettings(check)) => check,
        Some(Override::Disabled(false)) | None => {
            at.fault("says neither disabled nor check_settings");
            return None;
        }
    };
    let at = at.field("check_settings");
    fields!(&at, check => CheckSettings {
        use { context_extensions, disable_request_body_buffering, with_request_body }
        accept { emit_client_span }
        refuse { service_override }
    });
    if *disable_request_body_buffering && with_request_body.is_some() {
        at.fault("both disables and sets with_request_body");
    }
    let pair = |(name, value): (&String, &String)| (name.as_str().into(), value.as_str().into());
    let mut extensions: Vec<(Arc<str>, Arc<str>)> = context_extensions.iter().map(pair).collect();
    extensions.sort_unstable();
    Some(FilterSetting::Authz(Arc::new(AuthzCheck {
        extensions,
        skips_body: *disable_request_body_buffering,
        body: with_request_body
            .as_ref()
            .map(|settings| body(&at.field("with_request_body"), settings)),
    })))
}

fn is_v3(at: &At<'_>, version: i32) {
    if version != V3 && version != 0 {
        at.field("transport_api_version").fault("is not V3");
    }
}

fn status_of(at: &At<'_>, code: i32) -> u16 {
    match u16::try_from(code) {
        Ok(code @ 200..=599) => code,
        _ => {
            at.field("code").fault("is not between 200 and 599");
            FORBIDDEN
        }
    }
}

fn body(at: &At<'_>, settings: &BufferSettings) -> AuthzBody {
    fields!(at, settings => BufferSettings {
        use { max_request_bytes, allow_partial_message, pack_as_bytes }
        accept {}
        refuse {}
    });
    if !(1..=BODY_BYTES_MAX).contains(max_request_bytes) {
        at.field("max_request_bytes").fault("is not between 1 and 1048576");
    }
    AuthzBody {
        bytes_max: usize::try_from(*max_request_bytes).unwrap_or(0),
        allows_part: *allow_partial_message,
        as_bytes: *pack_as_bytes,
    }
}

fn grpc_service(at: &At<'_>, service: &GrpcService) -> Option<AuthzGrpc> {
    fields!(at, service => GrpcService {
        use { timeout, initial_metadata, target_specifier }
        accept {}
        refuse { retry_policy }
    });
    let to = match target_specifier {
        Some(TargetSpecifier::EnvoyGrpc(to)) => to,
        Some(TargetSpecifier::GoogleGrpc(_)) => {
            at.field("google_grpc").unsupported();
            return None;
        }
        None => {
            at.field("envoy_grpc").fault("is missing");
            return None;
        }
    };
    let metadata = pairs(&at.field("initial_metadata"), initial_metadata);
    let timeout = match timeout {
        Some(_) => messages::limit(&at.field("timeout"), timeout.as_ref(), None),
        None => Some(TIMEOUT),
    };
    let at = at.field("envoy_grpc");
    fields!(&at, to => EnvoyGrpc {
        use { cluster_name, authority, max_receive_message_length }
        accept { skip_envoy_headers }
        refuse { retry_policy }
    });
    if cluster_name.is_empty() {
        at.field("cluster_name").fault("is missing");
    }
    let authority = if authority.is_empty() { cluster_name } else { authority };
    let most = messages::number(max_receive_message_length.as_ref()).unwrap_or(ANSWER_BYTES_MAX);
    Some(AuthzGrpc {
        cluster: cluster_name.as_str().into(),
        authority: authority.as_str().into(),
        timeout,
        metadata,
        answer_max: usize::try_from(most.min(ANSWER_BYTES_MAX)).unwrap_or(0),
    })
}

fn http_service(at: &At<'_>, service: &HttpService) -> Option<AuthzHttp> {
    fields!(at, service => HttpService {
        use { server_uri, path_prefix, path_override, authorization_request, authorization_response }
        accept {}
        refuse { retry_policy }
    });
    let Some(uri) = server_uri else {
        at.field("server_uri").fault("is missing");
        return None;
    };
    let (cluster, timeout) = uri_of(&at.field("server_uri"), uri)?;
    if !path_prefix.is_empty() && !path_prefix.starts_with('/') {
        at.field("path_prefix").fault("does not begin with /");
    }
    if !path_prefix.is_empty() && !path_override.is_empty() {
        at.field("path_override").fault("does not go with path_prefix");
    }
    let set = match authorization_request {
        Some(request) => {
            let at = at.field("authorization_request");
            fields!(&at, request => AuthorizationRequest {
                use { headers_to_add }
                // Read with the filter's own list.
                accept { allowed_headers }
                refuse {}
            });
            pairs(&at.field("headers_to_add"), headers_to_add)
        }
        None => Vec::new(),
    };
    let none = AuthorizationResponse::default();
    let at = at.field("authorization_response");
    fields!(&at, authorization_response.as_ref().unwrap_or(&none) => AuthorizationResponse {
        use {
            allowed_upstream_headers, allowed_upstream_headers_to_append, allowed_client_headers,
            allowed_client_headers_on_success, dynamic_metadata_from_headers,
        }
        accept {}
        refuse {}
    });
    let list = |field: &str, value: &Option<_>| matchers(&at.field(field), value.as_ref());
    let client = list("allowed_client_headers", allowed_client_headers);
    Some(AuthzHttp {
        cluster,
        timeout,
        path_prefix: path_prefix.as_str().into(),
        path_override: path_override.as_str().into(),
        set,
        upstream: list("allowed_upstream_headers", allowed_upstream_headers),
        upstream_append: list(
            "allowed_upstream_headers_to_append",
            allowed_upstream_headers_to_append,
        ),
        client: (!client.is_empty()).then_some(client),
        client_on_success: list(
            "allowed_client_headers_on_success",
            allowed_client_headers_on_success,
        ),
        metadata: list("dynamic_metadata_from_headers", dynamic_metadata_from_headers),
    })
}

/// The cluster of a URI, which only says what the service is called, and its time.
fn uri_of(at: &At<'_>, uri: &HttpUri) -> Option<(Arc<str>, Option<Duration>)> {
    fields!(at, uri => HttpUri {
        use { timeout, http_upstream_type }
        accept { uri }
        refuse {}
    });
    let timeout = match timeout {
        Some(_) => messages::limit(&at.field("timeout"), timeout.as_ref(), None),
        None => Some(TIMEOUT),
    };
    match http_upstream_type {
        Some(HttpUpstreamType::Cluster(name)) if !name.is_empty() => {
            Some((name.as_str().into(), timeout))
        }
        _ => {
            at.field("cluster").fault("is missing");
            None
        }
    }
}

fn pairs(at: &At<'_>, values: &[HeaderValue]) -> Vec<(Arc<str>, Arc<str>)> {
    let pairs = values.iter().enumerate().map(|(index, value)| {
        let at = at.nth(index);
        fields!(&at, value => HeaderValue {
            use { key, value }
            accept {}
            refuse { raw_value }
        });
        if value.contains('%') {
            // Envoy would format it.
            at.field("value").fault("is a format: not supported here");
        }
        let name = messages::header_name(&at.field("key"), key);
        if name.starts_with(':') {
            at.field("key").fault("names a pseudo-header");
        }
        (name, messages::header_value(&at.field("value"), value))
    });
    pairs.collect()
}

fn texts(values: &[String]) -> Vec<Arc<str>> {
    values.iter().map(|value| value.as_str().into()).collect()
}

fn matchers(at: &At<'_>, list: Option<&ListStringMatcher>) -> Vec<StringMatcher> {
    let Some(list) = list else { return Vec::new() };
    let at = at.field("patterns");
    let all = list.patterns.iter().enumerate();
    all.filter_map(|(index, value)| messages::string_matcher(&at.nth(index), Some(value))).collect()
}
