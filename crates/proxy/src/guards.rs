//! Whether a connection may pass at all: the network filters that decide before one serves it.
//!
//! In:    a chain's guards, a connection's facts.
//! Out:   the facts with what the guards found out; or why it is to be closed.
//! Never: lets a connection pass without a yes of each, unless `failure_mode_allow` says so.

use std::borrow::Cow;

use envoy_types::pb::envoy::service::auth::v3::CheckRequest;
use sluis_rules::{NetworkGuard, TcpAuthz};
use tracing::debug;

use crate::{
    access_log::Flag,
    conn::ConnectionFacts,
    http::{HttpWorker, authz},
    rbac,
};

/// Where an answer's metadata are put (as in Envoy).
const NAMESPACE: &str = "envoy.filters.network.ext_authz";

/// A connection is not to pass.
#[derive(Debug)]
pub(crate) struct Denied {
    /// Why, for the log.
    pub(crate) details: Cow<'static, str>,
    pub(crate) flag: Option<Flag>,
}

/// Asks each guard in order.
///
/// # Errors
///
/// The first one's denial.
pub(crate) async fn admit(
    worker: &HttpWorker,
    guards: &[NetworkGuard],
    connection: &mut ConnectionFacts,
) -> Result<(), Denied> {
    for guard in guards {
        match guard {
            NetworkGuard::Rbac(own) => rbac::admit(worker.stats(), own, connection)
                .await
                .map_err(|details| Denied { details: details.into(), flag: None })?,
            // Large, and rare.
            NetworkGuard::Authz(own) => Box::pin(ask(worker, own, connection)).await?,
        }
    }
    Ok(())
}

/// Asks an authorization service.
async fn ask(
    worker: &HttpWorker,
    own: &TcpAuthz,
    connection: &mut ConnectionFacts,
) -> Result<(), Denied> {
    let metadata = &connection.metadata;
    if own.enabled_metadata.as_ref().is_some_and(|one| !one.matches(Some(metadata))) {
        return Ok(());
    }
    let mut about = authz::attributes(connection, (own.peer_certificate, own.tls_session));
    let namespaces = own.namespaces.iter().map(|name| &**name);
    about.metadata_context = Some(authz::context(metadata, namespaces));
    let request = CheckRequest { attributes: Some(about) };
    let asked = authz::check(worker, &worker.config(), &own.service, &request).await;
    let answer = match asked {
        Ok(answer) => answer,
        Err(error) => {
            let is_let = own.fails_open;
            debug!(remote = %connection.remote, %error, is_let, "the authorization service gave no verdict");
            return if is_let { Ok(()) } else { Err(denied("ext_authz_error")) };
        }
    };
    for (key, value) in answer.dynamic_metadata.iter().flat_map(authz::heard) {
        connection.metadata.set(NAMESPACE, &key, value);
    }
    match answer.status.is_none_or(|status| status.code == 0) {
        true => Ok(()),
        false => {
            debug!(remote = %connection.remote, sni = ?connection.sni, "the authorization service denies the connection");
            Err(denied("ext_authz_denied"))
        }
    }
}

fn denied(details: &'static str) -> Denied {
    Denied { details: details.into(), flag: Some(Flag::UnauthorizedExternalService) }
}
