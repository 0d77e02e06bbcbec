//! Each way to add a credential, and what a client can do about it: nothing.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::scene::{HOST, SECRET, Scene, Setting};

async fn injected(
    injection: Value,
    is_http2: bool,
    target: &str,
    fields: &str,
) -> crate::capture::Captured {
    let scene = Scene::new(Setting {
        injection,
        is_http2,
        entries: vec![("k", SECRET.to_owned()), ("u", "robot".to_owned())],
        ..Setting::default()
    })
    .await;
    let reply = scene.get(target, fields).await;
    assert_eq!((reply.status, &*reply.body), (200, "fine"), "{reply:?}");
    scene.server.only()
}

#[tokio::test]
async fn a_field_is_set_in_either_version() {
    for is_http2 in [false, true] {
        let header =
            json!({ "header": { "name": "authorization", "prefix": "Bearer ", "key": "k" } });
        let seen = injected(header, is_http2, "/a?b=c", "Authorization: Bearer mine\r\n").await;
        assert_eq!(seen.field("authorization").unwrap(), format!("Bearer {SECRET}"));
        assert_eq!((&*seen.target, &*seen.host), ("/a?b=c", HOST));
        assert!(!seen.holds("mine"));
    }
}

#[tokio::test]
async fn basic_authentication_is_set() {
    let basic = json!({ "basic": { "username_key": "u", "password_key": "k" } });
    let seen = injected(basic, false, "/", "").await;
    let expected = format!("Basic {}", STANDARD.encode(format!("robot:{SECRET}")));
    assert_eq!(seen.field("authorization").unwrap(), expected);
}

#[tokio::test]
async fn a_parameter_and_a_cookie_take_the_place_of_the_clients() {
    let query = json!({ "query": { "name": "api_key", "key": "k" } });
    let seen = injected(query, false, "/a?api_key=mine&b=1&api%5Fkey=mine", "").await;
    assert!(seen.target.contains("b=1") && !seen.holds("mine"), "{}", seen.target);
    assert!(seen.target.contains(&format!("api_key={SECRET}")), "{}", seen.target);
    let cookie = json!({ "cookie": { "name": "sid", "key": "k" } });
    let seen = injected(cookie, true, "/", "Cookie: a=b; sid=mine\r\nCookie: c=d\r\n").await;
    let cookies = seen.field("cookie").unwrap();
    assert!(cookies.contains("a=b") && cookies.contains("c=d"), "{cookies}");
    assert!(cookies.contains(&format!("sid={SECRET}")) && !cookies.contains("mine"), "{cookies}");
}

#[tokio::test]
async fn the_clients_copies_go_in_every_spelling() {
    let header = json!({ "header": { "name": "x-api-key", "key": "k" } });
    let spellings = "X-Api-Key: mine\r\nx_api_key: mine\r\nX-API_KEY: mine\r\nx-api-key: mine\r\n";
    let seen = injected(header.clone(), false, "/", spellings).await;
    assert_eq!(seen.field("x-api-key").unwrap(), SECRET);
    assert!(!seen.holds("mine"), "{seen:?}");
    for nominated in ["X-Api-Key", "keep-alive, x-api-key", "x_api_key, X-API-KEY"] {
        let fields = format!("Connection: {nominated}\r\nX-Api-Key: mine\r\n");
        let seen = injected(header.clone(), false, "/", &fields).await;
        assert_eq!(seen.field("x-api-key").unwrap(), SECRET, "{nominated}");
        let connection = seen.field("connection").unwrap_or_default().to_ascii_lowercase();
        assert!(!connection.contains("api") && !seen.holds("mine"), "{nominated}: {seen:?}");
    }
}

#[tokio::test]
async fn trailers_bring_no_copies() {
    let scene = Scene::new(Setting {
        manager: json!({ "http_protocol_options": { "enable_trailers": true } }),
        ..Setting::default()
    })
    .await;
    let request = format!(
        "POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\nTrailer: x-key\r\n\r\n\
         3\r\nabc\r\n0\r\nX-Key: mine\r\n\r\n"
    );
    assert_eq!(scene.send(&request).await.status, 200);
    let seen = scene.server.only();
    assert_eq!((&*seen.body, seen.field("x-key").unwrap()), (&b"abc"[..], format!("Key {SECRET}")));
    assert!(!seen.holds("mine"), "{seen:?}");
}

#[tokio::test]
async fn what_the_guard_names_is_removed_too() {
    let scene = Scene::new(Setting {
        credential: json!({ "guard": { "hosts": [HOST], "strip_request_headers": ["x-user"] } }),
        ..Setting::default()
    })
    .await;
    assert_eq!(scene.get("/", "X-User: root\r\nX_USER: root\r\n").await.status, 200);
    assert!(!scene.server.only().holds("root"));
}

#[tokio::test]
async fn logs_show_the_names_and_never_the_value() {
    let scene = Scene::plain().await;
    assert_eq!(scene.get("/", "X-Key: mine\r\n").await.status, 200);
    scene.proxy.until_counter("credentials.used", 1).await;
    for page in ["/config", "/certificates", "/stats", "/stats/prometheus", "/clusters"] {
        let text = scene.proxy.admin(&format!("GET {page}")).await;
        assert!(!text.contains(SECRET), "{page}");
    }
    let lines = scene.log().await;
    assert_eq!(lines, ["200 - via_upstream [redacted] / egress/api v7 egress/any injected -"]);
}

#[tokio::test]
async fn a_secret_that_is_not_there_or_does_not_fit_refuses() {
    for (entries, allowed) in [
        (vec![], false),
        (vec![("other", SECRET.to_owned())], false),
        (vec![("k", format!("{SECRET}\r\nx: y"))], false),
        (vec![("k", SECRET.to_owned()), ("@not_after", "2020-01-01T00:00:00Z".to_owned())], false),
        (vec![], true),
    ] {
        let named = format!("{entries:?}");
        let scene = Scene::new(Setting {
            entries,
            credential: json!({ "allow_without": allowed }),
            ..Setting::default()
        })
        .await;
        let reply = scene.get("/", "X-Key: mine\r\n").await;
        if allowed {
            assert_eq!(reply.status, 200, "{named}");
            assert_eq!(scene.server.only().field("x-key"), None, "{named}");
            continue;
        }
        assert_eq!((reply.status, &*reply.body), (503, "credential unavailable"), "{named}");
        assert!(scene.server.seen().is_empty(), "{named}");
        let lines = scene.log().await;
        assert!(lines[0].starts_with("503 CRU credential_unavailable "), "{lines:?}");
    }
}
