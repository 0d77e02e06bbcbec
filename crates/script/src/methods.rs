//! The methods of the object that a script works with: `request_handle` or `response_handle`.

use std::{
    cell::RefMut,
    net::IpAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use mlua::{
    Error, Lua, LuaString, MetaMethod, Table, UserData, UserDataMethods, UserDataRef, Value,
    Variadic,
};

use crate::{
    FieldsOf, Level, Response, Side,
    body::Body,
    call,
    exchange::{Exchange, OUT_OF_SCOPE, Part, Wait},
    handle::Handle,
    headers::Headers,
    info::{Connection, ConnectionInfo, Place, StreamInfo, fields},
    keys::{Key, prefix, verify},
};

/// Bytes that a script's own response may have: an error page, not a download.
const RESPONSE_BODY_MAX: usize = 1 << 20;

/// Calls that one run may make without waiting for them: they go on when it has ended.
const CALLS_MAX: usize = 8;

/// Keys that one run may import.
const KEYS_MAX: usize = 16;

/// Where the methods that wait are kept: they are written in Lua, which can yield.
pub(crate) const WAITING: &str = "sluis.waiting";

impl Handle {
    /// The exchange, for a method that may wait: only the script's first coroutine can.
    fn get_waiting(&self, lua: &Lua, method: &str) -> mlua::Result<RefMut<'_, Exchange>> {
        let exchange = self.get_mut()?;
        if exchange.thread != Some(lua.current_thread().to_pointer()) {
            let message = format!("{method}() cannot be called in a coroutine of the script's own");
            return Err(Error::runtime(message));
        }
        Ok(exchange)
    }

    /// `body()`: the body when it is there, or `None` where the script has to wait.
    fn body(&self, lua: &Lua, always: bool) -> mlua::Result<Option<Value>> {
        let mut exchange = self.get_waiting(lua, "body")?;
        not_a_tunnel(&exchange, "body")?;
        if !exchange.body.has_ended {
            if exchange.body.has_begun {
                let message = "cannot call body() after body streaming has started";
                return Err(Error::runtime(message));
            }
            exchange.body.is_whole = true;
            exchange.wait = Some(Wait::Body);
            return Ok(None);
        }
        if exchange.body.has_begun && !exchange.body.is_whole {
            return Err(Error::runtime("cannot call body() after body has been streamed"));
        }
        let serial = match &exchange.buffer {
            Some(buffer) => buffer.serial,
            None if !always => return Ok(Some(Value::Nil)),
            None if exchange.is_head_sent => return Err(Error::runtime(OUT_OF_SCOPE)),
            None => exchange.give_buffer(Vec::new()),
        };
        drop(exchange);
        let body = lua.create_userdata(Body(self.clone(), serial))?;
        Ok(Some(Value::UserData(body)))
    }

    /// `trailers()`: as [`Handle::body`].
    fn trailers(&self, lua: &Lua) -> mlua::Result<Option<Value>> {
        let mut exchange = self.get_waiting(lua, "trailers")?;
        not_a_tunnel(&exchange, "trailers")?;
        if exchange.trailers.is_some() {
            drop(exchange);
            let trailers = Headers(self.clone(), Part::Trailers);
            return Ok(Some(Value::UserData(lua.create_userdata(trailers)?)));
        }
        if exchange.body.has_ended {
            return Ok(Some(Value::Nil));
        }
        exchange.wait = Some(Wait::Trailers);
        Ok(None)
    }

    /// One step of `bodyChunks()`: whether the script has to wait for a piece.
    fn next_chunk(&self, lua: &Lua) -> mlua::Result<bool> {
        let mut exchange = self.get_waiting(lua, "bodyChunks")?;
        if exchange.body.has_ended {
            return Ok(false);
        }
        exchange.wait = Some(Wait::Chunk);
        Ok(true)
    }

    /// `httpCall()`: whether the script waits for the answer.
    fn call(&self, lua: &Lua, arguments: &[Value]) -> mlua::Result<bool> {
        let call = call::read(arguments)?;
        let mut exchange = self.get_waiting(lua, "httpCall")?;
        if !exchange.facts.as_ref().is_some_and(|facts| facts.knows_cluster(&call.cluster)) {
            return Err(Error::runtime("http call cluster invalid. Must be configured"));
        }
        if !call.is_asynchronous {
            exchange.wait = Some(Wait::Call(Box::new(call)));
            return Ok(true);
        }
        if exchange.calls.len() >= CALLS_MAX {
            return Err(Error::runtime("too many asynchronous calls"));
        }
        exchange.calls.push(call);
        Ok(false)
    }

    fn respond(&self, headers: &Table, body: Option<LuaString>) -> mlua::Result<()> {
        let mut exchange = self.get_mut()?;
        if exchange.is_head_sent {
            let message = "respond() cannot be called if headers have been continued";
            return Err(Error::runtime(message));
        }
        if exchange.side == Side::Response {
            return Err(Error::runtime("respond() is only valid in the request flow"));
        }
        let response = response(headers, body)?;
        exchange.response = Some(response);
        Ok(())
    }
}

