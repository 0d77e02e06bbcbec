//! What filters remember of a request until its response.

use std::sync::Arc;

use sluis_rules::LocalRateLimit;

use super::{change::Change, strand::Scripts, under_way::UnderWay};
use crate::buckets::Bucket;

/// What filters remember of a request until its response.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// What a response must say of who may read it.
    pub(super) cors: Vec<(&'static [u8], Vec<u8>)>,
    /// The rate limit that was decided by, its bucket, and whether the request was refused.
    pub(super) limited: Option<(Arc<LocalRateLimit>, Arc<Bucket>, bool)>,
    /// Counts a request among those that suffer a fault, until it is done.
    pub(super) suffering: Option<UnderWay>,
    /// What the authorization service's answer does to the response.
    pub(super) authz: Vec<Change>,
    /// Cookies that keep the client at its endpoint.
    pub(super) cookies: Vec<String>,
    /// What scripts want, and what they wait for.
    pub(super) scripts: Scripts,
    /// The fields that were injected, for which logs show that and no more.
    pub(super) injected: Vec<Box<str>>,
}
