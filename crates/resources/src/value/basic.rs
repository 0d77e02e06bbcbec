//! Readers of the plain types: texts, numbers, durations, lists, maps, and the nouns.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

use serde_json::{Map, Number, Value as Json};
use sluis_nouns::{Cidr, HostPattern, Labels, Percent, TrustDomain};

use super::{Read, Value, suggest};
use crate::yaml::{Node, NodeKind, Plain, resolve};

/// Shortest duration that Istio takes for an interval or a timeout.
const DURATION_MIN: Duration = Duration::from_millis(1);

impl Read for String {
    fn read(value: &Value<'_>) -> Option<Self> {
        value.text().map(str::to_owned)
    }
}

impl Read for bool {
    fn read(value: &Value<'_>) -> Option<Self> {
        match plain(value.node) {
            Some(Plain::Bool(flag)) => Some(flag),
            _ if matches!(value.node.kind, NodeKind::Anything) => Some(true),
            _ => value.expected("true or false"),
        }
    }
}

/// A port: 1 to 65535. There is no other 16-bit number in the resources.
impl Read for u16 {
    fn read(value: &Value<'_>) -> Option<Self> {
        match plain(value.node) {
            Some(Plain::Int(number)) => match Self::try_from(number) {
                Ok(port) if port > 0 => Some(port),
                _ => value.fault(format!("{number} is not a port: it must be 1 to 65535")),
            },
            _ => value.expected("a port number"),
        }
    }
}

impl Read for u32 {
    fn read(value: &Value<'_>) -> Option<Self> {
        integer(value)
    }
}

impl Read for u64 {
    fn read(value: &Value<'_>) -> Option<Self> {
        integer(value)
    }
}

impl Read for i32 {
    fn read(value: &Value<'_>) -> Option<Self> {
        integer(value)
    }
}

impl Read for f64 {
    fn read(value: &Value<'_>) -> Option<Self> {
        match plain(value.node) {
            // Field values are small; a larger one is refused by its own bound.
            Some(Plain::Int(number)) => Some(number as Self),
            Some(Plain::Float(number)) => Some(number),
            _ => value.expected("a number"),
        }
    }
}

impl Read for Percent {
    fn read(value: &Value<'_>) -> Option<Self> {
        let number: f64 = value.read()?;
        Self::new(number).map_or_else(|error| value.fault(error.to_string()), Some)
    }
}

/// A duration of at least one millisecond, in Go's form: `300ms`, `1.5s`, `1h30m`.
impl Read for Duration {
    fn read(value: &Value<'_>) -> Option<Self> {
        let OpenDuration(duration) = value.read()?;
        if duration < DURATION_MIN {
            return value.fault("this duration must be at least 1ms");
        }
        if duration.subsec_nanos() % 1_000_000 != 0 {
            return value.fault("whole milliseconds are expected");
        }
        Some(duration)
    }
}

/// A duration where zero has a meaning.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OpenDuration(pub(crate) Duration);

impl Read for OpenDuration {
    fn read(value: &Value<'_>) -> Option<Self> {
        let text = value.text()?;
        parse_duration(text).map_or_else(|error| value.fault(error.to_string()), |d| Some(Self(d)))
    }
}

impl<T: Read> Read for Vec<T> {
    fn read(value: &Value<'_>) -> Option<Self> {
        let items = value.items()?;
        // All items are read before a bad one ends it, so that all faults are found.
        let read: Vec<Option<T>> = items.iter().map(Value::read).collect();
        read.into_iter().collect()
    }
}

impl<T: Read> Read for BTreeMap<String, T> {
    fn read(value: &Value<'_>) -> Option<Self> {
        let read = |(key, value): &(&str, Value<'_>)| Some(((*key).to_owned(), value.read()?));
        let entries: Vec<Option<(String, T)>> = value.entries()?.iter().map(read).collect();
        entries.into_iter().collect()
    }
}

impl Read for Labels {
    fn read(value: &Value<'_>) -> Option<Self> {
        let labels: BTreeMap<String, String> = value.read()?;
        Some(labels.into_iter().collect())
    }
}

impl Read for Cidr {
    fn read(value: &Value<'_>) -> Option<Self> {
        parsed(value)
    }
}

impl Read for HostPattern {
    fn read(value: &Value<'_>) -> Option<Self> {
        // `*` alone is YAML's alias character, so a host that is one is always in quotes.
        parsed(value)
    }
}

impl Read for TrustDomain {
    fn read(value: &Value<'_>) -> Option<Self> {
        parsed(value)
    }
}

impl Read for Json {
    fn read(value: &Value<'_>) -> Option<Self> {
        Some(json(value.node))
    }
}

/// Reads one of several names.
pub(crate) fn one_of<T: Copy>(value: &Value<'_>, names: &[(&'static str, T)]) -> Option<T> {
    if let Some(schema) = &value.doc.schema {
        let names = names.iter().map(|(name, _)| *name).collect();
        schema.borrow_mut().names(&value.path, names);
    }
    let text = value.text()?;
    if value.doc.schema.is_some() {
        return names.first().map(|(_, choice)| *choice);
    }
    if let Some((_, choice)) = names.iter().find(|(name, _)| *name == text) {
        return Some(*choice);
    }
    let known: Vec<&'static str> = names.iter().map(|(name, _)| *name).collect();
    let message = format!("{text:?} is none of {}", known.join(", "));
    match suggest::nearest(text, &known) {
        Some(name) => value.fault_help(message, &format!("did you mean {name:?}?")),
        None => value.fault(message),
    }
}

