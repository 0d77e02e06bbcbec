//! Turns discovery requests into the session's terms, and responses back but for their resources.
//!
//! In:    `DiscoveryRequest` and `DeltaDiscoveryRequest` off the wire; the session's [`Response`].
//! Out:   [`Ask`]; `DiscoveryResponse` and `DeltaDiscoveryResponse`, to which the resources are added as
//!        they are written.
//! Never: remembers anything.

use envoy_types::pb::{
    envoy::{
        config::core::v3::ControlPlane,
        service::discovery::v3::{
            DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
        },
    },
    google::rpc::Status,
};
use sluis_envoy::Kind;

use crate::session::{Ask, Names, Response};

/// How the control plane calls itself in its responses.
const IDENTIFIER: &str = "sluis";

/// A request for a type that is not served, with the type's URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("type {0:?} is not served")]
pub(crate) struct Unserved(pub(crate) String);

/// Reads a request of the state-of-the-world form.
pub(crate) fn ask_sotw(request: DiscoveryRequest) -> Result<Ask, Unserved> {
    Ok(Ask {
        kind: served(request.type_url)?,
        nonce: request.response_nonce,
        error: request.error_detail.map(detail),
        names: Names::All(request.resource_names),
    })
}

/// Reads a request of the incremental form.
pub(crate) fn ask_delta(request: DeltaDiscoveryRequest) -> Result<Ask, Unserved> {
    Ok(Ask {
        kind: served(request.type_url)?,
        nonce: request.response_nonce,
        error: request.error_detail.map(detail),
        names: Names::Change {
            subscribe: request.resource_names_subscribe,
            unsubscribe: request.resource_names_unsubscribe,
            held: request.initial_resource_versions,
        },
    })
}

/// A response of the state-of-the-world form, without its resources.
pub(crate) fn sotw(response: Response) -> DiscoveryResponse {
    DiscoveryResponse {
        version_info: response.version,
        type_url: response.kind.type_url().to_owned(),
        nonce: response.nonce,
        control_plane: Some(control_plane()),
        ..DiscoveryResponse::default()
    }
}

/// A response of the incremental form, without its resources.
pub(crate) fn delta(response: Response) -> DeltaDiscoveryResponse {
    DeltaDiscoveryResponse {
        system_version_info: response.version,
        type_url: response.kind.type_url().to_owned(),
        removed_resources: response.removed,
        nonce: response.nonce,
        control_plane: Some(control_plane()),
        ..DeltaDiscoveryResponse::default()
    }
}

fn served(type_url: String) -> Result<Kind, Unserved> {
    Kind::from_type_url(&type_url).ok_or(Unserved(type_url))
}

/// A refusal without words is still a refusal.
fn detail(status: Status) -> String {
    if status.message.is_empty() { format!("code {}", status.code) } else { status.message }
}

fn control_plane() -> ControlPlane {
    ControlPlane { identifier: IDENTIFIER.to_owned() }
}
