//! Where messages begin and end, for us and for others: what we accept, nobody may frame otherwise.
//!
//! In:    the bytes of one side of a connection.
//! Out:   a panic when hyper frames otherwise what both accept.
//! Never: minds what we refuse and hyper accepts.

use sluis_http1::{Body, Framing, Limits, Method, RequestHead, ResponseHead, Scan};

use crate::peers::{self, Seen};

/// Requests in a row are the same requests for hyper, up to where it refuses.
///
/// # Panics
///
/// When that does not hold.
pub fn requests(data: &[u8]) {
    let ours = our_requests(data);
    if ours.is_empty() {
        return;
    }
    for (number, (ours, theirs)) in ours.iter().zip(peers::requests(data)).enumerate() {
        assert_eq!(ours.method, theirs.method, "request {number}");
        assert_eq!(ours.content, theirs.content, "request {number}");
        if ours.path.starts_with(b"/") {
            assert_eq!(
                String::from_utf8_lossy(&ours.path),
                String::from_utf8_lossy(&theirs.path),
                "request {number}"
            );
        }
    }
}

/// As [`requests`], for a body of chunks and what follows it.
///
/// # Panics
///
/// When that does not hold.
pub fn chunked(data: &[u8]) {
    const HEAD: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    requests(&[HEAD, data].concat());
}

/// A response is the same response for hyper, when it takes it.
///
/// # Panics
///
/// When that does not hold.
pub fn response(data: &[u8]) {
    for (method, name) in [(Method::Get, "GET"), (Method::Head, "HEAD")] {
        let Some((status, content)) = our_response(data, method) else { continue };
        if status == 101 {
            continue;
        }
        let Some(theirs) = peers::response(data, name) else { continue };
        assert_eq!(status, theirs.status, "{name}");
        assert_eq!(content, Some(theirs.content), "{name}: whole for hyper, and not for us");
    }
}

fn our_requests(data: &[u8]) -> Vec<Seen> {
    let (mut seen, mut at) = (Vec::new(), 0);
    let mut head = RequestHead::default();
    while let Ok(Some(taken)) = head.parse(&mut Scan::default(), &data[at..], &Limits::default()) {
        at += taken;
        let (mut body, mut content) = (Body::new(head.framing()), Vec::new());
        let Ok(taken) = body.take_content(&data[at..], &mut content) else { break };
        at += taken;
        if !body.is_done() {
            break;
        }
        let (method, path) = (head.method_name().to_vec(), head.path().to_vec());
        seen.push(Seen { method, path, status: 0, content });
        if !head.persists() || head.method() == Method::Connect {
            break;
        }
    }
    seen
}

/// The status and, if the body ends, its content.
fn our_response(data: &[u8], method: Method) -> Option<(u16, Option<Vec<u8>>)> {
    let (mut head, mut at) = (ResponseHead::default(), 0);
    loop {
        let rest = &data[at..];
        at += head.parse(&mut Scan::default(), rest, &Limits::default(), method).ok()??;
        if head.status() >= 200 || head.status() == 101 {
            break;
        }
    }
    let (mut body, mut content) = (Body::new(head.framing()), Vec::new());
    body.take_content(&data[at..], &mut content).ok()?;
    let is_whole = body.is_done() || head.framing() == Framing::UntilClose;
    Some((head.status(), is_whole.then_some(content)))
}
