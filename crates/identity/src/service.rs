//! Istio's certificate service over gRPC: a client, and a server for any authority.
//!
//! In:    a [`CertificateAuthority`] (server); a channel (client).
//! Out:   `istio.v1.auth.IstioCertificateService/CreateCertificate`, as Istio's agents speak it.
//! Never: decides who the caller is. It hands on what the connection and the headers say.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use http::uri::PathAndQuery;
use sluis_tls::PeerIdentity;
use tonic::{
    Request, Response, Status,
    body::Body,
    client::{Grpc, GrpcService},
    codegen::{BoxFuture, StdError},
    server::{NamedService, UnaryService},
};
use tonic_prost::ProstCodec;

use crate::{IstioCertificateRequest, IstioCertificateResponse};

/// The service's full name.
const SERVICE: &str = "istio.v1.auth.IstioCertificateService";
/// The path of its one call.
const CREATE_CERTIFICATE: &str = "/istio.v1.auth.IstioCertificateService/CreateCertificate";
/// Largest request: a CSR is under 2 kB, one with an RSA-4096 key under 4 kB.
const REQUEST_BYTES_MAX: usize = 64 << 10;
/// The scheme of a token in `authorization`. Istio's agents write it so.
const BEARER: &str = "Bearer ";

/// What a call brings along to show who makes it. Nothing of it has been judged yet, except that
/// the handshake has verified the certificate.
#[derive(Clone, Default)]
pub struct Caller {
    /// The token in `authorization: Bearer …`. A secret.
    pub token: Option<String>,
    /// The peer of the connection, when it showed a certificate.
    pub peer: Option<PeerIdentity>,
}

/// Issues certificates to those who show who they are.
pub trait CertificateAuthority: Send + Sync + 'static {
    /// Answers one request: the chain as PEM texts, the leaf first and the root last.
    ///
    /// # Errors
    ///
    /// `UNAUTHENTICATED` for a caller who does not show who it is, `INVALID_ARGUMENT` for a
    /// request that no caller may make.
    fn create_certificate(
        &self,
        caller: Caller,
        request: IstioCertificateRequest,
    ) -> impl Future<Output = Result<Vec<String>, Status>> + Send;
}

/// The gRPC service around an authority.
///
/// The peer's identity is read from the request's extensions: the server's connection type puts a
/// [`PeerIdentity`] or an `Option` of it there (tonic's `Connected::ConnectInfo`).
#[derive(Debug)]
pub struct CertificateService<A> {
    authority: Arc<A>,
}

/// A client of the service.
#[derive(Clone, Debug)]
pub struct CertificateClient<T> {
    grpc: Grpc<T>,
}

impl<A: CertificateAuthority> CertificateService<A> {
    /// A service that asks `authority`.
    pub fn new(authority: Arc<A>) -> Self {
        Self { authority }
    }
}

impl<A> Clone for CertificateService<A> {
    fn clone(&self) -> Self {
        Self { authority: self.authority.clone() }
    }
}

impl<A> NamedService for CertificateService<A> {
    const NAME: &'static str = SERVICE;
}

impl<A, B> tower::Service<http::Request<B>> for CertificateService<A>
where
    A: CertificateAuthority,
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
        let create = Create(self.authority.clone());
        Box::pin(async move {
            if request.uri().path() != CREATE_CERTIFICATE {
                return Ok(Status::unimplemented("no such call").into_http());
            }
            let mut grpc = tonic::server::Grpc::new(ProstCodec::default())
                .max_decoding_message_size(REQUEST_BYTES_MAX);
            Ok(grpc.unary(create, request).await)
        })
    }
}

struct Create<A>(Arc<A>);

impl<A: CertificateAuthority> UnaryService<IstioCertificateRequest> for Create<A> {
    type Response = IstioCertificateResponse;
    type Future = BoxFuture<Response<IstioCertificateResponse>, Status>;

    fn call(&mut self, request: Request<IstioCertificateRequest>) -> Self::Future {
        let authority = self.0.clone();
        let caller = Caller::of(&request);
        Box::pin(async move {
            let cert_chain = authority.create_certificate(caller, request.into_inner()).await?;
            Ok(Response::new(IstioCertificateResponse { cert_chain }))
        })
    }
}

impl Caller {
    fn of<M>(request: &Request<M>) -> Self {
        let token = request
            .metadata()
            .get(http::header::AUTHORIZATION.as_str())
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix(BEARER))
            .map(str::to_owned);
        let extensions = request.extensions();
        let peer = extensions
            .get::<PeerIdentity>()
            .cloned()
            .or_else(|| extensions.get::<Option<PeerIdentity>>().cloned().flatten());
        Self { token, peer }
    }
}

impl std::fmt::Debug for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Caller")
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("peer", &self.peer)
            .finish()
    }
}

impl<T> CertificateClient<T>
where
    T: GrpcService<Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: tonic::codegen::Body<Data = tonic::codegen::Bytes> + Send + 'static,
    <T::ResponseBody as tonic::codegen::Body>::Error: Into<StdError> + Send,
{
    /// A client over a channel.
    pub fn new(channel: T) -> Self {
        Self { grpc: Grpc::new(channel) }
    }

    /// Asks for a certificate. With no token, the connection's certificate must do.
    ///
    /// # Errors
    ///
    /// The status of the call.
    pub async fn create_certificate(
        &mut self,
        request: IstioCertificateRequest,
        token: Option<&str>,
    ) -> Result<Vec<String>, Status> {
        self.grpc
            .ready()
            .await
            .map_err(|error| Status::unavailable(chain(error.into().as_ref())))?;
        let mut request = Request::new(request);
        if let Some(token) = token {
            let mut value = format!("{BEARER}{token}")
                .parse::<tonic::metadata::MetadataValue<_>>()
                .map_err(|_| Status::invalid_argument("the token is no header value"))?;
            value.set_sensitive(true);
            request.metadata_mut().insert("authorization", value);
        }
        let path = PathAndQuery::from_static(CREATE_CERTIFICATE);
        let answer: Response<IstioCertificateResponse> =
            self.grpc.unary(request, path, ProstCodec::default()).await.map_err(explain)?;
        Ok(answer.into_inner().cert_chain)
    }
}

/// A status with its causes: of a failed handshake it would only say that there was one.
fn explain(status: Status) -> Status {
    let mut text = status.message().to_owned();
    add_causes(&mut text, std::error::Error::source(&status));
    Status::new(status.code(), text)
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    add_causes(&mut text, error.source());
    text
}

/// Adds the causes that the text does not name yet.
fn add_causes(text: &mut String, mut cause: Option<&(dyn std::error::Error + 'static)>) {
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) && said != "transport error" {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
}
