//! The secret as it is: a field, Basic authentication, a parameter, a cookie.

use super::{Job, Owned, SchemeError, Way, field_name, prefix, required};
use crate::{Material, MaterialError, SignError, digest::base64, keys::Key, query, view::is_token};

/// `NAME: PREFIX + value`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The field.
    pub name: String,
    /// Before the value, such as `Bearer `.
    pub prefix: String,
    /// The entry of the secret.
    pub key: String,
}

impl Header {
    pub(super) fn compile(self) -> Result<Self, SchemeError> {
        required("key", &self.key)?;
        prefix("prefix", &self.prefix)?;
        Ok(Self { name: field_name("name", &self.name)?, ..self })
    }
}

impl Way for Header {
    fn owned(&self) -> Owned {
        Owned::of_field(&self.name)
    }

    fn prepare(&self, material: &Material) -> Result<Option<Key>, MaterialError> {
        material.text(&self.key).map(|_| None)
    }

    fn sign(&self, job: &mut Job<'_>) -> Result<(), SignError> {
        let value = job.material.text(&self.key).map_err(|_| SignError::Library)?;
        job.edits.set_field(&self.name, [self.prefix.as_bytes(), value.as_bytes()].concat())
    }
}

/// Basic authentication (RFC 7617).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Basic {
    /// The entry of the secret.
    pub username_key: String,
    /// The entry of the secret.
    pub password_key: String,
    /// The field; empty is `authorization`.
    pub header: String,
}

impl Basic {
    pub(super) fn compile(self) -> Result<Self, SchemeError> {
        required("username_key", &self.username_key)?;
        required("password_key", &self.password_key)?;
        let header = if self.header.is_empty() { "authorization" } else { &self.header };
        Ok(Self { header: field_name("header", header)?, ..self })
    }
}

impl Way for Basic {
    fn owned(&self) -> Owned {
        Owned::of_field(&self.header)
    }

    fn prepare(&self, material: &Material) -> Result<Option<Key>, MaterialError> {
        material.text(&self.password_key)?;
        // RFC 7617 §2: "a user-id containing a colon character is invalid".
        if material.text(&self.username_key)?.contains(':') {
            let entry = self.username_key.clone();
            return Err(MaterialError::Character { entry, place: "a name before a colon" });
        }
        Ok(None)
    }

    fn sign(&self, job: &mut Job<'_>) -> Result<(), SignError> {
        let text = |entry| job.material.text(entry).map_err(|_| SignError::Library);
        let pair = [text(&self.username_key)?, ":", text(&self.password_key)?].concat();
        let pair = zeroize::Zeroizing::new(pair);
        job.edits.set_field(&self.header, format!("Basic {}", base64(pair.as_bytes())).into_bytes())
    }
}

/// A parameter of the query, at its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// Decoded.
    pub name: String,
    /// The entry of the secret.
    pub key: String,
}

impl Query {
    pub(super) fn compile(self) -> Result<Self, SchemeError> {
        required("name", &self.name)?;
        required("key", &self.key)?;
        Ok(self)
    }
}

impl Way for Query {
    fn owned(&self) -> Owned {
        Owned { parameters: vec![self.name.clone()], ..Owned::default() }
    }

    fn prepare(&self, material: &Material) -> Result<Option<Key>, MaterialError> {
        material.text(&self.key).map(|_| None)
    }

    fn sign(&self, job: &mut Job<'_>) -> Result<(), SignError> {
        if job.view.path() == "*" {
            return Err(SignError::Target);
        }
        let value = job.material.text(&self.key).map_err(|_| SignError::Library)?;
        let (name, value) =
            (query::encode(self.name.as_bytes(), b""), query::encode(value.as_bytes(), b""));
        job.edits.set_target(query::with(job.view.target(), &format!("{name}={value}")))
    }
}

/// A cookie, after the client's others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cookie {
    /// Its name.
    pub name: String,
    /// The entry of the secret.
    pub key: String,
}

impl Cookie {
    pub(super) fn compile(self) -> Result<Self, SchemeError> {
        required("key", &self.key)?;
        if !is_token(&self.name) {
            return Err(SchemeError::Name { what: "name", name: self.name });
        }
        Ok(self)
    }
}

/// RFC 6265 §4.1.1.
fn is_cookie_octet(byte: u8) -> bool {
    matches!(byte, 0x21 | 0x23..=0x2b | 0x2d..=0x3a | 0x3c..=0x5b | 0x5d..=0x7e)
}

impl Way for Cookie {
    fn owned(&self) -> Owned {
        Owned { cookies: vec![self.name.clone()], ..Owned::default() }
    }

    fn prepare(&self, material: &Material) -> Result<Option<Key>, MaterialError> {
        if !material.text(&self.key)?.bytes().all(is_cookie_octet) {
            let entry = self.key.clone();
            return Err(MaterialError::Character { entry, place: "a cookie" });
        }
        Ok(None)
    }

    fn sign(&self, job: &mut Job<'_>) -> Result<(), SignError> {
        let value = job.material.text(&self.key).map_err(|_| SignError::Library)?;
        let own = [self.name.as_bytes(), b"=", value.as_bytes()].concat();
        let mut cookies = job.view.cookies();
        cookies.push(&own);
        let value = cookies.join(&b"; "[..]);
        job.edits.set_field("cookie", value)
    }
}
