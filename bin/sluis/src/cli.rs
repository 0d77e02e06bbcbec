//! The command line: every verb, and the arguments of those that have no file for them.

use std::{net::SocketAddr, path::PathBuf};

use crate::{
    arguments::{PlaneArguments, ReadingOptions, StateOption, WorkloadArgument, assignment},
    output::Format,
};
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

/// The command line of Sluis, the service mesh that controls what leaves.
#[derive(Debug, Parser)]
#[command(version, about, arg_required_else_help = true, after_help = EXAMPLES)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

const EXAMPLES: &str = "Examples:
  sluis up -f examples/credential-egress          run the mesh that the folder describes
  sluis exec team-a/notebook -- python3 app.py    run a command with no way out but its sidecar
  sluis status                                    how the mesh is, and what is refused
  sluis proxy-status                              which proxies are in sync
  sluis proxy-config routes egress/gateway -o yaml";

/// What `sluis` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run the mesh that a folder of YAML describes, until Ctrl-C
    Up(UpOptions),
    /// Run the control plane alone: proxies are started by others
    ControlPlane(ControlPlaneOptions),
    /// Run a command in the jail of a workload: all it sends goes through the workload's sidecar
    Exec(ExecOptions),
    /// The inside of `exec`; started by it alone
    #[command(hide = true)]
    ExecJail {
        /// The descriptor of the memory file that says what to run.
        spec: i32,
    },
    /// Bring a host's connections to its sidecar by a packet filter
    Capture(crate::verbs::capture::CaptureOptions),
    /// Try every known way out of a workload's namespace, and say which are open
    Probe(crate::verbs::probe::ProbeOptions),
    /// Check this machine and the mesh that runs on it: what is missing, old, out of sync or open
    Check(crate::verbs::check::CheckOptions),
    /// Check YAML files without running anything
    Validate(crate::verbs::validate::ValidateOptions),
    /// Show what users wrote, with its status: Gateway API conditions, and what is refused
    Get(GetOptions),
    /// Show how the mesh is, and everything that is refused
    Status(ProxyStatusOptions),
    /// Show which proxies run, and whether they have the current configuration
    #[command(visible_alias = "ps")]
    ProxyStatus(ProxyStatusOptions),
    /// Show what a proxy is told to do
    #[command(visible_alias = "pc")]
    ProxyConfig(ProxyConfigOptions),
    /// Look at who is authenticated how
    Authn(AuthnOptions),
    /// Make what a proxy needs to start
    Proxy(ProxyOptions),
    /// Print the log of a workload's proxy: access log and events
    Logs(LogsOptions),
    /// Show what was done with credentials, and check that the record of it is whole
    Audit(crate::verbs::audit::AuditOptions),
    /// Show the certificate authority, change its root, read its log
    Ca(CaOptions),
    /// Show credentials and who may have them; ask their sources anew, and seal values for git
    #[command(visible_alias = "cred")]
    Credentials(crate::verbs::credentials::CredentialsOptions),
    /// Print a completion script for a shell
    Completion {
        /// The shell.
        shell: Shell,
    },
}

/// `sluis up`.
#[derive(Args, Debug)]
pub(crate) struct UpOptions {
    #[command(flatten)]
    pub plane: PlaneArguments,

    /// Where the control plane listens (xDS and certificates)
    #[arg(long, default_value = "127.0.0.1:15012", value_name = "ADDRESS")]
    pub listen: SocketAddr,

    /// Also serve Istio's debug pages and metrics (/debug/syncz, /metrics, …) [default: off]
    #[arg(long, value_name = "ADDRESS")]
    pub debug: Option<SocketAddr>,

    /// The sluis-proxy program [default: beside this one]
    #[arg(long, value_name = "FILE")]
    pub proxy_program: Option<PathBuf>,
}

/// `sluis control-plane`.
#[derive(Args, Debug)]
pub(crate) struct ControlPlaneOptions {
    #[command(flatten)]
    pub plane: PlaneArguments,

    /// Where xDS and certificates are served, under TLS
    #[arg(long, default_value = "127.0.0.1:15012", value_name = "ADDRESS")]
    pub xds: SocketAddr,

    /// Where Istio's debug pages and metrics are served (/debug/syncz, /metrics, …)
    /// [default: 127.0.0.1:15014 where that is free]
    #[arg(long, value_name = "ADDRESS")]
    pub debug: Option<SocketAddr>,
}

const EXEC_HELP: &str =
    "The exit code is the command's own, 128 + N for one that signal N ended; 125 \
when the jail could not be made, 126 and 127 when the command cannot be run or is not there.

