//! One spelling for one path, before anything decides by it (RFC 3986 §6.2.2, Envoy's options).
//!
//! In:    path and query of a request, and which rules apply.
//! Out:   whether it changed, the new spelling in the caller's buffer.
//! Never: touches the query.

/// What to do with `//`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Slashes {
    /// Nothing.
    #[default]
    Keep,
    /// Several in a row become one.
    Merge,
}

/// What to do with `%2F` and `%5C`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EscapedSlashes {
    /// Nothing.
    #[default]
    Keep,
    /// Refuse the request.
    Reject,
    /// Decode and go on.
    Unescape,
    /// Decode and answer with a redirect to the decoded path.
    Redirect,
}

/// Which rules apply. The default changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathRules {
    /// Dot segments are removed, unreserved characters decoded, `\` becomes `/`.
    pub is_normal: bool,
    /// What to do with `//`.
    pub slashes: Slashes,
    /// What to do with escaped slashes; comes first.
    pub escaped_slashes: EscapedSlashes,
}

/// Why a path was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// `%2F` or `%5C` under [`EscapedSlashes::Reject`].
    #[error("path holds an escaped slash")]
    EscapedSlash,
    /// `%00`, or a dot segment that climbs above the root.
    #[error("path cannot be normalised")]
    Malformed,
}

/// What [`normalize_path`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Normal {
    /// The path is as it should be; the buffer is not used.
    Unchanged,
    /// The new path and query are in the buffer.
    Changed,
    /// As [`Normal::Changed`], and the client should be told by a redirect.
    Redirect,
}

/// Writes the normal spelling of `path_and_query` to `out` when it differs.
///
/// `*` and empty paths (OPTIONS, CONNECT) are never changed.
///
/// # Errors
///
/// [`PathError`]; the request must be answered 400.
pub fn normalize_path(
    path_and_query: &[u8],
    rules: PathRules,
    out: &mut Vec<u8>,
) -> Result<Normal, PathError> {
    let query = memchr::memchr(b'?', path_and_query).unwrap_or(path_and_query.len());
    let (path, query) = path_and_query.split_at(query);
    if path.first() != Some(&b'/') || !may_change(path) {
        return Ok(Normal::Unchanged);
    }
    out.clear();
    let had_escaped = unescape(path, rules, out)?;
    if rules.is_normal {
        remove_dot_segments(out);
    }
    if rules.slashes == Slashes::Merge {
        merge_slashes(out);
    }
    if out == path {
        return Ok(Normal::Unchanged);
    }
    out.extend_from_slice(query);
    match rules.escaped_slashes {
        EscapedSlashes::Redirect if had_escaped => Ok(Normal::Redirect),
        _ => Ok(Normal::Changed),
    }
}

/// The quick answer for nearly every path: no escape, no empty and no dot segment.
fn may_change(path: &[u8]) -> bool {
    path.iter().any(|byte| matches!(byte, b'%' | b'\\'))
        || path.windows(2).any(|pair| pair[0] == b'/' && matches!(pair[1], b'.' | b'/'))
}

/// Decodes what the rules say; returns whether an escaped slash was among it.
fn unescape(path: &[u8], rules: PathRules, out: &mut Vec<u8>) -> Result<bool, PathError> {
    let mut had_escaped = false;
    let mut at = 0;
    // Where in `out` a `%` stands that begins no escape in `path`.
    let mut bare = None;
    while at < path.len() {
        let byte = path[at];
        let escaped = if byte == b'%' { escaped_byte(&path[at..]) } else { None };
        match (byte, escaped) {
            (_, Some(decoded @ (b'/' | b'\\'))) => {
                match rules.escaped_slashes {
                    EscapedSlashes::Reject => return Err(PathError::EscapedSlash),
                    EscapedSlashes::Keep => out.extend_from_slice(&path[at..at + 3]),
                    EscapedSlashes::Unescape | EscapedSlashes::Redirect => {
                        had_escaped = true;
                        out.push(if rules.is_normal { b'/' } else { decoded });
                    }
                }
                at += 3;
                continue;
            }
            (_, Some(0)) if rules.is_normal => return Err(PathError::Malformed),
            (_, Some(decoded)) if rules.is_normal && is_unreserved(decoded) => {
                out.push(decoded);
                at += 3;
                keep_bare(out, bare);
                continue;
            }
            (b'%', None) => {
                bare = Some(out.len());
                out.push(byte);
            }
            (b'\\', _) if rules.is_normal => out.push(b'/'),
            _ => out.push(byte),
        }
        at += 1;
        keep_bare(out, bare);
    }
    Ok(had_escaped)
}

/// What is decoded must not make an escape of a `%` that began none: `%%32e` would become `%2e`,
/// which is a dot to whoever decodes next. Such a `%` is escaped itself, as Envoy does.
fn keep_bare(out: &mut Vec<u8>, bare: Option<usize>) {
    if let Some(at) = bare
        && out.len() == at + 3
        && escaped_byte(&out[at..]).is_some()
    {
        out.splice(at..=at, *b"%25");
    }
}

