//! Faults that only the data plane can see: access-log formats and scripts it cannot run.
//!
//! In:    a compiled runtime and the one before.
//! Out:   one [`Fault`] per listener part that cannot serve.
//! Never: looks at a listener that has not changed.

use std::sync::Arc;

use sluis_envoy::Kind;
use sluis_rules::{
    AccessLog, Fault, HttpFilterKind, HttpManager, Listener, LuaFilter, Network, Runtime, Source,
};
use sluis_script::{Host, Script};

use crate::{access_log::Logs, config::Settings};

/// The longest script that is read from a file.
const SCRIPT_BYTES_MAX: u64 = 1 << 20;

/// Looks at the listeners that `before` has not.
pub(super) fn unusable(runtime: &Runtime, before: &Runtime, settings: &Settings) -> Vec<Fault> {
    let is_new = |name: &Arc<str>, listener: &Arc<Listener>| {
        !before.listeners.get(name).is_some_and(|known| Arc::ptr_eq(known, listener))
    };
    let new = runtime.listeners.iter().filter(|(name, listener)| is_new(name, listener));
    new.flat_map(|(_, listener)| look(listener, settings)).collect()
}

fn look(listener: &Listener, settings: &Settings) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut fault = |field: String, message: String| {
        faults.push(Fault {
            kind: Kind::Listener,
            name: listener.name.to_string(),
            field,
            message,
        });
    };
    let log_fault = |logs: &[AccessLog]| Logs::compile(logs).err().map(|error| error.to_string());
    if let Some(message) = log_fault(&listener.access_logs) {
        fault("access_log".to_owned(), message);
    }
    for chain in listener.chains.iter().chain(&listener.default_chain) {
        let at = format!("filter_chains[{:?}]", &*chain.name);
        let logs = match &chain.network {
            Network::Tcp(proxy) => &proxy.access_logs,
            Network::Http(manager) => {
                script_faults(manager, settings).into_iter().for_each(|(name, message)| {
                    fault(format!("{at}.http_filters[{name:?}]"), message);
                });
                &manager.access_logs
            }
        };
        if let Some(message) = log_fault(logs) {
            fault(format!("{at}.access_log"), message);
        }
    }
    faults
}

/// Loads each script once, as each worker will.
fn script_faults(manager: &HttpManager, settings: &Settings) -> Vec<(Arc<str>, String)> {
    let scripts = manager.filters.iter().filter_map(|filter| match &filter.kind {
        HttpFilterKind::Lua(lua) => Some((&filter.name, lua)),
        _ => None,
    });
    let sources = scripts.flat_map(|(name, lua)| {
        let all = lua.source.iter().chain(lua.sources.values());
        all.map(move |source| (name, lua, source))
    });
    let fault = |(name, lua, source): (&Arc<str>, &Arc<LuaFilter>, &Source)| {
        Some((Arc::clone(name), load(name, (lua, source), settings).err()?))
    };
    sources.filter_map(fault).collect()
}

fn load(
    name: &str,
    (lua, source): (&LuaFilter, &Source),
    settings: &Settings,
) -> Result<(), String> {
    let source = match source {
        Source::Text(text) => text.to_string(),
        Source::Environment(variable) => settings
            .environment
            .get(&**variable)
            .cloned()
            .ok_or_else(|| format!("the variable {variable} is not set"))?,
        Source::File(path) => read(path).map_err(|error| format!("{path}: {error}"))?,
    };
    let own = settings.lua_path.iter().map(|root| root.join("?.lua").display().to_string());
    let host = Host {
        package_paths: own.chain(lua.package_paths.iter().map(ToString::to_string)).collect(),
        environment: Arc::clone(&settings.environment),
    };
    Script::compile(&source, name, &host).map(drop).map_err(|error| error.to_string())
}

fn read(path: &str) -> std::io::Result<String> {
    if std::fs::metadata(path)?.len() > SCRIPT_BYTES_MAX {
        return Err(std::io::ErrorKind::FileTooLarge.into());
    }
    std::fs::read_to_string(path)
}
