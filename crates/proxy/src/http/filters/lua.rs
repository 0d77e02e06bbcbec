//! The Lua filter: shows heads to a script and carries out what it wants changed.

use std::{fmt, sync::Arc};

use sluis_http1::{FieldError, Fields, Known, RequestHead, ResponseHead};
use sluis_script::{
    Edit, Facts, HeaderRefused, Level, Outcome, Response, RunError, Script, Stream,
};
use tracing::{debug, error, info, trace, warn};

use super::Stage;
use crate::{
    http::{edge::Site, reply::Reply, respond::Unsent, state::Desk},
    stats::Counter,
};

/// One script on one worker.
pub(super) struct Lua {
    name: Arc<str>,
    script: Script,
    /// Whether the route is chosen anew after the script has seen a request.
    clears_route: bool,
}

impl fmt::Debug for Lua {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lua").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Lua {
    pub(super) fn new(name: Arc<str>, script: Script, clears_route: bool) -> Self {
        Self { name, script, clears_route }
    }

    /// Shows the script a request. True when the route must be chosen anew.
    pub(super) fn on_request<'c>(
        &self,
        stage: Stage<'_, '_>,
        desk: &mut Desk,
    ) -> Result<bool, Box<Reply<'c>>> {
        if !self.script.handles_requests() {
            return Ok(false);
        }
        let scheme = stage.site.scheme(&desk.request);
        let head = Head::Request(&mut desk.request, scheme);
        match self.script.on_request(&mut Shown { head, stage, name: &self.name }) {
            Ok(Outcome::Continue) => Ok(self.clears_route),
            Ok(Outcome::Respond(response)) => Err(reply(response).into()),
            Err(error) => {
                self.failed(stage.site, &error);
                Err(Reply::new(500, "lua_script_failed").plain().into())
            }
        }
    }

    /// Shows the script a response.
    pub(super) fn on_response(&self, stage: Stage<'_, '_>, desk: &mut Desk) -> Result<(), Unsent> {
        if !self.script.handles_responses() {
            return Ok(());
        }
        let head = Head::Response(&mut desk.response);
        match self.script.on_response(&mut Shown { head, stage, name: &self.name }) {
            Ok(Outcome::Continue) => Ok(()),
            Ok(Outcome::Respond(response)) => Err(Unsent::Replaced(reply(response).into())),
            Err(error) => {
                self.failed(stage.site, &error);
                Err(Unsent::Fault)
            }
        }
    }

    fn failed(&self, site: Site<'_>, error: &RunError) {
        site.worker.stats().inc(Counter::LuaErrors);
        warn!(filter = %self.name, %error, "script failed: the request is answered 500");
    }
}

fn reply<'c>(response: Response) -> Reply<'c> {
    let Response { status, headers, body } = response;
    let mut reply = Reply::new(status, "lua_response");
    reply.fields = headers.into_iter().filter(|(name, _)| !is_framing(name)).collect();
    reply.body = body.into();
    reply
}

/// A head that a script sees.
struct Shown<'h, 'c> {
    head: Head<'h>,
    stage: Stage<'h, 'c>,
    name: &'h str,
}

enum Head<'h> {
    Request(&'h mut RequestHead, &'static str),
    Response(&'h mut ResponseHead),
}

/// Fields that say where the message ends or belong to one hop: ours alone.
fn is_framing(name: &[u8]) -> bool {
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
    fn fields(&self) -> &Fields {
        match self {
            Self::Request(head, _) => &head.fields,
            Self::Response(head) => &head.fields,
        }
    }

    fn fields_mut(&mut self) -> &mut Fields {
        match self {
            Self::Request(head, _) => &mut head.fields,
            Self::Response(head) => &mut head.fields,
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

impl Stream for Shown<'_, '_> {
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
        }
        let is_request = matches!(self.head, Head::Request(..));
        for (name, value) in self.head.fields().iter() {
            // As in Envoy, the host is `:authority` and nothing else.
            if !(is_request && name.eq_ignore_ascii_case(b"host")) {
                each(name, value);
            }
        }
    }

    fn apply(&mut self, edit: Edit<'_>) -> Result<(), HeaderRefused> {
        let (Edit::Add { name, .. } | Edit::Replace { name, .. } | Edit::Remove { name }) = edit;
        if is_framing(name) {
            return Err(refused(name, "it belongs to the connection"));
        }
        let is_pseudo = name.first() == Some(&b':') || name == b"host";
        match edit {
            Edit::Replace { value, .. } if is_pseudo => self.head.set_pseudo(name, value),
            _ if is_pseudo => Err(refused(name, "it can only be replaced")),
            Edit::Add { value, .. } => {
                self.head.fields_mut().append(name, value).map_err(|error| said(name, error))
            }
            Edit::Replace { value, .. } => {
                self.head.fields_mut().set(name, value).map_err(|error| said(name, error))
            }
            Edit::Remove { .. } => {
                self.head.fields_mut().remove_name(name);
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

    fn facts(&self, facts: &mut Facts) {
        let connection = self.stage.site.connection;
        facts.protocol = self.stage.site.protocol.name();
        if let Some(matched) = self.stage.matched {
            facts.route.push_str(&matched.route.name);
        }
        facts.server_name.push_str(connection.sni.as_deref().unwrap_or_default());
        facts.remote_address = connection.remote.to_string();
        facts.local_address = connection.local.to_string();
        facts.is_tls = connection.tls_terminated;
        if let Some(peer) = &connection.peer {
            facts.peer_uris.extend_from_slice(&peer.uris);
        }
    }
}
