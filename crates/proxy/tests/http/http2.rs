//! HTTP/2 on either side, spoken by the `h2` crate with clients and origins of the test's own.

mod connect;

use bytes::Bytes;
use h2::{
    Reason, RecvStream,
    client::{ResponseFuture, SendRequest},
    server::{Connection, SendResponse},
};
use http::{HeaderMap, Request, Response};
use serde_json::{Value, json};
use tokio::{net::TcpStream, task::JoinSet};

use crate::{
    harness::soon,
    peers::{Scene, to_origin},
};

/// A client of HTTP/2 with prior knowledge.
struct Client {
    send: SendRequest<Bytes>,
    _driver: JoinSet<()>,
}

impl Client {
    async fn of(scene: &Scene) -> Self {
        let stream = scene.proxy.connect("in").await;
        let (send, connection) = soon("handshake", h2::client::handshake(stream)).await.unwrap();
        let mut driver = JoinSet::new();
        driver.spawn(async move { drop(connection.await) });
        Self { send, _driver: driver }
    }

    async fn send(
        &mut self,
        request: Request<()>,
        ends: bool,
    ) -> (ResponseFuture, h2::SendStream<Bytes>) {
        let mut send = soon("room", self.send.clone().ready()).await.unwrap();
        send.send_request(request, ends).unwrap()
    }

    async fn get(&mut self, path: &str) -> ResponseFuture {
        self.send(get(path), true).await.0
    }
}

fn get(path: &str) -> Request<()> {
    Request::get(format!("http://api.local{path}")).body(()).unwrap()
}

fn grpc(path: &str) -> http::request::Builder {
    Request::post(format!("http://api.local{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
}

/// An origin that speaks HTTP/2.
struct Origin(Connection<TcpStream, Bytes>);

impl Origin {
    async fn of(scene: &Scene) -> Self {
        let stream = scene.origin.accept_stream().await;
        Self(soon("handshake", h2::server::handshake(stream)).await.unwrap())
    }

    async fn accept(&mut self) -> (Request<RecvStream>, SendResponse<Bytes>) {
        soon("request", self.0.accept()).await.unwrap().unwrap()
    }

    /// Reads and writes until the client has gone.
    fn drive(mut self) -> JoinSet<()> {
        let mut driver = JoinSet::new();
        driver.spawn(async move { while let Some(Ok(_)) = self.0.accept().await {} });
        driver
    }
}

/// The whole body and its trailers.
async fn body(mut recv: RecvStream) -> (String, Option<HeaderMap>) {
    let mut bytes = Vec::new();
    while let Some(data) = soon("data", recv.data()).await {
        let data = data.unwrap();
        recv.flow_control().release_capacity(data.len()).unwrap();
        bytes.extend_from_slice(&data);
    }
    (String::from_utf8(bytes).unwrap(), soon("trailers", recv.trailers()).await.unwrap())
}

fn to_http2() -> Value {
    json!([{"name": "default", "match": {"prefix": "/"}, "route": {"cluster": "http2"}}])
}

async fn to_http1_scene() -> Scene {
    Scene::with(&to_origin(), &json!({})).await
}

async fn to_http2_scene() -> Scene {
    Scene::with(&to_http2(), &json!({})).await
}

fn trailers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}

#[tokio::test]
async fn a_request_of_http2_reaches_an_origin_of_http1() {
    let scene = to_http1_scene().await;
    let mut client = Client::of(&scene).await;
    let response = client
        .send(
            Request::get("http://api.local/a?b")
                .header("cookie", "a=1")
                .header("cookie", "b=2")
                .body(())
                .unwrap(),
            true,
        )
        .await
        .0;
    let mut origin = scene.origin.accept().await;
    let head = origin.head().await;
    assert_eq!(head.line(), "GET /a?b HTTP/1.1");
    head.has("host", "api.local");
    head.has("cookie", "a=1; b=2");
    head.has("x-forwarded-proto", "http");
    head.lacks("transfer-encoding");
    origin
        .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: x-b\r\nX-B: 1\r\n\r\nok")
        .await;
    let response = soon("response", response).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["server"], "envoy");
    assert_eq!(response.headers()["content-length"], "2");
    assert!(!response.headers().contains_key("x-b"));
    assert_eq!(body(response.into_body()).await.0, "ok");
    assert_eq!(scene.log().await, ["GET /a?b 200 - via_upstream 0 2 origin default"]);
}

