//! `sluis logs WORKLOAD`: prints what a workload's proxy wrote.

use std::{
    fs::File,
    io::{self, Read},
    process::ExitCode,
    thread,
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{cli::LogsOptions, output, state::StateDir, verbs::workload_name};

/// How often a followed log is read again.
const FOLLOW_EVERY: Duration = Duration::from_millis(200);

/// Prints the log; with `--follow`, goes on until interrupted.
///
/// # Errors
///
/// When the workload has no log, or standard output is closed.
pub(crate) fn run(options: &LogsOptions) -> Result<ExitCode> {
    let name = workload_name(&options.workload)?;
    let path = StateDir::locate(options.state.state_dir.clone())?.workload(&name).log();
    let mut file =
        File::open(&path).with_context(|| format!("{name} has no log ({})", path.display()))?;
    loop {
        print_rest(&mut file)?;
        if !options.follow {
            return Ok(ExitCode::SUCCESS);
        }
        thread::sleep(FOLLOW_EVERY);
    }
}

fn print_rest(file: &mut File) -> Result<()> {
    let mut chunk = [0; 64 << 10];
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(count) => output::print(&String::from_utf8_lossy(&chunk[..count]))?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
}
