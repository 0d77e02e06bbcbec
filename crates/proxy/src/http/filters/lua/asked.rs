//! Calls of scripts to other services.
//!
//! In:    a call, the configuration it was made under.
//! Out:   the answer as the script gets it: 503 where there was none, as from Envoy.
//! Never: waits without a limit.

use std::{rc::Rc, sync::Arc};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Uri, uri};
use sluis_rules::Address;
use sluis_script::{Answer, Call};
use tracing::debug;

use crate::{
    conn::ConnectionFacts,
    http::{
        call,
        failure::Failure,
        protocol::Protocol,
        question::{CallError, Question},
        shared::Shared,
        state::HttpWorker,
        strand::{Asking, Ground, shown::is_framing},
    },
    stats::Counter,
};

/// Longest body of an answer that a script gets.
const ANSWER_BYTES_MAX: usize = 4 << 20;

/// What scripts stand on: it outlives the exchange while a call is under way.
#[derive(Debug)]
pub(in crate::http) struct Standing {
    pub(in crate::http) worker: Rc<HttpWorker>,
    pub(in crate::http) facts: Arc<ConnectionFacts>,
    pub(in crate::http) protocol: Protocol,
}

impl Ground for Standing {
    fn connection(&self) -> &ConnectionFacts {
        &self.facts
    }

    fn protocol(&self) -> Protocol {
        self.protocol
    }

    fn config(&self) -> Rc<Shared> {
        self.worker.http.config(&self.worker)
    }

    fn call(self: Rc<Self>, config: Rc<Shared>, call: Call) -> Asking {
        Asking::new(async move { ask(&self, &config, &call).await })
    }

    fn failed(&self) {
        self.worker.stats().inc(Counter::LuaErrors);
    }
}

/// Makes a call.
async fn ask(from: &Standing, config: &Shared, call: &Call) -> Answer {
    let Some(backend) = config.backend(&call.cluster) else { return Answer::failure() };
    let our_address = match &from.facts.local {
        Address::Socket(local) => Some(local.ip().to_string()),
        Address::Pipe(_) | Address::Internal(_) => None,
    };
    let Some(question) = question(call, our_address.as_deref()) else {
        debug!(cluster = call.cluster, "a script's call cannot be expressed");
        return Answer::failure();
    };
    match call::ask(&from.worker, backend, &question, (call.timeout, false)).await {
        Ok(answer) => Answer {
            status: answer.status,
            headers: answer
                .headers
                .iter()
                .filter(|(name, _)| !is_hop(name))
                .map(|(name, value)| (name.as_str().into(), value.as_bytes().to_vec()))
                .collect(),
            body: answer.body,
        },
        Err(error) => {
            debug!(cluster = call.cluster, %error, "a script's call failed");
            failed(error)
        }
    }
}

/// What a script is told of a call that failed: what a client would be told, as by Envoy.
fn failed(error: CallError) -> Answer {
    let failure = match error {
        CallError::Late => Failure::TryTimeout,
        CallError::Connect(error) => Failure::Connect(error),
        CallError::Failed(failure) => failure,
        CallError::Io(_) | CallError::Stream(_) | CallError::Malformed => {
            Failure::Closed { is_stale: false, is_unsent: false }
        }
        CallError::TooLong
        | CallError::NotHttp2
        | CallError::Credentials
        | CallError::Unverified => {
            return Answer::failure();
        }
    };
    let reply = failure.reply(false);
    let headers = vec![
        (b"content-length".to_vec(), reply.body.len().to_string().into_bytes()),
        (b"content-type".to_vec(), b"text/plain".to_vec()),
    ];
    Answer { status: reply.status, headers, body: reply.body.into_owned() }
}

/// As in Envoy: these end at the proxy.
fn is_hop(name: &HeaderName) -> bool {
    *name != http::header::CONTENT_LENGTH && is_framing(name.as_str().as_bytes())
}

fn question(call: &Call, our_address: Option<&str>) -> Option<Question> {
    let mut head = Request::new(());
    *head.method_mut() = Method::from_bytes(&call.method).ok()?;
    *head.uri_mut() = Uri::builder()
        .scheme("http")
        .authority(uri::Authority::try_from(&call.authority[..]).ok()?)
        .path_and_query(&call.path[..])
        .build()
        .ok()?;
    let headers = head.headers_mut();
    for (name, value) in &call.headers {
        // The question has a frame of its own.
        if !is_framing(name) {
            let value = HeaderValue::from_bytes(value).ok()?;
            headers.append(HeaderName::from_bytes(name).ok()?, value);
        }
    }
    headers.insert("x-envoy-internal", HeaderValue::from_static("true"));
    if let Some(address) = our_address.filter(|_| call.sends_forwarded_for) {
        headers.append("x-forwarded-for", HeaderValue::from_str(address).ok()?);
    }
    if let Some(limit) = call.timeout {
        let limit = HeaderValue::from_str(&limit.as_millis().to_string()).ok()?;
        headers.insert("x-envoy-expected-rq-timeout-ms", limit);
    }
    let body = Bytes::copy_from_slice(&call.body);
    Some(Question { head, body, answer_max: ANSWER_BYTES_MAX })
}
