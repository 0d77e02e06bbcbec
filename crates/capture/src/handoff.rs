//! Hands the jail's listening sockets to the sidecar outside, over a unix socket.
//!
//! In:    the sockets of one jail ([`Sockets`]) and the path where its sidecar listens.
//! Out:   the same sockets in the sidecar ([`Arrival`]), for as long as the jail lives.
//! Never: accepts sockets from another user, or for another workload.
//!
//! One connection per jail. The jail sends [`Offer`] with the descriptors; the sidecar answers
//! [`Answer`]; then nothing is said, and the end of the connection is the end of the jail (or of
//! the sidecar: the jail keeps its sockets and offers them to the next one, so that connections
//! made meanwhile wait in the backlog).

mod receiver;

use std::io;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::wire;

pub use receiver::{Arrival, JailLife, Receiver};

/// How long the two sides wait for each other's word. Both are on one machine.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The sockets of one jail, made inside it.
#[derive(Debug, Default)]
pub struct Sockets {
    /// Where all TCP of the jail arrives; ask [`crate::original_dst`] of each connection. IPv4 and,
    /// when the kernel has it, IPv6; several per family when the jail was asked for several.
    pub capture: Vec<TcpListener>,
    /// Where all DNS over UDP arrives.
    pub dns_udp: Vec<UdpSocket>,
    /// Where all DNS over TCP arrives.
    pub dns_tcp: Vec<TcpListener>,
}

/// What one of the descriptors is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Role {
    Capture,
    DnsUdp,
    DnsTcp,
}

/// What the jail says first.
#[derive(Debug, Serialize, Deserialize)]
struct Offer {
    workload: String,
    roles: Vec<Role>,
}

/// What the sidecar answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Answer {
    Accepted,
    Refused(String),
}

impl Sockets {
    /// The descriptors, with what each is.
    fn roles(&self) -> Vec<(Role, BorrowedFd<'_>)> {
        let capture = self.capture.iter().map(|socket| (Role::Capture, socket.as_fd()));
        let udp = self.dns_udp.iter().map(|socket| (Role::DnsUdp, socket.as_fd()));
        let tcp = self.dns_tcp.iter().map(|socket| (Role::DnsTcp, socket.as_fd()));
        capture.chain(udp).chain(tcp).collect()
    }

    fn from_roles(roles: &[Role], descriptors: Vec<OwnedFd>) -> io::Result<Self> {
        if roles.len() != descriptors.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "sockets are missing"));
        }
        let mut sockets = Self::default();
        for (role, descriptor) in roles.iter().zip(descriptors) {
            match role {
                Role::Capture => sockets.capture.push(descriptor.into()),
                Role::DnsUdp => sockets.dns_udp.push(descriptor.into()),
                Role::DnsTcp => sockets.dns_tcp.push(descriptor.into()),
            }
        }
        Ok(sockets)
    }

    /// Sends the sockets, with the workload's name, on a blocking stream.
    pub(crate) fn send(&self, stream: &UnixStream, workload: &str) -> io::Result<()> {
        let (roles, descriptors): (Vec<_>, Vec<_>) = self.roles().into_iter().unzip();
        wire::send(stream, &Offer { workload: workload.to_owned(), roles }, &descriptors)
    }

    /// Receives what [`Sockets::send`] sent, from a blocking stream.
    pub(crate) fn receive(stream: &UnixStream) -> io::Result<Self> {
        let (offer, descriptors) =
            wire::receive::<Offer>(stream)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        Self::from_roles(&offer.roles, descriptors)
    }
}

/// Offers a jail's sockets to the sidecar that listens at `path`, and waits for its answer.
///
/// Keep the stream: the sidecar takes its end for the end of the jail. Blocks.
///
/// # Errors
/// When nobody listens at `path`, or the sidecar refuses (another workload's, draining).
pub fn send(path: &Path, workload: &str, sockets: &Sockets) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.set_write_timeout(Some(ANSWER_WITHIN))?;
    sockets.send(&stream, workload)?;
    match wire::receive::<Answer>(&stream)? {
        Some((Answer::Accepted, _)) => Ok(stream),
        Some((Answer::Refused(reason), _)) => {
            Err(io::Error::new(io::ErrorKind::ConnectionRefused, reason))
        }
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests;
