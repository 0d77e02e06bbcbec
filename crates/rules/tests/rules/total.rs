//! Compiling never panics, whatever comes off the wire.

use std::sync::Arc;

use envoy_types::pb::{
    envoy::config::{
        cluster::v3::Cluster,
        endpoint::v3::ClusterLoadAssignment,
        listener::v3::{Filter, FilterChain, Listener, filter::ConfigType},
        route::v3::RouteConfiguration,
    },
    google::protobuf::Any,
};
use proptest::prelude::*;
use prost::Message;
use sluis_envoy::{Kind, ResourceSet};
use sluis_rules::{ConnectionFacts, TransportProtocol, compile};

use crate::{compiling, support};

fn decide(set: &ResourceSet) {
    let compiled = compile(set, None);
    let again = compile(set, Some(&compiled.runtime));
    assert_eq!(compiled.faults, again.faults);
    for listener in compiled.runtime.listeners.values() {
        let facts = ConnectionFacts {
            destination: Some(([10, 0, 0, 1], 443).into()),
            source: Some(([10, 0, 0, 2], 4444).into()),
            direct_source: None,
            server_name: Some("a.b"),
            transport: TransportProtocol::Tls,
            application_protocols: &["h2", ""],
        };
        let _ = listener.chain(&facts);
    }
    for table in compiled.runtime.routes.values() {
        let _ = table.route(&support::get("a.b:80", "/a?b=c"));
    }
}

/// Good resources with a few bytes changed.
fn mutated(kind: Kind) -> impl Strategy<Value = Vec<u8>> {
    let set = support::set(&compiling::everything());
    let bodies: Vec<Vec<u8>> =
        set.encode().of(kind).map(|encoded| encoded.body.value.clone()).collect();
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6);
    (prop::sample::select(bodies), changes).prop_map(|(mut body, changes)| {
        for (at, byte) in changes {
            let at = at.index(body.len());
            body[at] = byte;
        }
        body
    })
}

proptest! {
    #[test]
    fn mutated_listeners_compile_or_are_rejected(body in mutated(Kind::Listener)) {
        if let Ok(message) = Listener::decode(body.as_slice()) {
            let mut set = ResourceSet::default();
            set.listeners.insert("x".to_owned(), Arc::new(message));
            decide(&set);
        }
    }

    #[test]
    fn mutated_clusters_compile_or_are_rejected(
        body in mutated(Kind::Cluster),
        endpoints in mutated(Kind::Endpoints),
    ) {
        let mut set = ResourceSet::default();
        if let Ok(message) = Cluster::decode(body.as_slice()) {
            set.clusters.insert("x".to_owned(), Arc::new(message));
        }
        if let Ok(message) = ClusterLoadAssignment::decode(endpoints.as_slice()) {
            set.endpoints.insert("eds".to_owned(), Arc::new(message));
        }
        decide(&set);
    }

    #[test]
    fn mutated_routes_compile_or_are_rejected(body in mutated(Kind::Route)) {
        if let Ok(message) = RouteConfiguration::decode(body.as_slice()) {
            let mut set = ResourceSet::default();
            set.routes.insert("x".to_owned(), Arc::new(message));
            decide(&set);
        }
    }

    #[test]
    fn random_bytes_in_a_filter_are_rejected_or_compiled(
        value in proptest::collection::vec(any::<u8>(), 0..200),
        http in any::<bool>(),
    ) {
        let name = if http {
            "http_connection_manager.v3.HttpConnectionManager"
        } else {
            "tcp_proxy.v3.TcpProxy"
        };
        let type_url =
            format!("type.googleapis.com/envoy.extensions.filters.network.{name}");
        let config = ConfigType::TypedConfig(Any { type_url, value });
        let filter = Filter { name: "f".to_owned(), config_type: Some(config) };
        let chain = FilterChain { filters: vec![filter], ..FilterChain::default() };
        let message = Listener { filter_chains: vec![chain], ..Listener::default() };
        let mut set = ResourceSet::default();
        set.listeners.insert("x".to_owned(), Arc::new(message));
        decide(&set);
    }
}
