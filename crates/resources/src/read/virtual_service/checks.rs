//! Istio's rules for the values of an HTTP route: names and values of headers, methods, conditions.

use crate::kinds::virtual_service::GRPC_STATUSES;
use crate::value::Value;

/// Longest expression that Istio takes.
const REGEX_BYTES_MAX: usize = 1024;

/// Largest memory that an expression may take when it is compiled here, to see that it compiles.
const REGEX_COMPILED_BYTES_MAX: usize = 1 << 20;

/// Reads a regular expression and sees that it compiles.
pub(in crate::read) fn expression(value: &Value<'_>) -> Option<String> {
    let text: String = value.read()?;
    if text.is_empty() {
        return value.fault("a regular expression must not be empty");
    }
    if text.len() > REGEX_BYTES_MAX {
        return value.fault(format!("this is longer than {REGEX_BYTES_MAX} bytes"));
    }
    match regex::RegexBuilder::new(&text).size_limit(REGEX_COMPILED_BYTES_MAX).build() {
        Ok(_) => Some(text),
        Err(regex::Error::CompiledTooBig(_)) => value.fault("this regular expression is too large"),
        Err(_) => value.fault(format!("{text:?} is not a regular expression")),
    }
}

/// Checks the name of a header that is matched: a token of RFC 9110 §5.6.2, or a pseudo header.
pub(super) fn matched_header(name: &str, value: &Value<'_>) {
    const PSEUDO: [&str; 5] = [":method", ":scheme", ":authority", ":path", ":status"];
    if name.to_ascii_lowercase().starts_with("@request.auth.claims") {
        let rest = &name["@request.auth.claims".len()..];
        let is_dotted =
            rest.strip_prefix('.').is_some_and(|rest| !rest.split('.').any(str::is_empty));
        let listed = rest.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let is_listed = listed.is_some_and(|rest| !rest.split("][").any(str::is_empty));
        if !is_dotted && !is_listed {
            value.fault::<()>(format!("{name:?} is not @request.auth.claims.NAME or [NAME]"));
        }
    } else if !PSEUDO.contains(&name) && !is_token(name) {
        value.fault::<()>(format!("{name:?} is not the name of a header"));
    }
}

/// Where a header is changed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderChange {
    /// `set` or `add` of a request, where the host may be named.
    OfRequest,
    /// All others.
    Other,
}

/// Checks the name of a header that is changed.
pub(super) fn changed_header(name: &str, value: &Value<'_>, change: HeaderChange) {
    if is_authority(name) {
        if change == HeaderChange::Other {
            value.fault::<()>("the host can only be changed in set and add of a request");
        }
    } else if !is_token(name) {
        value.fault::<()>(format!("{name:?} is not the name of a header that can be changed"));
    }
}

/// Returns whether a header is the request's host.
pub(super) fn is_authority(name: &str) -> bool {
    name.eq_ignore_ascii_case("host") || name.eq_ignore_ascii_case(":authority")
}

pub(super) fn is_token(name: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !name.is_empty() && name.bytes().all(allowed)
}

/// Checks the value of a header: one line, in which `%NAME%` and `%NAME(…)%` are Envoy's formatters
/// and `%%` is a percent sign.
pub(in crate::read) fn header_value(value: &Value<'_>) {
    let Some(text) = value.read::<String>() else { return };
    if text.bytes().any(|b| b.is_ascii_control() && b != b'\t') {
        value.fault::<()>("a header's value must be one line");
    } else if !formatters_close(&text) {
        value.fault::<()>("a % starts a formatter such as %HOSTNAME%: write %% for the sign");
    }
}

/// Returns whether each `%` is doubled, or starts a formatter that ends.
fn formatters_close(text: &str) -> bool {
    let mut rest = text;
    while let Some((_, tail)) = rest.split_once('%') {
        if let Some(next) = tail.strip_prefix('%') {
            rest = next;
            continue;
        }
        let Some(end) = tail.find(['%', '(']) else { return false };
        rest = match tail[end..].strip_prefix('%') {
            Some(next) => next,
            None => match after_arguments(&tail[end + 1..]) {
                Some(next) => next,
                None => return false,
            },
        };
    }
    true
}

/// Returns what follows `…)%`, where a backslash in the arguments takes the next letter with it.
fn after_arguments(text: &str) -> Option<&str> {
    let mut escaped = false;
    let close = text.char_indices().find(|(_, letter)| {
        let closes = *letter == ')' && !escaped;
        escaped = *letter == '\\' && !escaped;
        closes
    });
    let rest = &text[close?.0 + 1..];
    rest.trim_start_matches(' ').strip_prefix('%')
}

/// Checks an entry of `allowMethods`.
pub(super) fn cors_method(value: &Value<'_>) {
    const METHODS: [&str; 9] =
        ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE"];
    if value.read::<String>().is_some_and(|text| text != "*" && !METHODS.contains(&text.as_str())) {
        value.fault::<()>(format!("this is neither * nor one of {}", METHODS.join(", ")));
    }
}

/// Checks an entry of `allowHeaders` and `exposeHeaders`.
pub(super) fn cors_header(value: &Value<'_>) {
    if value.read::<String>().is_some_and(|text| !is_token(&text)) {
        value.fault::<()>("this is neither * nor the name of a header");
    }
}

/// Checks `retryOn`: Envoy's conditions, and status codes.
pub(super) fn retry_on(value: &Value<'_>) {
    const CONDITIONS: [&str; 16] = [
        "5xx",
        "gateway-error",
        "reset",
        "reset-before-request",
        "connect-failure",
        "retriable-4xx",
        "refused-stream",
        "retriable-status-codes",
        "retriable-headers",
        "envoy-ratelimited",
        "http3-post-connect-failure",
        "cancelled",
        "deadline-exceeded",
        "internal",
        "resource-exhausted",
        "unavailable",
    ];
    let Some(text) = value.read::<String>() else { return };
    for condition in text.split(',').filter(|_| !text.is_empty()) {
        let is_status = condition.parse().is_ok_and(|code: u16| (100..=599).contains(&code));
        if !is_status && !CONDITIONS.contains(&condition) {
            value.fault::<()>(format!("{condition:?} is not a condition for a retry"));
        }
    }
}

/// Checks `grpcStatus`.
pub(super) fn grpc_status(value: &Value<'_>) {
    if value.read::<String>().is_some_and(|text| !GRPC_STATUSES.contains(&text.as_str())) {
        value.fault::<()>("this is not the name of a gRPC status such as UNAVAILABLE");
    }
}

#[cfg(test)]
mod tests {
    use super::formatters_close;

    #[test]
    fn a_percent_sign_is_doubled_or_starts_a_formatter() {
        for (text, good) in [
            ("", true),
            ("100%%", true),
            ("a %HOSTNAME% b", true),
            ("%REQ(x-y)%", true),
            (r#"%PER_REQUEST_STATE(["a", "\)"])%"#, true),
            ("abc%123", false),
            ("%START_TIME%%", false),
            ("%REQ(x", false),
            ("%REQ(x)y%", false),
            ("%", false),
        ] {
            assert_eq!(formatters_close(text), good, "{text}");
        }
    }
}
