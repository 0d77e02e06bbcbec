//! What the resolver answers, byte by byte where it matters.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

struct Table(Unknown);

impl Lookup for Table {
    fn lookup(&self, name: &str) -> Found {
        let v4 = |count: u8| (0..count).map(|n| Ipv4Addr::new(240, 240, 0, n).into());
        match name {
            "api.data.local" => Found::Addresses(v4(1).collect()),
            "both.local" => Found::Addresses(v4(1).chain([Ipv6Addr::LOCALHOST.into()]).collect()),
            "many.local" => Found::Addresses(v4(60).collect()),
            _ => Found::Unknown(self.0),
        }
    }
}

/// A query as a stub resolver writes it.
fn query(name: &str, kind: u16, edns: Option<u16>) -> Vec<u8> {
    let mut bytes = vec![0xab, 0xcd, 0x01, 0x00, 0, 1, 0, 0, 0, 0, 0, u8::from(edns.is_some())];
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&[0, 1]);
    if let Some(size) = edns {
        bytes.extend_from_slice(&[0, 0, 41]);
        bytes.extend_from_slice(&size.to_be_bytes());
        bytes.extend_from_slice(&[0; 6]);
    }
    bytes
}

fn ask(bytes: &[u8]) -> Vec<u8> {
    answer(&Table(Unknown::NxDomain), bytes, Transport::Udp).unwrap()
}

/// The code and the number of answers of a reply.
fn said(reply: &[u8]) -> (u8, u8) {
    (reply[3] & 0xf, reply[7])
}

