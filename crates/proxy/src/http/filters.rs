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
    HealthCheckFilter, HttpFilter, HttpFilterKind, HttpManager, Matched, MutationFilter,
    RouteAction, RouteTable,
};
use sluis_script::CompileError;

use super::{
    desk::Desk,
    incoming::Incoming,
    reply::{Reply, Unsent},
    routing::{Found, cluster_of, find},
    scene::Scene,
    strand::{Cut, Gathered},
    trace::Trace,
};
use crate::{access_log::Flag, config::Config, worker::Worker};
use ext_authz::Authz;
use fault::Fault;
use jwt::Jwt;
pub(super) use lua::Standing;
use lua::{Begun, Lua};
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
struct Filter {
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
}

/// The filters of one manager, in their order.
#[derive(Debug)]
pub(super) struct Chain {
    filters: Vec<Filter>,
    has_scripts: bool,
}

impl Filter {
    /// Makes a filter ready; `None` for the router, which is no filter here.
    fn new(worker: &Worker, manager: &str, filter: &HttpFilter) -> Option<Self> {
        let kind = match &filter.kind {
            // It is asked when a connection is opened.
            HttpFilterKind::Router(_) | HttpFilterKind::Alpn(_) => return None,
            HttpFilterKind::Lua(own) => Kind::Lua(Box::new(Lua::new(worker, &filter.name, own))),
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

fn read(path: &str) -> io::Result<String> {
    if fs::metadata(path)?.len() > SCRIPT_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "longer than a script may be"));
    }
    fs::read_to_string(path)
}

/// Where filters run: the scene, and the route as far as it is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stage<'s, 'c> {
    pub(super) scene: Scene<'s>,
    pub(super) matched: Option<&'s Matched<'c>>,
    pub(super) trace: &'s Trace<'c>,
}

impl Chain {
    /// Makes a manager's filters ready to run on this worker.
    pub(super) fn new(worker: &Worker, manager: &HttpManager) -> Self {
        let made = |filter| Filter::new(worker, &manager.stat_prefix, filter);
        let filters: Vec<Filter> = manager.filters.iter().filter_map(made).collect();
        let has_scripts = filters.iter().any(|filter| matches!(filter.kind, Kind::Lua(_)));
        Self { filters, has_scripts }
    }

    /// Whether a filter runs scripts.
    pub(super) fn has_scripts(&self) -> bool {
        self.has_scripts
    }

    /// Runs the filters on a request. Returns the route that it has then.
    pub(super) async fn on_request<'c>(
        &self,
        scene: Scene<'_>,
        table: Option<&'c RouteTable>,
        config: &'c Config,
        client: &mut impl Incoming,
        (desk, trace): (&mut Desk, &mut Trace<'c>),
    ) -> Result<Found<'c>, Box<Reply<'c>>> {
        let mut found = find(scene, table, &desk.request, &trace.metadata);
        note(scene, config, &found, desk, trace);
        for filter in &self.filters {
            let matched = found.as_ref().ok();
            if filter.is_off(matched) {
                continue;
            }
            let name = &*filter.name;
            let stage = Stage { scene, matched, trace: &*trace };
            match &filter.kind {
                Kind::Lua(lua) => {
                    let begun = lua.on_request(scene, matched, (&mut *desk, &mut *trace))?;
                    let clears = match begun {
                        Begun::Over(clears) => clears,
                        Begun::Waits(waiting) => {
                            let who = (scene, matched);
                            let brought =
                                lua.bring(who, client, *waiting, (&mut *desk, &mut *trace));
                            Box::pin(brought).await?
                        }
                    };
                    if clears {
                        found = find(scene, table, &desk.request, &trace.metadata);
                        note(scene, config, &found, desk, trace);
                    }
                }
                Kind::Cors => cors::on_request(name, stage, desk)?,
                Kind::Fault(fault) => {
                    if let Some(delay) = fault.delay(name, stage, desk) {
                        trace.flags.set(Flag::DelayInjected);
                        tokio::time::sleep(delay).await;
                    }
                    fault.abort(name, Stage { scene, matched, trace: &*trace }, desk)?;
                }
                Kind::RateLimit(limit) => limit.on_request(name, stage, desk)?,
                Kind::Mutation(own) => mutation::on_request(own, name, stage, desk)?,
                Kind::Rbac(rbac) => rbac.on_request(name, scene, matched, desk, trace)?,
                Kind::Authz(authz) => {
                    let who = (name, scene);
                    let clears =
                        authz.on_request(who, matched, config, client, (&mut *desk, &mut *trace));
                    // Large, and rare among filters.
                    if Box::pin(clears).await? {
                        found = find(scene, table, &desk.request, &trace.metadata);
                        note(scene, config, &found, desk, trace);
                    }
                }
                Kind::HealthCheck(own) => {
                    let facts = scene.facts(&desk.request);
                    if own.headers.iter().all(|header| header.matches(&facts)) {
                        let mut reply = Reply::new(200, "health_check_ok");
                        let cluster = config.settings.node_cluster.as_bytes().to_vec();
                        reply.fields = vec![(HEALTH_CHECKED.to_vec(), cluster)];
                        reply.matched = matched.copied();
                        return Err(reply.into());
                    }
                }
                Kind::Jwt(jwt) => {
                    if jwt.on_request(name, (scene, matched), desk, trace).await? {
                        found = find(scene, table, &desk.request, &trace.metadata);
                        note(scene, config, &found, desk, trace);
                    }
                }
            }
        }
        Ok(found)
    }

