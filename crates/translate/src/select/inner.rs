//! An application's TLS inside of the mesh's, both ended at a gateway (`sluis.dev/inner-tls`).
//!
//! In:    the chain of a server that ends an application's TLS, on a Gateway that accepts such clients.
//! Out:   beside it a door: a chain for clients that say they speak the mesh's TLS, which leads to the
//!        same chain in an inner listener.
//! Never: a door without the client's certificate; a policy that is asked at the door rather than inside,
//!        where the requests are.
//!
//! A sidecar forwards an HTTPS client's bytes by server name. Without the mesh's TLS around them the
//! gateway knows no identity; with it (a DestinationRule with `ISTIO_MUTUAL`), and policies and grants
//! can name the workload.

use std::collections::BTreeMap;

use sluis_resources::{ServerTls as GatewayTls, ServerTlsMode};

use super::{
    Selection, cluster,
    gateway_bytes::{MESH_ALPN, target},
    server_tls,
    serving::{Serving, listener_name, refuse},
};
use crate::{ChainInput, ClusterInput, Discovery, Handler, ListenerInput, Role, TcpOptions};

/// Says on a Gateway that its servers take the mesh's TLS around a client's own.
const ANNOTATION: &str = "sluis.dev/inner-tls";
/// The only word that it knows.
const ACCEPT: &str = "accept";
/// What stands before the name of an inner listener and of the cluster that leads there.
const PREFIX: &str = "inner_";

/// The inner listeners of a gateway, by name, as they are gathered.
#[derive(Default)]
pub(super) struct Inner {
    listeners: BTreeMap<String, ListenerInput>,
}

impl Inner {
    /// The listeners.
    pub(super) fn finish(self) -> impl Iterator<Item = ListenerInput> {
        self.listeners.into_values()
    }
}

/// The door to an inner copy of a chain, where the Gateway accepts such clients.
pub(super) fn door(
    selection: &mut Selection<'_>,
    serving: &Serving<'_>,
    chain: &ChainInput,
    inner: &mut Inner,
) -> Option<ChainInput> {
    let said = serving.gateway.meta().annotations.get(ANNOTATION)?;
    let field = format!("metadata.annotations[{ANNOTATION}]");
    let tls = serving.server.tls.as_ref()?;
    if tls.mode == ServerTlsMode::IstioMutual {
        // It is the mesh's TLS already.
        return None;
    }
    let fault = if said != ACCEPT {
        Some(format!("{said:?} is not known: it is {ACCEPT:?} or absent"))
    } else if !selection.view.node.is_ours {
        Some("needs sluis-proxy as the gateway: an Envoy would forget the identity".to_owned())
    } else {
        None
    };
    if let Some(message) = fault {
        let fault = crate::Fault::error(serving.server.at.clone(), message).field(field);
        selection.fault(serving.gateway.meta(), fault);
        return None;
    }
    let outer = GatewayTls {
        mode: ServerTlsMode::IstioMutual,
        min_version: tls.min_version,
        max_version: tls.max_version,
        at: tls.at.clone(),
        ..GatewayTls::default()
    };
    let outer = match server_tls::server(&outer, false, selection.snapshot.mesh()) {
        Ok(outer) => outer,
        Err((field, message)) => {
            refuse(selection, serving, field, message);
            return None;
        }
    };
    let name = format!("{PREFIX}{}", listener_name(selection, serving));
    let mut inside = chain.clone();
    inside.authorization.extend(Some(selection.authorization()).filter(|own| !own.is_empty()));
    let listener = inner.listeners.entry(name.clone()).or_insert_with(|| ListenerInput {
        name: name.clone(),
        address: serving.address,
        port: serving.port,
        additional: Vec::new(),
        pipe: None,
        is_internal: true,
        is_bound: false,
        known_ports: Vec::new(),
        chains: Vec::new(),
        fallback: None,
    });
    for port in [serving.port, serving.server.port.number] {
        if !listener.known_ports.contains(&port) {
            listener.known_ports.push(port);
        }
    }
    listener.known_ports.sort_unstable();
    listener.chains.push(inside);
    Some(ChainInput {
        name: format!("{PREFIX}{}", chain.name),
        alpn: MESH_ALPN.map(ToOwned::to_owned).to_vec(),
        tls: Some(outer),
        handler: Handler::Tcp {
            targets: vec![target(name.clone())],
            stat_prefix: name,
            options: TcpOptions::default(),
        },
        has_guards: false,
        ..chain.clone()
    })
}

/// Whether a chain is such a door.
pub(super) fn is_door(chain: &ChainInput) -> bool {
    chain.name.starts_with(PREFIX)
        && matches!(&chain.handler, Handler::Tcp { targets, .. }
            if targets.iter().all(|target| target.cluster.starts_with(PREFIX)))
}

/// The clusters that lead into the inner listeners.
pub(super) fn clusters(
    selection: &Selection<'_>,
    listeners: &[ListenerInput],
) -> Vec<ClusterInput> {
    debug_assert!(selection.view.role == Role::Gateway, "only gateways have doors");
    let internal = listeners.iter().filter(|listener| listener.is_internal);
    internal
        .map(|listener| {
            let leads = Discovery::Internal(listener.name.clone());
            cluster::built_in(&listener.name, leads, selection)
        })
        .collect()
}
