//! A token that an authorization server gives, as an injection.

use std::sync::Arc;

use sluis_envoy::credentials as wire;
use sluis_signing::Flow;

/// A flow of OAuth 2.0, with the message that it was compiled from: equal messages make equal flows.
#[derive(Clone, Debug)]
pub struct TokenUse {
    flow: Flow,
    cluster: Arc<str>,
    source: Box<wire::Oauth2>,
}

impl TokenUse {
    pub(crate) fn new(flow: Flow, source: wire::Oauth2) -> Self {
        let cluster = source.token_cluster.as_str().into();
        Self { flow, cluster, source: Box::new(source) }
    }

    /// What is asked, and what is made of the answer.
    #[must_use]
    pub fn flow(&self) -> &Flow {
        &self.flow
    }

    /// The cluster that leads to the token endpoint.
    #[must_use]
    pub fn cluster(&self) -> &Arc<str> {
        &self.cluster
    }
}

impl PartialEq for TokenUse {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}
