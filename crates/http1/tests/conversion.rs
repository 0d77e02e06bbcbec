//! Heads of HTTP/2 as HTTP/1.1: what becomes of them, and what is malformed.

#![expect(clippy::unwrap_used, reason = "tests")]

use sluis_http1::{Ends, Framing, HeadError, Limits, Method, Pseudo, RequestHead, ResponseHead};

fn get<'m>() -> Pseudo<'m> {
    Pseudo {
        method: b"GET",
        scheme: Some(b"https"),
        authority: Some(b"a.b"),
        path: Some(b"/x?y"),
        protocol: None,
    }
}

fn convert(
    pseudo: Pseudo<'_>,
    fields: &[(&str, &str)],
    ends: Ends,
) -> Result<RequestHead, HeadError> {
    let mut head = RequestHead::default();
    let fields = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    head.convert(pseudo, fields, ends, &Limits::default(), &mut Vec::new())?;
    Ok(head)
}

#[track_caller]
fn becomes(pseudo: Pseudo<'_>, fields: &[(&str, &str)], expected: &str) {
    let mut out = Vec::new();
    convert(pseudo, fields, Ends::Later).unwrap().write_to(&mut out);
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

#[test]
fn a_request_becomes_the_same_of_http1() {
    becomes(get(), &[("x", "1")], "GET /x?y HTTP/1.1\r\nhost: a.b\r\nx: 1\r\n\r\n");
    let host = Pseudo { authority: None, ..get() };
    becomes(host, &[("host", "c:1")], "GET /x?y HTTP/1.1\r\nhost: c:1\r\n\r\n");
    becomes(get(), &[("host", "A.B")], "GET /x?y HTTP/1.1\r\nhost: a.b\r\n\r\n");
    becomes(
        get(),
        &[("cookie", "a=1"), ("x", "1"), ("cookie", "b=2")],
        "GET /x?y HTTP/1.1\r\nhost: a.b\r\nx: 1\r\ncookie: a=1; b=2\r\n\r\n",
    );
    let connect = Pseudo { method: b"CONNECT", authority: Some(b"a:1"), ..Pseudo::default() };
    becomes(connect, &[], "CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n");
    let websocket = Pseudo { method: b"CONNECT", protocol: Some(b"websocket"), ..get() };
    becomes(
        websocket,
        &[],
        "GET /x?y HTTP/1.1\r\nhost: a.b\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    );
}

#[test]
fn a_body_has_the_length_that_it_says_or_its_streams_end() {
    let framing = |fields, ends| convert(get(), fields, ends).map(|head| head.framing());
    let five: &[(&str, &str)] = &[("content-length", "5")];
    assert_eq!(framing(&[], Ends::Here), Ok(Framing::None));
    assert_eq!(framing(&[], Ends::Later), Ok(Framing::Chunked));
    assert_eq!(framing(five, Ends::Later), Ok(Framing::Length(5)));
    assert_eq!(framing(&[("content-length", "0")], Ends::Later), Ok(Framing::None));
    assert!(framing(five, Ends::Here).is_err());
    assert!(framing(&[("content-length", "5"), ("content-length", "6")], Ends::Later).is_err());
}

#[test]
fn what_is_malformed_is_refused() {
    let refused = |pseudo, fields: &[(&str, &str)]| {
        let error = convert(pseudo, fields, Ends::Later).map(|_| ()).unwrap_err();
        assert_eq!(error.status(), 400, "{fields:?}: {error}");
    };
    // RFC 9113 §8.2.1 and §8.2.2.
    for field in [
        ("X-A", "1"),
        ("", "1"),
        ("x y", "1"),
        ("x:", "1"),
        (":status", "200"),
        ("x", "a\r\nb: c"),
        ("x", "a\0"),
        ("connection", "close"),
        ("keep-alive", "5"),
        ("proxy-connection", "close"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "h2c"),
        ("te", "gzip"),
        ("content_length", "5"),
        ("host", "other"),
    ] {
        refused(get(), &[field]);
    }
    // RFC 9113 §8.3.1 and §8.5, RFC 8441 §4.
    for pseudo in [
        Pseudo { method: b"", ..get() },
        Pseudo { method: b"G T", ..get() },
        Pseudo { path: None, ..get() },
        Pseudo { path: Some(b""), ..get() },
        Pseudo { path: Some(b"x"), ..get() },
        Pseudo { path: Some(b"*"), ..get() },
        Pseudo { path: Some(b"http://c/"), ..get() },
        Pseudo { path: Some(b"/a b"), ..get() },
        Pseudo { path: Some(b"/a#b"), ..get() },
        Pseudo { path: Some(b"/\r\n\r\nGET /"), ..get() },
        Pseudo { scheme: Some(b"ftp"), ..get() },
        Pseudo { authority: None, ..get() },
        Pseudo { authority: Some(b"u@a"), ..get() },
        Pseudo { protocol: Some(b"websocket"), ..get() },
        Pseudo { method: b"CONNECT", ..get() },
        Pseudo { method: b"CONNECT", protocol: Some(b"a\r\nb: c"), ..get() },
    ] {
        refused(pseudo, &[]);
    }
}

#[test]
fn what_is_too_large_is_refused_as_such() {
    let long = "x".repeat(61 * 1024);
    for fields in [vec![("x", long.as_str())], vec![("x", "1"); 100], vec![("cookie", &long); 2]] {
        let error = convert(get(), &fields, Ends::Later).map(|_| ()).unwrap_err();
        assert_eq!(error.status(), 431);
    }
}

#[test]
fn a_response_becomes_the_same_of_http1() {
    let convert = |status, fields: &[(&str, &str)], ends, method| {
        let mut head = ResponseHead::default();
        let fields = fields.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let limits = Limits::default();
        head.convert(status, fields, (ends, method), &limits, &mut Vec::new())?;
        let mut out = Vec::new();
        head.write_open_to(&mut out);
        Ok::<_, HeadError>((String::from_utf8(out).unwrap(), head.framing()))
    };
    let fine = "HTTP/1.1 200 OK\r\nx: 1\r\n".to_owned();
    let fields: &[(&str, &str)] = &[("x", "1")];
    let get = Method::Get;
    assert_eq!(convert(200, fields, Ends::Later, get), Ok((fine.clone(), Framing::Chunked)));
    assert_eq!(convert(200, fields, Ends::Here, get), Ok((fine, Framing::None)));
    let length: &[(&str, &str)] = &[("content-length", "5")];
    let framing = |ends, method| convert(200, length, ends, method).map(|(_, framing)| framing);
    assert_eq!(framing(Ends::Later, get), Ok(Framing::Length(5)));
    assert_eq!(framing(Ends::Here, Method::Head), Ok(Framing::None));
    assert!(framing(Ends::Here, get).is_err());
    assert!(convert(200, &[("connection", "close")], Ends::Here, get).is_err());
    assert!(convert(99, &[], Ends::Here, get).is_err());
}
