//! What a script sees of one request or response. Implemented by the proxy.

use sluis_rules::{MetaFields, Metadata};

/// One request, or one response, on its way.
///
/// A script sees its headers as they were when it started and its own changes to them. The changes
/// reach the stream when the head goes on: when the script has ended, or waits for what follows the
/// head. They are made in the order in which the script made them.
pub trait Stream {
    /// Calls `each` for every header in order, pseudo-headers (`:method`, `:status`, …) first.
    /// Names are in any case. Asked once, when the script starts.
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

    /// What filters have found out of the request: `streamInfo():dynamicMetadata()`.
    fn metadata(&mut self) -> &mut Metadata;
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
    /// Sets the reason phrase of an HTTP/1 response.
    Reason(&'e [u8]),
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

/// What a script may ask about its request, its route and its connection. Asked when the script
/// asks, so that a script which asks nothing costs nothing.
pub trait Facts {
    /// `HTTP/1.0`, `HTTP/1.1` or `HTTP/2`.
    fn protocol(&self) -> &str;

    /// The name of the request's route; empty when it has none yet.
    fn route_name(&self) -> &str;

    /// The SNI that the client sent; empty when it sent none.
    fn server_name(&self) -> &str;

    /// An address of the client's connection; empty when unknown.
    fn address(&self, which: AddressOf) -> String;

    /// What the configuration says to this filter, or at this place.
    fn fields(&self, of: FieldsOf) -> Option<&MetaFields>;

    /// What network filters have found out of the connection.
    fn connection_metadata(&self) -> Option<&Metadata>;

    /// The client's TLS; `None` when it speaks none to us.
    fn tls(&self) -> Option<&dyn Tls>;

    /// Whether there is a cluster of this name.
    fn knows_cluster(&self, name: &str) -> bool;
}

/// An address of the client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressOf {
    /// The client as it is trusted.
    Remote,
    /// The other end of the socket.
    DirectRemote,
    /// The address that the client meant.
    Local,
    /// Our end of the socket.
    DirectLocal,
}

/// A place of the configuration that says something to scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldsOf {
    /// `handle:metadata()`: the route's metadata under the filter's name, else under
    /// `envoy.filters.http.lua`.
    Metadata,
    /// `handle:route():metadata()`: the route's metadata under the filter's name.
    Route,
    /// `handle:virtualHost():metadata()`: the virtual host's metadata under the filter's name.
    VirtualHost,
    /// `handle:filterContext()`.
    Context,
}

/// What was agreed with a client in TLS.
pub trait Tls {
    /// Whether the client showed a certificate, which was verified.
    fn has_peer(&self) -> bool;

    /// One text; empty when there is none.
    fn text(&self, what: TlsText) -> String;

    /// Several texts; empty when there are none.
    fn list(&self, what: TlsList) -> Vec<String>;

    /// Since when, and until when, the client's certificate is valid, in seconds since 1970; zeros
    /// without a certificate.
    fn validity(&self) -> (i64, i64);

    /// The common name and the organizations of the client's certificate; `None` without one.
    fn parsed_subject(&self) -> Option<(String, Vec<String>)>;
}

/// A text of a TLS connection. Each is named like the method that returns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of Envoy's documentation")]
pub enum TlsText {
    Sha256PeerCertificateDigest,
    SerialNumberPeerCertificate,
    IssuerPeerCertificate,
    SubjectPeerCertificate,
    SubjectLocalCertificate,
    UrlEncodedPemEncodedPeerCertificate,
    UrlEncodedPemEncodedPeerCertificateChain,
    SessionId,
    CiphersuiteId,
    CiphersuiteString,
    TlsVersion,
}

/// Several texts of a TLS connection. Each is named like the method that returns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of Envoy's documentation")]
pub enum TlsList {
    UriSanLocalCertificate,
    UriSanPeerCertificate,
    DnsSansPeerCertificate,
    DnsSansLocalCertificate,
    OidsPeerCertificate,
    OidsLocalCertificate,
}
