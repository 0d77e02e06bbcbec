//! HTTP connection managers and their filters.

#![expect(deprecated, reason = "deprecated fields must be looked at to be refused or understood")]

use std::{sync::Arc, time::Duration};

use envoy_types::pb::{
    envoy::{
        config::core::v3::{
            Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions, KeepaliveSettings,
            http_protocol_options::HeadersWithUnderscoresAction,
        },
        extensions::filters::{
            http::{lua::v3::Lua, router::v3::Router},
            network::http_connection_manager::v3::{
                HttpConnectionManager as Manager, HttpFilter as PbFilter, RequestIdExtension,
                http_connection_manager::{
                    CodecType, ForwardClientCertDetails, PathWithEscapedSlashesAction,
                    RouteSpecifier, ServerHeaderTransformation, SetCurrentClientCertDetails,
                    StripPortMode, Tracing, UpgradeConfig,
                },
                http_filter::ConfigType,
            },
        },
    },
    google::protobuf::Any,
};

use super::{
    access_log::access_logs,
    at::{At, fields, message_of},
    dns, ext_authz, filters, jwt, messages, rbac, routes, values,
};
use crate::{
    ClientCertDetails, ClientCertRule, Codec, EscapedSlashes, ForwardClientCert, HostOptions,
    Http1Options, Http2Keepalive, Http2Options, HttpFilter, HttpFilterKind, HttpManager,
    HttpOptions, LuaFilter, PathOptions, RouterOptions, Routes, ServerHeader, Source, StripPort,
    Underscores, Upgrade,
};

const STREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(300);
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
const DELAYED_CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
const REQUEST_HEADERS_KB: u32 = 60;

/// The least window that Envoy takes: what every HTTP/2 connection begins with.
const WINDOW_MIN: u32 = 65_535;

/// Envoy's default, in percent: many connections must not ping at once.
const KEEPALIVE_JITTER: f64 = 15.0;

/// Envoy's bound on `max_request_headers_kb`.
const REQUEST_HEADERS_KB_MAX: u32 = 8192;

const CORS: &str = "envoy.extensions.filters.http.cors.v3.Cors";
const FAULT: &str = "envoy.extensions.filters.http.fault.v3.HTTPFault";
const RATE_LIMIT: &str = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit";
const MUTATION: &str = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation";
const ALPN: &str = "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig";
const RBAC: &str = "envoy.extensions.filters.http.rbac.v3.RBAC";
const EXT_AUTHZ: &str = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz";
const HEALTH_CHECK: &str = "envoy.extensions.filters.http.health_check.v3.HealthCheck";

/// Filters that change nothing on the wire, so that leaving them out changes nothing but
/// statistics: counting of gRPC messages, Istio's statistics, and Istio's exchange of labels
/// between proxies, which only statistics read.
const UNSEEN: [&str; 4] = [
    "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
    "stats.PluginConfig",
    "io.istio.http.peer_metadata.Config",
    "istio.telemetry.stats.PluginConfig",
];

const JWT: &str = "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication";
const LUA: &str = "envoy.extensions.filters.http.lua.v3.Lua";
const ROUTER: &str = "envoy.extensions.filters.http.router.v3.Router";
const DYNAMIC_FORWARD: &str = "envoy.extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig";
const UUID: &str = "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig";

