//! The HTTP filters before the router, statically dispatched.
//!
//! In:    heads on the desk, the route as far as it is known.
//! Out:   the heads, changed; or the answer that a filter wants sent instead.
//! Never: forwards what a filter failed on, or what a filter that cannot run should have seen.

mod cors;
mod ext_authz;
mod fault;
mod jwt;
mod lua;
mod mutation;
mod rate_limit;
mod rbac;

use std::{fs, io, sync::Arc};

use sluis_rules::{
    HealthCheckFilter, HttpFilter, HttpFilterKind, LuaFilter, Matched, MutationFilter, RouteAction,
    RouteTable, Source,
};
use sluis_script::{CompileError, Host, Script};
use tracing::error;

use super::{
    client::Client,
    decide::{Found, cluster_of, find},
    edge::Site,
    reply::Reply,
    respond::Unsent,
    state::Desk,
    trace::Trace,
};
use crate::{access_log::Flag, config::Config, stats::Counter, worker::Worker};
use ext_authz::Authz;
use fault::Fault;
use jwt::Jwt;
use lua::Lua;
use rate_limit::RateLimit;
use rbac::Rbac;

/// Longest script that is read from a file.
const SCRIPT_BYTES_MAX: u64 = 1024 * 1024;

/// Says which cluster answered a health check: that of the proxy itself.
const HEALTH_CHECKED: &[u8] = b"x-envoy-upstream-healthchecked-cluster";

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
    Cors,
    Fault(Box<Fault>),
    RateLimit(Box<RateLimit>),
    Mutation(Arc<MutationFilter>),
    HealthCheck(Arc<HealthCheckFilter>),
    Rbac(Box<Rbac>),
    Authz(Box<Authz>),
    Jwt(Box<Jwt>),
    /// It cannot run: every request that it should see is answered 500.
    Failed,
}

impl Filter {
    /// Makes a filter ready; `None` for the router, which is no filter here.
    pub(super) fn new(worker: &Worker, manager: &str, filter: &HttpFilter) -> Option<Self> {
        let kind = match &filter.kind {
            // It is asked when a connection is opened.
            HttpFilterKind::Router(_) | HttpFilterKind::Alpn(_) => return None,
            HttpFilterKind::Lua(settings) => lua(worker, &filter.name, settings),
            HttpFilterKind::Cors => Kind::Cors,
            HttpFilterKind::Fault(own) => Kind::Fault(Box::new(Fault::new(own))),
            HttpFilterKind::RateLimit(own) => Kind::RateLimit(Box::new(RateLimit::new(own))),
            HttpFilterKind::Mutation(own) => Kind::Mutation(Arc::clone(own)),
            HttpFilterKind::Rbac(own) => Kind::Rbac(Box::new(Rbac::new(worker, own, manager))),
            HttpFilterKind::Authz(own) => Kind::Authz(Box::new(Authz::new(own))),
            HttpFilterKind::HealthCheck(own) => Kind::HealthCheck(Arc::clone(own)),
            HttpFilterKind::Jwt(own) => Kind::Jwt(Box::new(Jwt::new(worker, own))),
        };
        Some(Self { name: Arc::clone(&filter.name), is_disabled: filter.disabled, kind })
    }

    fn is_off(&self, matched: Option<&Matched<'_>>) -> bool {
        match matched {
            Some(matched) => matched.is_off(&self.name, self.is_disabled),
            None => self.is_disabled,
        }
    }
}

