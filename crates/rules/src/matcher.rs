//! Compares strings as Envoy does: exactly, by prefix, suffix, part or regular expression.
//!
//! Regular expressions are those of the regex crate: linear time, and bounded in size.

use std::{fmt, sync::Arc};

use regex::bytes::{Regex, RegexBuilder};

/// Most memory that one compiled expression may take. Envoy's RE2 warns at a program size of 100,
/// Istio raises that; a megabyte holds any expression that a person wrote.
const REGEX_SIZE_MAX: usize = 1 << 20;

/// A comparison with one string.
#[derive(Clone, Debug, PartialEq)]
pub enum StringMatcher {
    /// The same string.
    Exact(Text),
    /// A string that starts so.
    Prefix(Text),
    /// A string that ends so.
    Suffix(Text),
    /// A string with this in it.
    Contains(Text),
    /// A string that the whole expression matches.
    Regex(Pattern),
}

/// A string to compare with, and how letters are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    /// The string; in lower case when case is ignored.
    value: Box<str>,
    case: Case,
}

/// How letters are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Case {
    /// `a` and `A` differ.
    Sensitive,
    /// ASCII letters are equal in either case.
    Ignored,
}

/// A compiled regular expression that must match a whole string.
#[derive(Clone)]
pub struct Pattern {
    source: Arc<str>,
    regex: Regex,
}

/// A regular expression that was not accepted.
#[derive(Debug, thiserror::Error)]
#[error("regular expression is not accepted: {0}")]
pub struct PatternError(#[from] regex::Error);

impl StringMatcher {
    /// Whether the value matches.
    #[must_use]
    pub fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(text) => text.equals(value),
            Self::Prefix(text) => text.starts(value),
            Self::Suffix(text) => text.ends(value),
            Self::Contains(text) => text.is_in(value),
            Self::Regex(pattern) => pattern.matches(value),
        }
    }
}

impl Text {
    /// Makes a text to compare with.
    #[must_use]
    pub fn new(value: &str, case: Case) -> Self {
        let value = match case {
            Case::Sensitive => value.to_owned(),
            Case::Ignored => value.to_ascii_lowercase(),
        };
        Self { value: value.into_boxed_str(), case }
    }

    /// The string; in lower case when case is ignored.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.value
    }

    /// How letters are compared.
    #[must_use]
    pub fn case(&self) -> Case {
        self.case
    }

    /// Whether the value is this text.
    #[must_use]
    pub fn equals(&self, value: &[u8]) -> bool {
        match self.case {
            Case::Sensitive => value == self.value.as_bytes(),
            Case::Ignored => value.eq_ignore_ascii_case(self.value.as_bytes()),
        }
    }

    /// Whether the value starts with this text.
    #[must_use]
    pub fn starts(&self, value: &[u8]) -> bool {
        value.get(..self.value.len()).is_some_and(|head| self.equals(head))
    }

    fn ends(&self, value: &[u8]) -> bool {
        let Some(start) = value.len().checked_sub(self.value.len()) else { return false };
        self.equals(&value[start..])
    }

    fn is_in(&self, value: &[u8]) -> bool {
        match self.case {
            Case::Sensitive => memchr::memmem::find(value, self.value.as_bytes()).is_some(),
            Case::Ignored => {
                let lower = value.to_ascii_lowercase();
                memchr::memmem::find(&lower, self.value.as_bytes()).is_some()
            }
        }
    }
}

impl Pattern {
    /// Compiles an expression that must match from the first byte to the last.
    ///
    /// # Errors
    ///
    /// When the expression is malformed, uses what cannot be matched in linear time (look-around,
    /// back-references), or is too large.
    pub fn whole(source: &str) -> Result<Self, PatternError> {
        // Checked alone first: `a)(b` would otherwise close our own group.
        build(source)?;
        Ok(Self { source: source.into(), regex: build(&format!(r"\A(?:{source})\z"))? })
    }

    /// Compiles an expression that may match any part, for replacements.
    ///
    /// # Errors
    ///
    /// As [`Pattern::whole`].
    pub fn part(source: &str) -> Result<Self, PatternError> {
        Ok(Self { source: source.into(), regex: build(source)? })
    }

    /// Whether the expression matches.
    #[must_use]
    pub fn matches(&self, value: &[u8]) -> bool {
        self.regex.is_match(value)
    }

