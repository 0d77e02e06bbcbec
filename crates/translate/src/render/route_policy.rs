//! What goes with a route: faults, CORS, copies, hashes.

use std::collections::HashMap;

use envoy_types::pb::{
    envoy::{
        config::{
            core::v3::RuntimeFractionalPercent,
            route::v3::route_action::{
                HashPolicy, RequestMirrorPolicy,
                hash_policy::{
                    ConnectionProperties, Cookie, CookieAttribute, Header, PolicySpecifier,
                    QueryParameter,
                },
            },
        },
        extensions::filters::{
            common::fault::v3::{FaultDelay, fault_delay::FaultDelaySecifier},
            http::{
                cors::v3::CorsPolicy,
                fault::v3::{FaultAbort, HttpFault, fault_abort::ErrorType},
            },
        },
        r#type::v3::{FractionalPercent, fractional_percent::DenominatorType},
    },
    google::protobuf::Any,
};
use sluis_envoy::pack;
use sluis_nouns::Percent;

use super::{authorization, matcher::string, wrap};
use crate::{AbortStatus, CorsInput, FaultInput, HashInput, MirrorInput, RouteInput};

/// The names of the filters that look at what a route says of them.
pub(crate) const FAULT: &str = "envoy.filters.http.fault";
pub(crate) const CORS: &str = "envoy.filters.http.cors";

/// What a route says to filters, by their names.
pub(super) fn per_filter(input: &RouteInput) -> HashMap<String, Any> {
    let fault = input.fault.as_ref().map(|input| (FAULT.to_owned(), pack(&fault(input))));
    let cors = input.cors.as_ref().map(|input| (CORS.to_owned(), pack(&cors(input))));
    let guard = input.guard.iter().flat_map(|guard| authorization::per_route(guard));
    fault.into_iter().chain(cors).chain(guard).collect()
}

fn fault(input: &FaultInput) -> HttpFault {
    HttpFault {
        delay: input.delay.map(|(duration, share)| FaultDelay {
            percentage: Some(fraction(share)),
            fault_delay_secifier: Some(FaultDelaySecifier::FixedDelay(wrap::duration(duration))),
        }),
        abort: input.abort.map(|(status, share)| FaultAbort {
            percentage: Some(fraction(share)),
            error_type: Some(match status {
                AbortStatus::Http(status) => ErrorType::HttpStatus(status),
                AbortStatus::Grpc(status) => ErrorType::GrpcStatus(status),
            }),
            ..FaultAbort::default()
        }),
        ..HttpFault::default()
    }
}

fn cors(input: &CorsInput) -> CorsPolicy {
    CorsPolicy {
        allow_origin_string_match: input.origins.iter().filter_map(string).collect(),
        allow_methods: input.methods.clone(),
        allow_headers: input.headers.clone(),
        expose_headers: input.exposed.clone(),
        max_age: input.max_age.map(|seconds| seconds.to_string()).unwrap_or_default(),
        allow_credentials: input.credentials.and_then(wrap::boolean),
        filter_enabled: Some(share(Percent::ALL)),
        forward_not_matching_preflights: wrap::boolean(input.is_unmatched_forwarded),
        ..CorsPolicy::default()
    }
}

pub(super) fn mirror(input: &MirrorInput) -> RequestMirrorPolicy {
    RequestMirrorPolicy {
        cluster: input.cluster.clone(),
        runtime_fraction: Some(share(input.share)),
        trace_sampled: wrap::boolean(false),
        ..RequestMirrorPolicy::default()
    }
}

pub(super) fn hash(input: &HashInput) -> HashPolicy {
    let specifier = match input {
        HashInput::Header(name) => {
            PolicySpecifier::Header(Header { header_name: name.clone(), ..Header::default() })
        }
        HashInput::Cookie { name, path, ttl, attributes } => PolicySpecifier::Cookie(Cookie {
            name: name.clone(),
            path: path.clone(),
            ttl: ttl.map(wrap::duration),
            attributes: attributes
                .iter()
                .map(|(name, value)| CookieAttribute { name: name.clone(), value: value.clone() })
                .collect(),
        }),
        HashInput::SourceIp => {
            PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true })
        }
        HashInput::Query(name) => {
            PolicySpecifier::QueryParameter(QueryParameter { name: name.clone() })
        }
    };
    HashPolicy { policy_specifier: Some(specifier), ..HashPolicy::default() }
}

fn share(percent: Percent) -> RuntimeFractionalPercent {
    RuntimeFractionalPercent {
        default_value: Some(fraction(percent)),
        ..RuntimeFractionalPercent::default()
    }
}

/// A share; all and nothing in hundredths, as Istio has them, the others exactly.
fn fraction(percent: Percent) -> FractionalPercent {
    let (numerator, denominator) = match percent.millionths() {
        1_000_000 => (100, DenominatorType::Hundred),
        millionths => (millionths, DenominatorType::Million),
    };
    FractionalPercent { numerator, denominator: denominator.into() }
}
