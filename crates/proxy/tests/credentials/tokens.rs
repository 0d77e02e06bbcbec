//! Tokens of authorization servers: fetched once, carried by requests, and never had by guessing.

use std::sync::atomic::{AtomicUsize, Ordering};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::{
    capture::{Answer, Captured, ok},
    harness::cluster,
    scene::{HOST, Scene, Setting},
};

const CLIENT_SECRET: &str = "cl1ent-s3cret-0001";

/// A credential that is a token of the server's own endpoint.
fn setting(fields: Value) -> Setting {
    let mut oauth2 = json!({
        "token_cluster": "api",
        "token_url": format!("https://{HOST}/token"),
        "client_id_key": "id",
        "client_secret_key": "secret",
    });
    for (name, value) in fields.as_object().unwrap() {
        oauth2[name] = value.clone();
    }
    Setting {
        injection: json!({ "oauth2": oauth2 }),
        entries: vec![("id", "gateway".to_owned()), ("secret", CLIENT_SECRET.to_owned())],
        ..Setting::default()
    }
}

fn token(value: &str, kind: &str) -> Answer {
    let body = json!({ "access_token": value, "token_type": kind, "expires_in": 600 });
    (200, vec![("content-type", "application/json".to_owned())], body.to_string())
}

/// What came at the token endpoint, and what came elsewhere.
fn apart(scene: &Scene) -> (Vec<Captured>, Vec<Captured>) {
    scene.server.seen().into_iter().partition(|one| one.target == "/token")
}

fn form(request: &Captured) -> String {
    String::from_utf8(request.body.clone()).unwrap()
}

