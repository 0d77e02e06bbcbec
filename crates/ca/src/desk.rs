//! Where callers ask: proves who they are, then has the authority sign.
//!
//! In:    a call of the certificate service, with a token or over a verified certificate.
//! Out:   the chain; a gRPC status for who is not who they should be, a line in the log, a count.
//! Never: issues for anybody but the caller. Impersonation is refused by name.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use envoy_types::pb::google::protobuf::value::Kind;
use sluis_identity::{Caller, CertificateAuthority, IstioCertificateRequest};
use sluis_nouns::WorkloadId;
use sluis_tls::{Leaf, PeerIdentity};
use tonic::{Code, Status};

use crate::{
    Authority, Grounds, IssueError, JoinTokens, Proof, RequestError, SigningRequest, TokenError,
    TokenReviewer, review::looks_reviewable,
};

/// The certificate service's other side.
#[derive(Debug)]
pub struct Desk {
    authority: Arc<Authority>,
    tokens: Arc<JoinTokens>,
    reviewer: Option<Arc<dyn TokenReviewer>>,
    counts: Mutex<DeskCounts>,
}

/// How many requests there were, and what became of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeskCounts {
    /// All of them.
    pub requests: u64,
    /// Those that were answered with a certificate.
    pub issued: u64,
    /// Those of callers that did not show who they are, or are not who they should be.
    pub unauthenticated: u64,
    /// Those that could not be read, or asked for what is not given.
    pub unreadable: u64,
    /// Those that were good and could not be signed.
    pub unsigned: u64,
    /// Those that were refused, by reason ([`Denial::reason`]).
    pub refusals: BTreeMap<&'static str, u64>,
}

/// Why a caller gets no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Denial {
    /// It showed nothing.
    #[error("neither a join token nor a client certificate was shown")]
    NoProof,
    /// Its join token is not accepted.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Who issues such tokens does not vouch for this one.
    #[error("the token was not confirmed: {0}")]
    Review(String),
    /// It asks for another identity than the one that it proved.
    #[error("{proved} was proved, and the request is for {asked}")]
    WrongIdentity {
        /// Who it is.
        proved: WorkloadId,
        /// Who it would like to be.
        asked: String,
    },
    /// It asks for what nobody gets: to be somebody else, or another signer.
    #[error("metadata {0:?} is not supported")]
    Metadata(String),
    /// The life that it asks for is negative.
    #[error("validity_duration is negative")]
    Life,
    /// Its request cannot be read, or its key is weak.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// It could not be signed.
    #[error(transparent)]
    Issue(#[from] IssueError),
}

impl Denial {
    /// The reason in one word, as metrics name it.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoProof => "no_proof",
            Self::Token(TokenError::Used) => "token_replayed",
            Self::Token(TokenError::Expired) => "token_expired",
            Self::Token(_) => "token_unknown",
            Self::Review(_) => "token_not_confirmed",
            Self::WrongIdentity { .. } => "wrong_identity",
            Self::Metadata(_) => "impersonation",
            Self::Life | Self::Request(RequestError::Malformed(_) | RequestError::Large) => {
                "malformed"
            }
            Self::Request(RequestError::Signature) => "forged",
            Self::Request(RequestError::Key) => "weak_key",
            Self::Issue(IssueError::TrustDomain { .. }) => "trust_domain",
            Self::Issue(_) => "not_signed",
        }
    }

    fn code(&self) -> Code {
        match self {
            Self::NoProof | Self::Token(_) | Self::Review(_) => Code::Unauthenticated,
            Self::WrongIdentity { .. } | Self::Issue(IssueError::TrustDomain { .. }) => {
                Code::PermissionDenied
            }
            Self::Metadata(_) | Self::Life | Self::Request(_) => Code::InvalidArgument,
            Self::Issue(_) => Code::Internal,
        }
    }
}

impl Desk {
    /// A desk in front of an authority.
    #[must_use]
    pub fn new(authority: Arc<Authority>, tokens: Arc<JoinTokens>) -> Self {
        Self { authority, tokens, reviewer: None, counts: Mutex::default() }
    }

    /// Also takes tokens that somebody else vouches for, as Kubernetes does by TokenReview.
    #[must_use]
    pub fn with_reviewer(mut self, reviewer: Arc<dyn TokenReviewer>) -> Self {
        self.reviewer = Some(reviewer);
        self
    }

