//! The engine against itself and against a peer that keeps no rules.

use std::task::{Poll, Waker};

use sluis_http2::{
    Accepted, Connection, Fault, Key, Options, Part, Reason, Role,
    hpack::{Encoder, Indexing},
};

const OPTIONS: Options = Options {
    streams_max: 4,
    stream_window: 100_000,
    connection_window: 300_000,
    list_bytes_max: 16_384,
    connect_protocol: false,
};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

fn frame(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(id.to_be_bytes());
    out.extend(payload);
    out
}

fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    // None of them may enter the table: blocks must not depend on each other.
    let mut out = Vec::new();
    let mut encoder = Encoder::new();
    for (name, value) in fields {
        encoder.encode(name.as_bytes(), value.as_bytes(), Indexing::Never, &mut out);
    }
    out
}

fn request() -> Vec<u8> {
    block(&[(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/")])
}

fn headers(id: u32, flags: u8) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, id, &request())
}

/// A server that has had the preface and empty settings.
fn server() -> Connection {
    let mut server = Connection::new(Role::Server, OPTIONS);
    server.feed(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    server.feed(&frame(SETTINGS, 0, 0, &[]));
    server.feed(&frame(SETTINGS, ACK, 0, &[]));
    let _greeting = written(&mut server);
    server
}

/// A client with one request under way, on stream 1.
fn client() -> (Connection, Key) {
    let mut client = Connection::new(Role::Client, OPTIONS);
    client.feed(&frame(SETTINGS, 0, 0, &[]));
    client.feed(&frame(SETTINGS, ACK, 0, &[]));
    let key = open(&mut client);
    let _greeting = written(&mut client);
    (client, key)
}

fn open(client: &mut Connection) -> Key {
    let write = |out: &mut sluis_http2::HeadWriter<'_>| {
        out.add(b":method", b"POST", Indexing::Usual);
        out.add(b":scheme", b"http", Indexing::Usual);
        out.add(b":authority", b"a", Indexing::Usual);
        out.add(b":path", b"/", Indexing::Usual);
    };
    client.open(false, false, write).expect("a new stream")
}

/// What the connection writes, taken apart: kind, flags, stream, payload.
fn written(connection: &mut Connection) -> Vec<(u8, u8, u32, Vec<u8>)> {
    let bytes = connection.pending().to_vec();
    connection.wrote(bytes.len());
    let mut rest = bytes.strip_prefix(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap_or(&bytes);
    let mut frames = Vec::new();
    while !rest.is_empty() {
        let len = u32::from_be_bytes([0, rest[0], rest[1], rest[2]]) as usize;
        let id = u32::from_be_bytes(rest[5..9].try_into().expect("four bytes"));
        frames.push((rest[3], rest[4], id, rest[9..9 + len].to_vec()));
        rest = &rest[9 + len..];
    }
    frames
}

fn resets(connection: &mut Connection) -> Vec<(u32, Reason)> {
    let code =
        |payload: &[u8]| Reason::of(u32::from_be_bytes(payload.try_into().expect("four bytes")));
    let frames = written(connection).into_iter().filter(|frame| frame.0 == RST_STREAM);
    frames.map(|(_, _, id, payload)| (id, code(&payload))).collect()
}

fn wake() -> &'static Waker {
    Waker::noop()
}

fn accept(server: &mut Connection) -> Accepted {
    server.accept().expect("a request")
}

fn pass(from: &mut Connection, to: &mut Connection, piece: usize) {
    let bytes = from.pending().to_vec();
    from.wrote(bytes.len());
    bytes.chunks(piece).for_each(|piece| to.feed(piece));
}

#[test]
fn an_exchange_passes_in_pieces_of_any_size() {
    for piece in [1, 2, 3, 7, 9, 10, 64, 1000, 100_000] {
        let mut client = Connection::new(Role::Client, OPTIONS);
        let mut server = Connection::new(Role::Server, OPTIONS);
        let key = open(&mut client);
        let body: Vec<u8> = (0..40_000_u32).map(|at| at as u8).collect();
        assert_eq!(client.poll_room(key, body.len(), wake()), Poll::Ready(Ok(40_000)));
        client.send_data(key, &body, false).unwrap();
        client.send_head(key, true, |out| out.add(b"end", b"1", Indexing::Usual)).unwrap();
        pass(&mut client, &mut server, piece);
        let accepted = accept(&mut server);
        assert_eq!(accepted.section.iter().next().unwrap().1, b"POST");
        let mut came = Vec::new();
        let trailers = loop {
            match server.poll_part(accepted.key, wake()) {
                Poll::Ready(Ok(Part::Data(data, is_last))) => {
                    assert!(!is_last, "trailers follow");
                    server.used(accepted.key, data.len());
                    came.extend(data);
                }
                Poll::Ready(Ok(Part::End(trailers))) => break trailers.unwrap(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(came, body);
        assert_eq!(trailers.iter().next().unwrap().0, b"end");
        let interim =
            |out: &mut sluis_http2::HeadWriter<'_>| out.add(b":status", b"103", Indexing::Usual);
        server.send_head(accepted.key, false, interim).unwrap();
        let head =
            |out: &mut sluis_http2::HeadWriter<'_>| out.add(b":status", b"204", Indexing::Usual);
        server.send_head(accepted.key, true, head).unwrap();
        pass(&mut server, &mut client, piece);
        for (status, ends) in [(103, false), (204, true)] {
            let Poll::Ready(Ok(head)) = client.poll_head(key, wake()) else { panic!("a head") };
            assert_eq!((head.status, head.ends), (status, ends));
        }
        server.release(accepted.key);
        client.release(key);
        assert_eq!(resets(&mut server), [], "both halves had ended");
        assert_eq!(resets(&mut client), []);
        assert!(client.is_idle() && server.is_idle());
    }
}

#[test]
fn a_large_head_is_cut_into_frames() {
    let (mut client, _) = client();
    let options = Options { list_bytes_max: 100_000, ..OPTIONS };
    let mut server = Connection::new(Role::Server, options);
    let mut whole = Connection::new(Role::Client, OPTIONS);
    let value = vec![0x7f_u8 - 1; 50_000];
    let key = whole
        .open(false, true, |out| {
            out.add(b":method", b"GET", Indexing::Usual);
            out.add(b"large", &value, Indexing::Never);
        })
        .unwrap();
    pass(&mut whole, &mut server, 1000);
    assert_eq!(accept(&mut server).section.iter().nth(1).unwrap().1, value);
    whole.release(key);
    assert!(client.pending().is_empty());
    client.lost();
}

/// What a peer may not do, and what it is told (RFC 9113 §4 to §8).
#[test]
fn what_breaks_the_connection_ends_it() {
    let block = request();
    let padded = [&[200][..], &block].concat();
    let on_itself = [&[0, 0, 0, 1, 0][..], &block].concat();
    let cases: &[(&str, Vec<u8>, Reason)] = &[
        ("data on no stream", frame(DATA, 0, 0, b"x"), Reason::PROTOCOL_ERROR),
        ("data on an idle stream", frame(DATA, 0, 1, b"x"), Reason::PROTOCOL_ERROR),
        ("a reset of an idle stream", frame(RST_STREAM, 0, 1, &[0; 4]), Reason::PROTOCOL_ERROR),
        (
            "a window of an idle stream",
            frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
            Reason::PROTOCOL_ERROR,
        ),
        ("a stream of ours", headers(2, END_STREAM), Reason::PROTOCOL_ERROR),
        ("a head on no stream", headers(0, END_STREAM), Reason::PROTOCOL_ERROR),
        (
            "too much padding",
            frame(HEADERS, END_HEADERS | PADDED, 1, &padded),
            Reason::PROTOCOL_ERROR,
        ),
        (
            "a stream behind itself",
            frame(HEADERS, END_HEADERS | 0x20, 1, &on_itself),
            Reason::PROTOCOL_ERROR,
        ),
        (
            "no padding length",
            frame(HEADERS, END_HEADERS | PADDED, 1, &[]),
            Reason::FRAME_SIZE_ERROR,
        ),
        (
            "a block that is none",
            frame(HEADERS, END_HEADERS, 1, &[0xff; 9]),
            Reason::COMPRESSION_ERROR,
        ),
        (
            "a continuation of nothing",
            frame(CONTINUATION, END_HEADERS, 1, &block),
            Reason::PROTOCOL_ERROR,
        ),
        (
            "something between a block's frames",
            [frame(HEADERS, 0, 1, &block), frame(PING, 0, 0, &[0; 8])].concat(),
            Reason::PROTOCOL_ERROR,
        ),
        (
            "a block that goes on for another stream",
            [frame(HEADERS, 0, 1, &block), frame(CONTINUATION, END_HEADERS, 3, &[])].concat(),
            Reason::PROTOCOL_ERROR,
        ),
    ];
    check_ends(cases);
}

#[test]
fn frames_that_are_none_end_the_connection() {
    let cases: &[(&str, Vec<u8>, Reason)] = &[
        ("a push", frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]), Reason::PROTOCOL_ERROR),
        ("a frame too long", frame(DATA, 0, 1, &[0; 16_385]), Reason::FRAME_SIZE_ERROR),
        ("a short ping", frame(PING, 0, 0, &[0; 7]), Reason::FRAME_SIZE_ERROR),
        ("a ping on a stream", frame(PING, 0, 1, &[0; 8]), Reason::PROTOCOL_ERROR),
        ("half a setting", frame(SETTINGS, 0, 0, &[0; 5]), Reason::FRAME_SIZE_ERROR),
        ("settings on a stream", frame(SETTINGS, 0, 1, &[]), Reason::PROTOCOL_ERROR),
        ("an answer with settings", frame(SETTINGS, ACK, 0, &[0; 6]), Reason::FRAME_SIZE_ERROR),
        ("a push setting of 2", frame(SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 2]), Reason::PROTOCOL_ERROR),
        ("a frame size of 0", frame(SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 0]), Reason::PROTOCOL_ERROR),
        (
            "a window of 2^31",
            frame(SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0]),
            Reason::FLOW_CONTROL_ERROR,
        ),
        ("no increment", frame(WINDOW_UPDATE, 0, 0, &[0; 4]), Reason::PROTOCOL_ERROR),
        (
            "a window over 2^31",
            frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
            Reason::FLOW_CONTROL_ERROR,
        ),
        (
            "a short reset",
            [headers(1, 0), frame(RST_STREAM, 0, 1, &[0; 3])].concat(),
            Reason::FRAME_SIZE_ERROR,
        ),
        ("a short goaway", frame(GOAWAY, 0, 0, &[0; 7]), Reason::FRAME_SIZE_ERROR),
        ("a goaway on a stream", frame(GOAWAY, 0, 1, &[0; 8]), Reason::PROTOCOL_ERROR),
        ("a short priority", frame(PRIORITY, 0, 1, &[0; 4]), Reason::FRAME_SIZE_ERROR),
        (
            "streams that go down",
            [headers(5, END_STREAM), headers(3, END_STREAM)].concat(),
            Reason::PROTOCOL_ERROR,
        ),
    ];
    check_ends(cases);
}

