//! However the bytes are split into reads, the verdict is the same.

use proptest::prelude::*;
use sluis_http1::{Body, Framing, Limits, Method, RequestHead, ResponseHead, Scan};

/// What a reader of a request concludes: the head as it would be forwarded, or the error.
fn request(pieces: &[&[u8]]) -> String {
    let (mut head, mut scan, mut buffer) = (RequestHead::default(), Scan::default(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        match head.parse(&mut scan, &buffer, &Limits::default()) {
            Ok(None) => {}
            Ok(Some(taken)) => {
                let mut out = Vec::new();
                head.write_to(&mut out);
                return format!("{taken} {:?} {}", head.framing(), String::from_utf8_lossy(&out));
            }
            Err(error) => return error.to_string(),
        }
    }
    "unfinished".to_owned()
}

fn response(pieces: &[&[u8]]) -> String {
    let (mut head, mut scan, mut buffer) = (ResponseHead::default(), Scan::default(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        match head.parse(&mut scan, &buffer, &Limits::default(), Method::Get) {
            Ok(None) => {}
            Ok(Some(taken)) => return format!("{taken} {} {:?}", head.status(), head.framing()),
            Err(error) => return error.to_string(),
        }
    }
    "unfinished".to_owned()
}

fn chunked(pieces: &[&[u8]]) -> String {
    let (mut body, mut forwarded, mut total) = (Body::new(Framing::Chunked), Vec::new(), 0);
    for piece in pieces {
        match body.take(piece) {
            Ok(taken) => {
                let mut part = piece[..taken.len].to_vec();
                part.drain(taken.dropped);
                forwarded.extend(part);
                total += taken.len;
            }
            Err(error) => return error.to_string(),
        }
    }
    format!("{total} {} {}", body.is_done(), String::from_utf8_lossy(&forwarded))
}

fn check(
    read: fn(&[&[u8]]) -> String,
    input: &[u8],
    mut cuts: Vec<usize>,
) -> Result<(), TestCaseError> {
    cuts.iter_mut().for_each(|cut| *cut %= input.len() + 1);
    cuts.sort_unstable();
    let mut pieces = Vec::new();
    let mut rest = input;
    let mut at = 0;
    for cut in cuts {
        let (piece, tail) = rest.split_at(cut - at);
        pieces.push(piece);
        (rest, at) = (tail, cut);
    }
    pieces.push(rest);
    prop_assert_eq!(read(&pieces), read(&[input]));
    let bytes: Vec<&[u8]> = input.chunks(1).collect();
    prop_assert_eq!(read(&bytes), read(&[input]));
    Ok(())
}

/// Fragments from which messages and near-messages are made.
fn text(fragments: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(fragments), 0..12)
        .prop_map(|parts| parts.concat().into_bytes())
}

const REQUEST: &[&str] = &[
    "GET / HTTP/1.1\r\n",
    "POST http://a/x HTTP/1.1\r\n",
    "PUT /a?b HTTP/1.0\r\n",
    "Host: a\r\n",
    "Content-Length: 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "X: y\r\n",
    "X:  y \r\n",
    "\r\n",
    "\r",
    "\n",
    " ",
    "a",
    ":",
    "Connection: close\r\n",
    "\0",
    "Host: a\r\n\r\n",
    "hello",
];
const RESPONSE: &[&str] = &[
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.0 404\r\n",
    "HTTP/1.1 204 No\r\n",
    "Content-Length: 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "X: y\r\n",
    "\r\n",
    "\r",
    "\n",
    " ",
    "a",
    "H",
    "\0",
];
const CHUNKED: &[&str] = &[
    "1\r\n",
    "a\r\n",
    "5\r\nhello\r\n",
    "0\r\n",
    "\r\n",
    "\r",
    "\n",
    ";x=y",
    "a: b\r\n",
    "F",
    "0",
    "Host: a\r\n",
    " ",
    "1;x\r\na\r\n",
    "0\r\n\r\n",
];

proptest! {
    #[test]
    fn of_a_request(input in text(REQUEST), cuts in prop::collection::vec(any::<usize>(), 0..6)) {
        check(request, &input, cuts)?;
    }

    #[test]
    fn of_a_response(input in text(RESPONSE), cuts in prop::collection::vec(any::<usize>(), 0..6)) {
        check(response, &input, cuts)?;
    }

    #[test]
    fn of_a_chunked_body(input in text(CHUNKED), cuts in prop::collection::vec(any::<usize>(), 0..6)) {
        check(chunked, &input, cuts)?;
    }

    #[test]
    fn of_any_bytes(input in prop::collection::vec(any::<u8>(), 0..200), cuts in prop::collection::vec(any::<usize>(), 0..6)) {
        check(request, &input, cuts.clone())?;
        check(response, &input, cuts.clone())?;
        check(chunked, &input, cuts)?;
    }

    /// A head that was read and written is read again as the same.
    #[test]
    fn what_is_written_is_read_again_alike(input in text(REQUEST)) {
        let mut head = RequestHead::default();
        if let Ok(Some(_)) = head.parse(&mut Scan::default(), &input, &Limits::default()) {
            let mut first = Vec::new();
            head.write_to(&mut first);
            let mut again = RequestHead::default();
            let taken = again.parse(&mut Scan::default(), &first, &Limits::default());
            // HTTP/1.0 without Host and with a length has no equal in HTTP/1.1.
            if head.fields.has(sluis_http1::Known::Host) {
                prop_assert_eq!(taken, Ok(Some(first.len())));
                let mut second = Vec::new();
                again.write_to(&mut second);
                prop_assert_eq!(again.framing(), head.framing());
                prop_assert_eq!(second, first);
            }
        }
    }
}
