//! A head read by the letter of the grammar (RFC 9112 §2.1, §5), slowly, and by no library.
//!
//! In:    a head that was accepted.
//! Out:   a panic when the grammar has no such head, or frames it in two ways.
//! Never: used for reading anything but in tests.

/// Every line ends with CR LF and holds neither apart; every field line is a token, a colon, and a
/// value without control bytes; framing is said at most once, in one way.
///
/// # Panics
///
/// When that does not hold.
pub fn head(head: &[u8]) {
    let shown = || String::from_utf8_lossy(head);
    // One empty line may come before a request.
    let lines = head.strip_prefix(b"\r\n").unwrap_or(head);
    let lines = lines.strip_suffix(b"\r\n\r\n").unwrap_or_else(|| panic!("{:?} ends", shown()));
    let lines: Vec<&[u8]> = split(lines);
    let mut said = Vec::new();
    for (number, line) in lines.into_iter().enumerate() {
        assert!(!line.iter().any(|byte| b"\r\n\0".contains(byte)), "{:?}", shown());
        if number == 0 {
            continue;
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = line.split_at(colon.unwrap_or_else(|| panic!("{:?}", shown())));
        let is_token = |byte: &u8| {
            matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z')
                || b"!#$%&'*+-.^_`|~".contains(byte)
        };
        assert!(!name.is_empty() && name.iter().all(is_token), "{:?}", shown());
        let is_text = |byte: &u8| matches!(byte, b'\t' | 0x20..=0x7e | 0x80..);
        assert!(value[1..].iter().all(is_text), "{:?}", shown());
        let name = name.to_ascii_lowercase();
        let value = value[1..].trim_ascii();
        if name == b"content-length" {
            assert!(!value.is_empty() && value.iter().all(u8::is_ascii_digit), "{:?}", shown());
            said.push(name);
        } else if name == b"transfer-encoding" {
            assert!(value.eq_ignore_ascii_case(b"chunked"), "{:?}", shown());
            said.push(name);
        }
    }
    assert!(said.len() <= 1, "{:?}", shown());
}

fn split(mut text: &[u8]) -> Vec<&[u8]> {
    let mut lines = Vec::new();
    while let Some(at) = text.windows(2).position(|two| two == b"\r\n") {
        lines.push(&text[..at]);
        text = &text[at + 2..];
    }
    lines.push(text);
    lines
}
