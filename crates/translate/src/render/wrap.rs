//! The small wrappers that Envoy's messages are full of.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use envoy_types::pb::{
    envoy::config::{
        core::v3::{
            Address, AggregatedConfigSource, ApiConfigSource, ApiVersion, ConfigSource, DataSource,
            GrpcService, Metadata, Pipe, SocketAddress, address, api_config_source::ApiType,
            config_source::ConfigSourceSpecifier, data_source, grpc_service, socket_address,
        },
        listener::v3::AdditionalAddress,
    },
    google::protobuf::{
        BoolValue, Duration as ProtoDuration, Struct, UInt32Value, Value, value::Kind,
    },
};

/// The bootstrap's cluster that serves secrets.
const SDS_CLUSTER: &str = "sds-grpc";

pub(crate) fn yes() -> Option<BoolValue> {
    boolean(true)
}

#[expect(clippy::unnecessary_wraps, reason = "Envoy's messages hold optional wrappers")]
pub(crate) fn boolean(value: bool) -> Option<BoolValue> {
    Some(BoolValue { value })
}

#[expect(clippy::unnecessary_wraps, reason = "Envoy's messages hold optional wrappers")]
pub(crate) fn number(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

/// A duration; what is too long for protobuf (ten thousand years) becomes the longest.
pub(crate) fn duration(value: Duration) -> ProtoDuration {
    /// The limit of `google.protobuf.Duration`.
    const SECONDS_MAX: i64 = 315_576_000_000;
    let seconds = i64::try_from(value.as_secs()).unwrap_or(SECONDS_MAX).min(SECONDS_MAX);
    // Below 1e9, so it fits.
    let nanos = i32::try_from(value.subsec_nanos()).unwrap_or(0);
    ProtoDuration { seconds, nanos }
}

pub(crate) fn inline(text: impl Into<String>) -> DataSource {
    DataSource {
        specifier: Some(data_source::Specifier::InlineString(text.into())),
        ..DataSource::default()
    }
}

pub(crate) fn socket(address: impl ToString, port: u16) -> Address {
    Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            address: address.to_string(),
            port_specifier: Some(socket_address::PortSpecifier::PortValue(u32::from(port))),
            ..SocketAddress::default()
        })),
    }
}

/// Further addresses of a listener, of the same port.
pub(crate) fn additional(addresses: &[IpAddr], port: u16) -> Vec<AdditionalAddress> {
    let one = |address: &IpAddr| AdditionalAddress {
        address: Some(socket(address, port)),
        ..AdditionalAddress::default()
    };
    addresses.iter().map(one).collect()
}

/// A unix socket to connect to.
pub(crate) fn pipe(path: &str) -> Address {
    let pipe = Pipe { path: path.to_owned(), ..Pipe::default() };
    Address { address: Some(address::Address::Pipe(pipe)) }
}

/// Bytes, as text where they are text.
pub(crate) fn bytes(bytes: &[u8]) -> DataSource {
    match std::str::from_utf8(bytes) {
        Ok(text) => inline(text),
        Err(_) => DataSource {
            specifier: Some(data_source::Specifier::InlineBytes(bytes.to_vec())),
            ..DataSource::default()
        },
    }
}

/// The configuration source "over the stream that this came by".
///
/// As Istio: no time limit for the first answer, so that a listener never serves without its routes.
pub(crate) fn ads() -> ConfigSource {
    ConfigSource {
        initial_fetch_timeout: Some(ProtoDuration::default()),
        resource_api_version: ApiVersion::V3.into(),
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..ConfigSource::default()
    }
}

/// The same, for secrets: after Envoy's own time limit a listener serves its other chains without one
/// that does not come, as in Istio.
pub(crate) fn ads_secrets() -> ConfigSource {
    ConfigSource { initial_fetch_timeout: None, ..ads() }
}

/// The configuration source "the secrets' own server beside the proxy".
pub(crate) fn sds() -> ConfigSource {
    let envoy_grpc = grpc_service::EnvoyGrpc {
        cluster_name: SDS_CLUSTER.to_owned(),
        ..grpc_service::EnvoyGrpc::default()
    };
    ConfigSource {
        initial_fetch_timeout: Some(ProtoDuration::default()),
        resource_api_version: ApiVersion::V3.into(),
        config_source_specifier: Some(ConfigSourceSpecifier::ApiConfigSource(ApiConfigSource {
            api_type: ApiType::Grpc.into(),
            transport_api_version: ApiVersion::V3.into(),
            set_node_on_first_message_only: true,
            grpc_services: vec![GrpcService {
                target_specifier: Some(grpc_service::TargetSpecifier::EnvoyGrpc(envoy_grpc)),
                ..GrpcService::default()
            }],
            ..ApiConfigSource::default()
        })),
        ..ConfigSource::default()
    }
}

/// A text in metadata.
pub(crate) fn text(text: &str) -> Value {
    Value { kind: Some(Kind::StringValue(text.to_owned())) }
}

/// Istio's metadata that names the user's resource: `istio: {config: …}`.
///
/// One key only: maps with several have no fixed order on the wire.
pub(crate) fn metadata(config: Option<&str>) -> Option<Metadata> {
    let text = Value { kind: Some(Kind::StringValue(config?.to_owned())) };
    let fields = HashMap::from([("config".to_owned(), text)]);
    let filter_metadata = HashMap::from([("istio".to_owned(), Struct { fields })]);
    Some(Metadata { filter_metadata, ..Metadata::default() })
}

/// The prefix of an address: 32 or 128 bits for a lone one.
pub(crate) fn cidr(
    range: sluis_nouns::Cidr,
) -> envoy_types::pb::envoy::config::core::v3::CidrRange {
    let address: IpAddr = range.addr();
    envoy_types::pb::envoy::config::core::v3::CidrRange {
        address_prefix: address.to_string(),
        prefix_len: number(u32::from(range.prefix())),
    }
}