#[expect(clippy::too_many_lines, reason = "one line per field of Envoy's largest message")]
pub(super) fn manager(at: &At<'_>, any: &Any) -> Option<HttpManager> {
    let manager = at.unpack::<Manager>(any)?;
    fields!(at, &manager => Manager {
        use {
            codec_type, stat_prefix, http_filters, tracing, common_http_protocol_options,
            http_protocol_options, http2_protocol_options, server_name,
            server_header_transformation, max_request_headers_kb, stream_idle_timeout,
            request_timeout, request_headers_timeout, drain_timeout, delayed_close_timeout,
            access_log, use_remote_address, xff_num_trusted_hops, internal_address_config,
            skip_xff_append, via, generate_request_id, preserve_external_request_id,
            always_set_request_id_in_response, forward_client_cert_details,
            set_current_client_cert_details, proxy_100_continue, upgrade_configs, normalize_path,
            merge_slashes, path_with_escaped_slashes_action, request_id_extension,
            strip_matching_host_port, stream_error_on_invalid_http_message,
            strip_trailing_host_dot, append_x_forwarded_port, route_specifier, strip_port_mode,
        }
        // How long a finished response may take to leave, and what filters may look up.
        accept {
            add_proxy_protocol_connection_state, append_local_overload,
            http1_safe_max_connection_duration,
        }
        refuse {
            add_user_agent, http3_protocol_options, scheme_header_transformation,
            stream_flush_timeout, drain_timeout_jitter, access_log_flush_interval,
            flush_access_log_on_new_request, access_log_options, original_ip_detection_extensions,
            early_header_mutation_extensions, forward_client_cert_matcher,
            represent_ipv4_remote_address_as_ipv4_mapped_ipv6, local_reply_config,
            path_normalization_options, proxy_status_config, typed_header_validation_config,
            forward_proto_config,
        }
    });
    tracing_is_off(&at.field("tracing"), tracing.as_ref());
    request_ids(&at.field("request_id_extension"), request_id_extension.as_ref());
    if messages::flag(stream_error_on_invalid_http_message.as_ref(), false) {
        // A connection whose framing was wrong once is never trusted again.
        at.field("stream_error_on_invalid_http_message").unsupported();
    }
    let route_specifier = routes_of(at, route_specifier.as_ref());
    let filters = chain(&at.field("http_filters"), http_filters);
    let limit = |field: &str, value, default| messages::limit(&at.field(field), value, default);
    let kilobytes = messages::number(max_request_headers_kb.as_ref()).unwrap_or(REQUEST_HEADERS_KB);
    if !(1..=REQUEST_HEADERS_KB_MAX).contains(&kilobytes) {
        at.field("max_request_headers_kb")
            .fault(format!("is not between 1 and {REQUEST_HEADERS_KB_MAX}"));
    }
    Some(HttpManager {
        stat_prefix: stat_prefix.as_str().into(),
        codec: codec(at, *codec_type),
        routes: route_specifier?,
        filters,
        access_logs: access_logs(&at.field("access_log"), access_log),
        server_name: if server_name.is_empty() {
            "envoy".into()
        } else {
            server_name.as_str().into()
        },
        server_header: server_header(at, *server_header_transformation),
        via: (!via.is_empty()).then(|| messages::header_value(&at.field("via"), via)),
        use_remote_address: messages::flag(use_remote_address.as_ref(), false),
        xff_trusted_hops: *xff_num_trusted_hops,
        skip_xff_append: *skip_xff_append,
        append_x_forwarded_port: *append_x_forwarded_port,
        internal_addresses: internal_address_config.as_ref().map(|config| {
            let at = at.field("internal_address_config");
            messages::cidrs(&at.field("cidr_ranges"), &config.cidr_ranges)
        }),
        generate_request_id: messages::flag(generate_request_id.as_ref(), true),
        preserve_external_request_id: *preserve_external_request_id,
        request_id_in_response: *always_set_request_id_in_response,
        client_cert: ForwardClientCert {
            rule: client_cert_rule(at, *forward_client_cert_details),
            details: client_cert_details(at, set_current_client_cert_details.as_ref()),
        },
        path: PathOptions {
            normalize: messages::flag(normalize_path.as_ref(), false),
            merge_slashes: *merge_slashes,
            escaped_slashes: escaped_slashes(at, *path_with_escaped_slashes_action),
        },
        host: HostOptions {
            strip_port: match (strip_port_mode, strip_matching_host_port) {
                (Some(StripPortMode::StripAnyHostPort(true)), _) => StripPort::Any,
                (_, true) => StripPort::Matching,
                _ => StripPort::Never,
            },
            strip_trailing_dot: *strip_trailing_host_dot,
        },
        http1: http1(&at.field("http_protocol_options"), http_protocol_options.as_ref()),
        http2: http2(&at.field("http2_protocol_options"), http2_protocol_options.as_ref()),
        http: options(
            &at.field("common_http_protocol_options"),
            common_http_protocol_options.as_ref(),
        ),
        max_request_headers_bytes: kilobytes.min(REQUEST_HEADERS_KB_MAX) * 1024,
        stream_idle_timeout: limit(
            "stream_idle_timeout",
            stream_idle_timeout.as_ref(),
            Some(STREAM_IDLE_TIMEOUT),
        ),
        request_timeout: limit("request_timeout", request_timeout.as_ref(), None),
        request_headers_timeout: limit(
            "request_headers_timeout",
            request_headers_timeout.as_ref(),
            None,
        ),
        drain_timeout: messages::duration(&at.field("drain_timeout"), drain_timeout.as_ref())
            .unwrap_or(DRAIN_TIMEOUT),
        delayed_close_timeout: messages::duration(
            &at.field("delayed_close_timeout"),
            delayed_close_timeout.as_ref(),
        )
        .unwrap_or(DELAYED_CLOSE_TIMEOUT),
        upgrades: upgrades(&at.field("upgrade_configs"), upgrade_configs),
        proxy_100_continue: *proxy_100_continue,
    })
}

