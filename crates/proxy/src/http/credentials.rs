//! Credentials that are added to a request last of all: chosen by who asks and for what, only ever
//! for an endpoint whose certificate was verified for the request's host.
//!
//! In:    a request as its route wants it, its connection, the cluster's filters.
//! Out:   a [`Promise`] that each attempt keeps; the request in the form in which it is sent, apart
//!        from the one that logs, mirrors and filters see.
//! Never: sends a request that was promised a credential without it, unless the configuration says
//!        so; lets a client set what only the proxy may set; puts a value where it can be logged.
//!
//! Start at [`admit`], then [`guard`] and [`seal`].

mod choose;
mod echo;
mod record;
mod sealed;
mod tokens;

use std::sync::Arc;

use sluis_rules::{Choice, Credentials, Injector};
use sluis_signing::Digest;
use sluis_tls::{GenericSecret, Slot};

pub(super) use choose::{admit, guard};
pub(super) use echo::{Judged, judge_body, judge_head};
pub(super) use record::{ended, redact};
pub(super) use sealed::{say_length, seal};

use super::{plan::Plan, reply::Reply};
use crate::{
    access_log::Flag,
    audit::{AuditUnavailable, Ticket},
    credentials::{Held, Places},
};

/// What was promised to one request: kept at each attempt, and at none with another's values.
#[derive(Debug, Default)]
pub(super) struct Promise<'c> {
    parts: Vec<Part<'c>>,
    /// Of the request's body, by each algorithm that is needed.
    digests: Vec<Digest>,
    /// Tokens that were fetched, each with its credential's name.
    tokens: Vec<(Arc<str>, Arc<Held>)>,
    /// Whether a server's nonce has already led to one more try.
    has_new_nonce: bool,
    /// Whether the version before is tried.
    uses_previous: bool,
    /// The version of the last attempt.
    used: Option<Arc<GenericSecret>>,
    /// The records of the attempt that is under way.
    tickets: Vec<Ticket>,
}

/// One filter's part.
#[derive(Clone, Copy, Debug)]
enum Part<'c> {
    /// A credential by a grant.
    Credential { choice: Choice<'c>, rules: &'c Credentials, places: &'c Places },
    /// Envoy's filter.
    Injector(&'c Injector, Option<&'c Arc<Slot>>),
}

impl<'c> Promise<'c> {
    /// Whether anything was promised.
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    fn choices(&self) -> impl Iterator<Item = (&Choice<'c>, &'c Places)> {
        self.parts.iter().filter_map(|part| match part {
            Part::Credential { choice, places, .. } => Some((choice, *places)),
            Part::Injector(..) => None,
        })
    }

    /// Bytes of the response's body that are searched before any of it goes on.
    pub(super) fn scan_bytes(&self) -> usize {
        let bytes = self.choices().map(|(choice, _)| choice.credential.guard.scan_bytes);
        bytes.max().unwrap_or(0)
    }

    /// Whether the response must not bring what only its head may be asked about.
    pub(super) fn guards_response(&self) -> bool {
        self.choices().any(|(choice, _)| {
            let guard = &choice.credential.guard;
            guard.scan_bytes > 0 || !guard.strip_response.is_empty()
        })
    }

    /// Whether a try with the version before, or with a nonce, may follow.
    pub(super) fn may_fall_back(&self) -> bool {
        self.is_bound()
            || self.choices().any(|(_, places)| {
                places.previous.as_ref().is_some_and(|slot| slot.generic().is_some())
            })
    }

    /// Tries the version before next, or the same token with the nonce that its server gave.
    pub(super) fn fall_back(&mut self) {
        if self.tokens.is_empty() {
            self.uses_previous = true;
        } else {
            self.has_new_nonce = true;
        }
    }
}

/// Why a request is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// No grant covers it.
    Denied,
    /// It was used too often.
    Limited,
    /// There is no value, or it cannot be added.
    Unavailable,
    /// It would go where it must not.
    Guarded,
    /// Envoy's filter has no value.
    NotInjected,
    /// That it was used could not be recorded.
    Unrecorded,
}

impl Refusal {
    /// Why, in the words of the access log.
    fn details(self) -> &'static str {
        match self {
            Self::Denied => "credential_denied",
            Self::Limited => "credential_limited",
            Self::Unavailable => "credential_unavailable",
            Self::Guarded => "credential_guard",
            // As in Envoy.
            Self::NotInjected => "failed_to_inject_credential",
            Self::Unrecorded => AuditUnavailable::DETAILS,
        }
    }

    fn reply<'c>(self, plan: &Plan<'c>) -> Box<Reply<'c>> {
        let (status, flag, text) = match self {
            Self::Denied => (403, Some(Flag::CredentialDenied), "credential denied"),
            Self::Limited => (429, Some(Flag::CredentialDenied), "credential used too often"),
            Self::Unavailable | Self::Unrecorded => {
                (503, Some(Flag::CredentialUnavailable), "credential unavailable")
            }
            Self::Guarded => (503, Some(Flag::CredentialGuarded), "credential must not go there"),
            // As in Envoy.
            Self::NotInjected => (401, None, "Failed to inject credential."),
        };
        let reply = Reply::new(status, self.details()).text(text).of(plan.matched);
        Reply { flag, ..reply }.into()
    }
}
