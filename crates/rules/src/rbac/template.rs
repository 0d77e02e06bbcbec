//! Path templates as of Envoy's `uri_template` matcher: `/a/*/b`, `/a/**`, `/a/{name}/b`.

use crate::Pattern;

/// Most variables of a template, as in Envoy.
const VARIABLES_MAX: usize = 5;

/// Longest name of a variable, as in Envoy.
const VARIABLE_LEN_MAX: usize = 16;

/// One path segment that `*` stands for (RFC 3986 §3.3 `pchar`).
const SEGMENT: &str = r"[a-zA-Z0-9\-._~%!$&'()+,;:@=*]+";

/// Any path that `**` stands for.
const ANY: &str = r"[a-zA-Z0-9\-._~%!$&'()+,;:@=*/]*";

/// Compiles a template to an expression over the path without its query.
pub(crate) fn template_pattern(template: &str) -> Result<Pattern, String> {
    let mut rest = template.strip_prefix('/').ok_or("does not begin with a slash")?;
    let mut source = String::from("/");
    let mut seen = Seen::default();
    while !rest.is_empty() {
        rest = match rest.as_bytes()[0] {
            b'*' => operator(rest, &mut source, &mut seen)?,
            b'{' => variable(rest, &mut source, &mut seen)?,
            _ => literal(rest, &mut source)?,
        };
        if rest == "/" {
            source.push('/');
            break;
        }
        match rest.strip_prefix('/') {
            Some(next) => {
                source.push('/');
                rest = next;
            }
            // What follows a variable or an asterisk within a segment ends the path.
            None if !rest.is_empty() => {
                if !literal(rest, &mut source)?.is_empty() {
                    return Err("goes on behind a suffix".to_owned());
                }
                break;
            }
            None => {}
        }
    }
    Pattern::whole(&source).map_err(|error| error.to_string())
}

#[derive(Default)]
struct Seen {
    has_any: bool,
    names: Vec<String>,
}

impl Seen {
    fn glob(&mut self, is_any: bool) -> Result<&'static str, String> {
        if self.has_any {
            return Err("has an asterisk behind a double asterisk".to_owned());
        }
        self.has_any = is_any;
        Ok(if is_any { ANY } else { SEGMENT })
    }
}

fn operator<'t>(
    template: &'t str,
    source: &mut String,
    seen: &mut Seen,
) -> Result<&'t str, String> {
    let (is_any, rest) = match template.strip_prefix("**") {
        Some(rest) => (true, rest),
        None => (false, &template[1..]),
    };
    source.push_str(seen.glob(is_any)?);
    Ok(rest)
}

fn literal<'t>(template: &'t str, source: &mut String) -> Result<&'t str, String> {
    let end = template.find('/').unwrap_or(template.len());
    let (text, rest) = template.split_at(end);
    let is_literal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@".contains(&byte);
    if text.is_empty() || !text.bytes().all(is_literal) {
        return Err(format!("has a segment {text:?} that is neither text nor a wildcard"));
    }
    source.push_str(&regex::escape(text));
    Ok(rest)
}

fn variable<'t>(
    template: &'t str,
    source: &mut String,
    seen: &mut Seen,
) -> Result<&'t str, String> {
    let (inner, rest) = template[1..].split_once('}').ok_or("has a brace that is not closed")?;
    let (name, form) = match inner.split_once('=') {
        Some((name, form)) => (name, Some(form)),
        None => (inner, None),
    };
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && name.len() <= VARIABLE_LEN_MAX;
    if !is_name {
        return Err(format!("has a variable {name:?} that has no good name"));
    }
    if seen.names.iter().any(|known| known == name) {
        return Err(format!("has the variable {name:?} twice"));
    }
    if seen.names.len() >= VARIABLES_MAX {
        return Err(format!("has more than {VARIABLES_MAX} variables"));
    }
    seen.names.push(name.to_owned());
    match form {
        None => source.push_str(seen.glob(false)?),
        Some(mut form) => loop {
            form = match form.as_bytes().first() {
                None => return Err("has a variable with an empty form".to_owned()),
                Some(b'*') => operator(form, source, seen)?,
                Some(_) => literal(form, source)?,
            };
            if form.is_empty() {
                break;
            }
            form = form.strip_prefix('/').ok_or("has a variable of no good form")?;
            source.push('/');
        },
    }
    Ok(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(template: &str, path: &str, matches: bool) {
        let pattern = template_pattern(template).unwrap();
        assert_eq!(pattern.matches(path.as_bytes()), matches, "{template} on {path}");
    }

    #[test]
    fn one_asterisk_is_a_segment_and_two_are_any_path() {
        check("/a/*/c", "/a/b/c", true);
        check("/a/*/c", "/a//c", false);
        check("/a/*/c", "/a/b/b/c", false);
        check("/a/**", "/a/", true);
        check("/a/**", "/a/b/c", true);
        check("/a/**", "/a", false);
        check("/**/z", "/a/b/z", true);
        check("/a/{name}/c", "/a/x.y/c", true);
        check("/a/{rest=b/**}", "/a/b/c/d", true);
        check("/*.txt", "/a.txt", true);
        check("/a.b", "/axb", false);
    }

    #[test]
    fn cve_2025_46821_an_asterisk_in_a_path_is_a_path_character() {
        check("/a/*", "/a/*", true);
        check("/a/**", "/a/b=*", true);
    }

    #[test]
    fn templates_of_no_good_form_are_refused() {
        for template in ["a", "/**/*", "/{", "/{1}", "/{a}/{a}", "/a*", "/*a/b", "/a//b", "/{a=}"] {
            assert!(template_pattern(template).is_err(), "{template}");
        }
    }
}
