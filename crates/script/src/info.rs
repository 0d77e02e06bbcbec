//! The objects that tell of the stream: its route, its metadata, its connection, TLS.

use mlua::{
    AnyUserData, Error, Function, Lua, LuaString, MetaMethod, UserData, UserDataMethods, Value,
    Variadic,
};
use sluis_rules::{MetaFields, Metadata};

use crate::{
    AddressOf, Facts, FieldsOf, Tls, TlsList, TlsText,
    handle::Handle,
    values::{of_lua, table, to_lua},
};

/// `handle:streamInfo()`.
pub(crate) struct StreamInfo(pub(crate) Handle);

/// `handle:connectionStreamInfo()`.
pub(crate) struct ConnectionInfo(pub(crate) Handle);

/// `handle:route()` and `handle:virtualHost()`.
pub(crate) struct Place(pub(crate) Handle, pub(crate) FieldsOf);

/// `handle:connection()`.
pub(crate) struct Connection(pub(crate) Handle);

/// `streamInfo():dynamicMetadata()`, of the stream or of its connection.
struct Dynamic(Handle, Of);

/// `streamInfo():filterState()`.
struct FilterState(Handle);

/// `connection():ssl()`.
struct Ssl(Handle);

/// `ssl():parsedSubjectPeerCertificate()`.
struct ParsedName {
    common: String,
    organizations: Vec<String>,
}

#[derive(Clone, Copy)]
enum Of {
    Stream,
    Connection,
}

/// Asks the facts.
fn ask<T>(handle: &Handle, ask: impl FnOnce(&dyn Facts) -> T) -> mlua::Result<T> {
    let exchange = handle.get()?;
    let facts = exchange.facts.as_deref();
    Ok(ask(facts.ok_or_else(|| Error::runtime(crate::exchange::OUT_OF_SCOPE))?))
}

/// The object of what the configuration says at a place: an empty one where it says nothing.
pub(crate) fn fields(lua: &Lua, handle: &Handle, of: FieldsOf) -> mlua::Result<AnyUserData> {
    let fields = ask(handle, |facts| facts.fields(of).cloned())?;
    lua.create_userdata(Fields(handle.clone(), fields.unwrap_or_default()))
}

/// `handle:metadata()` and what is like it.
struct Fields(Handle, MetaFields);

/// A loop's three values over pairs that are known.
fn walk(lua: &Lua, pairs: Vec<(Value, Value)>) -> mlua::Result<(Function, Value, Value)> {
    let mut pairs = pairs.into_iter();
    let next = lua.create_function_mut(move |_, _: Variadic<Value>| {
        Ok(pairs.next().unwrap_or((Value::Nil, Value::Nil)))
    })?;
    Ok((next, Value::Nil, Value::Nil))
}

impl UserData for Fields {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("get", |lua, this, key: LuaString| {
            this.0.get()?;
            match this.1.get(key.to_string_lossy().as_str()) {
                Some(value) => to_lua(lua, value),
                None => Ok(Value::Nil),
            }
        });
        // As documented for the filter's context: `context["key"]`.
        methods.add_meta_method(MetaMethod::Index, |lua, this, key: LuaString| {
            this.0.get()?;
            match this.1.get(key.to_string_lossy().as_str()) {
                Some(value) => to_lua(lua, value),
                None => Ok(Value::Nil),
            }
        });
        methods.add_meta_method(MetaMethod::Pairs, |lua, this, ()| {
            this.0.get()?;
            let pairs = this.1.iter().map(|(name, value)| {
                let name = Value::String(lua.create_string(name.as_bytes())?);
                Ok((name, to_lua(lua, value)?))
            });
            walk(lua, pairs.collect::<mlua::Result<_>>()?)
        });
    }
}

impl UserData for Place {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("metadata", |lua, this, ()| fields(lua, &this.0, this.1));
    }
}

impl UserData for StreamInfo {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("protocol", |_, this, ()| {
            ask(&this.0, |facts| facts.protocol().to_owned())
        });
        methods.add_method("routeName", |_, this, ()| {
            ask(&this.0, |facts| facts.route_name().to_owned())
        });
        // There are no virtual clusters here: they only name statistics.
        methods.add_method("virtualClusterName", |_, this, ()| {
            this.0.get()?;
            Ok("")
        });
        methods.add_method("requestedServerName", |_, this, ()| {
            ask(&this.0, |facts| facts.server_name().to_owned())
        });
        for (name, which) in [
            ("downstreamRemoteAddress", AddressOf::Remote),
            ("downstreamDirectRemoteAddress", AddressOf::DirectRemote),
            ("downstreamLocalAddress", AddressOf::Local),
            ("downstreamDirectLocalAddress", AddressOf::DirectLocal),
        ] {
            methods.add_method(name, move |_, this, ()| ask(&this.0, |facts| facts.address(which)));
        }
        methods.add_method("downstreamSslConnection", |_, this, ()| ssl(&this.0));
        methods.add_method("dynamicMetadata", |_, this, ()| {
            this.0.get()?;
            Ok(Dynamic(this.0.clone(), Of::Stream))
        });
        // No filter here keeps messages.
        methods.add_method("dynamicTypedMetadata", |_, this, _: LuaString| {
            this.0.get()?;
            Ok(Value::Nil)
        });
        methods.add_method("filterState", |_, this, ()| {
            this.0.get()?;
            Ok(FilterState(this.0.clone()))
        });
        methods.add_method("drainConnectionUponCompletion", |_, this, ()| {
            this.0.get_mut()?.effects.drains = true;
            Ok(())
        });
    }
}

