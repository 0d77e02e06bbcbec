//! A signature by template: an HMAC over a text that is made of the request, sent in fields.

use aws_lc_rs::hmac as mac;

use super::{Job, Owned, SchemeError, Way, field_name, required};
use crate::{
    BodyDigest, BodyNeed, HashAlgorithm, KeySource, Material, MaterialError, SignError,
    SignatureAlgorithm,
    date::DateFormat,
    keys::Key,
    template::{Site, Template, Values, Variable},
};

/// Most steps that make a key, and most fields: AWS has five of the one, Hawk one of the other.
const STEPS_MAX: usize = 16;

/// An HMAC over the request, by templates.
///
/// Templates are of literal text, `{variable}` and `{variable:FORM}`, where FORM is `hex`, `base64`,
/// `base64url`, `lower` or `upper`; a brace is written twice. Variables: `method host authority path
/// query path_and_query scheme date timestamp nonce body_digest header.NAME`, and in outputs also
/// `secret.ENTRY` and `signature`. `host` is the authority without its port; a field that is absent is
/// empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hmac {
    /// The hash.
    pub algorithm: HashAlgorithm,
    /// Where the key is.
    pub key: KeySource,
    /// A chain of HMACs that makes the key: each text is signed by what came before.
    pub derive: Vec<String>,
    /// What is signed.
    pub string_to_sign: String,
    /// How `{date}` is written: strftime's letters, in UTC. Needed where a template says `{date}`.
    pub date_format: String,
    /// Needed where a template says `{body_digest}`.
    pub body_digest: Option<BodyDigest>,
    /// The fields that are sent, in order; at least one. One without `{signature}` is seen by
    /// `{header.NAME}` in what is signed.
    pub outputs: Vec<Output>,
}

/// A field that is sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// The field.
    pub header: String,
    /// Its value.
    pub template: String,
}

/// A signature by template, checked.
pub(super) struct Compiled {
    algorithm: HashAlgorithm,
    key: KeySource,
    derive: Vec<Template>,
    string_to_sign: Template,
    date: Option<DateFormat>,
    body_digest: Option<BodyDigest>,
    outputs: Vec<(String, Template)>,
}

impl Hmac {
    pub(super) fn compile(self) -> Result<Compiled, SchemeError> {
        required("key", &self.key.entry)?;
        required("string_to_sign", &self.string_to_sign)?;
        for (what, len) in [("derive", self.derive.len()), ("outputs", self.outputs.len())] {
            if len > STEPS_MAX {
                return Err(SchemeError::Range { what, reason: "16 at most" });
            }
        }
        let output = |output: &Output| {
            let template = Template::parse(&output.template, Site::Output)?;
            Ok((field_name("outputs.header", &output.header)?, template))
        };
        let outputs: Vec<_> =
            self.outputs.iter().map(output).collect::<Result<_, SchemeError>>()?;
        let derive = self.derive.iter().map(|text| Template::parse(text, Site::Signed));
        let mut compiled = Compiled {
            algorithm: self.algorithm,
            key: self.key,
            derive: derive.collect::<Result<_, _>>()?,
            string_to_sign: Template::parse(&self.string_to_sign, Site::Signed)?,
            date: None,
            body_digest: self.body_digest,
            outputs,
        };
        if !compiled.outputs.iter().any(|(_, value)| value.names(&Variable::Signature)) {
            return Err(SchemeError::Missing { what: "an output with {signature}" });
        }
        if !self.date_format.is_empty() {
            compiled.date = Some(DateFormat::parse(&self.date_format)?);
        } else if compiled.names(&Variable::Date) {
            return Err(SchemeError::Missing { what: "date_format" });
        }
        if compiled.body_digest.is_none() && compiled.names(&Variable::BodyDigest) {
            return Err(SchemeError::Missing { what: "body_digest" });
        }
        if let Some(digest) = &mut compiled.body_digest {
            digest.check()?;
            if !digest.header.is_empty() {
                digest.header = field_name("body_digest.header", &digest.header)?;
            }
        }
        let fields = compiled.owned().fields;
        if let Some(twice) =
            fields.iter().enumerate().find(|(at, name)| fields[..*at].contains(name))
        {
            return Err(SchemeError::Name { what: "a field is set twice", name: twice.1.clone() });
        }
        compiled.check_order()?;
        Ok(compiled)
    }
}

