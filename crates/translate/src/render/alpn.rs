//! Istio's ALPN filter: a client's sidecar names the mesh's HTTP in its hello, so that the server's
//! knows requests from bytes on a port that does not say its protocol.

use envoy_types::pb::{
    envoy::extensions::filters::network::http_connection_manager::v3::{HttpFilter, http_filter},
    google::protobuf::Any,
};
use prost::Message;

/// The filter's name; a proxy that has it says so in its node's `extensions`.
const NAME: &str = "istio.alpn";

const TYPE_URL: &str =
    "type.googleapis.com/istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig";

/// What is offered, by the version of HTTP that is spoken: Istio's lists.
const OFFERS: [(i32, [&str; 3]); 3] = [
    (0, ["istio-http/1.0", "istio", "http/1.0"]),
    (1, ["istio-http/1.1", "istio", "http/1.1"]),
    (2, ["istio-h2", "istio", "h2"]),
];

/// Istio's own message, which is in no library: `istio.envoy.config.filter.http.alpn.v2alpha1`.
#[derive(Clone, PartialEq, Message)]
struct FilterConfig {
    #[prost(message, repeated, tag = "1")]
    alpn_override: Vec<Offer>,
}

#[derive(Clone, PartialEq, Message)]
struct Offer {
    #[prost(int32, tag = "1")]
    upstream_protocol: i32,
    #[prost(string, repeated, tag = "2")]
    alpn_override: Vec<String>,
}

/// The filter.
pub(super) fn filter() -> HttpFilter {
    let offer = |(upstream_protocol, names): (i32, [&str; 3])| Offer {
        upstream_protocol,
        alpn_override: names.map(str::to_owned).to_vec(),
    };
    let config = FilterConfig { alpn_override: OFFERS.into_iter().map(offer).collect() };
    let packed = Any { type_url: TYPE_URL.to_owned(), value: config.encode_to_vec() };
    HttpFilter {
        name: NAME.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(packed)),
        ..HttpFilter::default()
    }
}
