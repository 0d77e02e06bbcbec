//! Credential: a secret, where it comes from, and how a gateway adds it to requests.

use std::collections::BTreeMap;
use std::time::Duration;

use sluis_nouns::{HostPattern, SourceRef};

use super::credential_source::SecretSource;

/// `egress.sluis.dev` Credential. Never holds the secret itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Credential {
    /// `source`.
    pub source: SecretSource,
    /// `rotation`.
    pub rotation: Rotation,
    /// `inject`.
    pub injection: Injection,
    /// `guard`.
    pub guard: CredentialGuard,
    /// `allowGrantsFrom`: other namespaces whose grants may name it.
    pub allow_grants_from: Vec<String>,
}

/// `rotation`: how a new version takes the place of an old one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rotation {
    /// `grace`: how long the version before is kept beside the new one. Default 10 minutes.
    pub grace: Duration,
    /// `refresh`: how often a source that cannot be watched (exec, vault) is asked. Default 5 minutes.
    pub refresh: Duration,
    /// `alertBefore`: how long before its end a version is warned of. Default 7 days.
    pub alert_before: Duration,
    /// `maxStale`: how long the last good version is used while the source fails. Default 24 hours.
    pub max_stale: Duration,
}

impl Default for Rotation {
    fn default() -> Self {
        Self {
            grace: Duration::from_secs(10 * 60),
            refresh: Duration::from_secs(5 * 60),
            alert_before: Duration::from_secs(7 * 24 * 3600),
            max_stale: Duration::from_secs(24 * 3600),
        }
    }
}

/// `guard`: where a credential may go at all, whatever is granted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CredentialGuard {
    /// Place of the section.
    pub at: SourceRef,
    /// `hosts`: exact, or `*.suffix`; at least one, never `*` alone.
    pub hosts: Vec<HostPattern>,
    /// `stripFromRequest`: fields that are removed from what clients send, lower case; those that the
    /// injection sets are removed anyway.
    pub strip_request: Vec<String>,
    /// `stripFromResponse`: fields that are removed from answers, lower case.
    pub strip_response: Vec<String>,
    /// `scanResponse`: so many bytes of an answer are searched for the secret; 0 is off.
    pub scan_response_bytes: u64,
    /// Whether `onFailure` is `allowWithout`: requests go without the credential when it cannot be
    /// had.
    pub allow_without: bool,
}

/// `inject`: how a credential is added. Exactly one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Injection {
    /// `header`, and `bearer`, which is short for `Authorization: Bearer …`.
    Header(HeaderInjection),
    /// `basic`.
    Basic(BasicInjection),
    /// `query`.
    Query(NamedInjection),
    /// `cookie`.
    Cookie(NamedInjection),
    /// `hmac`.
    Hmac(Box<HmacInjection>),
    /// `httpMessageSignature`: RFC 9421.
    MessageSignature(Box<MessageSignatureInjection>),
    /// `awsSigV4`.
    AwsSigV4(Box<AwsSigV4Injection>),
    /// `oauth2`.
    Oauth2(Box<Oauth2Injection>),
    /// `jwtSign`.
    JwtSign(Box<JwtSignInjection>),
    /// `clientCertificate`: mutual TLS.
    ClientCertificate(ClientCertificateInjection),
}

