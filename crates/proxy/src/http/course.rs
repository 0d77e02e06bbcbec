//! What all tries of one request share.

use std::cell::RefCell;

use sluis_rules::Address;

use super::{
    credentials::Promise, flight::Deadlines, plan::Plan, retry::Tries, site::Site, trace::Trace,
};
use crate::{access_log::Flag, hosts::Permit, stats::Counter};

/// What all tries of one request share.
pub(super) struct Course<'p, 'c> {
    pub(super) plan: &'p Plan<'c>,
    pub(super) tries: Tries<'c>,
    pub(super) deadlines: Deadlines,
    /// How many endpoints have been chosen.
    pub(super) draws: u32,
    /// Those that were tried, where the policy asks for others.
    pub(super) tried: Vec<Address>,
    /// The priorities of those that were tried, where the policy looks at them.
    pub(super) priorities: Vec<u32>,
    /// What chooses the endpoint, for clusters that choose by hash.
    pub(super) hash: Option<u64>,
    /// Whether what an endpoint got can still be sent to another.
    pub(super) is_repeatable: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub(super) owes_continue: bool,
    /// Whether the body is taken apart: a further try cannot take it as it came.
    pub(super) is_relayed: bool,
    /// Whether scripts watch a body.
    pub(super) is_watched: bool,
    /// Counts the retry that is under way.
    pub(super) retrying: RefCell<Option<Permit>>,
    /// The credentials that each try gets.
    pub(super) promise: Promise<'c>,
}

impl Course<'_, '_> {
    /// Whether a response of this status is to be tried again, and the limits allow it.
    pub(super) fn wants_another(
        &self,
        site: Site<'_>,
        trace: &mut Trace<'_>,
        status: u16,
        headers: impl Fn(&str, &mut dyn FnMut(&[u8])),
    ) -> bool {
        self.is_repeatable && self.tries.wants(status, headers) && self.may_retry(site, trace)
    }

    /// Takes a place among the cluster's retries.
    pub(super) fn may_retry(&self, site: Site<'_>, trace: &mut Trace<'_>) -> bool {
        let mut retrying = self.retrying.borrow_mut();
        // The retry before is over; as in Envoy it makes room for this one.
        drop(retrying.take());
        let backend = self.plan.backend;
        *retrying = backend.group.retry(&backend.limits, self.plan.priority());
        if retrying.is_none() {
            site.worker.stats().inc(Counter::UpstreamRetryOverflow);
            trace.flags.set(Flag::UpstreamOverflow);
        }
        retrying.is_some()
    }
}
