//! Long transfers over TCP: what the kernel passes on from socket to socket arrives as it was sent.

use std::time::Duration;

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::{
    harness::{Echo, Proxy, cluster, expect, listener, log_in, soon, tcp_chain},
    pki::Pki,
    tls::{client_tls, dial, http_chain, server_tls, terminator},
};

/// More than sockets, pipes and buffers on the way hold together.
const LONG: usize = 48 << 20;

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n % 251) as u8).collect()
}

/// A proxy before a server that the test plays itself.
struct Scene {
    proxy: Proxy,
    server: TcpListener,
    log: std::path::PathBuf,
    _dir: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = log_in(&dir);
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        // One worker: the next connection has the pipes that the last one left.
        let mut body = json!({"filter_chains": [tcp_chain("far", &log)]});
        body["enable_reuse_port"] = json!(false);
        let proxy = Proxy::with(
            json!([listener("in", body)]),
            json!([cluster("far", &[server.local_addr().unwrap()])]),
        )
        .await;
        Self { proxy, server, log, _dir: dir }
    }

    async fn pair(&self) -> (TcpStream, TcpStream) {
        let client = self.proxy.connect("in").await;
        let (server, _) = soon("accept", self.server.accept()).await.unwrap();
        (client, server)
    }
}

/// Reads all and compares it.
async fn all_of(stream: &mut TcpStream, sent: &[u8]) {
    let mut got = Vec::with_capacity(sent.len());
    soon("all", stream.read_to_end(&mut got)).await.unwrap();
    assert_eq!(got.len(), sent.len());
    assert!(got == sent);
}

#[tokio::test]
async fn an_answer_follows_the_end_of_the_request() {
    let mut scene = Scene::new().await;
    let sent = pattern(LONG);
    let (mut client, mut server) = scene.pair().await;
    client.write_all(b"all of it, please").await.unwrap();
    client.shutdown().await.unwrap();
    all_of(&mut server, b"all of it, please").await;
    let sending = async {
        server.write_all(&sent).await.unwrap();
        server.shutdown().await.unwrap();
    };
    tokio::join!(soon("sending", sending), all_of(&mut client, &sent));
    drop((client, server));
    let line = format!("- 17 {LONG} far -");
    assert_eq!(scene.proxy.stop_and_read(&scene.log).await, [line]);
}

#[tokio::test]
async fn an_upload_goes_on_after_the_server_has_said_all() {
    let mut scene = Scene::new().await;
    let sent = pattern(LONG);
    let (mut client, mut server) = scene.pair().await;
    server.shutdown().await.unwrap();
    all_of(&mut client, b"").await;
    let sending = async {
        client.write_all(&sent).await.unwrap();
        client.shutdown().await.unwrap();
    };
    tokio::join!(soon("sending", sending), all_of(&mut server, &sent));
    drop((client, server));
    let line = format!("- {LONG} 0 far -");
    assert_eq!(scene.proxy.stop_and_read(&scene.log).await, [line]);
}

#[tokio::test]
async fn a_slow_reader_stops_the_sender_and_misses_nothing() {
    let scene = Scene::new().await;
    let sent = pattern(LONG);
    let (mut client, mut server) = scene.pair().await;
    let mut sending = Box::pin(async {
        server.write_all(&sent).await.unwrap();
        server.shutdown().await.unwrap();
    });
    let stuck = tokio::time::timeout(Duration::from_millis(300), &mut sending).await;
    assert!(stuck.is_err(), "{LONG} bytes disappeared into the proxy");
    // The other way is not stuck.
    client.write_all(b"still there?").await.unwrap();
    let reading = async {
        let mut got = vec![0; LONG];
        let mut at = 0;
        // In pieces of every size, so that the pipe is drained in pieces too.
        for step in (1..).map(|n| 1 + n * 7919 % 100_000) {
            let end = (at + step).min(LONG);
            client.read_exact(&mut got[at..end]).await.unwrap();
            at = end;
            if at == LONG {
                break;
            }
        }
        got
    };
    let ((), got) = tokio::join!(soon("sending", sending), soon("reading", reading));
    assert!(got == sent);
    expect(&mut server, "still there?").await;
}

#[tokio::test]
async fn bytes_of_a_client_that_has_reset_do_not_reach_the_next_one() {
    let mut scene = Scene::new().await;
    let (client, mut server) = scene.pair().await;
    let secret = vec![b's'; LONG];
    let stuck = tokio::time::timeout(Duration::from_millis(300), server.write_all(&secret)).await;
    assert!(stuck.is_err(), "{LONG} bytes disappeared into the proxy");
    // Closed with bytes unread: a reset.
    drop(client);
    let ended = async { while server.write_all(&secret).await.is_ok() {} };
    soon("the server learns of it", ended).await;
    let sent = pattern(LONG);
    for _ in 0..2 {
        let (mut client, mut server) = scene.pair().await;
        let sending = async {
            server.write_all(&sent).await.unwrap();
            server.shutdown().await.unwrap();
        };
        tokio::join!(soon("sending", sending), all_of(&mut client, &sent));
    }
    let lines = scene.proxy.stop_and_read(&scene.log).await;
    assert_eq!(lines.len(), 3);
}

