//! How bodies are delimited, checked and passed on.

use sluis_http1::{Body, ChunkError, Framing, write_chunk, write_last_chunk};

/// Reads a chunked body; returns what would be forwarded, its content, and how many bytes it took.
fn read(input: &[u8]) -> Result<(Vec<u8>, Vec<u8>, usize), ChunkError> {
    let mut raw = Body::new(Framing::Chunked);
    let taken = raw.take(input)?;
    let mut forwarded = input[..taken.len].to_vec();
    forwarded.drain(taken.dropped);
    let mut content = Vec::new();
    let mut body = Body::new(Framing::Chunked);
    assert_eq!(body.take_content(input, &mut content), Ok(taken.len));
    assert_eq!(body.is_done(), raw.is_done());
    Ok((forwarded, content, taken.len))
}

#[track_caller]
fn refused(input: &str, error: ChunkError) {
    assert_eq!(read(input.as_bytes()).err(), Some(error), "{input:?}");
}

#[test]
fn a_length_counts_down_and_stops() {
    let mut body = Body::new(Framing::Length(5));
    assert_eq!(body.take(b"abc").unwrap().len, 3);
    assert!(!body.is_done());
    assert_eq!(body.take(b"defgh").unwrap().len, 2);
    assert!(body.is_done());
    assert_eq!(body.take(b"fgh").unwrap().len, 0);
}

#[test]
fn chunks_pass_as_they_are_and_what_follows_is_left() {
    let input = b"4\r\nWiki\r\n5;a=b\r\npedia\r\n0\r\n\r\nGET /";
    let (forwarded, content, len) = read(input).unwrap();
    assert_eq!(forwarded, &input[..input.len() - 5]);
    assert_eq!((content.as_slice(), len), (&b"Wikipedia"[..], input.len() - 5));
}

#[test]
fn trailers_are_checked_and_dropped() {
    let input = b"1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n";
    let taken = Body::new(Framing::Chunked).take(input).unwrap();
    assert_eq!((taken.len, taken.content, taken.dropped), (input.len(), 1, 9..19));
    let (forwarded, ..) = read(b"1\r\na\r\n0\r\nX-Sum: 1\r\ny:\r\n\r\n").unwrap();
    assert_eq!(forwarded, b"1\r\na\r\n0\r\n\r\n");
}

#[test]
fn bad_sizes_are_refused() {
    for size in [
        "",
        "g",
        "-1",
        "+1",
        "0x1",
        " 1",
        "1 ",
        "\t1",
        "1\t;a",
        "1000000000000000",
        "00000000000000001",
    ] {
        refused(&format!("{size}\r\n"), ChunkError::Size);
    }
}

#[test]
fn bad_line_ends_are_refused() {
    refused("1\na\r\n", ChunkError::Terminator);
    refused("1\r\na\n", ChunkError::Terminator);
    refused("1\r\nab\r\n", ChunkError::Terminator);
    refused("1\r\na\rb", ChunkError::Terminator);
    refused("1\rX", ChunkError::Terminator);
    refused("0\r\n\rX", ChunkError::Terminator);
    refused("0\r\nA: b\rX", ChunkError::Terminator);
}

#[test]
fn bad_extensions_are_refused() {
    refused("1;a\nb\r\n", ChunkError::Extension);
    refused("1;a\0\r\n", ChunkError::Extension);
    refused("1;\u{e9}\r\n", ChunkError::Extension);
    refused(&format!("1;{}\r\n", "a".repeat(300)), ChunkError::Extension);
    let many = format!("1;{}\r\na\r\n", "a".repeat(200)).repeat(30);
    refused(&many, ChunkError::Extension);
}

#[test]
fn bad_trailers_are_refused() {
    for line in ["Content-Length: 1", "transfer-encoding: chunked", "Host: a", "Authorization: x"] {
        refused(&format!("0\r\n{line}\r\n\r\n"), ChunkError::ForbiddenTrailer);
    }
    for line in [" a: b", "a : b", ": b", "ab", "a: \0", "\n"] {
        refused(&format!("0\r\n{line}\r\n\r\n"), ChunkError::Trailer);
    }
    refused(&format!("0\r\n{}", "a: b\r\n".repeat(40)), ChunkError::Trailer);
    refused(&format!("0\r\na: {}", "b".repeat(9000)), ChunkError::Trailer);
}

#[test]
fn an_unfinished_body_is_not_done() {
    let mut body = Body::new(Framing::Chunked);
    assert_eq!(body.take(b"5\r\nab").unwrap().len, 5);
    assert!(!body.is_done());
    let mut body = Body::new(Framing::UntilClose);
    assert_eq!(body.take(b"ab").unwrap().len, 2);
    assert!(!body.is_done());
}

#[test]
fn written_chunks_are_read_back() {
    let mut out = Vec::new();
    write_chunk(b"", &mut out);
    write_chunk(b"hello", &mut out);
    write_chunk(&[b'x'; 300], &mut out);
    write_last_chunk(&mut out);
    let (_, content, len) = read(&out).unwrap();
    assert_eq!((content.len(), len), (305, out.len()));
}
