//! Fetches the tokens that requests are to carry.
//!
//! In:    a flow, the values of its secret, the subject's token.
//! Out:   a token, kept for those who come after; or that there is none.
//! Never: asks twice at once for one token; asks anyone but a server that has proved that it is the
//!        token endpoint's host; asks again at once after a failure.

use std::{sync::Arc, time::Duration, time::UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use sluis_nouns::HostPattern;
use sluis_rules::{TokenUse, is_verified};
use sluis_signing::{
    ANSWER_BYTES_MAX, AnswerError, Material, MaterialError, Moment, Secret, SignError, TokenRequest,
};
use sluis_tls::GenericSecret;
use tracing::{debug, warn};
use zeroize::Zeroizing;

use super::Refusal;
use crate::{
    config::Config,
    credentials::{Held, Tokens},
    http::{
        call,
        desk::Desk,
        question::{CallError, Question},
        state::HttpWorker,
    },
    worker::Worker,
};

/// How long a token endpoint may take: the request that needs the token waits meanwhile.
const CALL_TIME_MAX: Duration = Duration::from_secs(5);

/// Longest token of a subject, in bytes.
const SUBJECT_BYTES_MAX: usize = 16 * 1024;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("there is no cluster {0}")]
    NoCluster(Arc<str>),
    #[error(transparent)]
    Material(#[from] MaterialError),
    #[error(transparent)]
    Sign(#[from] SignError),
    #[error("the token endpoint's URL or a field cannot be sent")]
    Inexpressible,
    #[error(transparent)]
    Call(#[from] CallError),
    #[error(transparent)]
    Answer(#[from] AnswerError),
}

/// What a token is for.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'w> {
    pub(super) credential: &'w Arc<str>,
    pub(super) token: &'w TokenUse,
    pub(super) secret: &'w Arc<GenericSecret>,
    pub(super) subject: Option<&'w str>,
}

/// The subject's token of a request: the one value of its field, without `Bearer `. Two values are
/// none: servers would read either.
pub(super) fn subject(desk: &Desk, field: &str) -> Option<Zeroizing<String>> {
    let mut values = desk.request.fields.all_named(field.as_bytes());
    let (value, None) = (values.next()?, values.next()) else { return None };
    let text = std::str::from_utf8(value).ok()?.trim();
    let token = match text.split_at_checked(7) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer ") => token.trim_start(),
        None if text.eq_ignore_ascii_case("bearer") => return None,
        _ => text,
    };
    let is_good = |byte: u8| (0x21..0x7f).contains(&byte);
    let fits = (1..=SUBJECT_BYTES_MAX).contains(&token.len()) && token.bytes().all(is_good);
    fits.then(|| Zeroizing::new(token.to_owned()))
}

/// The token that a request is to carry: the one that is kept, or a new one.
///
/// # Errors
///
/// [`Refusal::Unavailable`], after a warning that says why.
pub(super) async fn token(worker: &HttpWorker, wanted: Wanted<'_>) -> Result<Arc<Held>, Refusal> {
    let config = worker.config();
    let tokens = &config.settings.tokens;
    if wanted.token.flow().subject_field().is_some() && wanted.subject.is_none() {
        debug!(credential = %wanted.credential, "a request has no token that could be exchanged");
        return Err(Refusal::Unavailable);
    }
    let key = (Arc::clone(wanted.credential), wanted.token.flow().key(wanted.subject));
    let slot = tokens.slot(key, worker.now());
    if let Some(held) = slot.good(wanted.secret, worker.now()) {
        let now = worker.now();
        if held.is_fresh(now) || slot.has_failed(wanted.secret, now) {
            return Ok(held);
        }
        // One of those who come fetches the next; the others go on with this one.
        let Ok(_turn) = slot.turn.try_lock() else { return Ok(held) };
        return Ok(match fetch(worker, &config, wanted).await {
            Ok(next) => {
                slot.fill(Arc::clone(&next));
                next
            }
            Err(error) => {
                warn!(credential = %wanted.credential, %error, "a token cannot be fetched anew yet");
                slot.fail(wanted.secret, worker.now());
                held
            }
        });
    }
    let _turn = slot.turn.lock().await;
    // Whoever had the turn before may have fetched it, or failed to.
    if let Some(held) = slot.good(wanted.secret, worker.now()) {
        return Ok(held);
    }
    if slot.has_failed(wanted.secret, worker.now()) {
        return Err(Refusal::Unavailable);
    }
    match fetch(worker, &config, wanted).await {
        Ok(held) => {
            slot.fill(Arc::clone(&held));
            Ok(held)
        }
        Err(error) => {
            warn!(credential = %wanted.credential, %error, "a token cannot be fetched");
            slot.fail(wanted.secret, worker.now());
            Err(Refusal::Unavailable)
        }
    }
}

async fn fetch(
    worker: &HttpWorker,
    config: &Config,
    wanted: Wanted<'_>,
) -> Result<Arc<Held>, FetchError> {
    let (flow, cluster) = (wanted.token.flow(), wanted.token.cluster());
    let tokens: &Tokens = &config.settings.tokens;
    let backend = config.backend(cluster).ok_or_else(|| FetchError::NoCluster(cluster.clone()))?;
    let client = flow.client(&material(wanted.secret))?;
    let host = host(flow.authority());
    let pattern: HostPattern = host.parse().map_err(|_| FetchError::Inexpressible)?;
    let hosts = [pattern];
    let (mut has_nonce, mut is_again) = (false, false);
    loop {
        let moments = [moment(worker)?, moment(worker)?, moment(worker)?];
        let nonce = tokens.nonce(flow.authority());
        let dpop = flow.is_bound().then(|| tokens.key()).transpose()?;
        let dpop = dpop.map(|key| (key, nonce.as_deref()));
        let request = client.request(flow, wanted.subject, dpop, moments.each_ref())?;
        let question = question(flow, &request).ok_or(FetchError::Inexpressible)?;
        let asked = call::ask_if(worker, backend, &question, Some(CALL_TIME_MAX), |pick| {
            let endpoint = pick.hostname().map(|name| &**name);
            pick.tls(backend)
                .is_some_and(|tls| is_verified(backend.cluster(), tls, (&host, endpoint), &hosts))
        });
        let answer = match asked.await {
            // A kept connection may have died unseen. The question is made anew: assertions count once.
            Err(CallError::Io(_) | CallError::Stream(_) | CallError::Malformed) if !is_again => {
                is_again = true;
                continue;
            }
            answer => answer?,
        };
        let body = Zeroizing::new(answer.body);
        let given = answer.headers.get("dpop-nonce").map(HeaderValue::as_bytes);
        let is_new = given.is_some_and(|nonce| tokens.remember(flow.authority(), nonce));
        match flow.answer(answer.status, &body, wanted.subject, &moments[0]) {
            Err(AnswerError::NonceWanted) if is_new && !has_nonce => has_nonce = true,
            answer => {
                let secret = Arc::clone(wanted.secret);
                return Ok(Arc::new(Held::new(answer?, secret, worker.now())));
            }
        }
    }
}

/// An authority without its port, in lower case.
fn host(authority: &str) -> String {
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if is_port(port) => host,
        _ => authority,
    };
    host.to_ascii_lowercase()
}

fn material(secret: &GenericSecret) -> Material {
    let entry = |key: &str| Some((key.to_owned(), Secret::new(secret.entry(key)?.to_vec())));
    secret.keys().filter_map(entry).collect()
}

/// The time, and random bytes that were never used before.
pub(super) fn moment(worker: &Worker) -> Result<Moment, SignError> {
    let nonce = worker.nonces().next().map_err(|_| SignError::Library)?;
    let since = worker.wall_now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(Moment { unix_nanos: i128::try_from(since.as_nanos()).unwrap_or(i128::MAX), nonce })
}

fn question(flow: &sluis_signing::Flow, request: &TokenRequest) -> Option<Question> {
    let mut head = Request::new(());
    *head.method_mut() = Method::POST;
    let uri = Uri::builder().scheme("https").authority(flow.authority());
    *head.uri_mut() = uri.path_and_query(flow.path()).build().ok()?;
    for (name, value) in &request.fields {
        let mut value = HeaderValue::from_bytes(value.expose()).ok()?;
        value.set_sensitive(true);
        head.headers_mut().insert(HeaderName::from_static(name), value);
    }
    let body = Bytes::copy_from_slice(request.body.expose());
    Some(Question { head, body, answer_max: ANSWER_BYTES_MAX })
}
