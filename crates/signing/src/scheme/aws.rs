//! AWS Signature Version 4, in fields or in the query.
//!
//! In:    the request, the moment, an access key.
//! Out:   `authorization` and `x-amz-*`, or the parameters of a presigned URL.
//! Never: signs a path or a query that the server could read, and so canonicalise, in another way
//!        than this does: that is refused.

use aws_lc_rs::hmac as mac;
use zeroize::Zeroizing;

use super::{Job, Owned, SchemeError, Way, field_name, required};
use crate::{
    BodyNeed, Digest, HashAlgorithm, Material, MaterialError, SignError, date::DateFormat,
    digest::hex, keys::Key, query, view::View,
};

/// A week: the longest life of a presigned URL.
const EXPIRES_SECONDS_MAX: u32 = 604_800;

const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";

/// Fields that proxies change on the way, or that are the signature's own.
const FIELDS_NEVER_SIGNED: [&str; 8] = [
    "authorization",
    "connection",
    "expect",
    "te",
    "trailer",
    "transfer-encoding",
    "user-agent",
    "x-amzn-trace-id",
];

/// AWS Signature Version 4.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AwsSigV4 {
    /// Such as `s3`, `execute-api`.
    pub service: String,
    /// Such as `eu-west-1`.
    pub region: String,
    /// The entry of the secret.
    pub access_key_id_key: String,
    /// The entry of the secret.
    pub secret_access_key_key: String,
    /// The entry of the secret; empty for none.
    pub session_token_key: String,
    /// Where the signature goes.
    pub place: Place,
    /// `UNSIGNED-PAYLOAD` in place of the digest of the body, which then streams.
    pub unsigned_payload: bool,
    /// Longest body, in bytes, that is held for its digest.
    pub body_bytes_max: u64,
    /// Whether the digest is also sent, as `x-amz-content-sha256`. S3 asks for it, others take it.
    pub payload_field: bool,
    /// Which fields are signed, besides `host` and `x-amz-*`.
    pub signed_fields: SignedFields,
    /// The path is encoded once and not normalised, as S3 has it.
    pub s3: bool,
}

/// Where the signature goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// In the field `authorization`.
    #[default]
    Fields,
    /// In the query, for so many seconds: a week at most.
    Query {
        /// From the date of the request.
        expires_seconds: u32,
    },
}

/// Which fields are signed, besides `host` and `x-amz-*`. A name that ends with `*` is the beginning
/// of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignedFields {
    /// Those of these that are there.
    Listed(Vec<String>),
    /// All but these, and but those that change on the way.
    AllExcept(Vec<String>),
}

impl Default for SignedFields {
    fn default() -> Self {
        Self::Listed(Vec::new())
    }
}

impl SignedFields {
    fn lower(self) -> Result<Self, SchemeError> {
        let lower = |names: Vec<String>| {
            let lower = |name: String| {
                let (stem, star) =
                    name.strip_suffix('*').map_or((name.as_str(), ""), |stem| (stem, "*"));
                Ok(field_name("signed_fields", stem)? + star)
            };
            names.into_iter().map(lower).collect::<Result<Vec<_>, SchemeError>>()
        };
        Ok(match self {
            Self::Listed(names) => Self::Listed(lower(names)?),
            Self::AllExcept(names) => Self::AllExcept(lower(names)?),
        })
    }

    fn covers(&self, name: &str) -> bool {
        let is = |pattern: &String| match pattern.strip_suffix('*') {
            Some(stem) => name.starts_with(stem),
            None => name == pattern,
        };
        match self {
            _ if FIELDS_NEVER_SIGNED.contains(&name) => false,
            _ if name.starts_with("x-amz-") => true,
            Self::Listed(names) => names.iter().any(is),
            Self::AllExcept(names) => !names.iter().any(is),
        }
    }
}

impl AwsSigV4 {
    pub(super) fn compile(self) -> Result<Self, SchemeError> {
        required("access_key_id_key", &self.access_key_id_key)?;
        required("secret_access_key_key", &self.secret_access_key_key)?;
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        for (what, name) in [("service", &self.service), ("region", &self.region)] {
            required(what, name)?;
            if !name.bytes().all(is_word) {
                return Err(SchemeError::Name { what, name: name.clone() });
            }
        }
        if let Place::Query { expires_seconds } = self.place
            && !(1..=EXPIRES_SECONDS_MAX).contains(&expires_seconds)
        {
            let reason = "1 second to a week";
            return Err(SchemeError::Range { what: "expires_seconds", reason });
        }
        Ok(Self { signed_fields: self.signed_fields.lower()?, ..self })
    }