/// Checks that each of these ends a connection with its reason, and that the peer is told.
fn check_ends(cases: &[(&str, Vec<u8>, Reason)]) {
    for (name, bytes, reason) in cases {
        let mut server = server();
        server.feed(bytes);
        assert_eq!(server.failure(), Some(*reason), "{name}");
        let last = written(&mut server).pop().expect("a frame");
        assert_eq!((last.0, &last.3[4..]), (GOAWAY, &reason.code().to_be_bytes()[..]), "{name}");
        assert!(server.is_over());
    }
}

#[test]
fn what_breaks_a_stream_resets_it_alone() {
    let long =
        frame(HEADERS, END_HEADERS, 1, &[request(), block(&[("content-length", "1")])].concat());
    let cases: &[(&str, Vec<u8>, Reason)] = &[
        ("no increment", frame(WINDOW_UPDATE, 0, 1, &[0; 4]), Reason::PROTOCOL_ERROR),
        (
            "a window over 2^31",
            frame(WINDOW_UPDATE, 0, 1, &[0x7f, 0xff, 0xff, 0xff]),
            Reason::FLOW_CONTROL_ERROR,
        ),
        ("a second head", headers(1, 0), Reason::PROTOCOL_ERROR),
        ("pseudo-header fields in trailers", headers(1, END_STREAM), Reason::PROTOCOL_ERROR),
        ("more than was said", frame(DATA, 0, 1, b"ab"), Reason::PROTOCOL_ERROR),
        ("less than was said", frame(DATA, END_STREAM, 1, b""), Reason::PROTOCOL_ERROR),
        (
            "data after the end",
            [frame(DATA, END_STREAM, 1, b"a"), frame(DATA, 0, 1, b"b")].concat(),
            Reason::STREAM_CLOSED,
        ),
    ];
    for (name, bytes, reason) in cases {
        let mut server = server();
        server.feed(&long);
        let key = accept(&mut server).key;
        server.feed(bytes);
        assert_eq!(resets(&mut server), [(1, *reason)], "{name}");
        assert_eq!(server.poll_fault(key, wake()), Poll::Ready(Fault::Malformed), "{name}");
        server.feed(&frame(DATA, 0, 1, b"late"));
        server.release(key);
        server.feed(&frame(DATA, 0, 1, b"later"));
        server.feed(&headers(3, END_STREAM));
        assert!(accept(&mut server).ends, "{name}: the others go on");
        assert_eq!(server.failure(), None, "{name}");
    }
}

