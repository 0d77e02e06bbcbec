//! What the request parser accepts, refuses and forwards.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use sluis_http1::{
    Framing, FramingError, HeadError, HostError, Limits, Method, RequestHead, Scan, TargetError,
    Upgrade, Version,
};

fn parse(input: &[u8]) -> Result<Option<(RequestHead, usize)>, HeadError> {
    let mut head = RequestHead::default();
    let taken = head.parse(&mut Scan::default(), input, &Limits::default())?;
    Ok(taken.map(|taken| (head, taken)))
}

#[track_caller]
fn good(input: &str) -> RequestHead {
    let (head, taken) = parse(input.as_bytes()).unwrap().expect("the head is complete");
    assert_eq!(taken, input.find("\r\n\r\n").unwrap() + 4);
    head
}

#[track_caller]
fn refused(input: &[u8], error: impl Into<HeadError>) {
    assert_eq!(parse(input).err(), Some(error.into()), "{}", String::from_utf8_lossy(input));
}

/// A request with these lines after `GET / HTTP/1.1` and Host.
fn with(lines: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n").into_bytes()
}

#[track_caller]
fn forwarded(input: &str, expected: &str) {
    let mut head = good(input);
    head.strip_hop_by_hop(Upgrade::Remove);
    let mut out = Vec::new();
    head.write_to(&mut out);
    assert_eq!(String::from_utf8_lossy(&out), expected);
}

#[test]
fn a_plain_request_is_read() {
    let head = good("GET /a?b=c HTTP/1.1\r\nHost: api.local:80\r\nX-A: 1\r\nx-a:2\r\n\r\nrest");
    assert_eq!((head.method(), head.version()), (Method::Get, Version::Http11));
    assert_eq!((head.path(), head.authority()), (&b"/a?b=c"[..], &b"api.local:80"[..]));
    assert_eq!(head.fields.all_named(b"X-a").collect::<Vec<_>>(), [b"1", b"2"]);
    assert_eq!(head.fields.get_name(b"hOsT"), Some(&b"api.local:80"[..]));
    assert_eq!(head.framing(), Framing::None);
    assert!(head.persists());
}

#[test]
fn an_unfinished_head_asks_for_more() {
    for input in
        ["", "\r\n", "G", "GET / HTTP/1.1\r\nHost: a\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r"]
    {
        assert!(parse(input.as_bytes()).unwrap().is_none(), "{input:?}");
    }
}

#[test]
fn what_is_not_http_is_refused_at_its_first_byte() {
    refused(b"\x16\x03\x01", HeadError::NotHttp);
    refused(b" GET / HTTP/1.1", HeadError::NotHttp);
    refused(b"\0", HeadError::NotHttp);
}