impl Injection {
    /// Returns its name, as `inject` has it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Header(header) if header.is_bearer() => "bearer",
            Self::Header(_) => "header",
            Self::Basic(_) => "basic",
            Self::Query(_) => "query",
            Self::Cookie(_) => "cookie",
            Self::Hmac(_) => "hmac",
            Self::MessageSignature(_) => "httpMessageSignature",
            Self::AwsSigV4(_) => "awsSigV4",
            Self::Oauth2(_) => "oauth2",
            Self::JwtSign(_) => "jwtSign",
            Self::ClientCertificate(_) => "clientCertificate",
        }
    }

    /// Returns the entries of the secret that it needs, in order of name.
    pub fn entries(&self) -> Vec<&str> {
        let mut names: Vec<&str> = match self {
            Self::Header(one) => vec![&one.key],
            Self::Basic(one) => vec![&one.username_key, &one.password_key],
            Self::Query(one) | Self::Cookie(one) => vec![&one.key],
            Self::Hmac(one) => {
                let templates = one.outputs.iter().map(|output| &output.template);
                let named = templates.chain(&one.derive).flat_map(|text| secrets_in(text));
                named.chain([one.key.entry.as_str()]).collect()
            }
            Self::MessageSignature(one) => match &one.key_id {
                Some(KeyId::Entry(entry)) => vec![&one.key.entry, entry],
                _ => vec![&one.key.entry],
            },
            Self::AwsSigV4(one) => {
                let token = one.session_token_key.iter().map(String::as_str);
                token.chain([one.access_key_id_key.as_str(), &one.secret_access_key_key]).collect()
            }
            Self::Oauth2(one) => {
                let mut names = vec![one.client_id_key.as_str()];
                match one.client_authentication {
                    ClientAuthentication::Basic | ClientAuthentication::Body => {
                        names.push(&one.client_secret_key);
                    }
                    ClientAuthentication::PrivateKeyJwt => names.push(&one.private_key_key),
                    ClientAuthentication::None => {}
                }
                if one.grant == Oauth2Grant::JwtBearer {
                    names.push(&one.private_key_key);
                }
                names
            }
            Self::JwtSign(one) => vec![&one.key.entry],
            Self::ClientCertificate(one) => vec![&one.certificate_key, &one.private_key_key],
        };
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Returns the header fields that it sets, lower case.
    pub fn headers(&self) -> Vec<&str> {
        match self {
            Self::Header(one) => vec![&one.name],
            Self::Basic(one) => vec![&one.header],
            Self::Query(_) | Self::ClientCertificate(_) => Vec::new(),
            Self::Cookie(_) => vec!["cookie"],
            Self::Hmac(one) => {
                let digest = one.body_digest.iter().map(|digest| digest.header.as_str());
                one.outputs.iter().map(|output| output.header.as_str()).chain(digest).collect()
            }
            Self::MessageSignature(one) => {
                let digest = one.body_digest.iter().map(|digest| digest.header.as_str());
                ["signature", "signature-input"].into_iter().chain(digest).collect()
            }
            Self::AwsSigV4(one) if one.presign.is_some() => Vec::new(),
            Self::AwsSigV4(_) => {
                vec!["authorization", "x-amz-date", "x-amz-content-sha256", "x-amz-security-token"]
            }
            Self::Oauth2(one) if one.dpop => vec![&one.header, "dpop"],
            Self::Oauth2(one) => vec![&one.header],
            Self::JwtSign(one) => vec![&one.header],
        }
    }
}

/// Returns the entries that a template names as `{secret.ENTRY}`.
fn secrets_in(template: &str) -> impl Iterator<Item = &str> {
    template.split('{').skip(1).filter_map(|rest| {
        let inner = rest.split_once('}')?.0;
        inner.split(':').next()?.strip_prefix("secret.")
    })
}

/// `NAME: PREFIX + value`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HeaderInjection {
    /// `name`, lower case.
    pub name: String,
    /// `prefix`.
    pub prefix: String,
    /// `key`: the entry of the secret.
    pub key: String,
}

impl HeaderInjection {
    /// Returns whether it is a bearer token of RFC 6750.
    pub fn is_bearer(&self) -> bool {
        self.name == "authorization" && self.prefix == "Bearer "
    }
}

/// Basic authentication (RFC 7617).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BasicInjection {
    /// `username`: the entry of the secret. Default `username`.
    pub username_key: String,
    /// `password`: the entry of the secret. Default `password`.
    pub password_key: String,
    /// `header`, lower case. Default `authorization`.
    pub header: String,
}

/// A parameter of the query, or a cookie.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NamedInjection {
    /// `name`.
    pub name: String,
    /// `key`: the entry of the secret. Default `value`.
    pub key: String,
}

/// A hash function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HashAlgorithm {
    /// `sha1`: weak; only where `allowWeak` is written.
    Sha1,
    /// `sha256`. The default.
    #[default]
    Sha256,
    /// `sha384`.
    Sha384,
    /// `sha512`.
    Sha512,
}

/// How an entry of a secret holds a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KeyEncoding {
    /// `raw`: as it is. The default.
    #[default]
    Raw,
    /// `base64`.
    Base64,
    /// `hex`.
    Hex,
    /// `pem`: a private key.
    Pem,
}

/// `key: {from, encoding}`, or the entry's name alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SecretKey {
    /// `from`: the entry of the secret.
    pub entry: String,
    /// `encoding`.
    pub encoding: KeyEncoding,
}

