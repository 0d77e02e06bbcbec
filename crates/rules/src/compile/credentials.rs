//! Upstream filters: credentials that are added to a cluster's requests.
//!
//! In:    the filters of a cluster's `HttpProtocolOptions`.
//! Out:   [`UpstreamFilter`]s, in their order.
//! Never: leaves out what it does not understand: the cluster is rejected.

mod schemes;
mod tokens;

use std::sync::Arc;

use envoy_types::pb::{
    envoy::{
        config::core::v3::{ConfigSource, config_source::ConfigSourceSpecifier},
        extensions::{
            filters::{
                http::credential_injector::v3::CredentialInjector,
                network::http_connection_manager::v3::{
                    HttpFilter as PbFilter, http_filter::ConfigType,
                },
            },
            http::injected_credentials::generic::v3::Generic,
            transport_sockets::tls::v3::SdsSecretConfig,
        },
    },
    google::protobuf::Any,
};
use sluis_envoy::credentials::{
    self as wire, Credential as PbCredential, Grant as PbGrant, Guard as PbGuard,
};
use sluis_nouns::HostPattern;

use super::{
    at::{At, fields, message_of},
    messages, rbac,
};
use crate::{
    Credential, Credentials, Grant, Guard, Injection, Injector, Rbac, RbacAction, SecretName,
    UpstreamFilter, rbac::Policy,
};

const CREDENTIALS: &str = "sluis.egress.v1alpha1.CredentialInjection";
const INJECTOR: &str = "envoy.extensions.filters.http.credential_injector.v3.CredentialInjector";
const GENERIC: &str = "envoy.extensions.http.injected_credentials.generic.v3.Generic";
const UPSTREAM_CODEC: &str = "envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec";

/// Most bytes of a response that are searched before any of it goes on: they are held meanwhile.
const SCAN_BYTES_MAX: u64 = 1 << 20;

/// Fields that frame a message or belong to one hop: nobody else may set or remove them.
const FRAMING: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

/// The upstream filters of a cluster; the codec comes last, where there is any list.
pub(super) fn upstream_filters(at: &At<'_>, filters: &[PbFilter]) -> Vec<UpstreamFilter> {
    let mut compiled = Vec::new();
    for (index, filter) in filters.iter().enumerate() {
        let at = at.nth(index);
        fields!(&at, filter => PbFilter {
            use { config_type }
            accept { name, is_optional }
            refuse { disabled }
        });
        let Some(ConfigType::TypedConfig(any)) = config_type else {
            at.field("typed_config").fault("is missing");
            continue;
        };
        let is_last = index + 1 == filters.len();
        let at = at.field("typed_config");
        match message_of(any) {
            UPSTREAM_CODEC if is_last => {}
            UPSTREAM_CODEC => at.fault("must be the last of the filters"),
            CREDENTIALS => compiled.extend(credentials(&at, any)),
            INJECTOR => {
                let injector = injector(&at, any);
                compiled.extend(injector.map(|one| UpstreamFilter::Injector(Arc::new(one))));
            }
            other => at.fault(format!("upstream filter {other} is not supported")),
        }
        if is_last && message_of(any) != UPSTREAM_CODEC {
            at.fault("must be the codec: it comes last");
        }
    }
    compiled
}

/// The name of a secret that comes by ADS, or that is in the bootstrap.
fn secret(at: &At<'_>, config: Option<&SdsSecretConfig>) -> Option<SecretName> {
    let Some(config) = config else {
        at.fault("is missing");
        return None;
    };
    let SdsSecretConfig { name, sds_config } = config;
    if name.is_empty() {
        at.field("name").fault("is missing");
    }
    if let Some(ConfigSource { config_source_specifier: Some(source), .. }) = sds_config
        && !matches!(source, ConfigSourceSpecifier::Ads(_))
    {
        at.field("sds_config").fault("is neither ads nor absent");
    }
    (!name.is_empty()).then(|| SecretName::new(name))
}

fn credentials(at: &At<'_>, any: &Any) -> Option<UpstreamFilter> {
    let wire::CredentialInjection { credentials } = at.unpack(any)?;
    let at = at.field("credentials");
    if credentials.is_empty() {
        at.fault("is empty");
    }
    let list: Option<Vec<_>> = credentials
        .iter()
        .enumerate()
        .map(|(index, message)| credential(&at.nth(index), message))
        .collect();
    Some(UpstreamFilter::Credentials(Arc::new(Credentials { list: list? })))
}

