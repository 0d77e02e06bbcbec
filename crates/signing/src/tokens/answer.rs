//! What an authorization server answers.
//!
//! In:    a status and a body (RFC 6749 §5.1 and §5.2).
//! Out:   a [`Token`] and how long it is good, or why there is none.
//! Never: shows a token.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;

use super::Flow;
use crate::{Moment, Secret};

/// Longest answer, in bytes. A token has some KiB, for it stands in a field.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Longest token, in bytes: servers refuse fields that are longer.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// How long a token is good where the server does not say.
const LIFETIME_SECONDS_DEFAULT: u64 = 300;

/// How long at most, whatever the server says: its clock may be wrong, and rights are taken away.
const LIFETIME_SECONDS_MAX: u64 = 24 * 3600;

/// So long before its end a token is fetched anew, or a fifth of its life before.
const AHEAD_SECONDS_MAX: u64 = 30;

/// A token of an authorization server.
#[derive(Debug)]
pub struct Token {
    value: Secret,
    lifetime_seconds: u64,
}

/// Why there is no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnswerError {
    /// The server refuses, and will refuse the same again.
    #[error("the authorization server refuses: {code}, status {status}")]
    Refused {
        /// The status of its answer.
        status: u16,
        /// RFC 6749 §5.2, or `unknown`.
        code: String,
    },

    /// RFC 9449 §8: the same is to be asked with the nonce of the answer's field `DPoP-Nonce`.
    #[error("the authorization server wants a nonce in the proof")]
    NonceWanted,

    /// The server has a fault of its own.
    #[error("the authorization server fails: status {status}")]
    Failed {
        /// The status of its answer.
        status: u16,
    },

    /// The answer is not what RFC 6749 §5.1 asks for.
    #[error("the authorization server's answer has {what}")]
    Malformed {
        /// What is wrong with it.
        what: &'static str,
    },
}

impl Token {
    /// Itself.
    #[must_use]
    pub fn value(&self) -> &Secret {
        &self.value
    }

    /// How long it may be used, in seconds from the answer.
    #[must_use]
    pub fn lifetime_seconds(&self) -> u64 {
        self.lifetime_seconds
    }

    /// After how many seconds it is to be fetched anew, though it is still good.
    #[must_use]
    pub fn fresh_seconds(&self) -> u64 {
        self.lifetime_seconds - (self.lifetime_seconds / 5).min(AHEAD_SECONDS_MAX)
    }
}

impl Flow {
    /// Reads an answer. A token that was had for a subject's is not good for longer than that one, where
    /// that is a JWT that says so.
    ///
    /// # Errors
    ///
    /// Why there is no token.
    pub fn answer(
        &self,
        status: u16,
        body: &[u8],
        subject: Option<&str>,
        moment: &Moment,
    ) -> Result<Token, AnswerError> {
        let fields: Option<Value> = serde_json::from_slice(body).ok();
        if status != 200 {
            return Err(refusal(status, fields.as_ref()));
        }
        let malformed = |what| AnswerError::Malformed { what };
        let fields = fields.ok_or(malformed("no JSON"))?;
        let kind = fields["token_type"].as_str().ok_or(malformed("no token_type"))?;
        // RFC 8693 §2.2.1: what is not an access token has the type N_A.
        let wanted: &[&str] = if self.is_bound() { &["dpop"] } else { &["bearer", "n_a"] };
        if !wanted.contains(&kind.to_ascii_lowercase().as_str()) {
            return Err(malformed("another token_type than was asked for"));
        }
        let value = fields["access_token"].as_str().ok_or(malformed("no access_token"))?;
        // RFC 6750 §2.1, and what else can stand in a field.
        let is_good = |byte: u8| (0x21..0x7f).contains(&byte);
        if value.is_empty() || value.len() > TOKEN_BYTES_MAX || !value.bytes().all(is_good) {
            return Err(malformed("an access_token that cannot be sent"));
        }
        let lifetime = match &fields["expires_in"] {
            Value::Null => LIFETIME_SECONDS_DEFAULT,
            // Some servers write the number as a text.
            Value::String(text) => text.parse().map_err(|_| malformed("no number expires_in"))?,
            number => number.as_u64().ok_or(malformed("no number expires_in"))?,
        };
        let now = moment.unix_seconds();
        let rest = subject.and_then(expiry).map(|end| u64::try_from(end - now).unwrap_or(0));
        let lifetime = lifetime.min(LIFETIME_SECONDS_MAX).min(rest.unwrap_or(u64::MAX));
        Ok(Token { value: Secret::new(value.into()), lifetime_seconds: lifetime })
    }
}

fn refusal(status: u16, fields: Option<&Value>) -> AnswerError {
    let code = fields.and_then(|fields| fields["error"].as_str()).unwrap_or("unknown");
    // RFC 9449 §8 has 400; some servers say 401.
    if matches!(status, 400 | 401) && code == "use_dpop_nonce" {
        return AnswerError::NonceWanted;
    }
    if status >= 500 || status == 429 || status < 400 {
        return AnswerError::Failed { status };
    }
    // Of the server's words only a code that is one.
    let is_code = code.len() <= 64 && code.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    AnswerError::Refused { status, code: if is_code { code } else { "unknown" }.to_owned() }
}

/// `exp` of a JWT. It is not verified: it only makes a life shorter.
fn expiry(token: &str) -> Option<i64> {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    let end = &claims["exp"];
    #[expect(clippy::cast_possible_truncation, reason = "a date of fractions loses only these")]
    end.as_i64().or_else(|| end.as_f64().map(|end| end as i64))
}
