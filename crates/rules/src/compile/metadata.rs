//! Metadata matchers.

use envoy_types::pb::envoy::r#type::matcher::v3::{
    DoubleMatcher, ListMatcher, MetadataMatcher, ValueMatcher,
    double_matcher::MatchPattern as Number, list_matcher::MatchPattern as OfList,
    metadata_matcher::path_segment::Segment, value_matcher::MatchPattern,
};

use super::{
    at::{At, fields},
    messages,
};
use crate::{MetadataMatch, ValueMatch};

/// Deepest nesting of values: more than any control plane writes.
const DEPTH_MAX: usize = 8;

/// A matcher of dynamic metadata.
pub(super) fn matcher(at: &At<'_>, value: &MetadataMatcher) -> Option<MetadataMatch> {
    fields!(at, value => MetadataMatcher {
        use { filter, path, value, invert }
        accept {}
        refuse {}
    });
    if filter.is_empty() {
        at.field("filter").fault("is missing");
    }
    if path.is_empty() {
        at.field("path").fault("is empty");
    }
    let list = at.field("path");
    let keys = path.iter().enumerate().map(|(index, segment)| match &segment.segment {
        Some(Segment::Key(key)) if !key.is_empty() => key.as_str().into(),
        _ => {
            list.nth(index).field("key").fault("is missing");
            "".into()
        }
    });
    let path = keys.collect();
    let at = at.field("value");
    let Some(value) = value else {
        at.fault("is missing");
        return None;
    };
    let value = value_match(&at, value, 0)?;
    Some(MetadataMatch { namespace: filter.as_str().into(), path, value, invert: *invert })
}

pub(super) fn value_match(at: &At<'_>, value: &ValueMatcher, depth: usize) -> Option<ValueMatch> {
    if depth > DEPTH_MAX {
        at.fault("is nested too deep");
        return None;
    }
    Some(match &value.match_pattern {
        Some(MatchPattern::NullMatch(_)) => ValueMatch::Null,
        Some(MatchPattern::DoubleMatch(number)) => double(&at.field("double_match"), number)?,
        Some(MatchPattern::StringMatch(matcher)) => {
            ValueMatch::Text(messages::string_matcher(&at.field("string_match"), Some(matcher))?)
        }
        Some(MatchPattern::BoolMatch(flag)) => ValueMatch::Bool(*flag),
        Some(MatchPattern::PresentMatch(wanted)) => ValueMatch::Present(*wanted),
        Some(MatchPattern::ListMatch(list)) => {
            let ListMatcher { match_pattern } = &**list;
            let at = at.field("list_match");
            let Some(OfList::OneOf(inner)) = match_pattern else {
                at.fault("says nothing to match");
                return None;
            };
            ValueMatch::OneOf(value_match(&at.field("one_of"), inner, depth + 1)?.into())
        }
        Some(MatchPattern::OrMatch(any)) => {
            let at = at.field("or_match");
            let list = at.field("value_matchers");
            let all = any.value_matchers.iter().enumerate();
            let all = all.map(|(index, inner)| value_match(&list.nth(index), inner, depth + 1));
            ValueMatch::Any(all.collect::<Option<_>>()?)
        }
        None => {
            at.fault("says nothing to match");
            return None;
        }
    })
}

fn double(at: &At<'_>, value: &DoubleMatcher) -> Option<ValueMatch> {
    match &value.match_pattern {
        Some(Number::Range(range)) => Some(ValueMatch::Range(range.start, range.end)),
        Some(Number::Exact(number)) => Some(ValueMatch::Number(*number)),
        None => {
            at.fault("says nothing to match");
            None
        }
    }
}
