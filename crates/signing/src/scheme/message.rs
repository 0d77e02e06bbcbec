//! HTTP Message Signatures (RFC 9421), with digests of bodies (RFC 9530).
//!
//! In:    components as in `Signature-Input`; the request.
//! Out:   `signature-input` and `signature`, and `content-digest` where it is covered.
//! Never: covers a component whose value two readers could see differently, nor leaves a signature of
//!        the client's beside its own.

mod component;

use component::Component;

use super::{Job, Owned, SchemeError, Way, field_name, required};
use crate::{
    BodyDigest, BodyNeed, KeySource, Material, MaterialError, SignError, SignatureAlgorithm,
    TextEncoding,
    digest::{base64, base64url},
    keys::Key,
};

/// Most components: a request has not many more fields.
const COMPONENTS_MAX: usize = 64;

const CONTENT_DIGEST: &str = "content-digest";

/// RFC 9421.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessageSignature {
    /// Empty is `sig1`.
    pub label: String,
    /// As in `Signature-Input`: `"@method"`, `"@query-param";name="q"`, `"content-digest"`.
    pub components: Vec<String>,
    /// As in RFC 9421 §6.2.2: `hmac-sha256`, `ed25519`, `ecdsa-p256-sha256`, `ecdsa-p384-sha384`,
    /// `rsa-pss-sha512`, `rsa-v1_5-sha256`.
    pub algorithm: String,
    /// Where the key is.
    pub key: KeySource,
    /// The parameter `keyid`.
    pub key_id: KeyId,
    /// Leaves `created` out.
    pub omit_created: bool,
    /// Life of the signature; 0 leaves `expires` out.
    pub expires_seconds: u32,
    /// Whether the moment's random bytes are sent as `nonce`.
    pub nonce: bool,
    /// The parameter `tag`; empty leaves it out.
    pub tag: String,
    /// Whether the parameter `alg` is sent.
    pub send_algorithm: bool,
    /// Needed where `content-digest` is covered. Its field defaults to `content-digest`, which is
    /// always written as RFC 9530 has it.
    pub body_digest: Option<BodyDigest>,
}

/// The id of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum KeyId {
    /// Left out.
    #[default]
    None,
    /// Itself.
    Text(String),
    /// An entry of the secret.
    Entry(String),
}

/// RFC 9421, checked.
pub(super) struct Compiled {
    kind: MessageSignature,
    algorithm: SignatureAlgorithm,
    components: Vec<Component>,
}

impl MessageSignature {
    pub(super) fn compile(mut self) -> Result<Compiled, SchemeError> {
        required("key", &self.key.entry)?;
        let algorithm = SignatureAlgorithm::of_message(&self.algorithm)
            .ok_or(SchemeError::Algorithm { name: self.algorithm.clone() })?;
        if self.label.is_empty() {
            "sig1".clone_into(&mut self.label);
        }
        if !is_label(&self.label) {
            return Err(SchemeError::Name { what: "label", name: self.label });
        }
        let texts = [("tag", &self.tag)].into_iter().chain(match &self.key_id {
            KeyId::Text(id) => Some(("key_id", id)),
            _ => None,
        });
        for (what, text) in texts {
            if !is_string(text) {
                return Err(SchemeError::Name { what, name: text.clone() });
            }
        }
        if self.components.len() > COMPONENTS_MAX {
            return Err(SchemeError::Range { what: "components", reason: "64 at most" });
        }
        let mut components: Vec<Component> = Vec::new();
        for text in &self.components {
            let component = Component::parse(text)?;
            // RFC 9421 §2.5: "each component identifier MUST occur only once".
            if components.contains(&component) {
                let (component, reason) = (text.clone(), "it is there twice");
                return Err(SchemeError::Component { component, reason });
            }
            components.push(component);
        }
        if let Some(digest) = &mut self.body_digest {
            let name = if digest.header.is_empty() { CONTENT_DIGEST } else { &digest.header };
            digest.header = field_name("body_digest.header", name)?;
            if digest.header == CONTENT_DIGEST {
                digest.encoding = TextEncoding::Structured;
            }
            digest.check()?;
        }
        let is_made = self.body_digest.iter().any(|digest| digest.header == CONTENT_DIGEST);
        if components.iter().any(|one| one.is_field(CONTENT_DIGEST)) && !is_made {
            return Err(SchemeError::Missing { what: "body_digest" });
        }
        Ok(Compiled { kind: self, algorithm, components })
    }
}

