//! The filter for tokens of end users (Envoy's `jwt_authn`).
//!
//! In:    a request head, what the configuration says that it needs.
//! Out:   the head with what providers want told of good tokens, the claims in the metadata; or the
//!        answer that says why the request is refused.
//! Never: lets a request through because keys are missing, or leaves a header standing that only a
//!        good token may set.
//!
//! Start at [`Jwt::on_request`]. All tokens of a request must be good: a server behind might look at
//! another one than we did.

mod cache;
mod places;
mod told;

use std::{
    cell::RefCell, collections::BTreeMap, fs, future::Future, io, pin::Pin, rc::Rc, sync::Arc,
    time::UNIX_EPOCH,
};

use sluis_http1::{Known, Method, RequestHead};
use sluis_jwt::{Audiences, KEY_SET_BYTES_MAX, KeySet, Origin, Refusal, Token};
use sluis_rules::{
    FilterSetting, JwtFilter, JwtKeys, JwtProvider, JwtRequirement, Matched, MetaFields, MetaValue,
    Metadata, RemoteKeys, Source,
};
use tracing::{debug, error};

use self::{
    cache::{Cache, Verified},
    places::{Found, Places},
};
use crate::{
    http::{desk::Desk, reply::Reply, scene::Scene, trace::Trace},
    key_ring::KeySlot,
    worker::Worker,
};

/// The namespace of what the filter tells other filters.
const NAMESPACE: &str = "envoy.filters.http.jwt_authn";

/// Longest path that the answer repeats, as in Envoy.
const REALM_PATH_MAX: usize = 256;

/// The filter on one worker.
#[derive(Debug)]
pub(super) struct Jwt {
    filter: Arc<JwtFilter>,
    providers: BTreeMap<Arc<str>, Provider>,
    /// The places of all providers.
    all: Places,
    /// The first provider, by name, of each issuer.
    by_issuer: BTreeMap<Arc<str>, Arc<str>>,
}

#[derive(Debug)]
struct Provider {
    settings: Arc<JwtProvider>,
    audiences: Audiences,
    places: Places,
    keys: Keys,
    cache: RefCell<Cache>,
}

#[derive(Debug)]
enum Keys {
    Local(Option<Arc<KeySet>>),
    Remote(Arc<KeySlot>),
}

/// What becomes of a request.
type Verdict = Result<(), Refusal>;

type Pending<'a> = Pin<Box<dyn Future<Output = Verdict> + 'a>>;

/// One request, as it is judged.
struct Case<'a> {
    head: &'a mut RequestHead,
    metadata: &'a mut Metadata,
    /// Seconds since 1970.
    now: u64,
    /// Whether the route must be chosen anew.
    clears_route: bool,
}

impl Jwt {
    pub(super) fn new(worker: &Worker, filter: &Arc<JwtFilter>) -> Self {
        let providers = filter.providers.iter().map(|(name, settings)| {
            let audiences = Audiences::new(settings.audiences.iter().map(|name| &**name));
            let provider = Provider {
                audiences,
                places: Places::of([settings]),
                keys: keys(worker, settings),
                cache: RefCell::new(Cache::new(settings.cache)),
                settings: Arc::clone(settings),
            };
            (Arc::clone(name), provider)
        });
        let mut by_issuer = BTreeMap::new();
        for (name, settings) in &filter.providers {
            by_issuer.entry(Arc::clone(&settings.issuer)).or_insert_with(|| Arc::clone(name));
        }
        Self {
            providers: providers.collect(),
            all: Places::of(filter.providers.values()),
            by_issuer,
            filter: Arc::clone(filter),
        }
    }

