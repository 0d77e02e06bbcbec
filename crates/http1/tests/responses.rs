//! What the response parser accepts, refuses and forwards.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use sluis_http1::{Framing, FramingError, HeadError, Limits, Method, ResponseHead, Scan, Upgrade};

fn parse(input: &[u8], method: Method) -> Result<ResponseHead, HeadError> {
    let mut head = ResponseHead::default();
    let taken = head.parse(&mut Scan::default(), input, &Limits::default(), method)?;
    taken.expect("the head is complete");
    Ok(head)
}

#[track_caller]
fn framed(status: &str, lines: &str, method: Method, expected: Framing) {
    let input = format!("HTTP/1.1 {status}\r\n{lines}\r\n");
    assert_eq!(parse(input.as_bytes(), method).unwrap().framing(), expected, "{input}");
}

#[track_caller]
fn refused(input: &str, error: impl Into<HeadError>) {
    assert_eq!(parse(input.as_bytes(), Method::Get).err(), Some(error.into()), "{input}");
}

#[test]
fn the_end_of_a_body_follows_status_and_method() {
    framed("200 OK", "Content-Length: 3\r\n", Method::Get, Framing::Length(3));
    framed("200 OK", "Transfer-Encoding: chunked\r\n", Method::Get, Framing::Chunked);
    framed("200 OK", "", Method::Get, Framing::UntilClose);
    framed("200 OK", "Content-Length: 3\r\n", Method::Head, Framing::None);
    framed("304 Not Modified", "Content-Length: 3\r\n", Method::Get, Framing::None);
    framed("204 No Content", "", Method::Get, Framing::None);
    framed("204 No Content", "Content-Length: 0\r\n", Method::Get, Framing::None);
    framed("100 Continue", "", Method::Post, Framing::None);
    framed("404", "Content-Length: 0\r\n", Method::Get, Framing::None);
}

#[test]
fn doubtful_responses_are_refused() {
    refused(
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        FramingError::RepeatedLength,
    );
    refused(
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        FramingError::Both,
    );
    refused("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", FramingError::Coding);
    refused("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", FramingError::CodingInHttp10);
    refused("HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n", FramingError::Forbidden);
    refused("HTTP/1.1 103 Early\r\nTransfer-Encoding: chunked\r\n\r\n", FramingError::Forbidden);
    refused("HTTP/1.1 000 Zero\r\n\r\n", HeadError::Status);
    refused("HTTP/1.1 600 Many\r\n\r\n", HeadError::Status);
    refused("HTTP/1.1 20 OK\r\n\r\n", HeadError::StartLine);
    refused("HTTP/1.1 200 OK\nA: b\n\n", HeadError::BareLineFeed);
    refused("HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", HeadError::FoldedLine);
    refused("HTTP/1.1 200 OK\r\nA : b\r\n\r\n", HeadError::FieldName);
    refused("HTTP/1.1 200 OK\r\nA: \0\r\n\r\n", HeadError::FieldValue);
    refused("HTTP/2 200\r\n\r\n", HeadError::Version);
    refused("ICY 200 OK\r\n\r\n", HeadError::NotHttp);
    refused("\r\nHTTP/1.1 200 OK\r\n\r\n", HeadError::LeadingEmptyLines);
}

#[test]
fn a_response_is_written_as_it_came() {
    let input =
        b"HTTP/1.0 404 Not Here\r\nContent-Length: 2\r\nConnection: x\r\nX: y\r\nA: b\r\n\r\n";
    let mut head = parse(input, Method::Get).unwrap();
    assert!(!head.persists());
    head.strip_hop_by_hop(Upgrade::Remove);
    let mut out = Vec::new();
    head.write_open_to(&mut out);
    let expected = "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\nA: b\r\n";
    assert_eq!(String::from_utf8_lossy(&out), expected);
}

#[test]
fn the_reason_may_be_missing() {
    for (line, reason) in [("200 OK", "OK"), ("200 ", ""), ("200", "")] {
        let input = format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n");
        let head = parse(input.as_bytes(), Method::Get).unwrap();
        assert_eq!((head.status(), head.reason()), (200, reason.as_bytes()), "{line:?}");
    }
}

#[test]
fn a_response_that_ends_with_its_connection_does_not_persist() {
    assert!(!parse(b"HTTP/1.1 200 OK\r\n\r\n", Method::Get).unwrap().persists());
    assert!(
        parse(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n", Method::Get).unwrap().persists()
    );
}

#[test]
fn a_response_of_our_own_starts_empty() {
    let mut head = parse(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n", Method::Get).unwrap();
    head.begin(404);
    head.fields.append(b"c", b"d").unwrap();
    let mut out = Vec::new();
    head.write_open_to(&mut out);
    assert_eq!(String::from_utf8_lossy(&out), "HTTP/1.1 404 Not Found\r\nc: d\r\n");
    head.set_status(503);
    assert_eq!((head.status(), head.reason()), (503, &b"Service Unavailable"[..]));
    head.begin(101);
    assert_eq!(head.status(), 500);
}
