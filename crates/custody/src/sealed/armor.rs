//! The text form of a sealed file: base64 between two lines, as age writes it.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::{COLUMNS, SealError};
use crate::value::BYTES_MAX;

const BEGIN: &str = "-----BEGIN AGE ENCRYPTED FILE-----";
const END: &str = "-----END AGE ENCRYPTED FILE-----";

/// Bytes of text at most: those of the largest secret in base64, with room for the header.
const TEXT_MAX: usize = 2 * BYTES_MAX;

pub(super) fn put_on(sealed: &[u8]) -> String {
    let body = STANDARD.encode(sealed);
    let mut text = format!("{BEGIN}\n");
    for at in (0..body.len()).step_by(COLUMNS) {
        text.push_str(&body[at..body.len().min(at + COLUMNS)]);
        text.push('\n');
    }
    text.push_str(END);
    text.push('\n');
    text
}

pub(super) fn take_off(text: &str) -> Result<Vec<u8>, SealError> {
    if text.len() > TEXT_MAX {
        return Err(SealError::TooLarge);
    }
    let body = text
        .trim()
        .strip_prefix(BEGIN)
        .and_then(|rest| rest.strip_suffix(END))
        .ok_or(SealError::Format("it has no armor"))?;
    let body: String = body.split_whitespace().collect();
    STANDARD.decode(body).map_err(|_| SealError::Format("its base64 is broken"))
}
