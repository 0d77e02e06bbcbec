//! The object of headers and trailers.

use mlua::{Error, LuaString, MetaMethod, UserData, UserDataMethods, Value, Variadic};

use crate::{
    Side,
    exchange::{OUT_OF_SCOPE, Part},
    handle::Handle,
    list::HeaderList,
    values::{header_name, header_value, lower},
};

/// `handle:headers()` and `handle:trailers()`.
pub(crate) struct Headers(pub(crate) Handle, pub(crate) Part);

impl Headers {
    /// Reads the list.
    fn read<T>(&self, look: impl FnOnce(&HeaderList) -> mlua::Result<T>) -> mlua::Result<T> {
        let exchange = self.0.get()?;
        look(exchange.list(self.1).ok_or_else(|| Error::runtime(OUT_OF_SCOPE))?)
    }
}

impl UserData for Headers {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("get", |lua, this, name: LuaString| {
            let name = lower(&name);
            this.read(|list| {
                let mut values = list.values(&name);
                let Some(first) = values.next() else { return Ok(None) };
                let Some(second) = values.next() else { return lua.create_string(first).map(Some) };
                // Several headers of one name are one, joined by commas (RFC 9110 §5.3).
                let all: Vec<&[u8]> = [first, second].into_iter().chain(values).collect();
                lua.create_string(all.join(&b","[..])).map(Some)
            })
        });
        methods.add_method("getAtIndex", |lua, this, (name, index): (LuaString, i64)| {
            let Ok(index) = usize::try_from(index) else { return Ok(None) };
            let name = lower(&name);
            this.read(|list| {
                list.values(&name).nth(index).map(|value| lua.create_string(value)).transpose()
            })
        });
        methods.add_method("getNumValues", |_, this, name: LuaString| {
            this.read(|list| Ok(list.values(&lower(&name)).count()))
        });
        methods.add_method("add", |_, this, (name, value): (LuaString, LuaString)| {
            let name = header_name(&name)?;
            if name.starts_with(b":") {
                return Err(Error::runtime("a pseudo-header can only be replaced"));
            }
            let value = value.as_bytes();
            header_value(&value)?;
            this.0.get_mut()?.add(this.1, &name, &value).map_err(Error::runtime)
        });
        methods.add_method("replace", |_, this, (name, value): (LuaString, LuaString)| {
            let name = header_name(&name)?;
            if name.starts_with(b":") && this.1 == Part::Trailers {
                return Err(Error::runtime("trailers have no pseudo-headers"));
            }
            let value = value.as_bytes();
            header_value(&value)?;
            this.0.get_mut()?.replace(this.1, &name, &value).map_err(Error::runtime)
        });
        methods.add_method("remove", |_, this, name: LuaString| {
            let name = header_name(&name)?;
            if name.starts_with(b":") {
                return Err(Error::runtime("a pseudo-header cannot be removed"));
            }
            this.0.get_mut()?.remove(this.1, &name).map_err(Error::runtime)
        });
        methods.add_method("setHttp1ReasonPhrase", |_, this, phrase: LuaString| {
            let mut exchange = this.0.get_mut()?;
            let phrase = phrase.as_bytes();
            header_value(&phrase)?;
            // As in Envoy: nothing happens to anything but the head of a response.
            if this.1 == Part::Head && exchange.side == Side::Response {
                exchange.set_reason(&phrase).map_err(Error::runtime)?;
            }
            Ok(())
        });
        methods.add_meta_method(MetaMethod::Pairs, |lua, this, ()| {
            // Over a copy: changing headers on the way is no fault.
            let all: Vec<(Vec<u8>, Vec<u8>)> = this.read(|list| {
                Ok(list.all().map(|(name, value)| (name.to_vec(), value.to_vec())).collect())
            })?;
            let mut all = all.into_iter();
            let next = lua.create_function_mut(move |lua, _: Variadic<Value>| {
                let Some((name, value)) = all.next() else { return Ok((None, None)) };
                Ok((Some(lua.create_string(name)?), Some(lua.create_string(value)?)))
            })?;
            Ok((next, Value::Nil, Value::Nil))
        });
    }
}
