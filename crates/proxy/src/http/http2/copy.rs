//! A copy of a request to a mirror that speaks HTTP/2; its answer is read and thrown away.

use std::{future::poll_fn, sync::Arc};

use bytes::Bytes;
use sluis_http1::{Body, ChunkError, HeadError, Limits, Method, RequestHead, Scan};

use super::heads;
use crate::{
    config::Backend,
    http::{
        failure::Failure,
        http2::sessions::{Acquired, Seat},
        piece::{Fault, Piece},
        pool::Key,
        state::HttpWorker,
    },
    upstream::{Pick, Upstream},
};

/// Why a copy was not answered in order.
#[derive(Debug, thiserror::Error)]
pub(in crate::http) enum CopyError {
    #[error("the copy cannot be read: {0}")]
    Head(#[from] HeadError),
    #[error("the copy's body cannot be read: {0}")]
    Body(#[from] ChunkError),
    #[error("no connection")]
    Connect(Failure),
    #[error("the copy cannot be expressed in HTTP/2, or the mirror does not speak it")]
    Inexpressible,
    #[error("the stream ended early: {0:?}")]
    Stream(Fault),
}

impl From<Fault> for CopyError {
    fn from(fault: Fault) -> Self {
        Self::Stream(fault)
    }
}

/// Sends a request, written as HTTP/1.1, over a shared connection.
pub(in crate::http) async fn send(
    worker: &HttpWorker,
    (backend, pick, key): (&Arc<Backend>, &Pick, &Key),
    bytes: &[u8],
    scheme: &str,
    dial: impl AsyncFnOnce() -> Result<Upstream, Failure>,
) -> Result<(), CopyError> {
    let mut head = RequestHead::default();
    let limits = Limits::default();
    let len = head.parse(&mut Scan::default(), bytes, &limits)?.ok_or(CopyError::Inexpressible)?;
    let mut content = Vec::new();
    Body::new(head.framing()).take_content(&bytes[len..], &mut content)?;
    heads::check_request(&head).map_err(|_| CopyError::Inexpressible)?;
    let place = (backend.cluster(), pick.tls(backend));
    let seat = Seat { worker, limits };
    let acquired = worker.http.sessions.acquire(seat, place, key, dial).await;
    let Acquired::Http2(lease) = acquired.map_err(CopyError::Connect)? else {
        return Err(CopyError::Inexpressible);
    };
    let content = Bytes::from(content);
    let is_head = head.method() == Method::Head;
    let stream = lease.open(is_head, content.is_empty(), |out| {
        heads::write_request(&head, scheme, false, |_| false, out);
    })?;
    stream.send(content).await?;
    let response = loop {
        let response = poll_fn(|cx| stream.poll_head(cx)).await?;
        if response.status >= 200 {
            break response;
        }
    };
    while !response.ends
        && let Piece::Data(data, is_last) = poll_fn(|cx| stream.poll_piece(cx)).await?
    {
        stream.passed(data.len());
        if is_last {
            break;
        }
    }
    Ok(())
}