fn lua(worker: &Worker, name: &Arc<str>, settings: &LuaFilter) -> Kind {
    match script(worker, name, settings) {
        Ok(script) => {
            let name = Arc::clone(name);
            Kind::Lua(Box::new(Lua::new(name, script, settings.clear_route_cache)))
        }
        Err(error) => {
            error!(filter = %name, %error, "filter cannot run: its requests are answered 500");
            Kind::Failed
        }
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

/// What filters remember of a request until its response.
#[derive(Debug, Default)]
pub(super) struct Marks {
    cors: cors::Mark,
    limited: rate_limit::Mark,
    suffering: Option<fault::Suffering>,
    authz: ext_authz::Mark,
    /// Cookies that keep the client at its endpoint.
    pub(super) cookies: Vec<String>,
}

/// Where filters run: the site, and the route as far as it is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stage<'s, 'c> {
    pub(super) site: Site<'s>,
    pub(super) matched: Option<&'s Matched<'c>>,
    pub(super) trace: &'s Trace<'c>,
}

/// Runs the filters on a request. Returns the route that it has then.
pub(super) async fn on_request<'c>(
    site: Site<'_>,
    table: Option<&'c RouteTable>,
    config: &'c Config,
    client: &mut impl Client,
    (desk, trace): (&mut Desk, &mut Trace<'c>),
) -> Result<Found<'c>, Box<Reply<'c>>> {
    let mut found = find(site, table, &desk.request, &trace.metadata);
    note(site, config, &found, desk, trace);
    for filter in &site.program.filters {
        let matched = found.as_ref().ok();
        if filter.is_off(matched) {
            continue;
        }
        let name = &*filter.name;
        let stage = Stage { site, matched, trace: &*trace };
        match &filter.kind {
            Kind::Lua(lua) => {
                if lua.on_request(stage, desk)? {
                    found = find(site, table, &desk.request, &trace.metadata);
                    note(site, config, &found, desk, trace);
                }
            }
            Kind::Cors => cors::on_request(name, stage, desk)?,
            Kind::Fault(fault) => {
                if let Some(delay) = fault.delay(name, stage, desk) {
                    trace.flags.set(Flag::DelayInjected);
                    tokio::time::sleep(delay).await;
                }
                fault.abort(name, Stage { site, matched, trace: &*trace }, desk)?;
            }
            Kind::RateLimit(limit) => limit.on_request(name, stage, desk)?,
            Kind::Mutation(own) => mutation::on_request(own, name, stage, desk)?,
            Kind::Rbac(rbac) => rbac.on_request(name, site, matched, desk, trace)?,
            Kind::Authz(authz) => {
                let who = (name, site);
                let clears =
                    authz.on_request(who, matched, config, client, (&mut *desk, &mut *trace));
                // Large, and rare among filters.
                if Box::pin(clears).await? {
                    found = find(site, table, &desk.request, &trace.metadata);
                    note(site, config, &found, desk, trace);
                }
            }
            Kind::HealthCheck(own) => {
                let facts = site.facts(&desk.request);
                if own.headers.iter().all(|header| header.matches(&facts)) {
                    let mut reply = Reply::new(200, "health_check_ok");
                    let cluster = config.settings.node_cluster.as_bytes().to_vec();
                    reply.fields = vec![(HEALTH_CHECKED.to_vec(), cluster)];
                    reply.matched = matched.copied();
                    return Err(reply.into());
                }
            }
            Kind::Jwt(jwt) => {
                if jwt.on_request(name, (site, matched), desk, trace).await? {
                    found = find(site, table, &desk.request, &trace.metadata);
                    note(site, config, &found, desk, trace);
                }
            }
            Kind::Failed => {
                site.worker.stats().inc(Counter::LuaErrors);
                return Err(Reply::new(500, "filter_cannot_run").plain().into());
            }
        }
    }
    Ok(found)
}

/// Says in the log which route was found, so that an answer of a filter has it too.
fn note<'c>(
    site: Site<'_>,
    config: &'c Config,
    found: &Found<'c>,
    desk: &Desk,
    trace: &mut Trace<'c>,
) {
    let Ok(matched) = found else { return };
    trace.route = Some(matched.route);
    if let RouteAction::Forward(forward) = &matched.route.action {
        let (name, _) = cluster_of(site, forward, &desk.request);
        trace.cluster = name.and_then(|name| config.backend(name)).map(|backend| &***backend);
    }
}

/// Runs the filters on a response, the last one first.
pub(super) fn on_response(stage: Stage<'_, '_>, desk: &mut Desk) -> Result<(), Unsent> {
    for filter in stage.site.program.filters.iter().rev() {
        if filter.is_off(stage.matched) {
            continue;
        }
        match &filter.kind {
            Kind::Lua(lua) => lua.on_response(stage, desk)?,
            Kind::Cors => cors::on_response(desk)?,
            Kind::Fault(_) | Kind::HealthCheck(_) | Kind::Rbac(_) | Kind::Jwt(_) => {}
            Kind::Authz(_) => Authz::on_response(desk)?,
            Kind::RateLimit(_) => RateLimit::on_response(stage, desk)?,
            Kind::Mutation(own) => mutation::on_response(own, &filter.name, stage, desk)?,
            Kind::Failed => return Err(Unsent::Fault),
        }
    }
    Ok(())
}
