//! The RBAC filter: answers 403 where no policy lets a request pass.

use std::sync::Arc;

use sluis_rules::{FilterSetting, Matched, RbacFacts, RbacFilter};
use tracing::debug;

use crate::{
    http::{desk::Desk, reply::Reply, scene::Scene, trace::Trace},
    rbac::{Guard, peer_facts, tell},
    worker::Worker,
};

/// The filter on one worker.
#[derive(Debug)]
pub(super) struct Rbac {
    own: Arc<RbacFilter>,
    guard: Guard,
}

impl Rbac {
    pub(super) fn new(worker: &Worker, own: &Arc<RbacFilter>, manager: &str) -> Self {
        Self { own: Arc::clone(own), guard: Guard::http(worker.stats(), manager, own) }
    }

    pub(super) fn on_request<'c>(
        &self,
        name: &str,
        scene: Scene<'_>,
        matched: Option<&Matched<'c>>,
        desk: &Desk,
        trace: &mut Trace<'c>,
    ) -> Result<(), Box<Reply<'c>>> {
        let said = matched.and_then(|matched| {
            matched.settings(name).find_map(|setting| match setting {
                FilterSetting::Rbac(filter) => Some(filter),
                _ => None,
            })
        });
        let filter = said.unwrap_or(&self.own);
        let request = scene.facts(&desk.request);
        let mut told = Vec::new();
        let facts = RbacFacts {
            peer: peer_facts(scene.connection, trace.client),
            request: Some(&request),
            metadata: &trace.metadata,
        };
        let decided = self.guard.decide(scene.worker.stats(), filter, &facts, &mut told);
        tell(&mut trace.metadata, told);
        decided.map_err(|details| {
            debug!(remote = %scene.connection.remote, details, "RBAC: request denied");
            let mut reply = Reply::new(403, details).text("RBAC: access denied");
            reply.matched = matched.copied();
            reply.into()
        })
    }
}
