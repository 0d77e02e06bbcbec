//! The upstream filters that add credentials to a cluster's requests.
//!
//! In:    [`CredentialsInput`].
//! Out:   filters for `HttpProtocolOptions.http_filters`, the codec last.
//! Never: holds a secret: those are named, and come by SDS.

use envoy_types::pb::envoy::{
    config::{
        common::mutation_rules::v3::{HeaderMutation as Mutation, header_mutation::Action},
        core::v3::TypedExtensionConfig,
    },
    extensions::{
        filters::{
            http::{
                credential_injector::v3::CredentialInjector,
                header_mutation::v3::{HeaderMutation, Mutations},
                upstream_codec::v3::UpstreamCodec,
            },
            network::http_connection_manager::v3::HttpFilter,
        },
        http::injected_credentials::generic::v3::Generic,
    },
};
use sluis_envoy::credentials::{
    self as pb, CREDENTIALS_FILTER, CredentialInjection, credential::Injection as PbInjection,
};
use sluis_envoy::pack;
use sluis_resources as resources;
use sluis_resources::Injection;

use super::{authorization, filter::http_filter, tls};
use crate::{CredentialInput, CredentialsInput, EnvoyCredential, GrantInput};

const UPSTREAM_CODEC: &str = "envoy.filters.http.upstream_codec";

/// The filters of a cluster.
pub(super) fn filters(input: &CredentialsInput) -> Vec<HttpFilter> {
    let mut filters = match input {
        CredentialsInput::Own(list) => {
            let credentials = list.iter().map(credential).collect();
            vec![http_filter(CREDENTIALS_FILTER, &CredentialInjection { credentials })]
        }
        CredentialsInput::Envoy(one) => of_envoy(one),
    };
    filters.push(http_filter(UPSTREAM_CODEC, &UpstreamCodec::default()));
    filters
}

/// Envoy's own filters for one credential.
fn of_envoy(made: &EnvoyCredential) -> Vec<HttpFilter> {
    let input = &made.credential;
    let removals = |names: &[String]| -> Vec<Mutation> {
        let one = |name: &String| Mutation { action: Some(Action::Remove(name.clone())) };
        names.iter().map(one).collect()
    };
    let mutations = Mutations {
        request_mutations: removals(&input.strip_request),
        response_mutations: removals(&input.strip_response),
        ..Mutations::default()
    };
    let generic = Generic {
        credential: Some(tls::secret(&input.secret)),
        header: made.header.clone(),
        header_value_prefix: made.prefix.clone(),
    };
    let injector = CredentialInjector {
        // What the client sends in its place is not sent on.
        overwrite: true,
        allow_request_without_credential: input.allow_without,
        credential: Some(TypedExtensionConfig {
            name: "envoy.http.injected_credentials.generic".to_owned(),
            typed_config: Some(pack(&generic)),
        }),
    };
    let mut filters = Vec::new();
    if mutations != Mutations::default() {
        let mutation = HeaderMutation { mutations: Some(mutations), ..HeaderMutation::default() };
        filters.push(http_filter("envoy.filters.http.header_mutation", &mutation));
    }
    filters.push(http_filter("envoy.filters.http.credential_injector", &injector));
    filters
}

fn credential(input: &CredentialInput) -> pb::Credential {
    let injection = injection(input);
    let is_certificate = matches!(injection, PbInjection::ClientCertificate(_));
    pb::Credential {
        name: input.name.to_string(),
        // The cluster's TLS names the certificate.
        secret: (!is_certificate).then(|| tls::secret(&input.secret)),
        previous_secret: input.previous_secret.as_deref().map(tls::secret),
        grants: input.grants.iter().map(|one| grant(one)).collect(),
        guard: Some(pb::Guard {
            hosts: input.hosts.clone(),
            strip_request_headers: input.strip_request.clone(),
            strip_response_headers: input.strip_response.clone(),
            scan_response_bytes: input.scan_response_bytes,
        }),
        allow_without: input.allow_without,
        injection: Some(injection),
    }
}