#[tokio::test]
async fn a_body_without_a_length_is_chunked_for_http1() {
    let scene = to_http1_scene().await;
    let mut client = Client::of(&scene).await;
    let request = Request::post("http://api.local/").body(()).unwrap();
    let (response, mut send) = client.send(request, false).await;
    let mut origin = scene.origin.accept().await;
    origin.head().await.has("transfer-encoding", "chunked");
    send.send_data("hello".into(), false).unwrap();
    origin.expect("5\r\nhello\r\n").await;
    send.send_data("you".into(), true).unwrap();
    origin.expect("3\r\nyou\r\n0\r\n\r\n").await;
    origin.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n").await;
    let response = soon("response", response).await.unwrap();
    assert!(!response.headers().contains_key("transfer-encoding"));
    assert_eq!(body(response.into_body()).await.0, "ok");
    assert_eq!(scene.log().await, ["POST / 200 - via_upstream 8 2 origin default"]);
}

#[tokio::test]
async fn a_request_of_http1_reaches_an_origin_of_http2() {
    let scene = to_http2_scene().await;
    let mut client = scene.client().await;
    client.send("POST /a HTTP/1.1\r\nHost: Api.local\r\nX-Own: 1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n").await;
    let mut origin = Origin::of(&scene).await;
    let (request, mut respond) = origin.accept().await;
    let driver = origin.drive();
    assert_eq!(request.uri().to_string(), "http://Api.local/a");
    assert_eq!(request.headers()["x-own"], "1");
    for name in ["host", "connection", "transfer-encoding"] {
        assert!(!request.headers().contains_key(name), "{name}");
    }
    assert_eq!(body(request.into_body()).await.0, "abc");
    let mut send = respond.send_response(Response::new(()), false).unwrap();
    send.send_data("ok".into(), false).unwrap();
    send.send_trailers(trailers(&[("x-end", "1")])).unwrap();
    let head = client.head().await;
    assert_eq!(head.line(), "HTTP/1.1 200 OK");
    head.has("transfer-encoding", "chunked");
    // Trailers are dropped where nobody has enabled them.
    client.expect("2\r\nok\r\n0\r\n\r\n").await;
    drop(driver);
    assert_eq!(scene.log().await, ["POST /a 200 - via_upstream 3 2 http2 default"]);
}

#[tokio::test]
async fn grpc_passes_with_its_trailers() {
    let scene = to_http2_scene().await;
    let mut client = Client::of(&scene).await;
    let (response, mut send) = client.send(grpc("/s/m").body(()).unwrap(), false).await;
    let mut origin = Origin::of(&scene).await;
    let (request, mut respond) = origin.accept().await;
    let driver = origin.drive();
    assert_eq!(request.headers()["te"], "trailers");
    // Both directions stream at once.
    let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let mut reply = respond.send_response(head, false).unwrap();
    let mut response = soon("response", response).await.unwrap();
    let mut upload = request.into_body();
    for word in ["one", "two"] {
        send.send_data(word.into(), false).unwrap();
        assert_eq!(soon("data", upload.data()).await.unwrap().unwrap(), word);
        reply.send_data(word.into(), false).unwrap();
        assert_eq!(soon("data", response.body_mut().data()).await.unwrap().unwrap(), word);
    }
    send.send_data(Bytes::new(), true).unwrap();
    assert_eq!(body(upload).await.0, "");
    reply.send_trailers(trailers(&[("grpc-status", "0")])).unwrap();
    let (rest, end) = body(response.into_body()).await;
    assert_eq!(rest, "");
    assert_eq!(end.unwrap()["grpc-status"], "0");
    drop(driver);
    assert_eq!(scene.log().await, ["POST /s/m 200 - via_upstream 6 6 http2 default"]);
}

