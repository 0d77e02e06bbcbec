//! One HTTP manager, compiled for one worker.

use std::sync::Arc;

use sluis_http1::{EscapedSlashes, Limits, PathRules, Slashes};
use sluis_rules::{AlpnOverride, HttpFilterKind, HttpManager};

use super::filters::Chain;
use crate::{
    access_log::{FormatError, Logs},
    worker::Worker,
};

/// Why a manager cannot serve.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProgramError {
    #[error("access log: {0}")]
    Log(#[from] FormatError),
}

/// A manager with what is derived from it.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) manager: Arc<HttpManager>,
    pub(super) logs: Logs,
    pub(super) limits: Limits,
    pub(super) paths: PathRules,
    pub(super) chain: Chain,
    /// Whether no `x-envoy-*` fields of ours are sent, either way.
    pub(super) hides_envoy: bool,
    /// What is offered in TLS towards endpoints.
    pub(super) alpn: Option<Arc<AlpnOverride>>,
    /// Whether a timeout that a proxy before us has set is kept as it is.
    pub(super) respects_expected_timeout: bool,
}

impl Program {
    pub(super) fn new(worker: &Worker, manager: &Arc<HttpManager>) -> Result<Self, ProgramError> {
        let (mut hides_envoy, mut respects_expected_timeout) = (false, false);
        let mut alpn = None;
        for filter in &manager.filters {
            if let HttpFilterKind::Alpn(own) = &filter.kind
                && !filter.disabled
            {
                alpn = Some(Arc::clone(own));
            }
            if let HttpFilterKind::Router(options) = &filter.kind {
                hides_envoy = options.suppress_envoy_headers;
                respects_expected_timeout = options.respects_expected_timeout;
            }
        }
        Ok(Self {
            manager: Arc::clone(manager),
            logs: Logs::compile(&manager.access_logs)?,
            limits: limits(manager),
            paths: paths(manager),
            chain: Chain::new(worker, manager),
            hides_envoy,
            alpn,
            respects_expected_timeout,
        })
    }
}

fn limits(manager: &HttpManager) -> Limits {
    let bytes = |value: u32| usize::try_from(value).unwrap_or(usize::MAX);
    let default = Limits::default();
    Limits {
        // A larger limit than our buffers can hold has no effect.
        head_bytes_max: bytes(manager.max_request_headers_bytes).min(default.head_bytes_max),
        fields_max: bytes(manager.http.max_headers).min(default.fields_max),
        ..default
    }
}

fn paths(manager: &HttpManager) -> PathRules {
    PathRules {
        is_normal: manager.path.normalize,
        slashes: if manager.path.merge_slashes { Slashes::Merge } else { Slashes::Keep },
        escaped_slashes: match manager.path.escaped_slashes {
            sluis_rules::EscapedSlashes::Keep => EscapedSlashes::Keep,
            sluis_rules::EscapedSlashes::Reject => EscapedSlashes::Reject,
            sluis_rules::EscapedSlashes::Redirect => EscapedSlashes::Redirect,
            sluis_rules::EscapedSlashes::Decode => EscapedSlashes::Unescape,
        },
    }
}
