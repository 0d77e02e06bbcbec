//! The four forms of a request target (RFC 9112 §3.2).

use std::ops::Range;

use crate::{Authority, HostError, Method, TargetError};

/// Where the parts of a target lie in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// The authority, when the target has one.
    pub(crate) authority: Option<Range<usize>>,
    /// Path and query. May lack its leading `/` in absolute-form, see [`PathForm`].
    pub(crate) path: Range<usize>,
    pub(crate) form: PathForm,
}

/// How the path must be written in origin-form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathForm {
    /// As it stands.
    AsIs,
    /// A `/` is missing before it (`http://a?x`).
    SlashMissing,
    /// `*` is meant: OPTIONS with an absolute-form without path (RFC 9112 §3.2.4).
    Asterisk,
}

/// Splits a target by its form, checking every byte.
pub(crate) fn split(method: Method, target: &[u8]) -> Result<Target, TargetOrHost> {
    check_bytes(target)?;
    if method == Method::Connect {
        return authority_form(target);
    }
    match target {
        b"*" if method == Method::Options => Ok(as_is(0..1)),
        b"*" => Err(TargetError::Asterisk.into()),
        [b'/', ..] => {
            check_path(target)?;
            Ok(as_is(0..target.len()))
        }
        _ => absolute_form(method, target),
    }
}

/// A fault of the target or of the authority in it.
pub(crate) enum TargetOrHost {
    Target(TargetError),
    Host(HostError),
}

impl From<TargetError> for TargetOrHost {
    fn from(error: TargetError) -> Self {
        Self::Target(error)
    }
}

impl From<HostError> for TargetOrHost {
    fn from(error: HostError) -> Self {
        Self::Host(error)
    }
}

fn as_is(path: Range<usize>) -> Target {
    Target { authority: None, path, form: PathForm::AsIs }
}

fn check_bytes(target: &[u8]) -> Result<(), TargetError> {
    for &byte in target {
        match byte {
            b'#' => return Err(TargetError::Fragment),
            0x21..=0x7e => {}
            _ => return Err(TargetError::Byte),
        }
    }
    Ok(())
}

/// Some servers take `\` for `/`; so it must not be in a path. In a query it is harmless.
fn check_path(path_and_query: &[u8]) -> Result<(), TargetError> {
    let path = path_and_query.split(|&byte| byte == b'?').next().unwrap_or_default();
    if path.contains(&b'\\') { Err(TargetError::Byte) } else { Ok(()) }
}

fn authority_form(target: &[u8]) -> Result<Target, TargetOrHost> {
    let authority = Authority::parse(target).map_err(|_| TargetError::AuthorityForm)?;
    if authority.port.is_none() {
        return Err(TargetError::AuthorityForm.into());
    }
    Ok(Target { authority: Some(0..target.len()), path: 0..0, form: PathForm::AsIs })
}

fn absolute_form(method: Method, target: &[u8]) -> Result<Target, TargetOrHost> {
    let Some(colon) = memchr::memmem::find(target, b"://") else {
        let form = if Authority::parse(target).is_ok_and(|found| found.port.is_some()) {
            TargetError::AuthorityForm
        } else {
            TargetError::Form
        };
        return Err(form.into());
    };
    let scheme = &target[..colon];
    if !scheme.eq_ignore_ascii_case(b"http") && !scheme.eq_ignore_ascii_case(b"https") {
        return Err(TargetError::Scheme.into());
    }
    let start = colon + 3;
    let end = target[start..]
        .iter()
        .position(|byte| matches!(byte, b'/' | b'?'))
        .map_or(target.len(), |at| start + at);
    if target[start..end].contains(&b'@') {
        return Err(TargetError::Userinfo.into());
    }
    Authority::parse(&target[start..end])?;
    check_path(&target[end..])?;
    let form = match target.get(end) {
        Some(b'/') => PathForm::AsIs,
        None if method == Method::Options => PathForm::Asterisk,
        _ => PathForm::SlashMissing,
    };
    Ok(Target { authority: Some(start..end), path: end..target.len(), form })
}
