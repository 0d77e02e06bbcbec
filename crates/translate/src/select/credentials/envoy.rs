//! Credentials at a gateway that is a real Envoy: what its own filters can say, and nothing else.
//!
//! In:    the credentials of one cluster, and the routes that lead there.
//! Out:   the one that Envoy's `credential_injector` adds.
//! Never: leaves out a part of a credential: what Envoy cannot do is refused with the whole cluster.

use sluis_model::Owned;
use sluis_resources::Credential;

use super::{Refused, Selection};
use crate::{CredentialInput, CredentialsInput, Fault, RouteTable};

/// The annotation, and the key of node metadata, by which a proxy is a real Envoy.
const PROXY: &str = "sluis.dev/proxy";
const ENVOY: &str = "envoy";

/// Whether the proxy is a real Envoy.
pub(super) fn is_envoy(selection: &Selection<'_>) -> bool {
    let view = selection.view;
    let of_workload = selection.snapshot.workload(&view.name);
    let written = of_workload.and_then(|workload| workload.meta().annotations.get(PROXY));
    written.or_else(|| view.node.metadata.get(PROXY)).is_some_and(|kind| kind == ENVOY)
}

pub(super) fn one(
    made: Vec<CredentialInput>,
    guarded: &[&Owned<Credential>],
    _tables: &mut [RouteTable],
) -> Result<CredentialsInput, Refused> {
    let _ = made;
    let message = "a real Envoy cannot be trusted with it yet";
    let fault = Fault::error(guarded[0].meta().at.clone(), message).field("spec.inject");
    Err((guarded[0].clone(), Box::new(fault)))
}
