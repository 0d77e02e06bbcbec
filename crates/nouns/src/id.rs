//! Who a workload is: SPIFFE identities in the form that Istio gives them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::name::is_dns_name;

/// Longest trust domain, SPIFFE-ID §2.1.
const TRUST_DOMAIN_BYTES_MAX: usize = 255;

/// A trust domain that has been checked, such as `cluster.local`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    /// Returns the domain as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TrustDomain {
    /// Istio's default, `cluster.local`.
    fn default() -> Self {
        Self("cluster.local".into())
    }
}

impl FromStr for TrustDomain {
    type Err = TrustDomainError;

    /// Checks SPIFFE-ID §2.1: lower-case letters, digits, dots, dashes, underscores.
    fn from_str(text: &str) -> Result<Self, TrustDomainError> {
        let allowed =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
        if text.is_empty() || text.len() > TRUST_DOMAIN_BYTES_MAX || !text.bytes().all(allowed) {
            return Err(TrustDomainError(text.to_owned()));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TrustDomain({})", self.0)
    }
}

/// Text that is not a trust domain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a trust domain: lower-case letters, digits, '.', '-' and '_' are allowed")]
pub struct TrustDomainError(String);

/// A SPIFFE identity that has been checked: `spiffe://<domain>/ns/<namespace>/sa/<account>`.
///
/// Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkloadId {
    domain: TrustDomain,
    namespace: Arc<str>,
    account: Arc<str>,
}

impl WorkloadId {
    /// Makes an identity from its parts.
    ///
    /// # Errors
    ///
    /// [`WorkloadIdError::Name`] when the namespace or the account is not a DNS name.
    pub fn new(
        domain: TrustDomain,
        namespace: &str,
        account: &str,
    ) -> Result<Self, WorkloadIdError> {
        for part in [namespace, account] {
            if !is_dns_name(part) {
                return Err(WorkloadIdError::Name(part.to_owned()));
            }
        }
        Ok(Self { domain, namespace: namespace.into(), account: account.into() })
    }

    /// Returns the trust domain.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.domain
    }

    /// Returns the namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Returns the service account.
    pub fn service_account(&self) -> &str {
        &self.account
    }
}

impl FromStr for WorkloadId {
    type Err = WorkloadIdError;

    fn from_str(uri: &str) -> Result<Self, WorkloadIdError> {
        let path = uri.strip_prefix("spiffe://").ok_or(WorkloadIdError::Scheme)?;
        let parts: Vec<&str> = path.split('/').collect();
        let [domain, "ns", namespace, "sa", account] = parts[..] else {
            return Err(WorkloadIdError::Shape);
        };
        Self::new(domain.parse()?, namespace, account)
    }
}

impl fmt::Display for WorkloadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/ns/{}/sa/{}", self.domain, self.namespace, self.account)
    }
}

impl fmt::Debug for WorkloadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WorkloadId({self})")
    }
}

/// Why some text is not a workload's identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorkloadIdError {
    /// The URI's scheme is another.
    #[error("an identity starts with spiffe://")]
    Scheme,
    /// The path has another form.
    #[error("an identity has the form spiffe://DOMAIN/ns/NAMESPACE/sa/ACCOUNT")]
    Shape,
    /// The namespace or the account is not a name.
    #[error("{0:?} is not a DNS name")]
    Name(String),
    /// The trust domain is not one.
    #[error(transparent)]
    TrustDomain(#[from] TrustDomainError),
}

#[cfg(test)]
mod tests {
    use super::{WorkloadId, WorkloadIdError};

    #[test]
    fn an_identity_survives_printing_and_parsing() {
        let uri = "spiffe://cluster.local/ns/egress/sa/gateway";
        let id: WorkloadId = uri.parse().unwrap();
        assert_eq!(id.to_string(), uri);
        assert_eq!((id.namespace(), id.service_account()), ("egress", "gateway"));
    }

    #[test]
    fn other_shapes_are_refused() {
        let check = |uri: &str, expected: WorkloadIdError| {
            assert_eq!(uri.parse::<WorkloadId>(), Err(expected), "{uri}");
        };
        check("https://a/ns/b/sa/c", WorkloadIdError::Scheme);
        check("spiffe://a/ns/b/sa/c/d", WorkloadIdError::Shape);
        check("spiffe://a/ns/b", WorkloadIdError::Shape);
        check("spiffe://a/ns//sa/c", WorkloadIdError::Name(String::new()));
        check("spiffe://a/ns/b/sa/c%2f", WorkloadIdError::Name("c%2f".into()));
        assert!("spiffe://A b/ns/b/sa/c".parse::<WorkloadId>().is_err());
    }
}