/// RFC 9113 §5.1, "closed".
#[test]
fn frames_after_the_end_are_told_from_those_that_were_on_their_way() {
    let answer = |server: &mut Connection, key: Key| {
        let head =
            |out: &mut sluis_http2::HeadWriter<'_>| out.add(b":status", b"200", Indexing::Usual);
        server.send_head(key, true, head).unwrap();
        server.release(key);
    };
    for (late, is_fault) in [
        (headers(1, END_STREAM), true),
        (frame(DATA, 0, 1, b"x"), true),
        (frame(RST_STREAM, 0, 1, &[0; 4]), false),
        (frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]), false),
    ] {
        // Both halves have ended.
        let mut over = server();
        over.feed(&headers(1, END_STREAM));
        let key = accept(&mut over).key;
        answer(&mut over, key);
        over.feed(&late);
        assert_eq!(over.failure(), is_fault.then_some(Reason::STREAM_CLOSED));
        // We have said that the rest is not wanted: the peer could not know.
        let mut early = server();
        early.feed(&headers(1, 0));
        let key = accept(&mut early).key;
        answer(&mut early, key);
        assert_eq!(resets(&mut early), [(1, Reason::NO_ERROR)]);
        early.feed(&late);
        assert_eq!((early.failure(), resets(&mut early)), (None, vec![]));
    }
}

