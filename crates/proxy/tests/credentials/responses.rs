//! What an endpoint's answer may not bring back.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;

use crate::{
    capture::Answer,
    scene::{HOST, SECRET, Scene, Setting},
};

fn guarded(is_http2: bool) -> Setting {
    Setting {
        credential: json!({ "guard": { "hosts": [HOST], "scan_response_bytes": "4096",
            "strip_response_headers": ["set-cookie"] } }),
        is_http2,
        ..Setting::default()
    }
}

async fn answered(answer: Answer, is_http2: bool) -> (crate::scene::Reply, Vec<String>) {
    let scene = Scene::answering(guarded(is_http2), move |_| answer.clone()).await;
    let reply = scene.get("/", "").await;
    (reply, scene.log().await)
}

#[tokio::test]
async fn a_response_with_the_secret_is_blocked() {
    let encoded = STANDARD.encode(format!("x:{SECRET}"));
    for is_http2 in [false, true] {
        for answer in [
            (200, vec![("x-echo", format!("you sent {SECRET}"))], String::new()),
            (200, Vec::new(), format!("X-Key: Key {SECRET}\n")),
            (500, Vec::new(), format!("error: {encoded}")),
            (404, Vec::new(), format!("{}{SECRET}", "a".repeat(4000))),
        ] {
            let (reply, log) = answered(answer, is_http2).await;
            assert_eq!((reply.status, &*reply.body), (502, "response blocked"), "{log:?}");
            assert!(!reply.head.contains(SECRET));
            assert!(log[0].starts_with("502 CRE credential_echo "), "{log:?}");
        }
    }
}

#[tokio::test]
async fn other_responses_pass_whole_without_the_fields_that_the_guard_removes() {
    for is_http2 in [false, true] {
        for length in [0, 1, 4095, 4096, 100_000] {
            let body = "b".repeat(length);
            let fields = vec![("set-cookie", "sid=1".to_owned()), ("x-other", "kept".to_owned())];
            let (reply, _) = answered((200, fields, body.clone()), is_http2).await;
            assert_eq!(reply.status, 200);
            assert!(reply.body == body, "{} bytes of {length}", reply.body.len());
            assert!(!reply.head.contains("set-cookie"), "{}", reply.head);
            assert!(reply.head.contains("x-other"), "{}", reply.head);
        }
    }
}

#[tokio::test]
async fn a_refusal_of_the_new_version_is_tried_with_the_one_before() {
    for is_http2 in [false, true] {
        let setting = Setting {
            previous: vec![("k", "0ld-v4lue".to_owned()), ("@version", "v6".to_owned())],
            is_http2,
            ..Setting::default()
        };
        let scene = Scene::answering(setting, |request| match request.holds("0ld-v4lue") {
            true => (200, Vec::new(), String::from_utf8(request.body.clone()).unwrap()),
            false => (401, Vec::new(), String::new()),
        })
        .await;
        let request = format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 5\r\n\r\nhello");
        let reply = scene.send(&request).await;
        assert_eq!((reply.status, &*reply.body), (200, "hello"));
        let seen = scene.server.seen();
        assert_eq!(seen.len(), 2);
        assert!(seen[0].holds(SECRET) && !seen[1].holds(SECRET));
        assert_eq!(scene.proxy.counter("credentials.previous").await, 1);
        let log = scene.log().await;
        assert!(log[0].contains(" v6 egress/any injected"), "{log:?}");
    }
}

#[tokio::test]
async fn a_refusal_of_both_versions_is_passed_on() {
    let setting = Setting { previous: vec![("k", "0ld-v4lue".to_owned())], ..Setting::default() };
    let scene = Scene::answering(setting, |_| (401, Vec::new(), "no".to_owned())).await;
    let reply = scene.get("/", "").await;
    assert_eq!((reply.status, &*reply.body), (401, "no"));
    assert_eq!(scene.server.seen().len(), 2);
}
