//! Messages with file descriptors over a unix stream: four bytes of length, then JSON.
//!
//! In:    a value and the descriptors that go with it; or a stream to read them from.
//! Out:   the same on the other side; descriptors arrive close-on-exec.
//! Never: more than [`MESSAGE_BYTES_MAX`] or [`DESCRIPTORS_MAX`] per message.

use std::io::{self, IoSlice, IoSliceMut, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest message. Ours name some sockets or one error; both fit well.
pub(crate) const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// The most descriptors in one message: below the kernel's own bound (`SCM_MAX_FD`, 253).
pub(crate) const DESCRIPTORS_MAX: usize = 128;

const HEAD_BYTES: usize = 4;

/// Sends one message, whole, on a blocking stream.
pub(crate) fn send<T: Serialize>(
    stream: impl AsFd,
    value: &T,
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let bytes = encode(value)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors"));
    }
    let first =
        retry(|| sendmsg(&stream, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL))?;
    let mut sent = first;
    while sent < bytes.len() {
        sent += retry(|| rustix::net::send(&stream, &bytes[sent..], SendFlags::NOSIGNAL))?;
    }
    Ok(())
}

/// Receives one message from a blocking stream; `None` when the other side has closed it.
pub(crate) fn receive<T: DeserializeOwned>(
    stream: impl AsFd,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut incoming = Incoming::default();
    loop {
        match retry_io(|| incoming.read(stream.as_fd())) {
            Ok(Step::More) => {}
            Ok(Step::Complete) => return incoming.finish().map(Some),
            Ok(Step::Closed) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

/// A message as bytes: its length in network order, then JSON.
pub(crate) fn encode<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; HEAD_BYTES];
    serde_json::to_writer(&mut bytes, value)?;
    let length = bytes.len() - HEAD_BYTES;
    if length > MESSAGE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "message too long"));
    }
    let head = u32::try_from(length).map_err(|_| io::ErrorKind::InvalidInput)?;
    (&mut bytes[..HEAD_BYTES]).write_all(&head.to_be_bytes())?;
    Ok(bytes)
}

/// What one read brought.
pub(crate) enum Step {
    /// There is more to come.
    More,
    /// The message is whole.
    Complete,
    /// The other side closed the stream between messages.
    Closed,
}

/// A message on its way in.
#[derive(Default)]
pub(crate) struct Incoming {
    bytes: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl Incoming {
    /// Reads once, never past the end of this message.
    pub(crate) fn read(&mut self, stream: BorrowedFd<'_>) -> io::Result<Step> {
        let wanted = self.wanted()?;
        let mut chunk = vec![0; wanted - self.bytes.len()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let read = recvmsg(
            stream,
            &mut [IoSliceMut::new(&mut chunk)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )?
        .bytes;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                self.descriptors.extend(received);
            }
        }
        if self.descriptors.len() > DESCRIPTORS_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "too many descriptors"));
        }
        if read == 0 {
            return match self.bytes.is_empty() {
                true => Ok(Step::Closed),
                false => Err(io::ErrorKind::UnexpectedEof.into()),
            };
        }
        self.bytes.extend_from_slice(&chunk[..read]);
        let whole = self.bytes.len() > HEAD_BYTES && self.bytes.len() == self.wanted()?;
        Ok(if whole { Step::Complete } else { Step::More })
    }

    /// The message and its descriptors.
    pub(crate) fn finish<T: DeserializeOwned>(self) -> io::Result<(T, Vec<OwnedFd>)> {
        Ok((serde_json::from_slice(&self.bytes[HEAD_BYTES..])?, self.descriptors))
    }

    /// How many bytes the message has, as far as is known.
    fn wanted(&self) -> io::Result<usize> {
        let Some(head) = self.bytes.first_chunk::<HEAD_BYTES>() else { return Ok(HEAD_BYTES) };
        let length = u32::from_be_bytes(*head) as usize;
        if length == 0 || length > MESSAGE_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "bad message length"));
        }
        Ok(HEAD_BYTES + length)
    }
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            other => return Ok(other?),
        }
    }
}

fn retry_io<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
