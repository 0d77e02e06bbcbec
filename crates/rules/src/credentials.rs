//! Credentials that are added to the requests of a cluster: which, to whom, for what, and how.
//!
//! In:    compiled messages; a request as it is to be sent, and its connection.
//! Out:   the credential that a request gets, by which grant; what is removed from it before.
//! Never: holds a value: secrets are named here and read where they are used.
//!
//! Start at [`Credentials::choose`].

mod tokens;

use std::sync::Arc;

use sluis_envoy::credentials as wire;
use sluis_nouns::HostPattern;
use sluis_signing::Scheme;

pub use tokens::TokenUse;

use crate::{Cluster, Discovery, Rbac, RbacFacts, SanKind, SecretName, StringMatcher, UpstreamTls};

/// What is done to each request of a cluster, last of all.
#[derive(Clone, Debug, PartialEq)]
pub enum UpstreamFilter {
    /// Our own: credentials by grants.
    Credentials(Arc<Credentials>),
    /// Envoy's `credential_injector`.
    Injector(Arc<Injector>),
}

/// Credentials for the requests to one cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Credentials {
    /// The first one with a grant that covers the request is used.
    pub list: Vec<Credential>,
}

/// One credential.
#[derive(Clone, Debug, PartialEq)]
pub struct Credential {
    /// NAMESPACE/NAME.
    pub name: Arc<str>,
    /// Where its values are; `None` for the client certificate of the cluster's TLS.
    pub secret: Option<SecretName>,
    /// The version before, while its grace lasts.
    pub previous: Option<SecretName>,
    /// Who may have it, for what.
    pub grants: Vec<Grant>,
    /// Where it may go at all.
    pub guard: Guard,
    /// Whether a request goes without it when it cannot be had.
    pub allow_without: bool,
    /// How it is added.
    pub injection: Injection,
    /// The fields that only the proxy may set, in lower case: what the injection sets and what the
    /// guard removes besides.
    pub owned: Vec<Arc<str>>,
    /// The entries of the secret that no response may hold.
    pub hidden: Vec<Arc<str>>,
}

/// Who may have a credential used for what.
#[derive(Clone, Debug, PartialEq)]
pub struct Grant {
    /// NAMESPACE/NAME.
    pub name: Arc<str>,
    /// One policy: principals of the client, permissions of the request as it is sent.
    pub policy: Rbac,
    /// Uses in a minute by one identity; `None` is any number.
    pub per_minute: Option<u32>,
    /// Whether it is only recorded, and covers nothing.
    pub is_dry_run: bool,
}

/// Where a credential may go.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Guard {
    /// The hosts; at least one.
    pub hosts: Vec<HostPattern>,
    /// Removed from responses, in lower case.
    pub strip_response: Vec<Arc<str>>,
    /// Bytes of a response's body that are searched for the secret, as its head is; 0 is off.
    pub scan_bytes: usize,
}

/// How a credential is added.
#[derive(Clone, Debug, PartialEq)]
pub enum Injection {
    /// As it is, or as a signature over the request.
    Signed(Signature),
    /// A token that an authorization server gives.
    Token(Box<TokenUse>),
    /// The client certificate of the cluster's TLS: nothing is added.
    ClientCertificate,
}

impl Injection {
    /// Its name, as the resource has it, for records.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        use wire::credential::Injection as Source;
        let Self::Signed(signature) = self else {
            // What else there may be is a token that is fetched.
            let is_certificate = matches!(self, Self::ClientCertificate);
            return if is_certificate { "clientCertificate" } else { "oauth2" };
        };
        match &*signature.source {
            Source::Header(_) => "header",
            Source::Basic(_) => "basic",
            Source::Query(_) => "query",
            Source::Cookie(_) => "cookie",
            Source::Hmac(_) => "hmac",
            Source::MessageSignature(_) => "httpMessageSignature",
            Source::AwsSigV4(_) => "awsSigV4",
            Source::Oauth2(_) => "oauth2",
            Source::JwtSign(_) => "jwtSign",
            Source::ClientCertificate(_) => "clientCertificate",
        }
    }
}

/// A scheme, with the message that it was compiled from: equal messages make equal schemes.
#[derive(Clone, Debug)]
pub struct Signature {
    scheme: Scheme,
    source: Box<wire::credential::Injection>,
}

impl Signature {
    pub(crate) fn new(scheme: Scheme, source: wire::credential::Injection) -> Self {
        Self { scheme, source: Box::new(source) }
    }

    /// What signs.
    #[must_use]
    pub fn scheme(&self) -> &Scheme {
        &self.scheme
    }
}

