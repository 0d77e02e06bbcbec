//! `sluis proxy-status`: which proxies run, and whether they have the current configuration.

use std::process::ExitCode;

use anyhow::Result;

use crate::{
    api,
    cli::ProxyStatusOptions,
    output::{self, Format},
    state::StateDir,
    status::Report,
};

/// Prints the table, or the whole report.
///
/// # Errors
///
/// When no `sluis up` runs.
pub(crate) fn run(options: &ProxyStatusOptions) -> Result<ExitCode> {
    let state = StateDir::locate(options.state.state_dir.clone())?;
    let value = api::get(&state, "/v1/status")?;
    match options.output {
        Format::Json | Format::Yaml => output::print_value(&value, options.output)?,
        format => {
            let report: Report = serde_json::from_value(value)?;
            output::print(&report.table(format == Format::Wide).render())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
