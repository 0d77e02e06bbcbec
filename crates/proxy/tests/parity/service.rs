//! An authorization service: of gRPC (spoken by the `h2` crate) and of HTTP. What it answers is what
//! the request's `x-verdict` asks for; what it was asked it says in `x-asked`.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::{BufMut as _, Bytes, BytesMut};
use envoy_types::pb::{
    envoy::{
        config::core::v3::{HeaderValue, HeaderValueOption, QueryParameter},
        service::auth::v3::{
            CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse,
            check_response::HttpResponse,
        },
        r#type::v3::HttpStatus,
    },
    google::{
        protobuf::{BoolValue, Struct, Value, value::Kind},
        rpc::Status,
    },
};
use h2::server::SendResponse;
use http::{HeaderMap, Request, Response};
use prost::Message as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// A running service; it ends with this value.
pub(crate) struct Service {
    pub(crate) grpc: SocketAddr,
    pub(crate) http: SocketAddr,
    /// What is said of connections, which ask for nothing themselves.
    pub(crate) of_connections: Arc<Mutex<&'static str>>,
    _runtime: tokio::runtime::Runtime,
}

impl Service {
    pub(crate) fn start() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let (of_grpc, of_http) = runtime.block_on(async {
            let bind = || TcpListener::bind("127.0.0.1:0");
            (bind().await.unwrap(), bind().await.unwrap())
        });
        let (grpc, http) = (of_grpc.local_addr().unwrap(), of_http.local_addr().unwrap());
        let of_connections = Arc::new(Mutex::new("yes"));
        let said = Arc::clone(&of_connections);
        runtime.spawn(async move {
            while let Ok((stream, _)) = of_grpc.accept().await {
                tokio::spawn(serve_grpc(stream, Arc::clone(&said)));
            }
        });
        runtime.spawn(async move {
            while let Ok((stream, _)) = of_http.accept().await {
                tokio::spawn(serve_http(stream));
            }
        });
        Self { grpc, http, of_connections, _runtime: runtime }
    }
}

type Said = Arc<Mutex<&'static str>>;

async fn serve_grpc(stream: TcpStream, said: Said) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(answer(request, respond, Arc::clone(&said)));
    }
}

async fn answer(request: Request<h2::RecvStream>, mut respond: SendResponse<Bytes>, said: Said) {
    let call = format!("{} {}", request.method(), request.uri().path());
    assert_eq!(call, "POST /envoy.service.auth.v3.Authorization/Check");
    let mut body = request.into_body();
    let mut bytes = BytesMut::new();
    while let Some(Ok(data)) = body.data().await {
        body.flow_control().release_capacity(data.len()).unwrap();
        bytes.extend_from_slice(&data);
    }
    let asked = CheckRequest::decode(&bytes[5..]).unwrap();
    let about = asked.attributes.as_ref().unwrap();
    let http = about.request.as_ref().and_then(|request| request.http.clone()).unwrap_or_default();
    let raw = http.header_map.iter().flat_map(|map| &map.headers);
    let raw = raw.map(|one| (one.key.clone(), String::from_utf8_lossy(&one.raw_value).into()));
    let headers: BTreeMap<String, String> = http.headers.clone().into_iter().chain(raw).collect();
    let by_default = if about.request.is_some() { "yes" } else { *said.lock().unwrap() };
    let verdict = headers.get("x-verdict").map_or(by_default, |verdict| verdict).to_owned();
    let (mut status, mut code) = ("0", 200);
    match &*verdict {
        "hang" => return drop(poll_fn(|cx| respond.poll_reset(cx)).await),
        "reset" => return respond.send_reset(h2::Reason::INTERNAL_ERROR),
        "unavailable" => status = "14",
        "http-500" => code = 500,
        _ => {}
    }
    let head = Response::builder().status(code).header("content-type", "application/grpc");
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", status.parse().unwrap());
    if status != "0" {
        let head = head.header("grpc-status", status).body(()).unwrap();
        respond.send_response(head, true).unwrap();
        return;
    }
    let mut send = respond.send_response(head.body(()).unwrap(), false).unwrap();
    let message = decide(&verdict, &told(&asked)).encode_to_vec();
    let mut out = BytesMut::new();
    out.put_u8(0);
    out.put_u32(u32::try_from(message.len()).unwrap());
    out.put_slice(&message);
    send.send_data(out.freeze(), false).unwrap();
    send.send_trailers(trailers).unwrap();
}

