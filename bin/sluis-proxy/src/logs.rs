//! Log lines on stderr, as `SLUIS_LOG` and `NO_COLOR` ask.

use std::io::{IsTerminal as _, stderr};

use tracing_subscriber::{EnvFilter, fmt};

/// Starts logging. `SLUIS_LOG` holds a level or directives (`debug`, `sluis_proxy=trace`).
pub(crate) fn start() {
    let filter = EnvFilter::builder()
        .with_default_directive(tracing::Level::INFO.into())
        .with_env_var("SLUIS_LOG")
        .from_env_lossy();
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal() && !no_color)
        .with_target(false)
        .init();
}