#[tokio::test]
async fn requests_share_one_connection_to_the_origin() {
    let scene = to_http2_scene().await;
    let mut client = Client::of(&scene).await;
    let mut responses = Vec::new();
    for _ in 0..10 {
        responses.push(client.get("/").await);
    }
    let mut origin = Origin::of(&scene).await;
    for _ in 0..10 {
        origin.accept().await.1.send_response(Response::new(()), true).unwrap();
    }
    let driver = origin.drive();
    for response in responses {
        assert_eq!(soon("response", response).await.unwrap().status(), 200);
    }
    scene.origin.has_no_connection();
    drop(driver);
}

#[tokio::test]
async fn answers_of_ours_tell_grpc_clients_in_their_own_way() {
    let routes = json!([
        {"match": {"path": "/nowhere"}, "route": {"cluster": "nowhere"}},
        {"match": {"path": "/denied"}, "direct_response": {"status": 403, "body": {"inline_string": "no, 100%"}}},
    ]);
    let scene = Scene::with(&routes, &json!({})).await;
    let mut client = Client::of(&scene).await;
    for (path, status, message) in [
        ("/nowhere", "14", Some("no healthy upstream")),
        ("/denied", "7", Some("no, 100%25")),
        ("/other", "12", None),
    ] {
        let (response, _send) = client.send(grpc(path).body(()).unwrap(), false).await;
        let response = soon("response", response).await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(response.headers()["content-type"], "application/grpc");
        assert_eq!(response.headers()["grpc-status"], status, "{path}");
        let said = response.headers().get("grpc-message").map(|value| value.to_str().unwrap());
        assert_eq!(said, message, "{path}");
        assert!(response.body().is_end_stream());
    }
    // Others get what they always get.
    let response = soon("response", client.get("/denied").await).await.unwrap();
    assert_eq!(response.status(), 403);
    assert_eq!(body(response.into_body()).await.0, "no, 100%");
}

#[tokio::test]
async fn a_grpc_status_is_tried_again_with_its_body() {
    let policy = json!({"retry_on": "unavailable", "num_retries": 1});
    let routes =
        json!([{"match": {"prefix": "/"}, "route": {"cluster": "http2", "retry_policy": policy}}]);
    let scene = Scene::with(&routes, &json!({})).await;
    let mut client = Client::of(&scene).await;
    let (response, mut send) = client.send(grpc("/s/m").body(()).unwrap(), false).await;
    send.send_data("hello".into(), true).unwrap();
    let mut origin = Origin::of(&scene).await;
    let (request, mut respond) = origin.accept().await;
    drop(request);
    let refusal = Response::builder().header("grpc-status", "14").body(()).unwrap();
    respond.send_response(refusal, true).unwrap();
    let (request, mut respond) = origin.accept().await;
    let driver = origin.drive();
    assert_eq!(body(request.into_body()).await.0, "hello");
    let head = Response::builder().header("grpc-status", "0").body(()).unwrap();
    respond.send_response(head, true).unwrap();
    let response = soon("response", response).await.unwrap();
    assert_eq!(response.headers()["grpc-status"], "0");
    drop(driver);
    assert_eq!(scene.log().await, ["POST /s/m 200 - via_upstream 5 0 http2 -"]);
}