impl PartialEq for Signature {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

/// Envoy's `credential_injector`: one value for every request.
#[derive(Clone, Debug, PartialEq)]
pub struct Injector {
    /// Whether a value that the request has is replaced.
    pub overwrites: bool,
    /// Whether a request goes without it when it cannot be had; otherwise it is answered 401.
    pub allow_without: bool,
    /// The field, in lower case.
    pub header: Arc<str>,
    /// Before the value.
    pub prefix: Arc<str>,
    /// Where the value is.
    pub secret: SecretName,
}

/// Why a request gets no credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    /// No grant covers it.
    NotGranted,
    /// The host is none that the guard of any credential names.
    OtherHost,
}

/// The credential that a request gets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice<'c> {
    /// Its place in the list.
    pub place: usize,
    /// The credential.
    pub credential: &'c Credential,
    /// The grant that covers the request.
    pub grant: &'c Grant,
}

impl Credentials {
    /// The credential of a request to `host` (lower case, no port), and the grants that would have
    /// covered it, were they more than recorded.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub fn choose<'c>(
        &'c self,
        host: &str,
        facts: &RbacFacts<'_>,
        mut dry: impl FnMut(&'c Credential, &'c Grant),
    ) -> Result<Choice<'c>, Denial> {
        let mut denial = Denial::OtherHost;
        for (place, credential) in self.list.iter().enumerate() {
            if !credential.guard.hosts.iter().any(|pattern| pattern.matches(host)) {
                continue;
            }
            denial = Denial::NotGranted;
            for grant in &credential.grants {
                if !grant.policy.decide(facts).is_allowed {
                    continue;
                }
                if grant.is_dry_run {
                    dry(credential, grant);
                    continue;
                }
                return Ok(Choice { place, credential, grant });
            }
        }
        Err(denial)
    }

    /// Whether a request may go without any of them.
    #[must_use]
    pub fn allow_without(&self) -> bool {
        self.list.iter().all(|credential| credential.allow_without)
    }

    /// Whether one of them, or what the guard of one says, owns a field of this name in any
    /// spelling.
    #[must_use]
    pub fn own(&self, name: &[u8]) -> bool {
        self.list.iter().flat_map(|credential| &credential.owned).any(|own| is_same(own, name))
    }
}

/// Whether two names are one to a lenient reader: case, and `_` for `-`, as CGI has it.
#[must_use]
pub fn is_same(own: &str, name: &[u8]) -> bool {
    let normal = |byte: u8| if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() };
    own.len() == name.len() && own.bytes().zip(name).all(|(a, b)| normal(a) == normal(*b))
}

impl UpstreamFilter {
    /// The secrets that it needs.
    pub fn secrets(&self) -> Vec<&SecretName> {
        match self {
            Self::Credentials(all) => {
                all.list.iter().filter_map(|one| one.secret.as_ref()).collect()
            }
            Self::Injector(injector) => vec![&injector.secret],
        }
    }

    /// The secrets that it uses when they are there.
    pub fn previous_secrets(&self) -> Vec<&SecretName> {
        match self {
            Self::Credentials(all) => {
                all.list.iter().filter_map(|one| one.previous.as_ref()).collect()
            }
            Self::Injector(_) => Vec::new(),
        }
    }
}

/// Whether whoever completes TLS with these settings is a server of `host` (lower case), or of
/// another host that the guard names. `endpoint` is the endpoint's own name.
///
/// A certificate must have one of the names that are asked for: each of them must be good.
#[must_use]
pub fn is_verified(
    cluster: &Cluster,
    tls: &UpstreamTls,
    (host, endpoint): (&str, Option<&str>),
    guard: &[HostPattern],
) -> bool {
    // The address was chosen by the client: it need not belong to the name.
    if matches!(cluster.discovery, Discovery::OriginalDst { .. }) {
        return false;
    }
    let Some(validation) = &tls.validation else { return false };
    if cluster.auto_san_validation || tls.auto_sni_san_validation {
        // In the order in which the name that is sent, and verified, is found.
        let sent = match endpoint.filter(|_| tls.auto_host_sni) {
            _ if cluster.auto_sni => Some(host),
            Some(endpoint) => Some(endpoint),
            None => tls.sni.as_deref(),
        };
        return sent.is_some_and(|sent| sent.eq_ignore_ascii_case(host));
    }
    let names = validation.sans.iter().map(|san| match (&san.kind, &san.matcher) {
        (SanKind::Dns | SanKind::Any, StringMatcher::Exact(text)) => Some(text.as_str()),
        _ => None,
    });
    let is_good =
        |name: &&str| !name.contains('*') && guard.iter().any(|pattern| pattern.matches(name));
    let Some(names) = names.collect::<Option<Vec<_>>>() else { return false };
    names.iter().any(|name| name.eq_ignore_ascii_case(host)) && names.iter().all(is_good)
}

#[cfg(test)]
mod tests;
