//! What the process asks of the operating system: privacy, descriptors, signals.

use anyhow::{Context as _, Result};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit,
};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, warn};

/// Descriptors beyond this buy nothing, and an unlimited table would only be a larger one.
const DESCRIPTORS_MAX: u64 = 1 << 20;

/// The exit status after a second signal, as a shell reports SIGTERM.
const TERMINATED: i32 = 128 + 15;

/// Closes the process to debuggers of the same user, and raises the limit on open files as far as
/// that goes. Returns the limit.
pub(crate) fn harden() -> Result<usize> {
    // Then /proc/PID/{environ,mem,maps,fd} belong to root, ptrace is refused and no core is
    // written: neither another process of the user nor a crash gives keys away.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("PR_SET_DUMPABLE")?;
    // Once more for cores alone: a program that makes this one dumpable again writes none.
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).context("RLIMIT_CORE")?;
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(DESCRIPTORS_MAX).min(DESCRIPTORS_MAX);
    let current = limit.current.unwrap_or(wanted);
    if current >= wanted {
        return Ok(usize::try_from(current.min(DESCRIPTORS_MAX))?);
    }
    let raised = Rlimit { current: Some(wanted), maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => Ok(usize::try_from(wanted)?),
        Err(error) => {
            warn!(%error, current, "the limit on open files cannot be raised");
            Ok(usize::try_from(current)?)
        }
    }
}

/// Waits for SIGTERM or SIGINT. From then on a second one ends the process at once.
pub(crate) async fn stopped() {
    let signals = [SignalKind::terminate(), SignalKind::interrupt()].map(signal);
    let [Ok(mut terminate), Ok(mut interrupt)] = signals else {
        error!("signals cannot be received: the process only ends by SIGKILL");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    // A thread of its own: it must not wait for what is being drained.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        if let Ok(runtime) = runtime {
            runtime.block_on(async {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
            });
            std::process::exit(TERMINATED);
        }
    });
}
