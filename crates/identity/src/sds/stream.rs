//! Drives one stream: requests in, secrets out, whenever either side has news.

use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::Secret as EnvoySecret;
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use sluis_envoy::{pack, type_url};
use tokio::sync::{mpsc, watch};
use tonic::{Status, Streaming};

use super::subscription::{Due, Subscription};

/// Answers that wait to be sent: one at work and one behind it. The next is made when there is
/// room, from what is current then.
pub(super) const ANSWERS_MAX: usize = 2;

/// One of the two forms of xDS.
pub(super) trait Variant: 'static {
    type Request: Send + 'static;
    type Answer: Send + 'static;

    /// Takes a request in. What it acknowledges needs no reply.
    fn take(subscription: &mut Subscription, request: Self::Request) -> Result<(), Status>;

    /// The answer with what is due.
    fn answer(due: Vec<Due>, nonce: String) -> Self::Answer;

    /// The nonce that a request replies to; empty for none.
    fn nonce(request: &Self::Request) -> &str;
}

pub(super) struct StateOfTheWorld;
pub(super) struct Delta;

impl Variant for StateOfTheWorld {
    type Request = DiscoveryRequest;
    type Answer = DiscoveryResponse;

    fn take(subscription: &mut Subscription, request: DiscoveryRequest) -> Result<(), Status> {
        check_type(&request.type_url)?;
        if let Some(error) = request.error_detail {
            tracing::warn!(names = ?request.resource_names, error = error.message,
                "Envoy refuses a secret");
        }
        subscription.replace(&request.resource_names).map_err(invalid)
    }

    fn answer(due: Vec<Due>, nonce: String) -> DiscoveryResponse {
        // Only what changed: SDS, as EDS, may leave out the rest.
        DiscoveryResponse {
            version_info: due.first().map_or("", |first| first.secret.fingerprint()).to_owned(),
            resources: due.iter().map(|due| pack(&due.secret.to_envoy(&due.name))).collect(),
            type_url: type_url::<EnvoySecret>(),
            nonce,
            ..DiscoveryResponse::default()
        }
    }

    fn nonce(request: &DiscoveryRequest) -> &str {
        &request.response_nonce
    }
}

impl Variant for Delta {
    type Request = DeltaDiscoveryRequest;
    type Answer = DeltaDiscoveryResponse;

    fn take(subscription: &mut Subscription, request: DeltaDiscoveryRequest) -> Result<(), Status> {
        check_type(&request.type_url)?;
        if let Some(error) = request.error_detail {
            tracing::warn!(error = error.message, "Envoy refuses a secret");
        }
        for name in &request.resource_names_unsubscribe {
            subscription.unsubscribe(name);
        }
        for name in &request.resource_names_subscribe {
            subscription.subscribe(name).map_err(invalid)?;
        }
        for (name, version) in &request.initial_resource_versions {
            subscription.already_has(name, version);
        }
        Ok(())
    }

    fn answer(due: Vec<Due>, nonce: String) -> DeltaDiscoveryResponse {
        let resources = due.into_iter().map(|due| Resource {
            version: due.secret.fingerprint().to_owned(),
            resource: Some(pack(&due.secret.to_envoy(&due.name))),
            name: due.name,
            ..Resource::default()
        });
        DeltaDiscoveryResponse {
            resources: resources.collect(),
            type_url: type_url::<EnvoySecret>(),
            nonce,
            ..DeltaDiscoveryResponse::default()
        }
    }

    fn nonce(_: &DeltaDiscoveryRequest) -> &str {
        // A delta request is never stale: it says what to add and what to take away.
        ""
    }
}

/// Runs until either side ends the stream.
pub(super) async fn drive<V: Variant>(
    mut subscription: Subscription,
    mut requests: Streaming<V::Request>,
    answers: mpsc::Sender<Result<V::Answer, Status>>,
    mut stopping: watch::Receiver<bool>,
) {
    let mut changes = subscription.store().changes();
    let mut sent: u64 = 0;
    loop {
        tokio::select! {
            request = requests.message() => {
                let Ok(Some(request)) = request else { return };
                let nonce = V::nonce(&request);
                if !nonce.is_empty() && nonce != sent.to_string() {
                    continue;
                }
                if let Err(status) = V::take(&mut subscription, request) {
                    // The client may be gone already.
                    let _ = answers.send(Err(status)).await;
                    return;
                }
            }
            changed = changes.changed() => if changed.is_err() { return },
            () = stopped(&mut stopping) => return,
        }
        // Room first: what is due is judged by what is current when it can be sent.
        let Ok(place) = answers.reserve().await else { return };
        let due = subscription.take_due();
        if !due.is_empty() {
            sent += 1;
            place.send(Ok(V::answer(due, sent.to_string())));
        }
    }
}

async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error means that the server is gone.
    let _ = stopping.wait_for(|stop| *stop).await;
}

fn check_type(found: &str) -> Result<(), Status> {
    if found.is_empty() || found == type_url::<EnvoySecret>() {
        return Ok(());
    }
    Err(Status::invalid_argument(format!("{found} is not served here, only secrets")))
}

fn invalid(error: sluis_tls::StoreError) -> Status {
    Status::invalid_argument(error.to_string())
}
