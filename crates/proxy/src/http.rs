//! Serves HTTP/1.1 and HTTP/2 on a connection: reads requests, decides, forwards, answers, logs.
//!
//! In:    a connection with its facts, the HTTP manager that serves it, the worker.
//! Out:   requests to endpoints, responses to the client, one log record per request.
//! Never: spawns a task or sends through a channel for a request of HTTP/1 to HTTP/1. The
//!        connection's one task drives its upstream itself, both ways at once.
//!
//! ```text
//!   Connection ──head──▶ decide ──▶ Reply ─────────────────────▶ client
//!       ▲                  │                                        │
//!       │                  └──▶ Forward ──▶ pool or dial ──▶ Flight ┤
//!       └───────────────────── keep-alive ──────────────────────────┘
//! ```
//!
//! Imports go one way: the client's side, the exchange, deciding and forwarding, one try, the
//! endpoint's side, bytes.
//!
//! ```text
//!   connection  http1::client  http2::stream
//!   exchange ▶ decide  edge  filters  credentials ▶ routing  plan
//!   forward ▶ attempt ▶ direct  carry ▶ respond  settle
//!   call  mirror ▶ link  pool  http2::sessions
//!   relay  flight  strand ▶ message  desk ▶ buffer  kept  marks  piece
//! ```
//!
//! Start at [`serve`], then `connection`, `decide`, `forward`, `flight`; for HTTP/2 `http2`, `carry`,
//! `relay`.

mod attempt;
pub(crate) mod authz;
mod buffer;
mod call;
mod carry;
mod change;
mod client;
mod clock;
mod connection;
mod course;
mod credentials;
mod decide;
mod desk;
mod direct;
mod edge;
mod exchange;
mod facts;
mod failure;
mod filters;
mod flight;
mod forward;
mod http1;
mod http2;
mod incoming;
mod kept;
mod link;
mod marks;
mod message;
mod mirror;
mod mutate;
mod piece;
mod plan;
mod pool;
mod program;
mod protocol;
mod question;
mod relay;
mod reply;
mod respond;
mod retry;
mod rewrite;
mod routing;
mod scene;
mod sealed;
mod server;
mod settle;
mod shared;
mod site;
mod state;
mod strand;
mod text;
mod timeouts;
mod trace;
mod under_way;

use std::{rc::Rc, sync::Arc};

use sluis_rules::HttpManager;

use crate::{conn::Downstream, stats::Counter};
use protocol::Protocol;
pub use server::Server;
use site::Place;
pub use state::HttpWorker;

/// Serves a connection until it ends.
pub async fn serve(downstream: Downstream, manager: Arc<HttpManager>, server: &Server) {
    let worker = Rc::clone(&server.worker);
    worker.stats().inc(Counter::HttpCxTotal);
    // Without its logs and filters a manager must not serve: the connection is closed.
    let Some(program) = server.program(&manager) else { return };
    match Protocol::of(&downstream, &manager) {
        Protocol::Http1 => connection::Connection::new(downstream, program, worker).run().await,
        Protocol::Http2 => {
            let Downstream { io, prefix, facts, gate } = downstream;
            let place = Place { worker, program, facts, protocol: Protocol::Http2 };
            // HTTP/1 connections should not carry the size of this one.
            Box::pin(http2::connection::serve(io, prefix, Rc::new(place), gate)).await;
        }
    }
}
