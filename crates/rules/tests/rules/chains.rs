//! Which filter chain a connection gets, and which listener.

use serde_json::{Value, json};
use sluis_envoy::Kind;
use sluis_rules::{ChainReason, ConnectionFacts, Listener, NoChain, Runtime, TransportProtocol};

use crate::support::{faults, runtime};

fn chain(name: &str, matches: Value) -> Value {
    json!({ "name": name, "filter_chain_match": matches, "filters": [tcp()] })
}

fn tcp() -> Value {
    json!({ "name": "tcp", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "s", "cluster": "c" } })
}

fn address(ip: &str, port: u16) -> Value {
    json!({ "socket_address": { "address": ip, "port_value": port } })
}

fn listener(chains: Value) -> std::sync::Arc<Runtime> {
    runtime(&[(
        Kind::Listener,
        json!({ "name": "l", "address": address("0.0.0.0", 15001), "filter_chains": chains }),
    )])
}

#[test]
fn a_filter_passes_the_clients_server_name_on_and_no_other_state() {
    let check = |key: &str, format: &str, expected: Option<&str>| {
        let filter = json!({ "name": "state", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.set_filter_state.v3.Config",
            "on_new_connection": [{ "object_key": key, "format_string": {
                "text_format_source": { "inline_string": format } } }] } });
        let chains = json!([{ "name": "a", "filters": [filter, tcp()] }]);
        let all = [(
            Kind::Listener,
            json!({ "name": "l", "address": address("0.0.0.0", 15001), "filter_chains": chains }),
        )];
        match expected {
            Some(fault) => assert!(faults(&all).contains(fault), "{:?}", faults(&all)),
            None => drop(runtime(&all)),
        }
    };
    let key = "envoy.network.upstream_server_name";
    check(key, "%REQUESTED_SERVER_NAME%", None);
    check(key, "fixed.example.com", Some("only envoy.network.upstream_server_name"));
    check("other", "%REQUESTED_SERVER_NAME%", Some("only envoy.network.upstream_server_name"));
}

/// A connection from 10.0.0.9:999 to 10.1.2.3:443 about which nothing was found.
fn facts() -> ConnectionFacts<'static> {
    ConnectionFacts {
        destination: Some("10.1.2.3:443".parse().unwrap()),
        source: Some("10.0.0.9:999".parse().unwrap()),
        direct_source: Some("10.0.0.9:999".parse().unwrap()),
        server_name: None,
        transport: TransportProtocol::RawBuffer,
        application_protocols: &[],
    }
}

fn sni(name: &str) -> ConnectionFacts<'_> {
    ConnectionFacts { server_name: Some(name), transport: TransportProtocol::Tls, ..facts() }
}

#[track_caller]
fn check(listener: &Listener, facts: &ConnectionFacts<'_>, expected: &str) {
    let found = listener.chain(facts).map(|(chain, _)| chain.name.to_string());
    assert_eq!(found.as_deref().unwrap_or("none"), expected, "{facts:?}");
}

#[test]
fn server_names_match_exactly_then_by_the_longest_suffix() {
    let runtime = listener(json!([
        chain("exact", json!({ "server_names": ["api.data.local"] })),
        chain("deep", json!({ "server_names": ["*.b.data.local"] })),
        chain("suffix", json!({ "server_names": ["*.data.local", "other.local"] })),
        chain("rest", json!({})),
    ]));
    let listener = &runtime.listeners["l"];
    for (name, expected) in [
        ("api.data.local", "exact"),
        ("API.Data.Local", "exact"),
        ("x.data.local", "suffix"),
        ("x.y.data.local", "suffix"),
        ("x.b.data.local", "deep"),
        ("b.data.local", "suffix"),
        ("data.local", "rest"),
        (".data.local", "rest"),
        ("other.local", "suffix"),
        ("api.data.local.evil.com", "rest"),
        ("", "rest"),
    ] {
        check(listener, &sni(name), expected);
    }
    check(listener, &facts(), "rest");
}

#[test]
fn ports_and_addresses_come_before_names() {
    let range = |prefix: &str, bits: u8| json!([{ "address_prefix": prefix, "prefix_len": bits }]);
    let runtime = listener(json!([
        chain("port", json!({ "destination_port": 15001 })),
        chain("host", json!({ "prefix_ranges": range("10.1.2.3", 32), "server_names": ["a"] })),
        chain("net", json!({ "prefix_ranges": range("10.1.0.0", 16), "server_names": ["b"] })),
        chain("six", json!({ "prefix_ranges": range("fd00::", 8) })),
        chain("any", json!({ "server_names": ["b"] })),
    ]));
    let listener = &runtime.listeners["l"];
    check(listener, &sni("a"), "host");
    // A longer prefix that fails later hides the shorter one, as in Envoy.
    check(listener, &sni("b"), "none");
    let to =
        |to: &str, name| ConnectionFacts { destination: Some(to.parse().unwrap()), ..sni(name) };
    check(listener, &to("10.1.9.9:443", "b"), "net");
    check(listener, &to("10.9.9.9:443", "b"), "any");
    check(listener, &to("[fd00::1]:443", "b"), "six");
    check(listener, &to("10.9.9.9:15001", "b"), "port");
    check(listener, &ConnectionFacts { destination: None, ..sni("b") }, "any");
}

