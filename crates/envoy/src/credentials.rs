//! The message that carries credentials to a gateway: an upstream HTTP filter of our own, for what
//! Envoy's `credential_injector` and `aws_request_signing` cannot say.
//!
//! In:    a `CredentialInjection` from the translation, or off the wire.
//! Out:   the same message; what a proxy makes of it is in `rules`.
//! Never: holds a secret: those come by SDS, under the names that it gives.
//!
//! The fields are those of `crates/protojson/proto/sluis/egress/v1alpha1/credentials.proto`; a test
//! of `protojson` holds the two together.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::{
    config::rbac::v3::Policy, extensions::transport_sockets::tls::v3::SdsSecretConfig,
};

/// The filter's name in a cluster's `HttpProtocolOptions`.
pub const CREDENTIALS_FILTER: &str = "sluis.filters.http.credentials";

/// Credentials for the requests to one cluster.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CredentialInjection {
    /// In order: the first credential with a grant that covers the request is used. None: refused.
    #[prost(message, repeated, tag = "1")]
    pub credentials: Vec<Credential>,
}
impl prost::Name for CredentialInjection {
    const NAME: &'static str = "CredentialInjection";
    const PACKAGE: &'static str = "sluis.egress.v1alpha1";
}
/// One credential.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Credential {
    /// NAMESPACE/NAME, for logs and records.
    #[prost(string, tag = "1")]
    pub name: String,
    /// A generic secret; its entries are what `key` fields below name. Two entries are about it:
    /// `@version` names the version for records, `@not_after` (RFC 3339) says when it expires.
    #[prost(message, optional, tag = "2")]
    pub secret: Option<SdsSecretConfig>,
    /// The version before, while its grace lasts; absent from SDS at other times.
    #[prost(message, optional, tag = "3")]
    pub previous_secret: Option<SdsSecretConfig>,
    /// Who may have it, for what.
    #[prost(message, repeated, tag = "4")]
    pub grants: Vec<Grant>,
    /// Where it may go at all. Required.
    #[prost(message, optional, tag = "5")]
    pub guard: Option<Guard>,
    /// Whether a request goes without it when it cannot be had. Default false: it is refused.
    #[prost(bool, tag = "6")]
    pub allow_without: bool,
    /// How it is added. Required.
    #[prost(oneof = "credential::Injection", tags = "10, 11, 12, 13, 14, 15, 16, 17, 18, 19")]
    pub injection: Option<credential::Injection>,
}
/// Nested message and enum types in `Credential`.
pub mod credential {
    /// How it is added. Required.
    #[derive(Clone, PartialEq, prost::Oneof)]
    pub enum Injection {
        /// A field.
        #[prost(message, tag = "10")]
        Header(super::Header),
        /// Basic authentication (RFC 7617).
        #[prost(message, tag = "11")]
        Basic(super::Basic),
        /// A parameter of the query.
        #[prost(message, tag = "12")]
        Query(super::Query),
        /// A cookie.
        #[prost(message, tag = "13")]
        Cookie(super::Cookie),
        /// A signature by template.
        #[prost(message, tag = "14")]
        Hmac(super::Hmac),
        /// RFC 9421.
        #[prost(message, tag = "15")]
        MessageSignature(super::MessageSignature),
        /// AWS Signature Version 4.
        #[prost(message, tag = "16")]
        AwsSigV4(super::AwsSigV4),
        /// A token that is fetched.
        #[prost(message, tag = "17")]
        Oauth2(super::Oauth2),
        /// A token that is signed here.
        #[prost(message, tag = "18")]
        JwtSign(super::JwtSign),
        /// Nothing is added: the cluster's TLS presents the client certificate.
        #[prost(message, tag = "19")]
        ClientCertificate(super::ClientCertificate),
    }
}
/// Who may have a credential used for what.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Grant {
    /// NAMESPACE/NAME, for records.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Principals are of the client's connection and token; permissions are of the request as sent.
    #[prost(message, optional, tag = "2")]
    pub policy: Option<Policy>,
    /// Uses in a minute by one identity; 0 is any number.
    #[prost(uint32, tag = "3")]
    pub per_identity_per_minute: u32,
    /// Only recorded: it covers nothing.
    #[prost(bool, tag = "4")]
    pub dry_run: bool,
}
/// Where a credential may go, besides what its grants say. Only ever to an endpoint whose
/// certificate was verified for the request's host.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Guard {
    /// `api.example.com` or `*.example.com`; at least one.
    #[prost(string, repeated, tag = "1")]
    pub hosts: Vec<String>,
    /// Removed from what the client sent, besides what the injection itself sets. Lower case.
    #[prost(string, repeated, tag = "2")]
    pub strip_request_headers: Vec<String>,
    /// Removed from what the endpoint answers. Lower case.
    #[prost(string, repeated, tag = "3")]
    pub strip_response_headers: Vec<String>,
    /// Looks for the secret's values in the response (head, and body to this many bytes); 0 is off.
    #[prost(uint64, tag = "4")]
    pub scan_response_bytes: u64,
}
/// `NAME: PREFIX + value`.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Header {
    /// Lower case.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Before the value, such as `Bearer `.
    #[prost(string, tag = "2")]
    pub prefix: String,
    /// Entry of the secret.
    #[prost(string, tag = "3")]
    pub key: String,
}
/// Basic authentication (RFC 7617).
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Basic {
    /// Entry of the secret.
    #[prost(string, tag = "1")]
    pub username_key: String,
    /// Entry of the secret.
    #[prost(string, tag = "2")]
    pub password_key: String,
    /// Default `authorization`.
    #[prost(string, tag = "3")]
    pub header: String,
}
/// A parameter of the query.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Query {
    /// Decoded; other parameters of this name are removed.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Entry of the secret.
    #[prost(string, tag = "2")]
    pub key: String,
}
/// A cookie.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct Cookie {
    /// Other cookies of this name are removed.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Entry of the secret.
    #[prost(string, tag = "2")]
    pub key: String,
}
/// What becomes of a body that must be digested before the head can be sent.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct BodyDigest {
    /// Default SHA-256.
    #[prost(enumeration = "HashAlgorithm", tag = "1")]
    pub algorithm: i32,
    /// Field that carries it: `content-digest` (RFC 9530) or another, then as `encoding` says.
    #[prost(string, tag = "2")]
    pub header: String,
    /// Longest body that is held. What is longer is refused (413).
    #[prost(uint64, tag = "3")]
    pub max_bytes: u64,
    /// How it is written.
    #[prost(enumeration = "TextEncoding", tag = "4")]
    pub encoding: i32,
}
/// An HMAC over the request, by templates.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Hmac {
    /// Default SHA-256.
    #[prost(enumeration = "HashAlgorithm", tag = "1")]
    pub algorithm: i32,
    /// Entry of the secret.
    #[prost(string, tag = "2")]
    pub key: String,
    /// How the entry holds the key.
    #[prost(enumeration = "KeyEncoding", tag = "3")]
    pub key_encoding: i32,
    /// A chain of HMACs makes the key: each text (a template) is signed by what came before.
    #[prost(string, repeated, tag = "4")]
    pub derive: Vec<String>,
    /// Templates are of literal text, `{variable}` and `{variable:hex|base64|base64url|lower|upper}`.
    /// Variables: method host authority path query path_and_query scheme date body_digest
    /// header.NAME secret.KEY (not in string_to_sign) signature (in outputs only).
    #[prost(string, tag = "5")]
    pub string_to_sign: String,
    /// strftime's letters; and `%s`. The time is UTC.
    #[prost(string, tag = "6")]
    pub date_format: String,
    /// Needed where a template says `body_digest`.
    #[prost(message, optional, tag = "7")]
    pub body_digest: Option<BodyDigest>,
    /// The fields that are set, in order; at least one.
    #[prost(message, repeated, tag = "8")]
    pub outputs: Vec<hmac::Output>,
}
/// Nested message and enum types in `Hmac`.
pub mod hmac {
    /// A field that is set.
    #[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
    pub struct Output {
        /// Lower case.
        #[prost(string, tag = "1")]
        pub header: String,
        /// Its value.
        #[prost(string, tag = "2")]
        pub template: String,
    }
}
/// RFC 9421.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct MessageSignature {
    /// Default `sig1`.
    #[prost(string, tag = "1")]
    pub label: String,
    /// As in `Signature-Input`: `"@method"`, `"@query-param";name="q"`, `"content-digest"`.
    #[prost(string, repeated, tag = "2")]
    pub components: Vec<String>,
    /// hmac-sha256, ed25519, ecdsa-p256-sha256, ecdsa-p384-sha384, rsa-pss-sha512, rsa-v1_5-sha256.
    #[prost(string, tag = "3")]
    pub algorithm: String,
    /// Entry of the secret.
    #[prost(string, tag = "4")]
    pub key: String,
    /// How the entry holds the key.
    #[prost(enumeration = "KeyEncoding", tag = "5")]
    pub key_encoding: i32,
    /// Entry of the secret with the key's id; or the id itself.
    #[prost(string, tag = "6")]
    pub key_id_key: String,
    /// The id itself.
    #[prost(string, tag = "7")]
    pub key_id: String,
    /// Leaves out `created`.
    #[prost(bool, tag = "8")]
    pub omit_created: bool,
    /// Life of the signature; 0 leaves `expires` out.
    #[prost(uint32, tag = "9")]
    pub expires_seconds: u32,
    /// Whether a random `nonce` is added.
    #[prost(bool, tag = "10")]
    pub nonce: bool,
    /// The parameter `tag`; empty leaves it out.
    #[prost(string, tag = "11")]
    pub tag: String,
    /// Whether the parameter `alg` is sent.
    #[prost(bool, tag = "12")]
    pub send_algorithm: bool,
    /// Needed where `content-digest` is covered.
    #[prost(message, optional, tag = "13")]
    pub body_digest: Option<BodyDigest>,
}
/// AWS Signature Version 4.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub struct AwsSigV4 {
    /// Such as `s3`, `execute-api`.
    #[prost(string, tag = "1")]
    pub service: String,
    /// Such as `eu-west-1`.
    #[prost(string, tag = "2")]
    pub region: String,
    /// Entry of the secret.
    #[prost(string, tag = "3")]
    pub access_key_id_key: String,
    /// Entry of the secret.
    #[prost(string, tag = "4")]
    pub secret_access_key_key: String,
    /// Entry of the secret; empty for none.
    #[prost(string, tag = "5")]
    pub session_token_key: String,
    /// In the query rather than in fields (a presigned URL), valid so long; 0 is fields.
    #[prost(uint32, tag = "6")]
    pub query_expires_seconds: u32,
    /// `UNSIGNED-PAYLOAD` in place of the digest of the body, which then streams.
    #[prost(bool, tag = "7")]
    pub unsigned_payload: bool,
    /// Longest body that is held for its digest; what is longer is refused (413).
    #[prost(uint64, tag = "8")]
    pub max_body_bytes: u64,
    /// Fields that are signed besides host and x-amz-*.
    #[prost(string, repeated, tag = "9")]
    pub signed_headers: Vec<String>,
    /// S3: the path is encoded once and not normalised.
    #[prost(bool, tag = "10")]
    pub s3: bool,
}
/// A token that an authorization server gives.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Oauth2 {
    /// Where tokens are fetched: a cluster of this proxy, with verified TLS, and the URL.
    #[prost(string, tag = "1")]
    pub token_cluster: String,
    /// Its URL, https.
    #[prost(string, tag = "2")]
    pub token_url: String,
    /// What is asked.
    #[prost(enumeration = "oauth2::GrantType", tag = "3")]
    pub grant_type: i32,
    /// How we prove who we are.
    #[prost(enumeration = "oauth2::ClientAuthentication", tag = "4")]
    pub client_authentication: i32,
    /// Entry of the secret.
    #[prost(string, tag = "5")]
    pub client_id_key: String,
    /// Entry of the secret.
    #[prost(string, tag = "6")]
    pub client_secret_key: String,
    /// The key of assertions.
    #[prost(string, tag = "7")]
    pub private_key_key: String,
    /// As in JwtSign.
    #[prost(string, tag = "8")]
    pub private_key_algorithm: String,
    /// `kid` of assertions.
    #[prost(string, tag = "9")]
    pub private_key_id: String,
    /// RFC 6749 section 3.3.
    #[prost(string, repeated, tag = "10")]
    pub scopes: Vec<String>,
    /// RFC 8693 section 2.1; of an assertion, `aud`.
    #[prost(string, repeated, tag = "11")]
    pub audiences: Vec<String>,
    /// RFC 8707.
    #[prost(string, repeated, tag = "12")]
    pub resources: Vec<String>,
    /// The field with the subject's token (`Bearer ` before it is left out). Default `authorization`.
    #[prost(string, tag = "13")]
    pub subject_header: String,
    /// Default `urn:ietf:params:oauth:token-type:jwt`.
    #[prost(string, tag = "14")]
    pub subject_token_type: String,
    /// Empty leaves it out.
    #[prost(string, tag = "15")]
    pub requested_token_type: String,
    /// Claims of a JWT_BEARER assertion.
    #[prost(btree_map = "string, string", tag = "16")]
    pub claims: BTreeMap<String, String>,
    /// RFC 9449: tokens are bound to a key of this proxy's own.
    #[prost(bool, tag = "17")]
    pub dpop: bool,
    /// Field and prefix that carry the token. Default `authorization`, `Bearer ` (`DPoP `).
    #[prost(string, tag = "18")]
    pub header: String,
    /// Before the token.
    #[prost(string, tag = "19")]
    pub prefix: String,
    /// More of the form.
    #[prost(message, repeated, tag = "20")]
    pub parameters: Vec<oauth2::Parameter>,
}
/// Nested message and enum types in `Oauth2`.
pub mod oauth2 {
    /// A parameter of the form.
    #[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
    pub struct Parameter {
        /// Its name.
        #[prost(string, tag = "1")]
        pub name: String,
        /// Its value.
        #[prost(string, tag = "2")]
        pub value: String,
    }
    /// What is asked of it.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
    #[repr(i32)]
    pub enum GrantType {
        /// RFC 6749 section 4.4.
        ClientCredentials = 0,
        /// RFC 8693: the user's token, from `subject_header`, for one of this audience.
        TokenExchange = 1,
        /// RFC 7523 section 2.1: an assertion that we sign.
        JwtBearer = 2,
    }
    /// How a client proves itself.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
    #[repr(i32)]
    pub enum ClientAuthentication {
        /// RFC 6749 section 2.3.1, in the field `authorization`.
        Basic = 0,
        /// RFC 6749 section 2.3.1, in the form.
        Body = 1,
        /// RFC 7523 section 2.2.
        PrivateKeyJwt = 2,
        /// A public client.
        None = 3,
    }
}
/// A token that we sign ourselves, for each request anew.
#[derive(Clone, PartialEq, prost::Message)]
pub struct JwtSign {
    /// HS256, RS256, PS256, ES256, ES384, EdDSA.
    #[prost(string, tag = "1")]
    pub algorithm: String,
    /// Entry of the secret.
    #[prost(string, tag = "2")]
    pub key: String,
    /// How the entry holds the key.
    #[prost(enumeration = "KeyEncoding", tag = "3")]
    pub key_encoding: i32,
    /// `kid`; empty leaves it out.
    #[prost(string, tag = "4")]
    pub key_id: String,
    /// `iss`.
    #[prost(string, tag = "5")]
    pub issuer: String,
    /// `sub`.
    #[prost(string, tag = "6")]
    pub subject: String,
    /// `aud`.
    #[prost(string, repeated, tag = "7")]
    pub audiences: Vec<String>,
    /// `exp` after `iat`.
    #[prost(uint32, tag = "8")]
    pub lifetime_seconds: u32,
    /// More claims: texts, templates as in Hmac.
    #[prost(btree_map = "string, string", tag = "9")]
    pub claims: BTreeMap<String, String>,
    /// Default `authorization`.
    #[prost(string, tag = "10")]
    pub header: String,
    /// Default `Bearer `.
    #[prost(string, tag = "11")]
    pub prefix: String,
}
/// The client certificate of the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct ClientCertificate {}
/// A hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum HashAlgorithm {
    /// SHA-256.
    HashUnspecified = 0,
    /// Weak.
    Sha1 = 1,
    /// SHA-256.
    Sha256 = 2,
    /// SHA-384.
    Sha384 = 3,
    /// SHA-512.
    Sha512 = 4,
}
/// How an entry holds a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum KeyEncoding {
    /// As it is.
    Raw = 0,
    /// RFC 4648 section 4, padded or not.
    Base64 = 1,
    /// Hexadecimal.
    Hex = 2,
    /// A private key, PKCS #8, SEC 1 or PKCS #1.
    Pem = 3,
}
/// How bytes are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum TextEncoding {
    /// Lower case.
    TextHex = 0,
    /// RFC 4648 section 4.
    TextBase64 = 1,
    /// RFC 4648 section 5, without padding.
    TextBase64url = 2,
    /// RFC 9530: `sha-256=:…:`.
    TextStructured = 3,
}