    /// The expression as it was written.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The value with every match replaced.
    #[must_use]
    pub fn replace_all(&self, value: &[u8], by: &Substitution) -> Vec<u8> {
        self.regex
            .replace_all(value, |captures: &regex::bytes::Captures<'_>| by.expand(captures))
            .into_owned()
    }

    pub(crate) fn groups(&self) -> usize {
        self.regex.captures_len() - 1
    }
}

/// Compares by source: equal sources compile to equal expressions.
impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source && self.regex.as_str() == other.regex.as_str()
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}/", self.source)
    }
}

/// What takes the place of a match, in RE2's notation: `\1` is the first group, `\\` a backslash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Substitution(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Box<[u8]>),
    Group(usize),
}

impl Substitution {
    /// Reads a substitution for a pattern; `None` when it is malformed or names a group that the
    /// pattern does not have.
    #[must_use]
    pub fn parse(text: &str, pattern: &Pattern) -> Option<Self> {
        let mut pieces = Vec::new();
        let mut literal = Vec::new();
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            if byte != b'\\' {
                literal.push(byte);
                continue;
            }
            match bytes.next()? {
                b'\\' => literal.push(b'\\'),
                digit @ b'0'..=b'9' => {
                    let group = usize::from(digit - b'0');
                    if group > pattern.groups() {
                        return None;
                    }
                    if !literal.is_empty() {
                        pieces.push(Piece::Text(std::mem::take(&mut literal).into()));
                    }
                    pieces.push(Piece::Group(group));
                }
                _ => return None,
            }
        }
        if !literal.is_empty() {
            pieces.push(Piece::Text(literal.into()));
        }
        Some(Self(pieces))
    }

    fn expand(&self, captures: &regex::bytes::Captures<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text),
                Piece::Group(group) => {
                    if let Some(found) = captures.get(*group) {
                        out.extend_from_slice(found.as_bytes());
                    }
                }
            }
        }
        out
    }
}

fn build(source: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(source).size_limit(REGEX_SIZE_MAX).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> Text {
        Text::new(value, Case::Sensitive)
    }

    fn folded(value: &str) -> Text {
        Text::new(value, Case::Ignored)
    }

    #[track_caller]
    fn check(matcher: &StringMatcher, value: &str, expected: bool) {
        assert_eq!(matcher.matches(value.as_bytes()), expected, "{matcher:?} on {value}");
    }

    #[test]
    fn each_kind_compares_its_own_part_of_the_string() {
        check(&StringMatcher::Exact(text("ab")), "ab", true);
        check(&StringMatcher::Exact(text("ab")), "AB", false);
        check(&StringMatcher::Exact(folded("aB")), "Ab", true);
        check(&StringMatcher::Prefix(text("ab")), "abc", true);
        check(&StringMatcher::Prefix(text("abc")), "ab", false);
        check(&StringMatcher::Suffix(text("bc")), "abc", true);
        check(&StringMatcher::Suffix(folded("BC")), "abC", true);
        check(&StringMatcher::Suffix(text("abc")), "bc", false);
        check(&StringMatcher::Contains(text("b")), "abc", true);
        check(&StringMatcher::Contains(folded("B")), "aBc", true);
        check(&StringMatcher::Contains(text("B")), "abc", false);
    }

    #[test]
    fn an_expression_matches_the_whole_string() {
        let matcher = StringMatcher::Regex(Pattern::whole("a|b+").unwrap());
        check(&matcher, "a", true);
        check(&matcher, "bbb", true);
        check(&matcher, "abbb", false);
        check(&matcher, "bbb\n", false);
    }

    #[test]
    fn expressions_that_are_malformed_or_too_large_are_refused() {
        for source in ["(", "a)(b", "(?=a)", r"(a)\1", r"(?:\w{1000}){1000}"] {
            assert!(Pattern::whole(source).is_err(), "{source}");
        }
    }

    #[test]
    fn a_substitution_takes_groups_by_number() {
        let pattern = Pattern::part("/v([0-9]+)/").unwrap();
        let by = Substitution::parse(r"/\1\\x/", &pattern).unwrap();
        assert_eq!(pattern.replace_all(b"/v12/a", &by), br"/12\x/a");
        assert!(Substitution::parse(r"\2", &pattern).is_none());
        assert!(Substitution::parse("\\", &pattern).is_none());
    }
}
