//! The ways to add a credential: as written ([`Kind`]), as meant ([`Scheme`]), with a secret
//! ([`Signer`]).
//!
//! In:    a kind; material; a request.
//! Out:   edits; what the scheme needs of the body, and what of a request is its own.
//! Never: signs with a scheme that has not been checked as a whole.

mod aws;
mod hmac;
mod jwt;
mod message;
mod plain;

use std::{fmt, sync::Arc};

pub use aws::{AwsSigV4, Place, SignedFields};
pub use hmac::{Hmac, Output};
pub use jwt::JwtSign;
pub use message::{KeyId, MessageSignature};
pub use plain::{Basic, Cookie, Header, Query};

use crate::{
    BodyNeed, Edits, HashAlgorithm, Material, MaterialError, Moment, RequestView, SignError,
    TemplateError,
    keys::Key,
    view::{View, is_token},
};

/// A way to add a credential, as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `NAME: PREFIX + value`.
    Header(Header),
    /// RFC 7617.
    Basic(Basic),
    /// A parameter of the query.
    Query(Query),
    /// A cookie.
    Cookie(Cookie),
    /// A signature by template.
    Hmac(Hmac),
    /// RFC 9421.
    MessageSignature(MessageSignature),
    /// AWS Signature Version 4.
    AwsSigV4(AwsSigV4),
    /// A token that is signed for each request anew.
    JwtSign(JwtSign),
}

/// A way to add a credential, checked.
#[derive(Clone)]
pub struct Scheme {
    way: Arc<dyn Way>,
    owned: Arc<Owned>,
}

impl Scheme {
    /// Checks a kind as a whole.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn compile(kind: Kind) -> Result<Self, SchemeError> {
        let way: Arc<dyn Way> = match kind {
            Kind::Header(kind) => Arc::new(kind.compile()?),
            Kind::Basic(kind) => Arc::new(kind.compile()?),
            Kind::Query(kind) => Arc::new(kind.compile()?),
            Kind::Cookie(kind) => Arc::new(kind.compile()?),
            Kind::Hmac(kind) => Arc::new(kind.compile()?),
            Kind::MessageSignature(kind) => Arc::new(kind.compile()?),
            Kind::AwsSigV4(kind) => Arc::new(kind.compile()?),
            Kind::JwtSign(kind) => Arc::new(kind.compile()?),
        };
        let owned = Arc::new(way.owned());
        Ok(Self { way, owned })
    }

    /// What it needs of the body before the head can be sent; nothing, and the body streams.
    #[must_use]
    pub fn needs_body(&self) -> Option<BodyNeed> {
        self.way.needs_body()
    }

    /// What of a request is its own, so that the client's copies must go.
    #[must_use]
    pub fn owned(&self) -> &Owned {
        &self.owned
    }

    /// Reads the keys of one version of the secret.
    ///
    /// # Errors
    ///
    /// Why the secret does not fit.
    pub fn signer(&self, material: Arc<Material>) -> Result<Signer, MaterialError> {
        let key = self.way.prepare(&material)?;
        Ok(Signer { scheme: self.clone(), material, key })
    }
}

impl fmt::Debug for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scheme").field("owned", &self.owned).finish_non_exhaustive()
    }
}

/// A scheme with one version of its secret.
pub struct Signer {
    scheme: Scheme,
    material: Arc<Material>,
    key: Option<Key>,
}

impl Signer {
    /// Its scheme.
    #[must_use]
    pub fn scheme(&self) -> &Scheme {
        &self.scheme
    }

    /// Says what to change in a request. What the client sent of [`Scheme::owned`] is not looked at,
    /// and is taken away.
    ///
    /// # Errors
    ///
    /// Why the request must not be sent.
    pub fn sign(&self, request: &RequestView<'_>, moment: &Moment) -> Result<Edits, SignError> {
        let view = View::new(request, moment, &self.scheme.owned)?;
        let edits = view.edits()?;
        let mut job = Job { view, edits, material: &self.material, key: self.key.as_ref() };
        self.scheme.way.sign(&mut job)?;
        Ok(job.edits)
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("scheme", &self.scheme).finish_non_exhaustive()
    }
}

