//! Answers that need no endpoint: what Envoy calls local replies, redirects, direct responses.

use std::borrow::Cow;

use sluis_rules::Matched;

use crate::access_log::Flag;

/// An answer of our own.
#[derive(Clone, Debug)]
pub(super) struct Reply<'c> {
    pub(super) status: u16,
    pub(super) body: Cow<'c, [u8]>,
    /// Why, in Envoy's words.
    pub(super) details: Cow<'static, str>,
    pub(super) flag: Option<Flag>,
    pub(super) location: Option<Vec<u8>>,
    /// Further fields, of a filter's making.
    pub(super) fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// The route whose response mutations apply.
    pub(super) matched: Option<Matched<'c>>,
    /// Whether the connection must not be used any more.
    pub(super) closes: bool,
    /// The status of gRPC, where a gRPC client is told another than the one that its HTTP status
    /// means.
    pub(super) grpc_status: Option<u32>,
    /// Whether tries to get a response are told of.
    pub(super) tells_attempts: bool,
    /// Whether it was waited for: the request has gone on coming meanwhile.
    pub(super) is_waited: bool,
    /// Whether the route's mutations are left out.
    pub(super) is_unchanged: bool,
    /// Whether filters and mutations are left out, because one of them made it or failed.
    pub(super) is_plain: bool,
}

impl<'c> Reply<'c> {
    pub(super) fn new(status: u16, details: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            body: Cow::Borrowed(b""),
            details: details.into(),
            flag: None,
            location: None,
            fields: Vec::new(),
            matched: None,
            closes: false,
            grpc_status: None,
            tells_attempts: false,
            is_waited: false,
            is_unchanged: false,
            is_plain: false,
        }
    }

    pub(super) fn text(self, body: &'c str) -> Self {
        Self { body: body.as_bytes().into(), ..self }
    }

    pub(super) fn flag(self, flag: Flag) -> Self {
        Self { flag: Some(flag), ..self }
    }

    pub(super) fn closing(self) -> Self {
        Self { closes: true, ..self }
    }

    pub(super) fn plain(self) -> Self {
        Self { is_plain: true, ..self }
    }

    /// An answer in the place of a response that was tried for.
    pub(super) fn tried(self) -> Self {
        Self { tells_attempts: true, ..self }
    }

    pub(super) fn unchanged(self) -> Self {
        Self { is_unchanged: true, ..self }
    }

    /// The answer when headers could not be brought into the form that is asked for.
    pub(super) fn fault() -> Self {
        Self::new(500, "header_mutation_failed").plain()
    }

    pub(super) fn of(self, matched: Matched<'c>) -> Self {
        Self { matched: Some(matched), ..self }
    }

    pub(super) fn redirect(status: u16, location: Vec<u8>) -> Self {
        Self { location: Some(location), ..Self::new(status, "direct_response") }
    }
}

/// The answer to a request whose body is malformed.
pub(super) fn bad_body<'c>() -> Reply<'c> {
    let reply = Reply::new(400, "http1.codec_error").flag(Flag::DownstreamProtocolError);
    reply.text("Bad Request").closing()
}

/// Why a response head cannot be sent as it is.
#[derive(Debug)]
pub(super) enum Unsent {
    /// A mutation or a filter failed.
    Fault,
}