fn not_a_tunnel(exchange: &Exchange, method: &str) -> mlua::Result<()> {
    if exchange.body.is_tunnel {
        let message = format!("{method}() is not for a connection that changes its protocol");
        return Err(Error::runtime(message));
    }
    Ok(())
}

/// What the Lua half of the methods that wait calls.
pub(crate) fn waiting(lua: &Lua, host: &Table) -> mlua::Result<()> {
    let body = |lua: &Lua, (this, always): (UserDataRef<Handle>, Variadic<Value>)| {
        let always = match always.first() {
            None => false,
            Some(Value::Boolean(flag)) => *flag,
            Some(_) => return Err(Error::runtime("body() takes a boolean")),
        };
        let body = this.body(lua, always)?;
        Ok((body.is_some(), body))
    };
    host.set("body", lua.create_function(body)?)?;
    let trailers = |lua: &Lua, this: UserDataRef<Handle>| {
        let trailers = this.trailers(lua)?;
        Ok((trailers.is_some(), trailers))
    };
    host.set("trailers", lua.create_function(trailers)?)?;
    let chunks = |_: &Lua, this: UserDataRef<Handle>| {
        let exchange = this.get()?;
        not_a_tunnel(&exchange, "bodyChunks")?;
        if exchange.body.has_begun {
            let message = "cannot call bodyChunks after body processing has begun";
            return Err(Error::runtime(message));
        }
        Ok(())
    };
    host.set("chunks", lua.create_function(chunks)?)?;
    let next_chunk = |lua: &Lua, this: UserDataRef<Handle>| this.next_chunk(lua);
    host.set("next_chunk", lua.create_function(next_chunk)?)?;
    let call = |lua: &Lua, (this, arguments): (UserDataRef<Handle>, Variadic<Value>)| {
        this.call(lua, &arguments)
    };
    host.set("call", lua.create_function(call)?)?;
    let respond =
        |_: &Lua, (this, headers, body): (UserDataRef<Handle>, Table, Option<LuaString>)| {
            this.respond(&headers, body)
        };
    host.set("respond", lua.create_function(respond)?)
}

