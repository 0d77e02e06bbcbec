//! What a request must be like.

#![expect(deprecated, reason = "older control planes write header matches so")]

use std::sync::Arc;

use envoy_types::pb::envoy::config::route::v3::{
    CookieMatcher, HeaderMatcher, QueryParameterMatcher, RouteMatch as PbMatch,
    header_matcher::HeaderMatchSpecifier, query_parameter_matcher::QueryParameterMatchSpecifier,
    route_match::PathSpecifier,
};

use crate::{
    Case, CookieMatch, HeaderMatch, PathMatch, QueryMatch, RouteMatch, StringMatcher, Text,
    compile::{
        at::{At, fields},
        messages, metadata,
    },
    route::{HeaderTest, QueryTest},
};

pub(in crate::compile) fn route_match(at: &At<'_>, value: Option<&PbMatch>) -> Option<RouteMatch> {
    let Some(value) = value else {
        at.fault("is missing");
        return None;
    };
    fields!(at, value => PbMatch {
        use {
            case_sensitive, headers, query_parameters, path_specifier, runtime_fraction, cookies,
            grpc, dynamic_metadata,
        }
        accept {}
        refuse { tls_context, filter_state }
    });
    let case =
        if messages::flag(case_sensitive.as_ref(), true) { Case::Sensitive } else { Case::Ignored };
    let path = match path_specifier {
        Some(PathSpecifier::Prefix(prefix)) => Some(PathMatch::Prefix(Text::new(prefix, case))),
        Some(PathSpecifier::Path(path)) => Some(PathMatch::Exact(Text::new(path, case))),
        Some(PathSpecifier::PathSeparatedPrefix(prefix)) => {
            // Envoy's own rule: no query, no fragment, no slash at the end.
            if prefix.is_empty() || prefix.contains(['?', '#']) || prefix.ends_with('/') {
                at.field("path_separated_prefix").fault("is empty, ends in / or holds ? or #");
            }
            Some(PathMatch::SeparatedPrefix(Text::new(prefix, case)))
        }
        Some(PathSpecifier::SafeRegex(regex)) => {
            messages::pattern(&at.field("safe_regex"), Some(regex)).map(PathMatch::Regex)
        }
        Some(PathSpecifier::ConnectMatcher(_)) => Some(PathMatch::Connect),
        Some(PathSpecifier::PathMatchPolicy(_)) => {
            at.field("path_match_policy").unsupported();
            None
        }
        None => {
            at.fault("has no path specifier");
            None
        }
    };
    let headers = headers_of(&at.field("headers"), headers);
    let list = at.field("query_parameters");
    let query = query_parameters
        .iter()
        .enumerate()
        .filter_map(|(index, value)| query(&list.nth(index), value));
    let query = query.collect();
    let list = at.field("cookies");
    let cookies = cookies
        .iter()
        .enumerate()
        .filter_map(|(index, value)| cookie(&list.nth(index), value))
        .collect();
    let fraction = runtime_fraction
        .as_ref()
        .map(|share| messages::runtime_fraction(&at.field("runtime_fraction"), share));
    let list = at.field("dynamic_metadata");
    let metadata = dynamic_metadata
        .iter()
        .enumerate()
        .filter_map(|(index, value)| metadata::matcher(&list.nth(index), value))
        .collect();
    Some(RouteMatch {
        path: path?,
        headers,
        query,
        cookies,
        metadata,
        is_grpc: grpc.is_some(),
        fraction,
    })
}

pub(in crate::compile) fn headers_of(at: &At<'_>, values: &[HeaderMatcher]) -> Vec<HeaderMatch> {
    let headers =
        values.iter().enumerate().filter_map(|(index, value)| header(&at.nth(index), value));
    headers.collect()
}

pub(in crate::compile) fn header(at: &At<'_>, value: &HeaderMatcher) -> Option<HeaderMatch> {
    fields!(at, value => HeaderMatcher {
        use { name, invert_match, treat_missing_header_as_empty, header_match_specifier }
        accept {}
        refuse {}
    });
    let text = |text: &str| Text::new(text, Case::Sensitive);
    let test = match header_match_specifier {
        None => HeaderTest::Present(true),
        Some(HeaderMatchSpecifier::PresentMatch(present)) => HeaderTest::Present(*present),
        Some(HeaderMatchSpecifier::RangeMatch(range)) => HeaderTest::Range(range.start, range.end),
        Some(HeaderMatchSpecifier::StringMatch(matcher)) => {
            HeaderTest::String(messages::string_matcher(&at.field("string_match"), Some(matcher))?)
        }
        Some(HeaderMatchSpecifier::ExactMatch(value)) => {
            HeaderTest::String(StringMatcher::Exact(text(value)))
        }
        Some(HeaderMatchSpecifier::PrefixMatch(value)) => {
            HeaderTest::String(StringMatcher::Prefix(text(value)))
        }
        Some(HeaderMatchSpecifier::SuffixMatch(value)) => {
            HeaderTest::String(StringMatcher::Suffix(text(value)))
        }
        Some(HeaderMatchSpecifier::ContainsMatch(value)) => {
            HeaderTest::String(StringMatcher::Contains(text(value)))
        }
        Some(HeaderMatchSpecifier::SafeRegexMatch(regex)) => HeaderTest::String(
            StringMatcher::Regex(messages::pattern(&at.field("safe_regex_match"), Some(regex))?),
        ),
    };
    Some(HeaderMatch {
        name: messages::header_name(&at.field("name"), name),
        test,
        invert: *invert_match,
        missing_is_empty: *treat_missing_header_as_empty,
    })
}

fn query(at: &At<'_>, value: &QueryParameterMatcher) -> Option<QueryMatch> {
    let test = match &value.query_parameter_match_specifier {
        None => QueryTest::Present(true),
        Some(QueryParameterMatchSpecifier::PresentMatch(present)) => QueryTest::Present(*present),
        Some(QueryParameterMatchSpecifier::StringMatch(matcher)) => {
            QueryTest::String(messages::string_matcher(&at.field("string_match"), Some(matcher))?)
        }
    };
    if value.name.is_empty() {
        at.field("name").fault("is missing");
    }
    Some(QueryMatch { name: Arc::from(value.name.as_str()), test })
}

fn cookie(at: &At<'_>, value: &CookieMatcher) -> Option<CookieMatch> {
    fields!(at, value => CookieMatcher {
        use { name, string_match, invert_match }
        accept {}
        refuse {}
    });
    if name.is_empty() {
        at.field("name").fault("is missing");
    }
    Some(CookieMatch {
        name: Arc::from(name.as_str()),
        value: messages::string_matcher(&at.field("string_match"), string_match.as_ref())?,
        invert: *invert_match,
    })
}
