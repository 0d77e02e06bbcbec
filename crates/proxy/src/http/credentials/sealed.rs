//! The request in the form in which it is sent: with its credentials, for the codec alone.

use std::{borrow::Cow, sync::Arc};

use sluis_http1::{Framing, Known, Method, RequestHead};
use sluis_rules::{Choice, Injection, Injector, Signature, TokenUse};
use sluis_signing::{Edits, RequestView};
use sluis_tls::{GenericSecret, Slot};
use smallvec::SmallVec;
use tracing::warn;

use super::{Part, Promise, Refusal, record, tokens::moment};
use crate::{
    credentials::{Held, Places},
    http::{desk::Desk, plan::Plan, reply::Reply, sealed::Sealed, site::Site, trace::Trace},
};

/// What a line takes besides its name and its value, and what the codec may add to the head itself.
const LINE_BYTES_MORE: usize = 4;
const CODEC_BYTES_MAX: usize = 128;

/// Keeps the promise for one attempt: the head that will be written is put on the desk, beside the
/// one that everything else sees.
///
/// # Errors
///
/// The answer, where it cannot be kept.
pub(in crate::http) fn seal<'c>(
    site: Site<'_>,
    desk: &mut Desk,
    plan: &Plan<'c>,
    trace: &mut Trace<'c>,
    promise: &mut Promise<'c>,
) -> Result<(), Box<Reply<'c>>> {
    desk.sealed = None;
    if promise.is_empty() {
        return Ok(());
    }
    say_length(&mut desk.request);
    if desk.marks.scripts.is_unframed {
        // A script may change the body's length: it is sent in chunks.
        desk.request.fields.remove(Known::ContentLength);
    }
    let mut sealed = Box::<Sealed>::default();
    sealed.head.clone_from(&desk.request);
    for index in 0..promise.parts.len() {
        let (done, allowed) = match promise.parts[index] {
            Part::Injector(rules, slot) => {
                (envoys(&mut sealed, rules, slot).map(|()| false), rules.allow_without)
            }
            Part::Credential { choice, places, .. } => {
                sealed.is_verified = true;
                let done = add(site, &mut sealed, (choice, places), promise);
                (done.map(|()| true), choice.credential.allow_without)
            }
        };
        let done = done.and_then(|is_recorded| {
            if is_recorded {
                let version = promise.used.as_ref().map_or("", |used| used.version());
                let told = (version, promise.uses_previous);
                promise.tickets.push(record::injected(site, (desk, plan), trace, told)?);
            }
            Ok(())
        });
        let Err(refusal) = done else { continue };
        if !allowed || refusal == Refusal::Unrecorded {
            record::refused(site, (desk, plan), trace, refusal);
            return Err(refusal.reply(plan));
        }
        record::without(site, (desk, plan), trace);
    }
    for name in &sealed.names {
        if !desk.marks.injected.iter().any(|known| **known == **name) {
            desk.marks.injected.push(name.as_str().into());
        }
    }
    desk.sealed = Some(sealed);
    Ok(())
}

/// As Envoy: who could send a body and does not says so. Said before anything is signed.
pub(in crate::http) fn say_length(head: &mut RequestHead) {
    let may_have_body = !matches!(
        head.method(),
        Method::Get | Method::Head | Method::Delete | Method::Connect | Method::Trace
    );
    if may_have_body && head.framing() == Framing::None {
        head.fields.set_trusted(Known::ContentLength, b"0");
    }
}

/// The values of now, or of the version before.
pub(super) fn values(
    site: Site<'_>,
    places: &Places,
    is_previous: bool,
) -> Result<Arc<GenericSecret>, Refusal> {
    let slot = if is_previous { &places.previous } else { &places.current };
    let secret = slot.as_ref().and_then(|slot| slot.generic());
    let fresh = secret.filter(|secret| !secret.is_expired(site.worker.wall_now()));
    if fresh.is_none() {
        places.forget(is_previous);
    }
    fresh.ok_or(Refusal::Unavailable)
}

