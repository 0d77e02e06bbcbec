//! Matchers of texts.

use envoy_types::pb::envoy::r#type::matcher::v3::{
    RegexMatcher, StringMatcher, string_matcher::MatchPattern,
};

use crate::TextMatch;

/// A matcher for the text; `None` for "anything".
pub(super) fn string(input: &TextMatch) -> Option<StringMatcher> {
    let pattern = match input {
        TextMatch::Exact(text) => MatchPattern::Exact(text.clone()),
        TextMatch::Prefix(text) => MatchPattern::Prefix(text.clone()),
        TextMatch::Regex(text) => MatchPattern::SafeRegex(regex(text)),
        TextMatch::Present => return None,
    };
    Some(StringMatcher { match_pattern: Some(pattern), ..StringMatcher::default() })
}

/// A matcher for an expression.
pub(super) fn regex(pattern: &str) -> RegexMatcher {
    RegexMatcher { regex: pattern.to_owned(), ..RegexMatcher::default() }
}
