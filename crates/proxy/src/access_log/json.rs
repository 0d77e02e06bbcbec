//! JSON log lines: an object whose strings are formats.

use std::sync::Arc;

use sluis_rules::JsonFormat;

use super::{
    format::{Format, Part},
    operator::{FormatError, Operator},
    record::Record,
    value::{Escape, Value},
};

/// A JSON value whose strings are compiled formats.
#[derive(Debug)]
pub(super) struct Json {
    node: Node,
    omits_empty: bool,
}

#[derive(Debug)]
enum Node {
    /// Encoded already.
    Constant(Box<[u8]>),
    /// A lone operator keeps its type.
    Operator(Operator),
    Text(Format),
    List(Vec<Self>),
    Object(Vec<(Box<[u8]>, Self)>),
}

impl Json {
    pub(super) fn compile(format: &JsonFormat, omits_empty: bool) -> Result<Self, FormatError> {
        Ok(Self { node: Node::compile(format)?, omits_empty })
    }

    /// Appends the record as one line.
    pub(super) fn write_line(&self, record: &Record<'_>, out: &mut Vec<u8>) {
        self.node.write(record, self.omits_empty, out);
        out.push(b'\n');
    }
}

impl Node {
    fn compile(format: &JsonFormat) -> Result<Self, FormatError> {
        Ok(match format {
            JsonFormat::Null => Self::Constant(b"null".as_slice().into()),
            JsonFormat::Bool(value) => Self::Constant(value.to_string().into_bytes().into()),
            JsonFormat::Number(value) if value.is_finite() => {
                Self::Constant(value.to_string().into_bytes().into())
            }
            JsonFormat::Number(_) => Self::Constant(b"null".as_slice().into()),
            JsonFormat::Text(text) => Self::compile_text(text)?,
            JsonFormat::List(list) => {
                Self::List(list.iter().map(Self::compile).collect::<Result<_, _>>()?)
            }
            JsonFormat::Object(entries) => {
                let entry = |(name, value): &(Arc<str>, JsonFormat)| {
                    let mut key = Vec::new();
                    string(name.as_bytes(), &mut key);
                    key.push(b':');
                    Ok((key.into_boxed_slice(), Self::compile(value)?))
                };
                Self::Object(entries.iter().map(entry).collect::<Result<_, _>>()?)
            }
        })
    }

    fn compile_text(text: &str) -> Result<Self, FormatError> {
        let format = Format::parse(text)?;
        Ok(match format.parts() {
            [Part::Operator(operator)] => Self::Operator(operator.clone()),
            _ => Self::Text(format),
        })
    }

    fn write(&self, record: &Record<'_>, omits_empty: bool, out: &mut Vec<u8>) {
        match self {
            Self::Constant(json) => out.extend_from_slice(json),
            Self::Operator(operator) => scalar(&operator.value(record), operator, out),
            Self::Text(format) => {
                let mut text = Vec::new();
                let absent: &[u8] = if omits_empty { b"" } else { b"-" };
                format.write(record, Escape::Raw, absent, &mut text);
                string(&text, out);
            }
            Self::List(list) => {
                out.push(b'[');
                for (at, node) in list.iter().enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    node.write(record, omits_empty, out);
                }
                out.push(b']');
            }
            Self::Object(entries) => {
                out.push(b'{');
                let mut is_first = true;
                for (key, node) in entries {
                    if omits_empty && node.is_absent(record) {
                        continue;
                    }
                    if !std::mem::take(&mut is_first) {
                        out.push(b',');
                    }
                    out.extend_from_slice(key);
                    node.write(record, omits_empty, out);
                }
                out.push(b'}');
            }
        }
    }

    fn is_absent(&self, record: &Record<'_>) -> bool {
        matches!(self, Self::Operator(operator) if operator.value(record).is_absent())
    }
}

fn scalar(value: &Value<'_>, operator: &Operator, out: &mut Vec<u8>) {
    match value {
        Value::Absent => out.extend_from_slice(b"null"),
        Value::Number(_) => value.write(Escape::Raw, None, out),
        Value::Bytes(bytes) => {
            let len = operator.length_max().unwrap_or(bytes.len()).min(bytes.len());
            string(&bytes[..len], out);
        }
        _ => string(&value.raw(operator.length_max()), out),
    }
}

/// Appends a JSON string (RFC 8259 §7). Bytes that are not UTF-8 become U+00HH: the line stays
/// valid JSON, and the byte can still be told.
fn string(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for chunk in bytes.utf8_chunks() {
        for &byte in chunk.valid().as_bytes() {
            match byte {
                b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
                0..=0x1f | 0x7f => escaped(byte, out),
                _ => out.push(byte),
            }
        }
        chunk.invalid().iter().for_each(|&byte| escaped(byte, out));
    }
    out.push(b'"');
}

fn escaped(byte: u8, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(b"\\u00");
    out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
}