impl Compiled {
    fn templates(&self) -> impl Iterator<Item = &Template> {
        let outputs = self.outputs.iter().map(|(_, template)| template);
        self.derive.iter().chain([&self.string_to_sign]).chain(outputs)
    }

    fn names(&self, variable: &Variable) -> bool {
        self.templates().any(|template| template.names(variable))
    }

    /// Sees that no template wants a field that is made after it.
    fn check_order(&self) -> Result<(), SchemeError> {
        let is_late = |name: &String| {
            self.outputs
                .iter()
                .any(|(known, value)| known == name && value.names(&Variable::Signature))
        };
        for variable in self.templates().flat_map(Template::variables) {
            if let Variable::Header(name) = variable
                && is_late(name)
            {
                return Err(SchemeError::Name {
                    what: "a template wants the field that carries the signature",
                    name: name.clone(),
                });
            }
        }
        Ok(())
    }
}

impl Way for Compiled {
    fn owned(&self) -> Owned {
        let mut fields: Vec<String> = self.outputs.iter().map(|(name, _)| name.clone()).collect();
        let digest = self.body_digest.iter().map(|digest| digest.header.clone());
        fields.extend(digest.filter(|name| !name.is_empty()));
        Owned { fields, ..Owned::default() }
    }

    fn needs_body(&self) -> Option<BodyNeed> {
        self.body_digest.as_ref().map(BodyDigest::need)
    }

    fn prepare(&self, material: &Material) -> Result<Option<Key>, MaterialError> {
        for template in self.templates() {
            template.check(material)?;
        }
        Key::read(SignatureAlgorithm::Hmac(self.algorithm), &self.key, material).map(Some)
    }

    fn sign(&self, job: &mut Job<'_>) -> Result<(), SignError> {
        let date = self.date.as_ref().map(|format| format.render(job.view.moment)).transpose()?;
        let date = date.unwrap_or_default();
        if let Some(how) = self.body_digest.as_ref().filter(|how| !how.header.is_empty()) {
            let text = how.text(job.view.digest(how.algorithm)?);
            job.set(&how.header, text.into_bytes())?;
        }
        let (late, early): (Vec<_>, Vec<_>) =
            self.outputs.iter().partition(|(_, value)| value.names(&Variable::Signature));
        for (name, template) in early {
            let mut value = template.render(&self.values(job, &date, None))?;
            job.set(name, std::mem::take(&mut *value))?;
        }
        let text = self.string_to_sign.render(&self.values(job, &date, None))?;
        let signature = self.signature(job, &date, &text)?;
        for (name, template) in late {
            let mut value = template.render(&self.values(job, &date, Some(&signature)))?;
            job.set(name, std::mem::take(&mut *value))?;
        }
        Ok(())
    }
}

impl Compiled {
    fn values<'v>(
        &'v self,
        job: &'v Job<'_>,
        date: &'v str,
        signature: Option<&'v [u8]>,
    ) -> Values<'v> {
        let (view, material) = (&job.view, job.material);
        Values { view, material, date, digest: self.body_digest.as_ref(), signature }
    }

    /// Signs with the key, or with what the chain makes of it.
    fn signature(&self, job: &Job<'_>, date: &str, text: &[u8]) -> Result<Vec<u8>, SignError> {
        let Some((first, rest)) = self.derive.split_first() else { return job.sign(text) };
        let first = first.render(&self.values(job, date, None))?;
        let mut key = mac::Key::new(self.algorithm.hmac(), &job.sign(&first)?);
        for step in rest {
            let step = step.render(&self.values(job, date, None))?;
            key = mac::Key::new(self.algorithm.hmac(), mac::sign(&key, &step).as_ref());
        }
        Ok(mac::sign(&key, text).as_ref().to_vec())
    }
}