#[test]
fn windows_hold_in_both_directions() {
    let mut server = server();
    server.feed(&headers(1, 0));
    let key = accept(&mut server).key;
    let full = frame(DATA, 0, 1, &[7; 16_000]);
    for _ in 0..6 {
        server.feed(&full);
    }
    assert_eq!(server.failure(), None);
    let mut used = 0;
    while let Poll::Ready(Ok(Part::Data(data, _))) = server.poll_part(key, wake()) {
        used += data.len();
        server.used(key, data.len());
    }
    assert_eq!(used, 96_000);
    let updates: Vec<u32> = written(&mut server).iter().map(|frame| frame.2).collect();
    assert_eq!(updates, [1], "the stream's window, as more than half of it is used");
    for _ in 0..6 {
        server.feed(&full);
    }
    assert_eq!(resets(&mut server), []);
    server.feed(&full);
    assert_eq!(resets(&mut server), [(1, Reason::FLOW_CONTROL_ERROR)], "more than the window");
    // What we send.
    server.feed(&headers(3, END_STREAM));
    let key = accept(&mut server).key;
    let head = |out: &mut sluis_http2::HeadWriter<'_>| out.add(b":status", b"200", Indexing::Usual);
    server.send_head(key, false, head).unwrap();
    assert_eq!(server.poll_room(key, 1 << 20, wake()), Poll::Ready(Ok(65_535)));
    server.send_data(key, &[0; 65_535], false).unwrap();
    assert_eq!(server.poll_room(key, 1, wake()), Poll::Pending);
    server.send_data(key, b"x", false).unwrap_err();
    server.feed(&frame(WINDOW_UPDATE, 0, 3, &[0, 0, 0, 9]));
    assert_eq!(server.poll_room(key, 20, wake()), Poll::Pending, "the connection's is used up");
    server.feed(&frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 7]));
    assert_eq!(server.poll_room(key, 20, wake()), Poll::Ready(Ok(7)));
    // A smaller window for all streams takes back what was given.
    server.feed(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]));
    assert_eq!(server.poll_room(key, 20, wake()), Poll::Pending);
}