/// RFC 8941 §3.1.2: a key of a dictionary.
fn is_label(text: &str) -> bool {
    let is_first = |byte: u8| byte.is_ascii_lowercase() || byte == b'*';
    let is_later = |byte: u8| is_first(byte) || byte.is_ascii_digit() || b"_-.".contains(&byte);
    text.bytes().next().is_some_and(is_first) && text.bytes().all(is_later)
}

/// RFC 8941 §3.3.3: what a string may hold.
fn is_string(text: &str) -> bool {
    text.bytes().all(|byte| (0x20..0x7f).contains(&byte))
}

/// RFC 8941 §4.1.6.
fn string(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

impl Way for Compiled {
    fn owned(&self) -> Owned {
        let mut fields = vec!["signature-input".to_owned(), "signature".to_owned()];
        fields.extend(self.kind.body_digest.iter().map(|digest| digest.header.clone()));
        Owned { fields, ..Owned::default() }
    }

    fn needs_body(&self) -> Option<BodyNeed> {
        self.kind.body_digest.as_ref().map(BodyDigest::need)
    }

    fn prepare(&self, material: &Material) -> Result<Option<Key>, MaterialError> {
        if let KeyId::Entry(entry) = &self.kind.key_id
            && !is_string(material.text(entry)?)
        {
            let (entry, place) = (entry.clone(), "keyid, which is ASCII");
            return Err(MaterialError::Character { entry, place });
        }
        Key::read(self.algorithm, &self.kind.key, material).map(Some)
    }

    fn sign(&self, job: &mut Job<'_>) -> Result<(), SignError> {
        if let Some(how) = &self.kind.body_digest {
            let text = how.text(job.view.digest(how.algorithm)?);
            job.set(&how.header, text.into_bytes())?;
        }
        let parameters = self.parameters(job)?;
        let base = base(&self.components, &parameters, |one| one.value(&job.view))?;
        let signature = base64(&job.sign(&base)?);
        let label = &self.kind.label;
        job.edits.set_field("signature-input", format!("{label}={parameters}").into_bytes())?;
        job.edits.set_field("signature", format!("{label}=:{signature}:").into_bytes())
    }
}

impl Compiled {
    /// The covered components and what is said of the signature (RFC 9421 §2.3).
    fn parameters(&self, job: &Job<'_>) -> Result<String, SignError> {
        let kind = &self.kind;
        let names: Vec<&str> = self.components.iter().map(Component::identifier).collect();
        let mut out = format!("({})", names.join(" "));
        // Structured fields have numbers of 15 digits at most, which are years enough.
        let created = crate::date::date_of(job.view.moment)?.unix_timestamp();
        if !kind.omit_created {
            out += &format!(";created={created}");
        }
        if kind.expires_seconds > 0 {
            out += &format!(";expires={}", created + i64::from(kind.expires_seconds));
        }
        match &kind.key_id {
            KeyId::None => {}
            KeyId::Text(id) => out += &format!(";keyid={}", string(id)),
            KeyId::Entry(entry) => {
                let id = job.material.text(entry).map_err(|_| SignError::Library)?;
                out += &format!(";keyid={}", string(id));
            }
        }
        if kind.nonce {
            out += &format!(";nonce=\"{}\"", base64url(&job.view.moment.nonce));
        }
        if kind.send_algorithm {
            out += &format!(";alg=\"{}\"", kind.algorithm);
        }
        if !kind.tag.is_empty() {
            out += &format!(";tag={}", string(&kind.tag));
        }
        Ok(out)
    }
}

/// The signature base (RFC 9421 §2.5).
fn base(
    components: &[Component],
    parameters: &str,
    value_of: impl Fn(&Component) -> Result<Vec<u8>, SignError>,
) -> Result<Vec<u8>, SignError> {
    let mut base = Vec::new();
    for component in components {
        base.extend_from_slice(component.identifier().as_bytes());
        base.extend_from_slice(b": ");
        base.extend(value_of(component)?);
        base.push(b'\n');
    }
    base.extend_from_slice(b"\"@signature-params\": ");
    base.extend_from_slice(parameters.as_bytes());
    Ok(base)
}

#[cfg(test)]
mod tests;