#[test]
fn a_known_name_is_answered_with_its_address() {
    let reply = ask(&query("api.data.local", 1, None));
    assert_eq!(reply[..12], [0xab, 0xcd, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
    let answer = [0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 240, 240, 0, 0];
    assert_eq!(reply[reply.len() - 16..], answer);
}

#[test]
fn case_does_not_matter_and_is_repeated_as_asked() {
    let asked = query("API.Data.LOCAL", 1, None);
    let reply = ask(&asked);
    assert_eq!(said(&reply), (0, 1));
    assert_eq!(reply[12..asked.len()], asked[12..]);
}

#[test]
fn a_known_name_without_that_family_is_an_empty_noerror() {
    assert_eq!(said(&ask(&query("api.data.local", 28, None))), (0, 0));
    assert_eq!(said(&ask(&query("api.data.local", 65, None))), (0, 0), "HTTPS records");
    assert_eq!(said(&ask(&query("both.local", 28, None))), (0, 1));
}

#[test]
fn an_unknown_name_gets_what_the_policy_says() {
    for (unknown, code) in [(Unknown::NxDomain, 3), (Unknown::ServFail, 2), (Unknown::Refused, 5)] {
        let asked = query("other.example", 1, None);
        let reply = answer(&Table(unknown), &asked, Transport::Udp).unwrap();
        assert_eq!(said(&reply), (code, 0), "{unknown:?}");
    }
}

#[test]
fn a_long_answer_is_truncated_over_udp_and_whole_with_edns_or_tcp() {
    let plain = ask(&query("many.local", 1, None));
    assert_eq!((plain[2] & 2, said(&plain)), (2, (0, 0)), "truncated");
    let edns = ask(&query("many.local", 1, Some(4096)));
    assert_eq!((edns[2] & 2, said(&edns), edns[11]), (0, (0, 60), 1));
    assert!(edns.len() <= 1232);
    let asked = query("many.local", 1, None);
    let tcp = answer(&Table(Unknown::NxDomain), &asked, Transport::Tcp).unwrap();
    assert_eq!(said(&tcp), (0, 60));
}

#[test]
fn a_label_with_a_dot_inside_is_not_two_labels() {
    let mut asked = query("api-data.local", 1, None);
    asked[16] = b'.';
    assert_eq!(said(&ask(&asked)), (3, 0));
}

#[test]
fn what_is_malformed_is_told_so() {
    let good = query("api.data.local", 1, Some(1232));
    let with = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        bytes
    };
    let cases: [(&str, Vec<u8>, u8); 8] = [
        ("two questions", with(5, 2), 1),
        ("an answer in a query", with(7, 1), 1),
        ("a compressed name", with(12, 0xc0), 1),
        ("cut off", good[..good.len() - 1].to_vec(), 1),
        ("trailing bytes", [&good[..], &[0]].concat(), 1),
        ("a zone transfer opcode", with(2, 0x28), 4),
        ("another class", with(31, 3), 5),
        ("too many additional records", with(11, 5), 1),
    ];
    for (what, bytes, code) in cases {
        assert_eq!(said(&ask(&bytes)).0, code, "{what}");
    }
}

#[test]
fn edns_of_a_later_version_is_refused_by_its_own_code() {
    let mut asked = query("api.data.local", 1, Some(1232));
    let version = asked.len() - 5;
    asked[version] = 1;
    let reply = ask(&asked);
    assert_eq!((said(&reply).0, reply[reply.len() - 6]), (0, 1), "BADVERS is 16");
}

#[test]
fn a_reply_or_a_stub_of_a_header_gets_silence() {
    let mut reply = query("api.data.local", 1, None);
    reply[2] |= 0x80;
    for bytes in [&reply[..], &reply[..11], &[][..], &query("a.b", 1, None)[..11]] {
        assert_eq!(answer(&Table(Unknown::NxDomain), bytes, Transport::Udp), None);
    }
}

proptest! {
    #[test]
    fn no_query_makes_a_panic_or_a_long_reply(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        if let Some(reply) = answer(&Table(Unknown::NxDomain), &bytes, Transport::Udp) {
            prop_assert!(reply.len() <= 1232);
            prop_assert_eq!(&reply[..2], &bytes[..2]);
        }
    }

    #[test]
    fn a_damaged_query_makes_no_panic(at in 0_usize..43, value: u8) {
        let mut bytes = query("api.data.local", 1, Some(1232));
        bytes[at] = value;
        let _reply = answer(&Table(Unknown::NxDomain), &bytes, Transport::Udp);
    }
}

/// A table whose unknown names belong to another server.
struct Forwarding(SocketAddr);

impl Lookup for Forwarding {
    fn lookup(&self, name: &str) -> Found {
        Table(Unknown::Elsewhere).lookup(name)
    }

    fn servers(&self) -> Vec<SocketAddr> {
        vec![self.0]
    }
}

#[tokio::test]
async fn another_server_answers_for_what_is_its_business_and_for_nothing_else() {
    use std::{sync::Arc, time::Duration};
    use tokio::{net::UdpSocket, time::timeout};
    let other = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let resolver = socket.local_addr().unwrap();
    let table = Arc::new(Forwarding(other.local_addr().unwrap()));
    let serving = tokio::spawn(serve_udp(socket, table));
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (mut asked, mut reply) = ([0; 512], [0; 512]);
    let wait = Duration::from_secs(10);
    // The mesh's own name first: if that went on, the other server would see it first.
    for name in ["api.data.local", "elsewhere.test"] {
        let question = query(name, query::TYPE_A, None);
        client.send_to(&question, resolver).await.unwrap();
        if name == "elsewhere.test" {
            let (length, from) = timeout(wait, other.recv_from(&mut asked)).await.unwrap().unwrap();
            assert_eq!(&asked[..length], &question[..]);
            asked[2] |= 0x80;
            asked[length] = 77;
            other.send_to(&asked[..=length], from).await.unwrap();
        }
        let length = timeout(wait, client.recv(&mut reply)).await.unwrap().unwrap();
        let is_forwarded = reply[length - 1] == 77;
        assert_eq!(is_forwarded, name == "elsewhere.test", "{name}: {:?}", &reply[..length]);
    }
    serving.abort();
}
