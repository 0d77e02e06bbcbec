//! What an endpoint's answer may not bring back: fields that the guard removes, and the secret.
//!
//! In:    a response's head; the first bytes of its body.
//! Out:   whether it may go on; whether the request is tried with the version before.
//! Never: looks inside of compressed content.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use memchr::memmem;
use sluis_rules::{Injection, is_same};
use zeroize::Zeroizing;

use super::{Promise, record};
use crate::{
    access_log::Flag,
    http::{desk::Desk, reply::Reply, site::Site},
};

/// Shorter values are not looked for: they are in any text.
const NEEDLE_BYTES_MIN: usize = 6;

/// What becomes of a response.
#[derive(Debug)]
pub(in crate::http) enum Judged {
    /// It goes on.
    Passes,
    /// It says no to a version that is too new for it: the one before is tried.
    TryPrevious,
    /// It holds the secret: this is told instead.
    Echo(Box<Reply<'static>>),
}

/// Judges a response's head, and removes what must not go on.
pub(in crate::http) fn judge_head(
    site: Site<'_>,
    promise: &Promise<'_>,
    desk: &mut Desk,
    is_repeatable: bool,
) -> Judged {
    if promise.is_empty() {
        return Judged::Passes;
    }
    let is_refused = desk.response.status() == 401;
    let has_new_nonce = hear(site, promise, desk, is_refused);
    if has_new_nonce && is_refused && is_repeatable && !promise.has_new_nonce {
        return Judged::TryPrevious;
    }
    if is_refused && is_repeatable && !promise.uses_previous && promise.has_previous() {
        return Judged::TryPrevious;
    }
    for (choice, _) in promise.choices() {
        let gone = &choice.credential.guard.strip_response;
        if !gone.is_empty() {
            let fields = &mut desk.response.fields;
            fields.remove_where(|name, _| gone.iter().any(|own| is_same(own, name)));
        }
    }
    if promise.scan_bytes() == 0 {
        return Judged::Passes;
    }
    let needles = promise.needles();
    let mut fields = desk.response.fields.iter();
    match fields.any(|(_, value)| holds(value, &needles)) {
        true => Judged::Echo(echo(site)),
        false => Judged::Passes,
    }
}

/// Hears what a response says of the token that its request carried; whether it is a new nonce for
/// proofs (RFC 9449 §9).
fn hear(site: Site<'_>, promise: &Promise<'_>, desk: &Desk, is_refused: bool) -> bool {
    if promise.tokens.is_empty() {
        return false;
    }
    let config = site.worker.peek_config();
    let authority = std::str::from_utf8(desk.request.authority());
    let nonce = desk.response.fields.get_name(b"dpop-nonce");
    let is_new = match (authority, nonce) {
        (Ok(authority), Some(nonce)) if promise.is_bound() => {
            config.settings.tokens.remember(authority, nonce)
        }
        _ => false,
    };
    if is_refused && !is_new {
        let now = site.worker.now();
        promise.tokens.iter().for_each(|(_, held)| held.refuse(now));
    }
    is_new
}

/// Judges the first bytes of a response's body.
pub(in crate::http) fn judge_body(
    site: Site<'_>,
    promise: &Promise<'_>,
    body: &[u8],
) -> Option<Box<Reply<'static>>> {
    holds(body, &promise.needles()).then(|| echo(site))
}

fn echo(site: Site<'_>) -> Box<Reply<'static>> {
    tracing::warn!(remote = %site.connection.remote, "an endpoint's response holds a credential");
    record::echoed(site);
    let reply = Reply::new(502, "credential_echo").flag(Flag::CredentialEchoed);
    reply.text("response blocked").into()
}

fn holds(text: &[u8], needles: &[Needle]) -> bool {
    needles.iter().any(|needle| memmem::find(text, needle).is_some())
}

type Needle = Zeroizing<Vec<u8>>;

impl Promise<'_> {
    /// Whether a token is carried that is bound to our key.
    pub(super) fn is_bound(&self) -> bool {
        self.choices().any(|(choice, _)| match &choice.credential.injection {
            Injection::Token(token) => token.flow().is_bound(),
            _ => false,
        })
    }

    /// Whether there is a version before the one that was used, and another one than that.
    fn has_previous(&self) -> bool {
        self.choices().any(|(choice, places)| {
            // A token is fetched with one version: another would not change it.
            if matches!(choice.credential.injection, Injection::Token(_)) {
                return false;
            }
            let previous = places.previous.as_ref().and_then(|slot| slot.generic());
            let Some(previous) = previous else { return false };
            self.used.as_ref().is_none_or(|used| !std::sync::Arc::ptr_eq(used, &previous))
        })
    }

    /// The secret as it may be written.
    fn needles(&self) -> Vec<Needle> {
        let Some(used) = &self.used else { return Vec::new() };
        let keys = self.choices().flat_map(|(choice, _)| &choice.credential.hidden);
        let values = keys.filter_map(|key| used.entry(key));
        values.filter(|value| value.len() >= NEEDLE_BYTES_MIN).flat_map(written).collect()
    }
}

/// A value as it is, in base64 wherever it stands in what was encoded, in hexadecimal, and as in a
/// URL.
fn written(value: &[u8]) -> Vec<Needle> {
    let hex: Vec<u8> = value.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect();
    let mut all = vec![value.to_vec(), hex.to_ascii_uppercase(), hex];
    for shift in 0..3 {
        // The digits that come of this value alone.
        let padded = [&b"\0\0"[..shift], value].concat();
        let first = [0, 2, 3][shift];
        let last = padded.len() * 8 / 6;
        for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            let digits = engine.encode(&padded);
            all.push(digits.as_bytes()[first..last].to_vec());
        }
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let escaped = value.iter().flat_map(|byte| match plain(*byte) {
        true => vec![*byte],
        false => format!("%{byte:02X}").into_bytes(),
    });
    all.push(escaped.collect());
    all.dedup();
    all.into_iter().map(Zeroizing::new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_in_every_form_and_place() {
        let value = b"s3cret/value+1";
        let needles = written(value);
        let texts = [
            "x s3cret/value+1 y".to_owned(),
            "s3cret%2Fvalue%2B1".to_owned(),
            "7333637265742f76616c75652b31".to_owned(),
            base64::engine::general_purpose::STANDARD.encode("user:s3cret/value+1"),
            base64::engine::general_purpose::STANDARD.encode("user1:s3cret/value+1 and more"),
            URL_SAFE_NO_PAD.encode("user12:s3cret/value+1!"),
        ];
        for text in texts {
            assert!(holds(text.as_bytes(), &needles), "{text}");
        }
        for text in ["s3cret/value+2", "", "czNjcmV0L3ZhbHVl"] {
            assert!(!holds(text.as_bytes(), &needles), "{text}");
        }
    }
}