    /// Judges a request. True when its route must be chosen anew.
    pub(super) async fn on_request<'c>(
        &self,
        name: &str,
        (scene, matched): (Scene<'_>, Option<&Matched<'c>>),
        desk: &mut Desk,
        trace: &mut Trace<'c>,
    ) -> Result<bool, Box<Reply<'c>>> {
        if self.filter.bypasses_preflights && is_preflight(&desk.request) {
            return Ok(false);
        }
        let requirement = match self.requirement(name, scene, matched, &desk.request) {
            Ok(Some(requirement)) => requirement,
            Ok(None) => return Ok(false),
            Err(wanted) => return Err(self.unknown(wanted, matched).into()),
        };
        // As it came: what a good token takes out of the path is not told back either.
        let kept = self.all.has_params().then(|| realm(scene, &desk.request));
        let now = trace.wall.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        // As in Envoy, whichever provider is asked: nobody else may set these headers.
        self.all.sanitize(&mut desk.request);
        let (head, metadata) = (&mut desk.request, &mut trace.metadata);
        let mut case = Case { head, metadata, now, clears_route: false };
        match self.judge(requirement, &mut case).await {
            Ok(()) => Ok(case.clears_route),
            Err(refusal) => {
                debug!(filter = name, %refusal, "request refused");
                let mut reply = Reply::new(refusal.http_status(), refusal.details());
                reply.matched = matched.copied();
                if !self.filter.strips_answers {
                    reply = reply.text(refusal.message());
                    let realm = kept.unwrap_or_else(|| realm(scene, &desk.request));
                    let error =
                        if refusal == Refusal::Missing { "" } else { ", error=\"invalid_token\"" };
                    let value = [&b"Bearer realm=\""[..], &realm, b"\"", error.as_bytes()].concat();
                    reply.fields = vec![(b"www-authenticate".to_vec(), value)];
                }
                Err(reply.into())
            }
        }
    }

    /// What a request needs; `Err` for a name that its route has and the filter has not.
    fn requirement<'f, 'm>(
        &'f self,
        name: &str,
        scene: Scene<'_>,
        matched: Option<&Matched<'m>>,
        head: &RequestHead,
    ) -> Result<Option<&'f JwtRequirement>, &'m str> {
        let by_route = matched.and_then(|matched| {
            matched.settings(name).find_map(|setting| match setting {
                FilterSetting::Jwt(wanted) => Some(&**wanted),
                _ => None,
            })
        });
        if let Some(wanted) = by_route {
            return self.filter.requirements.get(wanted).map(Some).ok_or(wanted);
        }
        let facts = scene.facts(head);
        let rule = self.filter.rules.iter().find(|rule| rule.matches.matches(&facts));
        Ok(rule.and_then(|rule| rule.requirement.as_ref()))
    }

    fn unknown<'c>(&self, wanted: &str, matched: Option<&Matched<'c>>) -> Reply<'c> {
        let known: Vec<&str> = self.filter.requirements.keys().map(|name| &**name).collect();
        let reason =
            format!("Wrong requirement_name: {wanted}. It should be one of [{}]", known.join(","));
        let details = format!("jwt_authn_access_denied{{{}}}", reason.replace(' ', "_"));
        let mut reply = Reply::new(403, details);
        reply.matched = matched.copied();
        if !self.filter.strips_answers {
            reply.body = format!("Failed JWT authentication: {reason}").into_bytes().into();
        }
        reply
    }

    fn judge<'a>(&'a self, wanted: &'a JwtRequirement, case: &'a mut Case<'_>) -> Pending<'a> {
        Box::pin(async move {
            match wanted {
                JwtRequirement::Nothing => Ok(()),
                JwtRequirement::Provider { name, audiences } => {
                    // The compiler has seen that it is there.
                    let provider = self.providers.get(name).ok_or(Refusal::UnknownIssuer)?;
                    let own = Audiences::new(audiences.iter().map(|name| &**name));
                    let audiences = if audiences.is_empty() { &provider.audiences } else { &own };
                    self.provider(provider, audiences, case).await
                }
                JwtRequirement::All(list) => {
                    for one in list {
                        self.judge(one, case).await?;
                    }
                    Ok(())
                }
                JwtRequirement::Any(list) => self.any(list, case).await,
                JwtRequirement::AllowMissing => self.optional(&self.all, false, case).await,
                JwtRequirement::AllowMissingOrFailed => self.optional(&self.all, true, case).await,
            }
        })
    }

    /// The first that holds. Those that allow a token to be missing come last and look where the
    /// others do, as in Envoy.
    async fn any(&self, list: &[JwtRequirement], case: &mut Case<'_>) -> Verdict {
        let mut reason = Refusal::Missing;
        let (mut is_missing_allowed, mut is_failure_allowed) = (false, false);
        for one in list {
            match one {
                JwtRequirement::AllowMissing => is_missing_allowed = true,
                JwtRequirement::AllowMissingOrFailed => is_failure_allowed = true,
                one => match self.judge(one, case).await {
                    Ok(()) => return Ok(()),
                    Err(refusal) => reason = told(reason, refusal),
                },
            }
        }
        if !is_missing_allowed && !is_failure_allowed {
            return Err(reason);
        }
        let used = list.iter().filter_map(|one| match one {
            JwtRequirement::Provider { name, .. } => self.filter.providers.get(name),
            _ => None,
        });
        let places = Places::of(used);
        let judged = self.optional(&places, is_failure_allowed, case).await;
        judged.map_err(|refusal| told(reason, refusal))
    }

    /// All tokens of a provider's places must be good, and there must be one.
    async fn provider(
        &self,
        provider: &Provider,
        audiences: &Audiences,
        case: &mut Case<'_>,
    ) -> Verdict {
        let tokens = provider.places.find(case.head);
        if tokens.is_empty() {
            return provider.failed(Refusal::Missing, case);
        }
        // The last first, as in Envoy.
        for found in tokens.iter().rev() {
            let issuer_of = |token: &Token| found.is_from(token.issuer());
            match provider.verify(&found.token, issuer_of, audiences, case.now).await {
                Ok(verified) => provider.tell(&verified, found, case)?,
                Err(refusal) => return provider.failed(refusal, case),
            }
        }
        Ok(())
    }

    /// Whatever tokens there are must be good, or may be bad where failure is allowed; none is needed.
    async fn optional(
        &self,
        places: &Places,
        is_failure_allowed: bool,
        case: &mut Case<'_>,
    ) -> Verdict {
        for found in places.find(case.head).iter().rev() {
            let judged = self.of_any_provider(found, case).await;
            if let Err(refusal) = judged
                && !is_failure_allowed
            {
                return Err(refusal);
            }
        }
        Ok(())
    }

    /// A token that may be any provider's: its issuer says whose.
    async fn of_any_provider(&self, found: &Found<'_>, case: &mut Case<'_>) -> Verdict {
        let token = Token::parse(&found.token)?;
        if !found.is_from(token.issuer()) {
            return Err(Refusal::UnknownIssuer);
        }
        let name = self.by_issuer.get(token.issuer()).or_else(|| self.by_issuer.get(""));
        let provider = name.and_then(|name| self.providers.get(name));
        let provider = provider.ok_or(Refusal::UnknownIssuer)?;
        let verified = provider.verify(&found.token, |_| true, &provider.audiences, case.now).await;
        match verified {
            Ok(verified) => provider.tell(&verified, found, case),
            Err(refusal) => provider.failed(refusal, case),
        }
    }
}

