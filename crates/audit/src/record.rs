//! What a line of the audit log holds. No field is for a secret.

use serde::{Deserialize, Serialize};

use crate::text::{bounded, is_zero};

/// One line: when, which number, what, and the hash of the line before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Counts from 1, over restarts and files.
    pub seq: u64,
    /// When it was written, RFC 3339 in UTC with microseconds.
    pub time: String,
    /// What it tells.
    #[serde(flatten)]
    pub entry: Entry,
    /// SHA-256 of the line before, hexadecimal; zeros for the first.
    pub prev: String,
    /// Of a checkpoint: the signature, base64. Always last in the line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
}

/// What a line tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Entry {
    /// The log begins.
    Start(Writer),
    /// The log goes on in this file, after one that was full.
    Continue(Writer),
    /// The log goes on after its writer ended.
    Restart(Reopening),
    /// A credential was used, or was not given.
    Use(Box<Use>),
    /// Records that could not be kept.
    Gap(Gap),
    /// A signature over all before.
    Checkpoint(Checkpoint),
}

/// Who writes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writer {
    /// The proxy's node identifier.
    pub node: String,
    /// The program's version.
    pub version: String,
}

/// How the log was found at a start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reopening {
    /// Who writes now.
    pub writer: Writer,
    /// Whether it ended with the checkpoint of an orderly end.
    pub closed: bool,
    /// Bytes of a last line that was cut off; it stays as it is, the hash of it is in `prev`.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub torn_bytes: u64,
}

/// Records that could not be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// How many. Their requests were refused, unless the proxy is told to go on without.
    pub lost: u64,
}

/// A signature over the line itself, and through `prev` over all before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Why now.
    pub occasion: Occasion,
    /// Lines since the checkpoint before.
    pub lines: u64,
    /// The signature scheme, as TLS names it (RFC 8446 §4.2.3).
    pub scheme: String,
    /// The signer's certificates, leaf first, DER in base64.
    pub chain: Vec<String>,
}

/// Why a checkpoint was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Occasion {
    /// There were enough lines, or enough time had passed.
    #[default]
    Due,
    /// The file is full; the next one goes on.
    Full,
    /// The writer ends.
    Close,
}

/// What became of a request that a credential is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It went out with the credential.
    #[default]
    Injected,
    /// It went out without, as the credential allows.
    Without,
    /// No grant covers it: refused.
    Denied,
    /// There was no secret, no token or no signature: refused.
    Unavailable,
    /// The destination is not one that the credential may go to: refused.
    Guarded,
}

impl Verdict {
    /// Whether the request was refused.
    #[must_use]
    pub fn is_refusal(self) -> bool {
        matches!(self, Self::Denied | Self::Unavailable | Self::Guarded)
    }

    /// The word for it, as in the log.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Injected => "injected",
            Self::Without => "without",
            Self::Denied => "denied",
            Self::Unavailable => "unavailable",
            Self::Guarded => "guarded",
        }
    }
}

/// One use of a credential, or one refusal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Use {
    /// What became of it.
    pub verdict: Verdict,
    /// Who asked.
    pub who: Who,
    /// For what.
    pub what: What,
    /// The credential; `None` when no credential's grants cover the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<Credential>,
    /// The grant that covers it, NAMESPACE/NAME.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<String>,
    /// A grant in dry run that would have covered it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub would: Option<String>,
    /// Where it went.
    pub destination: Destination,
    /// Which try it was, from 1.
    pub attempt: u32,
    /// How it ended.
    pub result: Outcome,
}

/// Who asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// The identity of the client's certificate, `spiffe://…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// The user of a verified token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<User>,
    /// The other end of the connection, ADDRESS:PORT.
    pub source: String,
}

/// The user of a verified token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The claim `iss`.
    pub issuer: String,
    /// The claim `sub`.
    pub subject: String,
}

/// The request, as it is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct What {
    /// `GET` and so on.
    pub method: String,
    /// `http` or `https`, towards the endpoint.
    pub scheme: String,
    /// The host, with its port where it has one.
    pub host: String,
    /// The path and the names of the query's parameters: [`crate::target_without_values`].
    pub path: String,
    /// The field `x-request-id`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request_id: String,
    /// The field `traceparent` (W3C).
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub traceparent: String,
}

/// The credential, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// NAMESPACE/NAME.
    pub name: String,
    /// The version's label; never made of the value.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// How it was added: `header`, `hmac` and so on.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub injection: String,
    /// A keyed hash of the signature that was made, to settle what was sent. Never of the secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature_hash: Option<String>,
}

/// Where the request went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    /// The cluster.
    pub cluster: String,
    /// The endpoint, ADDRESS:PORT; empty before one was chosen.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub endpoint: String,
    /// The name that the endpoint's certificate was verified for; `None` when it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<String>,
}

/// How it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The status of the response; 0 when there was none.
    pub status: u16,
    /// Who made it and why, in the words of the access log.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub details: String,
    /// Bytes of the request's body.
    pub bytes_sent: u64,
    /// Bytes of the response's body.
    pub bytes_received: u64,
    /// From the beginning of the try to its end.
    pub milliseconds: u64,
}

/// Longest values that are kept: a name of DNS, an identity, a path, other text.
const NAME_BYTES_MAX: usize = 256;
const IDENTITY_BYTES_MAX: usize = 1024;
const PATH_BYTES_MAX: usize = 2048;

impl Use {
    /// The same with values of a length that a log can bear: peers choose most of them.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        let names = [
            &mut self.who.source,
            &mut self.what.method,
            &mut self.what.scheme,
            &mut self.what.host,
            &mut self.what.request_id,
            &mut self.what.traceparent,
            &mut self.destination.cluster,
            &mut self.destination.endpoint,
            &mut self.result.details,
        ];
        names.into_iter().for_each(|text| bounded(text, NAME_BYTES_MAX));
        bounded(&mut self.what.path, PATH_BYTES_MAX);
        if let Some(principal) = &mut self.who.principal {
            bounded(principal, IDENTITY_BYTES_MAX);
        }
        if let Some(user) = &mut self.who.user {
            bounded(&mut user.issuer, IDENTITY_BYTES_MAX);
            bounded(&mut user.subject, IDENTITY_BYTES_MAX);
        }
        if let Some(name) = &mut self.destination.verified {
            bounded(name, NAME_BYTES_MAX);
        }
        self
    }
}