/// One signing under way.
struct Job<'j> {
    view: View<'j>,
    edits: Edits,
    material: &'j Material,
    key: Option<&'j Key>,
}

impl Job<'_> {
    /// Sends a field, and lets what is signed see it.
    fn set(&mut self, name: &str, value: Vec<u8>) -> Result<(), SignError> {
        self.view.add(name, &value);
        self.edits.set_field(name, value)
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        self.key.ok_or(SignError::Library)?.sign(message)
    }
}

/// A checked kind.
trait Way: Send + Sync {
    fn owned(&self) -> Owned;

    fn needs_body(&self) -> Option<BodyNeed> {
        None
    }

    /// Sees that the secret fits, and reads the key if there is one.
    fn prepare(&self, material: &Material) -> Result<Option<Key>, MaterialError>;

    fn sign(&self, job: &mut Job<'_>) -> Result<(), SignError>;
}

/// What of a request a scheme sets itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owned {
    /// Fields, in lower case.
    pub fields: Vec<String>,
    /// Parameters of the query, decoded. Their case does not matter.
    pub parameters: Vec<String>,
    /// Cookies, whose case matters (RFC 6265 §5.4).
    pub cookies: Vec<String>,
}

impl Owned {
    /// Whether a field is one of these, in any spelling: servers that turn fields into variables
    /// (RFC 3875 §4.1.18) read `X_Date` as `X-Date`.
    #[must_use]
    pub fn is_field(&self, name: &str) -> bool {
        let plain = |byte: u8| if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
        self.fields.iter().any(|field| field.bytes().map(plain).eq(name.bytes().map(plain)))
    }

    fn of_field(name: &str) -> Self {
        Self { fields: vec![name.to_owned()], ..Self::default() }
    }
}

/// Why a kind is none that can be carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemeError {
    /// A template cannot be read.
    #[error(transparent)]
    Template(#[from] TemplateError),

    /// A name that no field, parameter or cookie can have.
    #[error("{what}: {name:?} is no name, or one that may not be set")]
    Name {
        /// Which setting.
        what: &'static str,
        /// Its value.
        name: String,
    },

    /// A setting that must be there is not.
    #[error("{what} is missing")]
    Missing {
        /// Which setting.
        what: &'static str,
    },

    /// RFC 9530 has no name for this hash.
    #[error("content-digest has no name for {algorithm:?}: sha-256 and sha-512 have one")]
    DigestName {
        /// The hash.
        algorithm: HashAlgorithm,
    },

    /// A component of a signature that is unknown, or that cannot be covered here.
    #[error("component {component}: {reason}")]
    Component {
        /// As written.
        component: String,
        /// Why it cannot be covered.
        reason: &'static str,
    },

    /// An algorithm that is unknown.
    #[error("algorithm {name:?} is unknown")]
    Algorithm {
        /// Its name.
        name: String,
    },

    /// A setting is out of its range.
    #[error("{what} is out of range: {reason}")]
    Range {
        /// Which setting.
        what: &'static str,
        /// What the range is.
        reason: &'static str,
    },
}

/// Fields that frame the message or bind it to its server, or that proxies change: none is set here.
const FIELDS_NEVER_SET: [&str; 10] = [
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "keep-alive",
    "proxy-connection",
];

/// The name of a field that may be set, in lower case.
pub(crate) fn field_name(what: &'static str, name: &str) -> Result<String, SchemeError> {
    let lower = name.to_ascii_lowercase();
    if !is_token(&lower) || FIELDS_NEVER_SET.contains(&lower.as_str()) {
        return Err(SchemeError::Name { what, name: name.to_owned() });
    }
    Ok(lower)
}

/// A setting that must not be empty.
pub(crate) fn required(what: &'static str, value: &str) -> Result<(), SchemeError> {
    if value.is_empty() { Err(SchemeError::Missing { what }) } else { Ok(()) }
}

/// Text that may stand in front of a value in a field.
pub(crate) fn prefix(what: &'static str, text: &str) -> Result<(), SchemeError> {
    if text.chars().any(char::is_control) {
        return Err(SchemeError::Name { what, name: text.to_owned() });
    }
    Ok(())
}
