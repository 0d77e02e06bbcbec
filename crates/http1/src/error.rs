//! Why a head was refused.

/// Why a request or response head was refused. The connection cannot be used afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// The first byte cannot begin a method or status line (a TLS hello, for one).
    #[error("not an HTTP/1 message")]
    NotHttp,
    /// The client speaks HTTP/2 with prior knowledge.
    #[error("HTTP/2 preface on an HTTP/1 connection")]
    Http2Preface,
    /// A line ended in LF without CR.
    #[error("line ends with a bare LF")]
    BareLineFeed,
    /// More than one empty line before the start line.
    #[error("empty lines before the start line")]
    LeadingEmptyLines,
    /// A field line begins with whitespace (obsolete line folding).
    #[error("folded field line")]
    FoldedLine,
    /// The start line is longer than its limit.
    #[error("start line too long")]
    StartLineTooLong,
    /// The head is longer than its limit.
    #[error("head too large")]
    TooLarge,
    /// More header fields than the limit.
    #[error("too many header fields")]
    TooManyFields,
    /// The version is not HTTP/1.1 or HTTP/1.0; HTTP/0.9 lines have none.
    #[error("unsupported protocol version")]
    Version,
    /// The start line is not of the form of its grammar.
    #[error("malformed start line")]
    StartLine,
    /// A field name is empty, holds a byte outside `token`, or is followed by whitespace.
    #[error("malformed field name")]
    FieldName,
    /// A field value holds NUL, CR or another control character.
    #[error("malformed field value")]
    FieldValue,
    /// A name that differs from a framing field only by `_` for `-`, which some servers equate.
    #[error("field name imitates a framing field")]
    FramingLookalike,
    /// The Connection field nominates a field that must reach the next hop or that we set.
    #[error("Connection nominates a field that is not hop-by-hop")]
    Nomination,
    /// An HTTP/2 message with a field that only HTTP/1 has.
    #[error("field that belongs to one HTTP/1 connection")]
    ConnectionSpecific,
    /// The status code is not between 100 and 599.
    #[error("status code out of range")]
    Status,
    /// The request target.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The Host field.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The length of the body.
    #[error(transparent)]
    Framing(#[from] FramingError),
}

/// Why a request target was refused (RFC 9112 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// A byte that no form of target may hold (control, space, non-ASCII; `\` in a path).
    #[error("request target holds a forbidden byte")]
    Byte,
    /// `#`: fragments are never sent.
    #[error("request target holds a fragment")]
    Fragment,
    /// `user@host`.
    #[error("request target holds userinfo")]
    Userinfo,
    /// An absolute form whose scheme is not http or https.
    #[error("request target has an unsupported scheme")]
    Scheme,
    /// `*` with another method than OPTIONS.
    #[error("asterisk-form outside OPTIONS")]
    Asterisk,
    /// `host:port` with another method than CONNECT, or CONNECT with another form.
    #[error("authority-form is for CONNECT and CONNECT is for authority-form")]
    AuthorityForm,
    /// None of the four forms.
    #[error("request target has no known form")]
    Form,
}

/// Why an authority was refused (RFC 9112 §3.2, RFC 3986 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// An HTTP/1.1 request without Host.
    #[error("missing Host")]
    Missing,
    /// Two Host fields.
    #[error("more than one Host")]
    Repeated,
    /// An empty name, a forbidden byte, a bad port, or brackets around something else than IPv6.
    #[error("invalid authority")]
    Invalid,
    /// The target's authority and Host differ.
    #[error("Host differs from the authority of the request target")]
    Mismatch,
}

/// Why the length of a body could not be decided (RFC 9112 §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// Both Content-Length and Transfer-Encoding.
    #[error("both Content-Length and Transfer-Encoding")]
    Both,
    /// More than one Content-Length, equal or not.
    #[error("more than one Content-Length")]
    RepeatedLength,
    /// Not a plain decimal number below 2^63.
    #[error("invalid Content-Length")]
    Length,
    /// Anything but one field that says exactly `chunked`.
    #[error("unsupported Transfer-Encoding")]
    Coding,
    /// Transfer-Encoding in an HTTP/1.0 message.
    #[error("Transfer-Encoding in HTTP/1.0")]
    CodingInHttp10,
    /// A body on a message that cannot have one (1xx, 204, CONNECT, TRACE).
    #[error("body on a message that cannot have one")]
    Forbidden,
}

impl HeadError {
    /// The status of the answer to a request that failed so.
    pub fn status(&self) -> u16 {
        match self {
            Self::TooLarge | Self::TooManyFields | Self::StartLineTooLong => 431,
            Self::Version => 505,
            Self::Framing(FramingError::Coding) => 501,
            _ => 400,
        }
    }

    /// A short name in the style of Envoy's response code details.
    pub fn details(&self) -> &'static str {
        match self {
            Self::TooLarge | Self::StartLineTooLong => "http1.headers_too_large",
            Self::TooManyFields => "http1.too_many_headers",
            Self::Framing(FramingError::Both) => "http1.content_length_and_chunked_not_allowed",
            Self::Framing(FramingError::Coding) => "http1.invalid_transfer_encoding",
            Self::FieldValue => "http1.invalid_characters",
            Self::Target(_) => "http1.invalid_url",
            Self::Host(HostError::Missing) => "missing_host_header",
            Self::Host(_) => "http1.invalid_authority",
            _ => "http1.codec_error",
        }
    }
}
