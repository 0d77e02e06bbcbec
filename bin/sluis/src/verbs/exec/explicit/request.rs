//! What a client of the explicit proxy asks for.
//!
//! In:    the head of a request: `CONNECT HOST:PORT`, or a method with an `http://` URL.
//! Out:   where it goes, and the head to send there; or the refusal.
//! Never: a word about anything to one who does not know the token; a head that could be read in two ways.

use base64::{Engine, prelude::BASE64_STANDARD};

/// The user's name in the proxy's URL; the token is the password.
pub(super) const USER: &str = "sluis";

/// What opens the proxy, for one command alone.
pub(super) struct Token {
    basic: String,
    bearer: String,
}

impl Token {
    /// Of random text.
    pub(super) fn new(token: &str) -> Self {
        let basic = BASE64_STANDARD.encode(format!("{USER}:{token}"));
        Self { basic, bearer: token.to_owned() }
    }

    /// Whether a `Proxy-Authorization` is ours: `Basic`, or `Bearer` with the token itself.
    fn opens(&self, value: &str) -> bool {
        let Some((scheme, given)) = value.trim().split_once(' ') else { return false };
        let is_basic = scheme.eq_ignore_ascii_case("basic");
        let expected = if is_basic { &self.basic } else { &self.bearer };
        let is_scheme = is_basic || scheme.eq_ignore_ascii_case("bearer");
        // Both are evaluated, so that time tells nothing.
        is_equal(given.trim().as_bytes(), expected.as_bytes()) & is_scheme
    }
}

/// Compares without telling by time where two texts differ.
fn is_equal(a: &[u8], b: &[u8]) -> bool {
    let pairs = a.iter().zip(b.iter().cycle());
    let difference = pairs.fold(0, |found, (a, b)| std::hint::black_box(found | (a ^ b)));
    a.len() == b.len() && difference == 0
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Bytes both ways.
    Tunnel { host: String, port: u16 },
    /// One request, whose head is to be sent as it is here.
    Forward { host: String, port: u16, head: String },
}

/// Why not.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub status: &'static str,
    pub reason: String,
}

impl Refusal {
    pub(super) fn new(status: &'static str, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into() }
    }

    /// The answer, whole.
    pub(super) fn answer(&self) -> String {
        let challenge = if self.status.starts_with("407") {
            "Proxy-Authenticate: Basic realm=\"sluis\"\r\nProxy-Authenticate: Bearer\r\n"
        } else {
            ""
        };
        format!(
            "HTTP/1.1 {}\r\n{challenge}Content-Type: text/plain\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{}\n",
            self.status,
            self.reason.len() + 1,
            self.reason
        )
    }
}

const BAD: &str = "400 Bad Request";

/// Reads a head, with the empty line at its end.
pub(super) fn judge(head: &str, token: &Token) -> Result<Wanted, Refusal> {
    let bad = |reason: &str| Refusal::new(BAD, reason);
    let lines: Vec<&str> = head.trim_end_matches("\r\n").split("\r\n").collect();
    let [first, fields @ ..] = lines.as_slice() else { return Err(bad("no request")) };
    let mut headers = Vec::new();
    for line in fields {
        let (name, value) = line.split_once(':').ok_or_else(|| bad("a header without a colon"))?;
        // What one program takes for the end of a line and another does not (RFC 9112 §2.2, §5.1).
        if name.is_empty() || name.contains([' ', '\t']) || line.contains(['\r', '\n', '\0']) {
            return Err(bad("a header that is none"));
        }
        headers.push((name, value.trim()));
    }
    let mut ours = headers.iter().filter(|(name, _)| is(name, "proxy-authorization"));
    if !matches!((ours.next(), ours.next()), (Some((_, value)), None) if token.opens(value)) {
        let status = "407 Proxy Authentication Required";
        return Err(Refusal::new(status, "wrong or no password: it is in HTTPS_PROXY"));
    }
    let words: Vec<&str> = first.split(' ').collect();
    match words[..] {
        ["CONNECT", target, "HTTP/1.1" | "HTTP/1.0"] => {
            let (host, port) = authority(target, None).ok_or_else(|| bad("not HOST:PORT"))?;
            Ok(Wanted::Tunnel { host, port })
        }
        [method, url, "HTTP/1.1" | "HTTP/1.0"] if !method.is_empty() => {
            forward(method, url, &headers).ok_or_else(|| bad("neither CONNECT nor an http:// URL"))
        }
        _ => Err(bad("no request line")),
    }
}

