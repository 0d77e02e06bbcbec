//! The control plane's own certificate: made at the start, renewed for as long as it runs.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use sluis_tls::{SecretStore, WORKLOAD_CERTIFICATE};
use tokio::sync::watch;

use crate::{Authority, IssueError};

/// Longest sleep at once: after a suspended machine wakes, renewal is late by this at most.
const NAP_MAX: Duration = Duration::from_secs(10);
/// Wait after a failure, which only a full disk or a broken machine causes.
const RETRY: Duration = Duration::from_secs(1);

/// Keeps the authority's server certificate, and the root, in a [`SecretStore`]
/// (as `default` and `ROOTCA`).
#[derive(Debug)]
pub struct ServerCertificate {
    authority: Arc<Authority>,
    store: SecretStore,
    names: Vec<String>,
    status: watch::Sender<ServerCertificateStatus>,
}

/// What is known of the certificate in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerCertificateStatus {
    /// Its serial number, lower-case hexadecimal.
    pub serial: String,
    /// Not valid after.
    pub not_after: SystemTime,
    /// When the next one is made: at half of its life.
    pub renew_at: SystemTime,
}

impl ServerCertificate {
    /// Makes the first certificate, for these DNS names, and puts it into `store`.
    ///
    /// # Errors
    ///
    /// [`IssueError`].
    pub fn new(
        authority: Arc<Authority>,
        store: SecretStore,
        names: Vec<String>,
    ) -> Result<Self, IssueError> {
        let status = watch::Sender::new(renew(&authority, &store, &names)?);
        Ok(Self { authority, store, names, status })
    }

    /// The certificate in use, and each change of it.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<ServerCertificateStatus> {
        self.status.subscribe()
    }

    /// Renews until `shutdown`.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        tokio::select! {
            () = shutdown => {}
            () = self.renew_forever() => {}
        }
    }

    async fn renew_forever(&self) {
        let mut changes = self.authority.changes();
        loop {
            let renew_at = self.status.borrow().renew_at;
            while let Ok(left) = renew_at.duration_since(self.authority.clock().now())
                && !left.is_zero()
            {
                tokio::select! {
                    () = tokio::time::sleep(left.min(NAP_MAX)) => {}
                    // Other roots are trusted, or another authority signs: at once.
                    _ = changes.changed() => break,
                }
            }
            match renew(&self.authority, &self.store, &self.names) {
                Ok(status) => drop(self.status.send_replace(status)),
                Err(error) => {
                    tracing::error!(%error, "the control plane's certificate was not renewed");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}

fn renew(
    authority: &Authority,
    store: &SecretStore,
    names: &[String],
) -> Result<ServerCertificateStatus, IssueError> {
    let (pair, roots) = authority.issue_server(names)?;
    let (serial, not_after) = (pair.leaf().serial.clone(), pair.leaf().not_after);
    store.set_identity(pair, roots);
    tracing::debug!(secret = WORKLOAD_CERTIFICATE, serial, "the control plane's certificate");
    let now = authority.clock().now();
    let left = not_after.duration_since(now).unwrap_or_default();
    Ok(ServerCertificateStatus { serial, not_after, renew_at: now + left / 2 })
}
