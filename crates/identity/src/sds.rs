//! Serves secrets to a real Envoy on this machine, over a unix socket that only its user may open.
//!
//! In:    subscriptions by name (`default`, `ROOTCA`, `file-cert:…`, `file-root:…`).
//! Out:   Envoy `Secret`s with inline data, and each change of them, in both forms of xDS.
//! Never: answers for a secret that has no value: Envoy then waits and its listeners stay closed.
//!
//! Start at [`SdsServer::serve`]. What one stream knows is a [`Subscription`].

mod stream;
mod subscription;

use std::{
    fs, io,
    path::{Path, PathBuf},
    pin::Pin,
};

use envoy_types::pb::envoy::service::{
    discovery::v3::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
    },
    secret::v3::secret_discovery_service_server::{
        SecretDiscoveryService, SecretDiscoveryServiceServer,
    },
};
use sluis_tls::SecretStore;
use tokio::sync::watch;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming, transport::Server};

use self::{
    stream::{Delta, StateOfTheWorld, Variant, drive},
    subscription::Subscription,
};
use crate::socket::{bind, of_our_user, until};

/// Largest request: names and a node's metadata.
const REQUEST_BYTES_MAX: usize = 1 << 20;

/// The secrets of one workload, for the Envoy beside it.
#[derive(Clone, Debug)]
pub struct SdsServer {
    store: SecretStore,
}

/// Why secrets are not, or no longer, served.
#[derive(Debug, thiserror::Error)]
pub enum SdsError {
    /// The socket cannot be made.
    #[error("socket {path}: {source}")]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The server failed.
    #[error("secret server: {0}")]
    Server(#[from] tonic::transport::Error),
}

/// The service of one server, until `stopping` turns true.
struct Service {
    store: SecretStore,
    stopping: watch::Receiver<bool>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl SdsServer {
    /// A server of what `store` holds.
    #[must_use]
    pub fn new(store: SecretStore) -> Self {
        Self { store }
    }

    /// Serves on a socket at `path` (mode 0600; a stale one is replaced) until `shutdown`, and
    /// then takes the socket away.
    ///
    /// # Errors
    ///
    /// [`SdsError`].
    pub async fn serve(
        self,
        path: &Path,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), SdsError> {
        let listener =
            bind(path).map_err(|source| SdsError::Socket { path: path.to_owned(), source })?;
        let stop = watch::Sender::new(false);
        let service = Service { store: self.store, stopping: stop.subscribe() };
        let mut stopping = stop.subscribe();
        let server = Server::builder()
            .add_service(
                SecretDiscoveryServiceServer::new(service)
                    .max_decoding_message_size(REQUEST_BYTES_MAX),
            )
            .serve_with_incoming_shutdown(of_our_user(listener), async move {
                // An error means that the sender is gone, which ends the server too.
                let _ = stopping.wait_for(|stop| *stop).await;
            });
        until(shutdown, server, &stop).await?;
        // Already gone is as good.
        let _ = fs::remove_file(path);
        Ok(())
    }
}

#[tonic::async_trait]
impl SecretDiscoveryService for Service {
    type DeltaSecretsStream = Answers<DeltaDiscoveryResponse>;
    type StreamSecretsStream = Answers<DiscoveryResponse>;

    async fn delta_secrets(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        Ok(self.open::<Delta>(request.into_inner()))
    }

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        Ok(self.open::<StateOfTheWorld>(request.into_inner()))
    }

    async fn fetch_secrets(
        &self,
        request: Request<DiscoveryRequest>,
    ) -> Result<Response<DiscoveryResponse>, Status> {
        let mut subscription = Subscription::new(self.store.clone());
        let request = request.into_inner();
        let asked = request.resource_names.len();
        StateOfTheWorld::take(&mut subscription, request)?;
        let due = subscription.take_due();
        if due.len() < asked {
            return Err(Status::not_found("not every secret has a value"));
        }
        Ok(Response::new(StateOfTheWorld::answer(due, String::new())))
    }
}

impl Service {
    fn open<V: Variant>(&self, requests: Streaming<V::Request>) -> Response<Answers<V::Answer>> {
        let (sender, answers) = tokio::sync::mpsc::channel(stream::ANSWERS_MAX);
        let subscription = Subscription::new(self.store.clone());
        tokio::spawn(drive::<V>(subscription, requests, sender, self.stopping.clone()));
        Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(answers)))
    }
}

#[cfg(test)]
mod tests;