#[tokio::test]
async fn a_token_is_fetched_once_and_carried_by_each_request() {
    let count = AtomicUsize::new(0);
    let setting = setting(json!({ "scopes": ["read"] }));
    let scene = Scene::answering(setting, move |request| match &*request.target {
        "/token" => token(&format!("tok-{}", count.fetch_add(1, Ordering::SeqCst)), "Bearer"),
        _ => ok(),
    })
    .await;
    let one = || scene.get("/data", "Authorization: Bearer mine\r\n");
    let replies = tokio::join!(one(), one(), one(), one(), one(), one(), one(), one());
    for reply in [replies.0, replies.1, replies.2, replies.3, replies.4, replies.5, replies.6] {
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    assert_eq!(scene.get("/data", "").await.status, 200);
    let (asked, sent) = apart(&scene);
    let [asked] = &asked[..] else { panic!("{} questions", asked.len()) };
    assert_eq!((&*asked.method, &*asked.host), ("POST", HOST));
    assert_eq!(form(asked), "grant_type=client_credentials&scope=read");
    let basic = "Basic Z2F0ZXdheTpjbDFlbnQtczNjcmV0LTAwMDE=";
    assert_eq!(asked.field("authorization").unwrap(), basic);
    assert_eq!(sent.len(), 9);
    for request in sent {
        assert_eq!(request.field("authorization").unwrap(), "Bearer tok-0");
        assert!(!request.holds("mine") && !request.holds(CLIENT_SECRET));
    }
}

#[tokio::test]
async fn each_users_token_is_exchanged_for_another() {
    let setting = setting(json!({ "grant_type": "TOKEN_EXCHANGE", "audiences": ["data-api"] }));
    let scene = Scene::answering(setting, |request| match &*request.target {
        "/token" => {
            let form = String::from_utf8(request.body.clone()).unwrap();
            let subject = form.split("subject_token=").nth(1).unwrap();
            token(&format!("for-{}", subject.split('&').next().unwrap()), "Bearer")
        }
        _ => ok(),
    })
    .await;
    for user in ["ann", "bob", "ann"] {
        let reply = scene.get("/data", &format!("Authorization: Bearer {user}\r\n")).await;
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    let (asked, sent) = apart(&scene);
    assert_eq!(asked.len(), 2);
    assert!(form(&asked[0]).contains("&audience=data-api"), "{}", form(&asked[0]));
    let carried: Vec<_> = sent.iter().map(|one| one.field("authorization").unwrap()).collect();
    assert_eq!(carried, ["Bearer for-ann", "Bearer for-bob", "Bearer for-ann"]);

    // Nobody's token, and two of them, are exchanged for none.
    let two = "Authorization: Bearer ann\r\nAuthorization: Bearer bob\r\n";
    for fields in ["", two, "Authorization: Bearer \r\n"] {
        let reply = scene.get("/data", fields).await;
        assert_eq!(reply.status, 503, "{reply:?}");
    }
    assert_eq!(apart(&scene).1.len(), 3);
}

#[tokio::test]
async fn a_request_whose_token_is_refused_is_not_sent() {
    let scene = Scene::answering(setting(json!({})), |request| match &*request.target {
        "/token" => (401, Vec::new(), r#"{"error":"invalid_client"}"#.to_owned()),
        _ => ok(),
    })
    .await;
    for _ in 0..3 {
        assert_eq!(scene.get("/data", "").await.status, 503);
    }
    let (asked, sent) = apart(&scene);
    // The failure is remembered for a moment: a failing server is not asked for each request.
    assert_eq!((asked.len(), sent.len()), (1, 0));
    let log = scene.log().await.concat();
    assert!(log.contains("credential_unavailable"), "{log}");
}

#[tokio::test]
async fn nobody_is_asked_who_has_not_proved_to_be_the_token_endpoint() {
    for (cluster_name, url) in [
        // No TLS; another host than the certificate's; no such cluster.
        ("raw", format!("https://{HOST}/token")),
        ("none", format!("https://{HOST}/token")),
    ] {
        let capture = crate::capture::Capture::start(None, false, |_| token("t", "Bearer")).await;
        let mut setting = setting(json!({ "token_cluster": cluster_name, "token_url": url }));
        setting.others = vec![cluster("raw", &[capture.address])];
        let scene = Scene::answering(setting, |_| ok()).await;
        assert_eq!(scene.get("/data", "").await.status, 503, "{cluster_name}");
        assert!(capture.seen().is_empty() && scene.server.seen().is_empty(), "{cluster_name}");
    }
    let other = setting(json!({ "token_url": "https://other.test/token" }));
    let scene = Scene::answering(other, |_| token("t", "Bearer")).await;
    assert_eq!(scene.get("/data", "").await.status, 503);
    assert!(scene.server.seen().is_empty());
}

fn claims(request: &Captured) -> Value {
    let proof = request.field("dpop").unwrap();
    let part = proof.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[tokio::test]
async fn a_bound_token_is_fetched_and_carried_with_proofs() {
    let scene = Scene::answering(setting(json!({ "dpop": true })), |request| {
        match (&*request.target, claims(request)["nonce"].as_str()) {
            ("/token", None) => {
                let nonce = vec![("DPoP-Nonce", "n-1".to_owned())];
                (400, nonce, r#"{"error":"use_dpop_nonce"}"#.to_owned())
            }
            ("/token", Some("n-1")) => token("bound", "DPoP"),
            _ => ok(),
        }
    })
    .await;
    for _ in 0..2 {
        let reply = scene.get("/data?x=1", "DPoP: mine\r\n").await;
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    let (asked, sent) = apart(&scene);
    assert_eq!((asked.len(), sent.len()), (2, 2));
    assert_eq!(claims(&asked[1])["nonce"], "n-1");
    assert_eq!(claims(&asked[1])["htu"], format!("https://{HOST}/token"));
    let (one, two) = (claims(&sent[0]), claims(&sent[1]));
    assert_eq!(sent[0].field("authorization").unwrap(), "DPoP bound");
    assert_eq!((&one["htm"], &one["htu"]), (&json!("GET"), &json!(format!("https://{HOST}/data"))));
    assert!(one["ath"].is_string());
    assert_ne!(one["jti"], two["jti"], "each request has a proof of its own");
}

#[tokio::test]
async fn a_token_that_is_not_bound_is_not_taken_for_one_that_is() {
    let bound = setting(json!({ "dpop": true }));
    let scene = Scene::answering(bound, |_| token("unbound", "Bearer")).await;
    assert_eq!(scene.get("/data", "").await.status, 503);
    assert!(apart(&scene).1.is_empty());
}

/// RFC 9449 §9: a resource server may ask for a nonce of its own.
#[tokio::test]
async fn a_server_that_asks_for_a_nonce_gets_it() {
    let scene = Scene::answering(setting(json!({ "dpop": true })), |request| {
        match (&*request.target, claims(request)["nonce"].as_str()) {
            ("/token", _) => token("bound", "DPoP"),
            (_, Some("r-1")) => ok(),
            _ => (401, vec![("DPoP-Nonce", "r-1".to_owned())], String::new()),
        }
    })
    .await;
    for _ in 0..2 {
        assert_eq!(scene.get("/data", "").await.status, 200);
    }
    let (asked, sent) = apart(&scene);
    // Once without, once again with it; the next request knows it.
    assert_eq!((asked.len(), sent.len()), (1, 3));
}
