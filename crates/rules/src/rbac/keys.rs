//! What a request must have for a condition to hold: the keys by which policies are indexed.
//!
//! In:    a condition.
//! Out:   for each thing that it looks at, keys of which a request must have one.
//! Never: a key that a request could do without.

use std::collections::{BTreeMap, BTreeSet};

use super::{condition::Condition, grouped::compared, lookup::Subject};
use crate::{Case, Pattern, StringMatcher, Text};

/// What a key is looked for in.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Place {
    Of(Subject),
    Port,
}

/// Which part of the value a key is. All keys are in lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Part {
    Whole,
    Start,
    End,
    /// What follows `/ns/` up to the next slash: the namespace of a SPIFFE name.
    Namespace,
}

pub(super) type Key = (Part, Box<str>);

/// For each place the keys of which one must be there.
pub(super) type Needs = BTreeMap<Place, BTreeSet<Key>>;

/// What a condition needs. A place that is not named may hold anything.
pub(super) fn needs(condition: &Condition) -> Needs {
    match condition {
        Condition::All(all) => {
            let mut merged = Needs::new();
            for (place, keys) in all.iter().flat_map(needs) {
                match merged.get(&place) {
                    Some(fewer) if fewer.len() <= keys.len() => {}
                    _ => drop(merged.insert(place, keys)),
                }
            }
            merged
        }
        Condition::Any(any) => {
            let mut each = any.iter().map(needs);
            let Some(mut common) = each.next() else { return Needs::new() };
            for needed in each {
                common.retain(|place, _| needed.contains_key(place));
                for (place, keys) in needed {
                    if let Some(all) = common.get_mut(&place) {
                        all.extend(keys);
                    }
                }
            }
            common
        }
        Condition::Port(start, end) if end - start == 1 => {
            single(Place::Port, (Part::Whole, start.to_string().into()))
        }
        leaf => of_leaf(leaf).unwrap_or_default(),
    }
}

fn single(place: Place, key: Key) -> Needs {
    Needs::from([(place, BTreeSet::from([key]))])
}

fn of_leaf(leaf: &Condition) -> Option<Needs> {
    if let Some((subject, matcher)) = compared(leaf) {
        let (part, text) = match matcher {
            StringMatcher::Exact(text) => (Part::Whole, text),
            StringMatcher::Prefix(text) => (Part::Start, text),
            StringMatcher::Suffix(text) => (Part::End, text),
            StringMatcher::Contains(_) | StringMatcher::Regex(_) => return None,
        };
        return Some(single(Place::Of(subject), (part, lower(text))));
    }
    match leaf {
        Condition::Authenticated(Some(StringMatcher::Regex(pattern))) => {
            Some(single(Place::Of(Subject::Principal), of_pattern(pattern)?))
        }
        Condition::Authenticated(Some(StringMatcher::Contains(text))) => {
            let namespace = namespace_of(text.as_str())?;
            Some(single(Place::Of(Subject::Principal), (Part::Namespace, namespace)))
        }
        // Not those over a header: whether they can be decided is to be found out first.
        Condition::Path(StringMatcher::Regex(pattern)) => {
            Some(single(Place::Of(Subject::Path), of_pattern(pattern)?))
        }
        _ => None,
    }
}

fn lower(text: &Text) -> Box<str> {
    match text.case() {
        Case::Sensitive => text.as_str().to_ascii_lowercase().into(),
        Case::Ignored => text.as_str().into(),
    }
}

/// `X` of a text `/ns/X/`.
fn namespace_of(text: &str) -> Option<Box<str>> {
    let name = text.strip_prefix("/ns/")?.strip_suffix('/')?;
    (!name.is_empty() && !name.contains('/')).then(|| name.to_ascii_lowercase().into())
}

