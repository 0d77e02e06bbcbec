//! An agent beside a real Envoy: gets the workload's certificate and serves it.

use std::path::PathBuf;

use sluis_tls::SecretStore;
use tokio::sync::watch;

use crate::{Renewal, SdsError, SdsServer, Status, WorkloadApi};

/// Renewal, the watch on files and the SDS server, as one task.
#[derive(Debug)]
pub struct Agent {
    renewal: Renewal,
    store: SecretStore,
    socket: PathBuf,
    workload_api: Option<PathBuf>,
}

impl Agent {
    /// An agent that serves what `store` holds on a unix socket. `renewal` fills the same store.
    #[must_use]
    pub fn new(renewal: Renewal, store: SecretStore, socket: PathBuf) -> Self {
        Self { renewal, store, socket, workload_api: None }
    }

    /// Also serves SPIFFE's Workload API on a socket.
    #[must_use]
    pub fn with_workload_api(mut self, socket: Option<PathBuf>) -> Self {
        self.workload_api = socket;
        self
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
        let store = self.store.clone();
        let workload_api = async {
            let Some(path) = self.workload_api else { return never().await };
            if let Err(error) = WorkloadApi::new(store).serve(&path, never()).await {
                tracing::error!(%error, "the Workload API is not served");
            }
            never().await
        };
        tokio::select! {
            () = workload_api => Ok(()),
            done = sds.serve(&self.socket, shutdown) => done,
            () = self.renewal.run(never()) => Ok(()),
            () = self.store.run(never()) => Ok(()),
        }
    }
}
