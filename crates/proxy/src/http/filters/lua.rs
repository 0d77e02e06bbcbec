//! The Lua filter: shows messages to a script and carries out what it wants changed.
//!
//! In:    heads on the desk; bodies, trailers and answers of other services as scripts ask for them.
//! Out:   the messages as the scripts leave them; or the answer that one wants sent instead.
//! Never: lets a message go on whose script has failed: it is answered 500, or cut.

mod asked;
mod facts;

use std::{cell::RefCell, collections::HashMap, fmt, rc::Rc, sync::Arc};

use http::HeaderMap;
use sluis_http1::{Framing, Known, Method};
use sluis_rules::{FilterSetting, LuaFilter, LuaRoute, LuaScript, Matched, MetaFields, Source};
use sluis_script::{Begin, BodyIs, Effects, Host, Response, RunError, Script, Side, Step, Want};
use tracing::{error, warn};

use super::{FilterError, read};
use crate::{
    http::{
        desk::Desk,
        incoming::Incoming,
        reply::{Reply, Unsent},
        scene::Scene,
        strand::{
            self, BODY_BYTES_MAX, Cut, FAILED, Gathered, Running, Waiting, map, pairs,
            shown::{self, Claims, Head, Shown},
        },
        trace::Trace,
        under_way::Count,
    },
    stats::Counter,
    worker::Worker,
};
pub(in crate::http) use asked::Standing;

/// Scripts of routes' own that one filter keeps ready; beyond it all are forgotten and loaded anew.
const OWN_MAX: usize = 256;

/// A script that is ready; `None`: it cannot run, and requests that it should see are answered 500.
type Ready = Option<Rc<Script>>;

/// The scripts of one filter on one worker.
pub(super) struct Lua {
    name: Arc<str>,
    settings: Arc<LuaFilter>,
    /// The script where no route says otherwise; `None`: there is none.
    default: Option<Ready>,
    named: HashMap<Arc<str>, Ready>,
    /// By the place in memory of what the route says, which the entry keeps alive.
    own: RefCell<HashMap<usize, (Arc<LuaRoute>, Ready)>>,
    /// Calls under way that nobody waits for.
    calls: Count,
}

impl fmt::Debug for Lua {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lua").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What showing a request's head to a script came to.
pub(super) enum Begun {
    /// It goes on; whether its route must be chosen anew.
    Over(bool),
    /// The script waits.
    Waits(Box<(Running, Step)>),
}

/// Which script sees a message, and what it is told.
struct Choice {
    script: Rc<Script>,
    context: Option<Arc<MetaFields>>,
}

/// The script that should see a message cannot run.
struct NotReady;

impl Lua {
    pub(super) fn new(worker: &Worker, name: &Arc<str>, settings: &Arc<LuaFilter>) -> Self {
        let load = |source: &Source| ready(worker, name, (source, &settings.package_paths));
        Self {
            name: Arc::clone(name),
            default: settings.source.as_ref().map(load),
            named: settings.sources.iter().map(|(key, one)| (Arc::clone(key), load(one))).collect(),
            settings: Arc::clone(settings),
            own: RefCell::default(),
            calls: Count::default(),
        }
    }

    /// Whether responses have to be taken apart for a script.
    pub(super) fn sees_responses(&self, worker: &Worker, matched: &Matched<'_>) -> bool {
        match self.choose(worker, Some(matched)) {
            Ok(Some(choice)) => choice.script.handles(Side::Response),
            Ok(None) => false,
            Err(NotReady) => true,
        }
    }

    /// The script for a message, by its route.
    fn choose(
        &self,
        worker: &Worker,
        matched: Option<&Matched<'_>>,
    ) -> Result<Option<Choice>, NotReady> {
        let said = matched.and_then(|matched| matched.settings(&self.name).next());
        let route = match said {
            Some(FilterSetting::Lua(route)) => Some(route),
            _ => None,
        };
        let script = match route.map(|route| (route, &route.script)) {
            None | Some((_, LuaScript::Default)) => match &self.default {
                None => return Ok(None),
                Some(ready) => ready.clone(),
            },
            // Envoy runs no script then; ours must not be skipped.
            Some((_, LuaScript::Named(name))) => self.named.get(name).cloned().flatten(),
            Some((route, LuaScript::Own { source, package_paths })) => {
                self.own(worker, route, (source, package_paths))
            }
        };
        let context = route.and_then(|route| route.context.as_ref());
        let context = context.or(self.settings.context.as_ref()).cloned();
        Ok(Some(Choice { script: script.ok_or(NotReady)?, context }))
    }

