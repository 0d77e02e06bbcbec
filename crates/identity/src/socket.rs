//! Unix sockets on which a workload's secrets are served: its own user's, and nobody else's.

use std::{fs, io, os::unix::fs::PermissionsExt as _, path::Path, pin::pin, time::Duration};

use tokio::{
    net::{UnixListener, UnixStream},
    sync::watch,
};
use tokio_stream::{Stream, StreamExt as _, wrappers::UnixListenerStream};
use tonic::transport::Error;

/// Owner only.
const SOCKET_MODE: u32 = 0o600;
/// Streams end at once at shutdown; this is for a client that does not take the end.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// Binds beside the path and renames, so that the socket is never there with another mode.
pub(crate) fn bind(path: &Path) -> io::Result<UnixListener> {
    let draft = path.with_extension("tmp");
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(&draft)?;
    fs::set_permissions(&draft, fs::Permissions::from_mode(SOCKET_MODE))?;
    fs::rename(&draft, path)?;
    Ok(listener)
}

/// The connections of programs of our own user, or of root; others are closed.
pub(crate) fn of_our_user(
    listener: UnixListener,
) -> impl Stream<Item = io::Result<UnixStream>> + Send {
    let own = rustix::process::geteuid().as_raw();
    UnixListenerStream::new(listener).filter(move |socket| {
        let Ok(socket) = socket else { return true };
        match socket.peer_cred() {
            Ok(peer) if peer.uid() == own || peer.uid() == 0 => true,
            Ok(peer) => {
                tracing::warn!(
                    uid = peer.uid(),
                    pid = peer.pid(),
                    "a program of another user \
                    asked for the workload's secrets, and was refused"
                );
                false
            }
            Err(error) => {
                tracing::warn!(%error, "who asks for the workload's secrets cannot be told");
                false
            }
        }
    })
}

/// Runs a server until it ends or is to end; then its streams are told, by `stop`.
pub(crate) async fn until(
    shutdown: impl Future<Output = ()>,
    server: impl Future<Output = Result<(), Error>>,
    stop: &watch::Sender<bool>,
) -> Result<(), Error> {
    let mut server = pin!(server);
    tokio::select! {
        done = &mut server => done?,
        () = shutdown => {
            stop.send_replace(true);
            // Whoever does not take the end is cut off.
            let _ = tokio::time::timeout(GOODBYE_MAX, server).await;
        }
    }
    Ok(())
}