    /// How many requests there were, and what became of them.
    #[must_use]
    pub fn counts(&self) -> DeskCounts {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn count(&self, outcome: Result<(), &Denial>) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.requests += 1;
        let Err(denial) = outcome else {
            counts.issued += 1;
            return;
        };
        *counts.refusals.entry(denial.reason()).or_default() += 1;
        *match denial.code() {
            Code::Unauthenticated | Code::PermissionDenied => &mut counts.unauthenticated,
            Code::InvalidArgument => &mut counts.unreadable,
            _ => &mut counts.unsigned,
        } += 1;
    }

    /// Who the caller is: by its certificate, else by its token, which stays usable.
    async fn identify(&self, caller: &Caller) -> Result<(WorkloadId, Grounds), Denial> {
        if let Some(peer) = &caller.peer
            && let Some(id) = peer.id.clone()
        {
            return Ok((id, Grounds { proof: Proof::Certificate, replaces: serial_of(peer) }));
        }
        let token = caller.token.as_deref().ok_or(Denial::NoProof)?;
        if looks_reviewable(token)
            && let Some(reviewer) = &self.reviewer
        {
            let id = reviewer.review(token).await.map_err(Denial::Review)?;
            return Ok((id, Proof::Review.into()));
        }
        Ok((self.tokens.check(token)?, Proof::Token.into()))
    }

    async fn answer(
        &self,
        caller: &Caller,
        request: &IstioCertificateRequest,
    ) -> Result<Vec<String>, Denial> {
        let (id, grounds) = self.identify(caller).await?;
        refuse_metadata(request)?;
        let wish = match u64::try_from(request.validity_duration) {
            Ok(0) => None,
            Ok(seconds) => Some(Duration::from_secs(seconds)),
            Err(_) => return Err(Denial::Life),
        };
        let signing = SigningRequest::from_pem(&request.csr)?;
        self.refuse_other_names(&id, &signing)?;
        if grounds.proof == Proof::Token {
            // Only now: a request with a mistake in it does not cost the token.
            self.tokens.redeem(caller.token.as_deref().unwrap_or_default())?;
        }
        Ok(self.authority.issue(&id, &signing, wish, grounds)?.chain)
    }

    /// The certificate would hold the proved name whatever the request says; but who asks for another
    /// one is mistaken or an attacker, and either should be seen.
    fn refuse_other_names(&self, id: &WorkloadId, signing: &SigningRequest) -> Result<(), Denial> {
        let config = self.authority.config();
        let is_own = |uri: &&String| {
            let asked = uri.parse::<WorkloadId>().ok().and_then(|asked| config.canonical(&asked));
            asked.is_some() && asked == config.canonical(id)
        };
        match signing.uris().iter().find(|uri| !is_own(uri)) {
            Some(other) if config.canonical(id).is_some() => {
                let asked = other.chars().take(NAME_SHOWN_MAX).collect();
                Err(Denial::WrongIdentity { proved: id.clone(), asked })
            }
            _ => Ok(()),
        }
    }
}

/// So much of a name that somebody made up goes into answers and logs.
const NAME_SHOWN_MAX: usize = 256;

impl CertificateAuthority for Desk {
    async fn create_certificate(
        &self,
        caller: Caller,
        request: IstioCertificateRequest,
    ) -> Result<Vec<String>, Status> {
        let answer = self.answer(&caller, &request).await;
        self.count(answer.as_ref().map(drop));
        answer.map_err(|denial| {
            let peer = caller.peer.as_ref().map(|peer| peer.uris.join(","));
            tracing::warn!(reason = denial.reason(), detail = %denial, peer,
                has_token = caller.token.is_some(), "certificate refused");
            Status::new(denial.code(), denial.to_string())
        })
    }
}

/// Istio's agents always send `CertSigner`, usually empty. Anything that asks for more is refused.
fn refuse_metadata(request: &IstioCertificateRequest) -> Result<(), Denial> {
    for (name, value) in request.metadata.iter().flat_map(|wishes| &wishes.fields) {
        let empty = match &value.kind {
            None | Some(Kind::NullValue(_)) => true,
            Some(Kind::StringValue(text)) => text.is_empty(),
            Some(_) => false,
        };
        if !empty {
            return Err(Denial::Metadata(name.chars().take(NAME_SHOWN_MAX).collect()));
        }
    }
    Ok(())
}

fn serial_of(peer: &PeerIdentity) -> Option<String> {
    Leaf::parse(peer.chain.first()?).ok().map(|leaf| leaf.serial)
}

#[cfg(test)]
mod refusals;
#[cfg(test)]
mod tests;
