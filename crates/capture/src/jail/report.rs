//! What the two processes of a jail say to each other.

use serde::{Deserialize, Serialize};

use super::JailError;

/// What init says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// The jail is made; its sockets follow.
    Ready,
    /// The command has been stopped as by Ctrl-Z.
    Stopped,
    /// It is not, or the command could not be started.
    Failed(JailError),
}

/// What init is told.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Word {
    /// The sidecar serves the sockets: start the command.
    Start,
}
