//! Values in Lua and out of it: of metadata, and what may be a header.

use mlua::{Error, Lua, LuaString, Table, Value};
use sluis_rules::{MetaFields, MetaValue};

/// How deep a value from a script may be.
const DEPTH_MAX: usize = 32;

/// Values that one value from a script may hold: metadata is copied into logs.
const NODES_MAX: usize = 1000;

/// A value as a script sees it.
pub(crate) fn to_lua(lua: &Lua, value: &MetaValue) -> mlua::Result<Value> {
    Ok(match value {
        MetaValue::Null => Value::Nil,
        MetaValue::Bool(flag) => Value::Boolean(*flag),
        MetaValue::Number(number) => Value::Number(*number),
        MetaValue::Text(text) => Value::String(lua.create_string(text.as_bytes())?),
        MetaValue::List(list) => {
            let table = lua.create_table()?;
            for (index, value) in list.iter().enumerate() {
                table.raw_set(index + 1, to_lua(lua, value)?)?;
            }
            Value::Table(table)
        }
        MetaValue::Fields(fields) => Value::Table(table(lua, fields)?),
    })
}

/// Fields as a table.
pub(crate) fn table(lua: &Lua, fields: &MetaFields) -> mlua::Result<Table> {
    let table = lua.create_table()?;
    for (name, value) in fields {
        table.raw_set(lua.create_string(name.as_bytes())?, to_lua(lua, value)?)?;
    }
    Ok(table)
}

/// A value that a script gives. Consecutive numbers from 1 make a list, as in Envoy.
pub(crate) fn of_lua(value: &Value) -> mlua::Result<MetaValue> {
    read(value, 0, &mut 0)
}

fn read(value: &Value, depth: usize, nodes: &mut usize) -> mlua::Result<MetaValue> {
    *nodes += 1;
    if depth > DEPTH_MAX || *nodes > NODES_MAX {
        return Err(Error::runtime("the value is too large for metadata"));
    }
    Ok(match value {
        Value::Nil => MetaValue::Null,
        Value::Boolean(flag) => MetaValue::Bool(*flag),
        Value::Integer(number) => MetaValue::Number(*number as f64),
        Value::Number(number) => MetaValue::Number(*number),
        Value::String(text) => MetaValue::text(&text.to_string_lossy()),
        Value::Table(table) => match list_len(table)? {
            0 => MetaValue::fields(fields(table, depth, nodes)?),
            len => {
                let mut list = Vec::new();
                for index in 1..=len {
                    list.push(read(&table.raw_get::<Value>(index)?, depth + 1, nodes)?);
                }
                MetaValue::List(list)
            }
        },
        other => {
            let name = other.type_name();
            return Err(Error::runtime(format!("unexpected type '{name}' in dynamicMetadata")));
        }
    })
}

fn fields(table: &Table, depth: usize, nodes: &mut usize) -> mlua::Result<MetaFields> {
    let mut fields = MetaFields::new();
    for pair in table.pairs::<Value, Value>() {
        let (key, value) = pair?;
        let Value::String(key) = key else {
            let name = key.type_name();
            return Err(Error::runtime(format!(
                "unexpected type {name} in table key (only string keys are supported)"
            )));
        };
        fields.insert(key.to_string_lossy().as_str().into(), read(&value, depth + 1, nodes)?);
    }
    Ok(fields)
}

/// The length of a table that is a list; zero for any other.
fn list_len(table: &Table) -> mlua::Result<i64> {
    let mut longest = 0;
    for pair in table.pairs::<Value, Value>() {
        match pair?.0 {
            Value::Integer(index @ 1..) => longest = longest.max(index),
            Value::Number(index) if index >= 1.0 && index.fract() == 0.0 && index < 1e9 => {
                longest = longest.max(index as i64);
            }
            _ => return Ok(0),
        }
    }
    Ok(longest)
}

pub(crate) fn lower(name: &LuaString) -> Vec<u8> {
    name.as_bytes().to_ascii_lowercase()
}

/// A header's name in lower case: a token (RFC 9110 §5.6.2), or a pseudo-header.
pub(crate) fn header_name(name: &LuaString) -> mlua::Result<Vec<u8>> {
    let lower = lower(name);
    let token = lower.strip_prefix(b":").unwrap_or(&lower);
    let valid = !token.is_empty()
        && token.iter().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b));
    if valid { Ok(lower) } else { Err(Error::runtime("not a header name")) }
}

/// Refuses what would end a header line: a script may take values from the client.
pub(crate) fn header_value(value: &[u8]) -> mlua::Result<()> {
    if value.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n')) {
        return Err(Error::runtime("a header value holds a line break or NUL"));
    }
    Ok(())
}