fn escaped_byte(text: &[u8]) -> Option<u8> {
    let digit = |byte: u8| (byte as char).to_digit(16);
    let (high, low) = (digit(*text.get(1)?)?, digit(*text.get(2)?)?);
    u8::try_from(high * 16 + low).ok()
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// RFC 3986 §5.2.4. Climbing above the root stays at the root, as in every browser.
fn remove_dot_segments(path: &mut Vec<u8>) {
    let mut write = 0;
    let mut read = 0;
    let len = path.len();
    while read < len {
        // `read` is at a slash.
        let end = memchr::memchr(b'/', &path[read + 1..]).map_or(len, |at| read + 1 + at);
        let is_last = end == len;
        match without_parameters(&path[read + 1..end]) {
            b"." => {
                if is_last {
                    path[write] = b'/';
                    write += 1;
                }
            }
            b".." => {
                write = memchr::memrchr(b'/', &path[..write]).unwrap_or(0);
                if is_last {
                    path[write] = b'/';
                    write += 1;
                }
            }
            _ => {
                path.copy_within(read..end, write);
                write += end - read;
            }
        }
        read = end;
    }
    if write == 0 {
        path[0] = b'/';
        write = 1;
    }
    path.truncate(write);
}

/// `..;x` is a dot segment too, as to Envoy: many servers drop path parameters before they look.
fn without_parameters(segment: &[u8]) -> &[u8] {
    match memchr::memchr(b';', segment) {
        Some(at) if matches!(&segment[..at], b"." | b"..") => &segment[..at],
        _ => segment,
    }
}

fn merge_slashes(path: &mut Vec<u8>) {
    path.dedup_by(|next, kept| *next == b'/' && *kept == b'/');
}

#[cfg(test)]
mod tests {
    use super::*;

    const STRICT: PathRules = PathRules {
        is_normal: true,
        slashes: Slashes::Merge,
        escaped_slashes: EscapedSlashes::Unescape,
    };

    #[track_caller]
    fn check(rules: PathRules, path: &str, expected: &str) {
        let mut out = Vec::new();
        let normal = normalize_path(path.as_bytes(), rules, &mut out).unwrap();
        let got = if normal == Normal::Unchanged { path.as_bytes() } else { &out };
        assert_eq!(String::from_utf8_lossy(got), expected, "{path}");
        assert_eq!(normal == Normal::Unchanged, path == expected, "{path}");
    }

    #[test]
    fn nothing_changes_without_rules() {
        for path in ["/", "*", "", "/a//b/../c", "/%2e%2e/%2F", "/a%41"] {
            check(PathRules::default(), path, path);
        }
    }

    #[test]
    fn dot_segments_are_removed_however_they_are_spelled() {
        let rules = PathRules { is_normal: true, ..PathRules::default() };
        for (path, expected) in [
            ("/info/../private", "/private"),
            ("/a/./b", "/a/b"),
            ("/a/.", "/a/"),
            ("/a/..", "/"),
            ("/..", "/"),
            ("/../../a", "/a"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b?x=../y", "/b?x=../y"),
            ("/a/..b/.c", "/a/..b/.c"),
            ("/%7Euser/%41", "/~user/A"),
            ("/a//b", "/a//b"),
            ("/a%2Fb", "/a%2Fb"),
            ("/a%zz%", "/a%zz%"),
            ("/a//../b", "/a/b"),
        ] {
            check(rules, path, expected);
        }
    }

    #[test]
    fn slashes_are_merged_and_decoded_when_asked() {
        for (path, expected) in [
            ("//admin", "/admin"),
            ("/a%2F..%2Fadmin", "/admin"),
            ("/a%5C..%5cadmin", "/admin"),
            ("/a///b//", "/a/b/"),
            ("/a?b=//c%2F", "/a?b=//c%2F"),
        ] {
            check(STRICT, path, expected);
        }
    }

    #[test]
    fn escaped_slashes_are_refused_or_redirected_when_asked() {
        let mut out = Vec::new();
        let reject = PathRules { escaped_slashes: EscapedSlashes::Reject, ..STRICT };
        assert_eq!(normalize_path(b"/a%2fb", reject, &mut out), Err(PathError::EscapedSlash));
        let redirect = PathRules { escaped_slashes: EscapedSlashes::Redirect, ..STRICT };
        assert_eq!(normalize_path(b"/a%2fb?q", redirect, &mut out), Ok(Normal::Redirect));
        assert_eq!(out, b"/a/b?q");
    }

    #[test]
    fn decoding_makes_no_new_escapes() {
        let rules = PathRules { is_normal: true, ..PathRules::default() };
        for (path, expected) in [
            ("/a/%%32e%%32e/b", "/a/%252e%252e/b"),
            ("/a/%2%65%2%65/b", "/a/%252e%252e/b"),
            ("/a/%%32%65/b", "/a/%252e/b"),
            ("/a/%%32f/b", "/a/%252f/b"),
            ("/%%%33%33", "/%%2533"),
            ("/%%41z", "/%Az"),
            ("/%", "/%"),
        ] {
            check(rules, path, expected);
            check(rules, expected, expected);
        }
    }

    #[test]
    fn an_escaped_nul_is_refused() {
        let mut out = Vec::new();
        assert_eq!(normalize_path(b"/a%00b", STRICT, &mut out), Err(PathError::Malformed));
    }
}
