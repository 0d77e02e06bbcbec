//! Small messages that occur in many places.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use envoy_types::pb::{
    envoy::{
        config::core::v3::{
            self as core, DataSource, HeaderValue, HeaderValueOption, RuntimeFractionalPercent,
            SocketAddress, data_source::Specifier, envoy_internal_address::AddressNameSpecifier,
            header_value_option::HeaderAppendAction, socket_address::PortSpecifier,
        },
        r#type::matcher::v3::{
            RegexMatchAndSubstitute, RegexMatcher, StringMatcher as PbMatcher,
            string_matcher::MatchPattern,
        },
        r#type::v3::{FractionalPercent, fractional_percent::DenominatorType},
    },
    google::protobuf::{BoolValue, Duration as PbDuration, UInt32Value},
};

use super::at::{At, fields};
use crate::{
    Address, Case, Cidr, EndpointAddress, Fraction, HeaderAction, HeaderEdit, HeaderText, Pattern,
    Source, StringMatcher, Substitution, TcpKeepalive, Text,
};

/// Longest duration taken: what a timer can hold without care about overflow (100 years).
const DURATION_SECONDS_MAX: i64 = 100 * 366 * 86_400;

/// A duration; `None` when it is not set.
pub(super) fn duration(at: &At<'_>, value: Option<&PbDuration>) -> Option<Duration> {
    let value = value?;
    match (u64::try_from(value.seconds), u32::try_from(value.nanos)) {
        (Ok(seconds), Ok(nanos))
            if value.seconds <= DURATION_SECONDS_MAX && nanos < 1_000_000_000 =>
        {
            Some(Duration::new(seconds, nanos))
        }
        _ => {
            at.fault("is not a duration between 0 and 100 years");
            None
        }
    }
}

/// A limit where zero means none; `default` when it is not set.
pub(super) fn limit(
    at: &At<'_>,
    value: Option<&PbDuration>,
    default: Option<Duration>,
) -> Option<Duration> {
    match value {
        None => default,
        Some(_) => duration(at, value).filter(|limit| !limit.is_zero()),
    }
}

pub(super) fn flag(value: Option<&BoolValue>, default: bool) -> bool {
    value.map_or(default, |value| value.value)
}

pub(super) fn number(value: Option<&UInt32Value>) -> Option<u32> {
    value.map(|value| value.value)
}

/// A number that must not be zero.
pub(super) fn positive(at: &At<'_>, value: Option<&UInt32Value>, default: u32) -> u32 {
    match number(value) {
        Some(0) => {
            at.fault("must be at least 1");
            default
        }
        Some(value) => value,
        None => default,
    }
}

/// An address to bind or connect to.
pub(super) fn address(at: &At<'_>, value: Option<&core::Address>) -> Option<Address> {
    match endpoint_address(at, value)? {
        EndpointAddress::Fixed(address) => Some(address),
        EndpointAddress::Name { host, .. } => {
            at.fault(format!("{host:?} is not an IP address"));
            None
        }
    }
}

/// An address, which may be a name.
pub(super) fn endpoint_address(
    at: &At<'_>,
    value: Option<&core::Address>,
) -> Option<EndpointAddress> {
    let Some(value) = value.and_then(|value| value.address.as_ref()) else {
        at.fault("is missing");
        return None;
    };
    match value {
        core::address::Address::SocketAddress(socket) => {
            socket_address(&at.field("socket_address"), socket)
        }
        core::address::Address::Pipe(pipe) => {
            // The mode of a socket that we create; connecting ignores it.
            if pipe.path.is_empty() {
                at.field("pipe").field("path").fault("is missing");
                return None;
            }
            if pipe.path.starts_with('@') {
                at.field("pipe").field("path").fault("names an abstract socket: not supported");
                return None;
            }
            Some(EndpointAddress::Fixed(Address::Pipe(Arc::from(Path::new(&pipe.path)))))
        }
        core::address::Address::EnvoyInternalAddress(internal) => {
            internal_address(&at.field("envoy_internal_address"), internal)
                .map(EndpointAddress::Fixed)
        }
    }
}

/// Another listener of this proxy. `endpoint_id` only tells endpoints apart.
fn internal_address(at: &At<'_>, value: &core::EnvoyInternalAddress) -> Option<Address> {
    let core::EnvoyInternalAddress { address_name_specifier, endpoint_id: _ } = value;
    match address_name_specifier {
        Some(AddressNameSpecifier::ServerListenerName(name)) if !name.is_empty() => {
            Some(Address::Internal(name.as_str().into()))
        }
        _ => {
            at.field("server_listener_name").fault("is missing");
            None
        }
    }
}

