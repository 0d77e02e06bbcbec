//! SPIFFE's Workload API: gives an application on this machine the certificate of its workload.
//!
//! In:    a unix socket in a folder of the workload's own; the secret store.
//! Out:   X.509-SVIDs and bundles, and each change of them, as the proxy's own are renewed.
//! Never: answers a program of another user, or a call without the header that a browser or a
//!        request forged through a server cannot set. JWT-SVIDs are not implemented.
//!
//! Start at [`WorkloadApi::serve`]. The rules are those of the SPIFFE Workload Endpoint and Workload
//! API specifications; who may ask is decided by who can reach the folder, and by the user.

mod authority;
mod messages;

use std::{
    convert::Infallible,
    io,
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
};

use http::HeaderMap;
use prost::Message;
use sluis_tls::{MESH_ROOTS, SecretStore, WORKLOAD_CERTIFICATE};
use tokio::{net::UnixStream, sync::watch};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{
    Request, Response, Status,
    body::Body,
    codegen::{BoxFuture, StdError},
    server::{Grpc, NamedService, ServerStreamingService},
    transport::Server,
};
use tonic_prost::ProstCodec;

use self::{
    authority::Mended,
    messages::{Empty, X509Bundles, X509Svid, X509Svids},
};
use crate::socket::{bind, of_our_user, until};

/// The service's name; the specification gives it no package.
const SERVICE: &str = "SpiffeWorkloadAPI";
/// The header that each call must have (Workload Endpoint §6.2): it cannot be set by who only makes
/// others send requests.
const GUARD: &str = "workload.spiffe.io";
/// Requests are empty, but for JWTs' audiences.
const REQUEST_BYTES_MAX: usize = 64 << 10;
/// Streams of one connection: one program asks for each kind once.
const STREAMS_MAX: u32 = 32;
/// Answers that wait: the next is made of what is current when it can be sent.
const ANSWERS_MAX: usize = 1;

/// The Workload API of one workload.
#[derive(Clone, Debug)]
pub struct WorkloadApi {
    store: SecretStore,
}

/// Why the Workload API is not, or no longer, served.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadApiError {
    /// The socket cannot be made.
    #[error("socket {path}: {source}")]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The server failed.
    #[error("workload API: {0}")]
    Server(#[from] tonic::transport::Error),
}

impl WorkloadApi {
    /// The API over what `store` holds.
    #[must_use]
    pub fn new(store: SecretStore) -> Self {
        Self { store }
    }

    /// Serves on a socket at `path` (mode 0600; a stale one is replaced) until `shutdown`.
    ///
    /// # Errors
    ///
    /// [`WorkloadApiError`].
    pub async fn serve(
        self,
        path: &Path,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), WorkloadApiError> {
        let fault = |source| WorkloadApiError::Socket { path: path.to_owned(), source };
        let listener = bind(path).map_err(fault)?;
        tracing::info!(path = %path.display(), "the Workload API is served");
        let stop = watch::Sender::new(false);
        let mut stopping = stop.subscribe();
        let service = Service { store: self.store, stopping: stop.subscribe() };
        let server = Server::builder()
            .max_concurrent_streams(STREAMS_MAX)
            .add_service(service)
            .serve_with_incoming_shutdown(of_our_user(listener).map(mended), async move {
                // An error means that the sender is gone, which ends the server too.
                let _ = stopping.wait_for(|stop| *stop).await;
            });
        until(shutdown, server, &stop).await?;
        // Already gone is as good.
        let _ = std::fs::remove_file(path);
        Ok(())
    }
}

fn mended(socket: io::Result<UnixStream>) -> io::Result<Mended> {
    socket.map(Mended::new)
}

#[derive(Clone)]
struct Service {
    store: SecretStore,
    stopping: watch::Receiver<bool>,
}

impl NamedService for Service {
    const NAME: &'static str = SERVICE;
}

impl<B> tower::Service<http::Request<B>> for Service
where
    B: tonic::codegen::Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            if let Err(status) = guarded(request.headers()) {
                return Ok(status.into_http());
            }
            let call = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
            Ok(match call.as_str() {
                "FetchX509SVID" => service.stream(request, svids).await,
                "FetchX509Bundles" => service.stream(request, bundles).await,
                "FetchJWTSVID" | "FetchJWTBundles" | "ValidateJWTSVID" => {
                    Status::unimplemented("JWT-SVIDs are not issued here; ask for X.509-SVIDs")
                        .into_http()
                }
                _ => Status::unimplemented("no such call").into_http(),
            })
        })
    }
}