fn parsed<T>(value: &Value<'_>) -> Option<T>
where
    T: FromStr,
    T::Err: Display,
{
    value.text()?.parse().map_or_else(|error: T::Err| value.fault(error.to_string()), Some)
}

fn plain(node: &Node) -> Option<Plain> {
    match &node.kind {
        NodeKind::Plain(text) => Some(resolve(text)),
        NodeKind::Anything => Some(Plain::Int(1)),
        _ => None,
    }
}

fn integer<T: TryFrom<i128>>(value: &Value<'_>) -> Option<T> {
    match plain(value.node) {
        Some(Plain::Int(number)) => T::try_from(number)
            .map_or_else(|_| value.fault(format!("{number} is out of range")), Some),
        _ => value.expected("a whole number"),
    }
}

/// Text that is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a duration such as 300ms, 10s or 1h30m")]
pub struct DurationError(String);

/// Reads a duration in Go's form, as all of Istio's resources write it: numbers, each with one of
/// the units `ns`, `us`, `ms`, `s`, `m` and `h`, or `0`.
///
/// # Errors
///
/// [`DurationError`] when the text has another form, is negative or too long for a `Duration`.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    duration(text).ok_or_else(|| DurationError(text.to_owned()))
}

/// Reads Go's form of a duration: numbers, each with its unit.
fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let (number, tail) = rest.split_at(digits);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, next) = tail.split_at(unit_end);
        let nanos = match unit {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return None,
        };
        let part = number.parse::<f64>().ok()? * nanos / 1e9;
        total = total.checked_add(Duration::try_from_secs_f64(part).ok()?)?;
        rest = next;
    }
    (!text.is_empty()).then_some(total)
}

/// Turns a tree into JSON, types as kubectl sees them.
fn json(node: &Node) -> Json {
    match &node.kind {
        NodeKind::Quoted(text) | NodeKind::Literal { text, .. } => Json::String(text.clone()),
        NodeKind::Anything => Json::Null,
        NodeKind::List(items) => Json::Array(items.iter().map(json).collect()),
        NodeKind::Map(entries) => {
            let entry = |entry: &crate::yaml::Entry| (entry.key.clone(), json(&entry.value));
            Json::Object(entries.iter().map(entry).collect::<Map<_, _>>())
        }
        NodeKind::Plain(text) => match resolve(text) {
            Plain::Null => Json::Null,
            Plain::Bool(flag) => Json::Bool(flag),
            Plain::Text => Json::String(text.clone()),
            Plain::Float(number) => Number::from_f64(number).map_or(Json::Null, Json::Number),
            Plain::Int(number) => match (i64::try_from(number), u64::try_from(number)) {
                (Ok(number), _) => Json::from(number),
                (_, Ok(number)) => Json::from(number),
                _ => Number::from_f64(number as f64).map_or(Json::Null, Json::Number),
            },
        },
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::parse_duration;

    #[test]
    fn durations_are_read_in_gos_form() {
        for (text, millis) in [
            ("0", Some(0)),
            ("0s", Some(0)),
            ("8ms", Some(8)),
            ("1.5s", Some(1500)),
            ("1h30m", Some(5_400_000)),
            ("1m0.5s", Some(60_500)),
            ("", None),
            ("10", None),
            ("s", None),
            ("-1s", None),
            ("1d", None),
            ("1s ", None),
            ("1.2.3s", None),
            ("99999999999999999999h", None),
        ] {
            assert_eq!(parse_duration(text).ok(), millis.map(Duration::from_millis), "{text}");
        }
    }
}