fn routes_of(at: &At<'_>, specifier: Option<&RouteSpecifier>) -> Option<Routes> {
    match specifier {
        // Where from does not matter: route tables arrive by name.
        Some(RouteSpecifier::Rds(rds)) if !rds.route_config_name.is_empty() => {
            Some(Routes::Named(rds.route_config_name.as_str().into()))
        }
        Some(RouteSpecifier::RouteConfig(config)) => {
            let table = routes::table(&at.field("route_config"), config)?;
            Some(Routes::Inline(Arc::new(table)))
        }
        Some(RouteSpecifier::ScopedRoutes(_)) => {
            at.field("scoped_routes").unsupported();
            None
        }
        _ => {
            at.field("rds").fault("is missing");
            None
        }
    }
}

/// Tracing without a provider traces nothing, whatever it says of sampling.
fn tracing_is_off(at: &At<'_>, tracing: Option<&Tracing>) {
    if let Some(tracing) = tracing
        && tracing.provider.is_some()
    {
        at.field("provider").unsupported();
    }
}

fn request_ids(at: &At<'_>, extension: Option<&RequestIdExtension>) {
    if let Some(any) = extension.and_then(|extension| extension.typed_config.as_ref())
        && message_of(any) != UUID
    {
        at.fault(format!("{} is not supported", message_of(any)));
    }
}

fn codec(at: &At<'_>, codec: i32) -> Codec {
    match CodecType::try_from(codec) {
        Ok(CodecType::Auto) => Codec::Auto,
        Ok(CodecType::Http1) => Codec::Http1,
        Ok(CodecType::Http2) => Codec::Http2,
        Ok(CodecType::Http3) | Err(_) => {
            at.field("codec_type").unsupported();
            Codec::Auto
        }
    }
}

fn server_header(at: &At<'_>, how: i32) -> ServerHeader {
    match ServerHeaderTransformation::try_from(how) {
        Ok(ServerHeaderTransformation::Overwrite) => ServerHeader::Overwrite,
        Ok(ServerHeaderTransformation::AppendIfAbsent) => ServerHeader::AppendIfAbsent,
        Ok(ServerHeaderTransformation::PassThrough) => ServerHeader::PassThrough,
        Err(_) => {
            at.field("server_header_transformation").unsupported();
            ServerHeader::Overwrite
        }
    }
}

fn client_cert_rule(at: &At<'_>, rule: i32) -> ClientCertRule {
    match ForwardClientCertDetails::try_from(rule) {
        Ok(ForwardClientCertDetails::Sanitize) => ClientCertRule::Sanitize,
        Ok(ForwardClientCertDetails::ForwardOnly) => ClientCertRule::ForwardOnly,
        Ok(ForwardClientCertDetails::AppendForward) => ClientCertRule::AppendForward,
        Ok(ForwardClientCertDetails::SanitizeSet) => ClientCertRule::SanitizeSet,
        Ok(ForwardClientCertDetails::AlwaysForwardOnly) => ClientCertRule::AlwaysForwardOnly,
        Err(_) => {
            at.field("forward_client_cert_details").unsupported();
            ClientCertRule::Sanitize
        }
    }
}

