//! Calls that a script makes to other hosts.

use std::time::Duration;

use mlua::{Error, IntoLuaMulti as _, Lua, LuaString, MultiValue, Table, Value};

use crate::values::{header_name, header_value};

/// Bytes that the body of a call may have.
const BODY_BYTES_MAX: usize = 4 << 20;

/// Headers that a call may have.
const HEADERS_MAX: usize = 200;

/// The argument that says how a call is made, counted from the cluster's name.
const OPTIONS: usize = 3;

/// A request that a script wants sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The cluster it goes to; there is one of this name.
    pub cluster: String,
    /// `:method`.
    pub method: Vec<u8>,
    /// `:path`.
    pub path: Vec<u8>,
    /// `:authority`.
    pub authority: Vec<u8>,
    /// The other headers, names in lower case, sorted by name.
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    /// The body, which may be empty.
    pub body: Vec<u8>,
    /// How long the answer may take; `None` leaves it to the proxy.
    pub timeout: Option<Duration>,
    /// Whether the service is told of our address in `x-forwarded-for`.
    pub sends_forwarded_for: bool,
    /// Whether headers that repeat come back as a table.
    pub(crate) keeps_repeated: bool,
    /// Whether the script does not wait for the answer.
    pub(crate) is_asynchronous: bool,
}

/// What came back of a [`Call`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// Names in lower case and values, in order, without pseudo-headers.
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    /// The body, which may be empty.
    pub body: Vec<u8>,
}

impl Answer {
    /// What a script gets when there was no answer, as from Envoy.
    #[must_use]
    pub fn failure() -> Self {
        Self { status: 503, headers: Vec::new(), body: b"upstream failure".to_vec() }
    }

    /// The table of headers and the body, as `httpCall()` returns them.
    pub(crate) fn to_lua(&self, lua: &Lua, keeps_repeated: bool) -> mlua::Result<MultiValue> {
        let table = lua.create_table()?;
        table.raw_set(":status", self.status.to_string())?;
        for (name, value) in &self.headers {
            let value = Value::String(lua.create_string(value)?);
            if !keeps_repeated {
                table.raw_set(lua.create_string(name)?, value)?;
                continue;
            }
            let name = lua.create_string(name)?;
            match table.raw_get::<Value>(&name)? {
                Value::Nil => table.raw_set(name, value)?,
                Value::Table(list) => list.raw_push(value)?,
                one => table.raw_set(name, lua.create_sequence_from([one, value])?)?,
            }
        }
        let body = match &self.body[..] {
            [] => Value::Nil,
            body => Value::String(lua.create_string(body)?),
        };
        (table, body).into_lua_multi(lua)
    }
}

/// Reads the arguments of `httpCall()`.
pub(crate) fn read(arguments: &[Value]) -> mlua::Result<Call> {
    let argument = |index: usize| arguments.get(index).unwrap_or(&Value::Nil);
    let Value::String(cluster) = argument(0) else {
        return Err(Error::runtime("httpCall() needs the name of a cluster"));
    };
    let Value::Table(headers) = argument(1) else {
        return Err(Error::runtime("httpCall() needs a table of headers"));
    };
    let body = match argument(2) {
        Value::Nil => Vec::new(),
        Value::String(text) => text.as_bytes().to_vec(),
        other => other.to_string()?.into_bytes(),
    };
    if body.len() > BODY_BYTES_MAX {
        return Err(Error::runtime("the body of an httpCall() is larger than 4 MiB"));
    }
    let mut call = Call {
        cluster: cluster.to_string_lossy(),
        method: Vec::new(),
        path: Vec::new(),
        authority: Vec::new(),
        headers: Vec::new(),
        body,
        timeout: None,
        sends_forwarded_for: true,
        keeps_repeated: false,
        is_asynchronous: false,
    };
    if let Value::Table(options) = argument(OPTIONS) {
        read_options(options, &mut call)?;
    } else {
        call.timeout = timeout(argument(OPTIONS))?;
        call.is_asynchronous = match arguments.get(OPTIONS + 1) {
            None => false,
            Some(Value::Boolean(flag)) => *flag,
            Some(_) => {
                let message = "http call asynchronous flag must be 'true', 'false', or empty";
                return Err(Error::runtime(message));
            }
        };
    }
    for (name, value) in pairs(headers)? {
        match &name[..] {
            b":method" => call.method = value,
            b":path" => call.path = value,
            b":authority" | b"host" => call.authority = value,
            b":scheme" => {}
            [b':', ..] => return Err(Error::runtime("the call has an unknown pseudo-header")),
            _ => call.headers.push((name, value)),
        }
    }
    if call.method.is_empty() || call.path.is_empty() || call.authority.is_empty() {
        let message = "http call headers must include ':path', ':method', and ':authority'";
        return Err(Error::runtime(message));
    }
    Ok(call)
}

fn read_options(options: &Table, call: &mut Call) -> mlua::Result<()> {
    for pair in options.pairs::<LuaString, Value>() {
        let (key, value) = pair?;
        // In Lua, all but nil and false is true.
        let flag = !matches!(value, Value::Nil | Value::Boolean(false));
        match &*key.as_bytes() {
            b"asynchronous" => call.is_asynchronous = flag,
            b"timeout_ms" => call.timeout = timeout(&value)?,
            b"return_duplicate_headers" => call.keeps_repeated = flag,
            b"send_xff" => call.sends_forwarded_for = flag,
            // There are no spans of calls here.
            b"trace_sampled" => {}
            _ => {
                let key = key.to_string_lossy();
                let message = format!("\"{key}\" is not valid key for httpCall() options");
                return Err(Error::runtime(message));
            }
        }
    }
    Ok(())
}

/// A number of milliseconds; zero is no limit of the script's.
fn timeout(value: &Value) -> mlua::Result<Option<Duration>> {
    let number = match value {
        Value::Integer(number) => *number as f64,
        Value::Number(number) => *number,
        Value::String(text) => text.to_string_lossy().parse().unwrap_or(f64::NAN),
        _ => f64::NAN,
    };
    if !number.is_finite() {
        return Err(Error::runtime("http call timeout must be a number"));
    }
    if number < 0.0 {
        return Err(Error::runtime("http call timeout must be >= 0"));
    }
    let limit = Duration::try_from_secs_f64(number.trunc() / 1000.0).unwrap_or(Duration::MAX);
    Ok(Some(limit).filter(|limit| !limit.is_zero()))
}

/// The headers of a table whose values are texts or lists of texts, sorted: a table has no order.
pub(crate) fn pairs(headers: &Table) -> mlua::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut all = Vec::new();
    for pair in headers.pairs::<LuaString, Value>() {
        let (name, value) = pair?;
        let name = header_name(&name)?;
        let values: Vec<Value> = match value {
            Value::Table(list) => list.sequence_values().collect::<mlua::Result<_>>()?,
            one => vec![one],
        };
        for value in values {
            let value = match &value {
                Value::String(text) => text.as_bytes().to_vec(),
                Value::Integer(_) | Value::Number(_) => value.to_string()?.into_bytes(),
                other => {
                    let name = other.type_name();
                    let message = format!("a header value is a {name}, not a string");
                    return Err(Error::runtime(message));
                }
            };
            header_value(&value)?;
            all.push((name.clone(), value));
        }
        if all.len() > HEADERS_MAX {
            return Err(Error::runtime("too many headers"));
        }
    }
    all.sort_by(|left, right| left.0.cmp(&right.0));
    Ok(all)
}
