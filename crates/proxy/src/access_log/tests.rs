//! Behaviour of the access log: formats, escapes, flags.

use std::time::{Duration, UNIX_EPOCH};

use sluis_http1::{Limits, RequestHead, Scan};
use sluis_rules::{Address, JsonFormat, Metadata};
use sluis_tls::{PeerIdentity, TlsSession};
use tokio::time::Instant;

use super::*;
use crate::conn::ConnectionFacts;

const PEER: &str = "spiffe://cluster.local/ns/a/sa/b";

fn facts() -> ConnectionFacts {
    let at = |text: &str| Address::Socket(text.parse().unwrap());
    ConnectionFacts {
        id: 7,
        listener: "in".into(),
        chain: "c".into(),
        local: at("10.0.0.1:443"),
        remote: at("10.0.0.2:5000"),
        direct_remote: at("10.0.0.2:5000"),
        original_dst: None,
        source: None,
        sni: Some("api.data.local".into()),
        application_protocols: Vec::new(),
        is_tls: true,
        tls_terminated: true,
        own_uris: Vec::new(),
        own_certificate: None,
        is_inner: false,
        session: Some(TlsSession {
            version: "TLSv1.3",
            cipher: "TLS_AES_128_GCM_SHA256",
            cipher_id: 0x1301,
        }),
        peer: Some(PeerIdentity { uris: vec![PEER.to_owned()], ..PeerIdentity::default() }),
        start: Instant::now(),
        start_time: UNIX_EPOCH,
        metadata: Metadata::default(),
    }
}

fn request(text: &str) -> RequestHead {
    let mut head = RequestHead::default();
    head.parse(&mut Scan::default(), text.as_bytes(), &Limits::default()).unwrap().unwrap();
    head
}

fn line(format: &str, record: &Record<'_>) -> String {
    let mut out = Vec::new();
    Format::parse(format).unwrap().write(record, Escape::Log, b"-", &mut out);
    String::from_utf8(out).unwrap()
}

const ISTIO: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% \
    %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% \
    %CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% \
    %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \
    \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" \
    %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% \
    %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";

#[test]
fn the_line_of_istio_is_written() {
    let facts = facts();
    let head = request("GET /a?b HTTP/1.1\r\nHost: api.data.local\r\nUser-Agent: x\"y\r\n\r\n");
    let host = Address::Socket("10.0.0.9:8443".parse().unwrap());
    let record = Record {
        start: UNIX_EPOCH + Duration::from_millis(1_700_000_000_042),
        duration: Duration::from_millis(12),
        request: Some(&head),
        protocol: Some("HTTP/1.1"),
        response_code: 200,
        bytes_sent: 5,
        upstream_host: Some(&host),
        upstream_cluster: Some("outbound|443||api.data.local"),
        response_code_details: Some("via_upstream"),
        ..Record::new(&facts)
    };
    assert_eq!(
        line(ISTIO, &record),
        "[2023-11-14T22:13:20.042Z] \"GET /a?b HTTP/1.1\" 200 - via_upstream - \"-\" 0 5 12 - \
         \"-\" \"x\\x22y\" \"-\" \"api.data.local\" \"10.0.0.9:8443\" \
         outbound|443||api.data.local - 10.0.0.1:443 10.0.0.2:5000 api.data.local -\n"
    );
}

#[test]
fn a_tcp_connection_has_dashes_where_http_has_words() {
    let facts = facts();
    let record = Record { flags: Flag::NoHealthyUpstream.into(), ..Record::new(&facts) };
    let text = "%REQ(:METHOD)% %PROTOCOL% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESP(A?B)%";
    assert_eq!(line(text, &record), "- - 0 UH -");
}

#[track_caller]
fn check(format: &str, expected: &str) {
    let facts = facts();
    let head = request("GET / HTTP/1.1\r\nHost: a\r\nX-Long: abcdef\r\nX-Bad: a\u{e9}\\b\r\n\r\n");
    let mut flags = Flags::from(Flag::UpstreamConnectionFailure);
    flags.set(Flag::UpstreamRetryLimitExceeded);
    let record = Record { request: Some(&head), flags, ..Record::new(&facts) };
    assert_eq!(line(format, &record), expected);
}