impl UserData for Handle {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("headers", |_, this, ()| {
            this.get()?;
            Ok(Headers(this.clone(), Part::Head))
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
        methods.add_method("connectionStreamInfo", |_, this, ()| Ok(ConnectionInfo(this.clone())));
        for (name, of) in [("metadata", FieldsOf::Metadata), ("filterContext", FieldsOf::Context)] {
            methods.add_method(name, move |lua, this, ()| fields(lua, this, of));
        }
        for (name, of) in [("route", FieldsOf::Route), ("virtualHost", FieldsOf::VirtualHost)] {
            methods.add_method(name, move |_, this, ()| {
                this.get()?;
                Ok(Place(this.clone(), of))
            });
        }
        methods.add_method("clearRouteCache", |_, this, ()| {
            this.get_mut()?.effects.clears_route = true;
            Ok(())
        });
        methods.add_method(
            "setUpstreamOverrideHost",
            |_, this, (host, strict): (LuaString, Option<bool>)| {
                let host = override_host(&host.to_string_lossy())?;
                let mut exchange = this.get_mut()?;
                exchange.effects.override_host = Some((host, strict.unwrap_or(false)));
                Ok(())
            },
        );
        add_tools(methods);
        methods.add_method("stats", |_, _, ()| -> mlua::Result<()> {
            Err(Error::runtime("stats() is not supported"))
        });
        // Whatever is not above is written in Lua, or does not exist.
        methods.add_meta_method(MetaMethod::Index, |lua, _, key: Value| {
            lua.named_registry_value::<Table>(WAITING)?.raw_get::<Value>(key)
        });
    }
}

/// What needs nothing of the stream.
fn add_tools<M: UserDataMethods<Handle>>(methods: &mut M) {
    methods.add_method("importPublicKey", |_, this, (der, length): (LuaString, f64)| {
        let der = prefix(&der, length)?;
        let mut exchange = this.get_mut()?;
        let is_key = crate::keys::is_public_key(&der);
        if is_key && !exchange.keys.contains(&der) {
            if exchange.keys.len() >= KEYS_MAX {
                return Err(Error::runtime("too many public keys"));
            }
            exchange.keys.push(der.clone());
        }
        Ok(Key(this.clone(), is_key.then_some(der)))
    });
    methods.add_method("verifySignature", |lua, this, arguments: Variadic<Value>| {
        verify(lua, this, &arguments)
    });
    methods.add_method("base64Escape", |lua, _, text: LuaString| {
        lua.create_string(base64(&text.as_bytes()))
    });
    methods.add_method("base64Decode", |lua, _, text: LuaString| {
        unbase64(&text.as_bytes()).map(|bytes| lua.create_string(bytes)).transpose()
    });
    methods.add_method("timestamp", |_, _, resolution: Value| match unit(&resolution) {
        Some(Unit::Milliseconds) => Ok(now().as_millis() as f64),
        _ => Err(Error::runtime("timestamp format must be MILLISECOND.")),
    });
    methods.add_method("timestampString", |_, _, resolution: Value| match unit(&resolution) {
        Some(Unit::Milliseconds) => Ok(now().as_millis().to_string()),
        Some(Unit::Microseconds) => Ok(now().as_micros().to_string()),
        None => Err(Error::runtime("timestamp format must be MILLISECOND or MICROSECOND.")),
    });
}

/// An IP address, with a port or without.
fn override_host(host: &str) -> mlua::Result<String> {
    let is_address = host.parse::<IpAddr>().is_ok()
        || host.parse::<std::net::SocketAddr>().is_ok()
        || host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok();
    if is_address {
        Ok(host.to_owned())
    } else {
        Err(Error::runtime("host is not a valid IP address"))
    }
}

/// A response from the table of headers and the body that a script gives.
fn response(headers: &Table, body: Option<LuaString>) -> mlua::Result<Response> {
    let mut response = Response { status: 0, headers: Vec::new(), body: Vec::new() };
    for (name, value) in call::pairs(headers)? {
        if name == b":status" {
            let status = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok());
            let status = status.filter(|status| (200..600).contains(status));
            response.status =
                status.ok_or_else(|| Error::runtime(":status must be between 200-599"))?;
        } else if name.starts_with(b":") {
            return Err(Error::runtime("a response has no pseudo-header but :status"));
        } else {
            response.headers.push((name, value));
        }
    }
    if response.status == 0 {
        return Err(Error::runtime(":status must be between 200-599"));
    }
    if let Some(body) = body {
        if body.as_bytes().len() > RESPONSE_BODY_MAX {
            return Err(Error::runtime(format!("the body is larger than {RESPONSE_BODY_MAX}")));
        }
        response.body.extend_from_slice(&body.as_bytes());
    }
    Ok(response)
}

enum Unit {
    Milliseconds,
    Microseconds,
}

/// What a member of `EnvoyTimestampResolution` means; milliseconds where there is none.
fn unit(resolution: &Value) -> Option<Unit> {
    match resolution {
        Value::Nil => Some(Unit::Milliseconds),
        Value::String(text) if text.as_bytes() == b"MILLISECOND" => Some(Unit::Milliseconds),
        Value::String(text) if text.as_bytes() == b"MICROSECOND" => Some(Unit::Microseconds),
        _ => None,
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Base64 with padding (RFC 4648 §4).
fn base64(bytes: &[u8]) -> Vec<u8> {
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

/// Base64 with padding or without; white space counts for nothing. `None` when it is none.
fn unbase64(text: &[u8]) -> Option<Vec<u8>> {
    let mut digits: Vec<u8> =
        text.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let padding = digits.iter().rev().take_while(|byte| **byte == b'=').count();
    if padding > 2 || (padding > 0 && !digits.len().is_multiple_of(4)) {
        return None;
    }
    digits.truncate(digits.len() - padding);
    let mut out = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    for chunk in digits.chunks(4) {
        let mut word = 0u32;
        for byte in chunk {
            let value = DIGITS.iter().position(|digit| digit == byte)?;
            word = word << 6 | u32::try_from(value).ok()?;
        }
        word <<= 6 * (4 - chunk.len());
        let [_, bytes @ ..] = word.to_be_bytes();
        match chunk.len() {
            1 => return None,
            len => out.extend_from_slice(&bytes[..len - 1]),
        }
    }
    Some(out)
}
