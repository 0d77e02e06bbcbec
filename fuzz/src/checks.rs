//! What must hold for any bytes, checked by the fuzz targets and by the replay of their corpora.
//!
//! In:    any bytes.
//! Out:   a panic when a promise of the codec is broken.
//! Never: judges whether input should be accepted; that is for the tables of the codec's tests.

use sluis_http1::{
    Body, Framing, Limits, Method, PathRules, RequestHead, ResponseHead, Scan, Slashes, Upgrade,
    normalize_path,
};

/// A request that is accepted is forwarded as one that means the same, and by every later reader
/// of the same strictness too; reading it byte by byte gives the same verdict.
///
/// # Panics
///
/// When that does not hold.
pub fn request_head(data: &[u8]) {
    let whole = parse_request(data);
    assert_eq!(
        outline(&whole),
        outline(&parse_request_slowly(data)),
        "the verdict depends on reads"
    );
    let Ok(Some((mut head, taken))) = whole else { return };
    assert!(taken <= data.len());
    if head.authority().is_empty() {
        // HTTP/1.0 without Host has no equal in HTTP/1.1.
        return;
    }
    let framing = head.framing();
    let mut path = Vec::new();
    let rules = PathRules { is_normal: true, slashes: Slashes::Merge, ..PathRules::default() };
    if let Ok(normal) = normalize_path(head.path(), rules, &mut path)
        && normal != sluis_http1::Normal::Unchanged
    {
        let mut again = Vec::new();
        head.set_path(&path).expect("a normal path is a path");
        let second = normalize_path(&path, rules, &mut again);
        assert_eq!(second, Ok(sluis_http1::Normal::Unchanged), "normal paths stay");
    }
    head.strip_hop_by_hop(Upgrade::Remove);
    let mut out = Vec::new();
    head.write_to(&mut out);
    assert_eq!(count(&out, b"\r\n\r\n"), 1, "one head, one end");
    let Ok(Some((again, len))) = parse_request(&out) else {
        panic!("what we send must be what we accept: {:?}", String::from_utf8_lossy(&out));
    };
    assert_eq!(len, out.len());
    assert_eq!(again.framing(), framing);
    assert_eq!(
        (again.method_name(), again.path(), again.authority()),
        (head.method_name(), head.path(), head.authority())
    );
}

type Parsed<T> = Result<Option<(T, usize)>, sluis_http1::HeadError>;

fn parse_request(data: &[u8]) -> Parsed<RequestHead> {
    let mut head = RequestHead::default();
    let taken = head.parse(&mut Scan::default(), data, &Limits::default())?;
    Ok(taken.map(|taken| (head, taken)))
}

fn parse_request_slowly(data: &[u8]) -> Parsed<RequestHead> {
    let (mut head, mut scan) = (RequestHead::default(), Scan::default());
    for end in steps(data) {
        if let Some(taken) = head.parse(&mut scan, &data[..end], &Limits::default())? {
            return Ok(Some((head, taken)));
        }
    }
    Ok(None)
}

fn outline(parsed: &Parsed<RequestHead>) -> String {
    match parsed {
        Ok(Some((head, taken))) => {
            let mut out = Vec::new();
            head.write_to(&mut out);
            format!("{taken} {:?} {}", head.framing(), String::from_utf8_lossy(&out))
        }
        Ok(None) => "unfinished".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// Byte by byte while that is cheap, then in larger steps.
fn steps(data: &[u8]) -> impl Iterator<Item = usize> {
    let len = data.len();
    (1..=len).filter(move |end| *end < 4096 || *end % 997 == 0 || *end == len)
}

fn count(text: &[u8], needle: &[u8]) -> usize {
    text.windows(needle.len()).filter(|window| *window == needle).count()
}

/// A response that is accepted is written as one that reads the same.
///
/// # Panics
///
/// When that does not hold.
pub fn response_head(data: &[u8]) {
    for method in [Method::Get, Method::Head] {
        let mut head = ResponseHead::default();
        let parsed = head.parse(&mut Scan::default(), data, &Limits::default(), method);
        let Ok(Some(taken)) = parsed else { continue };
        assert!(taken <= data.len());
        let framing = head.framing();
        head.strip_hop_by_hop(Upgrade::Remove);
        let mut out = Vec::new();
        head.write_open_to(&mut out);
        out.extend_from_slice(b"\r\n");
        let mut again = ResponseHead::default();
        let len = again.parse(&mut Scan::default(), &out, &Limits::default(), method);
        assert_eq!(len, Ok(Some(out.len())), "{:?}", String::from_utf8_lossy(&out));
        assert_eq!((again.status(), again.framing()), (head.status(), framing));
    }
}

/// However a chunked body is split, the same bytes of it are forwarded; the content is the same
/// for one who reads it as it is forwarded.
///
/// # Panics
///
/// When that does not hold.
pub fn chunked(data: &[u8]) {
    let whole = forward(std::iter::once(data));
    assert_eq!(whole, forward(data.chunks(1)), "the verdict depends on reads");
    let Ok((forwarded, true)) = whole else { return };
    let content = |bytes: &[u8]| {
        let (mut body, mut out) = (Body::new(Framing::Chunked), Vec::new());
        let len = body.take_content(bytes, &mut out).expect("accepted once, accepted again");
        (len, body.is_done(), out)
    };
    let (len, is_done, ours) = content(&forwarded);
    assert_eq!((len, is_done), (forwarded.len(), true), "the forwarded body ends where it ends");
    assert_eq!(ours, content(data).2);
}

/// What is forwarded of a chunked body, and whether it has ended.
fn forward<'d>(
    pieces: impl Iterator<Item = &'d [u8]>,
) -> Result<(Vec<u8>, bool), sluis_http1::ChunkError> {
    let (mut body, mut out) = (Body::new(Framing::Chunked), Vec::new());
    for piece in pieces {
        let taken = body.take(piece)?;
        let mut part = piece[..taken.len].to_vec();
        part.drain(taken.dropped);
        out.extend(part);
    }
    Ok((out, body.is_done()))
}