/// How bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TextEncoding {
    /// `hex`, lower case.
    Hex,
    /// `base64`.
    Base64,
    /// `base64url`, without padding.
    Base64Url,
    /// `structured`: `sha-256=:…:` of RFC 9530.
    Structured,
}

/// `bodyDigest`: the digest of the body, for which the body is held.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BodyDigest {
    /// `algorithm`.
    pub algorithm: HashAlgorithm,
    /// `header` that carries it, lower case. Default `content-digest`.
    pub header: String,
    /// `maxBytes`: a longer body is refused. Default 1 MiB.
    pub max_bytes: u64,
    /// `encoding`. Default `structured` for the fields of RFC 9530, else `hex`.
    pub encoding: TextEncoding,
}

/// `hmac`: a signature by templates, which are literal text and `{variable:encoding}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HmacInjection {
    /// `algorithm`.
    pub algorithm: HashAlgorithm,
    /// `key`.
    pub key: SecretKey,
    /// `key.derive`: templates, each signed by what came before.
    pub derive: Vec<String>,
    /// `stringToSign`: a template.
    pub string_to_sign: String,
    /// `date.format`, as strftime has it. Default `%Y%m%dT%H%M%SZ`.
    pub date_format: String,
    /// `bodyDigest`.
    pub body_digest: Option<BodyDigest>,
    /// `date.header` first, then `output` or `outputs`. At least one.
    pub outputs: Vec<HmacOutput>,
}

/// A field that is set.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HmacOutput {
    /// `header`, lower case.
    pub header: String,
    /// `template`.
    pub template: String,
}

/// How a key is named to who verifies.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeyId {
    /// `keyId`: the id itself.
    Literal(String),
    /// `keyIdFrom`: the entry of the secret that has it.
    Entry(String),
}

/// An algorithm of RFC 9421 §3.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SignatureAlgorithm {
    /// `hmac-sha256`.
    HmacSha256,
    /// `ed25519`.
    Ed25519,
    /// `ecdsa-p256-sha256`.
    EcdsaP256Sha256,
    /// `ecdsa-p384-sha384`.
    EcdsaP384Sha384,
    /// `rsa-pss-sha512`.
    RsaPssSha512,
    /// `rsa-v1_5-sha256`.
    RsaV15Sha256,
}

impl SignatureAlgorithm {
    /// Returns its registered name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HmacSha256 => "hmac-sha256",
            Self::Ed25519 => "ed25519",
            Self::EcdsaP256Sha256 => "ecdsa-p256-sha256",
            Self::EcdsaP384Sha384 => "ecdsa-p384-sha384",
            Self::RsaPssSha512 => "rsa-pss-sha512",
            Self::RsaV15Sha256 => "rsa-v1_5-sha256",
        }
    }
}

/// `httpMessageSignature`: RFC 9421.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MessageSignatureInjection {
    /// `label`. Default `sig1`.
    pub label: String,
    /// `components`, as in `Signature-Input`, names in quotes.
    pub components: Vec<String>,
    /// `algorithm`.
    pub algorithm: SignatureAlgorithm,
    /// `key`.
    pub key: SecretKey,
    /// `keyId` or `keyIdFrom`.
    pub key_id: Option<KeyId>,
    /// `created: false` leaves the time out.
    pub omit_created: bool,
    /// `expires`: the life of a signature.
    pub expires: Option<Duration>,
    /// `nonce`: whether a random one is added.
    pub nonce: bool,
    /// `tag`.
    pub tag: Option<String>,
    /// `sendAlgorithm`: whether the parameter `alg` is sent.
    pub send_algorithm: bool,
    /// `bodyDigest`; there where `content-digest` is covered.
    pub body_digest: Option<BodyDigest>,
}

/// `awsSigV4`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AwsSigV4Injection {
    /// `service`.
    pub service: String,
    /// `region`.
    pub region: String,
    /// `accessKeyId`: the entry of the secret. Default `accessKeyId`.
    pub access_key_id_key: String,
    /// `secretAccessKey`: the entry of the secret. Default `secretAccessKey`.
    pub secret_access_key_key: String,
    /// `sessionToken`: the entry of the secret; `None` for none.
    pub session_token_key: Option<String>,
    /// `presign`: in the query rather than in fields, valid so long.
    pub presign: Option<Duration>,
    /// `unsignedPayload`: the body is not digested, and streams.
    pub unsigned_payload: bool,
    /// `maxBodyBytes`: a longer body is refused. Default 1 MiB.
    pub max_body_bytes: u64,
    /// `signedHeaders`: fields that are signed besides host and x-amz-*, lower case.
    pub signed_headers: Vec<String>,
}

