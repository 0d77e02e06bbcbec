//! Reads requests off a stream.
//!
//! In:    the body of a gRPC call.
//! Out:   its messages, one by one.
//! Never: keeps a buffer between messages: a large subscription comes once, and the stream lives for
//!        days.

use std::marker::PhantomData;

use http_body_util::BodyExt;
use prost::Message;
use tonic::{Status, body::Body};

/// Bytes of one request. A subscription of [`NAMES_MAX`](crate::NAMES_MAX) names of usual length
/// fits.
const REQUEST_BYTES_MAX: usize = 4 * 1024 * 1024;

/// gRPC over HTTP/2, "Length-Prefixed-Message": a flag, then the length in four bytes.
const PREFIX_LEN: usize = 5;

/// The requests of a stream.
pub(super) struct Incoming<Q> {
    body: Body,
    /// What has come of messages that are not taken yet.
    buffer: Vec<u8>,
    message: PhantomData<fn() -> Q>,
}

impl<Q: Message + Default> Incoming<Q> {
    /// The requests in a body.
    pub(super) fn new(body: Body) -> Self {
        Self { body, buffer: Vec::new(), message: PhantomData }
    }

    /// Waits for the next request; `None` at the end of the stream.
    ///
    /// # Errors
    ///
    /// The status that ends the stream: it broke, or holds no gRPC messages.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost: what has come stays in the buffer.
    pub(super) async fn message(&mut self) -> Result<Option<Q>, Status> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            match self.body.frame().await {
                Some(frame) => {
                    // Trailers of a request mean nothing.
                    if let Ok(data) = frame?.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(Status::internal("the stream ended within a message")),
            }
        }
    }

    /// Takes the first message out of the buffer, when all of it is there.
    fn take(&mut self) -> Result<Option<Q>, Status> {
        let Some((&[flag, a, b, c, d], rest)) = self.buffer.split_first_chunk::<PREFIX_LEN>()
        else {
            return Ok(None);
        };
        if flag != 0 {
            return Err(Status::unimplemented("compressed messages are not taken"));
        }
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if length > REQUEST_BYTES_MAX {
            return Err(Status::resource_exhausted(format!(
                "a request of more than {REQUEST_BYTES_MAX} bytes"
            )));
        }
        let Some(bytes) = rest.get(..length) else { return Ok(None) };
        let message = Q::decode(bytes).map_err(|error| {
            Status::internal(format!("a request that cannot be decoded: {error}"))
        })?;
        if rest.len() == length {
            self.buffer = Vec::new();
        } else {
            self.buffer.drain(..PREFIX_LEN + length);
        }
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::service::discovery::v3::DiscoveryRequest;
    use futures_util::stream;
    use http_body_util::StreamBody;
    use hyper::body::{Bytes, Frame};
    use tonic::Code;

    use super::*;

    fn message(version: &str) -> Vec<u8> {
        let request =
            DiscoveryRequest { version_info: version.to_owned(), ..DiscoveryRequest::default() };
        let fields = request.encode_to_vec();
        let length = u32::try_from(fields.len()).unwrap();
        [&[0][..], &length.to_be_bytes(), &fields].concat()
    }

    fn incoming(bytes: &[u8], frame: usize) -> Incoming<DiscoveryRequest> {
        let frames: Vec<Result<_, Status>> = bytes
            .chunks(frame)
            .map(|chunk| Ok(Frame::data(Bytes::copy_from_slice(chunk))))
            .collect();
        Incoming::new(Body::new(StreamBody::new(stream::iter(frames))))
    }

    #[tokio::test]
    async fn messages_come_out_however_they_are_cut() {
        let all = [message("one"), message(""), message(&"x".repeat(70_000))].concat();
        for frame in [3, 7, 1000, 200_000] {
            let mut requests = incoming(&all, frame);
            for expected in ["one".to_owned(), String::new(), "x".repeat(70_000)] {
                let request = requests.message().await.unwrap().unwrap();
                assert_eq!(request.version_info, expected);
            }
            assert!(requests.message().await.unwrap().is_none());
            assert_eq!(requests.buffer.capacity(), 0, "nothing is kept between messages");
        }
    }

    #[tokio::test]
    async fn what_is_no_grpc_message_ends_the_stream() {
        let mut cut = message("one");
        cut.pop();
        let too_long = u32::try_from(REQUEST_BYTES_MAX + 1).unwrap().to_be_bytes();
        let cases: [(&[u8], Code); 4] = [
            (&cut, Code::Internal),
            (&[1, 0, 0, 0, 0], Code::Unimplemented),
            (&[&[0][..], &too_long].concat(), Code::ResourceExhausted),
            (&[0, 0, 0, 0, 1, 0xff], Code::Internal),
        ];
        for (bytes, expected) in cases {
            let status = incoming(bytes, 100).message().await.unwrap_err();
            assert_eq!(status.code(), expected, "{bytes:?}");
        }
    }
}