fn client_cert_details(
    at: &At<'_>,
    details: Option<&SetCurrentClientCertDetails>,
) -> ClientCertDetails {
    let Some(details) = details else { return ClientCertDetails::default() };
    fields!(&at.field("set_current_client_cert_details"), details => SetCurrentClientCertDetails {
        use { subject, cert, chain, dns, uri }
        accept {}
        refuse { issuer, format }
    });
    ClientCertDetails {
        subject: messages::flag(subject.as_ref(), false),
        cert: *cert,
        chain: *chain,
        dns: *dns,
        uri: *uri,
    }
}

fn escaped_slashes(at: &At<'_>, action: i32) -> EscapedSlashes {
    match PathWithEscapedSlashesAction::try_from(action) {
        Ok(
            PathWithEscapedSlashesAction::ImplementationSpecificDefault
            | PathWithEscapedSlashesAction::KeepUnchanged,
        ) => EscapedSlashes::Keep,
        Ok(PathWithEscapedSlashesAction::RejectRequest) => EscapedSlashes::Reject,
        Ok(PathWithEscapedSlashesAction::UnescapeAndRedirect) => EscapedSlashes::Redirect,
        Ok(PathWithEscapedSlashesAction::UnescapeAndForward) => EscapedSlashes::Decode,
        Err(_) => {
            at.field("path_with_escaped_slashes_action").unsupported();
            EscapedSlashes::Reject
        }
    }
}

fn upgrades(at: &At<'_>, configs: &[UpgradeConfig]) -> Vec<Upgrade> {
    let upgrades = configs.iter().enumerate().map(|(index, config)| {
        fields!(&at.nth(index), config => UpgradeConfig {
            use { upgrade_type, enabled }
            accept {}
            refuse { filters }
        });
        Upgrade {
            kind: upgrade_type.to_ascii_lowercase().into(),
            enabled: messages::flag(enabled.as_ref(), true),
        }
    });
    upgrades.collect()
}

/// Options common to all HTTP versions.
pub(super) fn options(at: &At<'_>, options: Option<&HttpProtocolOptions>) -> HttpOptions {
    let mut out = HttpOptions::default();
    let Some(options) = options else { return out };
    fields!(at, options => HttpProtocolOptions {
        use {
            idle_timeout, max_connection_duration, max_headers_count, max_stream_duration,
            headers_with_underscores_action, max_requests_per_connection,
        }
        accept {}
        refuse { max_connection_duration_jitter, max_response_headers_kb }
    });
    let limit = |field: &str, value, default| messages::limit(&at.field(field), value, default);
    out.idle_timeout = limit("idle_timeout", idle_timeout.as_ref(), out.idle_timeout);
    out.max_connection_duration =
        limit("max_connection_duration", max_connection_duration.as_ref(), None);
    out.max_stream_duration = limit("max_stream_duration", max_stream_duration.as_ref(), None);
    out.max_headers = messages::positive(
        &at.field("max_headers_count"),
        max_headers_count.as_ref(),
        out.max_headers,
    );
    out.max_requests =
        messages::number(max_requests_per_connection.as_ref()).filter(|requests| *requests > 0);
    out.underscores = match HeadersWithUnderscoresAction::try_from(*headers_with_underscores_action)
    {
        Ok(HeadersWithUnderscoresAction::Allow) => Underscores::Allow,
        Ok(HeadersWithUnderscoresAction::RejectRequest) => Underscores::Reject,
        Ok(HeadersWithUnderscoresAction::DropHeader) => Underscores::Drop,
        Err(_) => {
            at.field("headers_with_underscores_action").unsupported();
            Underscores::Reject
        }
    };
    out
}

/// Options of the HTTP/1.1 codec.
pub(super) fn http1(at: &At<'_>, options: Option<&Http1ProtocolOptions>) -> Http1Options {
    let Some(options) = options else { return Http1Options::default() };
    fields!(at, options => Http1ProtocolOptions {
        use { allow_absolute_url, accept_http_10, default_host_for_http_10, enable_trailers }
        // Which parser Envoy uses; ours is its own.
        accept { use_balsa_parser }
        refuse {
            header_key_format, allow_chunked_length, override_stream_error_on_invalid_http_message,
            send_fully_qualified_url, allow_custom_methods, ignore_http_11_upgrade,
        }
    });
    Http1Options {
        allow_absolute_url: messages::flag(allow_absolute_url.as_ref(), true),
        http10: accept_http_10.then(|| default_host_for_http_10.as_str().into()),
        trailers: *enable_trailers,
    }
}