#[test]
fn one_empty_line_before_a_request_is_ignored_and_a_second_is_refused() {
    assert!(parse(b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap().is_some());
    refused(b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", HeadError::LeadingEmptyLines);
}

#[test]
fn other_versions_are_refused() {
    refused(b"GET /\r\n", HeadError::StartLine);
    refused(b"GET\r\n", HeadError::StartLine);
    refused(b"GET / HTTP/1.1\t\r\n", HeadError::Version);
    refused(b"GET / HTTP/1.2\r\n", HeadError::Version);
    refused(b"GET / HTTP/2.0\r\n", HeadError::Version);
    refused(b"GET / http/1.1\r\n", HeadError::StartLine);
    refused(b"GET / HTTP/1.1 \r\n", HeadError::StartLine);
    refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", HeadError::Http2Preface);
}

#[test]
fn bare_line_ends_are_refused() {
    refused(b"GET / HTTP/1.1\nHost: a\n\n", HeadError::BareLineFeed);
    refused(b"GET / HTTP/1.1\r\nHost: a\n\r\n", HeadError::BareLineFeed);
    refused(b"GET / HTTP/1.1\r\nHost: a\r\n\n", HeadError::BareLineFeed);
    refused(&with("A: b\rC: d"), HeadError::FieldValue);
    refused(b"GET / HTTP/1.1\rHost: a\r\n\r\n", HeadError::StartLine);
}

#[test]
fn folded_lines_are_refused() {
    refused(&with("A: b\r\n c"), HeadError::FoldedLine);
    refused(&with("A: b\r\n\tc"), HeadError::FoldedLine);
    refused(b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", HeadError::FoldedLine);
}

#[test]
fn malformed_names_are_refused() {
    for line in [
        "A : b",
        "A\t: b",
        ": b",
        "A b: c",
        "no colon",
        "A\u{e9}: b",
        "A(: b",
        "A\0: b",
        "A[]: b",
        "\u{b}Transfer-Encoding: chunked",
    ] {
        refused(&with(line), HeadError::FieldName);
    }
}

#[test]
fn control_bytes_in_values_are_refused() {
    for line in ["A: \0", "A: b\u{1}", "A: \u{7f}", "A: b\u{b}c"] {
        refused(&with(line), HeadError::FieldValue);
    }
}

#[test]
fn names_that_imitate_framing_fields_are_refused() {
    refused(&with("Content_Length: 5"), HeadError::FramingLookalike);
    refused(&with("transfer_encoding: chunked"), HeadError::FramingLookalike);
}

#[test]
fn a_body_is_framed_by_one_plain_length() {
    let framing = |lines: &str| parse(&with(lines)).unwrap().unwrap().0.framing();
    assert_eq!(framing("Content-Length: 5"), Framing::Length(5));
    assert_eq!(framing("Content-Length: 0"), Framing::None);
    assert_eq!(framing("Content-Length: 9223372036854775807"), Framing::Length(u64::MAX >> 1));
    assert_eq!(framing("Transfer-Encoding: chunked"), Framing::Chunked);
    assert_eq!(framing("transfer-encoding:  Chunked "), Framing::Chunked);
}

#[test]
fn a_length_with_leading_zeros_is_sent_on_without_them() {
    for (said, sent) in [("05", "5"), ("0000000005", "5"), ("00", "0"), ("010", "10")] {
        forwarded(
            &format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {said}\r\nX: y\r\n\r\n"),
            &format!("POST / HTTP/1.1\r\nHost: a\r\ncontent-length: {sent}\r\nX: y\r\n\r\n"),
        );
    }
}

#[test]
fn every_other_length_is_refused() {
    for value in [
        "5, 5",
        "+5",
        "-5",
        "0x5",
        "5 5",
        "",
        " ",
        "5;",
        "5.0",
        "9223372036854775808",
        "five",
        "99999999999999999999999",
    ] {
        refused(&with(&format!("Content-Length: {value}")), FramingError::Length);
    }
    refused(&with("Content-Length: 5\r\nContent-Length: 6"), FramingError::RepeatedLength);
    refused(&with("Content-Length: 5\r\ncontent-length: 5"), FramingError::RepeatedLength);
}

#[test]
fn length_and_coding_together_are_refused() {
    refused(&with("Content-Length: 5\r\nTransfer-Encoding: chunked"), FramingError::Both);
    refused(&with("Transfer-Encoding: identity\r\nContent-Length: 0"), FramingError::Both);
}

#[test]
fn every_coding_but_one_chunked_is_refused() {
    for value in [
        "xchunked",
        "chunked, identity",
        "identity",
        "gzip, chunked",
        "chunked, chunked",
        "",
        "chunked;q=1",
        "\"chunked\"",
        "chunked,",
    ] {
        refused(&with(&format!("Transfer-Encoding: {value}")), FramingError::Coding);
    }
    let twice = with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked");
    refused(&twice, FramingError::Coding);
    refused(
        b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        FramingError::CodingInHttp10,
    );
}

#[test]
fn connect_and_trace_have_no_body() {
    refused(b"TRACE / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n", FramingError::Forbidden);
    refused(
        b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nTransfer-Encoding: chunked\r\n\r\n",
        FramingError::Forbidden,
    );
}

#[test]
fn host_must_be_there_once_and_be_an_authority() {
    refused(b"GET / HTTP/1.1\r\nA: b\r\n\r\n", HostError::Missing);
    refused(b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", HostError::Repeated);
    for host in ["", "a/b", "u@a", "a b", "a:b", "[a]", "a\\b", "a#b", "a?b", "%65xample.com"] {
        let input = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        refused(input.as_bytes(), HostError::Invalid);
    }
}

#[test]
fn the_authority_of_the_target_must_agree_with_host() {
    refused(b"GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n", HostError::Mismatch);
    refused(b"GET http://a:81/ HTTP/1.1\r\nHost: a\r\n\r\n", HostError::Mismatch);
    forwarded(
        "GET http://A:80/x HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /x HTTP/1.1\r\nHost: a\r\n\r\n".replace("Host: a", "host: A:80").as_str(),
    );
    forwarded("GET http://a HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    forwarded("GET http://a?q HTTP/1.1\r\nHost: a\r\n\r\n", "GET /?q HTTP/1.1\r\nHost: a\r\n\r\n");
    forwarded(
        "OPTIONS http://a HTTP/1.1\r\nHost: a\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    );
}

#[test]
fn targets_of_other_forms_are_refused() {
    for (target, error) in [
        ("/a#b", TargetError::Fragment),
        ("/a\\b", TargetError::Byte),
        ("http://u@a/", TargetError::Userinfo),
        ("http://u:p@a/", TargetError::Userinfo),
        ("ftp://a/", TargetError::Scheme),
        ("*", TargetError::Asterisk),
        ("a:80", TargetError::AuthorityForm),
        ("a/b", TargetError::Form),
        ("?a", TargetError::Form),
    ] {
        let input = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        refused(input.as_bytes(), error);
    }
    refused(b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", TargetError::AuthorityForm);
    refused(b"CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n", TargetError::AuthorityForm);
    for target in ["/a b", "/\u{e9}", "/\u{7f}", "/\t"] {
        let input = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(parse(input.as_bytes()).is_err(), "{target:?}");
    }
}

#[test]
fn http_1_0_needs_no_host_and_closes() {
    assert!(!good("GET / HTTP/1.0\r\n\r\n").persists());
    assert!(good("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").persists());
    assert!(!good("GET / HTTP/1.1\r\nHost: a\r\nConnection: Close\r\n\r\n").persists());
}

#[test]
fn the_bounds_hold_whether_or_not_the_head_is_complete() {
    let long = "a".repeat(9000);
    refused(
        format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes(),
        HeadError::StartLineTooLong,
    );
    refused(format!("GET /{long}").as_bytes(), HeadError::StartLineTooLong);
    refused(&with(&format!("A: {}", "b".repeat(62_000))), HeadError::TooLarge);
    refused(&with(&"A: b\r\n".repeat(101)), HeadError::TooManyFields);
    assert_eq!(HeadError::TooLarge.status(), 431);
}

#[test]
fn hop_by_hop_fields_stay_on_their_hop() {
    forwarded(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: x-a, keep-alive\r\nX-A: 1\r\nKeep-Alive: 5\r\n\
         X-B: 2\r\nTE: trailers\r\nTrailer: x\r\nProxy-Connection: close\r\nUpgrade: h2c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX-B: 2\r\nte: trailers\r\n\r\n",
    );
}

#[test]
fn a_peer_cannot_nominate_what_framing_or_trust_rests_on() {
    for name in
        ["host", "Content-Length", "transfer-encoding", "authorization", ":path", "x-forwarded-for"]
    {
        refused(&with(&format!("Connection: close, {name}")), HeadError::Nomination);
    }
}

#[test]
fn a_nominated_field_that_we_add_afterwards_is_sent() {
    let mut head = good(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: X-Authorization\r\nX-Authorization: mine\r\n\r\n",
    );
    head.strip_hop_by_hop(Upgrade::Remove);
    head.fields.append(b"X-Authorization", b"ours").unwrap();
    let mut out = Vec::new();
    head.write_to(&mut out);
    assert_eq!(out, b"GET / HTTP/1.1\r\nHost: a\r\nX-Authorization: ours\r\n\r\n");
}

#[test]
fn an_upgrade_is_kept_when_asked() {
    let mut head = good(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, x\r\nUpgrade: websocket\r\nX: y\r\n\r\n",
    );
    head.strip_hop_by_hop(Upgrade::Keep);
    let mut out = Vec::new();
    head.write_to(&mut out);
    assert_eq!(
        out,
        b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nconnection: upgrade\r\n\r\n"
    );
}

#[test]
fn blanks_around_values_are_not_forwarded() {
    forwarded(
        "GET / HTTP/1.1\r\nHost: a\r\nX-Role:\t admin \t\r\nA:b\r\nEmpty:\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX-Role: admin\r\nA:b\r\nEmpty:\r\n\r\n",
    );
}

#[test]
fn edits_keep_the_order_of_what_was_there() {
    let mut head = good("GET /old HTTP/1.1\r\nA: 1\r\nHost: h\r\nB: 2\r\nA: 3\r\nC: 4\r\n\r\n");
    head.fields.set(b"a", b"new").unwrap();
    head.fields.remove_name(b"b");
    head.fields.append(b"D", b"5").unwrap();
    head.set_path(b"/new").unwrap();
    head.set_authority(b"other:1").unwrap();
    head.set_method(b"PUT").unwrap();
    let mut out = Vec::new();
    head.write_to(&mut out);
    let expected = "PUT /new HTTP/1.1\r\na: new\r\nhost: other:1\r\nC: 4\r\nD: 5\r\n\r\n";
    assert_eq!(String::from_utf8_lossy(&out), expected);
    assert_eq!(head.fields.len(), 4);
}

#[test]
fn edits_cannot_end_a_line() {
    let mut head = good("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(head.fields.append(b"a", b"b\r\nc: d").is_err());
    assert!(head.fields.append(b"a b", b"c").is_err());
    assert!(head.fields.set(b"a", b"\0").is_err());
    assert!(head.set_path(b"/a HTTP/1.1\r\n").is_err());
    assert!(head.set_path(b"a").is_err());
    assert!(head.set_authority(b"a\r\nb: c").is_err());
    assert!(head.set_method(b"GET /").is_err());
}

#[test]
fn an_unknown_expectation_is_told_apart() {
    let expect = |value: &str| {
        parse(&with(&format!("Expect: {value}"))).unwrap().unwrap().0.expects_continue()
    };
    assert_eq!(expect("100-Continue"), Some(true));
    assert_eq!(expect("200-ok"), None);
    assert_eq!(good("GET / HTTP/1.1\r\nHost: a\r\n\r\n").expects_continue(), Some(false));
}