#[tokio::test]
async fn a_refused_stream_is_tried_again_as_the_policy_says() {
    let policy = json!({"retry_on": "refused-stream", "num_retries": 1});
    let routes =
        json!([{"match": {"prefix": "/"}, "route": {"cluster": "http2", "retry_policy": policy}}]);
    let scene = Scene::with(&routes, &json!({})).await;
    let mut client = Client::of(&scene).await;
    let response = client.get("/").await;
    let mut origin = Origin::of(&scene).await;
    origin.accept().await.1.send_reset(Reason::REFUSED_STREAM);
    origin.accept().await.1.send_reset(Reason::REFUSED_STREAM);
    let driver = origin.drive();
    let response = soon("response", response).await.unwrap();
    assert_eq!(response.status(), 503);
    let text = body(response.into_body()).await.0;
    assert!(text.ends_with("reset reason: remote refused stream reset"), "{text}");
    drop(driver);
    let details = "upstream_reset_before_response_started{remote_refused_stream_reset}";
    assert_eq!(scene.log().await, [format!("GET / 503 URX,UR {details} 0 123 http2 -")]);
}

#[tokio::test]
async fn a_client_that_resets_its_stream_resets_that_of_the_origin() {
    let scene = to_http2_scene().await;
    let mut client = Client::of(&scene).await;
    let request = Request::post("http://api.local/").body(()).unwrap();
    let (response, mut send) = client.send(request, false).await;
    let mut origin = Origin::of(&scene).await;
    let (mut request, _respond) = origin.accept().await;
    let driver = origin.drive();
    send.send_reset(Reason::CANCEL);
    drop(response);
    let error = soon("reset", request.body_mut().data()).await.unwrap().unwrap_err();
    assert_eq!(error.reason(), Some(Reason::CANCEL));
    drop(driver);
    assert_eq!(scene.log().await, ["POST / 0 DR http2.remote_reset 0 0 http2 default"]);
}

#[tokio::test]
async fn an_origin_that_resets_a_response_resets_that_of_the_client() {
    let scene = to_http2_scene().await;
    let mut client = Client::of(&scene).await;
    let response = client.get("/").await;
    let mut origin = Origin::of(&scene).await;
    let mut send = origin.accept().await.1.send_response(Response::new(()), false).unwrap();
    send.send_data("half".into(), false).unwrap();
    let driver = origin.drive();
    let mut response = soon("response", response).await.unwrap();
    assert_eq!(soon("data", response.body_mut().data()).await.unwrap().unwrap(), "half");
    send.send_reset(Reason::INTERNAL_ERROR);
    let error = soon("reset", response.body_mut().data()).await.unwrap().unwrap_err();
    assert!(error.is_reset());
    drop(driver);
    let details = "upstream_reset_after_response_started{remote_reset}";
    assert_eq!(scene.log().await, [format!("GET / 200 UR {details} 0 4 http2 default")]);
}

#[tokio::test]
async fn a_body_that_is_not_read_stops_the_origin() {
    let scene = to_http2_scene().await;
    let mut client = Client::of(&scene).await;
    let response = client.get("/").await;
    let mut origin = Origin::of(&scene).await;
    let mut send = origin.accept().await.1.send_response(Response::new(()), false).unwrap();
    let driver = origin.drive();
    let response = soon("response", response).await.unwrap();
    // What fits into windows and buffers is taken, and no more.
    let total = 16 << 20;
    let (mut given, piece) = (0, Bytes::from(vec![b'x'; 16 * 1024]));
    let stalls = |given: usize| given < total;
    while stalls(given) {
        send.reserve_capacity(piece.len());
        let room = std::future::poll_fn(|cx| send.poll_capacity(cx));
        match tokio::time::timeout(std::time::Duration::from_millis(500), room).await {
            Ok(Some(Ok(room))) => {
                let room = room.min(piece.len());
                send.send_data(piece.slice(..room), false).unwrap();
                given += room;
            }
            _ => break,
        }
    }
    assert!(given < 2 << 20, "{given} bytes were taken that nobody reads");
    // Reading lets the rest through.
    send.send_data(Bytes::new(), true).unwrap();
    assert_eq!(body(response.into_body()).await.0.len(), given);
    drop(driver);
}

