//! Flows of OAuth 2.0, from the message into what asks for tokens.

use std::sync::Arc;

use sluis_envoy::credentials::{
    Oauth2 as PbOauth2,
    oauth2::{
        ClientAuthentication as PbAuthentication, GrantType as PbGrant, Parameter as PbParameter,
    },
};
use sluis_signing as signing;

use crate::{
    Injection, TokenUse,
    compile::at::{At, fields},
};

/// The flow, and the entries of its secret that no response may hold.
pub(super) fn injection(at: &At<'_>, message: &PbOauth2) -> Option<(Injection, Vec<Arc<str>>)> {
    fields!(at, message => PbOauth2 {
        use {
            token_cluster, token_url, grant_type, client_authentication, client_id_key,
            client_secret_key, private_key_key, private_key_algorithm, private_key_id, scopes,
            audiences, resources, subject_header, subject_token_type, requested_token_type, claims,
            dpop, header, prefix, parameters,
        }
        accept {}
        refuse {}
    });
    if token_cluster.is_empty() {
        at.field("token_cluster").fault("is missing");
    }
    let Ok(grant) = PbGrant::try_from(*grant_type) else {
        at.field("grant_type").unsupported();
        return None;
    };
    let Ok(authentication) = PbAuthentication::try_from(*client_authentication) else {
        at.field("client_authentication").unsupported();
        return None;
    };
    let parameters =
        parameters.iter().map(|PbParameter { name, value }| (name.clone(), value.clone()));
    let flow = signing::TokenFlow {
        token_url: token_url.clone(),
        grant: match grant {
            PbGrant::ClientCredentials => signing::Grant::ClientCredentials,
            PbGrant::TokenExchange => signing::Grant::TokenExchange,
            PbGrant::JwtBearer => signing::Grant::JwtBearer,
        },
        authentication: match authentication {
            PbAuthentication::Basic => signing::ClientAuthentication::Basic,
            PbAuthentication::Body => signing::ClientAuthentication::Body,
            PbAuthentication::PrivateKeyJwt => signing::ClientAuthentication::PrivateKeyJwt,
            PbAuthentication::None => signing::ClientAuthentication::None,
        },
        client_id_key: client_id_key.clone(),
        client_secret_key: client_secret_key.clone(),
        private_key: signing::KeySource {
            entry: private_key_key.clone(),
            encoding: signing::KeyEncoding::Pem,
        },
        private_key_algorithm: private_key_algorithm.clone(),
        private_key_id: private_key_id.clone(),
        scopes: scopes.clone(),
        audiences: audiences.clone(),
        resources: resources.clone(),
        subject_header: subject_header.clone(),
        subject_token_type: subject_token_type.clone(),
        requested_token_type: requested_token_type.clone(),
        claims: claims.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
        dpop: *dpop,
        header: header.clone(),
        prefix: prefix.clone(),
        parameters: parameters.collect(),
    };
    let flow = flow.compile().map_err(|error| at.fault(error.to_string())).ok()?;
    let hidden = [client_secret_key, private_key_key].into_iter().filter(|key| !key.is_empty());
    let hidden = hidden.map(|key| key.as_str().into()).collect();
    Some((Injection::Token(Box::new(TokenUse::new(flow, message.clone()))), hidden))
}
