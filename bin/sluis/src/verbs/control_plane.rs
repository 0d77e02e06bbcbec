//! `sluis control-plane -f DIR`: the control plane by itself; whoever connects is a proxy.
//!
//! In:    files, watched; the state directory.
//! Out:   xDS to any client, under TLS or, on loopback, without.
//! Never: starts a proxy.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::ExitCode,
};

use anyhow::Result;

use crate::{
    cli::ControlPlaneOptions,
    plane::{self, Plane, PlaneOptions},
    supervise::Statuses,
};

/// Runs the control plane until Ctrl-C or SIGTERM.
///
/// # Errors
///
/// When another one has the state directory, a port is taken, or a path cannot be read.
pub(crate) fn run(options: ControlPlaneOptions) -> Result<ExitCode> {
    let debug = options.debug.or_else(debug_by_default);
    let options = PlaneOptions::new(options.plane, options.xds, debug)?;
    plane::run(async { Plane::open(options).await?.run((), Statuses::default()).await })?;
    Ok(ExitCode::SUCCESS)
}

/// Istio's port, unless another control plane of this machine has it.
fn debug_by_default() -> Option<SocketAddr> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, DEBUG_PORT));
    TcpListener::bind(address).is_ok().then_some(address)
}

/// Istio's port for debug pages and metrics.
const DEBUG_PORT: u16 = 15014;