fn credential(at: &At<'_>, message: &PbCredential) -> Option<Credential> {
    fields!(at, message => PbCredential {
        use { name, secret, previous_secret, grants, guard, allow_without, injection }
        accept {}
        refuse {}
    });
    if name.is_empty() {
        at.field("name").fault("is missing");
    }
    let Some(injection) = injection else {
        at.field("injection").fault("is missing");
        return None;
    };
    let (injection, hidden) = schemes::injection(at, injection)?;
    let mut owned: Vec<Arc<str>> = match &injection {
        Injection::Signed(signature) => {
            let fields = &signature.scheme().owned().fields;
            fields.iter().map(|field| field.as_str().into()).collect()
        }
        Injection::Token(token) => {
            let fields = &token.flow().owned().fields;
            fields.iter().map(|field| field.as_str().into()).collect()
        }
        Injection::ClientCertificate => Vec::new(),
    };
    let needs_secret = injection != Injection::ClientCertificate;
    let secret_of = |field: &str, config: &Option<SdsSecretConfig>, is_needed: bool| {
        if config.is_none() && !is_needed {
            return Some(None);
        }
        self::secret(&at.field(field), config.as_ref()).map(Some)
    };
    let secret = secret_of("secret", secret, needs_secret)?;
    let previous = secret_of("previous_secret", previous_secret, false)?;
    let Some(guard) = guard else {
        at.field("guard").fault("is missing");
        return None;
    };
    let at_guard = at.field("guard");
    owned.extend(field_names(
        &at_guard.field("strip_request_headers"),
        &guard.strip_request_headers,
    ));
    let at_grants = at.field("grants");
    let grants: Option<Vec<_>> =
        grants.iter().enumerate().map(|(index, one)| grant(&at_grants.nth(index), one)).collect();
    Some(Credential {
        name: name.as_str().into(),
        secret,
        previous,
        grants: grants?,
        guard: self::guard(&at_guard, guard)?,
        allow_without: *allow_without,
        injection,
        owned,
        hidden,
    })
}

fn guard(at: &At<'_>, message: &PbGuard) -> Option<Guard> {
    fields!(at, message => PbGuard {
        use { hosts, strip_response_headers, scan_response_bytes }
        accept { strip_request_headers }
        refuse {}
    });
    let at_hosts = at.field("hosts");
    if hosts.is_empty() {
        at_hosts.fault("is empty");
    }
    let hosts: Option<Vec<HostPattern>> = hosts
        .iter()
        .enumerate()
        .map(|(index, host)| match host.parse::<HostPattern>() {
            // A name is what the certificate is verified for: an address is none.
            Ok(pattern) if !pattern.is_any() && pattern.ip().is_none() => Some(pattern),
            _ => {
                at_hosts.nth(index).fault(format!("{host:?} is no host name or wildcard of one"));
                None
            }
        })
        .collect();
    if *scan_response_bytes > SCAN_BYTES_MAX {
        at.field("scan_response_bytes").fault(format!("is more than {SCAN_BYTES_MAX}"));
    }
    Some(Guard {
        hosts: hosts?,
        strip_response: field_names(&at.field("strip_response_headers"), strip_response_headers),
        scan_bytes: usize::try_from(*scan_response_bytes).unwrap_or(0),
    })
}

fn grant(at: &At<'_>, message: &PbGrant) -> Option<Grant> {
    fields!(at, message => PbGrant {
        use { name, policy, per_identity_per_minute, dry_run }
        accept {}
        refuse {}
    });
    let Some(policy) = policy else {
        at.field("policy").fault("is missing");
        return None;
    };
    let name: Arc<str> = name.as_str().into();
    let when = rbac::policy(&at.field("policy"), policy)?;
    let policy = Policy { name: Arc::clone(&name), when };
    Some(Grant {
        name,
        policy: Rbac::new(RbacAction::Allow, vec![policy]),
        per_minute: (*per_identity_per_minute > 0).then_some(*per_identity_per_minute),
        is_dry_run: *dry_run,
    })
}

/// Names of fields that the proxy may set or remove.
fn field_names(at: &At<'_>, names: &[String]) -> Vec<Arc<str>> {
    names.iter().enumerate().map(|(index, name)| field_name(&at.nth(index), name)).collect()
}

fn field_name(at: &At<'_>, name: &str) -> Arc<str> {
    let valid = messages::header_name(at, name);
    if valid.starts_with(':') || FRAMING.contains(&&*valid) {
        at.fault(format!("{name:?} frames the message or belongs to one hop"));
    }
    valid
}

/// Envoy's filter, as an upstream filter or in a connection manager.
pub(super) fn injector(at: &At<'_>, any: &Any) -> Option<Injector> {
    let message = at.unpack::<CredentialInjector>(any)?;
    fields!(at, &message => CredentialInjector {
        use { overwrite, allow_request_without_credential, credential }
        accept {}
        refuse {}
    });
    let at = at.field("credential");
    let at = at.field("typed_config");
    let Some(any) = credential.as_ref().and_then(|config| config.typed_config.as_ref()) else {
        at.fault("is missing");
        return None;
    };
    match message_of(any) {
        GENERIC => {
            let generic = at.unpack::<Generic>(any)?;
            fields!(&at, &generic => Generic {
                use { credential, header, header_value_prefix }
                accept {}
                refuse {}
            });
            let name = if header.is_empty() { "authorization" } else { header };
            Some(Injector {
                overwrites: *overwrite,
                allow_without: *allow_request_without_credential,
                header: field_name(&at.field("header"), name),
                prefix: messages::header_value(
                    &at.field("header_value_prefix"),
                    header_value_prefix,
                ),
                secret: secret(&at.field("credential"), credential.as_ref())?,
            })
        }
        other => {
            at.fault(format!("credential {other} is not supported"));
            None
        }
    }
}
