//! The HTTP filters before the router, statically dispatched.
//!
//! In:    heads on the desk, the route as far as it is known.
//! Out:   the heads, changed; or the answer that a filter wants sent instead.
//! Never: forwards what a filter failed on, or what a filter that cannot run should have seen.

mod lua;

use std::{fs, io, sync::Arc};

use sluis_rules::{HttpFilter, HttpFilterKind, LuaFilter, Matched, Source};
use sluis_script::{CompileError, Host, Script};
use tracing::error;

use super::{edge::Site, reply::Reply, respond::Unsent, state::Desk};
use crate::{stats::Counter, worker::Worker};
use lua::Lua;

/// Longest script that is read from a file.
const SCRIPT_BYTES_MAX: u64 = 1024 * 1024;

/// Why a filter cannot run.
#[derive(Debug, thiserror::Error)]
enum FilterError {
    #[error("the script cannot be read from {path}: {source}")]
    Unreadable {
        path: Arc<str>,
        #[source]
        source: io::Error,
    },
    #[error("the script's variable {name} is not set")]
    Unset { name: Arc<str> },
    #[error(transparent)]
    Script(#[from] CompileError),
}

/// One filter, ready to run on this worker.
#[derive(Debug)]
pub(super) struct Filter {
    name: Arc<str>,
    is_disabled: bool,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Lua(Box<Lua>),
    /// It cannot run: every request that it should see is answered 500.
    Failed,
}

impl Filter {
    /// Makes a filter ready; `None` for the router, which is no filter here.
    pub(super) fn new(worker: &Worker, filter: &HttpFilter) -> Option<Self> {
        let HttpFilterKind::Lua(settings) = &filter.kind else { return None };
        let kind = match script(worker, &filter.name, settings) {
            Ok(script) => {
                let name = Arc::clone(&filter.name);
                Kind::Lua(Box::new(Lua::new(name, script, settings.clear_route_cache)))
            }
            Err(error) => {
                error!(filter = %filter.name, %error, "filter cannot run: its requests are answered 500");
                Kind::Failed
            }
        };
        Some(Self { name: Arc::clone(&filter.name), is_disabled: filter.disabled, kind })
    }

    fn is_off(&self, matched: Option<&Matched<'_>>) -> bool {
        // Nothing switches a filter on that is off: such overrides are refused when compiled.
        self.is_disabled || matched.is_some_and(|matched| matched.disables(&self.name))
    }
}

fn script(worker: &Worker, name: &str, settings: &LuaFilter) -> Result<Script, FilterError> {
    let config = worker.config();
    let own = config.settings.lua_path.iter().map(|path| format!("{}/?.lua", path.display()));
    let named = settings.package_paths.iter().map(ToString::to_string);
    let host = Host {
        package_paths: named.chain(own).collect(),
        environment: Arc::clone(&config.settings.environment),
    };
    let source = match &settings.source {
        Source::Text(text) => text.to_string(),
        Source::File(path) => read(path)
            .map_err(|source| FilterError::Unreadable { path: Arc::clone(path), source })?,
        Source::Environment(variable) => config
            .settings
            .environment
            .get(&**variable)
            .cloned()
            .ok_or_else(|| FilterError::Unset { name: Arc::clone(variable) })?,
    };
    Ok(Script::compile(&source, name, &host)?)
}

fn read(path: &str) -> io::Result<String> {
    if fs::metadata(path)?.len() > SCRIPT_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "longer than a script may be"));
    }
    fs::read_to_string(path)
}

/// Where filters run: the site, and the route as far as it is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stage<'s, 'c> {
    pub(super) site: Site<'s>,
    pub(super) matched: Option<&'s Matched<'c>>,
}

/// Runs the filters on a request. True when the route must be chosen anew.
pub(super) fn on_request<'c>(
    stage: Stage<'_, '_>,
    desk: &mut Desk,
) -> Result<bool, Box<Reply<'c>>> {
    let mut changed = false;
    for filter in &stage.site.program.filters {
        if filter.is_off(stage.matched) {
            continue;
        }
        match &filter.kind {
            Kind::Lua(lua) => changed |= lua.on_request(stage, desk)?,
            Kind::Failed => {
                stage.site.worker.stats().inc(Counter::LuaErrors);
                return Err(Reply::new(500, "filter_cannot_run").plain().into());
            }
        }
    }
    Ok(changed)
}

/// Runs the filters on a response, the last one first.
pub(super) fn on_response(stage: Stage<'_, '_>, desk: &mut Desk) -> Result<(), Unsent> {
    for filter in stage.site.program.filters.iter().rev() {
        if filter.is_off(stage.matched) {
            continue;
        }
        match &filter.kind {
            Kind::Lua(lua) => lua.on_response(stage, desk)?,
            Kind::Failed => return Err(Unsent::Fault),
        }
    }
    Ok(())
}
