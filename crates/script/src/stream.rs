//! What a script sees of one request or response. Implemented by the proxy.

/// One request, or one response, on its way.
///
/// A script sees its headers as they were when it started and its own changes to them. The changes
/// reach the stream when the script has ended without an error, in the order in which they were
/// made.
pub trait Stream {
    /// Calls `each` for every header in order, pseudo-headers (`:method`, `:status`, …) first.
    /// Names are in any case.
    fn headers(&self, each: &mut dyn FnMut(&[u8], &[u8]));

    /// Carries out one change. Names are in lower case and valid, values hold no line break; a
    /// pseudo-header is only ever replaced.
    ///
    /// # Errors
    ///
    /// When the stream cannot have that header. The script has then failed.
    fn apply(&mut self, edit: Edit<'_>) -> Result<(), HeaderRefused>;

    /// Writes a line that the script logs.
    fn log(&mut self, level: Level, message: &str);

    /// Fills in what the script may ask about the connection.
    fn facts(&self, facts: &mut Facts);
}

/// One change of the headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit<'e> {
    /// Adds a header after those that are there.
    Add {
        /// Its name in lower case.
        name: &'e [u8],
        /// Its value.
        value: &'e [u8],
    },
    /// Removes all headers of the name, then adds one.
    Replace {
        /// Its name in lower case; may be a pseudo-header.
        name: &'e [u8],
        /// Its value.
        value: &'e [u8],
    },
    /// Removes all headers of the name.
    Remove {
        /// The name in lower case.
        name: &'e [u8],
    },
}

/// The stream cannot have a header that a script wants it to have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("header {name} is refused: {reason}")]
pub struct HeaderRefused {
    /// The header's name.
    pub name: String,
    /// Why not.
    pub reason: &'static str,
}

/// How much a log line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// `logTrace`.
    Trace,
    /// `logDebug`.
    Debug,
    /// `logInfo`, and `print`.
    Info,
    /// `logWarn`.
    Warn,
    /// `logErr` and `logCritical`.
    Error,
}

/// What a script may ask about its connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// `HTTP/1.0`, `HTTP/1.1` or `HTTP/2`.
    pub protocol: &'static str,
    /// The name of the request's route; empty when it has none yet.
    pub route: String,
    /// The SNI that the client sent; empty when it sent none.
    pub server_name: String,
    /// The client's address and port; empty when unknown.
    pub remote_address: String,
    /// The address and port that the client reached; empty when unknown.
    pub local_address: String,
    /// Whether the client speaks TLS to us.
    pub is_tls: bool,
    /// The URIs in the client's certificate: its SPIFFE identity. Empty without a certificate.
    pub peer_uris: Vec<String>,
}

impl Facts {
    /// Forgets everything, keeping the room.
    pub(crate) fn clear(&mut self) {
        self.protocol = "HTTP/1.1";
        self.route.clear();
        self.server_name.clear();
        self.remote_address.clear();
        self.local_address.clear();
        self.is_tls = false;
        self.peer_uris.clear();
    }
}
