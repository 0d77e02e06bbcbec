//! The fault filter: makes requests wait, or answers them with an error.

use std::{sync::Arc, time::Duration};

use sluis_http1::Fields;
use sluis_rules::{
    FaultAbort, FaultDelay, FaultFilter, FilterSetting, Fraction, RouteAction, Target,
};

use super::Stage;
use crate::{
    access_log::Flag,
    http::{desk::Desk, reply::Reply, under_way::Count},
};

const DELAY: &[u8] = b"x-envoy-fault-delay-request";
const DELAY_PERCENT: &[u8] = b"x-envoy-fault-delay-request-percentage";
const ABORT: &[u8] = b"x-envoy-fault-abort-request";
const ABORT_GRPC: &[u8] = b"x-envoy-fault-abort-grpc-request";
const ABORT_PERCENT: &[u8] = b"x-envoy-fault-abort-request-percentage";
const NODE: &[u8] = b"x-envoy-downstream-service-node";

/// Longest delay: a longer one would outlive every client.
const DELAY_MAX: Duration = Duration::from_secs(24 * 3600);

/// The filter on one worker.
#[derive(Debug)]
pub(super) struct Fault {
    own: Arc<FaultFilter>,
    /// Requests that suffer a fault now.
    active: Count,
}

impl Fault {
    pub(super) fn new(own: &Arc<FaultFilter>) -> Self {
        Self { own: Arc::clone(own), active: Count::default() }
    }

    fn settings<'s>(&'s self, name: &str, stage: Stage<'s, '_>) -> &'s FaultFilter {
        let said = stage.matched.and_then(|matched| {
            matched.settings(name).find_map(|setting| match setting {
                FilterSetting::Fault(fault) => Some(&**fault),
                _ => None,
            })
        });
        said.unwrap_or(&self.own)
    }

    /// How long a request must wait.
    pub(super) fn delay(
        &self,
        name: &str,
        stage: Stage<'_, '_>,
        desk: &mut Desk,
    ) -> Option<Duration> {
        let settings = self.settings(name, stage);
        let (delay, share) = settings.delay?;
        if !self.concerns(settings, stage, desk) {
            return None;
        }
        let fields = &desk.request.fields;
        let (time, share) = match delay {
            FaultDelay::Fixed(time) => (time, share),
            FaultDelay::Header => {
                let time = Duration::from_millis(number(fields, DELAY)?);
                (time, asked(fields, DELAY_PERCENT, share))
            }
        };
        if time.is_zero() || !share.holds(stage.scene.worker.random().next()) {
            return None;
        }
        desk.marks.suffering.get_or_insert_with(|| self.active.begin());
        Some(time.min(DELAY_MAX))
    }

    /// Answers a request in its origin's place, if it is to be.
    pub(super) fn abort<'c>(
        &self,
        name: &str,
        stage: Stage<'_, 'c>,
        desk: &mut Desk,
    ) -> Result<(), Box<Reply<'c>>> {
        let settings = self.settings(name, stage);
        let Some((abort, share)) = settings.abort else { return Ok(()) };
        // One that has waited is among those that suffer already.
        if desk.marks.suffering.is_none() && !self.concerns(settings, stage, desk) {
            return Ok(());
        }
        let fields = &desk.request.fields;
        let (answer, share) = match abort {
            FaultAbort::Http(status) => (Some((status, None)), share),
            FaultAbort::Grpc(status) => (Some((200, Some(status))), share),
            FaultAbort::Header => (wanted(fields), asked(fields, ABORT_PERCENT, share)),
        };
        let Some((status, grpc)) = answer else { return Ok(()) };
        if !share.holds(stage.scene.worker.random().next()) {
            return Ok(());
        }
        desk.marks.suffering.get_or_insert_with(|| self.active.begin());
        let body = settings.abort_body.as_deref().unwrap_or("fault filter abort");
        let mut reply = Reply::new(status, "fault_filter_abort").flag(Flag::FaultInjected);
        reply.body = body.as_bytes().to_vec().into();
        reply.grpc_status = grpc;
        reply.matched = stage.matched.copied();
        Err(reply.into())
    }

    /// Whether a request is one of those that the faults are for.
    fn concerns(&self, settings: &FaultFilter, stage: Stage<'_, '_>, desk: &Desk) -> bool {
        let fields = &desk.request.fields;
        let is_from = || {
            let node = fields.get_name(NODE);
            node.is_some_and(|node| settings.nodes.iter().any(|known| known.as_bytes() == node))
        };
        let is_to = |cluster: &Arc<str>| match stage.matched.map(|matched| &matched.route.action) {
            Some(RouteAction::Forward(forward)) => match &forward.target {
                Target::Cluster(name) => name == cluster,
                Target::Header(name) => {
                    fields.get_name(name.as_bytes()) == Some(cluster.as_bytes())
                }
                Target::Weighted(_) => false,
            },
            _ => false,
        };
        settings.active_max.is_none_or(|most| self.active.get() < most)
            && settings.cluster.as_ref().is_none_or(is_to)
            && (settings.nodes.is_empty() || is_from())
            && settings
                .headers
                .iter()
                .all(|header| header.matches(&stage.scene.facts(&desk.request)))
    }
}

/// The status that the request asks for, and that of gRPC.
fn wanted(fields: &Fields) -> Option<(u16, Option<u32>)> {
    if let Some(status) = number(fields, ABORT) {
        let status = u16::try_from(status).ok().filter(|status| (200..600).contains(status));
        return status.map(|status| (status, None));
    }
    let status = u32::try_from(number(fields, ABORT_GRPC)?).ok()?;
    Some((200, Some(status)))
}

/// The share that the request asks for, which is never more than the one configured.
fn asked(fields: &Fields, name: &[u8], share: Fraction) -> Fraction {
    let asked = number(fields, name).and_then(|percent| u32::try_from(percent).ok());
    asked.map_or(share, |percent| share.at_most(percent))
}

fn number(fields: &Fields, name: &[u8]) -> Option<u64> {
    std::str::from_utf8(fields.get_name(name)?).ok()?.trim().parse().ok()
}