impl AwsSigV4Injection {
    /// Returns whether paths are encoded once and not normalised, as S3 wants it.
    pub fn is_s3(&self) -> bool {
        self.service == "s3"
    }
}

/// What is asked of an authorization server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Oauth2Grant {
    /// `clientCredentials`: RFC 6749 §4.4. The default.
    #[default]
    ClientCredentials,
    /// `tokenExchange`: RFC 8693, the user's token for another.
    TokenExchange,
    /// `jwtBearer`: RFC 7523 §2.1.
    JwtBearer,
}

/// How a client proves itself to an authorization server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ClientAuthentication {
    /// `basic`: RFC 6749 §2.3.1. The default.
    #[default]
    Basic,
    /// `body`: in the form.
    Body,
    /// `privateKeyJwt`: RFC 7523 §2.2.
    PrivateKeyJwt,
    /// `none`: a public client.
    None,
}

/// `oauth2`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Oauth2Injection {
    /// `tokenUrl`, https; its host is a service of the mesh.
    pub token_url: String,
    /// `grant`.
    pub grant: Oauth2Grant,
    /// `clientAuthentication`.
    pub client_authentication: ClientAuthentication,
    /// `clientId`: the entry of the secret. Default `clientId`.
    pub client_id_key: String,
    /// `clientSecret`: the entry of the secret. Default `clientSecret`.
    pub client_secret_key: String,
    /// `privateKey`: the entry of the secret. Default `privateKey`.
    pub private_key_key: String,
    /// `privateKeyAlgorithm`. Default `RS256`.
    pub private_key_algorithm: JwtAlgorithm,
    /// `privateKeyId`: `kid` of assertions.
    pub private_key_id: Option<String>,
    /// `scopes`.
    pub scopes: Vec<String>,
    /// `audiences`.
    pub audiences: Vec<String>,
    /// `resources` (RFC 8707).
    pub resources: Vec<String>,
    /// `subjectHeader` with the user's token, lower case. Default `authorization`.
    pub subject_header: String,
    /// `subjectTokenType`. Default `urn:ietf:params:oauth:token-type:jwt`.
    pub subject_token_type: String,
    /// `requestedTokenType`.
    pub requested_token_type: Option<String>,
    /// `claims` of an assertion.
    pub claims: BTreeMap<String, String>,
    /// `parameters`: more of the form.
    pub parameters: BTreeMap<String, String>,
    /// `dpop`: RFC 9449.
    pub dpop: bool,
    /// `header` that carries the token, lower case. Default `authorization`.
    pub header: String,
    /// `prefix` before the token. Default `Bearer `, with `dpop` `DPoP `.
    pub prefix: String,
}

/// An algorithm of RFC 7518 or RFC 8037.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JwtAlgorithm {
    /// `HS256`.
    Hs256,
    /// `RS256`.
    Rs256,
    /// `PS256`.
    Ps256,
    /// `ES256`.
    Es256,
    /// `ES384`.
    Es384,
    /// `EdDSA`.
    EdDsa,
}

impl JwtAlgorithm {
    /// Returns its registered name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
        }
    }
}

/// `jwtSign`: a token that the gateway signs for each request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct JwtSignInjection {
    /// `algorithm`.
    pub algorithm: JwtAlgorithm,
    /// `key`.
    pub key: SecretKey,
    /// `keyId`: `kid`.
    pub key_id: Option<String>,
    /// `issuer`.
    pub issuer: String,
    /// `subject`.
    pub subject: String,
    /// `audiences`.
    pub audiences: Vec<String>,
    /// `lifetime`. Default 60 seconds.
    pub lifetime: Duration,
    /// `claims`: more of them, templates.
    pub claims: BTreeMap<String, String>,
    /// `header`, lower case. Default `authorization`.
    pub header: String,
    /// `prefix`. Default `Bearer `.
    pub prefix: String,
}

/// `clientCertificate`: the cluster's TLS presents it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientCertificateInjection {
    /// `certificate`: the entry of the secret with the chain. Default `tls.crt`.
    pub certificate_key: String,
    /// `privateKey`: the entry of the secret. Default `tls.key`.
    pub private_key_key: String,
}