    /// A presigned request to S3 never covers its body: whoever made the URL did not know it.
    fn covers_body(&self) -> bool {
        !(self.unsigned_payload || self.s3 && self.place != Place::Fields)
    }

    fn payload(&self, view: &View<'_>) -> Result<String, SignError> {
        if self.covers_body() {
            Ok(hex(view.digest(HashAlgorithm::Sha256)?.bytes()))
        } else {
            Ok(UNSIGNED_PAYLOAD.to_owned())
        }
    }

    fn token<'m>(&self, material: &'m Material) -> Result<Option<&'m str>, MaterialError> {
        if self.session_token_key.is_empty() {
            return Ok(None);
        }
        material.text(&self.session_token_key).map(Some)
    }
}

impl Way for AwsSigV4 {
    fn owned(&self) -> Owned {
        let names = ["authorization", "x-amz-date", "x-amz-content-sha256", "x-amz-security-token"];
        let parameters = [
            "X-Amz-Algorithm",
            "X-Amz-Credential",
            "X-Amz-Date",
            "X-Amz-Expires",
            "X-Amz-SignedHeaders",
            "X-Amz-Security-Token",
            "X-Amz-Content-Sha256",
            "X-Amz-Signature",
        ];
        Owned {
            fields: names.map(str::to_owned).to_vec(),
            parameters: parameters.map(str::to_owned).to_vec(),
            cookies: Vec::new(),
        }
    }

    fn needs_body(&self) -> Option<BodyNeed> {
        let need = BodyNeed { algorithm: HashAlgorithm::Sha256, bytes_max: self.body_bytes_max };
        self.covers_body().then_some(need)
    }

    fn prepare(&self, material: &Material) -> Result<Option<Key>, MaterialError> {
        let id = material.text(&self.access_key_id_key)?;
        if id.contains(['/', ',', ' ']) {
            let entry = self.access_key_id_key.clone();
            return Err(MaterialError::Character { entry, place: "an access key's id" });
        }
        material.text(&self.secret_access_key_key)?;
        self.token(material)?;
        Ok(None)
    }

    fn sign(&self, job: &mut Job<'_>) -> Result<(), SignError> {
        let material = job.material;
        let text = |entry| material.text(entry).map_err(|_| SignError::Library);
        let id = text(&self.access_key_id_key)?;
        let secret = text(&self.secret_access_key_key)?;
        let token = self.token(material).map_err(|_| SignError::Library)?;
        let stamp = Stamp::of(&job.view)?;
        let scope = format!("{}/{}/{}/aws4_request", stamp.day(), self.region, self.service);
        let credential = format!("{id}/{scope}");
        let payload = self.payload(&job.view)?;

        let mut target = None;
        match self.place {
            Place::Fields => {
                job.set("x-amz-date", stamp.0.clone().into_bytes())?;
                if self.payload_field {
                    job.set("x-amz-content-sha256", payload.clone().into_bytes())?;
                }
                if let Some(token) = token {
                    job.set("x-amz-security-token", token.as_bytes().to_vec())?;
                }
            }
            Place::Query { expires_seconds } => {
                let signed = names(&signed(&job.view, &self.signed_fields));
                let mut own = format!(
                    "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={}&X-Amz-Date={}&\
                     X-Amz-Expires={expires_seconds}&X-Amz-SignedHeaders={}",
                    query::encode(credential.as_bytes(), b""),
                    stamp.0,
                    query::encode(signed.as_bytes(), b""),
                );
                if let Some(token) = token {
                    own += "&X-Amz-Security-Token=";
                    own += &query::encode(token.as_bytes(), b"");
                }
                target = Some(query::with(job.view.target(), &own));
            }
        }

        let fields = signed(&job.view, &self.signed_fields);
        let signed_names = names(&fields);
        let (path, query) = query::split(target.as_deref().unwrap_or(job.view.target()));
        let mut canonical = Vec::new();
        for line in [
            job.view.request.method,
            &self.path(path)?,
            &canonical_query(query.unwrap_or_default())?,
        ] {
            canonical.extend_from_slice(line.as_bytes());
            canonical.push(b'\n');
        }
        for (name, value) in &fields {
            canonical.extend_from_slice(name.as_bytes());
            canonical.push(b':');
            canonical.extend_from_slice(value);
            canonical.push(b'\n');
        }
        canonical.extend_from_slice(format!("\n{signed_names}\n{payload}").as_bytes());

        let digest = hex(Digest::of(HashAlgorithm::Sha256, &canonical).bytes());
        let string_to_sign = format!("AWS4-HMAC-SHA256\n{}\n{scope}\n{digest}", stamp.0);
        let signature = hex(&self.signature(secret, &stamp, &string_to_sign));
        match target {
            Some(target) => job.edits.set_target(format!("{target}&X-Amz-Signature={signature}")),
            None => {
                let value = format!(
                    "AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={signed_names}, \
                     Signature={signature}"
                );
                job.edits.set_field("authorization", value.into_bytes())
            }
        }
    }
}