impl UserData for ConnectionInfo {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("dynamicMetadata", |_, this, ()| {
            this.0.get()?;
            Ok(Dynamic(this.0.clone(), Of::Connection))
        });
        methods.add_method("dynamicTypedMetadata", |_, this, _: LuaString| {
            this.0.get()?;
            Ok(Value::Nil)
        });
    }
}

impl Dynamic {
    fn read<T>(&self, look: impl FnOnce(&Metadata) -> mlua::Result<T>) -> mlua::Result<T> {
        let exchange = self.0.get()?;
        let none = Metadata::default();
        look(match self.1 {
            Of::Stream => &exchange.metadata,
            Of::Connection => {
                let facts = exchange.facts.as_deref();
                facts.and_then(|facts| facts.connection_metadata()).unwrap_or(&none)
            }
        })
    }
}

impl UserData for Dynamic {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("get", |lua, this, name: LuaString| {
            this.read(|all| match all.namespace(&name.to_string_lossy()) {
                Some(fields) => Ok(Value::Table(table(lua, fields)?)),
                None => Ok(Value::Nil),
            })
        });
        methods.add_method("set", |_, this, (name, key, value): (LuaString, LuaString, Value)| {
            if matches!(this.1, Of::Connection) {
                return Err(Error::runtime("the connection's metadata cannot be set"));
            }
            let value = of_lua(&value)?;
            let mut exchange = this.0.get_mut()?;
            exchange.metadata.set(&name.to_string_lossy(), &key.to_string_lossy(), value);
            Ok(())
        });
        methods.add_meta_method(MetaMethod::Pairs, |lua, this, ()| {
            let pairs = this.read(|all| {
                let pairs = all.namespaces().map(|(name, fields)| {
                    let name = Value::String(lua.create_string(name.as_bytes())?);
                    Ok((name, Value::Table(table(lua, fields)?)))
                });
                pairs.collect::<mlua::Result<_>>()
            })?;
            walk(lua, pairs)
        });
    }
}

impl UserData for FilterState {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        // No filter here keeps objects.
        methods.add_method("get", |_, this, (_, _): (LuaString, Option<LuaString>)| {
            this.0.get()?;
            Ok(Value::Nil)
        });
    }
}

impl UserData for Connection {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("ssl", |_, this, ()| ssl(&this.0));
    }
}

impl Ssl {
    fn ask<T>(&self, look: impl FnOnce(&dyn Tls) -> T) -> mlua::Result<T> {
        let found = ask(&self.0, |facts| facts.tls().map(look))?;
        found.ok_or_else(|| Error::runtime(crate::exchange::OUT_OF_SCOPE))
    }
}

impl UserData for Ssl {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        for name in ["peerCertificatePresented", "peerCertificateValidated"] {
            // Certificates are verified in the handshake, or there is no connection.
            methods.add_method(name, |_, this, ()| this.ask(|tls| tls.has_peer()));
        }
        for (name, what) in [
            ("sha256PeerCertificateDigest", TlsText::Sha256PeerCertificateDigest),
            ("serialNumberPeerCertificate", TlsText::SerialNumberPeerCertificate),
            ("issuerPeerCertificate", TlsText::IssuerPeerCertificate),
            ("subjectPeerCertificate", TlsText::SubjectPeerCertificate),
            ("subjectLocalCertificate", TlsText::SubjectLocalCertificate),
            ("urlEncodedPemEncodedPeerCertificate", TlsText::UrlEncodedPemEncodedPeerCertificate),
            (
                "urlEncodedPemEncodedPeerCertificateChain",
                TlsText::UrlEncodedPemEncodedPeerCertificateChain,
            ),
            ("sessionId", TlsText::SessionId),
            ("ciphersuiteId", TlsText::CiphersuiteId),
            ("ciphersuiteString", TlsText::CiphersuiteString),
            ("tlsVersion", TlsText::TlsVersion),
        ] {
            methods.add_method(name, move |_, this, ()| this.ask(|tls| tls.text(what)));
        }
        for (name, what) in [
            ("uriSanLocalCertificate", TlsList::UriSanLocalCertificate),
            ("uriSanPeerCertificate", TlsList::UriSanPeerCertificate),
            ("dnsSansPeerCertificate", TlsList::DnsSansPeerCertificate),
            ("dnsSansLocalCertificate", TlsList::DnsSansLocalCertificate),
            ("oidsPeerCertificate", TlsList::OidsPeerCertificate),
            ("oidsLocalCertificate", TlsList::OidsLocalCertificate),
        ] {
            methods.add_method(name, move |lua, this, ()| {
                lua.create_sequence_from(this.ask(|tls| tls.list(what))?)
            });
        }
        methods
            .add_method("validFromPeerCertificate", |_, this, ()| this.ask(|tls| tls.validity().0));
        methods.add_method("expirationPeerCertificate", |_, this, ()| {
            this.ask(|tls| tls.validity().1)
        });
        methods.add_method("parsedSubjectPeerCertificate", |_, this, ()| {
            let found = this.ask(|tls| tls.parsed_subject())?;
            Ok(found.map(|(common, organizations)| ParsedName { common, organizations }))
        });
    }
}

impl UserData for ParsedName {
    fn add_methods<M: UserDataMethods<Self>>(methods: &mut M) {
        methods.add_method("commonName", |_, this, ()| Ok(this.common.clone()));
        methods.add_method("organizationName", |lua, this, ()| {
            lua.create_sequence_from(this.organizations.iter().map(String::as_str))
        });
    }
}

fn ssl(handle: &Handle) -> mlua::Result<Option<Ssl>> {
    let has_tls = ask(handle, |facts| facts.tls().is_some())?;
    Ok(has_tls.then(|| Ssl(handle.clone())))
}
