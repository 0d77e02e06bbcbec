//! A request as a scheme sees it: without what is the scheme's own to set.
//!
//! In:    a [`RequestView`], what the scheme owns, the moment.
//! Out:   its parts; a refusal of what no HTTP message can hold.
//! Never: shows a scheme the client's copy of a field, a parameter or a cookie that the scheme sets.

use std::borrow::Cow;

use zeroize::Zeroizing;

use crate::{Digest, Edits, HashAlgorithm, Moment, Owned, RequestView, SignError, query};

/// A request, less what the scheme owns, with what it has added so far.
pub(crate) struct View<'r> {
    pub(crate) request: &'r RequestView<'r>,
    pub(crate) moment: &'r Moment,
    owned: &'r Owned,
    target: Cow<'r, str>,
    added: Vec<(String, Zeroizing<Vec<u8>>)>,
}

impl<'r> View<'r> {
    pub(crate) fn new(
        request: &'r RequestView<'r>,
        moment: &'r Moment,
        owned: &'r Owned,
    ) -> Result<Self, SignError> {
        let character = |part: &str| SignError::Character { part: part.to_owned() };
        if !is_token(request.method) {
            return Err(character("the method"));
        }
        let is_bad = |byte: u8| byte <= 0x20 || byte == 0x7f || byte == b'#';
        if request.authority.is_empty() || request.authority.bytes().any(is_bad) {
            return Err(character("the authority"));
        }
        if request.path_and_query.bytes().any(is_bad) {
            return Err(character("the target"));
        }
        if !request.path_and_query.starts_with('/') && request.path_and_query != "*" {
            return Err(SignError::Target);
        }
        for (name, value) in request.fields {
            let is_bad = |byte: &u8| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7f;
            if !is_token(name) || value.iter().any(is_bad) {
                return Err(character(&format!("the field {}", name.escape_default())));
            }
        }
        let target = query::without(request.path_and_query, &owned.parameters);
        Ok(Self { request, moment, owned, target, added: Vec::new() })
    }

    /// The edits that take the client's copies away.
    pub(crate) fn edits(&self) -> Result<Edits, SignError> {
        let mut edits = Edits::default();
        for (name, _) in self.request.fields {
            if self.owned.is_field(name) {
                edits.remove_field(name);
            }
        }
        if self.target != self.request.path_and_query {
            edits.set_target(self.target.to_string())?;
        }
        Ok(edits)
    }

    /// Path and query.
    pub(crate) fn target(&self) -> &str {
        &self.target
    }

    pub(crate) fn path(&self) -> &str {
        query::split(&self.target).0
    }

    pub(crate) fn query(&self) -> Option<&str> {
        query::split(&self.target).1
    }

    /// The authority without its port, in lower case.
    pub(crate) fn host(&self) -> String {
        let authority = self.request.authority;
        let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
        let host = match authority.rsplit_once(':') {
            Some((host, port)) if is_port(port) => host,
            _ => authority,
        };
        host.to_ascii_lowercase()
    }

    /// A field is sent with the signature, and later parts see it.
    pub(crate) fn add(&mut self, name: &str, value: &[u8]) {
        self.added.push((name.to_owned(), Zeroizing::new(value.to_vec())));
    }

    /// The values of a field as one (RFC 9110 §5.3): trimmed, with a comma and a space between.
    pub(crate) fn field(&self, name: &str) -> Option<Vec<u8>> {
        let values: Vec<&[u8]> = self.values(name).collect();
        if values.is_empty() { None } else { Some(values.join(&b", "[..])) }
    }

    /// The values of a field, trimmed.
    pub(crate) fn values(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.fields().filter(move |(known, _)| *known == name).map(|(_, value)| value)
    }

    /// All fields that will be sent, in order, with trimmed values.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let theirs = self.request.fields.iter().copied();
        let theirs = theirs.filter(|(name, _)| !self.owned.is_field(name));
        let ours = self.added.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
        theirs.chain(ours).map(|(name, value)| (name, value.trim_ascii()))
    }

    /// The cookies, without those that are owned.
    pub(crate) fn cookies(&self) -> Vec<&[u8]> {
        let fields = self.request.fields.iter().filter(|(name, _)| *name == "cookie");
        let cookies = fields.flat_map(|(_, value)| value.split(|byte| *byte == b';'));
        let name = |cookie: &[u8]| {
            let end = cookie.iter().position(|byte| *byte == b'=').unwrap_or(cookie.len());
            cookie[..end].trim_ascii().to_vec()
        };
        let is_owned = |cookie: &[u8]| {
            let name = name(cookie);
            self.owned.cookies.iter().any(|owned| owned.as_bytes() == name)
        };
        let cookies = cookies.map(<[u8]>::trim_ascii).filter(|cookie| !cookie.is_empty());
        cookies.filter(|cookie| !is_owned(cookie)).collect()
    }

    /// The digest of the body by an algorithm.
    pub(crate) fn digest(&self, wanted: HashAlgorithm) -> Result<&'r Digest, SignError> {
        let digest = self.request.body.filter(|digest| digest.algorithm() == wanted);
        digest.ok_or(SignError::NoDigest { wanted })
    }
}

/// The bytes of a token.
const TOKEN_BYTES: [bool; 256] = {
    let mut table = [false; 256];
    let marks = b"!#$%&'*+-.^_`|~";
    let mut at = 0;
    while at < marks.len() {
        table[marks[at] as usize] = true;
        at += 1;
    }
    let mut byte = 0_u8;
    while byte < 0x80 {
        table[byte as usize] |= byte.is_ascii_alphanumeric();
        byte += 1;
    }
    table
};

/// RFC 9110 §5.6.2.
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| TOKEN_BYTES[usize::from(byte)])
}
