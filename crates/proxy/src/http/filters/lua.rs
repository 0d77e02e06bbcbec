//! The Lua filter: lends heads to a script.

use std::{fmt, sync::Arc};

use sluis_http1::{FieldError, Fields, Known, RequestHead, ResponseHead};
use sluis_script::{
    CompileError, Edit, Facts, HeaderRefused, Host, Level, Outcome, Response, RunError, Script,
    Stream,
};
use tracing::{debug, error, info, trace, warn};

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
    pub(super) fn new(
        name: Arc<str>,
        source: &str,
        host: &Host,
        clears_route: bool,
    ) -> Result<Self, CompileError> {
        let script = Script::compile(source, &name, host)?;
        Ok(Self { name, script, clears_route })
    }

    /// Shows the script a request. True when the route must be chosen anew.
    pub(super) fn on_request<'c>(
        &self,
        site: Site<'_>,
        desk: &mut Desk,
    ) -> Result<bool, Box<Reply<'c>>> {
        if !self.script.handles_requests() {
            return Ok(false);
        }
        let scheme = site.scheme(&desk.request);
        let head = Head::Request(&mut desk.request, scheme);
        match self.script.on_request(&mut Lent { head, name: &self.name, site }) {
            Ok(Outcome::Continue) => Ok(self.clears_route),
            Ok(Outcome::Respond(response)) => Err(reply(response).into()),
            Err(error) => {
                self.failed(site, &error);
                Err(Reply::new(500, "lua_script_failed").into())
            }
        }
    }

    /// Shows the script a response.
    pub(super) fn on_response(&self, site: Site<'_>, desk: &mut Desk) -> Result<(), Unsent> {
        if !self.script.handles_responses() {
            return Ok(());
        }
        let head = Head::Response(&mut desk.response);
        match self.script.on_response(&mut Lent { head, name: &self.name, site }) {
            Ok(Outcome::Continue) => Ok(()),
            Ok(Outcome::Respond(response)) => Err(Unsent::Replaced(reply(response).into())),
            Err(error) => {
                self.failed(site, &error);
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

/// A head while the script has it.
struct Lent<'l> {
    head: Head<'l>,
    name: &'l str,
    site: Site<'l>,
}

enum Head<'l> {
    Request(&'l mut RequestHead, &'static str),
    Response(&'l mut ResponseHead),
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

fn said(name: &[u8], error: &FieldError) -> HeaderRefused {
    refused(
        name,
        match error {
            FieldError::Name => "the name is not valid",
            FieldError::Value => "the value is not valid",
            FieldError::Room => "the head has no more room",
        },
    )
}

impl Lent<'_> {
    fn fields(&self) -> &Fields {
        match &self.head {
            Head::Request(head, _) => &head.fields,
            Head::Response(head) => &head.fields,
        }
    }

    fn fields_mut(&mut self) -> &mut Fields {
        match &mut self.head {
            Head::Request(head, _) => &mut head.fields,
            Head::Response(head) => &mut head.fields,
        }
    }

    /// The value of a pseudo header; `host` is one, as in Envoy.
    fn pseudo(&self, name: &[u8]) -> Option<&[u8]> {
        match (&self.head, name) {
            (Head::Request(head, _), b":method") => Some(head.method_name()),
            (Head::Request(head, _), b":path") => Some(head.path()),
            (Head::Request(head, _), b":authority" | b"host") => Some(head.authority()),
            (Head::Request(_, scheme), b":scheme") => Some(scheme.as_bytes()),
            (Head::Response(head), b":status") => Some(status_text(head.status())),
            _ => None,
        }
    }
}

/// Three digits of a status.
fn status_text(status: u16) -> &'static [u8] {
    /// `200201…599`.
    const DIGITS: [u8; 1200] = {
        let mut digits = [b'0'; 1200];
        let mut at = 0;
        while at < 400 {
            let status = at + 200;
            digits[at * 3] = b'0' + (status / 100) as u8;
            digits[at * 3 + 1] = b'0' + (status / 10 % 10) as u8;
            digits[at * 3 + 2] = b'0' + (status % 10) as u8;
            at += 1;
        }
        digits
    };
    static TABLE: [u8; 1200] = DIGITS;
    let at = usize::from(status).saturating_sub(200) * 3;
    TABLE.get(at..at + 3).unwrap_or(b"101")
}

fn is_pseudo(name: &[u8]) -> bool {
    name.first() == Some(&b':') || name.eq_ignore_ascii_case(b"host")
}

impl Lent<'_> {
    fn add(&mut self, name: &[u8], value: &[u8]) -> Result<(), HeaderRefused> {
        if is_pseudo(name) {
            return Err(refused(name, "it cannot have a second value"));
        }
        self.fields_mut().append(name, value).map_err(|error| said(name, &error))
    }

    fn remove(&mut self, name: &[u8]) -> Result<(), HeaderRefused> {
        if is_pseudo(name) {
            return Err(refused(name, "it cannot be removed"));
        }
        self.fields_mut().remove_name(name);
        Ok(())
    }

    fn replace(&mut self, name: &[u8], value: &[u8]) -> Result<(), HeaderRefused> {
        let outcome = match (&mut self.head, name) {
            (Head::Request(head, _), b":method") => head.set_method(value),
            (Head::Request(head, _), b":path") => head.set_path(value),
            (Head::Request(head, _), b":authority" | b"host") => head.set_authority(value),
            (Head::Response(head), b":status") => {
                let status = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                let status = status.filter(|status| (200..=599).contains(status));
                head.set_status(status.ok_or_else(|| refused(name, "not between 200 and 599"))?);
                Ok(())
            }
            _ if is_pseudo(name) => return Err(refused(name, "it cannot be changed")),
            _ => self.fields_mut().set(name, value),
        };
        outcome.map_err(|error| said(name, &error))
    }
}

impl Stream for Lent<'_> {
    fn headers(&self, each: &mut dyn FnMut(&[u8], &[u8])) {
        let names: [&[u8]; 5] = [b":authority", b":path", b":method", b":scheme", b":status"];
        for name in names {
            if let Some(value) = self.pseudo(name) {
                each(name, value);
            }
        }
        let is_request = matches!(self.head, Head::Request(..));
        for (name, value) in self.fields().iter() {
            // Envoy's scripts see the host as `:authority` alone.
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
        match edit {
            Edit::Add { name, value } => self.add(name, value),
            Edit::Replace { name, value } => self.replace(name, value),
            Edit::Remove { name } => self.remove(name),
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
        let connection = self.site.connection;
        facts.protocol = "HTTP/1.1";
        facts.server_name.push_str(connection.sni.as_deref().unwrap_or_default());
        facts.is_tls = connection.is_tls;
        facts.remote_address.push_str(&connection.remote.to_string());
        facts.local_address.push_str(&connection.local.to_string());
        facts.peer_uris.extend(connection.peer.iter().flat_map(|peer| peer.uris.iter().cloned()));
    }
}
