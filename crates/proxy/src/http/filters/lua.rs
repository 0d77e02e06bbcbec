//! The Lua filter: lends heads to a script and takes them back.

use std::{fmt, mem, sync::Arc};

use sluis_http1::{FieldError, Fields, Known, RequestHead, ResponseHead};
use sluis_script::{Instance, LogLevel, Respond, Script, ScriptError, Stream, Verdict};
use tracing::{debug, error, info, trace, warn};

use crate::{
    http::{edge::Site, reply::Reply, respond::Unsent, state::Desk},
    stats::Counter,
};

/// One script on one worker.
pub(super) struct Lua {
    name: Arc<str>,
    instance: Instance<Lent>,
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
        script: &Script,
        clears_route: bool,
    ) -> Result<Self, ScriptError> {
        Ok(Self { name, instance: script.instance()?, clears_route })
    }

    /// Shows the script a request. True when the route must be chosen anew.
    pub(super) fn on_request<'c>(
        &self,
        site: Site<'_>,
        desk: &mut Desk,
    ) -> Result<bool, Box<Reply<'c>>> {
        if !self.instance.sees_requests() {
            return Ok(false);
        }
        let scheme = site.scheme(&desk.request);
        let head = Head::Request(mem::take(&mut desk.request), scheme);
        let (lent, verdict) = self.instance.on_request(self.lend(site, head));
        if let Head::Request(head, _) = lent.head {
            desk.request = head;
        }
        match verdict {
            Ok(Verdict::Continue) => Ok(self.clears_route),
            Ok(Verdict::Respond(respond)) => Err(reply(respond).into()),
            Err(error) => {
                self.failed(site, &error);
                Err(Reply::new(500, "lua_script_failed").into())
            }
        }
    }

    /// Shows the script a response.
    pub(super) fn on_response(&self, site: Site<'_>, desk: &mut Desk) -> Result<(), Unsent> {
        if !self.instance.sees_responses() {
            return Ok(());
        }
        let head = Head::Response(mem::take(&mut desk.response));
        let (lent, verdict) = self.instance.on_response(self.lend(site, head));
        if let Head::Response(head) = lent.head {
            desk.response = head;
        }
        match verdict {
            Ok(Verdict::Continue) => Ok(()),
            Ok(Verdict::Respond(respond)) => Err(Unsent::Replaced(reply(respond).into())),
            Err(error) => {
                self.failed(site, &error);
                Err(Unsent::Fault)
            }
        }
    }

    fn lend(&self, site: Site<'_>, head: Head) -> Lent {
        let sni = site.connection.sni.clone();
        Lent { head, name: Arc::clone(&self.name), sni }
    }

    fn failed(&self, site: Site<'_>, error: &ScriptError) {
        site.worker.stats().inc(Counter::LuaErrors);
        warn!(filter = %self.name, %error, "script failed: the request is answered 500");
    }
}

fn reply<'c>(respond: Respond) -> Reply<'c> {
    let Respond { status, headers, body } = respond;
    let mut reply = Reply::new(status, "lua_response");
    reply.fields = headers.into_iter().filter(|(name, _)| !is_framing(name)).collect();
    reply.body = body.into();
    reply
}

/// A head while the script has it.
struct Lent {
    head: Head,
    name: Arc<str>,
    sni: Option<Arc<str>>,
}

enum Head {
    Request(RequestHead, &'static str),
    Response(ResponseHead),
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

fn said(error: FieldError) -> String {
    error.to_string()
}

impl Lent {
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

    fn refuse_ours(name: &[u8]) -> Result<(), String> {
        if is_framing(name) {
            return Err("this header belongs to the connection and cannot be changed".to_owned());
        }
        Ok(())
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

impl Stream for Lent {
    fn header(&self, name: &[u8], index: usize) -> Option<&[u8]> {
        if is_pseudo(name) {
            let name = name.to_ascii_lowercase();
            return self.pseudo(&name).filter(|_| index == 0);
        }
        let known = Known::of(name);
        let is_named = |(found, _): &(&[u8], &[u8])| match known {
            Some(known) => Known::of(found) == Some(known),
            None => found.eq_ignore_ascii_case(name),
        };
        self.fields().iter().filter(is_named).nth(index).map(|(_, value)| value)
    }

    fn each_header(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
        let names: [&[u8]; 5] = [b":authority", b":path", b":method", b":scheme", b":status"];
        for name in names {
            if let Some(value) = self.pseudo(name) {
                visit(name, value);
            }
        }
        let is_request = matches!(self.head, Head::Request(..));
        for (name, value) in self.fields().iter() {
            // Envoy's scripts see names in lower case, and the host as `:authority`.
            if is_request && name.eq_ignore_ascii_case(b"host") {
                continue;
            }
            if name.iter().any(u8::is_ascii_uppercase) {
                visit(&name.to_ascii_lowercase(), value);
            } else {
                visit(name, value);
            }
        }
    }

    fn add_header(&mut self, name: &[u8], value: &[u8]) -> Result<(), String> {
        if is_pseudo(name) {
            return Err("this header cannot have a second value".to_owned());
        }
        Self::refuse_ours(name)?;
        self.fields_mut().append(name, value).map_err(said)
    }

    fn remove_header(&mut self, name: &[u8]) -> Result<(), String> {
        if is_pseudo(name) {
            return Err("this header cannot be removed".to_owned());
        }
        Self::refuse_ours(name)?;
        self.fields_mut().remove_name(name);
        Ok(())
    }

    fn replace_header(&mut self, name: &[u8], value: &[u8]) -> Result<(), String> {
        if !is_pseudo(name) {
            Self::refuse_ours(name)?;
            return self.fields_mut().set(name, value).map_err(said);
        }
        let name = name.to_ascii_lowercase();
        match (&mut self.head, name.as_slice()) {
            (Head::Request(head, _), b":method") => head.set_method(value).map_err(said),
            (Head::Request(head, _), b":path") => head.set_path(value).map_err(said),
            (Head::Request(head, _), b":authority" | b"host") => {
                head.set_authority(value).map_err(said)
            }
            (Head::Response(head), b":status") => {
                let status = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                let status = status.filter(|status| (200..=599).contains(status));
                head.set_status(status.ok_or("the status is not between 200 and 599")?);
                Ok(())
            }
            _ => Err("this header cannot be changed".to_owned()),
        }
    }

    fn log(&mut self, level: LogLevel, text: &str) {
        let filter = &*self.name;
        match level {
            LogLevel::Trace => trace!(filter, text, "script"),
            LogLevel::Debug => debug!(filter, text, "script"),
            LogLevel::Info => info!(filter, text, "script"),
            LogLevel::Warn => warn!(filter, text, "script"),
            LogLevel::Error => error!(filter, text, "script"),
        }
    }

    fn protocol(&self) -> &'static str {
        "HTTP/1.1"
    }

    fn requested_server_name(&self) -> &str {
        self.sni.as_deref().unwrap_or_default()
    }
}