Examples:
  sluis exec team-a/notebook -- python3 app.py
  sluis exec team-a/notebook -- bash                            a shell, with job control
  sluis exec --clean-env --keep-env 'MY_*' team-a/notebook -- ./agent
  sluis exec --explicit-proxy team-a/notebook -- curl https://api.data.local/";

/// `sluis exec`.
#[derive(Args, Debug)]
#[command(after_help = EXEC_HELP)]
pub(crate) struct ExecOptions {
    #[command(flatten)]
    pub workload: WorkloadArgument,

    #[command(flatten)]
    pub state: StateOption,

    /// No jail: tell the command of the sidecar by HTTPS_PROXY, HTTP_PROXY and ALL_PROXY instead
    ///
    /// For machines that refuse user namespaces. A command that ignores the variables bypasses the
    /// mesh. The proxy asks for a password, made anew for each command, which is in the variables.
    #[arg(long)]
    pub explicit_proxy: bool,

    /// Cover a path in the jail; may be given several times
    #[arg(long, value_name = "PATH")]
    pub hide: Vec<PathBuf>,

    /// Take away variables that look like secrets, by name (TOKEN, PASSWORD, …_KEY) or as a URL with a
    /// password
    #[arg(long)]
    pub clean_env: bool,

    /// Keep a variable that would be taken away; NAME* keeps all that begin so; may be given several times
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub keep_env: Vec<String>,

    /// Set a variable; may be given several times. Others see it in the list of processes: pass on
    /// secrets with --keep-env
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = assignment)]
    pub env: Vec<(String, String)>,

    /// The command and its arguments
    #[arg(last = true, required = true)]
    pub command: Vec<String>,
}

/// `sluis get`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  sluis get gateways,httproutes -A          which of them are accepted
  sluis get httproute web -n shop -o yaml   one of them with its conditions
  sluis get all -A -o wide -f mesh/         the same of files, without a running mesh")]
pub(crate) struct GetOptions {
    /// Kinds, separated by commas: plural, singular or short, as `vs`, `httproutes`,
    /// `gateways.networking.istio.io`; `all` for every kind
    #[arg(value_name = "KIND")]
    pub kinds: String,

    /// Names of objects [default: all]
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,

    /// The namespace
    #[arg(short, long, default_value = "default")]
    pub namespace: String,

    /// Every namespace
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,

    /// Look at a file or folder of YAML instead of the running mesh; may be given several times
    #[arg(short = 'f', long = "filename", value_name = "PATH")]
    pub files: Vec<PathBuf>,

    #[command(flatten)]
    pub reading: ReadingOptions,

    #[command(flatten)]
    pub state: StateOption,

    /// How to print; json and yaml show whole objects
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// `sluis authn`.
#[derive(Args, Debug)]
pub(crate) struct AuthnOptions {
    /// What to look at.
    #[command(subcommand)]
    pub verb: AuthnVerb,
}

/// What `sluis authn` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum AuthnVerb {
    /// Show whether clients and servers agree on TLS, and which objects decide
    TlsCheck(TlsCheckOptions),
}

/// `sluis authn tls-check`.
#[derive(Args, Debug, Default)]
#[command(after_help = "The exit code is 65 when a client and a server disagree.")]
pub(crate) struct TlsCheckOptions {
    /// The client: NAMESPACE/NAME, NAME.NAMESPACE, or NAME with -n [default: any in the namespace]
    #[arg(value_name = "WORKLOAD")]
    pub workload: Option<String>,

    /// One service: its host, in full or short, perhaps with :PORT [default: all that it sees]
    #[arg(value_name = "HOST")]
    pub host: Option<String>,

    /// The client's namespace
    #[arg(short, long, default_value = "default")]
    pub namespace: String,

    /// Ask each endpoint, with TLS and without, and compare
    #[arg(long)]
    pub probe: bool,

    /// Look at a file or folder of YAML instead of the running mesh; may be given several times
    #[arg(short = 'f', long = "filename", value_name = "PATH")]
    pub files: Vec<PathBuf>,

    #[command(flatten)]
    pub reading: ReadingOptions,

    #[command(flatten)]
    pub state: StateOption,

    /// How to print; wide shows endpoints
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// `sluis proxy-status` and `sluis status`.
#[derive(Args, Debug)]
pub(crate) struct ProxyStatusOptions {
    #[command(flatten)]
    pub state: StateOption,

