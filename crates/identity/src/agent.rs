//! An agent beside a real Envoy: gets the workload's certificate and serves it.

use std::path::PathBuf;

use sluis_tls::SecretStore;
use tokio::sync::watch;

use crate::{Renewal, SdsError, SdsServer, Status};

/// Renewal, the watch on files and the SDS server, as one task.
#[derive(Debug)]
pub struct Agent {
    renewal: Renewal,
    store: SecretStore,
    socket: PathBuf,
}

impl Agent {
    /// An agent that serves what `store` holds on a unix socket. `renewal` fills the same store.
    #[must_use]
    pub fn new(renewal: Renewal, store: SecretStore, socket: PathBuf) -> Self {
        Self { renewal, store, socket }
    }

    /// The state of the workload's certificate.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.renewal.status()
    }

    /// Runs until `shutdown`.
    ///
    /// # Errors
    ///
    /// When the socket cannot be made or the server fails; the other tasks then end too.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), SdsError> {
        let never = std::future::pending::<()>;
        let sds = SdsServer::new(self.store.clone());
        tokio::select! {
            done = sds.serve(&self.socket, shutdown) => done,
            () = self.renewal.run(never()) => Ok(()),
            () = self.store.run(never()) => Ok(()),
        }
    }
}
