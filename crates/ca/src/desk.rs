//! Where callers ask: proves who they are, then has the authority sign.
//!
//! In:    a call of the certificate service, with a token or over a verified certificate.
//! Out:   the chain; a gRPC status for who is not who they should be.
//! Never: issues for anybody but the caller. Impersonation is refused by name.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use envoy_types::pb::google::protobuf::value::Kind;
use sluis_identity::{Caller, CertificateAuthority, IstioCertificateRequest};
use sluis_nouns::WorkloadId;
use tonic::{Code, Status};

use crate::{Authority, IssueError, JoinTokens, Proof, SigningRequest};

/// The certificate service's other side.
#[derive(Debug)]
pub struct Desk {
    authority: Arc<Authority>,
    tokens: Arc<JoinTokens>,
    counts: Mutex<DeskCounts>,
}

/// How many requests there were, and what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeskCounts {
    /// All of them.
    pub requests: u64,
    /// Those that were answered with a certificate.
    pub issued: u64,
    /// Those of callers that did not show who they are.
    pub unauthenticated: u64,
    /// Those that could not be read, or asked for what is not given.
    pub unreadable: u64,
    /// Those that were good and could not be signed.
    pub unsigned: u64,
}

impl Desk {
    /// A desk in front of an authority.
    #[must_use]
    pub fn new(authority: Arc<Authority>, tokens: Arc<JoinTokens>) -> Self {
        Self { authority, tokens, counts: Mutex::default() }
    }

    /// How many requests there were, and what became of them.
    #[must_use]
    pub fn counts(&self) -> DeskCounts {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, outcome: Result<(), Code>) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.requests += 1;
        *match outcome {
            Ok(()) => &mut counts.issued,
            Err(Code::Unauthenticated) => &mut counts.unauthenticated,
            Err(Code::InvalidArgument) => &mut counts.unreadable,
            Err(_) => &mut counts.unsigned,
        } += 1;
    }

    /// Who the caller is: by its certificate, else by its token, which stays usable.
    fn identify(&self, caller: &Caller) -> Result<(WorkloadId, Proof), Status> {
        if let Some(id) = caller.peer.as_ref().and_then(|peer| peer.id.clone()) {
            return Ok((id, Proof::Certificate));
        }
        let token = caller.token.as_deref().ok_or_else(|| {
            Status::unauthenticated("neither a join token nor a client certificate was shown")
        })?;
        let id = self.tokens.check(token).map_err(|e| Status::unauthenticated(e.to_string()))?;
        Ok((id, Proof::Token))
    }

    fn answer(
        &self,
        caller: &Caller,
        request: &IstioCertificateRequest,
    ) -> Result<Vec<String>, Status> {
        let (id, proof) = self.identify(caller)?;
        refuse_metadata(request)?;
        let wish = match u64::try_from(request.validity_duration) {
            Ok(0) => None,
            Ok(seconds) => Some(Duration::from_secs(seconds)),
            Err(_) => return Err(Status::invalid_argument("validity_duration is negative")),
        };
        let signing = SigningRequest::from_pem(&request.csr)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        if proof == Proof::Token {
            // Only now: a request with a mistake in it does not cost the token.
            let token = caller.token.as_deref().unwrap_or_default();
            self.tokens.redeem(token).map_err(|e| Status::unauthenticated(e.to_string()))?;
        }
        let issued = self.authority.issue(&id, &signing, wish, proof).map_err(|e| status(&e))?;
        Ok(issued.chain)
    }
}

impl CertificateAuthority for Desk {
    async fn create_certificate(
        &self,
        caller: Caller,
        request: IstioCertificateRequest,
    ) -> Result<Vec<String>, Status> {
        let answer = self.answer(&caller, &request);
        self.count(answer.as_ref().map(drop).map_err(Status::code));
        answer.inspect_err(|status| {
            tracing::warn!(?caller, code = ?status.code(), reason = status.message(),
                "certificate refused");
        })
    }
}

/// Istio's agents always send `CertSigner`, usually empty. Anything that asks for more is refused.
fn refuse_metadata(request: &IstioCertificateRequest) -> Result<(), Status> {
    for (name, value) in request.metadata.iter().flat_map(|wishes| &wishes.fields) {
        let empty = match &value.kind {
            None | Some(Kind::NullValue(_)) => true,
            Some(Kind::StringValue(text)) => text.is_empty(),
            Some(_) => false,
        };
        if !empty {
            return Err(Status::invalid_argument(format!("metadata {name:?} is not supported")));
        }
    }
    Ok(())
}

fn status(error: &IssueError) -> Status {
    match error {
        IssueError::TrustDomain { .. } => Status::permission_denied(error.to_string()),
        _ => Status::internal(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