fn grant(input: &GrantInput) -> pb::Grant {
    pb::Grant {
        name: input.name.to_string(),
        policy: Some(authorization::policy(&input.matches)),
        per_identity_per_minute: input.per_identity_per_minute,
        dry_run: input.dry_run,
    }
}

fn injection(input: &CredentialInput) -> PbInjection {
    match &input.injection {
        Injection::Header(one) => PbInjection::Header(pb::Header {
            name: one.name.clone(),
            prefix: one.prefix.clone(),
            key: one.key.clone(),
        }),
        Injection::Basic(one) => PbInjection::Basic(pb::Basic {
            username_key: one.username_key.clone(),
            password_key: one.password_key.clone(),
            header: one.header.clone(),
        }),
        Injection::Query(one) => {
            PbInjection::Query(pb::Query { name: one.name.clone(), key: one.key.clone() })
        }
        Injection::Cookie(one) => {
            PbInjection::Cookie(pb::Cookie { name: one.name.clone(), key: one.key.clone() })
        }
        Injection::Hmac(one) => PbInjection::Hmac(hmac(one)),
        Injection::MessageSignature(one) => PbInjection::MessageSignature(message_signature(one)),
        Injection::AwsSigV4(one) => PbInjection::AwsSigV4(aws(one)),
        Injection::Oauth2(one) => PbInjection::Oauth2(oauth2(one, input)),
        Injection::JwtSign(one) => PbInjection::JwtSign(jwt_sign(one)),
        Injection::ClientCertificate(_) => PbInjection::ClientCertificate(pb::ClientCertificate {}),
    }
}

fn hash(algorithm: resources::HashAlgorithm) -> i32 {
    let algorithm = match algorithm {
        resources::HashAlgorithm::Sha1 => pb::HashAlgorithm::Sha1,
        resources::HashAlgorithm::Sha256 => pb::HashAlgorithm::Sha256,
        resources::HashAlgorithm::Sha384 => pb::HashAlgorithm::Sha384,
        resources::HashAlgorithm::Sha512 => pb::HashAlgorithm::Sha512,
    };
    algorithm.into()
}

fn key_encoding(encoding: resources::KeyEncoding) -> i32 {
    let encoding = match encoding {
        resources::KeyEncoding::Raw => pb::KeyEncoding::Raw,
        resources::KeyEncoding::Base64 => pb::KeyEncoding::Base64,
        resources::KeyEncoding::Hex => pb::KeyEncoding::Hex,
        resources::KeyEncoding::Pem => pb::KeyEncoding::Pem,
    };
    encoding.into()
}

fn body_digest(digest: &resources::BodyDigest) -> pb::BodyDigest {
    let encoding = match digest.encoding {
        resources::TextEncoding::Hex => pb::TextEncoding::TextHex,
        resources::TextEncoding::Base64 => pb::TextEncoding::TextBase64,
        resources::TextEncoding::Base64Url => pb::TextEncoding::TextBase64url,
        resources::TextEncoding::Structured => pb::TextEncoding::TextStructured,
    };
    pb::BodyDigest {
        algorithm: hash(digest.algorithm),
        header: digest.header.clone(),
        max_bytes: digest.max_bytes,
        encoding: encoding.into(),
    }
}

fn hmac(one: &resources::HmacInjection) -> pb::Hmac {
    let output = |output: &resources::HmacOutput| pb::hmac::Output {
        header: output.header.clone(),
        template: output.template.clone(),
    };
    pb::Hmac {
        algorithm: hash(one.algorithm),
        key: one.key.entry.clone(),
        key_encoding: key_encoding(one.key.encoding),
        derive: one.derive.clone(),
        string_to_sign: one.string_to_sign.clone(),
        date_format: one.date_format.clone(),
        body_digest: one.body_digest.as_ref().map(body_digest),
        outputs: one.outputs.iter().map(output).collect(),
    }
}