/// Options of the HTTP/2 codec.
pub(super) fn http2(at: &At<'_>, options: Option<&Http2ProtocolOptions>) -> Http2Options {
    let Some(options) = options else { return Http2Options::default() };
    fields!(at, options => Http2ProtocolOptions {
        use {
            max_concurrent_streams, initial_stream_window_size, initial_connection_window_size,
            allow_connect, connection_keepalive,
        }
        // Which library Envoy uses, and its own bounds against floods; ours has its own. A message
        // that is malformed always ends its stream, and a frame that is always the connection.
        accept {
            use_oghttp2_codec, max_outbound_frames, max_outbound_control_frames,
            max_consecutive_inbound_frames_with_empty_payload,
            max_inbound_priority_frames_per_stream,
            max_inbound_window_update_frames_per_data_frame_sent, hpack_table_size,
            enable_huffman_encoding, stream_reset_burst, stream_reset_rate,
            stream_error_on_invalid_http_messaging, override_stream_error_on_invalid_http_message,
        }
        refuse {
            allow_metadata, custom_settings_parameters, max_metadata_size,
            max_header_field_size_kb, disallow_obs_text,
        }
    });
    let number = |field: &str, value, least: u32| {
        let value = messages::number(value);
        // RFC 9113 §6.9.1: no window is larger than 2^31 - 1.
        if value.is_some_and(|value| !(least..=i32::MAX.unsigned_abs()).contains(&value)) {
            at.field(field).fault(format!("is not between {least} and 2147483647"));
        }
        value
    };
    Http2Options {
        max_concurrent_streams: number(
            "max_concurrent_streams",
            max_concurrent_streams.as_ref(),
            1,
        ),
        stream_window: number(
            "initial_stream_window_size",
            initial_stream_window_size.as_ref(),
            WINDOW_MIN,
        ),
        connection_window: number(
            "initial_connection_window_size",
            initial_connection_window_size.as_ref(),
            WINDOW_MIN,
        ),
        allow_connect: *allow_connect,
        keepalive: keepalive(&at.field("connection_keepalive"), connection_keepalive.as_ref()),
    }
}

fn keepalive(at: &At<'_>, settings: Option<&KeepaliveSettings>) -> Option<Http2Keepalive> {
    let settings = settings?;
    fields!(at, settings => KeepaliveSettings {
        use { interval, timeout, interval_jitter }
        accept {}
        refuse { connection_idle_interval }
    });
    let time = |field: &str, value| {
        messages::duration(&at.field(field), value).filter(|time| !time.is_zero())
    };
    let Some(timeout) = time("timeout", timeout.as_ref()) else {
        at.field("timeout").fault("is missing");
        return None;
    };
    let jitter = interval_jitter.as_ref().map_or(KEEPALIVE_JITTER, |percent| percent.value);
    if !(0.0..=100.0).contains(&jitter) {
        at.field("interval_jitter").fault("is not between 0 and 100");
    }
    Some(Http2Keepalive {
        interval: time("interval", interval.as_ref()),
        jitter_percent: jitter.clamp(0.0, 100.0) as u8,
        timeout,
    })
}

fn chain(at: &At<'_>, filters: &[PbFilter]) -> Vec<HttpFilter> {
    let mut compiled = Vec::with_capacity(filters.len());
    for (index, filter) in filters.iter().enumerate() {
        compiled.extend(http_filter(&at.nth(index), filter));
    }
    let routers = compiled.iter().filter(|filter| is_router(filter)).count();
    if routers != 1 || !compiled.last().is_some_and(is_router) {
        at.fault("must end in the router, and hold no other");
    }
    compiled
}

fn is_router(filter: &HttpFilter) -> bool {
    matches!(filter.kind, HttpFilterKind::Router(_))
}