/// The reason that helps more: that a token is missing or another's says little.
fn told(before: Refusal, now: Refusal) -> Refusal {
    match now {
        Refusal::Missing | Refusal::UnknownIssuer if before != Refusal::Missing => before,
        now => now,
    }
}

impl Provider {
    /// Verifies one token.
    async fn verify(
        &self,
        text: &str,
        is_allowed_here: impl Fn(&Token) -> bool,
        audiences: &Audiences,
        now: u64,
    ) -> Result<Rc<Verified>, Refusal> {
        let known = match &self.keys {
            Keys::Local(Some(keys)) => self.cache.borrow().get(text, keys),
            Keys::Local(None) => None,
            Keys::Remote(slot) if slot.is_filled() => {
                let keys = slot.keys().await?;
                self.cache.borrow().get(text, &keys)
            }
            Keys::Remote(_) => None,
        };
        if let Some(verified) = known {
            let judged = self.check(&verified.token, is_allowed_here, audiences, now);
            if judged.is_err() {
                self.cache.borrow_mut().forget(text);
            }
            return judged.map(|()| verified);
        }
        let token = Token::parse(text)?;
        self.check(&token, is_allowed_here, audiences, now)?;
        let keys = match &self.keys {
            Keys::Local(keys) => keys.clone().ok_or(Refusal::NoValidKey)?,
            Keys::Remote(slot) => slot.keys().await?,
        };
        keys.verify(&token)?;
        let payload = told::payload(token.payload(), &self.settings.spaced_claims);
        let header = told::fields(token.header());
        let verified = Rc::new(Verified { token, payload, header });
        self.cache.borrow_mut().put(text, &keys, &verified);
        Ok(verified)
    }

    /// What is judged of a token besides its signature.
    fn check(
        &self,
        token: &Token,
        is_allowed_here: impl Fn(&Token) -> bool,
        audiences: &Audiences,
        now: u64,
    ) -> Verdict {
        let settings = &self.settings;
        let is_issuer = settings.issuer.is_empty() || *settings.issuer == *token.issuer();
        if !is_issuer || !is_allowed_here(token) {
            return Err(Refusal::UnknownIssuer);
        }
        token.check_time(now, settings.skew_secs)?;
        let subjects = settings.subjects.as_ref();
        if subjects.is_some_and(|subjects| !subjects.matches(token.subject().as_bytes())) {
            return Err(Refusal::SubjectForbidden);
        }
        if settings.requires_expiration && token.expires().is_none() {
            return Err(Refusal::Lifetime);
        }
        if let Some(most) = settings.lifetime_max {
            let left = token.expires().ok_or(Refusal::Lifetime)?.saturating_sub(now);
            if left >= most.as_secs() {
                return Err(Refusal::Lifetime);
            }
        }
        if audiences.allow(token.audiences()) { Ok(()) } else { Err(Refusal::Audience) }
    }

