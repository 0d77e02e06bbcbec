//! What must hold for any bytes, checked by the fuzz targets and by the replay of their corpora.
//!
//! In:    any bytes.
//! Out:   a panic when a promise of the codec is broken.
//! Never: judges whether input should be accepted; that is for the tables of the codec's tests.

use sluis_http1::{
    Body, Ends, FIELDS_MAX, Framing, Known, Limits, Method, PathRules, Pseudo, RequestHead,
    ResponseHead, Scan, Slashes, Upgrade, normalize_path,
};

use crate::{framing, letter};

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
        outline(&parse_request_in(data, steps(data))),
        "the verdict depends on reads"
    );
    assert_eq!(
        outline(&whole),
        outline(&parse_request_in(data, jumps(data))),
        "the verdict depends on reads"
    );
    framing::requests(data);
    let Ok(Some((mut head, taken))) = whole else { return };
    assert!(taken <= data.len());
    letter::head(&data[..taken]);
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
    if head.fields.len() > FIELDS_MAX {
        // Host, from an absolute target, was one too many.
        return;
    }
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

/// A request of HTTP/2 that is accepted is one request of HTTP/1.1 that means the same: no field can
/// end a line, a head, or the request before its body.
///
/// The first byte says whether a body follows; fields are separated by 0xFF, names from values by
/// 0xFE, so that names and values can hold anything else.
///
/// # Panics
///
/// When that does not hold.
pub fn converted_head(data: &[u8]) {
    let Some((first, rest)) = data.split_first() else { return };
    let ends = if *first == b'.' { Ends::Here } else { Ends::Later };
    let mut pseudo = Pseudo::default();
    let mut fields = Vec::new();
    for field in rest.split(|byte| *byte == 0xFF) {
        let at = field.iter().position(|byte| *byte == 0xFE).unwrap_or(field.len());
        let (name, value) = (&field[..at], field.get(at + 1..).unwrap_or_default());
        match name {
            b":method" => pseudo.method = value,
            b":scheme" => pseudo.scheme = Some(value),
            b":authority" => pseudo.authority = Some(value),
            b":path" => pseudo.path = Some(value),
            b":protocol" => pseudo.protocol = Some(value),
            _ => fields.push((name, value)),
        }
    }
    let mut head = RequestHead::default();
    let limits = Limits::default();
    let given = fields.iter().copied();
    if head.convert(pseudo, given, ends, &limits, &mut Vec::new()).is_err() {
        return;
    }
    let framing = head.framing();
    assert!(ends == Ends::Later || framing == Framing::None, "an ended stream has no body");
    if framing == Framing::Chunked {
        assert!(!head.fields.has(Known::TransferEncoding), "HTTP/2 has no such field");
        head.fields.set_trusted(Known::TransferEncoding, b"chunked");
    }
    let is_cookie = |name: &[u8]| name == b"cookie";
    let cookies = fields.iter().filter(|(name, _)| is_cookie(name)).count();
    let plain = fields.iter().filter(|(name, _)| *name != b"host" && !is_cookie(name)).count();
    let extra = 2 * usize::from(pseudo.protocol.is_some())
        + usize::from(framing == Framing::Chunked)
        + usize::from(cookies > 0);
    assert_eq!(head.fields.len(), 1 + plain + extra, "no field comes or goes");
    if head.fields.len() > FIELDS_MAX {
        // The field that frames was one too many: a reader as strict as we are refuses that.
        return;
    }
    let mut out = Vec::new();
    head.write_to(&mut out);
    assert_eq!(count(&out, b"\r\n\r\n"), 1, "one head, one end");
    let Ok(Some((again, len))) = parse_request(&out) else {
        panic!("what we send must be what we accept: {:?}", String::from_utf8_lossy(&out));
    };
    assert_eq!((len, again.framing()), (out.len(), framing));
    assert_eq!(
        (again.method_name(), again.path(), again.authority(), again.fields.len()),
        (head.method_name(), head.path(), head.authority(), head.fields.len())
    );
}

type Parsed<T> = Result<Option<(T, usize)>, sluis_http1::HeadError>;

fn parse_request(data: &[u8]) -> Parsed<RequestHead> {
    let mut head = RequestHead::default();
    let taken = head.parse(&mut Scan::default(), data, &Limits::default())?;
    Ok(taken.map(|taken| (head, taken)))
}

fn parse_request_in(data: &[u8], ends: impl Iterator<Item = usize>) -> Parsed<RequestHead> {
    let (mut head, mut scan) = (RequestHead::default(), Scan::default());
    for end in ends {
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

/// In steps of any size, which the bytes themselves decide.
fn jumps(data: &[u8]) -> impl Iterator<Item = usize> {
    let (len, mut at) = (data.len(), 0);
    let mut state = data.iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    std::iter::from_fn(move || {
        if at == len {
            return None;
        }
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        at = (at + 1 + (state >> 33) as usize % 97).min(len);
        Some(at)
    })
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
    framing::response(data);
    for method in [Method::Get, Method::Head] {
        let mut head = ResponseHead::default();
        let parsed = head.parse(&mut Scan::default(), data, &Limits::default(), method);
        for ends in [steps(data).collect::<Vec<_>>(), jumps(data).collect()] {
            let mut scan = Scan::default();
            let mut slow = ResponseHead::default();
            let verdict = ends
                .into_iter()
                .map(|end| slow.parse(&mut scan, &data[..end], &Limits::default(), method))
                .find(|verdict| *verdict != Ok(None));
            assert_eq!(verdict.unwrap_or(Ok(None)), parsed, "the verdict depends on reads");
            assert!(!matches!(parsed, Ok(Some(_))) || slow.framing() == head.framing());
        }
        let Ok(Some(taken)) = parsed else { continue };
        assert!(taken <= data.len());
        letter::head(&data[..taken]);
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
    let mut from = 0;
    let pieces = jumps(data).map(|end| &data[std::mem::replace(&mut from, end)..end]);
    assert_eq!(whole, forward(pieces), "the verdict depends on reads");
    framing::chunked(data);
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
