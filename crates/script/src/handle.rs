//! The objects that a script works with: `request_handle`, its headers, its connection.

use std::{
    cell::{Ref, RefCell, RefMut},
    rc::Rc,
    time::{SystemTime, UNIX_EPOCH},
};

use mlua::{
    BString, Error, LuaString, MetaMethod, Table, UserData, UserDataMethods, Value, Variadic,
};

use crate::{Level, Response, exchange::Exchange};

/// Bytes that a script's own response may have: an error page, not a download.
const RESPONSE_BODY_MAX: usize = 1 << 20;

/// What a script reaches the stream by. It is of one run, and refuses to serve in another.
#[derive(Clone)]
pub(crate) struct Handle {
    exchange: Rc<RefCell<Exchange>>,
    run: u64,
}

/// `handle:headers()`.
struct Headers(Handle);

/// `handle:streamInfo()`.
struct StreamInfo(Handle);

/// `handle:streamInfo():dynamicMetadata()`: always empty.
struct DynamicMetadata;

/// `handle:metadata()`: always empty.
struct Metadata;

/// `handle:connection()`.
struct Connection(Handle);

/// `handle:connection():ssl()`.
struct Ssl(Handle);

/// Methods of Envoy's handle that this filter does not have, and why a script must not go on.
const UNSUPPORTED: [&str; 12] = [
    "body",
    "bodyChunks",
    "trailers",
    "httpCall",
    "importPublicKey",
    "verifySignature",
    "setUpstreamOverrideHost",
    "clearRouteCache",
    "filterContext",
    "virtualHost",
    "route",
    "filterState",
];

impl Handle {
    pub(crate) fn new(exchange: &Rc<RefCell<Exchange>>) -> Self {
        Self { exchange: Rc::clone(exchange), run: exchange.borrow().run }
    }

    fn get(&self) -> mlua::Result<Ref<'_, Exchange>> {
        let exchange = self.exchange.borrow();
        self.check(&exchange)?;
        Ok(exchange)
    }

    fn get_mut(&self) -> mlua::Result<RefMut<'_, Exchange>> {
        let exchange = self.exchange.borrow_mut();
        self.check(&exchange)?;
        Ok(exchange)
    }

    fn check(&self, exchange: &Exchange) -> mlua::Result<()> {
        if !exchange.is_live || exchange.run != self.run {
            return Err(Error::runtime("object used outside of proper scope"));
        }
        if exchange.response.is_some() {
            return Err(Error::runtime("respond() has ended the script"));
        }
        Ok(())
    }

    fn respond(&self, headers: &Table, body: Option<LuaString>) -> mlua::Result<()> {
        let mut exchange = self.get_mut()?;
        exchange.response = Some(response(headers, body)?);
        // Ends the script; even if it catches this, it can do nothing more.
        Err(Error::runtime("respond() has ended the script"))
    }
}

impl UserData for Handle {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("headers", |_, this, ()| {
            this.get()?;
            Ok(Headers(this.clone()))
        });
        methods.add_method("respond", |_, this, (headers, body): (Table, Option<LuaString>)| {
            this.respond(&headers, body)
        });
        for (name, level) in [
            ("logTrace", Level::Trace),
            ("logDebug", Level::Debug),
            ("logInfo", Level::Info),
            ("logWarn", Level::Warn),
            ("logErr", Level::Error),
            ("logCritical", Level::Error),
        ] {
            methods.add_method(name, move |_, this, line: LuaString| {
                this.get_mut()?.log(level, &line.as_bytes());
                Ok(())
            });
        }
        methods.add_method("streamInfo", |_, this, ()| Ok(StreamInfo(this.clone())));
        methods.add_method("connection", |_, this, ()| Ok(Connection(this.clone())));
        methods.add_method("metadata", |_, this, ()| {
            this.get()?;
            Ok(Metadata)
        });
        methods.add_method("base64Escape", |lua, _, text: LuaString| {
            lua.create_string(base64(&text.as_bytes()))
        });
        methods.add_method("timestamp", |_, _, resolution: Value| timestamp(&resolution));
        methods.add_method("timestampString", |_, _, resolution: Value| {
            timestamp(&resolution).map(|number| format!("{number:.0}"))
        });
        for name in UNSUPPORTED {
            methods.add_method(name, move |_, _, _: Variadic<Value>| -> mlua::Result<()> {
                Err(Error::runtime(format!("{name}() is not supported yet")))
            });
        }
    }
}