fn http_filter(at: &At<'_>, filter: &PbFilter) -> Option<HttpFilter> {
    fields!(at, filter => PbFilter {
        use { name, is_optional, disabled, config_type }
        accept {}
        refuse {}
    });
    let any = match config_type {
        Some(ConfigType::TypedConfig(any)) => any,
        Some(ConfigType::ConfigDiscovery(_)) => {
            at.field("config_discovery").unsupported();
            return None;
        }
        None => {
            at.field("typed_config").fault(format!("is missing for {name:?}"));
            return None;
        }
    };
    let at = &at.field("typed_config");
    let kind = match message_of(any) {
        LUA => HttpFilterKind::Lua(Arc::new(lua(at, any)?)),
        ROUTER => HttpFilterKind::Router(router(at, any)?),
        CORS => HttpFilterKind::Cors,
        FAULT => HttpFilterKind::Fault(Arc::new(filters::fault(at, any)?)),
        RATE_LIMIT => HttpFilterKind::RateLimit(Arc::new(filters::rate_limit(at, any)?)),
        MUTATION => HttpFilterKind::Mutation(Arc::new(filters::mutation(at, any)?)),
        ALPN => HttpFilterKind::Alpn(Arc::new(filters::alpn(at, any)?)),
        EXT_AUTHZ => HttpFilterKind::Authz(Arc::new(ext_authz::http(at, any)?)),
        HEALTH_CHECK => HttpFilterKind::HealthCheck(Arc::new(filters::health_check(at, any)?)),
        RBAC => HttpFilterKind::Rbac(Arc::new(rbac::http_filter(at, any)?)),
        JWT => HttpFilterKind::Jwt(Arc::new(jwt::filter(at, any)?)),
        // The cluster resolves names itself, by the settings of its own.
        DYNAMIC_FORWARD => {
            dns::http_filter(at, any);
            return None;
        }
        unseen if UNSEEN.contains(&unseen) => return None,
        // The user has said that the traffic may go on without it.
        _ if *is_optional => return None,
        other => {
            at.fault(format!("HTTP filter {other} is not supported"));
            return None;
        }
    };
    Some(HttpFilter { name: name.as_str().into(), disabled: *disabled, kind })
}

fn lua(at: &At<'_>, any: &Any) -> Option<LuaFilter> {
    let lua = at.unpack::<Lua>(any)?;
    fields!(at, &lua => Lua {
        use {
            inline_code, source_codes, default_source_code, clear_route_cache, filter_context,
            package_paths,
        }
        accept { stat_prefix }
        // Native libraries would run outside of every bound.
        refuse { package_cpaths }
    });
    let source = match default_source_code {
        Some(_) if !inline_code.is_empty() => {
            at.field("default_source_code").fault("does not go with inline_code");
            return None;
        }
        Some(source) => Some(messages::source(&at.field("default_source_code"), source)?),
        None if inline_code.is_empty() => None,
        None => Some(Source::Text(inline_code.as_str().into())),
    };
    let list = at.field("source_codes");
    let sources = source_codes.iter().filter_map(|(name, source)| {
        Some((name.as_str().into(), messages::source(&list.field(name), source)?))
    });
    Some(LuaFilter {
        source,
        sources: sources.collect(),
        context: filter_context.as_ref().map(|fields| Arc::new(values::fields(fields))),
        package_paths: package_paths.iter().map(|path| path.as_str().into()).collect(),
        clear_route_cache: messages::flag(clear_route_cache.as_ref(), true),
    })
}

fn router(at: &At<'_>, any: &Any) -> Option<RouterOptions> {
    let router = at.unpack::<Router>(any)?;
    fields!(at, &router => Router {
        use { suppress_envoy_headers, respect_expected_rq_timeout }
        // Statistics and tracing.
        accept { dynamic_stats, start_child_span, suppress_grpc_request_failure_code_stats }
        refuse {
            upstream_log, upstream_log_options, strict_check_headers, upstream_http_filters,
            reject_connect_request_early_data,
        }
    });
    Some(RouterOptions {
        suppress_envoy_headers: *suppress_envoy_headers,
        respects_expected_timeout: *respect_expected_rq_timeout,
    })
}