#[tokio::test]
async fn a_drained_connection_says_goaway_and_finishes_its_streams() {
    let mut scene = to_http1_scene().await;
    let mut client = Client::of(&scene).await;
    let response = client.get("/").await;
    let mut origin = scene.origin.accept().await;
    origin.head().await;
    scene.proxy.ask_to_stop();
    let refused = async {
        // The farewell arrives in its own time: until then streams are taken.
        loop {
            let ready = client.send.clone().ready().await;
            let Ok(mut send) = ready else { return };
            let sent = send.send_request(get("/late"), true);
            let Ok((late, _)) = sent else { return };
            if late.await.is_err() {
                return;
            }
        }
    };
    origin.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let response = soon("response", response).await.unwrap();
    assert_eq!(body(response.into_body()).await.0, "ok");
    drop(origin);
    soon("goaway", refused).await;
}

#[tokio::test]
async fn malformed_requests_are_reset_and_large_ones_answered() {
    let scene = Scene::with(
        &to_origin(),
        &json!({"common_http_protocol_options": {"max_headers_count": 5}}),
    )
    .await;
    let mut client = Client::of(&scene).await;
    let other = Request::get("http://api.local/").header("host", "other").body(()).unwrap();
    let error = soon("reset", client.send(other, true).await.0).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::PROTOCOL_ERROR));
    let mut many = get("/");
    for number in 0..6 {
        let name = http::HeaderName::try_from(format!("x-{number}")).unwrap();
        many.headers_mut().insert(name, "1".parse().unwrap());
    }
    let response = soon("response", client.send(many, true).await.0).await.unwrap();
    assert_eq!(response.status(), 431);
    scene.origin.has_no_connection();
    assert_eq!(
        scene.log().await,
        [
            "- - 0 DPE http2.violation.of.messaging.rule 0 0 - -",
            "- - 431 DPE http2.too_many_headers 0 31 - -",
        ]
    );
}

fn to_trailing() -> Value {
    json!([{"match": {"prefix": "/"}, "route": {"cluster": "trailing"}}])
}

#[tokio::test]
async fn trailers_of_http1_pass_where_both_sides_enable_them() {
    let settings = json!({"http_protocol_options": {"enable_trailers": true}});
    let scene = Scene::with(&to_trailing(), &settings).await;
    let mut client = scene.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    let mut origin = scene.origin.accept().await;
    origin.head().await;
    client.send("2\r\nok\r\n0\r\nx-end: 1\r\n\r\n").await;
    origin.expect("2\r\nok\r\n0\r\nx-end: 1\r\n\r\n").await;
    origin.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    client.head().await;
    origin.send("2\r\nok\r\n0\r\nx-end: 2\r\n\r\n").await;
    client.expect("2\r\nok\r\n0\r\nx-end: 2\r\n\r\n").await;
}

#[tokio::test]
async fn trailers_cross_the_versions() {
    let settings = json!({"http_protocol_options": {"enable_trailers": true}});
    // From HTTP/2 to HTTP/1 and back.
    let scene = Scene::with(&to_trailing(), &settings).await;
    let mut client = Client::of(&scene).await;
    let (response, mut send) = client.send(grpc("/s/m").body(()).unwrap(), false).await;
    let mut origin = scene.origin.accept().await;
    origin.head().await.has("te", "trailers");
    send.send_data("ab".into(), false).unwrap();
    send.send_trailers(trailers(&[("x-end", "1")])).unwrap();
    origin.expect("2\r\nab\r\n0\r\nx-end: 1\r\n\r\n").await;
    origin
        .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\ngrpc-status: 0\r\n\r\n")
        .await;
    let (rest, end) = body(soon("response", response).await.unwrap().into_body()).await;
    assert_eq!((rest.as_str(), &end.unwrap()["grpc-status"]), ("", &"0".parse().unwrap()));
    // From HTTP/1 to HTTP/2 and back.
    let scene = Scene::with(&to_http2(), &settings).await;
    let mut client = scene.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nx-end: 1\r\n\r\n").await;
    let mut origin = Origin::of(&scene).await;
    let (request, mut respond) = origin.accept().await;
    let driver = origin.drive();
    let (rest, end) = body(request.into_body()).await;
    assert_eq!((rest.as_str(), &end.unwrap()["x-end"]), ("ab", &"1".parse().unwrap()));
    let mut send = respond.send_response(Response::new(()), false).unwrap();
    send.send_trailers(trailers(&[("x-end", "2")])).unwrap();
    client.head().await.has("transfer-encoding", "chunked");
    client.expect("0\r\nx-end: 2\r\n\r\n").await;
    drop(driver);
}