/// A request for an `http://` URL, as its server wants it (RFC 9112 §3.2.1, §3.2.2).
fn forward(method: &str, url: &str, headers: &[(&str, &str)]) -> Option<Wanted> {
    let rest = match url.split_at_checked("http://".len()) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http://") => rest,
        _ => return None,
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (target, path) = rest.split_at(end);
    let (host, port) = authority(target, Some(80))?;
    let slash = if path.starts_with('/') { "" } else { "/" };
    let path = path.split('#').next().unwrap_or("");
    let mut head = format!("{method} {slash}{path} HTTP/1.1\r\nHost: {target}\r\n");
    let is_upgrade = headers.iter().any(|(name, _)| is(name, "upgrade"));
    for (name, value) in headers {
        let is_ours = ["host", "connection", "keep-alive", "proxy-connection"]
            .iter()
            .any(|ours| is(name, ours));
        if !is_ours && !is(name, "proxy-authorization") {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    // One request for each connection: the next may be for another server.
    head.push_str(if is_upgrade {
        "Connection: upgrade\r\n\r\n"
    } else {
        "Connection: close\r\n\r\n"
    });
    Some(Wanted::Forward { host, port, head })
}

fn is(name: &str, other: &str) -> bool {
    name.eq_ignore_ascii_case(other)
}

/// `HOST:PORT`, `[v6]:PORT`; without a port where there is a usual one.
fn authority(text: &str, usual: Option<u16>) -> Option<(String, u16)> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().ok()?),
        _ => (text, usual?),
    };
    let host = match host.strip_prefix('[') {
        Some(inner) => inner.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
    let is_good = !host.is_empty() && host.chars().all(is_plain) && port != 0;
    is_good.then(|| (host.trim_end_matches('.').to_ascii_lowercase(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(head: &str) -> Result<Wanted, &'static str> {
        judge(head, &Token::new("secret")).map_err(|refusal| refusal.status)
    }

    fn tunnel(host: &str, port: u16) -> Result<Wanted, &'static str> {
        Ok(Wanted::Tunnel { host: host.to_owned(), port })
    }

    const AUTHORIZED: &str = "proxy-authorization: Basic c2x1aXM6c2VjcmV0\r\n\r\n";
    const UNAUTHORIZED: Result<Wanted, &str> = Err("407 Proxy Authentication Required");

    #[test]
    fn a_tunnel_leads_to_a_host_and_a_port() {
        let check = |target: &str, expected| {
            let found = judged(&format!("CONNECT {target} HTTP/1.1\r\n{AUTHORIZED}"));
            assert_eq!(found, expected, "{target}");
        };
        check("API.data.local.:443", tunnel("api.data.local", 443));
        check("[::1]:80", tunnel("::1", 80));
        for target in
            ["api.data.local", "::1:80", "[::1]", "a:0", "a:70000", "a b:1", "u@a:443", ":1"]
        {
            check(target, Err(BAD));
        }
    }

    #[test]
    fn only_the_token_opens() {
        let ask = |value: &str| {
            judged(&format!("CONNECT a:1 HTTP/1.1\r\nProxy-Authorization: {value}\r\n\r\n"))
        };
        assert_eq!(ask("Basic c2x1aXM6c2VjcmV0"), tunnel("a", 1));
        assert_eq!(ask("bearer secret"), tunnel("a", 1));
        for value in [
            "",
            "Basic",
            "Bearer secre",
            "Bearer secrets",
            "Bearer ",
            "Basic secret",
            "Digest secret",
        ] {
            assert_eq!(ask(value), UNAUTHORIZED, "{value}");
        }
        assert_eq!(judged("CONNECT a:1 HTTP/1.1\r\n\r\n"), UNAUTHORIZED);
        let twice =
            format!("CONNECT a:1 HTTP/1.1\r\nProxy-Authorization: Bearer x\r\n{AUTHORIZED}");
        assert_eq!(judged(&twice), UNAUTHORIZED);
        // Nobody learns what else is wrong without it.
        assert_eq!(judged("nonsense\r\n\r\n"), UNAUTHORIZED);
    }

    #[test]
    fn a_request_with_a_url_goes_on_as_its_server_wants_it() {
        let head = format!(
            "POST HTTP://Api.data.local/a?b#c HTTP/1.1\r\nHost: evil\r\nProxy-Connection: keep-alive\r\n\
             Connection: x\r\nContent-Length: 3\r\n{AUTHORIZED}"
        );
        let expected = "POST /a?b HTTP/1.1\r\nHost: Api.data.local\r\nContent-Length: 3\r\n\
                        Connection: close\r\n\r\n";
        let wanted = Wanted::Forward {
            host: "api.data.local".to_owned(),
            port: 80,
            head: expected.to_owned(),
        };
        assert_eq!(judged(&head), Ok(wanted));
        let upgrade = format!("GET http://a:81?x HTTP/1.1\r\nUpgrade: websocket\r\n{AUTHORIZED}");
        let Ok(Wanted::Forward { port: 81, head, .. }) = judged(&upgrade) else {
            panic!("refused")
        };
        assert_eq!(
            head,
            "GET /?x HTTP/1.1\r\nHost: a:81\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"
        );
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for first in [
            "GET / HTTP/1.1",
            "GET https://a/ HTTP/1.1",
            "GET http://u:p@a/ HTTP/1.1",
            "GET  http://a/ HTTP/1.1",
            "GET http://a/ HTTP/2",
        ] {
            assert_eq!(judged(&format!("{first}\r\n{AUTHORIZED}")), Err(BAD), "{first}");
        }
        for line in [" folded: x", "a b: x", "a: x\ny: z", "nothing"] {
            let head = format!("GET http://a/ HTTP/1.1\r\n{line}\r\n{AUTHORIZED}");
            assert_eq!(judged(&head), Err(BAD), "{line:?}");
        }
    }
}