#[test]
fn operators_take_their_arguments() {
    check("%DOWNSTREAM_TLS_VERSION% %DOWNSTREAM_TLS_CIPHER%", "TLSv1.3 TLS_AES_128_GCM_SHA256");
    check("%REQ(X-LONG):3%", "abc");
    check("%REQ(NONE?X-LONG)%|%REQ(NONE?:AUTHORITY)%|%REQ(:SCHEME)%", "abcdef|a|https");
    check("100%%", "100%");
    check("%DOWNSTREAM_PEER_URI_SAN%", PEER);
    check("%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_LOCAL_PORT%", "10.0.0.2 443");
    check("%RESPONSE_FLAGS% %CONNECTION_ID%", "UF,URX 7");
    check("%START_TIME(%Y%m%dT%H%M%SZ %s %3f)%", "19700101T000000Z 0 000");
}

#[test]
fn values_cannot_leave_their_place_in_the_line() {
    check("%REQ(X-BAD)%", "a\\xC3\\xA9\\x5Cb");
}

#[test]
fn formats_that_are_not_understood_are_refused() {
    let error = |text: &str| Format::parse(text).unwrap_err().to_string();
    assert_eq!(error("%NO_SUCH%"), "unknown operator %NO_SUCH%");
    assert_eq!(error("%NO_SUCH(a)%"), "unknown operator %NO_SUCH%");
    assert_eq!(error("a %"), "malformed operator at byte 2");
    assert_eq!(error("%REQ(a"), "malformed operator at byte 0");
    assert_eq!(error("%REQ%"), "operator %REQ% has bad arguments: none given");
    assert_eq!(error("%REQ(a b)%"), "operator %REQ% has bad arguments: not a header name");
    assert_eq!(error("%PROTOCOL(x)%"), "operator %PROTOCOL% has bad arguments: none expected");
    assert_eq!(error("%START_TIME(%Q)%"), "operator %START_TIME% has bad arguments: time format");
}

#[test]
fn json_keeps_types_and_stays_valid() {
    let facts = facts();
    let head = request("GET / HTTP/1.1\r\nHost: a\r\nX-Bad: q\"\\\u{e9}\r\n\r\n");
    let record = Record { request: Some(&head), response_code: 200, ..Record::new(&facts) };
    let text = |format: &str| JsonFormat::Text(format.into());
    let format = JsonFormat::Object(vec![
        ("bad".into(), text("%REQ(X-BAD)%")),
        ("code".into(), text("%RESPONSE_CODE%")),
        ("mixed".into(), text("%REQ(:METHOD)% %ROUTE_NAME%")),
        ("none".into(), text("%ROUTE_NAME%")),
        ("one".into(), JsonFormat::Number(1.0)),
    ]);
    let render = |omits: bool| {
        let mut out = Vec::new();
        Json::compile(&format, omits).unwrap().write_line(&record, &mut out);
        String::from_utf8(out).unwrap()
    };
    let kept = r#"{"bad":"q\"\\é","code":200,"mixed":"GET -","none":null,"one":1}"#;
    assert_eq!(render(false), format!("{kept}\n"));
    let omitted = r#"{"bad":"q\"\\é","code":200,"mixed":"GET ","one":1}"#;
    assert_eq!(render(true), format!("{omitted}\n"));
}

#[test]
fn dates_are_those_of_http() {
    assert_eq!(&http_date(784_111_777), b"Sun, 06 Nov 1994 08:49:37 GMT");
    assert_eq!(&http_date(951_782_400), b"Tue, 29 Feb 2000 00:00:00 GMT");
}

#[test]
fn dynamic_metadata_is_logged_by_its_path() {
    let facts = facts();
    let mut metadata = Metadata::default();
    let text = sluis_rules::MetaValue::text;
    let inner = sluis_rules::MetaFields::from([("iss".into(), text("me"))]);
    metadata.set("jwt", "payload", sluis_rules::MetaValue::fields(inner));
    let record = Record { metadata: Some(&metadata), ..Record::new(&facts) };
    let all = "%DYNAMIC_METADATA(jwt:payload:iss)% %DYNAMIC_METADATA(jwt)% %DYNAMIC_METADATA(a:b)%";
    assert_eq!(line(all, &record), r#"me {\x22payload\x22:{\x22iss\x22:\x22me\x22}} -"#);
}