#[test]
fn the_connections_window_binds_all_streams() {
    let mut server = server();
    for id in [1, 3, 5] {
        server.feed(&headers(id, 0));
        accept(&mut server);
    }
    for at in 0..18 {
        server.feed(&frame(DATA, 0, 1 + 2 * (at % 3), &[7; 16_384]));
    }
    assert_eq!(server.failure(), None);
    server.feed(&frame(DATA, 0, 1, &[7; 16_384]));
    assert_eq!(server.failure(), Some(Reason::FLOW_CONTROL_ERROR));
}

#[test]
fn what_waits_to_be_written_is_bounded() {
    let mut server = server();
    server.feed(&frame(WINDOW_UPDATE, 0, 0, &[0x10, 0, 0, 0]));
    server.feed(&frame(SETTINGS, 0, 0, &[0, 4, 0x10, 0, 0, 0]));
    server.feed(&headers(1, END_STREAM));
    let key = accept(&mut server).key;
    while let Poll::Ready(Ok(room)) = server.poll_room(key, 1 << 20, wake()) {
        server.send_data(key, &vec![0; room], false).unwrap();
        assert!(server.pending().len() < 200_000, "it goes on without end");
    }
}

#[test]
fn streams_above_the_limit_are_refused() {
    let mut server = server();
    for id in [1, 3, 5, 7, 9] {
        server.feed(&headers(id, END_STREAM));
    }
    assert_eq!(resets(&mut server), [(9, Reason::REFUSED_STREAM)]);
    // CVE-2023-44487: a stream counts until its work is over, reset or not.
    let held: Vec<Key> = std::iter::from_fn(|| server.accept()).map(|one| one.key).collect();
    for id in [1, 3, 5, 7] {
        server.feed(&frame(RST_STREAM, 0, id, &[0, 0, 0, 8]));
    }
    server.feed(&headers(11, END_STREAM));
    assert_eq!(resets(&mut server), [(11, Reason::REFUSED_STREAM)]);
    server.release(held[0]);
    server.feed(&headers(13, END_STREAM));
    assert!(server.accept().is_some());
}

