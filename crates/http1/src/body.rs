//! How far a body has been read, whatever its framing.

use std::ops::Range;

use crate::chunked::Piece;
use crate::{ChunkError, Chunked, Framing};

/// One body under way.
#[derive(Clone, Debug, Default)]
pub enum Body {
    /// Nothing is left.
    #[default]
    Done,
    /// Bytes left of a Content-Length body.
    Length(u64),
    /// A chunked body.
    Chunked(Box<Chunked>),
    /// Everything until the connection ends.
    UntilClose,
}

/// What [`Body::take`] found at the start of its input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// How many bytes belong to the body. Those behind it are of the next message.
    pub len: usize,
    /// How many of them are content rather than chunk framing or trailers.
    pub content: usize,
    /// The part of them that must not be forwarded (trailer lines); often empty.
    pub dropped: Range<usize>,
}

impl Body {
    /// Begins a body.
    pub fn new(framing: Framing) -> Self {
        match framing {
            Framing::None => Self::Done,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Box::default()),
            Framing::UntilClose => Self::UntilClose,
        }
    }

    /// Begins another body, keeping the memory of the last one.
    pub fn restart(&mut self, framing: Framing) {
        match (&mut *self, framing) {
            (Self::Chunked(chunked), Framing::Chunked) => **chunked = Chunked::default(),
            _ => *self = Self::new(framing),
        }
    }

    /// Passes trailers on from here: [`Body::take`] drops them otherwise.
    pub fn keep_trailers(&mut self) {
        if let Self::Chunked(chunked) = self {
            chunked.keeps_trailers = true;
        }
    }

    /// Whether the body has ended. Never true for [`Body::UntilClose`].
    pub fn is_done(&self) -> bool {
        match self {
            Self::Done | Self::Length(0) => true,
            Self::Chunked(chunked) => chunked.is_done(),
            Self::Length(_) | Self::UntilClose => false,
        }
    }

    /// How many bytes follow that are content and nothing else, whatever they are: no framing, no
    /// trailers, nothing of the next message. All that come, where the end is the connection's.
    pub fn plain_left(&self) -> u64 {
        match self {
            Self::Done => 0,
            Self::Length(left) => *left,
            Self::Chunked(chunked) => chunked.plain_left(),
            Self::UntilClose => u64::MAX,
        }
    }

    /// Counts so many bytes as taken that were passed on unseen: no more than
    /// [`Body::plain_left`] says.
    pub fn skip(&mut self, len: u64) {
        debug_assert!(len <= self.plain_left(), "only content is passed on unseen");
        match self {
            Self::Length(left) => *left = left.saturating_sub(len),
            Self::Chunked(chunked) => chunked.skip(len),
            Self::Done | Self::UntilClose => {}
        }
    }

    /// Says how much of `input` is body, to be forwarded as it is.
    ///
    /// # Errors
    ///
    /// [`ChunkError`], for chunked bodies only.
    pub fn take(&mut self, input: &[u8]) -> Result<Taken, ChunkError> {
        let mut taken = Taken::default();
        match self {
            Self::Done => {}
            Self::Length(left) => {
                taken.len = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                taken.content = taken.len;
                *left -= taken.len as u64;
            }
            Self::UntilClose => (taken.len, taken.content) = (input.len(), input.len()),
            Self::Chunked(chunked) => {
                let keeps = chunked.keeps_trailers;
                let Taken { dropped, content, .. } = &mut taken;
                let len = chunked.read(input, |piece, range| match piece {
                    Piece::Data => *content += range.len(),
                    Piece::Framing => {}
                    Piece::Trailer if keeps => {}
                    Piece::Trailer => {
                        let start = if dropped.end == 0 { range.start } else { dropped.start };
                        *dropped = start..range.end;
                    }
                })?;
                taken.len = len;
            }
        }
        Ok(taken)
    }

    /// Appends the content at the start of `input` to `out`, without chunk framing; returns how
    /// many bytes of the input belong to the body.
    ///
    /// # Errors
    ///
    /// [`ChunkError`], for chunked bodies only.
    pub fn take_content(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, ChunkError> {
        self.take_message(input, out, &mut Vec::new())
    }

    /// As [`Body::take_content`]; trailer lines, line ends included, are appended to `trailers`.
    ///
    /// # Errors
    ///
    /// [`ChunkError`], for chunked bodies only.
    pub fn take_message(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        trailers: &mut Vec<u8>,
    ) -> Result<usize, ChunkError> {
        if let Self::Chunked(chunked) = self {
            return chunked.read(input, |piece, range| match piece {
                Piece::Data => out.extend_from_slice(&input[range]),
                Piece::Trailer => trailers.extend_from_slice(&input[range]),
                Piece::Framing => {}
            });
        }
        let taken = self.take(input)?;
        out.extend_from_slice(&input[..taken.len]);
        Ok(taken.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_may_pass_unseen_and_nothing_else() {
        let mut body = Body::new(Framing::Length(10));
        assert_eq!(body.plain_left(), 10);
        body.skip(9);
        assert!(!body.is_done());
        assert_eq!(body.take(b"lnext").unwrap().len, 1);
        assert!(body.is_done());
        assert_eq!(body.plain_left(), 0);

        let mut body = Body::new(Framing::Chunked);
        assert_eq!(body.plain_left(), 0, "a chunk's size comes first");
        body.take(b"a\r\n01").unwrap();
        assert_eq!(body.plain_left(), 8);
        body.skip(3);
        assert_eq!(body.plain_left(), 5);
        body.skip(5);
        assert_eq!(body.plain_left(), 0, "the line end behind a chunk is framing");
        assert_eq!(body.take(b"\r\n2\r\n").unwrap().len, 5);
        assert_eq!(body.plain_left(), 2);
        body.skip(2);
        assert_eq!(body.take(b"\r\n0\r\n\r\nnext").unwrap().len, 7);
        assert!(body.is_done());
        assert_eq!(body.plain_left(), 0);
        assert!(Body::new(Framing::UntilClose).plain_left() > 1 << 40);
        assert_eq!(Body::new(Framing::None).plain_left(), 0);
    }
}