    /// A script of a route's own, loaded when it is first needed.
    fn own(&self, worker: &Worker, route: &Arc<LuaRoute>, source: (&Source, &[Arc<str>])) -> Ready {
        let place = Arc::as_ptr(route) as usize;
        if let Some((_, ready)) = self.own.borrow().get(&place) {
            return ready.clone();
        }
        let ready = ready(worker, &self.name, source);
        let mut own = self.own.borrow_mut();
        if own.len() >= OWN_MAX {
            own.clear();
        }
        own.insert(place, (Arc::clone(route), ready.clone()));
        ready
    }

    /// Starts a script on a message; `None` when there is none for it.
    fn start(
        &self,
        (scene, side, body): (Scene<'_>, Side, BodyIs),
        matched: Option<&Matched<'_>>,
        (desk, trace): (&mut Desk, &mut Trace<'_>),
    ) -> Result<Option<(Running, Step, Claims)>, Failed> {
        let choice =
            self.choose(scene.worker, matched).map_err(|NotReady| self.not_ready(scene))?;
        let Some(Choice { script, context }) = choice else { return Ok(None) };
        if !script.handles(side) {
            return Ok(None);
        }
        let Some(place) = desk.marks.scripts.place.clone() else {
            return Err(self.not_ready(scene));
        };
        let config = place.config();
        let told = facts::Told::new(
            (&place, &config),
            (matched, trace.client),
            (Arc::clone(&self.name), context),
        );
        let begin = Begin { side, body, facts: Rc::new(told) };
        let head = head(desk, side, scene);
        let mut shown = Shown::new(head, &mut trace.metadata, &self.name);
        let started = script.start(begin, &mut shown);
        let claims = shown.claims;
        let (run, step) = started.map_err(|error| self.failed(scene, &error))?;
        let Some(run) = run else { return Ok(None) };
        let own = strand::Own { name: Arc::clone(&self.name), place, config };
        Ok(Some((Running::new(own, run, self.calls.clone()), step, claims)))
    }

    /// Shows the script a request.
    pub(super) fn on_request<'c>(
        &self,
        scene: Scene<'_>,
        matched: Option<&Matched<'c>>,
        (desk, trace): (&mut Desk, &mut Trace<'c>),
    ) -> Result<Begun, Box<Reply<'c>>> {
        let body = match () {
            () if is_upgrade(desk) => BodyIs::Tunnel,
            () if desk.request.framing() == Framing::None => BodyIs::Absent,
            () => BodyIs::Follows,
        };
        let how = (scene, Side::Request, body);
        let started = self.start(how, matched, (&mut *desk, &mut *trace));
        let Some((mut running, step, claims)) = started.map_err(|Failed| failure())? else {
            return Ok(Begun::Over(false));
        };
        match step {
            Step::Respond(response) => Err(reply(response, matched.copied()).into()),
            Step::Done if !running.run.has_buffer() => {
                let effects = running.settle();
                self.claim(scene, claims, (&mut *desk, None)).map_err(|Failed| failure())?;
                Ok(Begun::Over(self.obey(effects, desk)))
            }
            step => {
                running.claims = claims;
                Ok(Begun::Waits(Box::new((running, step))))
            }
        }
    }

    /// Brings a script what it waits for before the head goes on. Returns whether the route must be
    /// chosen anew.
    pub(super) async fn bring<'c>(
        &self,
        (scene, matched): (Scene<'_>, Option<&Matched<'c>>),
        client: &mut impl Incoming,
        (running, step): (Running, Step),
        (desk, trace): (&mut Desk, &mut Trace<'c>),
    ) -> Result<bool, Box<Reply<'c>>> {
        let (mut running, mut step) = (running, step);
        let of = |reply: Box<Reply<'c>>| Box::new(Reply { matched: matched.copied(), ..*reply });
        let mut held: Option<(Vec<u8>, Option<HeaderMap>)> = None;
        loop {
            let fed = match step {
                Step::Respond(response) => {
                    let (arrived, is_whole) = client.arrived(desk);
                    trace.received = arrived as u64;
                    let reply = reply(response, matched.copied());
                    return Err(Reply { is_waited: is_whole, ..reply }.into());
                }
                Step::Done | Step::Wants(Want::Chunk | Want::Trailers) => break,
                Step::Wants(Want::Body) => {
                    let (bytes, trailers) = gather(client, desk, trace).await.map_err(of)?;
                    held = Some((bytes.clone(), trailers.clone()));
                    let mut shown = Shown::new(
                        head(desk, Side::Request, scene),
                        &mut trace.metadata,
                        &self.name,
                    );
                    let fed = running.run.body(bytes, trailers.as_ref().map(pairs), &mut shown);
                    running.claims.add(shown.claims);
                    fed
                }
                Step::Wants(Want::Call(call)) => {
                    let answer = running.ask(call).await;
                    let mut shown = Shown::new(
                        head(desk, Side::Request, scene),
                        &mut trace.metadata,
                        &self.name,
                    );
                    let fed = running.run.answer(&answer, &mut shown);
                    running.claims.add(shown.claims);
                    fed
                }
            };
            step = fed.map_err(|error| {
                self.failed(scene, &error);
                failure()
            })?;
        }
        let clears = self.obey(running.settle(), desk);
        let changed = running.run.take_changed();
        let is_changed = changed.is_some();
        let now = running.run.take_trailers().map(|pairs| map(&pairs));
        let claims = std::mem::take(&mut running.claims);
        let claim = (&mut *desk, changed.as_ref().map(Vec::len));
        self.claim(scene, claims, claim).map_err(|Failed| failure())?;
        match held {
            Some((bytes, trailers)) if is_changed || trailers != now => {
                client.replace_body(desk, changed.unwrap_or(bytes), now);
            }
            None if is_changed => client.replace_body(desk, changed.unwrap_or_default(), None),
            _ => {}
        }
        if !running.run.is_done() {
            let length = content_length(&desk.request.fields);
            desk.marks.scripts.request.push(running, length);
        }
        Ok(clears)
    }