#[test]
fn floods_end_the_connection() {
    let empty = frame(DATA, 0, 1, b"");
    let block = [frame(HEADERS, 0, 3, &request()), frame(CONTINUATION, 0, 3, b"").repeat(100)];
    let large: Vec<u8> = frame(CONTINUATION, 0, 3, &[0x40; 16_384]).repeat(10);
    for (name, bytes) in [
        ("pings that are not read (CVE-2019-9512)", frame(PING, 0, 0, &[0; 8]).repeat(2000)),
        ("settings that are not read (CVE-2019-9515)", frame(SETTINGS, 0, 0, &[]).repeat(2000)),
        ("empty data (CVE-2019-9518)", empty.repeat(200)),
        ("continuations (CVE-2024-27316)", block.concat()),
        (
            "a block without end (CVE-2024-27316)",
            [frame(HEADERS, 0, 3, &request()), large].concat(),
        ),
        ("priorities (CVE-2019-9513)", frame(PRIORITY, 0, 1, &[0, 0, 0, 9, 1]).repeat(700_000)),
        ("unknown frames", frame(0xbe, 0, 0, &[0; 16_000]).repeat(600)),
    ] {
        let mut server = server();
        server.feed(&headers(1, 0));
        let mut held = Vec::new();
        for piece in bytes.chunks(1000) {
            server.feed(piece);
            while let Some(accepted) = server.accept() {
                held.push(accepted.key);
            }
            held.drain(held.len().min(1)..).for_each(|key| server.release(key));
        }
        assert_eq!(server.failure(), Some(Reason::ENHANCE_YOUR_CALM), "{name}");
    }
}

/// CVE-2025-8671.
#[test]
fn a_peer_that_makes_us_reset_its_streams_is_sent_away() {
    let mut server = server();
    for id in (1..).step_by(2).take_while(|id| *id < 300) {
        assert_eq!(server.failure(), None, "{id}");
        server.feed(&headers(id, 0));
        if let Some(accepted) = server.accept() {
            server.feed(&frame(WINDOW_UPDATE, 0, id, &[0; 4]));
            server.release(accepted.key);
            let _resets = written(&mut server);
        }
        if server.failure().is_some() {
            return;
        }
    }
    panic!("it goes on without end");
}

#[test]
fn a_list_over_its_limit_is_told_and_the_table_keeps_step() {
    let mut server = server();
    let value = "v".repeat(15_000);
    let large = block(&[(":method", "GET"), ("a", &value), ("b", "1"), ("c", &value)]);
    let (first, rest) = large.split_at(16_000);
    server.feed(&frame(HEADERS, END_STREAM, 1, first));
    server.feed(&frame(CONTINUATION, END_HEADERS, 1, rest));
    let accepted = accept(&mut server);
    assert!(accepted.is_too_large);
    server.feed(&headers(3, END_STREAM));
    assert!(!accept(&mut server).is_too_large);
}

