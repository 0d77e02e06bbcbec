//! The objects that a script sees, by the names of Envoy's Lua filter.
//!
//! In:    calls of the script.
//! Out:   reads and changes of the head that is lent at the moment.
//! Never: answers from a head of an earlier call, or pretends to carry out what it does not.

use std::{cell::RefCell, rc::Rc, time::SystemTime};

use mlua::{
    AnyUserData, Error, Function, Lua, LuaString, MetaMethod, Result, Table, UserData,
    UserDataMethods, Value, Variadic,
};

use crate::{LogLevel, Respond, Stream};

/// Where the head lies while a script works on it.
pub(crate) type Slot<S> = Rc<RefCell<Lent<S>>>;

/// The head that is lent, and the answer that the script gave.
pub(crate) struct Lent<S> {
    stream: Option<S>,
    respond: Option<Respond>,
}

impl<S> Default for Lent<S> {
    fn default() -> Self {
        Self { stream: None, respond: None }
    }
}

impl<S> Lent<S> {
    pub(crate) fn lend(&mut self, stream: S) {
        *self = Self { stream: Some(stream), respond: None };
    }

    pub(crate) fn take_back(&mut self) -> (S, Option<Respond>) {
        let stream = self.stream.take().expect("a head is lent for the whole call");
        (stream, self.respond.take())
    }

    pub(crate) fn is_answered(&self) -> bool {
        self.respond.is_some()
    }
}

/// `request_handle` or `response_handle`.
struct Handle<S> {
    slot: Slot<S>,
    headers: AnyUserData,
    info: AnyUserData,
    respond: Function,
}

/// What `headers()` returns.
struct Headers<S>(Slot<S>);

/// What `streamInfo()` returns.
struct StreamInfo<S>(Slot<S>);

/// Log methods and their levels.
const LOGS: [(&str, LogLevel); 6] = [
    ("logTrace", LogLevel::Trace),
    ("logDebug", LogLevel::Debug),
    ("logInfo", LogLevel::Info),
    ("logWarn", LogLevel::Warn),
    ("logErr", LogLevel::Error),
    ("logCritical", LogLevel::Error),
];

/// Methods of Envoy's handle that are not carried out.
const MISSING: [&str; 16] = [
    "body",
    "bodyChunks",
    "trailers",
    "httpCall",
    "metadata",
    "connection",
    "connectionStreamInfo",
    "importPublicKey",
    "verifySignature",
    "setUpstreamOverrideHost",
    "clearRouteCache",
    "filterContext",
    "virtualHost",
    "route",
    "filterState",
    "timestampString",
];

/// Makes the handle that every call of the instance passes to the script.
pub(crate) fn handle<S: Stream>(lua: &Lua, slot: &Slot<S>) -> Result<AnyUserData> {
    let headers = lua.create_userdata(Headers(Rc::clone(slot)))?;
    let info = lua.create_userdata(StreamInfo(Rc::clone(slot)))?;
    let store = {
        let slot = Rc::clone(slot);
        lua.create_function(move |_, (headers, body): (Table, Option<LuaString>)| {
            let respond = read_respond(&headers, body)?;
            slot.borrow_mut().respond.get_or_insert(respond);
            Ok(())
        })?
    };
    // Lua's own yield, so that nothing of the script runs after its answer.
    let respond = lua
        .load(
            "local store, yield = ...
             return function(_, headers, body) store(headers, body) yield() end",
        )
        .set_name("=respond")
        .call((store, lua.globals().get::<Table>("coroutine")?.get::<Function>("yield")?))?;
    lua.create_userdata(Handle { slot: Rc::clone(slot), headers, info, respond })
}

impl<S: Stream> UserData for Handle<S> {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("headers", |_, this, ()| Ok(this.headers.clone()));
        methods.add_method("streamInfo", |_, this, ()| Ok(this.info.clone()));
        methods.add_meta_method(MetaMethod::Index, |_, this, name: LuaString| {
            Ok((name.as_bytes() == b"respond").then(|| this.respond.clone()))
        });
        for (name, level) in LOGS {
            methods.add_method(name, move |_, this, text: LuaString| {
                with_mut(&this.slot, |stream| {
                    stream.log(level, &text.to_string_lossy());
                    Ok(())
                })
            });
        }
        methods.add_method("timestamp", |_, _, _unit: Variadic<Value>| {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            Ok(now.as_millis() as f64)
        });
        methods.add_method("base64Escape", |_, _, text: LuaString| {
            Ok(base64(&text.as_bytes()))
        });
        for name in MISSING {
            methods.add_method(name, move |_, _, _: Variadic<Value>| -> Result<()> {
                Err(missing(name))
            });
        }
    }
}

