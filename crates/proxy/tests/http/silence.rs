//! Connections that are kept and say nothing: what the proxy gives back meanwhile changes nothing.

use serde_json::json;

use crate::peers::{Peer, Scene};

/// A connection that has been served once, through a proxy that lets it be silent for so long.
async fn served(idle: &str) -> (Scene, Peer) {
    let settings = json!({"common_http_protocol_options": {"idle_timeout": idle}});
    let scene = Scene::with(&json!([]), &settings).await;
    let mut client = scene.client().await;
    ask(&mut client).await;
    (scene, client)
}

async fn ask(client: &mut Peer) {
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.head().await.line(), "HTTP/1.1 404 Not Found");
}

/// Were the time counted anew when memory is given back, after a second, the first would end last.
#[tokio::test]
async fn silence_counts_from_the_last_answer_and_a_request_after_it_is_served() {
    let (_later, mut later) = served("2s").await;
    let (_kept, mut kept) = served("60s").await;
    let (_sooner, mut sooner) = served("1.2s").await;
    tokio::select! {
        biased;
        rest = later.rest() => panic!("it outlived the other: {rest:?}"),
        rest = sooner.rest() => assert_eq!(rest, ""),
    }
    ask(&mut kept).await;
    // And once more, silent beyond the second again.
    assert_eq!(later.rest().await, "");
    ask(&mut kept).await;
}