fn socket_address(at: &At<'_>, value: &SocketAddress) -> Option<EndpointAddress> {
    fields!(at, value => SocketAddress {
        use { address, port_specifier }
        accept { ipv4_compat }
        refuse { protocol, resolver_name, network_namespace_filepath }
    });
    let port = match port_specifier {
        Some(PortSpecifier::PortValue(port)) => u16::try_from(*port).ok(),
        _ => None,
    };
    let Some(port) = port else {
        at.field("port_value").fault("is not a port number");
        return None;
    };
    if address.is_empty() {
        at.field("address").fault("is missing");
        return None;
    }
    Some(match address.parse() {
        Ok(ip) => EndpointAddress::Fixed(Address::Socket(SocketAddr::new(ip, port))),
        Err(_) => EndpointAddress::Name { host: address.as_str().into(), port },
    })
}

/// An address to bind as a source.
pub(super) fn source_address(at: &At<'_>, value: &SocketAddress) -> Option<SocketAddr> {
    match socket_address(at, value)? {
        EndpointAddress::Fixed(Address::Socket(address)) => Some(address),
        _ => {
            at.fault("is not an IP address");
            None
        }
    }
}

pub(super) fn cidrs(at: &At<'_>, values: &[core::CidrRange]) -> Vec<Cidr> {
    let ranges = values.iter().enumerate().filter_map(|(index, value)| {
        let at = at.nth(index);
        let Ok(ip) = value.address_prefix.parse() else {
            at.fault(format!("{:?} is not an IP address", value.address_prefix));
            return None;
        };
        let bits = u8::try_from(number(value.prefix_len.as_ref()).unwrap_or(0)).ok();
        let range = bits.and_then(|bits| Cidr::new(ip, bits));
        if range.is_none() {
            at.field("prefix_len").fault("is longer than the address");
        }
        range
    });
    ranges.collect()
}

pub(super) fn keepalive(value: Option<&core::TcpKeepalive>) -> Option<TcpKeepalive> {
    let seconds = |value: Option<&UInt32Value>| {
        number(value).map(|seconds| Duration::from_secs(u64::from(seconds)))
    };
    value.map(|value| TcpKeepalive {
        probes: number(value.keepalive_probes.as_ref()),
        idle: seconds(value.keepalive_time.as_ref()),
        interval: seconds(value.keepalive_interval.as_ref()),
    })
}

pub(super) fn pattern(at: &At<'_>, value: Option<&RegexMatcher>) -> Option<Pattern> {
    let Some(value) = value.filter(|value| !value.regex.is_empty()) else {
        at.field("regex").fault("is missing");
        return None;
    };
    Pattern::whole(&value.regex).map_err(|error| at.field("regex").fault(error.to_string())).ok()
}

/// An expression that may match any part, and what takes the place of a match.
pub(super) fn rewrite(
    at: &At<'_>,
    value: &RegexMatchAndSubstitute,
) -> Option<(Pattern, Substitution)> {
    let regex = value.pattern.as_ref().map(|pattern| pattern.regex.as_str()).unwrap_or_default();
    if regex.is_empty() {
        at.field("pattern").field("regex").fault("is missing");
        return None;
    }
    let pattern = match Pattern::part(regex) {
        Ok(pattern) => pattern,
        Err(error) => {
            at.field("pattern").field("regex").fault(error.to_string());
            return None;
        }
    };
    let Some(by) = Substitution::parse(&value.substitution, &pattern) else {
        at.field("substitution").fault("is malformed or names a group that the pattern lacks");
        return None;
    };
    Some((pattern, by))
}

pub(super) fn string_matcher(at: &At<'_>, value: Option<&PbMatcher>) -> Option<StringMatcher> {
    let Some((value, kind)) =
        value.and_then(|value| value.match_pattern.as_ref().map(|kind| (value, kind)))
    else {
        at.fault("says nothing to match");
        return None;
    };
    let case = if value.ignore_case { Case::Ignored } else { Case::Sensitive };
    let part = |field: &str, text: &str| {
        if text.is_empty() {
            at.field(field).fault("is empty");
        }
        Text::new(text, case)
    };
    Some(match kind {
        MatchPattern::Exact(text) => StringMatcher::Exact(Text::new(text, case)),
        MatchPattern::Prefix(text) => StringMatcher::Prefix(part("prefix", text)),
        MatchPattern::Suffix(text) => StringMatcher::Suffix(part("suffix", text)),
        MatchPattern::Contains(text) => StringMatcher::Contains(part("contains", text)),
        MatchPattern::SafeRegex(regex) => {
            if value.ignore_case {
                at.field("ignore_case").fault("does not go with a regular expression");
            }
            StringMatcher::Regex(pattern(&at.field("safe_regex"), Some(regex))?)
        }
        MatchPattern::Custom(_) => {
            at.field("custom").unsupported();
            return None;
        }
    })
}

