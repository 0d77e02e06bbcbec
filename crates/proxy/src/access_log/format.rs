//! A format string compiled to literals and operators.

use super::{
    operator::{FORMAT_BYTES_MAX, FormatError, Operator},
    record::Record,
    value::{Escape, Value},
};

/// One part of a format.
#[derive(Clone, Debug)]
pub(super) enum Part {
    Literal(Box<[u8]>),
    Operator(Operator),
}

/// A compiled format string.
#[derive(Clone, Debug)]
pub struct Format {
    parts: Box<[Part]>,
}

impl Format {
    /// Compiles a format in Envoy's notation: `%NAME%`, `%NAME(arguments)%`, `%NAME(…):LENGTH%`,
    /// and `%%` for a percent sign.
    ///
    /// # Errors
    ///
    /// [`FormatError`].
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        if text.len() > FORMAT_BYTES_MAX {
            return Err(FormatError::TooLong);
        }
        let mut parts = Vec::new();
        let mut literal = Vec::new();
        let mut at = 0;
        while at < text.len() {
            let rest = &text[at..];
            let Some(percent) = rest.find('%') else {
                literal.extend_from_slice(rest.as_bytes());
                break;
            };
            literal.extend_from_slice(&rest.as_bytes()[..percent]);
            at += percent;
            if text[at + 1..].starts_with('%') {
                literal.push(b'%');
                at += 2;
                continue;
            }
            let (operator, len) = command(text, at)?;
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal).into()));
            }
            parts.push(Part::Operator(operator));
            at += len;
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal.into()));
        }
        Ok(Self { parts: parts.into() })
    }

    /// Appends the record in this format. `absent` stands for values that are not there.
    pub fn write(&self, record: &Record<'_>, escape: Escape, absent: &[u8], out: &mut Vec<u8>) {
        for part in &self.parts {
            match part {
                Part::Literal(literal) => out.extend_from_slice(literal),
                Part::Operator(operator) => match operator.value(record) {
                    Value::Absent => out.extend_from_slice(absent),
                    value => value.write(escape, operator.length_max(), out),
                },
            }
        }
    }

    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }
}

/// Reads the command whose `%` is at `at`; returns it with its length.
fn command(text: &str, at: usize) -> Result<(Operator, usize), FormatError> {
    let malformed = FormatError::Malformed { at };
    let body = &text[at + 1..];
    let is_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let name_len = body.find(|c| !is_name(c)).ok_or_else(|| malformed.clone())?;
    let name = &body[..name_len];
    let mut rest = &body[name_len..];
    let mut arguments = None;
    if let Some(inside) = rest.strip_prefix('(') {
        let close = inside.find(')').ok_or_else(|| malformed.clone())?;
        arguments = Some(&inside[..close]);
        rest = &inside[close + 1..];
    }
    let mut length = None;
    if let Some(digits) = rest.strip_prefix(':') {
        let end = digits.find('%').ok_or_else(|| malformed.clone())?;
        length = Some(digits[..end].parse::<usize>().map_err(|_| malformed.clone())?);
        rest = &digits[end..];
    }
    if name.is_empty() || !rest.starts_with('%') {
        return Err(malformed);
    }
    let operator = Operator::parse(name, arguments, length)?;
    Ok((operator, text.len() - at - rest.len() + 1))
}
