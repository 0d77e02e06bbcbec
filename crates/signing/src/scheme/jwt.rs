//! A token that is signed for each request anew.

use serde_json::{Map, Value};

use super::{Job, Owned, SchemeError, Way, field_name, prefix, required};
use crate::{
    KeySource, Material, MaterialError, SignError, SignatureAlgorithm,
    jws::{self, audience},
    keys::Key,
    template::{Site, Template, Values},
};

/// A day: what lives longer is a password.
const LIFETIME_SECONDS_MAX: u32 = 86_400;

/// A token that is signed for each request anew (RFC 7519, as RFC 7515's compact JWS).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JwtSign {
    /// As in RFC 7518 §3.1: `HS256`, `RS256`, `PS256`, `ES256`, `ES384`, `EdDSA` and their longer kin.
    pub algorithm: String,
    /// Where the key is.
    pub key: KeySource,
    /// `kid`; empty leaves it out.
    pub key_id: String,
    /// `iss`; empty leaves it out.
    pub issuer: String,
    /// `sub`; empty leaves it out.
    pub subject: String,
    /// `aud`: a text if there is one, a list if there are more.
    pub audiences: Vec<String>,
    /// `exp` after `iat`: 1 second to a day.
    pub lifetime_seconds: u32,
    /// More claims, all of them texts: templates as of [`crate::Hmac`].
    pub claims: Vec<(String, String)>,
    /// The field; empty is `authorization`.
    pub header: String,
    /// Before the token, such as `Bearer `.
    pub prefix: String,
}

/// A token, checked.
pub(super) struct Compiled {
    kind: JwtSign,
    algorithm: SignatureAlgorithm,
    claims: Vec<(String, Template)>,
}

impl JwtSign {
    pub(super) fn compile(mut self) -> Result<Compiled, SchemeError> {
        required("key", &self.key.entry)?;
        let algorithm = SignatureAlgorithm::of_jose(&self.algorithm)
            .ok_or(SchemeError::Algorithm { name: self.algorithm.clone() })?;
        if !(1..=LIFETIME_SECONDS_MAX).contains(&self.lifetime_seconds) {
            let reason = "1 second to a day";
            return Err(SchemeError::Range { what: "lifetime_seconds", reason });
        }
        prefix("prefix", &self.prefix)?;
        let header = if self.header.is_empty() { "authorization" } else { &self.header };
        self.header = field_name("header", header)?;
        let claim = |(name, text): &(String, String)| {
            if ["iss", "sub", "aud", "iat", "exp"].contains(&name.as_str()) {
                return Err(SchemeError::Name { what: "claims", name: name.clone() });
            }
            Ok((name.clone(), Template::parse(text, Site::Claim)?))
        };
        let claims = self.claims.iter().map(claim).collect::<Result<_, _>>()?;
        Ok(Compiled { kind: self, algorithm, claims })
    }
}

impl Way for Compiled {
    fn owned(&self) -> Owned {
        Owned::of_field(&self.kind.header)
    }

    fn prepare(&self, material: &Material) -> Result<Option<Key>, MaterialError> {
        Key::read(self.algorithm, &self.kind.key, material).map(Some)
    }

    fn sign(&self, job: &mut Job<'_>) -> Result<(), SignError> {
        let kind = &self.kind;
        let mut claims = Map::new();
        let values = Values {
            view: &job.view,
            material: job.material,
            date: "",
            digest: None,
            signature: None,
        };
        for (name, template) in &self.claims {
            let value = template.render(&values)?;
            let part = || SignError::Character { part: format!("the claim {name}") };
            let value = std::str::from_utf8(&value).map_err(|_| part())?;
            claims.insert(name.clone(), value.into());
        }
        for (name, value) in [("iss", &kind.issuer), ("sub", &kind.subject)] {
            if !value.is_empty() {
                claims.insert(name.to_owned(), value.clone().into());
            }
        }
        if let Some(audience) = audience(&kind.audiences) {
            claims.insert("aud".to_owned(), audience);
        }
        let now = job.view.moment.unix_seconds();
        claims.insert("iat".to_owned(), now.into());
        claims.insert("exp".to_owned(), now.saturating_add(kind.lifetime_seconds.into()).into());
        let header = jws::header(&kind.algorithm, "JWT", &kind.key_id);
        let key = job.key.ok_or(SignError::Library)?;
        let token = jws::compact(&header, &Value::Object(claims), key)?;
        job.edits.set_field(&kind.header, [kind.prefix.as_bytes(), token.as_bytes()].concat())
    }
}