/// Where a text comes from; nothing is read.
pub(super) fn source(at: &At<'_>, value: &DataSource) -> Option<Source> {
    fields!(at, value => DataSource {
        use { specifier }
        accept {}
        refuse { watched_directory }
    });
    match specifier {
        Some(Specifier::InlineString(text)) => Some(Source::Text(text.as_str().into())),
        Some(Specifier::InlineBytes(bytes)) => match std::str::from_utf8(bytes) {
            Ok(text) => Some(Source::Text(text.into())),
            Err(_) => {
                at.field("inline_bytes").fault("is not UTF-8");
                None
            }
        },
        Some(Specifier::Filename(path)) => Some(Source::File(path.as_str().into())),
        Some(Specifier::EnvironmentVariable(name)) => {
            Some(Source::Environment(name.as_str().into()))
        }
        None => {
            at.fault("says nothing");
            None
        }
    }
}

/// A header name in lower case.
pub(super) fn header_name(at: &At<'_>, name: &str) -> Arc<str> {
    let lower = name.to_ascii_lowercase();
    let token = lower.strip_prefix(':').unwrap_or(&lower);
    // The characters of a token (RFC 9110 §5.6.2).
    let valid = !token.is_empty()
        && token.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
    if !valid {
        at.fault(format!("{name:?} is not a header name"));
    }
    lower.into()
}

/// A value that may be put into a header.
pub(super) fn header_value(at: &At<'_>, value: &str) -> Arc<str> {
    if value.bytes().any(|byte| matches!(byte, 0 | b'\r' | b'\n')) {
        at.fault("holds a line break or NUL");
    }
    value.into()
}

pub(super) fn header_names(at: &At<'_>, names: &[String]) -> Vec<Arc<str>> {
    names
        .iter()
        .enumerate()
        .map(|(index, name)| {
            let at = at.nth(index);
            if name.starts_with(':') || name.eq_ignore_ascii_case("host") {
                at.fault(format!("{name:?} cannot be removed"));
            }
            header_name(&at, name)
        })
        .collect()
}

#[expect(deprecated, reason = "`append` still says what older control planes mean")]
pub(super) fn header_edits(at: &At<'_>, edits: &[HeaderValueOption]) -> Vec<HeaderEdit> {
    let edits = edits.iter().enumerate().filter_map(|(index, edit)| {
        let at = at.nth(index);
        fields!(&at, edit => HeaderValueOption {
            use { header, append, append_action, keep_empty_value }
            accept {}
            refuse {}
        });
        let Some(header) = header else {
            at.field("header").fault("is missing");
            return None;
        };
        fields!(&at.field("header"), header => HeaderValue {
            use { key, value }
            accept {}
            refuse { raw_value }
        });
        let action = match (append, HeaderAppendAction::try_from(*append_action)) {
            // Envoy: `append` false overwrites; `append_action` then has to be the default.
            (Some(BoolValue { value: false }), Ok(HeaderAppendAction::AppendIfExistsOrAdd)) => {
                HeaderAction::Overwrite
            }
            (Some(BoolValue { value: false }), _) => {
                at.field("append").fault("does not go with append_action");
                return None;
            }
            (_, Ok(HeaderAppendAction::AppendIfExistsOrAdd)) => HeaderAction::Append,
            (_, Ok(HeaderAppendAction::AddIfAbsent)) => HeaderAction::AddIfAbsent,
            (_, Ok(HeaderAppendAction::OverwriteIfExistsOrAdd)) => HeaderAction::Overwrite,
            (_, Ok(HeaderAppendAction::OverwriteIfExists)) => HeaderAction::OverwriteIfExists,
            (_, Err(_)) => {
                at.field("append_action").unsupported();
                return None;
            }
        };
        Some(HeaderEdit {
            name: header_name(&at.field("header").field("key"), key),
            value: header_text(header_value(&at.field("header").field("value"), value)),
            action,
            keep_empty: *keep_empty_value,
        })
    });
    edits.collect()
}

/// A value with commands, or one without (in which `%%` is a percent sign).
fn header_text(value: Arc<str>) -> HeaderText {
    let plain = value.replace("%%", "");
    if plain.contains('%') {
        HeaderText::Format(value)
    } else if value.contains('%') {
        HeaderText::Literal(value.replace("%%", "%").into())
    } else {
        HeaderText::Literal(value)
    }
}

/// A share of requests; without one none.
pub(super) fn fraction(at: &At<'_>, value: Option<&FractionalPercent>) -> Fraction {
    let Some(value) = value else { return Fraction::NONE };
    let denominator = match DenominatorType::try_from(value.denominator) {
        Ok(DenominatorType::Hundred) => 100,
        Ok(DenominatorType::TenThousand) => 10_000,
        Ok(DenominatorType::Million) => 1_000_000,
        Err(_) => {
            at.field("denominator").unsupported();
            100
        }
    };
    Fraction::new(value.numerator, denominator)
}

/// A share of requests that a runtime could change, if there were one.
pub(super) fn runtime_fraction(at: &At<'_>, value: &RuntimeFractionalPercent) -> Fraction {
    fraction(&at.field("default_value"), value.default_value.as_ref())
}