fn add(
    site: Site<'_>,
    sealed: &mut Sealed,
    (choice, places): (Choice<'_>, &Places),
    promise: &mut Promise<'_>,
) -> Result<(), Refusal> {
    let name = &choice.credential.name;
    let how = match &choice.credential.injection {
        Injection::ClientCertificate => return Ok(()),
        Injection::Signed(signature) => {
            let secret = values(site, places, promise.uses_previous)?;
            promise.used = Some(Arc::clone(&secret));
            How::Signed { signature, places, secret, is_previous: promise.uses_previous }
        }
        Injection::Token(token) => {
            let held = promise.tokens.iter().find(|(of, _)| Arc::ptr_eq(of, name));
            let (_, held) = held.ok_or(Refusal::Unavailable)?;
            // A request that waited for long before its last try.
            if !held.is_good(site.worker.now()) {
                return Err(Refusal::Unavailable);
            }
            promise.used = Some(Arc::clone(&held.secret));
            How::Token { token, held: Arc::clone(held) }
        }
    };
    let edits = edits(site, sealed, promise, how).map_err(|error| {
        warn!(credential = %name, error, "a request cannot be given its credential");
        Refusal::Unavailable
    })?;
    apply(sealed, &edits)
}

/// What is added.
enum How<'h> {
    /// A value as it is, or a signature.
    Signed {
        signature: &'h Signature,
        places: &'h Places,
        secret: Arc<GenericSecret>,
        is_previous: bool,
    },
    /// A token that was fetched.
    Token { token: &'h TokenUse, held: Arc<Held> },
}

fn edits(
    site: Site<'_>,
    sealed: &Sealed,
    promise: &Promise<'_>,
    how: How<'_>,
) -> Result<Edits, String> {
    let head = &sealed.head;
    let text = |bytes| std::str::from_utf8(bytes).map_err(|error| error.to_string());
    let mut named = SmallVec::<[(Cow<'_, str>, &[u8]); 24]>::new();
    for (known, name, value) in head.fields.iter_known() {
        match known {
            Some(Known::Host) => {}
            Some(known) => named.push((known.name().into(), value)),
            None => named.push((lower(text(name)?), value)),
        }
    }
    let fields: SmallVec<[(&str, &[u8]); 24]> =
        named.iter().map(|(name, value)| (&**name, *value)).collect();
    let algorithm = match &how {
        How::Signed { signature, .. } => signature.scheme().needs_body().map(|need| need.algorithm),
        How::Token { .. } => None,
    };
    let body = promise.digests.iter().find(|digest| Some(digest.algorithm()) == algorithm);
    let view = RequestView {
        method: text(head.method_name())?,
        // Nothing else is let through by the guard.
        scheme: "https",
        authority: text(head.authority())?,
        path_and_query: text(head.path())?,
        fields: &fields,
        body,
    };
    let moment = moment(site.worker).map_err(|error| error.to_string())?;
    match how {
        How::Signed { signature, places, secret, is_previous } => {
            places.with_signer(signature, (&secret, is_previous), |signer| {
                signer.sign(&view, &moment).map_err(|error| error.to_string())
            })
        }
        How::Token { token, held } => {
            let config = site.worker.peek_config();
            let (tokens, flow) = (&config.settings.tokens, token.flow());
            let key = flow.is_bound().then(|| tokens.key()).transpose();
            let key = key.map_err(|error| error.to_string())?;
            let nonce = tokens.nonce(view.authority);
            let dpop = key.map(|key| (key, nonce.as_deref()));
            flow.carry(&held.token, &view, &moment, dpop).map_err(|error| error.to_string())
        }
    }
}

fn lower(name: &str) -> Cow<'_, str> {
    let is_lower = !name.bytes().any(|byte| byte.is_ascii_uppercase());
    if is_lower { name.into() } else { name.to_ascii_lowercase().into() }
}

fn apply(sealed: &mut Sealed, edits: &Edits) -> Result<(), Refusal> {
    let Sealed { head, names, .. } = sealed;
    let unfit = |_| Refusal::Unavailable;
    let lines = edits.set().map(|(name, value)| name.len() + value.len() + LINE_BYTES_MORE);
    let target = edits.path_and_query().map_or(0, str::len);
    head.fields.make_room(lines.sum::<usize>() + target + CODEC_BYTES_MAX);
    for gone in edits.removed() {
        head.fields.remove_where(|name, _| sluis_rules::is_same(gone, name));
    }
    for (name, value) in edits.set() {
        head.fields.remove_where(|known, _| sluis_rules::is_same(name, known));
        head.fields.set(name.as_bytes(), value).map_err(unfit)?;
        names.push(name.to_owned());
    }
    match edits.path_and_query() {
        Some(path) => head.set_path(path.as_bytes()).map_err(unfit),
        None => Ok(()),
    }
}

/// What Envoy's filter does.
fn envoys(sealed: &mut Sealed, rules: &Injector, slot: Option<&Arc<Slot>>) -> Result<(), Refusal> {
    let name = rules.header.as_bytes();
    if !rules.overwrites && sealed.head.fields.get_name(name).is_some() {
        return Ok(());
    }
    let secret = slot.and_then(|slot| slot.generic()).ok_or(Refusal::NotInjected)?;
    let value = secret.entry("").filter(|value| !value.is_empty()).ok_or(Refusal::NotInjected)?;
    let value = zeroize::Zeroizing::new([rules.prefix.as_bytes(), value].concat());
    let bytes = name.len() + value.len() + LINE_BYTES_MORE;
    sealed.head.fields.make_room(bytes + CODEC_BYTES_MAX);
    sealed.head.fields.set(name, &value).map_err(|_| Refusal::NotInjected)?;
    sealed.names.push(rules.header.to_string());
    Ok(())
}
