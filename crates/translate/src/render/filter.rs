//! Filters with their settings packed.

use envoy_types::pb::envoy::{
    config::listener::v3::{Filter, ListenerFilter, filter, listener_filter},
    extensions::filters::network::http_connection_manager::v3::{HttpFilter, http_filter},
};
use prost::Name;
use sluis_envoy::pack;

/// A filter of HTTP.
pub(super) fn http_filter<M: Name>(name: &str, config: &M) -> HttpFilter {
    HttpFilter {
        name: name.to_owned(),
        config_type: Some(http_filter::ConfigType::TypedConfig(pack(config))),
        ..HttpFilter::default()
    }
}

/// A filter of connections.
pub(super) fn network_filter<M: Name>(name: &str, config: &M) -> Filter {
    Filter {
        name: name.to_owned(),
        config_type: Some(filter::ConfigType::TypedConfig(pack(config))),
    }
}

/// A filter of a listener.
pub(super) fn listener_filter<M: Name>(name: &str, config: &M) -> ListenerFilter {
    ListenerFilter {
        name: name.to_owned(),
        config_type: Some(listener_filter::ConfigType::TypedConfig(pack(config))),
        ..ListenerFilter::default()
    }
}
