//! A head as a script sees it.

use sluis_http1::{FieldError, Fields, Known, RequestHead, ResponseHead};
use sluis_rules::Metadata;
use sluis_script::{Edit, HeaderRefused, Level, Stream};
use tracing::{debug, error, info, trace, warn};

/// A head that a script sees, or the body behind it.
pub(in crate::http) struct Shown<'h> {
    head: Head<'h>,
    metadata: &'h mut Metadata,
    name: &'h str,
    pub(in crate::http) claims: Claims,
}

pub(in crate::http) enum Head<'h> {
    Request(&'h mut RequestHead, &'static str),
    Response(&'h mut ResponseHead),
    /// It has gone on.
    Gone,
}

/// What a script says of the length of the body. It is ours to say; so it is compared with what is
/// true.
#[derive(Debug, Default)]
pub(in crate::http) struct Claims {
    is_removed: bool,
    pub(in crate::http) length: Option<Vec<u8>>,
}

impl Claims {
    pub(in crate::http) fn is_empty(&self) -> bool {
        !self.is_removed && self.length.is_none()
    }

    pub(in crate::http) fn add(&mut self, later: Self) {
        if !later.is_empty() {
            *self = later;
        }
    }
}

impl<'h> Shown<'h> {
    pub(in crate::http) fn new(head: Head<'h>, metadata: &'h mut Metadata, name: &'h str) -> Self {
        Self { head, metadata, name, claims: Claims::default() }
    }
}

/// Fields that say where the message ends or belong to one hop: ours alone.
pub(in crate::http) fn is_framing(name: &[u8]) -> bool {
    matches!(
        Known::of(name),
        Some(
            Known::Connection
                | Known::ContentLength
                | Known::KeepAlive
                | Known::ProxyConnection
                | Known::Te
                | Known::Trailer
                | Known::TransferEncoding
                | Known::Upgrade
        )
    )
}

fn refused(name: &[u8], reason: &'static str) -> HeaderRefused {
    HeaderRefused { name: String::from_utf8_lossy(name).into_owned(), reason }
}

fn said(name: &[u8], error: FieldError) -> HeaderRefused {
    let reason = match error {
        FieldError::Name => "its name is not valid",
        FieldError::Value => "its value is not valid",
        FieldError::Room => "there is no room for more",
    };
    refused(name, reason)
}

impl Head<'_> {
    fn fields(&self) -> Option<&Fields> {
        match self {
            Self::Request(head, _) => Some(&head.fields),
            Self::Response(head) => Some(&head.fields),
            Self::Gone => None,
        }
    }

    fn fields_mut(&mut self, name: &[u8]) -> Result<&mut Fields, HeaderRefused> {
        match self {
            Self::Request(head, _) => Ok(&mut head.fields),
            Self::Response(head) => Ok(&mut head.fields),
            Self::Gone => Err(refused(name, "the head has gone on")),
        }
    }

    /// Sets a pseudo-header; `host` is one, as in Envoy.
    fn set_pseudo(&mut self, name: &[u8], value: &[u8]) -> Result<(), HeaderRefused> {
        match (self, name) {
            (Self::Request(head, _), b":method") => {
                head.set_method(value).map_err(|error| said(name, error))
            }
            (Self::Request(head, _), b":path") => {
                head.set_path(value).map_err(|error| said(name, error))
            }
            (Self::Request(head, _), b":authority" | b"host") => {
                head.set_authority(value).map_err(|error| said(name, error))
            }
            (Self::Response(head), b":status") => {
                let status = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                let status = status.filter(|status| (200..=599).contains(status));
                head.set_status(status.ok_or_else(|| refused(name, "it is not 200 to 599"))?);
                Ok(())
            }
            _ => Err(refused(name, "it cannot be changed")),
        }
    }
}

impl Stream for Shown<'_> {
    fn headers(&self, each: &mut dyn FnMut(&[u8], &[u8])) {
        match &self.head {
            Head::Request(head, scheme) => {
                each(b":authority", head.authority());
                each(b":path", head.path());
                each(b":method", head.method_name());
                each(b":scheme", scheme.as_bytes());
            }
            Head::Response(head) => {
                let status = head.status();
                let digit = |value: u16| b'0' + (value % 10) as u8;
                each(b":status", &[digit(status / 100), digit(status / 10), digit(status)]);
            }
            Head::Gone => {}
        }
        let is_request = matches!(self.head, Head::Request(..));
        for (name, value) in self.head.fields().into_iter().flat_map(Fields::iter) {
            // As in Envoy, the host is `:authority` and nothing else.
            if !(is_request && name.eq_ignore_ascii_case(b"host")) {
                each(name, value);
            }
        }
    }

    fn apply(&mut self, edit: Edit<'_>) -> Result<(), HeaderRefused> {
        let name = match edit {
            Edit::Add { name, .. } | Edit::Replace { name, .. } | Edit::Remove { name } => name,
            Edit::Reason(phrase) => {
                let Head::Response(head) = &mut self.head else { return Ok(()) };
                return head.set_reason(phrase).map_err(|error| said(b"reason phrase", error));
            }
        };
        if name == b"content-length" {
            self.claims = match edit {
                Edit::Add { value, .. } | Edit::Replace { value, .. } => {
                    Claims { is_removed: false, length: Some(value.to_vec()) }
                }
                Edit::Remove { .. } | Edit::Reason(_) => Claims { is_removed: true, length: None },
            };
            return Ok(());
        }
        if is_framing(name) {
            return Err(refused(name, "it belongs to the connection"));
        }
        let is_pseudo = name.first() == Some(&b':') || name == b"host";
        match edit {
            Edit::Replace { value, .. } if is_pseudo => self.head.set_pseudo(name, value),
            _ if is_pseudo => Err(refused(name, "it can only be replaced")),
            Edit::Add { value, .. } => {
                self.head.fields_mut(name)?.append(name, value).map_err(|error| said(name, error))
            }
            Edit::Replace { value, .. } => {
                self.head.fields_mut(name)?.set(name, value).map_err(|error| said(name, error))
            }
            Edit::Remove { .. } | Edit::Reason(_) => {
                self.head.fields_mut(name)?.remove_name(name);
                Ok(())
            }
        }
    }

    fn log(&mut self, level: Level, message: &str) {
        let filter = self.name;
        match level {
            Level::Trace => trace!(filter, message, "script"),
            Level::Debug => debug!(filter, message, "script"),
            Level::Info => info!(filter, message, "script"),
            Level::Warn => warn!(filter, message, "script"),
            Level::Error => error!(filter, message, "script"),
        }
    }

    fn metadata(&mut self) -> &mut Metadata {
        self.metadata
    }
}