impl<S: Stream> UserData for Headers<S> {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("get", |lua, this, name: LuaString| {
            with(&this.0, |stream| joined(lua, stream, &name.as_bytes()))
        });
        methods.add_method("getAtIndex", |lua, this, (name, index): (LuaString, usize)| {
            with(&this.0, |stream| {
                stream.header(&name.as_bytes(), index).map(|v| lua.create_string(v)).transpose()
            })
        });
        methods.add_method("getNumValues", |_, this, name: LuaString| {
            with(&this.0, |stream| {
                Ok((0..).take_while(|at| stream.header(&name.as_bytes(), *at).is_some()).count())
            })
        });
        methods.add_method("add", |_, this, (name, value): (LuaString, LuaString)| {
            with_mut(&this.0, |stream| {
                stream.add_header(&name.as_bytes(), &value.as_bytes()).map_err(Error::runtime)
            })
        });
        methods.add_method("replace", |_, this, (name, value): (LuaString, LuaString)| {
            with_mut(&this.0, |stream| {
                stream.replace_header(&name.as_bytes(), &value.as_bytes()).map_err(Error::runtime)
            })
        });
        methods.add_method("remove", |_, this, name: LuaString| {
            with_mut(&this.0, |stream| {
                stream.remove_header(&name.as_bytes()).map_err(Error::runtime)
            })
        });
        methods.add_method("setHttp1ReasonPhrase", |_, _, _: Variadic<Value>| -> Result<()> {
            Err(missing("setHttp1ReasonPhrase"))
        });
        methods.add_meta_method(MetaMethod::Pairs, |lua, this, ()| {
            let lines = with(&this.0, |stream| {
                let mut lines = Vec::new();
                stream.each_header(&mut |name, value| lines.push((name.to_vec(), value.to_vec())));
                Ok(lines)
            })?;
            let lines = RefCell::new(lines.into_iter());
            lua.create_function(move |lua, _: Variadic<Value>| {
                let Some((name, value)) = lines.borrow_mut().next() else {
                    return Ok((Value::Nil, Value::Nil));
                };
                let name = Value::String(lua.create_string(name)?);
                Ok((name, Value::String(lua.create_string(value)?)))
            })
        });
    }
}

impl<S: Stream> UserData for StreamInfo<S> {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("protocol", |_, this, ()| with(&this.0, |s| Ok(s.protocol())));
        methods.add_method("requestedServerName", |lua, this, ()| {
            with(&this.0, |stream| lua.create_string(stream.requested_server_name()))
        });
        for name in ["dynamicMetadata", "dynamicTypedMetadata", "downstreamSslConnection"] {
            methods.add_method(name, move |_, _, _: Variadic<Value>| -> Result<()> {
                Err(missing(name))
            });
        }
    }
}

/// All lines of a name, with commas between, as Envoy's `get` has them.
fn joined<S: Stream>(lua: &Lua, stream: &S, name: &[u8]) -> Result<Option<LuaString>> {
    let Some(first) = stream.header(name, 0) else { return Ok(None) };
    if stream.header(name, 1).is_none() {
        return lua.create_string(first).map(Some);
    }
    let lines: Vec<&[u8]> = (0..).map_while(|index| stream.header(name, index)).collect();
    lua.create_string(lines.join(&b","[..])).map(Some)
}

fn read_respond(headers: &Table, body: Option<LuaString>) -> Result<Respond> {
    let mut status = None;
    let mut lines = Vec::new();
    for pair in headers.pairs::<LuaString, Value>() {
        let (name, value) = pair?;
        let values: Vec<LuaString> = match value {
            Value::String(value) => vec![value],
            Value::Table(values) => values.sequence_values().collect::<Result<_>>()?,
            other => {
                let text = format!("respond: a header is a {}, not a string", other.type_name());
                return Err(Error::runtime(text));
            }
        };
        for value in values {
            if name.as_bytes() == b":status" {
                status = value.to_str()?.parse().ok().filter(|code| (200..600).contains(code));
            } else {
                lines.push((name.as_bytes().to_vec(), value.as_bytes().to_vec()));
            }
        }
    }
    let status = status.ok_or_else(|| Error::runtime("respond: :status must be 200-599"))?;
    let body = body.map(|body| body.as_bytes().to_vec()).unwrap_or_default();
    Ok(Respond { status, headers: lines, body })
}

fn with<S, T>(slot: &Slot<S>, read: impl FnOnce(&S) -> Result<T>) -> Result<T> {
    read(slot.borrow().stream.as_ref().ok_or_else(out_of_scope)?)
}

fn with_mut<S, T>(slot: &Slot<S>, change: impl FnOnce(&mut S) -> Result<T>) -> Result<T> {
    change(slot.borrow_mut().stream.as_mut().ok_or_else(out_of_scope)?)
}

fn out_of_scope() -> Error {
    Error::runtime("object used outside of proper scope")
}

fn missing(name: &str) -> Error {
    Error::runtime(format!("{name} is not supported by this proxy"))
}

/// RFC 4648 §4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte));
        let word = word << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            if digit <= chunk.len() {
                let index = word >> (18 - 6 * digit) & 63;
                text.push(char::from(DIGITS[index as usize]));
            } else {
                text.push('=');
            }
        }
    }
    text
}
