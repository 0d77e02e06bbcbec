//! Serves HTTP/1.1 on a connection: reads requests, decides, forwards, answers, logs.
//!
//! In:    a connection with its facts, the HTTP manager that serves it, the worker.
//! Out:   requests to endpoints, responses to the client, one log record per request.
//! Never: spawns a task or sends through a channel for a request. The connection's one task drives
//!        its upstream itself, both ways at once.
//!
//! ```text
//!   Connection ──head──▶ decide ──▶ Reply ─────────────────────▶ client
//!       ▲                  │                                        │
//!       │                  └──▶ Forward ──▶ pool or dial ──▶ Flight ┤
//!       └───────────────────── keep-alive ──────────────────────────┘
//! ```
//!
//! Start at [`serve`], then `connection`, `decide`, `forward`, `flight`.

mod attempt;
mod buffer;
mod client;
mod clock;
mod connection;
mod decide;
mod direct;
mod edge;
mod exchange;
mod facts;
mod failure;
mod filters;
mod flight;
mod forward;
mod kept;
mod link;
mod mirror;
mod mutate;
mod pool;
mod program;
mod reply;
mod respond;
mod retry;
mod rewrite;
mod settle;
mod state;
mod timeouts;
mod trace;

use std::{rc::Rc, sync::Arc};

use sluis_rules::{Codec, HttpManager};
use tracing::debug;

use crate::{conn::Downstream, stats::Counter, worker::Worker};
use client::Protocol;
pub use state::WorkerState;

impl Protocol {
    fn of(downstream: &Downstream, manager: &HttpManager) -> Self {
        match (manager.codec, downstream.io.alpn()) {
            (Codec::Http2, _) | (Codec::Auto, Some(b"h2")) => Self::Http2,
            _ => Self::Http1,
        }
    }
}

/// Serves a connection until it ends.
pub async fn serve(downstream: Downstream, manager: Arc<HttpManager>, worker: Rc<Worker>) {
    worker.stats().inc(Counter::HttpCxTotal);
    if Protocol::of(&downstream, &manager) == Protocol::Http2 {
        debug!(listener = %downstream.facts.listener, "HTTP/2 is not served yet: connection closed");
        return;
    }
    // Without its logs and filters a manager must not serve: the connection is closed.
    let Some(program) = worker.http.program(&worker, &manager) else { return };
    connection::Connection::new(downstream, program, worker).run().await;
}