    /// Tells of a good token: in headers, and to other filters.
    fn tell(&self, verified: &Verified, found: &Found<'_>, case: &mut Case<'_>) -> Verdict {
        let settings = &self.settings;
        let fields = &mut case.head.fields;
        let mut has_told = false;
        if let Some(name) = &settings.payload_header {
            let mut text = verified.token.payload_text().to_owned();
            if settings.pads_payload {
                text.extend(std::iter::repeat_n('=', text.len().wrapping_neg() % 4));
            }
            // There is no room: without it the request must not go on.
            fields.append(name.as_bytes(), text.as_bytes()).map_err(|_| Refusal::Format)?;
        }
        for claim in &settings.claims {
            let Some(value) = told::claim(verified.token.payload(), &claim.path) else { continue };
            // A claim may hold a line break: such a one is no header value.
            if fields.append(claim.header.as_bytes(), value.as_bytes()).is_err() {
                return Err(Refusal::PayloadJson);
            }
            has_told = true;
        }
        if !settings.forwards {
            found.remove(case.head).map_err(|_| Refusal::Format)?;
        }
        if let Some(key) = &settings.header_key {
            case.metadata.set(NAMESPACE, key, verified.header.clone());
        }
        if let Some(key) = &settings.payload_key {
            case.metadata.set(NAMESPACE, key, verified.payload.clone());
            has_told = true;
        }
        case.clears_route |= settings.clears_route && has_told;
        Ok(())
    }

    /// Tells other filters why a token is refused, where the provider wants that.
    fn failed(&self, refusal: Refusal, case: &mut Case<'_>) -> Verdict {
        if let Some(key) = &self.settings.failed_key {
            let code = MetaValue::Number(f64::from(refusal.code()));
            let message = MetaValue::text(refusal.message());
            let said = MetaFields::from([("code".into(), code), ("message".into(), message)]);
            case.metadata.set(NAMESPACE, key, MetaValue::fields(said));
        }
        Err(refusal)
    }
}

/// Preflights carry no credentials (Fetch standard, CORS-preflight fetch).
fn is_preflight(head: &RequestHead) -> bool {
    let has = |name: &[u8]| head.fields.get_name(name).is_some_and(|value| !value.is_empty());
    head.method() == Method::Options && has(b"origin") && has(b"access-control-request-method")
}

/// The request's URL, as the client wrote it.
fn realm(scene: Scene<'_>, head: &RequestHead) -> Vec<u8> {
    let path = head.fields.get(Known::XEnvoyOriginalPath).unwrap_or(head.path());
    let path = &path[..path.len().min(REALM_PATH_MAX)];
    [scene.scheme(head).as_bytes(), b"://", head.authority(), path].concat()
}

fn keys(worker: &Worker, settings: &JwtProvider) -> Keys {
    let config = worker.config();
    match &settings.keys {
        JwtKeys::Remote(remote) => Keys::Remote(slot(worker, remote)),
        JwtKeys::Local(source) => {
            let text = match source {
                Source::Text(text) => Ok(text.to_string()),
                Source::File(path) => read(path),
                Source::Environment(name) => {
                    let value = config.settings.environment.get(&**name).cloned();
                    value.ok_or_else(|| io::ErrorKind::NotFound.into())
                }
            };
            let keys = text.map_err(|error| error.to_string()).and_then(|text| {
                KeySet::parse(&text, Origin::Local).map_err(|refusal| refusal.to_string())
            });
            let keys = keys.inspect_err(|reason| {
                error!(provider = %settings.name, reason, "key set cannot be used: all tokens of the provider are refused");
            });
            Keys::Local(keys.ok().map(Arc::new))
        }
    }
}

fn slot(worker: &Worker, remote: &Arc<RemoteKeys>) -> Arc<KeySlot> {
    worker.peek_config().settings.keys.slot(remote)
}

fn read(path: &str) -> io::Result<String> {
    if fs::metadata(path)?.len() > KEY_SET_BYTES_MAX as u64 {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "longer than a key set may be"));
    }
    fs::read_to_string(path)
}
