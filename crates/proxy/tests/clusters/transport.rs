//! What is said to endpoints ahead of the protocol, and clusters that go where the client says.

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::{
    harness::soon,
    sides::{Dns, Origin, Serve, cluster, endpoint, sides, to_origin},
};

const TYPE: &str = "type.googleapis.com/envoy.extensions";

fn proxy_protocol(version: &str) -> Value {
    json!({ "transport_socket": { "name": "proxy", "typed_config": {
        "@type": format!("{TYPE}.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport"),
        "config": { "version": version },
        "transport_socket": { "name": "raw", "typed_config": {
            "@type": format!("{TYPE}.transport_sockets.raw_buffer.v3.RawBuffer") } } } } })
}

/// What the endpoint of a TCP proxy sees first, for a client that sends `hello`.
async fn seen(fields: Value, tcp: Value, answer: &[u8], length: usize) -> Vec<(Vec<u8>, String)> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut cluster = cluster(&[], fields);
    cluster["load_assignment"]["endpoints"][0]["lb_endpoints"] =
        json!([endpoint(listener.local_addr().unwrap())]);
    let mut all = Vec::new();
    for side in sides(Serve::Tcp(tcp), json!([cluster])).await {
        let mut client = TcpStream::connect(side.address).await.unwrap();
        client.write_all(b"hello").await.unwrap();
        let mut first = vec![0; length];
        let (mut stream, _) = soon("connection", listener.accept()).await.unwrap();
        soon("the first bytes", stream.read_exact(&mut first)).await.unwrap();
        stream.write_all(answer).await.unwrap();
        let mut rest = [0; 5];
        soon("hello", stream.read_exact(&mut rest)).await.unwrap();
        assert_eq!(&rest, b"hello", "{}", side.name);
        stream.write_all(b"world").await.unwrap();
        soon("world", client.read_exact(&mut rest)).await.unwrap();
        assert_eq!(&rest, b"world", "{}", side.name);
        let ports = format!(
            "{} {}",
            client.local_addr().unwrap().port(),
            client.peer_addr().unwrap().port()
        );
        all.push((first, ports));
    }
    all
}

#[tokio::test]
async fn a_proxy_header_in_text_tells_who_the_client_is() {
    let tcp = json!({ "cluster": "origin" });
    let sample = "PROXY TCP4 127.0.0.1 127.0.0.1 00000 00000\r\n";
    for (first, ports) in seen(proxy_protocol("V1"), tcp, b"", sample.len()).await {
        let text = String::from_utf8(first).unwrap();
        assert_eq!(text, format!("PROXY TCP4 127.0.0.1 127.0.0.1 {ports}\r\n"));
    }
}

#[tokio::test]
async fn a_proxy_header_in_binary_tells_who_the_client_is() {
    let tcp = json!({ "cluster": "origin" });
    for (first, ports) in seen(proxy_protocol("V2"), tcp, b"", 28).await {
        assert_eq!(&first[..16], b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c");
        let port = |at: usize| u16::from_be_bytes([first[at], first[at + 1]]);
        assert_eq!(format!("{} {}", port(24), port(26)), ports);
    }
}

#[tokio::test]
async fn a_tunnel_is_asked_for_and_bytes_flow_through_it() {
    let tcp = json!({ "cluster": "origin", "tunneling_config": { "hostname": "api.test:443",
        "headers_to_add": [{ "header": { "key": "x-a", "value": "b" } }] } });
    let answer = b"HTTP/1.1 200 OK\r\n\r\n";
    let asked = "CONNECT api.test:443 HTTP/1.1\r\nhost: api.test:443\r\nx-a: b\r\n\r\n";
    for (first, _) in seen(json!({}), tcp, answer, asked.len()).await {
        assert_eq!(String::from_utf8(first).unwrap(), asked);
    }
}

#[tokio::test]
async fn a_header_chooses_the_destination_where_the_cluster_allows_it() {
    let origin = Origin::start("a").await;
    let cluster = json!({ "name": "origin", "type": "ORIGINAL_DST", "connect_timeout": "2s",
        "lb_policy": "CLUSTER_PROVIDED", "original_dst_lb_config": { "use_http_header": true, "http_header_name": "x-to" } });
    for side in sides(to_origin(json!({})), json!([cluster])).await {
        let mut client = side.client().await;
        let to = origin.address.to_string();
        let answer = client.get("/", &[("x-to", &to)]).await;
        assert_eq!((answer.status, &*answer.body), (200, "a"), "{}", side.name);
        let answer = client.get("/", &[("x-to", "nowhere")]).await;
        assert_eq!((answer.status, &*answer.body), (503, "no healthy upstream"), "{}", side.name);
    }
}

/// A TLS hello that names this host (RFC 8446 §4.1.2, as little of it as can be).
fn hello(host: &str) -> Vec<u8> {
    let u16s = |length: usize| (length as u16).to_be_bytes();
    let mut name = vec![0];
    name.extend(u16s(host.len()));
    name.extend(host.bytes());
    let mut extension = vec![0, 0];
    extension.extend(u16s(name.len() + 2));
    extension.extend(u16s(name.len()));
    extension.extend(name);
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0x13, 1, 1, 0]);
    body.extend(u16s(extension.len()));
    body.extend(extension);
    let mut message = vec![1, 0];
    message.extend(u16s(body.len()));
    message.extend(body);
    let mut record = vec![22, 3, 1];
    record.extend(u16s(message.len()));
    record.extend(message);
    record
}

#[tokio::test]
async fn a_hello_goes_to_the_host_that_it_names() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let dns = Dns::start(&[("one.test", &[[127, 0, 0, 1]], 60)]).await;
    let cache = json!({ "name": "cache", "dns_lookup_family": "V4_ONLY",
        "typed_dns_resolver_config": dns.resolver() });
    let cluster = json!({ "name": "origin", "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "2s",
        "metadata": { "filter_metadata": { "sluis.dev": { "allow_private": true } } },
        "cluster_type": { "name": "envoy.clusters.dynamic_forward_proxy", "typed_config": {
            "@type": format!("{TYPE}.clusters.dynamic_forward_proxy.v3.ClusterConfig"),
            "dns_cache_config": cache } } });
    let filter = json!({ "name": "sni", "typed_config": {
        "@type": format!("{TYPE}.filters.network.sni_dynamic_forward_proxy.v3.FilterConfig"),
        "port_value": port, "dns_cache_config": cache } });
    for side in sides(Serve::Sni(filter), json!([cluster])).await {
        let mut client = TcpStream::connect(side.address).await.unwrap();
        let sent = hello("one.test");
        client.write_all(&sent).await.unwrap();
        let (mut stream, _) = soon("connection", listener.accept()).await.unwrap();
        let mut first = vec![0; sent.len()];
        soon("hello", stream.read_exact(&mut first)).await.unwrap();
        assert_eq!(first, sent, "{}", side.name);
        let mut other = TcpStream::connect(side.address).await.unwrap();
        other.write_all(&hello("two.test")).await.unwrap();
        let mut rest = Vec::new();
        drop(soon("close", other.read_to_end(&mut rest)).await);
        assert!(rest.is_empty(), "{}", side.name);
    }
}