impl UserData for Headers {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("get", |lua, this, name: LuaString| {
            let exchange = this.0.get()?;
            let name = lower(&name);
            let mut values = exchange.values(&name);
            let Some(first) = values.next() else { return Ok(None) };
            let Some(second) = values.next() else { return lua.create_string(first).map(Some) };
            // Several headers of one name are one, joined by commas (RFC 9110 §5.3).
            let all: Vec<&[u8]> = [first, second].into_iter().chain(values).collect();
            lua.create_string(all.join(&b","[..])).map(Some)
        });
        methods.add_method("getAtIndex", |lua, this, (name, index): (LuaString, i64)| {
            let exchange = this.0.get()?;
            let Ok(index) = usize::try_from(index) else { return Ok(None) };
            let name = lower(&name);
            let value = exchange.values(&name).nth(index);
            value.map(|value| lua.create_string(value)).transpose()
        });
        methods.add_method("getNumValues", |_, this, name: LuaString| {
            let exchange = this.0.get()?;
            Ok(exchange.values(&lower(&name)).count())
        });
        methods.add_method("add", |_, this, (name, value): (LuaString, LuaString)| {
            let name = header_name(&name)?;
            if name.starts_with(b":") {
                return Err(Error::runtime("a pseudo-header can only be replaced"));
            }
            let value = value.as_bytes();
            header_value(&value)?;
            this.0.get_mut()?.add(&name, &value).map_err(Error::runtime)
        });
        methods.add_method("replace", |_, this, (name, value): (LuaString, LuaString)| {
            let name = header_name(&name)?;
            let value = value.as_bytes();
            header_value(&value)?;
            this.0.get_mut()?.replace(&name, &value).map_err(Error::runtime)
        });
        methods.add_method("remove", |_, this, name: LuaString| {
            let name = header_name(&name)?;
            if name.starts_with(b":") {
                return Err(Error::runtime("a pseudo-header cannot be removed"));
            }
            this.0.get_mut()?.remove(&name).map_err(Error::runtime)
        });
        methods.add_method("setHttp1ReasonPhrase", |_, _, _: LuaString| -> mlua::Result<()> {
            Err(Error::runtime("setHttp1ReasonPhrase() is not supported"))
        });
        methods.add_meta_method(MetaMethod::Pairs, |lua, this, ()| {
            // Over a copy: changing headers on the way is no fault.
            let exchange = this.0.get()?;
            let all: Vec<(Vec<u8>, Vec<u8>)> =
                exchange.all().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
            let mut all = all.into_iter();
            let next = lua.create_function_mut(move |lua, _: Variadic<Value>| {
                let Some((name, value)) = all.next() else { return Ok((None, None)) };
                Ok((Some(lua.create_string(name)?), Some(lua.create_string(value)?)))
            })?;
            Ok((next, Value::Nil, Value::Nil))
        });
    }
}

impl UserData for StreamInfo {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("protocol", |_, this, ()| Ok(this.0.get()?.facts.protocol));
        methods.add_method("routeName", |_, this, ()| Ok(this.0.get()?.facts.route.clone()));
        methods.add_method("requestedServerName", |_, this, ()| {
            Ok(this.0.get()?.facts.server_name.clone())
        });
        for name in ["downstreamRemoteAddress", "downstreamDirectRemoteAddress"] {
            methods.add_method(name, |_, this, ()| Ok(this.0.get()?.facts.remote_address.clone()));
        }
        methods.add_method("downstreamLocalAddress", |_, this, ()| {
            Ok(this.0.get()?.facts.local_address.clone())
        });
        methods.add_method("downstreamSslConnection", |_, this, ()| ssl(&this.0));
        methods.add_method("dynamicMetadata", |_, this, ()| {
            this.0.get()?;
            Ok(DynamicMetadata)
        });
    }
}

