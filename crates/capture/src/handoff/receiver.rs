//! The sidecar's side of the handoff.

use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use super::{ANSWER_WITHIN, Answer, Offer, Sockets};
use crate::wire::{self, Incoming, Step};

/// Listens for the jails of one workload.
#[derive(Debug)]
pub struct Receiver {
    listener: UnixListener,
    workload: String,
    path: PathBuf,
}

impl Receiver {
    /// Listens at `path`, in place of whatever socket is there, with mode 0600.
    ///
    /// `workload` (`namespace/name`) is the only one whose jails are accepted.
    ///
    /// # Errors
    /// When the socket cannot be made there.
    pub fn bind(path: &Path, workload: &str) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, workload: workload.to_owned(), path: path.to_owned() })
    }

    /// Waits for the next jail.
    ///
    /// An offer that is no offer, from another user or for another workload is refused and logged;
    /// this keeps waiting. Cancelling the wait loses at most the offer that is being read.
    ///
    /// # Errors
    /// When the listening socket itself fails.
    pub async fn accept(&self) -> io::Result<Arrival> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            match timeout(ANSWER_WITHIN, self.admit(stream)).await {
                Ok(Ok(arrival)) => return Ok(arrival),
                Ok(Err(error)) => {
                    tracing::warn!(%error, path = %self.path.display(), "jail refused")
                }
                Err(_) => tracing::warn!(path = %self.path.display(), "jail said nothing"),
            }
        }
    }

    async fn admit(&self, stream: UnixStream) -> io::Result<Arrival> {
        let peer = stream.peer_cred()?.uid();
        if peer != nix::unistd::geteuid().as_raw() {
            let reason = format!("offered by user {peer}, who is not this proxy's");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
        }
        let mut incoming = Incoming::default();
        loop {
            let read = || incoming.read(stream.as_fd());
            match stream.async_io(Interest::READABLE, read).await? {
                Step::More => {}
                Step::Complete => break,
                Step::Closed => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        let (offer, descriptors) = incoming.finish::<Offer>()?;
        let mut life = JailLife { stream };
        if offer.workload != self.workload {
            let reason =
                format!("this is the sidecar of {}, not of {}", self.workload, offer.workload);
            life.answer(&Answer::Refused(reason.clone())).await?;
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
        let sockets = Sockets::from_roles(&offer.roles, descriptors)?;
        for socket in &sockets.capture {
            socket.set_nonblocking(true)?;
        }
        for socket in &sockets.dns_udp {
            socket.set_nonblocking(true)?;
        }
        for socket in &sockets.dns_tcp {
            socket.set_nonblocking(true)?;
        }
        Ok(Arrival { sockets, life })
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // The path may be gone already, with its directory; there is nothing left to do then.
        let _gone = std::fs::remove_file(&self.path);
    }
}

/// One jail's sockets, ready for tokio (non-blocking).
#[derive(Debug)]
pub struct Arrival {
    /// The sockets. Close all of them when [`JailLife::ended`] returns.
    pub sockets: Sockets,
    /// The jail's connection: say [`JailLife::accept`] once the sockets are served.
    pub life: JailLife,
}

/// The connection that lives as long as the jail.
#[derive(Debug)]
pub struct JailLife {
    stream: UnixStream,
}

impl JailLife {
    /// Tells the jail that its sockets are served; it starts its command only then.
    ///
    /// # Errors
    /// When the jail has ended already.
    pub async fn accept(&mut self) -> io::Result<()> {
        self.answer(&Answer::Accepted).await
    }

    /// Tells the jail that its sockets will not be served, and why.
    ///
    /// # Errors
    /// When the jail has ended already.
    pub async fn refuse(mut self, reason: &str) -> io::Result<()> {
        self.answer(&Answer::Refused(reason.to_owned())).await
    }

    /// Returns when the jail has ended. Safe to cancel.
    pub async fn ended(&mut self) {
        let mut ignored = [0; 64];
        while matches!(self.stream.read(&mut ignored).await, Ok(1..)) {}
    }

    async fn answer(&mut self, answer: &Answer) -> io::Result<()> {
        self.stream.write_all(&wire::encode(answer)?).await
    }
}