    /// Runs the filters on a response, the last one first. False when a script waits: what it waits for
    /// is in the desk's marks.
    pub(super) fn on_response(
        &self,
        scene: Scene<'_>,
        matched: Option<&Matched<'_>>,
        (desk, trace): (&mut Desk, &mut Trace<'_>),
    ) -> Result<bool, Unsent> {
        self.respond_from(scene, matched, (desk, trace), self.filters.len())
    }

    /// Goes on with a script that has waited, and with the filters behind it.
    pub(super) fn resume_response(
        &self,
        scene: Scene<'_>,
        matched: Option<&Matched<'_>>,
        (desk, trace): (&mut Desk, &mut Trace<'_>),
    ) -> Result<bool, Unsent> {
        let waiting = desk.marks.scripts.take_waiting().ok_or(Unsent::Fault)?;
        let index = waiting.index();
        let Some(Filter { kind: Kind::Lua(lua), .. }) = self.filters.get(index) else {
            return Err(Unsent::Fault);
        };
        if !lua.resume(scene, waiting, (&mut *desk, &mut *trace))? {
            return Ok(false);
        }
        self.respond_from(scene, matched, (desk, trace), index)
    }

    fn respond_from(
        &self,
        scene: Scene<'_>,
        matched: Option<&Matched<'_>>,
        (desk, trace): (&mut Desk, &mut Trace<'_>),
        end: usize,
    ) -> Result<bool, Unsent> {
        for (index, filter) in self.filters[..end].iter().enumerate().rev() {
            if filter.is_off(matched) {
                continue;
            }
            let stage = Stage { scene, matched, trace: &*trace };
            match &filter.kind {
                Kind::Lua(lua) => {
                    let end = (&mut *desk, &mut *trace);
                    if !lua.on_response((scene, index), matched, end)? {
                        return Ok(false);
                    }
                }
                Kind::Cors => cors::on_response(desk)?,
                Kind::Fault(_) | Kind::HealthCheck(_) | Kind::Rbac(_) | Kind::Jwt(_) => {}
                Kind::Authz(_) => Authz::on_response(desk)?,
                Kind::RateLimit(_) => RateLimit::on_response(stage, desk)?,
                Kind::Mutation(own) => mutation::on_response(own, &filter.name, stage, desk)?,
            }
        }
        Ok(true)
    }

    /// Whether bodies have to be taken apart for scripts.
    pub(super) fn watch(&self, scene: Scene<'_>, matched: &Matched<'_>, desk: &Desk) -> bool {
        self.has_scripts
            && (desk.marks.scripts.take_request_apart()
                || self.filters.iter().any(|filter| match &filter.kind {
                    Kind::Lua(lua) => {
                        !filter.is_off(Some(matched)) && lua.sees_responses(scene.worker, matched)
                    }
                    _ => false,
                }))
    }
}

/// Says in the log which route was found, so that an answer of a filter has it too.
fn note<'c>(
    scene: Scene<'_>,
    config: &'c Config,
    found: &Found<'c>,
    desk: &Desk,
    trace: &mut Trace<'c>,
) {
    let Ok(matched) = found else { return };
    trace.route = Some(matched.route);
    if let RouteAction::Forward(forward) = &matched.route.action {
        let (name, _) = cluster_of(scene, forward, &desk.request);
        trace.cluster = name.and_then(|name| config.backend(name)).map(|backend| &***backend);
    }
}

/// Lets the body of an answer of ours pass the scripts that watch it.
pub(super) async fn pass_answer(desk: &mut Desk, trace: &mut Trace<'_>) -> Result<(), Cut> {
    let mut strand = std::mem::take(&mut desk.marks.scripts.response);
    if strand.is_idle() {
        return Ok(());
    }
    let held = desk.marks.scripts.gathered.take().unwrap_or_default();
    let (bytes, trailers) = strand.pass((held.bytes, held.trailers), &mut trace.metadata).await?;
    desk.marks.scripts.gathered = Some(Gathered { bytes, trailers, is_changed: true });
    Ok(())
}