fn websockets() -> Value {
    json!({
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "http2_protocol_options": {"allow_connect": true},
    })
}

/// An extended CONNECT (RFC 8441).
fn connect(path: &str) -> Request<()> {
    let mut request = Request::connect(format!("http://api.local{path}")).body(()).unwrap();
    request.extensions_mut().insert(h2::ext::Protocol::from("websocket"));
    request.headers_mut().insert("sec-websocket-version", "13".parse().unwrap());
    request
}

#[tokio::test]
async fn a_websocket_of_http2_reaches_a_server_of_http1() {
    let scene = Scene::with(&to_origin(), &websockets()).await;
    let mut client = Client::of(&scene).await;
    // The server's consent is needed before the client may ask.
    let _answer = soon("settings", client.get("/").await);
    let mut first = scene.origin.accept().await;
    first.head().await;
    let (response, mut send) = client.send(connect("/chat"), false).await;
    send.send_data("early".into(), false).unwrap();
    let mut origin = scene.origin.accept().await;
    let head = origin.head().await;
    assert_eq!(head.line(), "GET /chat HTTP/1.1");
    head.has("upgrade", "websocket");
    head.has("connection", "upgrade");
    assert_eq!(head.get("sec-websocket-key").unwrap().len(), 24);
    origin.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\nhello").await;
    let response = soon("response", response).await.unwrap();
    assert_eq!(response.status(), 200);
    for name in ["connection", "upgrade", "sec-websocket-accept"] {
        assert!(!response.headers().contains_key(name), "{name}");
    }
    origin.expect("early").await;
    let mut down = response.into_body();
    assert_eq!(soon("data", down.data()).await.unwrap().unwrap(), "hello");
    send.send_data("more".into(), true).unwrap();
    origin.expect("more").await;
    assert_eq!(origin.rest().await, "");
    origin.send("bye").await;
    assert_eq!(soon("data", down.data()).await.unwrap().unwrap(), "bye");
    drop(origin);
    assert_eq!(body(down).await.0, "");
}

