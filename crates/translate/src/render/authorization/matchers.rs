//! The text, header, path and metadata matchers that Istio makes of a policy's values.

use envoy_types::pb::envoy::{
    config::route::v3::{HeaderMatcher, header_matcher::HeaderMatchSpecifier},
    r#type::matcher::v3::{
        ListMatcher, MetadataMatcher, OrMatcher, PathMatcher, RegexMatcher, StringMatcher,
        ValueMatcher,
        list_matcher::MatchPattern as ListPattern,
        metadata_matcher::{PathSegment, path_segment::Segment},
        path_matcher,
        string_matcher::MatchPattern,
        value_matcher,
    },
};
use sluis_resources::TextPattern;

/// The filter whose metadata hold the claims of a token, and the key under which they are.
const JWT_FILTER: &str = "envoy.filters.http.jwt_authn";
const PAYLOAD: &str = "payload";

pub(super) fn exact(text: impl Into<String>) -> StringMatcher {
    matcher(MatchPattern::Exact(text.into()))
}

pub(super) fn prefix(text: impl Into<String>) -> StringMatcher {
    matcher(MatchPattern::Prefix(text.into()))
}

pub(super) fn suffix(text: impl Into<String>) -> StringMatcher {
    matcher(MatchPattern::Suffix(text.into()))
}

pub(super) fn regex(regex: impl Into<String>) -> StringMatcher {
    matcher(MatchPattern::SafeRegex(RegexMatcher {
        regex: regex.into(),
        ..RegexMatcher::default()
    }))
}

/// Any text but none.
pub(in crate::render) fn anything() -> StringMatcher {
    regex(".+")
}

fn matcher(pattern: MatchPattern) -> StringMatcher {
    StringMatcher { match_pattern: Some(pattern), ..StringMatcher::default() }
}

pub(super) fn text(pattern: &TextPattern) -> StringMatcher {
    match pattern {
        TextPattern::Exact(text) => exact(text),
        TextPattern::Prefix(text) => prefix(text),
        TextPattern::Suffix(text) => suffix(text),
        TextPattern::Present => anything(),
    }
}

/// A pattern of a text that has something in front of it.
pub(super) fn after(front: &str, pattern: &TextPattern) -> StringMatcher {
    match pattern {
        TextPattern::Exact(text) => exact(format!("{front}{text}")),
        TextPattern::Prefix(text) => prefix(format!("{front}{text}")),
        TextPattern::Suffix(text) => regex(format!("{front}.*{}", quoted(text))),
        TextPattern::Present => anything(),
    }
}

/// A text as part of an RE2 expression.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if r"\.+*?()|[]{}^$".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

pub(super) fn header(name: &str, pattern: &TextPattern, ignores_case: bool) -> HeaderMatcher {
    let specifier = match pattern {
        TextPattern::Present => HeaderMatchSpecifier::PresentMatch(true),
        _ => HeaderMatchSpecifier::StringMatch(StringMatcher {
            ignore_case: ignores_case,
            ..text(pattern)
        }),
    };
    HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(specifier),
        ..HeaderMatcher::default()
    }
}

pub(super) fn path(pattern: &TextPattern) -> PathMatcher {
    PathMatcher { rule: Some(path_matcher::Rule::Path(text(pattern))) }
}

/// A claim whose value is one text.
pub(super) fn claim(name: &str, wanted: StringMatcher) -> MetadataMatcher {
    of_token(&[name.to_owned()], string_value(wanted))
}

/// A claim whose value, or one of whose values, is one of these texts.
pub(in crate::render) fn listed_claim(
    names: &[String],
    wanted: &[StringMatcher],
) -> MetadataMatcher {
    let one = any_of(wanted.iter().cloned().map(string_value).collect());
    let list = ListMatcher { match_pattern: Some(ListPattern::OneOf(Box::new(one.clone()))) };
    let list = value(value_matcher::MatchPattern::ListMatch(Box::new(list)));
    let either = OrMatcher { value_matchers: vec![list, one] };
    of_token(names, value(value_matcher::MatchPattern::OrMatch(either)))
}

fn of_token(names: &[String], wanted: ValueMatcher) -> MetadataMatcher {
    let key = |key: &str| PathSegment { segment: Some(Segment::Key(key.to_owned())) };
    MetadataMatcher {
        filter: JWT_FILTER.to_owned(),
        path: std::iter::once(PAYLOAD).chain(names.iter().map(String::as_str)).map(key).collect(),
        value: Some(wanted),
        ..MetadataMatcher::default()
    }
}

/// A text in metadata of a filter.
pub(super) fn metadata(filter: &str, name: &str, wanted: StringMatcher) -> MetadataMatcher {
    let segment = Some(Segment::Key(name.to_owned()));
    MetadataMatcher {
        filter: filter.to_owned(),
        path: vec![PathSegment { segment }],
        value: Some(string_value(wanted)),
        ..MetadataMatcher::default()
    }
}

fn string_value(wanted: StringMatcher) -> ValueMatcher {
    value(value_matcher::MatchPattern::StringMatch(wanted))
}

fn any_of(mut all: Vec<ValueMatcher>) -> ValueMatcher {
    if all.len() == 1 {
        return all.remove(0);
    }
    value(value_matcher::MatchPattern::OrMatch(OrMatcher { value_matchers: all }))
}

fn value(pattern: value_matcher::MatchPattern) -> ValueMatcher {
    ValueMatcher { match_pattern: Some(pattern) }
}