fn seconds(duration: std::time::Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

fn message_signature(one: &resources::MessageSignatureInjection) -> pb::MessageSignature {
    let (key_id, key_id_key) = match &one.key_id {
        Some(resources::KeyId::Literal(id)) => (id.clone(), String::new()),
        Some(resources::KeyId::Entry(entry)) => (String::new(), entry.clone()),
        None => (String::new(), String::new()),
    };
    pb::MessageSignature {
        label: one.label.clone(),
        components: one.components.clone(),
        algorithm: one.algorithm.as_str().to_owned(),
        key: one.key.entry.clone(),
        key_encoding: key_encoding(one.key.encoding),
        key_id_key,
        key_id,
        omit_created: one.omit_created,
        expires_seconds: one.expires.map(seconds).unwrap_or_default(),
        nonce: one.nonce,
        tag: one.tag.clone().unwrap_or_default(),
        send_algorithm: one.send_algorithm,
        body_digest: one.body_digest.as_ref().map(body_digest),
    }
}

fn aws(one: &resources::AwsSigV4Injection) -> pb::AwsSigV4 {
    pb::AwsSigV4 {
        service: one.service.clone(),
        region: one.region.clone(),
        access_key_id_key: one.access_key_id_key.clone(),
        secret_access_key_key: one.secret_access_key_key.clone(),
        session_token_key: one.session_token_key.clone().unwrap_or_default(),
        query_expires_seconds: one.presign.map(seconds).unwrap_or_default(),
        unsigned_payload: one.unsigned_payload,
        max_body_bytes: one.max_body_bytes,
        signed_headers: one.signed_headers.clone(),
        s3: one.is_s3(),
    }
}

fn oauth2(one: &resources::Oauth2Injection, input: &CredentialInput) -> pb::Oauth2 {
    use pb::oauth2::{ClientAuthentication, GrantType, Parameter};
    let grant_type = match one.grant {
        resources::Oauth2Grant::ClientCredentials => GrantType::ClientCredentials,
        resources::Oauth2Grant::TokenExchange => GrantType::TokenExchange,
        resources::Oauth2Grant::JwtBearer => GrantType::JwtBearer,
    };
    let client_authentication = match one.client_authentication {
        resources::ClientAuthentication::Basic => ClientAuthentication::Basic,
        resources::ClientAuthentication::Body => ClientAuthentication::Body,
        resources::ClientAuthentication::PrivateKeyJwt => ClientAuthentication::PrivateKeyJwt,
        resources::ClientAuthentication::None => ClientAuthentication::None,
    };
    let parameter =
        |(name, value): (&String, &String)| Parameter { name: name.clone(), value: value.clone() };
    pb::Oauth2 {
        token_cluster: input.token_cluster.clone().unwrap_or_default(),
        token_url: one.token_url.clone(),
        grant_type: grant_type.into(),
        client_authentication: client_authentication.into(),
        client_id_key: one.client_id_key.clone(),
        client_secret_key: one.client_secret_key.clone(),
        private_key_key: one.private_key_key.clone(),
        private_key_algorithm: one.private_key_algorithm.as_str().to_owned(),
        private_key_id: one.private_key_id.clone().unwrap_or_default(),
        scopes: one.scopes.clone(),
        audiences: one.audiences.clone(),
        resources: one.resources.clone(),
        subject_header: one.subject_header.clone(),
        subject_token_type: one.subject_token_type.clone(),
        requested_token_type: one.requested_token_type.clone().unwrap_or_default(),
        claims: one.claims.clone(),
        dpop: one.dpop,
        header: one.header.clone(),
        prefix: one.prefix.clone(),
        parameters: one.parameters.iter().map(parameter).collect(),
    }
}

fn jwt_sign(one: &resources::JwtSignInjection) -> pb::JwtSign {
    pb::JwtSign {
        algorithm: one.algorithm.as_str().to_owned(),
        key: one.key.entry.clone(),
        key_encoding: key_encoding(one.key.encoding),
        key_id: one.key_id.clone().unwrap_or_default(),
        issuer: one.issuer.clone(),
        subject: one.subject.clone(),
        audiences: one.audiences.clone(),
        lifetime_seconds: seconds(one.lifetime),
        claims: one.claims.clone(),
        header: one.header.clone(),
        prefix: one.prefix.clone(),
    }
}
