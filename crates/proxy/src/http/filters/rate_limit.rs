//! The local rate limit filter: turns requests away when their bucket is empty.

use std::{cell::RefCell, collections::HashMap, sync::Arc};

use sluis_rules::{FilterSetting, LocalRateLimit};

use super::Stage;
use crate::{
    access_log::Flag,
    buckets::Bucket,
    http::{
        desk::Desk,
        mutate,
        reply::{Reply, Unsent},
        text::number,
    },
};

/// Buckets of connections that one worker remembers; beyond it the oldest configuration's go.
const KEPT_MAX: usize = 4096;

const RESOURCE_EXHAUSTED: u32 = 8;

/// The filter on one worker.
#[derive(Debug)]
pub(super) struct RateLimit {
    own: Arc<LocalRateLimit>,
    /// The process' buckets, by the limit's place in memory, which the entry keeps alive, and by
    /// connection where each has its own.
    buckets: RefCell<HashMap<(usize, u64), Known>>,
}

/// A limit, and its bucket where it has one.
type Known = (Arc<LocalRateLimit>, Option<Arc<Bucket>>);

impl RateLimit {
    pub(super) fn new(own: &Arc<LocalRateLimit>) -> Self {
        Self { own: Arc::clone(own), buckets: RefCell::default() }
    }

    fn bucket(&self, limit: &Arc<LocalRateLimit>, stage: Stage<'_, '_>) -> Option<Arc<Bucket>> {
        let connection = if limit.per_connection { stage.scene.connection.id } else { u64::MAX };
        let mut buckets = self.buckets.borrow_mut();
        if buckets.len() > KEPT_MAX {
            buckets.clear();
        }
        let (_, bucket) =
            buckets.entry((Arc::as_ptr(limit) as usize, connection)).or_insert_with(|| {
                let bucket = match limit.per_connection {
                    true => limit.bucket.map(|settings| Arc::new(Bucket::full(settings))),
                    false => stage.scene.worker.peek_config().settings.buckets.of(limit),
                };
                (Arc::clone(limit), bucket)
            });
        bucket.clone()
    }

    pub(super) fn on_request<'c>(
        &self,
        name: &str,
        stage: Stage<'_, 'c>,
        desk: &mut Desk,
    ) -> Result<(), Box<Reply<'c>>> {
        let said = stage.matched.and_then(|matched| {
            matched.settings(name).find_map(|setting| match setting {
                FilterSetting::RateLimit(limit) => Some(limit),
                _ => None,
            })
        });
        let limit = said.unwrap_or(&self.own);
        let random = stage.scene.worker.random();
        if !limit.enabled.holds(random.next()) {
            return Ok(());
        }
        let Some(bucket) = self.bucket(limit, stage) else { return Ok(()) };
        let has_token = bucket.take(stage.scene.now.into_std());
        let is_refused = !has_token && limit.enforced.holds(random.next());
        desk.marks.limited = Some((Arc::clone(limit), bucket, is_refused));
        if has_token {
            return Ok(());
        }
        if !is_refused {
            for edit in &limit.request_set {
                let Desk { request, text, .. } = desk;
                mutate::edit_request(stage.scene, edit, request, stage.trace, text)
                    .map_err(|_| Reply::fault())?;
            }
            return Ok(());
        }
        let mut reply = Reply::new(limit.status, "local_rate_limited")
            .text("local_rate_limited")
            .flag(Flag::RateLimited);
        reply.grpc_status = limit.is_resource_exhausted.then_some(RESOURCE_EXHAUSTED);
        reply.matched = stage.matched.copied();
        Err(reply.into())
    }

    pub(super) fn on_response(stage: Stage<'_, '_>, desk: &mut Desk) -> Result<(), Unsent> {
        let Some((limit, bucket, is_refused)) = desk.marks.limited.take() else {
            return Ok(());
        };
        if is_refused {
            for edit in &limit.response_set {
                let Desk { request, response, text, .. } = desk;
                let fields = &mut response.fields;
                mutate::edit_response(stage.scene, edit, request, fields, stage.trace, text)?;
            }
        }
        if limit.says_state {
            let left = bucket.left(stage.scene.worker.now().into_std());
            for (name, value) in [
                (&b"x-ratelimit-limit"[..], u64::from(left.tokens_max)),
                (b"x-ratelimit-remaining", left.tokens),
                (b"x-ratelimit-reset", left.reset_seconds),
            ] {
                number(value, &mut desk.text);
                desk.response.fields.append(name, &desk.text).map_err(|_| Unsent::Fault)?;
            }
        }
        Ok(())
    }
}
