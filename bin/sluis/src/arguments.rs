//! Arguments that several verbs share: what is read, where the state is, which workload is meant.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;
use sluis_resources::Options;

/// Where the running `sluis up` is found.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct StateOption {
    /// Where `sluis up` keeps its state [default: $XDG_STATE_HOME/sluis or ~/.local/state/sluis]
    #[arg(long, visible_alias = "state", env = "SLUIS_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

/// How strictly files are read.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct ReadingOptions {
    /// A field that does not exist is an error; this is the default
    #[arg(long, overrides_with = "lenient")]
    pub strict: bool,

    /// A field that does not exist is a warning, and is left out, as in a cluster
    #[arg(long)]
    pub lenient: bool,
}

impl ReadingOptions {
    /// The same, for the parser.
    pub(crate) fn options(self) -> Options {
        if self.lenient && !self.strict { Options::LENIENT } else { Options::default() }
    }
}

/// Which workload is meant.
#[derive(Args, Clone, Debug)]
pub(crate) struct WorkloadArgument {
    /// The workload: NAMESPACE/NAME, NAME.NAMESPACE, or NAME with -n
    pub workload: String,

    /// The namespace of a workload named without one
    #[arg(short, long, default_value = "default")]
    pub namespace: String,
}

/// What every control plane is started with.
#[derive(Args, Debug)]
pub(crate) struct PlaneArguments {
    /// A file or folder of YAML; may be given several times
    #[arg(short = 'f', long = "filename", required = true, value_name = "PATH")]
    pub files: Vec<PathBuf>,

    #[command(flatten)]
    pub reading: ReadingOptions,

    #[command(flatten)]
    pub state: StateOption,

    /// Also serve xDS without TLS, to programs of this machine: any loopback ADDRESS; Istio's port
    /// for it is 15010 [default: off]
    #[arg(long, value_name = "ADDRESS")]
    pub plaintext_xds: Option<SocketAddr>,

    /// How long a workload's certificate lives; it is renewed around half life
    #[arg(long, default_value = "24h", value_parser = humantime::parse_duration, value_name = "DURATION")]
    pub certificate_life: std::time::Duration,

    /// Your own certificate authority, as Istio's `cacerts`: ca-cert.pem, ca-key.pem, root-cert.pem,
    /// cert-chain.pem [default: the Secret istio-system/cacerts in the YAML, else one made here]
    #[arg(long, value_name = "DIR")]
    pub ca_dir: Option<PathBuf>,
}

/// Reads `NAME=VALUE`, for `--env`.
///
/// # Errors
///
/// When there is no name, or no `=`.
pub(crate) fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE; what is set already is kept with --keep-env NAME".to_owned()),
    }
}
