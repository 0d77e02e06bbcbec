//! The object of a body, or of a piece of one.

use mlua::{Error, LuaString, UserData, UserDataMethods};

use crate::{exchange::OUT_OF_SCOPE, handle::Handle};

/// Bytes that a script may put in the place of a body or a piece: with what else a script holds it
/// must fit into the proxy's memory.
const BYTES_MAX: usize = 16 << 20;

/// `handle:body()`, and what `handle:bodyChunks()` yields. It is of one buffer; a later buffer of the
/// same run does not answer in its place.
pub(crate) struct Body(pub(crate) Handle, pub(crate) u64);

impl UserData for Body {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("length", |_, this, ()| {
            let exchange = this.0.get()?;
            let buffer = exchange.buffer.as_ref().filter(|buffer| buffer.serial == this.1);
            Ok(buffer.ok_or_else(|| Error::runtime(OUT_OF_SCOPE))?.bytes.len())
        });
        methods.add_method("getBytes", |lua, this, (index, length): (i64, i64)| {
            let exchange = this.0.get()?;
            let buffer = exchange.buffer.as_ref().filter(|buffer| buffer.serial == this.1);
            let bytes = &buffer.ok_or_else(|| Error::runtime(OUT_OF_SCOPE))?.bytes;
            let start = usize::try_from(index).ok();
            let end = start.zip(usize::try_from(length).ok()).and_then(|(a, b)| a.checked_add(b));
            let range = start.zip(end).and_then(|(start, end)| bytes.get(start..end));
            let message = "index/length must be >= 0 and (index + length) must be <= buffer size";
            lua.create_string(range.ok_or_else(|| Error::runtime(message))?)
        });
        methods.add_method("setBytes", |_, this, bytes: LuaString| {
            let bytes = bytes.as_bytes();
            if bytes.len() > BYTES_MAX {
                return Err(Error::runtime("a body is set to more than 16 MiB"));
            }
            let mut exchange = this.0.get_mut()?;
            let is_head_sent = exchange.is_head_sent;
            let buffer = exchange.buffer.as_mut().filter(|buffer| buffer.serial == this.1);
            let buffer = buffer.ok_or_else(|| Error::runtime(OUT_OF_SCOPE))?;
            buffer.bytes.clear();
            buffer.bytes.extend_from_slice(&bytes);
            buffer.is_changed = true;
            // As in Envoy the head says so at once; the proxy sets the length itself.
            if !is_head_sent {
                exchange.head.replace(b"content-length", bytes.len().to_string().as_bytes());
            }
            Ok(bytes.len())
        });
    }
}