#[tokio::test]
async fn a_server_that_resets_ends_the_client_after_what_had_come() {
    let scene = Scene::new().await;
    let (mut client, mut server) = scene.pair().await;
    // Unread bytes at the server make its close a reset.
    client.write_all(b"unread").await.unwrap();
    soon("unread", server.readable()).await.unwrap();
    let sent = pattern(LONG);
    let some = tokio::time::timeout(Duration::from_millis(300), server.write_all(&sent)).await;
    assert!(some.is_err(), "{LONG} bytes disappeared into the proxy");
    drop(server);
    let mut got = Vec::new();
    // An end or a reset; but no hang, and nothing that was not sent.
    drop(soon("end", client.read_to_end(&mut got)).await);
    assert!(got.len() < sent.len());
    assert!(got == sent[..got.len()]);
}

#[tokio::test]
async fn a_transfer_ends_in_order_while_the_proxy_drains() {
    let mut scene = Scene::new().await;
    let sent = pattern(LONG);
    let (mut client, mut server) = scene.pair().await;
    let half = LONG / 2;
    let sending = async {
        server.write_all(&sent[..half]).await.unwrap();
        server
    };
    let mut first = vec![0; half];
    let (mut server, read) = tokio::join!(sending, client.read_exact(&mut first));
    read.unwrap();
    scene.proxy.ask_to_stop();
    let sending = async {
        server.write_all(&sent[half..]).await.unwrap();
        server.shutdown().await.unwrap();
    };
    tokio::join!(soon("sending", sending), all_of(&mut client, &sent[half..]));
    drop((client, server));
    scene.proxy.ended().await.unwrap();
    assert!(first == sent[..half]);
}

#[tokio::test]
async fn small_messages_pass_between_long_ones() {
    let dir = tempfile::tempdir().unwrap();
    let echo = Echo::start("").await;
    let proxy = Proxy::with(
        json!([listener("in", json!({"filter_chains": [tcp_chain("echo", &log_in(&dir))]}))]),
        json!([cluster("echo", &[echo.address])]),
    )
    .await;
    let mut client = proxy.connect("in").await;
    for len in [1, 4 << 20, 10, 100, 1000, 4 << 20, 1, 1, 300_000] {
        let sent = pattern(len);
        let mut got = vec![0; len];
        let (mut reader, mut writer) = client.split();
        let both = async { tokio::join!(writer.write_all(&sent), reader.read_exact(&mut got)) };
        let (written, read) = soon("to and fro", both).await;
        written.unwrap();
        read.unwrap();
        assert!(got == sent, "a message of {len} bytes");
    }
}

#[tokio::test]
async fn long_messages_pass_through_tls_on_both_sides() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::new(dir.path());
    let echo = Echo::start("").await;
    let behind = Proxy::with(
        json!([terminator("tls", "echo", &pki.secret("api.data.local"), &log_in(&dir))]),
        json!([cluster("echo", &[echo.address])]),
    )
    .await;
    let mut right = cluster("right", &[behind.address("tls")]);
    right["transport_socket"] = client_tls("api.data.local", &pki);
    let certificate = pki.secret("gateway.local");
    let front = Proxy::with(
        json!([terminator("front", "right", &certificate, &log_in(&dir))]),
        json!([right]),
    )
    .await;
    let stream = dial(front.address("front"), "gateway.local", &pki).await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(stream);
    for len in [5, 6 << 20, 16 * 1024, 70_000, 1, 6 << 20] {
        let sent = pattern(len);
        let mut got = vec![0; len];
        let writing = async {
            writer.write_all(&sent).await.unwrap();
            writer.flush().await.unwrap();
        };
        let both = async { tokio::join!(writing, reader.read_exact(&mut got)) };
        let ((), read) = soon("to and fro", both).await;
        read.unwrap();
        assert!(got == sent, "a message of {len} bytes");
    }
}

/// What has come is passed on while the rest is awaited, and nothing else is held up by the waiting.
#[tokio::test]
async fn long_bodies_may_come_bit_by_bit_through_tls_on_both_sides() {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::new(dir.path());
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let behind = Proxy::with(
        json!([terminator("tls", "far", &pki.secret("api.data.local"), &log_in(&dir))]),
        json!([cluster("far", &[server.local_addr().unwrap()])]),
    )
    .await;
    let mut right = cluster("right", &[behind.address("tls")]);
    right["transport_socket"] = client_tls("api.data.local", &pki);
    let mut chain = http_chain("right");
    chain["transport_socket"] = server_tls(&pki.secret("gateway.local"));
    let front =
        Proxy::with(json!([listener("front", json!({"filter_chains": [chain]}))]), json!([right]))
            .await;
    let mut client = dial(front.address("front"), "gateway.local", &pki).await.unwrap();
    let body = pattern(120_000);
    let length = format!("Content-Length: {}\r\n\r\n", body.len());
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{length}");
    client.write_all(head.as_bytes()).await.unwrap();
    client.flush().await.unwrap();
    let mut origin = soon("connection", server.accept()).await.unwrap().0;
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        seen.push(soon("head", origin.read_u8()).await.unwrap());
    }
    for piece in body.chunks(25_000) {
        client.write_all(piece).await.unwrap();
        client.flush().await.unwrap();
        let mut got = vec![0; piece.len()];
        soon("a piece of the request", origin.read_exact(&mut got)).await.unwrap();
        assert!(got == piece);
    }
    origin.write_all(format!("HTTP/1.1 200 OK\r\n{length}").as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        seen.push(soon("answer", client.read_u8()).await.unwrap());
    }
    for piece in body.chunks(25_000) {
        origin.write_all(piece).await.unwrap();
        let mut got = vec![0; piece.len()];
        soon("a piece of the answer", client.read_exact(&mut got)).await.unwrap();
        assert!(got == piece);
    }
}