fn header(key: &str, value: &str) -> HeaderValueOption {
    let header = HeaderValue { key: key.into(), value: value.into(), ..HeaderValue::default() };
    HeaderValueOption { header: Some(header), ..HeaderValueOption::default() }
}

#[expect(deprecated, reason = "what most services say")]
fn appended(key: &str, value: &str, append: bool) -> HeaderValueOption {
    HeaderValueOption { append: Some(BoolValue { value: append }), ..header(key, value) }
}

fn action(key: &str, value: &str, append_action: i32) -> HeaderValueOption {
    HeaderValueOption { append_action, ..header(key, value) }
}

#[expect(clippy::too_many_lines, reason = "a table of verdicts")]
fn decide(verdict: &str, asked: &str) -> CheckResponse {
    let mut ok = OkHttpResponse {
        headers: vec![appended("x-asked", asked, false)],
        ..OkHttpResponse::default()
    };
    let mut denied = DeniedHttpResponse {
        status: Some(HttpStatus { code: 401 }),
        headers: vec![
            appended("www-authenticate", "Basic", false),
            header("set-cookie", "a=1"),
            header("set-cookie", "b=2"),
            header("x-asked", asked),
        ],
        body: "go away".into(),
    };
    let mut dynamic_metadata = None;
    match verdict {
        "plain" => return CheckResponse { status: Some(Status::default()), ..<_>::default() },
        "set" => ok.headers.extend([
            appended("x-here", "set", false),
            appended("x-two", "set", false),
            appended("x-new", "set", false),
            action("x-there", "overwritten", 2),
            action("x-here", "overwritten-if-there", 3),
            action("x-not-there", "overwritten-if-there", 3),
        ]),
        "add" => ok.headers.extend([
            header("x-here", "2"),
            header("x-new", "1"),
            header("x-new", "2"),
            action("x-here", "absent", 1),
            action("x-absent", "absent", 1),
        ]),
        "join" => ok.headers.extend([
            appended("x-here", "2", true),
            appended("x-two", "3", true),
            appended("x-new", "1", true),
        ]),
        "remove" => {
            ok.headers_to_remove =
                ["x-here", "X-Two", "host", ":path", "x-none"].map(str::to_owned).into();
        }
        "query" => {
            let set =
                |key: &str, value: &str| QueryParameter { key: key.into(), value: value.into() };
            ok.query_parameters_to_set = vec![set("z", "26"), set("b", "x")];
            ok.query_parameters_to_remove = vec!["a".into(), "none".into()];
        }
        "path" => ok.headers.push(appended(":path", "/other/way", false)),
        "response" => {
            ok.response_headers_to_add = vec![
                header("x-granted", "1"),
                header("x-granted", "2"),
                appended("x-origin", "set", false),
                action("x-absent", "absent", 1),
            ];
        }
        "meta" => {
            let value = Value { kind: Some(Kind::StringValue("ada".into())) };
            dynamic_metadata = Some(Struct { fields: [("who".to_owned(), value)].into() });
        }
        "no-status" => denied.status = None,
        "no-many" => denied.headers.push(action("x-why", "because", 2)),
        _ => {}
    }
    let is_no = verdict.starts_with("no") || verdict == "error";
    let http_response = match verdict {
        "no-plain" => None,
        "error" => Some(HttpResponse::ErrorResponse(denied)),
        _ if is_no => Some(HttpResponse::DeniedResponse(denied)),
        _ => Some(HttpResponse::OkResponse(ok)),
    };
    let status = Status { code: if is_no { 7 } else { 0 }, ..Status::default() };
    CheckResponse { status: Some(status), dynamic_metadata, http_response }
}