    /// How to print
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// What `proxy-config` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ConfigKind {
    /// Where the proxy accepts connections
    #[value(alias = "listener", alias = "l")]
    Listeners,
    /// Which request goes where
    #[value(alias = "route", alias = "r")]
    Routes,
    /// To what the proxy connects
    #[value(alias = "cluster", alias = "c")]
    Clusters,
    /// The addresses of clusters
    #[value(alias = "endpoint", alias = "ep")]
    Endpoints,
    /// Certificates, as the proxy holds them; never a key
    #[value(alias = "secret", alias = "s")]
    Secrets,
}

/// `sluis proxy-config`.
#[derive(Args, Debug)]
pub(crate) struct ProxyConfigOptions {
    /// What to show
    #[arg(value_enum)]
    pub kind: ConfigKind,

    #[command(flatten)]
    pub workload: WorkloadArgument,

    #[command(flatten)]
    pub state: StateOption,

    /// How to print; json and yaml show whole xDS resources
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Format,
}

/// `sluis proxy`.
#[derive(Args, Debug)]
pub(crate) struct ProxyOptions {
    /// What to make.
    #[command(subcommand)]
    pub verb: ProxyVerb,
}

/// What `sluis proxy` can make.
#[derive(Debug, Subcommand)]
pub(crate) enum ProxyVerb {
    /// Print a bootstrap for a workload's proxy, or compile one
    Bootstrap(BootstrapOptions),
}

/// `sluis proxy bootstrap`.
#[derive(Args, Debug)]
#[command(
    after_help = "Example: sluis proxy bootstrap --envoy egress/gateway > envoy.json && envoy -c envoy.json"
)]
pub(crate) struct BootstrapOptions {
    /// Print, as JSON, the bootstrap with which a real Envoy takes this workload's place
    #[arg(long, value_name = "WORKLOAD", required_unless_present = "compile")]
    pub envoy: Option<String>,

    /// Turn an Envoy bootstrap in YAML or JSON into the binary form that sluis-proxy reads
    #[arg(long, value_name = "FILE", conflicts_with = "envoy")]
    pub compile: Option<PathBuf>,

    #[command(flatten)]
    pub state: StateOption,
}

/// `sluis logs`.
#[derive(Args, Debug)]
pub(crate) struct LogsOptions {
    #[command(flatten)]
    pub workload: WorkloadArgument,

    #[command(flatten)]
    pub state: StateOption,

    /// Go on printing what is added
    #[arg(short, long)]
    pub follow: bool,
}

/// `sluis ca`.
#[derive(Args, Debug)]
pub(crate) struct CaOptions {
    /// What to do.
    #[command(subcommand)]
    pub verb: CaVerb,

    #[command(flatten)]
    pub state: StateOption,
}

/// What `sluis ca` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum CaVerb {
    /// Show what signs, what is trusted, and how far a change of the root has come
    Status {
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Take the next step of a change of the root: begin, switch, finish
    #[command(after_help = ROTATE_HELP)]
    Rotate(RotateOptions),
    /// Print the trusted roots
    Bundle {
        /// In which form
        #[arg(long, value_enum, default_value_t)]
        format: BundleFormat,
    },
    /// Print the log of issued certificates, and check that nobody has changed it
    Log {
        /// How to print
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
}

const ROTATE_HELP: &str = "Steps:
  begin    a new root is trusted and given out beside the old one, whose authority still signs
  switch   the new authority signs; waits until every workload knows both roots
  finish   the old root is trusted no longer; waits until no certificate in use is signed under it
  cancel   give up what has begun, before the switch
Each survives a restart. No request fails, unless --force cuts somebody off.";

/// `sluis ca rotate`.
#[derive(Args, Debug)]
pub(crate) struct RotateOptions {
    /// The step [default: the one that follows]
    #[arg(value_enum)]
    pub step: Option<RotateStep>,

    /// Do not wait for certificates that the step before has not reached: they are cut off
    #[arg(long)]
    pub force: bool,

    /// With `begin`: the next authority is this one of yours, laid out as Istio's `cacerts`
    #[arg(long, value_name = "DIR")]
    pub ca_dir: Option<PathBuf>,
}

/// A step of `sluis ca rotate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RotateStep {
    /// Trust a new root beside the old one
    Begin,
    /// Sign under the new root
    Switch,
    /// Trust the old root no longer
    Finish,
    /// Give up
    Cancel,
}

/// The form of `sluis ca bundle`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum BundleFormat {
    /// Certificates in PEM
    #[default]
    Pem,
    /// SPIFFE's bundle document: a JWK set
    Spiffe,
}