impl AwsSigV4 {
    /// The path as AWS writes it anew. For S3 what the path stands for, encoded once; for others the
    /// path as sent, normalised, encoded once more.
    fn path(&self, path: &str) -> Result<String, SignError> {
        if !path.starts_with('/') {
            return Err(SignError::Target);
        }
        if !self.s3 {
            return Ok(query::encode(normalized(path).as_bytes(), b"/"));
        }
        let ambiguous = |what| SignError::AmbiguousPath { what };
        let is_slash = |escape: &[u8]| escape.eq_ignore_ascii_case(b"%2F");
        if path.as_bytes().windows(3).any(is_slash) {
            return Err(ambiguous("an encoded slash"));
        }
        if path.split('/').any(|segment| {
            let dots = segment.replace("%2e", ".").replace("%2E", ".");
            dots == "." || dots == ".."
        }) {
            return Err(ambiguous("a segment of dots"));
        }
        let path = query::decode(path).ok_or(ambiguous("a % without two digits"))?;
        Ok(query::encode(&path, b"/"))
    }

    fn signature(&self, secret: &str, stamp: &Stamp, string_to_sign: &str) -> Vec<u8> {
        let sign = |key: &[u8], text: &str| {
            let key = mac::Key::new(mac::HMAC_SHA256, key);
            Zeroizing::new(mac::sign(&key, text.as_bytes()).as_ref().to_vec())
        };
        let first = Zeroizing::new(format!("AWS4{secret}"));
        let day = sign(first.as_bytes(), stamp.day());
        let service = sign(&sign(&day, &self.region), &self.service);
        sign(&sign(&service, "aws4_request"), string_to_sign).to_vec()
    }
}

/// `20150830T123600Z`.
struct Stamp(String);

impl Stamp {
    fn of(view: &View<'_>) -> Result<Self, SignError> {
        let format = DateFormat::parse("%Y%m%dT%H%M%SZ").expect("these letters are known");
        format.render(view.moment).map(Self)
    }

    fn day(&self) -> &str {
        &self.0[..8]
    }
}

/// RFC 3986 §5.2.4, and no empty segments: what AWS asks for of all but S3.
fn normalized(path: &str) -> String {
    let mut segments = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    let last = if path.ends_with('/') && !segments.is_empty() { "/" } else { "" };
    format!("/{}{last}", segments.join("/"))
}

/// The parameters, each encoded anew, sorted. As in Go's signer `+` is a space, which is how the
/// services read it.
fn canonical_query(query: &str) -> Result<String, SignError> {
    if query.is_empty() {
        return Ok(String::new());
    }
    let ambiguous = |what| SignError::AmbiguousQuery { what };
    if query.split('&').any(str::is_empty) {
        return Err(ambiguous("an empty parameter"));
    }
    let anew = |text: &str| {
        let bytes = query::decode_form(text).ok_or(ambiguous("a % without two digits"))?;
        Ok(query::encode(&bytes, b""))
    };
    let pair = |(name, value): (&str, Option<&str>)| Ok((anew(name)?, anew(value.unwrap_or(""))?));
    let mut pairs = query::pairs(query).map(pair).collect::<Result<Vec<_>, SignError>>()?;
    pairs.sort();
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    Ok(pairs.join("&"))
}

/// The fields to sign, sorted, each with its values in one.
fn signed(view: &View<'_>, which: &SignedFields) -> Vec<(String, Vec<u8>)> {
    let mut fields: Vec<(String, Vec<u8>)> =
        vec![("host".to_owned(), view.request.authority.as_bytes().to_vec())];
    for (name, value) in view.fields().filter(|(name, _)| which.covers(name)) {
        let words: Vec<&[u8]> = value
            .split(|byte| byte.is_ascii_whitespace())
            .filter(|word| !word.is_empty())
            .collect();
        let value = words.join(&b' ');
        match fields.iter_mut().find(|(known, _)| known == name) {
            Some((_, values)) => {
                values.push(b',');
                values.extend(value);
            }
            None => fields.push((name.to_owned(), value)),
        }
    }
    fields.sort();
    fields
}

fn names(fields: &[(String, Vec<u8>)]) -> String {
    let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
    names.join(";")
}
