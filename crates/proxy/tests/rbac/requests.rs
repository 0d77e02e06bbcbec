//! Random requests.

use crate::draw::Draw;

pub(crate) const PATHS: [&str; 22] = [
    "/",
    "/a",
    "/a/",
    "/a/b",
    "/A/B",
    "/a/b/c",
    "//a",
    "/a//b",
    "/a/./b",
    "/x/../a",
    "/a/%2e%2e/admin",
    "/a%2Fb",
    "/a%5cb",
    "/admin",
    "/admin;x=y",
    "/%61dmin",
    "/a/*",
    "/a=b",
    "/v1/7/x",
    "/v1/7/8/x",
    "/a?x=/admin",
    "/a.b?",
];

pub(crate) const HOSTS: [&str; 6] =
    ["a.example", "A.EXAMPLE", "a.example:8080", "b.a.example", "a.example.", "c.org"];

pub(crate) const METHODS: [&str; 4] = ["GET", "POST", "DELETE", "PURGE"];

pub(crate) const TAGS: [&str; 8] = ["", "a", "b", "ab", "A", "a,b", "5", "-1"];

pub(crate) const SERVERS: [&str; 3] = ["a.example", "b.a.example", ""];

const CLIENTS: [&str; 6] =
    ["", "10.0.0.1", "10.0.1.1", "192.168.0.7, 10.0.0.1", "::1", "127.0.0.2"];

/// Ports that policies ask for; a round says where they really are.
pub(crate) const PORTS_DRAWN: [u16; 3] = [1, 2, 3];

/// One request: which route's policies, and its bytes.
pub(crate) struct Request {
    pub(crate) number: usize,
    pub(crate) text: Vec<u8>,
}

pub(crate) fn request(draw: &mut Draw, number: usize, routes: usize) -> Request {
    let mut text = format!(
        "{} {} HTTP/1.1\r\nHost: {}\r\nx-case: {number}\r\nx-route: {}\r\n",
        draw.one(&METHODS),
        draw.one(&PATHS),
        draw.one(&HOSTS),
        draw.below(routes),
    );
    for _ in 0..draw.below(4) {
        text.push_str(&format!("x-tag: {}\r\n", draw.one(&TAGS)));
    }
    let client = draw.one(&CLIENTS);
    if !client.is_empty() {
        text.push_str(&format!("x-forwarded-for: {client}\r\n"));
    }
    text.push_str("\r\n");
    Request { number, text: text.into_bytes() }
}