#[tokio::test]
async fn a_websocket_of_http1_reaches_a_server_of_http2() {
    let scene = Scene::with(&to_http2(), &websockets()).await;
    let mut client = scene.client().await;
    client.send("GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n").await;
    let stream = scene.origin.accept_stream().await;
    let mut builder = h2::server::Builder::new();
    builder.enable_connect_protocol();
    let mut origin = Origin(soon("handshake", builder.handshake(stream)).await.unwrap());
    let (request, mut respond) = origin.accept().await;
    let driver = origin.drive();
    assert_eq!(request.method(), "CONNECT");
    assert_eq!(request.uri().path(), "/chat");
    assert_eq!(request.extensions().get::<h2::ext::Protocol>().unwrap().as_str(), "websocket");
    let mut send = respond.send_response(Response::new(()), false).unwrap();
    let head = client.head().await;
    assert_eq!(head.line(), "HTTP/1.1 101 Switching Protocols");
    head.has("upgrade", "websocket");
    head.has("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    client.send("ping").await;
    let mut up = request.into_body();
    assert_eq!(soon("data", up.data()).await.unwrap().unwrap(), "ping");
    send.send_data("pong".into(), true).unwrap();
    client.expect("pong").await;
    assert_eq!(client.rest().await, "");
    drop(driver);
}

#[tokio::test]
async fn interim_responses_pass_where_they_are_asked_for() {
    let scene = Scene::with(&to_http2(), &json!({"proxy_100_continue": true})).await;
    let mut client = Client::of(&scene).await;
    let mut response = client.get("/").await;
    let mut origin = Origin::of(&scene).await;
    let (_, mut respond) = origin.accept().await;
    let driver = origin.drive();
    let hints = Response::builder().status(103).header("link", "</a.css>").body(()).unwrap();
    respond.send_informational(hints).unwrap();
    let hints = std::future::poll_fn(|cx| response.poll_informational(cx));
    let hints = soon("hints", hints).await.unwrap().unwrap();
    assert_eq!(
        (hints.status().as_u16(), &hints.headers()["link"]),
        (103, &"</a.css>".parse().unwrap())
    );
    respond.send_response(Response::new(()), true).unwrap();
    assert_eq!(soon("response", response).await.unwrap().status(), 200);
    drop(driver);
}

#[tokio::test]
async fn a_client_that_waits_for_100_is_told_so_by_us() {
    let scene = to_http2_scene().await;
    let mut client = Client::of(&scene).await;
    let request = Request::post("http://api.local/").header("expect", "100-continue");
    let (mut response, mut send) = client.send(request.body(()).unwrap(), false).await;
    let interim = std::future::poll_fn(|cx| response.poll_informational(cx));
    assert_eq!(soon("100", interim).await.unwrap().unwrap().status(), 100);
    send.send_data("ab".into(), true).unwrap();
    let mut origin = Origin::of(&scene).await;
    let (request, mut respond) = origin.accept().await;
    let driver = origin.drive();
    assert!(!request.headers().contains_key("expect"));
    assert_eq!(body(request.into_body()).await.0, "ab");
    respond.send_response(Response::new(()), true).unwrap();
    assert_eq!(soon("response", response).await.unwrap().status(), 200);
    drop(driver);
}

#[tokio::test]
async fn a_connection_that_says_goaway_gets_no_more_requests() {
    let scene = to_http2_scene().await;
    let mut client = Client::of(&scene).await;
    let first = client.get("/").await;
    let mut origin = Origin::of(&scene).await;
    let (_, mut respond) = origin.accept().await;
    origin.0.graceful_shutdown();
    let driver = origin.drive();
    respond.send_response(Response::new(()), true).unwrap();
    assert_eq!(soon("response", first).await.unwrap().status(), 200);
    // Its end has been seen when nothing is left of it.
    drop(driver);
    let second = client.get("/").await;
    let mut origin = Origin::of(&scene).await;
    origin.accept().await.1.send_response(Response::new(()), true).unwrap();
    let driver = origin.drive();
    assert_eq!(soon("response", second).await.unwrap().status(), 200);
    drop(driver);
}

#[tokio::test]
async fn a_client_that_resets_as_fast_as_it_opens_is_sent_away() {
    let scene = to_http1_scene().await;
    let client = Client::of(&scene).await;
    let flood = async {
        loop {
            let Ok(mut send) = client.send.clone().ready().await else { break };
            let Ok((response, mut stream)) = send.send_request(get("/"), true) else { break };
            stream.send_reset(Reason::CANCEL);
            drop(response);
            tokio::task::yield_now().await;
        }
    };
    soon("the proxy to stop the client", flood).await;
}

#[tokio::test]
async fn content_where_none_can_be_ends_the_stream() {
    for status in [204, 304] {
        let scene = to_http2_scene().await;
        let mut client = Client::of(&scene).await;
        let response = client.get("/").await;
        let mut origin = Origin::of(&scene).await;
        let (_, mut respond) = origin.accept().await;
        let answer = Response::builder().status(status).body(()).unwrap();
        let mut content = respond.send_response(answer, false).unwrap();
        content.send_data("evil".into(), true).unwrap();
        let driver = origin.drive();
        let Ok(response) = soon("response", response).await else { continue };
        let mut body = response.into_body();
        let first = soon("an end", body.data()).await;
        assert!(first.is_none_or(|data| data.is_err()), "{status}: content came through");
        drop(driver);
    }
}

#[tokio::test]
async fn the_codec_may_be_set() {
    let scene = Scene::with(&to_origin(), &json!({"codec_type": "HTTP1"})).await;
    let mut client = scene.client().await;
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert_eq!(client.head().await.line(), "HTTP/1.1 400 Bad Request");
    let scene = Scene::with(&to_origin(), &json!({"codec_type": "HTTP2"})).await;
    let mut client = scene.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let rest = client.frames().await;
    assert!(!rest.windows(4).any(|four| four == b"HTTP"), "{rest:?}");
}

#[tokio::test]
async fn mirrors_may_speak_http2() {
    let routes = json!([{
        "match": {"prefix": "/"},
        "route": {"cluster": "origin", "request_mirror_policies": [{"cluster": "http2"}]},
    }]);
    let scene = Scene::with(&routes, &json!({})).await;
    let mut client = scene.client().await;
    client
        .send(
            "POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
        )
        .await;
    // Which of the two comes first is nobody's promise: the one that speaks first is the copy.
    let (mut plain, mut copy) = (None, None);
    for _ in 0..2 {
        let stream = scene.origin.accept_stream().await;
        let mut first = [0; 3];
        soon("first bytes", stream.peek(&mut first)).await.unwrap();
        match &first {
            b"PRI" => {
                let shaken = soon("handshake", h2::server::handshake(stream)).await.unwrap();
                copy = Some(Origin(shaken));
            }
            _ => plain = Some(crate::peers::Peer::new(stream)),
        }
    }
    let mut origin = plain.unwrap();
    origin.head().await;
    origin.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(client.head().await.line(), "HTTP/1.1 200 OK");
    let mut mirror = copy.unwrap();
    let (request, mut respond) = mirror.accept().await;
    let driver = mirror.drive();
    assert_eq!(request.uri().to_string(), "http://a-shadow/a");
    assert_eq!(body(request.into_body()).await.0, "ab");
    respond.send_response(Response::new(()), true).unwrap();
    drop(driver);
}

#[tokio::test]
async fn an_upstream_stream_has_its_greatest_age() {
    let mut options = json!({"explicit_http_config": {"http2_protocol_options": {}}});
    options["common_http_protocol_options"] = json!({"max_stream_duration": "0.2s"});
    let scene = Scene::with_http2(&to_http2(), &json!({}), &options).await;
    let mut client = Client::of(&scene).await;
    let response = client.get("/").await;
    let mut origin = Origin::of(&scene).await;
    let _held = origin.accept().await;
    let driver = origin.drive();
    assert_eq!(soon("response", response).await.unwrap().status(), 408);
    drop(driver);
    let log = scene.log().await;
    assert_eq!(log, ["GET / 408 UMSDR upstream_max_stream_duration_reached 0 36 http2 default"]);
}

#[tokio::test]
async fn a_session_that_does_not_answer_pings_is_given_up() {
    let options = json!({"explicit_http_config": {"http2_protocol_options": {
        "connection_keepalive": {"interval": "0.05s", "timeout": "0.2s"},
    }}});
    let scene = Scene::with_http2(&to_http2(), &json!({}), &options).await;
    let mut client = Client::of(&scene).await;
    let response = client.get("/").await;
    // It reads nothing, and so answers nothing.
    let origin = Origin::of(&scene).await;
    assert_eq!(soon("response", response).await.unwrap().status(), 503);
    drop(origin);
}

#[tokio::test]
async fn a_client_that_does_not_answer_pings_is_given_up() {
    let settings = json!({"http2_protocol_options": {
        "connection_keepalive": {"interval": "0.05s", "timeout": "0.2s"},
    }});
    let scene = Scene::with(&to_origin(), &settings).await;
    let mut client = scene.client().await;
    // A preface and empty settings, and not a word more.
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    client.send_bytes(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
    client.frames().await;
}