    /// Shows the script a response. False when it waits: what it waits for is in the desk's marks.
    pub(super) fn on_response(
        &self,
        (scene, index): (Scene<'_>, usize),
        matched: Option<&Matched<'_>>,
        (desk, trace): (&mut Desk, &mut Trace<'_>),
    ) -> Result<bool, Unsent> {
        let body = desk.marks.scripts.response_body;
        let how = (scene, Side::Response, body);
        let started = self.start(how, matched, (&mut *desk, &mut *trace));
        let Some((mut running, step, claims)) = started.map_err(|Failed| Unsent::Fault)? else {
            return Ok(true);
        };
        running.claims = claims;
        self.go_on(scene, index, (running, step), (desk, trace))
    }

    /// Goes on with a script that has waited before the head of a response.
    pub(super) fn resume(
        &self,
        scene: Scene<'_>,
        waiting: Waiting,
        (desk, trace): (&mut Desk, &mut Trace<'_>),
    ) -> Result<bool, Unsent> {
        let Waiting { index, mut running, answer, .. } = waiting;
        let body = desk
            .marks
            .scripts
            .gathered
            .as_ref()
            .map(|held| (held.bytes.clone(), held.trailers.as_ref().map(pairs)));
        let head = head(desk, Side::Response, scene);
        let mut shown = Shown::new(head, &mut trace.metadata, &self.name);
        let fed = match (answer, body) {
            (Some(answer), _) => running.run.answer(&answer, &mut shown),
            (None, Some((bytes, trailers))) => running.run.body(bytes, trailers, &mut shown),
            (None, None) => return Err(Unsent::Fault),
        };
        running.claims.add(shown.claims);
        let step = fed.map_err(|error| {
            self.failed(scene, &error);
            Unsent::Fault
        })?;
        self.go_on(scene, index, (running, step), (desk, trace))
    }

    fn go_on(
        &self,
        scene: Scene<'_>,
        index: usize,
        (mut running, step): (Running, Step),
        (desk, trace): (&mut Desk, &mut Trace<'_>),
    ) -> Result<bool, Unsent> {
        match step {
            // Envoy knows no such thing, and neither does our handle.
            Step::Respond(_) => return Err(Unsent::Fault),
            Step::Wants(Want::Body) if desk.marks.scripts.gathered.is_some() => {
                let waiting = Waiting { index, running, asking: None, answer: None };
                return self.resume(scene, waiting, (desk, trace));
            }
            Step::Wants(Want::Body) => {
                let waiting = Waiting { index, running, asking: None, answer: None };
                desk.marks.scripts.waiting = Some(Box::new(waiting));
                return Ok(false);
            }
            Step::Wants(Want::Call(call)) => {
                let asking = Some(running.begin(call));
                let waiting = Waiting { index, running, asking, answer: None };
                desk.marks.scripts.waiting = Some(Box::new(waiting));
                return Ok(false);
            }
            Step::Done | Step::Wants(Want::Chunk | Want::Trailers) => {}
        }
        let effects = running.settle();
        desk.marks.scripts.drains |= effects.drains;
        let changed = running.run.take_changed();
        let trailers = running.run.take_trailers().map(|pairs| map(&pairs));
        let claims = std::mem::take(&mut running.claims);
        self.claim_response(scene, claims, desk, changed.is_some())?;
        let scripts = &mut desk.marks.scripts;
        let was_gathered = scripts.gathered.is_some();
        if let Some(held) = &mut scripts.gathered {
            if trailers.is_some() || held.trailers.is_some() {
                held.trailers = trailers;
            }
            if let Some(bytes) = changed {
                held.bytes = bytes;
                held.is_changed = true;
            }
        } else if let Some(bytes) = changed {
            scripts.gathered = Some(Gathered { bytes, trailers: None, is_changed: true });
        }
        if !running.run.is_done() && !was_gathered {
            let length = content_length(&desk.response.fields);
            desk.marks.scripts.response.push(running, length);
        } else if !running.run.is_done() {
            // The body is here: it passes the script when the head goes.
            desk.marks.scripts.response.push(running, None);
        }
        Ok(true)
    }

    /// What the script says of the length of a request's body.
    fn claim(
        &self,
        scene: Scene<'_>,
        claims: Claims,
        (desk, changed): (&mut Desk, Option<usize>),
    ) -> Result<(), Failed> {
        if changed.is_some() || claims.is_empty() {
            return Ok(());
        }
        if let Some(length) = &claims.length {
            if desk.request.fields.get(Known::ContentLength) != Some(&length[..]) {
                return Err(self.misframed(scene));
            }
        } else if matches!(desk.request.framing(), Framing::Length(_)) {
            desk.request.fields.remove(Known::ContentLength);
            desk.marks.scripts.is_unframed = true;
        }
        Ok(())
    }

    fn claim_response(
        &self,
        scene: Scene<'_>,
        claims: Claims,
        desk: &mut Desk,
        is_changed: bool,
    ) -> Result<(), Unsent> {
        if is_changed || claims.is_empty() {
            return Ok(());
        }
        let fields = &mut desk.response.fields;
        match &claims.length {
            Some(length) if fields.get(Known::ContentLength) == Some(&length[..]) => Ok(()),
            Some(_) => {
                self.misframed(scene);
                Err(Unsent::Fault)
            }
            None => {
                fields.remove(Known::ContentLength);
                Ok(())
            }
        }
    }

    /// Does what a script wants besides. True when the route must be chosen anew.
    fn obey(&self, effects: Effects, desk: &mut Desk) -> bool {
        let scripts = &mut desk.marks.scripts;
        scripts.drains |= effects.drains;
        if effects.override_host.is_some() {
            scripts.override_host = effects.override_host;
        }
        effects.clears_route || (effects.has_changed_head && self.settings.clear_route_cache)
    }

    fn failed(&self, scene: Scene<'_>, error: &RunError) -> Failed {
        scene.worker.stats().inc(Counter::LuaErrors);
        warn!(filter = %self.name, %error, "script failed: the message does not go on");
        Failed
    }

    fn misframed(&self, scene: Scene<'_>) -> Failed {
        scene.worker.stats().inc(Counter::LuaErrors);
        let error = "content-length is not that of the body";
        warn!(filter = %self.name, error, "script failed: the message does not go on");
        Failed
    }

    fn not_ready(&self, scene: Scene<'_>) -> Failed {
        scene.worker.stats().inc(Counter::LuaErrors);
        warn!(filter = %self.name, "there is no such script: the message does not go on");
        Failed
    }
}

/// A script has failed, which has been logged.
#[derive(Debug)]
struct Failed;

/// A script, ready to run on this worker.
fn ready(worker: &Worker, name: &Arc<str>, source: (&Source, &[Arc<str>])) -> Ready {
    match script(worker, name, source) {
        Ok(script) => Some(Rc::new(script)),
        Err(error) => {
            error!(filter = %name, %error, "filter cannot run: its requests are answered 500");
            None
        }
    }
}

fn script(
    worker: &Worker,
    name: &str,
    (source, package_paths): (&Source, &[Arc<str>]),
) -> Result<Script, FilterError> {
    let config = worker.config();
    let own = config.settings.lua_path.iter().map(|path| format!("{}/?.lua", path.display()));
    let named = package_paths.iter().map(ToString::to_string);
    let host = Host {
        package_paths: named.chain(own).collect(),
        environment: Arc::clone(&config.settings.environment),
    };
    let source = match source {
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

fn failure<'c>() -> Box<Reply<'c>> {
    Reply::new(500, FAILED).plain().into()
}

fn reply<'c>(response: Response, matched: Option<Matched<'c>>) -> Reply<'c> {
    let Response { status, headers, body } = response;
    let mut reply = Reply::new(status, "lua_response");
    reply.matched = matched;
    reply.fields = headers.into_iter().filter(|(name, _)| !shown::is_framing(name)).collect();
    reply.body = body.into();
    reply
}

fn head<'d>(desk: &'d mut Desk, side: Side, scene: Scene<'_>) -> Head<'d> {
    match side {
        Side::Request => {
            let scheme = scene.scheme(&desk.request);
            Head::Request(&mut desk.request, scheme)
        }
        Side::Response => Head::Response(&mut desk.response),
    }
}

fn is_upgrade(desk: &Desk) -> bool {
    desk.request.method() == Method::Connect || desk.request.fields.has(Known::Upgrade)
}

fn content_length(fields: &sluis_http1::Fields) -> Option<u64> {
    let value = fields.get(Known::ContentLength)?;
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// The whole body of a request, as the scripts that watch it leave it.
async fn gather<'c>(
    client: &mut impl Incoming,
    desk: &mut Desk,
    trace: &mut Trace<'_>,
) -> Result<(Vec<u8>, Option<HeaderMap>), Box<Reply<'c>>> {
    let peeked = client.peek_body(desk, BODY_BYTES_MAX + 1).await;
    let (bytes, is_whole) = peeked.map_err(|why| Box::new(why.reply().closing()))?;
    if !is_whole || bytes.len() > BODY_BYTES_MAX {
        trace.received = bytes.len() as u64;
        let reply = Reply::new(413, "request_payload_too_large").text("Payload Too Large");
        return Err(reply.closing().into());
    }
    let trailers = client.peeked_trailers(desk);
    let mut strand = std::mem::take(&mut desk.marks.scripts.request);
    if strand.is_idle() {
        return Ok((bytes, trailers));
    }
    let passed = strand.pass((bytes, trailers), &mut trace.metadata).await;
    let (bytes, trailers) = passed.map_err(|Cut| failure())?;
    client.replace_body(desk, bytes.clone(), trailers.clone());
    Ok((bytes, trailers))
}
