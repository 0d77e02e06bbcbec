//! A call of our own over a shared connection of HTTP/2.

use std::future::poll_fn;

use http::{HeaderMap, Request, Uri, Version, uri::Scheme};

use super::{sessions::Lease, stream};
use crate::http::{
    call::{Answer, CallError, Question},
    message::Piece,
};

/// Sends the question and reads the whole answer.
pub(in crate::http) async fn ask(
    lease: &Lease,
    question: &Question,
    is_tls: bool,
) -> Result<Answer, CallError> {
    let mut parts = question.head.uri().clone().into_parts();
    parts.scheme = Some(if is_tls { Scheme::HTTPS } else { Scheme::HTTP });
    let mut request = Request::new(());
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| CallError::Malformed)?;
    *request.method_mut() = question.head.method().clone();
    *request.version_mut() = Version::HTTP_2;
    request.headers_mut().clone_from(question.head.headers());
    let mut left = question.body.clone();
    let (response, mut send) = lease.open(request, left.is_empty()).await?;
    while !left.is_empty() {
        let room = poll_fn(|cx| stream::poll_room(&mut send, cx, left.len())).await?;
        let part = left.split_to(room.min(left.len()));
        send.send_data(part, left.is_empty())?;
    }
    let (head, mut recv) = response.await?.into_parts();
    let mut answer = Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        body: Vec::new(),
        trailers: HeaderMap::new(),
    };
    if recv.is_end_stream() {
        return Ok(answer);
    }
    loop {
        match poll_fn(|cx| stream::poll_piece(&mut recv, cx)).await? {
            Piece::Data(data, is_last) => {
                stream::pass(&mut recv, data.len());
                answer.body.extend_from_slice(&data);
                if answer.body.len() > question.answer_max {
                    return Err(CallError::TooLong);
                }
                if is_last {
                    return Ok(answer);
                }
            }
            Piece::End(trailers) => {
                answer.trailers = trailers.unwrap_or_default();
                return Ok(answer);
            }
        }
    }
}