impl UserData for DynamicMetadata {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("get", |_, _, _: LuaString| Ok(Value::Nil));
        methods.add_method("set", |_, _, _: Variadic<Value>| -> mlua::Result<()> {
            Err(Error::runtime("dynamicMetadata():set() is not supported yet"))
        });
    }
}

impl UserData for Metadata {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("get", |_, _, _: LuaString| Ok(Value::Nil));
    }
}

impl UserData for Connection {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("ssl", |_, this, ()| ssl(&this.0));
    }
}

impl UserData for Ssl {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        for name in ["peerCertificatePresented", "peerCertificateValidated"] {
            // Certificates are verified in the handshake, or there is no connection.
            methods.add_method(name, |_, this, ()| Ok(!this.0.get()?.facts.peer_uris.is_empty()));
        }
        methods.add_method("uriSanPeerCertificate", |lua, this, ()| {
            lua.create_sequence_from(this.0.get()?.facts.peer_uris.iter().map(String::as_str))
        });
    }
}

fn ssl(handle: &Handle) -> mlua::Result<Option<Ssl>> {
    Ok(handle.get()?.facts.is_tls.then(|| Ssl(handle.clone())))
}

/// A response from the table of headers and the body that a script gives.
fn response(headers: &Table, body: Option<LuaString>) -> mlua::Result<Response> {
    let mut response = Response { status: 0, headers: Vec::new(), body: Vec::new() };
    for pair in headers.pairs::<LuaString, Value>() {
        let (name, value) = pair?;
        if name.as_bytes() == b":status" {
            response.status = value
                .to_string()?
                .parse()
                .ok()
                .filter(|status| (200..600).contains(status))
                .ok_or_else(|| Error::runtime(":status must be between 200 and 599"))?;
            continue;
        }
        let name = header_name(&name)?;
        if name.starts_with(b":") {
            return Err(Error::runtime("a response has no pseudo-header but :status"));
        }
        let values: Vec<BString> = match value {
            Value::Table(list) => list.sequence_values().collect::<mlua::Result<_>>()?,
            one => vec![one.to_string()?.into()],
        };
        for value in values {
            header_value(&value)?;
            response.headers.push((name.clone(), value.into()));
        }
    }
    if response.status == 0 {
        return Err(Error::runtime(":status must be between 200 and 599"));
    }
    // The order of a Lua table is none.
    response.headers.sort();
    if let Some(body) = body {
        if body.as_bytes().len() > RESPONSE_BODY_MAX {
            return Err(Error::runtime(format!("the body is larger than {RESPONSE_BODY_MAX}")));
        }
        response.body.extend_from_slice(&body.as_bytes());
    }
    Ok(response)
}

fn lower(name: &LuaString) -> Vec<u8> {
    name.as_bytes().to_ascii_lowercase()
}

/// A header's name in lower case: a token (RFC 9110 §5.6.2), or a pseudo-header.
fn header_name(name: &LuaString) -> mlua::Result<Vec<u8>> {
    let lower = lower(name);
    let token = lower.strip_prefix(b":").unwrap_or(&lower);
    let valid = !token.is_empty()
        && token.iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b));
    if valid { Ok(lower) } else { Err(Error::runtime("not a header name")) }
}

/// Refuses what would end a header line: a script may take values from the client.
fn header_value(value: &[u8]) -> mlua::Result<()> {
    if value.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n')) {
        return Err(Error::runtime("a header value holds a line break or NUL"));
    }
    Ok(())
}

/// Milliseconds since 1970, or microseconds where the script asks for them.
fn timestamp(resolution: &Value) -> mlua::Result<f64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    match resolution {
        Value::Nil => Ok(since.as_millis() as f64),
        Value::String(text) if text.as_bytes() == b"MILLISECOND" => Ok(since.as_millis() as f64),
        Value::String(text) if text.as_bytes() == b"MICROSECOND" => Ok(since.as_micros() as f64),
        _ => Err(Error::runtime("the resolution is not one of EnvoyTimestampResolution")),
    }
}

/// Base64 with padding (RFC 4648 §4).
fn base64(bytes: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = Vec::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte));
        let word = word << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * place) & 63) as usize];
            out.push(if place <= chunk.len() { digit } else { b'=' });
        }
    }
    out
}