/// A key that whatever an expression matches must have, for expressions of simple form.
fn of_pattern(pattern: &Pattern) -> Option<Key> {
    let tokens = tokens(pattern.source())?;
    if let Some(name) = namespace_in(&tokens) {
        return Some((Part::Namespace, name));
    }
    let tail: String = literal(tokens.iter().rev()).chars().rev().collect();
    let head = literal(tokens.iter());
    // A literal before a quantifier may be repeated or missing.
    let is_free = |at: usize| !matches!(tokens.get(at), Some(Token::Quantifier));
    if !tail.is_empty() {
        return Some((Part::End, tail.to_ascii_lowercase().into()));
    }
    let mut head = head;
    if !is_free(head.chars().count()) {
        head.pop();
    }
    (!head.is_empty()).then(|| (Part::Start, head.to_ascii_lowercase().into()))
}

/// What an expression is made of, outside of groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    Char(char),
    Quantifier,
    /// Anything that may match this or that: `.`, a class, a group.
    Other,
}

/// Takes an expression apart; `None` when it has alternatives or is not of simple form.
fn tokens(source: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut chars = source.chars();
    while let Some(found) = chars.next() {
        tokens.push(match found {
            '\\' => match chars.next()? {
                literal if literal.is_ascii_punctuation() => Token::Char(literal),
                _ => return None,
            },
            '*' | '+' | '?' => Token::Quantifier,
            '.' => Token::Other,
            '(' => {
                skip_group(&mut chars)?;
                Token::Other
            }
            '|' | ')' | '[' | ']' | '{' | '}' | '^' | '$' => return None,
            literal => Token::Char(literal),
        });
    }
    Some(tokens)
}

/// Goes behind the end of a group without flags, escapes or classes in it.
fn skip_group(chars: &mut std::str::Chars<'_>) -> Option<()> {
    if chars.as_str().starts_with('?') {
        return None;
    }
    let mut depth = 1;
    while depth > 0 {
        match chars.next()? {
            '(' if chars.as_str().starts_with('?') => return None,
            '(' => depth += 1,
            ')' => depth -= 1,
            '\\' | '[' => return None,
            _ => {}
        }
    }
    Some(())
}

/// The characters up to the first token that is none.
fn literal<'t>(tokens: impl Iterator<Item = &'t Token>) -> String {
    tokens
        .map_while(|token| match token {
            Token::Char(char) => Some(*char),
            Token::Quantifier | Token::Other => None,
        })
        .collect()
}

/// `X` of `/ns/X/` somewhere in an expression.
fn namespace_in(tokens: &[Token]) -> Option<Box<str>> {
    const START: [Token; 4] =
        [Token::Char('/'), Token::Char('n'), Token::Char('s'), Token::Char('/')];
    let at = tokens.windows(START.len()).position(|window| window == START)? + START.len();
    let name: String = literal(tokens[at..].iter()).chars().take_while(|c| *c != '/').collect();
    let end = at + name.chars().count();
    let is_closed = tokens.get(end) == Some(&Token::Char('/'))
        && tokens.get(end + 1) != Some(&Token::Quantifier);
    (is_closed && !name.is_empty()).then(|| name.to_ascii_lowercase().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(source: &str, key: Option<(Part, &str)>) {
        let found = of_pattern(&Pattern::whole(source).unwrap());
        assert_eq!(found, key.map(|(part, text)| (part, text.into())), "{source}");
    }

    #[test]
    fn expressions_of_simple_form_have_a_key() {
        check(".*/ns/foo/.*", Some((Part::Namespace, "foo")));
        check("spiffe://.+/ns/my-ns/(.+/|)sa/my-sa(/.+)?", Some((Part::Namespace, "my-ns")));
        check("spiffe://.*-suffix", Some((Part::End, "-suffix")));
        check("/api/v[0-9]+", None);
        check("/api/.*", Some((Part::Start, "/api/")));
        check("/apis?", Some((Part::Start, "/api")));
        check(r"/a\.b/.+", Some((Part::Start, "/a.b/")));
        check(".*", None);
        check("a|b", None);
        check("(a|b).*", None);
        check("(?i)abc.*", None);
        check(".*/ns/foo/?", None);
    }
}
