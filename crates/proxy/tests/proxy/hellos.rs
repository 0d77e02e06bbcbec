//! Hellos as attackers and odd clients send them: cut, swollen, nameless, broken.
//!
//! Each row of history is a test here (CVE-2020-8660: the chain of a hello that is cut must be that of
//! the whole one).

use std::net::SocketAddr;

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    harness::{Echo, Proxy, cluster, listener, listener_filter, log_in, soon, tcp_chain},
    pki::Pki,
    tls::{dial, greeting, terminator},
};

fn block16(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

fn extension(kind: u16, value: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &block16(value)].concat()
}

fn sni(name: &str) -> Vec<u8> {
    extension(0, &block16(&[&[0][..], &block16(name.as_bytes())].concat()))
}

/// A ClientHello as one handshake message.
fn hello(extensions: &[Vec<u8>]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.push(0);
    body.extend([0, 2, 0x13, 0x01, 1, 0]);
    body.extend(block16(&extensions.concat()));
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[1][..], &length[1..], &body].concat()
}

/// A handshake message in records of this size.
fn records(message: &[u8], size: usize) -> Vec<u8> {
    message.chunks(size).flat_map(|part| [&[22, 3, 1][..], &block16(part)].concat()).collect()
}

/// A listener that passes TLS on by its name: one server for a name, another for all other TLS.
async fn by_name() -> (Proxy, Echo, Echo) {
    let dir = tempfile::tempdir().unwrap();
    let (api, rest) = (Echo::start("api").await, Echo::start("tls").await);
    let mut named = tcp_chain("api", &log_in(&dir));
    named["filter_chain_match"] = json!({"server_names": ["api.data.local"]});
    let mut other = tcp_chain("rest", &log_in(&dir));
    other["filter_chain_match"] = json!({"transport_protocol": "tls"});
    let body = json!({
        "listener_filters": [listener_filter("tls_inspector", "TlsInspector")],
        "filter_chains": [named, other],
    });
    let clusters = json!([cluster("api", &[api.address]), cluster("rest", &[rest.address])]);
    (Proxy::with(json!([listener("in", body)]), clusters).await, api, rest)
}

/// Which server a connection reaches that begins with these pieces; empty when none.
async fn reached(at: SocketAddr, pieces: &[&[u8]]) -> String {
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for piece in pieces {
        // A proxy that has made up its mind may have closed already.
        if stream.write_all(piece).await.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let mut name = vec![0; 3];
    match soon("an answer", stream.read_exact(&mut name)).await {
        Ok(_) => String::from_utf8(name).unwrap(),
        Err(_) => String::new(),
    }
}

#[tokio::test]
async fn a_hello_cut_at_every_byte_takes_the_chain_of_its_name() {
    let (proxy, _api, _rest) = by_name().await;
    let whole = records(&hello(&[sni("api.data.local"), extension(43, b"\x02\x03\x04")]), 1 << 14);
    for cut in 1..whole.len() {
        let found = reached(proxy.address("in"), &[&whole[..cut], &whole[cut..]]).await;
        assert_eq!(found, "api", "cut at {cut}");
    }
    let single: Vec<&[u8]> = whole.chunks(1).collect();
    assert_eq!(reached(proxy.address("in"), &single).await, "api");
}

#[tokio::test]
async fn a_hello_in_records_of_one_byte_takes_the_chain_of_its_name() {
    let (proxy, _api, _rest) = by_name().await;
    let message = hello(&[sni("api.data.local")]);
    for size in [1, 2, 7] {
        assert_eq!(
            reached(proxy.address("in"), &[&records(&message, size)]).await,
            "api",
            "{size}"
        );
    }
}

#[tokio::test]
async fn a_hello_above_16_kib_is_read_and_one_above_64_kib_is_refused() {
    let (proxy, _api, _rest) = by_name().await;
    for (padding, expected) in [(15_000, "api"), (20_000, "api"), (60_000, "api")] {
        // The name stands behind the padding, as far from the start as can be.
        let message = hello(&[extension(21, &vec![0; padding]), sni("api.data.local")]);
        let found = reached(proxy.address("in"), &[&records(&message, 1 << 14)]).await;
        assert_eq!(found, expected, "{padding} bytes of padding");
    }
    // Its length alone is enough to refuse it.
    let message = [&[1, 1, 0, 0][..], &vec![0; 3000]].concat();
    assert_eq!(reached(proxy.address("in"), &[&records(&message, 1 << 14)]).await, "");
}

#[tokio::test]
async fn a_hello_without_a_name_or_with_an_address_or_with_two_names_gets_no_named_chain() {
    let (proxy, _api, _rest) = by_name().await;
    let two = [&[0][..], &block16(b"api.data.local"), &[0], &block16(b"b.test")].concat();
    for (extensions, expected) in [
        (vec![], "tls"),
        (vec![sni("10.0.0.1")], "tls"),
        (vec![sni("other.data.local")], "tls"),
        (vec![sni("API.Data.Local")], "api"),
        // What two readers could read differently is no TLS for us: no chain takes it.
        (vec![extension(0, &block16(&two))], ""),
        (vec![sni("api.data.local"), sni("b.test")], ""),
        (vec![sni("")], ""),
        (vec![sni("api.data.local\0.b.test")], ""),
    ] {
        let bytes = records(&hello(&extensions), 1 << 14);
        assert_eq!(reached(proxy.address("in"), &[&bytes]).await, expected, "{extensions:?}");
    }
    // An SSLv2 hello (RFC 6101, appendix E): older than anything that has a name.
    let old = b"\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10\x01\x00\x80";
    assert_eq!(reached(proxy.address("in"), &[old]).await, "");
}

#[tokio::test]
async fn alerts_of_any_code_end_a_handshake_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::new(dir.path());
    let echo = Echo::start("api").await;
    let proxy = Proxy::with(
        json!([terminator("tls", "echo", &pki.secret("api.data.local"), &log_in(&dir))]),
        json!([cluster("echo", &[echo.address])]),
    )
    .await;
    let opening = records(&hello(&[sni("api.data.local")]), 1 << 14);
    for level in [1_u8, 2, 3, 255] {
        for code in [0_u8, 10, 41, 99, 122, 200, 255] {
            let alert = [21, 3, 3, 0, 2, level, code];
            for pieces in [vec![&alert[..]], vec![&opening[..], &alert[..]]] {
                let mut stream = proxy.connect("tls").await;
                for piece in pieces {
                    drop(stream.write_all(piece).await);
                }
                drop(stream.shutdown().await);
                let mut rest = Vec::new();
                drop(soon("the end", stream.read_to_end(&mut rest)).await);
            }
        }
    }
    let stream = dial(proxy.address("tls"), "api.data.local", &pki).await.unwrap();
    assert_eq!(greeting(stream, 3).await, "api");
}

#[tokio::test]
async fn a_server_name_that_is_an_address_or_missing_gets_the_first_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::new(dir.path());
    let echo = Echo::start("api").await;
    let proxy = Proxy::with(
        json!([terminator("tls", "echo", &pki.secret("api.data.local"), &log_in(&dir))]),
        json!([cluster("echo", &[echo.address])]),
    )
    .await;
    // An address as the name of the server: the client sends no name then. The certificate is not for
    // the address, so the client refuses it; the server has shown it all the same.
    let error = dial(proxy.address("tls"), "127.0.0.1", &pki).await.unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    let stream = dial(proxy.address("tls"), "api.data.local", &pki).await.unwrap();
    assert_eq!(greeting(stream, 3).await, "api");
}
