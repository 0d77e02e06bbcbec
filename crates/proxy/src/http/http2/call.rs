//! A call of our own over a shared connection of HTTP/2.

use std::future::poll_fn;

use http::{HeaderMap, uri::Scheme};
use sluis_http2::{Parts, hpack::Indexing};

use super::{heads, sessions::Lease};
use crate::http::{
    piece::Piece,
    question::{Answer, CallError, Question},
};

/// Sends the question and reads the whole answer.
pub(in crate::http) async fn ask(
    lease: &Lease,
    question: &Question,
    is_tls: bool,
) -> Result<Answer, CallError> {
    let uri = question.head.uri();
    let authority = uri.authority().ok_or(CallError::Malformed)?.as_str();
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let scheme = if is_tls { Scheme::HTTPS } else { Scheme::HTTP };
    let method = question.head.method();
    let stream = lease.open(*method == http::Method::HEAD, question.body.is_empty(), |out| {
        out.add(b":method", method.as_str().as_bytes(), Indexing::Usual);
        out.add(b":scheme", scheme.as_str().as_bytes(), Indexing::Usual);
        out.add(b":authority", authority.as_bytes(), Indexing::Usual);
        out.add(b":path", path.as_bytes(), Indexing::Usual);
        heads::write_map(question.head.headers(), out);
    })?;
    stream.send(question.body.clone()).await?;
    let head = loop {
        let head = poll_fn(|cx| stream.poll_head(cx)).await?;
        if head.status >= 200 {
            break head;
        }
    };
    let parts = Parts::of(&head.section).map_err(|_| CallError::Malformed)?;
    let mut answer = Answer {
        status: head.status,
        headers: heads::map(parts.fields(&head.section)).map_err(|_| CallError::Malformed)?,
        body: Vec::new(),
        trailers: HeaderMap::new(),
    };
    if head.ends {
        return Ok(answer);
    }
    loop {
        match poll_fn(|cx| stream.poll_piece(cx)).await? {
            Piece::Data(data, is_last) => {
                stream.passed(data.len());
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