#[test]
fn transport_and_application_protocols_tell_chains_apart() {
    let runtime = listener(json!([
        chain("mtls", json!({ "transport_protocol": "tls", "application_protocols": ["istio"] })),
        chain("tls", json!({ "transport_protocol": "tls" })),
        chain(
            "http",
            json!({ "transport_protocol": "raw_buffer",
            "application_protocols": ["http/1.1", "h2c"] })
        ),
        chain("rest", json!({})),
    ]));
    let listener = &runtime.listeners["l"];
    let tls = TransportProtocol::Tls;
    check(listener, &ConnectionFacts { transport: tls, ..facts() }, "tls");
    let alpn = ["h2", "istio"];
    let mtls = ConnectionFacts { transport: tls, application_protocols: &alpn, ..facts() };
    check(listener, &mtls, "mtls");
    check(listener, &ConnectionFacts { application_protocols: &["h2c"], ..facts() }, "http");
    // `raw_buffer` is known, so that the chain without a protocol is hidden.
    check(listener, &facts(), "none");
}

#[test]
fn sources_come_last() {
    let range = json!([{ "address_prefix": "10.0.0.0", "prefix_len": 8 }]);
    let runtime = listener(json!([
        chain("local", json!({ "source_type": "SAME_IP_OR_LOOPBACK" })),
        chain("net", json!({ "source_prefix_ranges": range })),
        chain("port", json!({ "source_prefix_ranges": range, "source_ports": [7] })),
    ]));
    let listener = &runtime.listeners["l"];
    let from = |from: &str| ConnectionFacts { source: Some(from.parse().unwrap()), ..facts() };
    check(listener, &from("127.0.0.1:9"), "local");
    check(listener, &from("10.1.2.3:9"), "local");
    check(listener, &from("10.5.5.5:9"), "net");
    check(listener, &from("10.5.5.5:7"), "port");
    check(listener, &from("11.5.5.5:7"), "none");
}

#[test]
fn the_default_chain_takes_what_nothing_matches() {
    let mut resource = json!({ "name": "l", "address": address("0.0.0.0", 443),
        "filter_chains": [chain("a", json!({ "server_names": ["a"] }))] });
    let compiled = runtime(&[(Kind::Listener, resource.clone())]);
    assert_eq!(compiled.listeners["l"].chain(&facts()), Err(NoChain));
    resource["default_filter_chain"] = json!({ "name": "default", "filters": [tcp()] });
    let compiled = runtime(&[(Kind::Listener, resource)]);
    let (chain, reason) = compiled.listeners["l"].chain(&facts()).unwrap();
    assert_eq!((&*chain.name, reason), ("default", ChainReason::Default));
}

#[test]
fn chains_that_overlap_or_name_nonsense_are_rejected() {
    let check = |chains: Value, expected: &str| {
        let listener =
            json!({ "name": "l", "address": address("0.0.0.0", 1), "filter_chains": chains });
        let faults = faults(&[(Kind::Listener, listener)]);
        assert!(faults.contains(expected), "{faults:?} lacks {expected:?}");
    };
    let same = json!({ "server_names": ["a"] });
    check(
        json!([chain("a", same.clone()), chain("b", same)]),
        "filter_chains[1].filter_chain_match",
    );
    check(json!([chain("a", json!({ "server_names": ["a*"] }))]), "server_names[0]");
    check(json!([chain("a", json!({ "destination_port": 0 }))]), "is not a port number");
    check(json!([chain("a", json!({ "transport_protocol": "quic" }))]), "is not supported");
    check(json!([{ "filters": [] }]), "filters: is empty");
    check(json!([]), "filter_chains: is empty");
    check(json!([{ "filters": [tcp(), tcp()] }]), "filters[0]: serves the connection");
}

#[test]
fn a_connection_goes_to_the_listener_of_its_original_destination() {
    let listener = |name: &str, ip: &str, port, original_dst: bool| {
        let value = json!({ "name": name, "address": address(ip, port), "filter_chains":
            [chain("c", json!({}))], "use_original_dst": original_dst, "bind_to_port": original_dst });
        (Kind::Listener, value)
    };
    let both = |name: &str, port| {
        let (kind, mut value) = listener(name, "0.0.0.0", port, false);
        value["additional_addresses"] = json!([{ "address": address("::", port) }]);
        (kind, value)
    };
    let runtime = runtime(&[
        both("0.0.0.0_80", 80),
        listener("virtualOutbound", "0.0.0.0", 15001, true),
        listener("0.0.0.0_443", "0.0.0.0", 443, false),
        listener("240.0.0.1_443", "240.0.0.1", 443, false),
    ]);
    let check = |from: &str, to: &str, expected: &str| {
        let found = runtime.listener_for(&runtime.listeners[from], to.parse().unwrap());
        assert_eq!(&*found.name, expected, "{to}");
    };
    check("virtualOutbound", "240.0.0.1:443", "240.0.0.1_443");
    check("virtualOutbound", "240.0.0.2:443", "0.0.0.0_443");
    check("virtualOutbound", "240.0.0.1:90", "virtualOutbound");
    check("virtualOutbound", "[::1]:443", "virtualOutbound");
    check("virtualOutbound", "240.0.0.1:80", "0.0.0.0_80");
    check("virtualOutbound", "[2001:db8::1]:80", "0.0.0.0_80");
    check("0.0.0.0_443", "240.0.0.1:443", "0.0.0.0_443");
}
