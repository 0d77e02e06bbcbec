//! `sluis completion SHELL`: prints a completion script.

use std::process::ExitCode;

use anyhow::Result;
use clap::CommandFactory;
use clap_complete::{Shell, generate};

use crate::{cli::Cli, output};

/// Prints the script for the shell.
///
/// # Errors
///
/// When standard output is closed.
pub(crate) fn run(shell: Shell) -> Result<ExitCode> {
    let mut script = Vec::new();
    generate(shell, &mut Cli::command(), "sluis", &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(ExitCode::SUCCESS)
}