/// What was asked, without what differs each time.
fn told(asked: &CheckRequest) -> String {
    let about = asked.attributes.as_ref().unwrap();
    let Some(http) = about.request.as_ref().and_then(|request| request.http.as_ref()) else {
        return String::new();
    };
    let (source, destination) =
        (about.source.as_ref().unwrap(), about.destination.as_ref().unwrap());
    let plain = |(name, value): (&String, &String)| match name.as_str() {
        "x-request-id" => format!("{name}=*"),
        _ => format!("{name}={value}"),
    };
    let headers: BTreeMap<_, _> = http.headers.iter().collect();
    let headers: Vec<String> = headers.into_iter().map(plain).collect();
    let raw = http.header_map.iter().flat_map(|map| &map.headers);
    let mut raw: Vec<String> = raw
        .map(|one| plain((&one.key, &String::from_utf8_lossy(&one.raw_value).into_owned())))
        .collect();
    raw.sort();
    let extensions: BTreeMap<_, _> = about.context_extensions.iter().collect();
    let ip = |peer: &envoy_types::pb::envoy::service::auth::v3::attribute_context::Peer| {
        let text = format!("{:?}", peer.address);
        text.contains("127.0.0.1").then_some("127.0.0.1")
    };
    format!(
        "{} {} {} {} {} size={} [{}] raw[{}] body={:?} bytes={:?} {:?} {:?} from={:?}/{}/{} to={:?}/{} {:?}",
        http.method,
        http.path,
        http.host,
        http.scheme,
        http.protocol,
        http.size,
        headers.join(";"),
        raw.join(";"),
        http.body,
        http.raw_body,
        extensions,
        about.metadata_context.as_ref().map(|context| context.filter_metadata.len()),
        ip(source),
        source.principal,
        source.service,
        ip(destination),
        destination.principal,
        about.tls_session,
    )
}

async fn serve_http(mut stream: TcpStream) {
    let mut bytes = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                return;
            }
        };
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let field = |name: &str| {
            let line = head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.map(|value| value.trim().to_owned())
        };
        let length = field("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        while bytes.len() < end + length {
            if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let body = String::from_utf8_lossy(&bytes[end..end + length]).into_owned();
        bytes.drain(..end + length);
        let mut lines: Vec<&str> = head.lines().skip(1).filter(|line| !varies(line)).collect();
        lines.sort_unstable();
        let asked = format!("{} | {} | {body}", head.lines().next().unwrap(), lines.join(";"));
        let (status, further) = match field("x-verdict").as_deref() {
            Some("hang") => return drop(stream.read_buf(&mut bytes).await),
            Some("close") => return,
            Some("no") => (
                401,
                "x-why: no\r\nx-other: 1\r\nset-cookie: a=1\r\nset-cookie: b=2\r\nwww-authenticate: Basic\r\n",
            ),
            Some("302") => (302, "location: /login\r\nx-other: 1\r\n"),
            Some("503") => (503, "x-why: 503\r\n"),
            Some("many") => (
                200,
                "x-many: 1\r\nx-many: 2\r\nx-here: 2\r\nx-here: 3\r\nx-new: 1\r\nx-new: 2\r\nx-granted: 1\r\nx-granted: 2\r\nwho: ada\r\n",
            ),
            Some("remove") => (200, "x-envoy-auth-headers-to-remove: x-gone, x-here\r\n"),
            // Said in the denial, so that the client sees it.
            Some("echo") => (403, "x-why: echo\r\n"),
            _ => (200, "x-new: 1\r\nx-here: 2\r\nx-granted: 1\r\n"),
        };
        let answer = format!(
            "HTTP/1.1 {status} OK\r\ncontent-length: {}\r\nx-asked: {asked}\r\n{further}\r\n{asked}",
            asked.len()
        );
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// What proxies say of themselves on calls of their own.
fn varies(line: &str) -> bool {
    ["x-envoy-", "x-request-id", "x-forwarded-for", "x-case", "user-agent", "x-forwarded-proto"]
        .iter()
        .any(|name| line.starts_with(name) && !line.starts_with("x-envoy-auth"))
}
