//! The secret as it is.

use sluis_signing::{
    Basic, Cookie, Header, Kind, Material, MaterialError, Query, Scheme, SchemeError,
};

use crate::{lines, material, request, signer};

fn header(name: &str) -> Kind {
    Kind::Header(Header { name: name.into(), prefix: "Bearer ".into(), key: "token".into() })
}

#[test]
fn a_header_takes_the_place_of_every_spelling_of_it() {
    let signer = signer(header("X-Api-Key"), &[("token", b"s3cr3t")]);
    let request = request("GET", "api.example", "/")
        .field("x-api-key", "theirs")
        .field("x_api_key", "theirs")
        .field("accept", "*/*");
    let edits = request.sign(&signer).unwrap();
    assert_eq!(edits.removed(), ["x-api-key", "x_api_key"]);
    assert_eq!(lines(&edits), ["x-api-key: Bearer s3cr3t"]);
    assert_eq!(edits.path_and_query(), None);
}

/// RFC 7617 §2.
#[test]
fn basic_authentication_is_that_of_the_specification() {
    let basic = Basic { username_key: "u".into(), password_key: "p".into(), ..Basic::default() };
    let signer = signer(Kind::Basic(basic), &[("u", b"Aladdin"), ("p", b"open sesame")]);
    let edits = request("GET", "api.example", "/").sign(&signer).unwrap();
    assert_eq!(lines(&edits), ["authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="]);
}

#[test]
fn a_parameter_takes_the_place_of_every_spelling_of_it() {
    let query = Query { name: "api key".into(), key: "k".into() };
    let signer = signer(Kind::Query(query), &[("k", b"a&b=c/\xc3\xa9")]);
    for (target, expected) in [
        ("/p", "/p?api%20key=a%26b%3Dc%2F%C3%A9"),
        ("/p?", "/p?api%20key=a%26b%3Dc%2F%C3%A9"),
        ("/p?x=1&", "/p?x=1&api%20key=a%26b%3Dc%2F%C3%A9"),
        ("/p?api+key=1&x=%2f&API%20Key&%61pi%20key=2", "/p?x=%2f&api%20key=a%26b%3Dc%2F%C3%A9"),
    ] {
        let edits = request("GET", "api.example", target).sign(&signer).unwrap();
        assert_eq!(edits.path_and_query(), Some(expected), "{target}");
    }
}

#[test]
fn a_cookie_takes_the_place_of_others_of_its_name_and_leaves_the_rest() {
    let cookie = Cookie { name: "sid".into(), key: "k".into() };
    let signer = signer(Kind::Cookie(cookie), &[("k", b"v4lue")]);
    let request = request("GET", "api.example", "/")
        .field("cookie", "a=1; sid=theirs;b=2")
        .field("cookie", "sid=again; SID=other");
    let edits = request.sign(&signer).unwrap();
    assert_eq!(lines(&edits), ["cookie: a=1; b=2; SID=other; sid=v4lue"]);
}

#[test]
fn a_secret_that_does_not_fit_is_refused_when_it_comes() {
    let check = |kind: Kind, entries: &[(&str, &[u8])], refusal: &str| {
        let error = Scheme::compile(kind).unwrap().signer(material(entries)).unwrap_err();
        assert_eq!(error.to_string(), refusal);
    };
    check(header("a"), &[], "the secret has no entry token");
    check(header("a"), &[("token", b"")], "the secret has no entry token");
    let newline = "entry token holds control characters or is no text: does it end with a newline?";
    check(header("a"), &[("token", b"abc\n")], newline);
    check(header("a"), &[("token", b"\xff")], newline);
    let cookie = Kind::Cookie(Cookie { name: "sid".into(), key: "k".into() });
    check(cookie, &[("k", b"a;b")], "entry k holds a character that may not stand there: a cookie");
}

#[test]
fn a_field_that_frames_the_message_is_never_set() {
    for name in ["Host", "Content-Length", "transfer-encoding", "Connection", ":path", "a b", ""] {
        let error = Scheme::compile(header(name)).unwrap_err();
        assert_eq!(error, SchemeError::Name { what: "name", name: name.into() }, "{name}");
    }
}

#[test]
fn no_debug_output_shows_a_value() {
    let signer = signer(header("x-key"), &[("token", b"s3cr3t")]);
    let material: Material =
        [("token", sluis_signing::Secret::new(b"s3cr3t".to_vec()))].into_iter().collect();
    let edits = request("GET", "api.example", "/").sign(&signer).unwrap();
    let shown = format!("{signer:?} {material:?} {edits:?} {:?}", signer.scheme());
    assert!(!shown.contains("s3cr3t") && shown.contains("x-key"), "{shown}");
    let _: MaterialError = material.bytes("none").unwrap_err();
}
