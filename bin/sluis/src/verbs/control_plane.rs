//! `sluis control-plane -f DIR`: the control plane by itself; whoever connects is a proxy.
//!
//! In:    files, watched; the state directory.
//! Out:   xDS to any client, under TLS or, on loopback, without.
//! Never: starts a proxy.

use std::process::ExitCode;

use anyhow::Result;

use crate::{
    cli::ControlPlaneOptions,
    plane::{self, Plane, PlaneOptions},
    state::StateDir,
    supervise::Statuses,
};

/// Runs the control plane until Ctrl-C or SIGTERM.
///
/// # Errors
///
/// When another one has the state directory, a port is taken, or a path cannot be read.
pub(crate) fn run(options: ControlPlaneOptions) -> Result<ExitCode> {
    let state = StateDir::locate(options.state.state_dir)?;
    let options = PlaneOptions {
        files: options.files,
        state,
        xds: options.xds,
        plaintext_xds: options.plaintext_xds,
        certificate_life: options.certificate_life,
    };
    plane::run(async { Plane::open(options).await?.run((), Statuses::default()).await })?;
    Ok(ExitCode::SUCCESS)
}