impl Service {
    async fn stream<B, M>(
        &self,
        request: http::Request<B>,
        make: fn(&SecretStore) -> Option<M>,
    ) -> http::Response<Body>
    where
        B: tonic::codegen::Body + Send + 'static,
        B::Error: Into<StdError> + Send + 'static,
        M: Message + Default + PartialEq + Clone + 'static,
    {
        let answers = Answers { service: self.clone(), make };
        let mut grpc =
            Grpc::new(ProstCodec::default()).max_decoding_message_size(REQUEST_BYTES_MAX);
        grpc.server_streaming(answers, request).await
    }
}

/// Each call without the header is refused (Workload Endpoint §6.2).
fn guarded(headers: &HeaderMap) -> Result<(), Status> {
    match headers.get(GUARD).map(|value| value.as_bytes()) {
        Some(b"true") => Ok(()),
        _ => Err(Status::invalid_argument(format!("metadata `{GUARD}: true` is required"))),
    }
}

/// One kind of answer, made anew whenever a secret changes.
struct Answers<M> {
    service: Service,
    make: fn(&SecretStore) -> Option<M>,
}

impl<M: Message + Default + PartialEq + Clone + 'static> ServerStreamingService<Empty>
    for Answers<M>
{
    type Response = M;
    type ResponseStream = Pin<Box<dyn Stream<Item = Result<M, Status>> + Send>>;
    type Future = BoxFuture<Response<Self::ResponseStream>, Status>;

    fn call(&mut self, _request: Request<Empty>) -> Self::Future {
        let (sender, answers) = tokio::sync::mpsc::channel(ANSWERS_MAX);
        let (service, make) = (self.service.clone(), self.make);
        tokio::spawn(async move {
            let Service { store, mut stopping } = service;
            let mut changes = store.changes();
            let mut last = None;
            loop {
                // Room first, so that what is sent is what is current then. An error: nobody listens.
                let Ok(place) = sender.reserve().await else { return };
                if let Some(next) = make(&store).filter(|next| last.as_ref() != Some(next)) {
                    place.send(Ok(next.clone()));
                    last = Some(next);
                } else {
                    drop(place);
                }
                tokio::select! {
                    changed = changes.changed() => if changed.is_err() { return },
                    _ = stopping.wait_for(|stop| *stop) => return,
                    () = sender.closed() => return,
                }
            }
        });
        let stream = tokio_stream::wrappers::ReceiverStream::new(answers);
        Box::pin(async move { Ok(Response::new(Box::pin(stream) as Self::ResponseStream)) })
    }
}

/// The workload's certificate with its key; `None` while there is none.
fn svids(store: &SecretStore) -> Option<X509Svids> {
    let pair = store.slot(WORKLOAD_CERTIFICATE).ok()?.key_pair()?;
    let id = pair.leaf().identity().ok()?.id?;
    let svid = X509Svid {
        spiffe_id: id.to_string(),
        x509_svid: pair.chain().iter().flat_map(|der| der.iter().copied()).collect(),
        x509_svid_key: pair.pkcs8().ok()?,
        bundle: roots(store)?,
        hint: String::new(),
    };
    Some(X509Svids { svids: vec![svid], ..X509Svids::default() })
}

/// The trusted roots of the workload's trust domain.
fn bundles(store: &SecretStore) -> Option<X509Bundles> {
    let pair = store.slot(WORKLOAD_CERTIFICATE).ok()?.key_pair()?;
    let id = pair.leaf().identity().ok()?.id?;
    let domain = format!("spiffe://{}", id.trust_domain());
    Some(X509Bundles { bundles: [(domain, roots(store)?)].into(), ..X509Bundles::default() })
}

/// The roots, DER one after another.
fn roots(store: &SecretStore) -> Option<Vec<u8>> {
    let roots = store.slot(MESH_ROOTS).ok()?.roots()?;
    Some(roots.certificates().iter().flat_map(|der| der.to_vec()).collect())
}

#[cfg(test)]
mod tests;
