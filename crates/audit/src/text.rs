//! Text of peers, in a form that a log can bear.

use std::time::SystemTime;

use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};

const FORMAT: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

/// Parameters of a query that are named.
const PARAMETERS_MAX: usize = 32;
/// The longest name of one.
const PARAMETER_BYTES_MAX: usize = 64;
/// What stands for text that is left out.
const LEFT_OUT: &str = "…";

/// A moment as the log writes it: RFC 3339 in UTC with microseconds.
#[must_use]
pub fn timestamp(at: SystemTime) -> String {
    OffsetDateTime::from(at).format(FORMAT).unwrap_or_default()
}

/// Cuts text that is longer, and shows that it did.
pub fn bounded(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        let mut end = bytes_max;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push_str(LEFT_OUT);
    }
}

/// A request's target with the names of its parameters and none of their values: values may be
/// secrets. What has no `=` may be a value, and is left out too.
#[must_use]
pub fn target_without_values(path_and_query: &str) -> String {
    let path_and_query = path_and_query.split('#').next().unwrap_or_default();
    let Some((path, query)) = path_and_query.split_once('?') else {
        return path_and_query.to_owned();
    };
    let mut text = format!("{path}?");
    for (index, parameter) in query.split('&').enumerate() {
        if index > 0 {
            text.push('&');
        }
        if index == PARAMETERS_MAX {
            text.push_str(LEFT_OUT);
            break;
        }
        if let Some((name, _)) = parameter.split_once('=') {
            let mut name = name.to_owned();
            bounded(&mut name, PARAMETER_BYTES_MAX);
            text.push_str(&name);
        } else {
            text.push_str(LEFT_OUT);
        }
    }
    text
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
pub(crate) fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(target: &str, expected: &str) {
        assert_eq!(target_without_values(target), expected, "{target}");
    }

    #[test]
    fn a_query_keeps_its_names_and_none_of_its_values() {
        check("/a/b", "/a/b");
        check("/a?user=anna&token=s3cret", "/a?user&token");
        check("/a?s3cret", "/a?…");
        check("/a?k=v=w#f", "/a?k");
        check("/a?", "/a?…");
        let many = format!("/?{}", vec!["k=v"; 40].join("&"));
        assert_eq!(target_without_values(&many).matches('k').count(), PARAMETERS_MAX);
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        let mut text = "aé".repeat(10);
        bounded(&mut text, 5);
        assert_eq!(text, "aéa…");
    }

    #[test]
    fn a_moment_has_microseconds() {
        assert_eq!(timestamp(SystemTime::UNIX_EPOCH), "1970-01-01T00:00:00.000000Z");
    }
}
