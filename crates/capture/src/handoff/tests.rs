//! The handoff between two ends in one process.

use std::os::fd::AsFd as _;

use super::*;

fn sockets() -> Sockets {
    Sockets {
        capture: vec![TcpListener::bind("127.0.0.1:0").unwrap()],
        dns_udp: vec![UdpSocket::bind("127.0.0.1:0").unwrap()],
        dns_tcp: vec![TcpListener::bind("127.0.0.1:0").unwrap()],
    }
}

/// Offers `sockets()` for `offered` to a receiver for `team-a/notebook`.
async fn offer(
    offered: &'static str,
) -> (Receiver, tokio::task::JoinHandle<io::Result<UnixStream>>) {
    let path = tempfile::tempdir().unwrap().keep().join("handoff");
    let receiver = Receiver::bind(&path, "team-a/notebook").unwrap();
    let sent = tokio::task::spawn_blocking(move || send(&path, offered, &sockets()));
    (receiver, sent)
}

#[tokio::test]
async fn the_sidecar_holds_the_very_sockets_of_the_jail() {
    let (receiver, sent) = offer("team-a/notebook").await;
    let mut arrival = receiver.accept().await.unwrap();
    arrival.life.accept().await.unwrap();
    let stream = sent.await.unwrap().unwrap();
    assert_eq!(arrival.sockets.capture.len(), 1);
    assert_eq!(arrival.sockets.dns_udp.len(), 1);
    assert_eq!(arrival.sockets.dns_tcp.len(), 1);
    let address = arrival.sockets.capture[0].local_addr().unwrap();
    let _client = std::net::TcpStream::connect(address).unwrap();
    assert!(stream.as_fd().try_clone_to_owned().is_ok());
}

#[tokio::test]
async fn the_end_of_the_jail_is_told() {
    let (receiver, sent) = offer("team-a/notebook").await;
    let mut arrival = receiver.accept().await.unwrap();
    arrival.life.accept().await.unwrap();
    drop(sent.await.unwrap().unwrap());
    tokio::time::timeout(ANSWER_WITHIN, arrival.life.ended()).await.unwrap();
}

#[tokio::test]
async fn a_jail_of_another_workload_is_refused_with_the_reason() {
    let (receiver, sent) = offer("team-b/other").await;
    let refused = tokio::select! {
        _ = receiver.accept() => panic!("the offer was accepted"),
        sent = sent => sent.unwrap().unwrap_err(),
    };
    assert_eq!(refused.to_string(), "this is the sidecar of team-a/notebook, not of team-b/other");
}

#[tokio::test]
async fn a_sidecar_may_refuse() {
    let (receiver, sent) = offer("team-a/notebook").await;
    receiver.accept().await.unwrap().life.refuse("draining").await.unwrap();
    assert_eq!(sent.await.unwrap().unwrap_err().to_string(), "draining");
}