#[test]
fn a_drain_lets_in_what_was_on_its_way() {
    let mut server = server();
    server.feed(&headers(1, END_STREAM));
    let first = accept(&mut server).key;
    server.drain();
    let frames = written(&mut server);
    let kinds: Vec<u8> = frames.iter().map(|frame| frame.0).collect();
    assert_eq!(kinds, [GOAWAY, PING]);
    assert_eq!(frames[0].3, [0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    server.feed(&headers(3, END_STREAM));
    let second = accept(&mut server).key;
    server.feed(&frame(PING, ACK, 0, &frames[1].3));
    let last = written(&mut server);
    assert_eq!((last[0].0, &last[0].3[..4]), (GOAWAY, &[0, 0, 0, 3][..]));
    server.feed(&headers(5, END_STREAM));
    assert!(server.accept().is_none());
    assert_eq!(resets(&mut server), [(5, Reason::REFUSED_STREAM)]);
    server.release(first);
    assert!(!server.is_over());
    server.release(second);
    assert!(server.is_over());
}

#[test]
fn a_client_learns_why_its_stream_has_ended() {
    let goaway = |last: u8, code: u8| frame(GOAWAY, 0, 0, &[0, 0, 0, last, 0, 0, 0, code]);
    for (bytes, fault) in [
        (frame(RST_STREAM, 0, 1, &[0, 0, 0, 7]), Fault::Refused),
        (frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]), Fault::Reset(Reason::CANCEL)),
        (goaway(0, 0), Fault::Refused),
        (goaway(0, 2), Fault::Gone),
        (frame(HEADERS, END_HEADERS, 1, &block(&[(":status", "abc")])), Fault::Malformed),
        (frame(HEADERS, END_HEADERS, 1, &block(&[(":status", "101")])), Fault::Malformed),
        (
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&[(":status", "100")])),
            Fault::Malformed,
        ),
        (
            frame(HEADERS, END_HEADERS, 1, &block(&[("a", "b"), (":status", "200")])),
            Fault::Malformed,
        ),
        (frame(DATA, 0, 1, b"x"), Fault::Malformed),
        (frame(HEADERS, END_HEADERS, 2, &block(&[(":status", "200")])), Fault::Malformed),
        (frame(SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 1]), Fault::Malformed),
    ] {
        let (mut client, key) = client();
        client.feed(&bytes);
        let Poll::Ready(Err(told)) = client.poll_head(key, wake()) else { panic!("{bytes:?}") };
        assert_eq!(told, fault, "{bytes:?}");
        assert_eq!(client.poll_room(key, 1, wake()), Poll::Ready(Err(fault)));
    }
    let (mut client, key) = client();
    client.feed(&goaway(1, 0));
    assert!(client.poll_head(key, wake()).is_pending(), "this one it still serves");
    assert!(!client.is_usable());
    client.lost();
    assert!(matches!(client.poll_head(key, wake()), Poll::Ready(Err(Fault::Gone))));
}

#[test]
fn an_answer_that_was_whole_is_read_though_the_rest_of_the_request_is_refused() {
    let (mut client, key) = client();
    client.feed(&frame(HEADERS, END_HEADERS, 1, &block(&[(":status", "413")])));
    client.feed(&frame(DATA, END_STREAM, 1, b"no"));
    client.feed(&frame(RST_STREAM, 0, 1, &[0; 4]));
    let Poll::Ready(Ok(head)) = client.poll_head(key, wake()) else { panic!("a head") };
    assert_eq!((head.status, head.ends), (413, false));
    let Poll::Ready(Ok(Part::Data(data, true))) = client.poll_part(key, wake()) else {
        panic!("the whole body")
    };
    assert_eq!(&*data, b"no");
    assert!(matches!(client.poll_room(key, 1, wake()), Poll::Ready(Err(Fault::Reset(_)))));
}

#[test]
fn interim_responses_are_bounded() {
    let (mut client, key) = client();
    for _ in 0..9 {
        client.feed(&frame(HEADERS, END_HEADERS, 1, &block(&[(":status", "103")])));
    }
    assert_eq!(resets(&mut client), [(1, Reason::ENHANCE_YOUR_CALM)]);
    client.release(key);
}

#[test]
fn the_servers_settings_bind_the_client() {
    let mut client = Connection::new(Role::Client, OPTIONS);
    assert!(client.has_room_for(3) && !client.has_room_for(4), "our own limit");
    client.feed(&frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 2, 0, 8, 0, 0, 0, 1]));
    assert!(client.has_room_for(1) && !client.has_room_for(2));
    assert!(client.takes_connect_protocol());
    // RFC 8441 §3: it may not be taken back.
    client.feed(&frame(SETTINGS, 0, 0, &[0, 8, 0, 0, 0, 0]));
    assert_eq!(client.failure(), Some(Reason::PROTOCOL_ERROR));
}

#[test]
fn settings_come_first() {
    let mut server = Connection::new(Role::Server, OPTIONS);
    server.feed(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    server.feed(&frame(PING, 0, 0, &[0; 8]));
    assert_eq!(server.failure(), Some(Reason::PROTOCOL_ERROR));
    let mut other = Connection::new(Role::Server, OPTIONS);
    other.feed(b"GET / HTTP/1.1\r\n");
    assert_eq!(other.failure(), Some(Reason::PROTOCOL_ERROR));
}
