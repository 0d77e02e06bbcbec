//! What is to be kept, and where it comes from. Data only.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use crate::{Entries, Schedule};

/// One credential that is to be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Where its values come from.
    pub origin: Origin,
    /// How they are kept.
    pub schedule: Schedule,
}

/// Where values come from. `keys` are the source's name for each of our entries; none takes all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// An object of the mesh, as it is now; `None` when it does not exist.
    Object {
        /// What it is, for messages.
        what: String,
        /// Its entries.
        entries: Option<Entries>,
        /// What its version is called, where it says so.
        label: Option<String>,
        /// From when it is void, where it says so (RFC 3339).
        not_after: Option<String>,
        /// Which are wanted.
        keys: BTreeMap<String, String>,
    },
    /// Files of this machine.
    File {
        /// Which.
        files: FileOrigin,
        /// Whether others may read them: Kubernetes mounts Secrets so.
        readable_by_others: bool,
    },
    /// Variables of this process, by entry.
    Env(BTreeMap<String, String>),
    /// What a program prints.
    Exec(ExecOrigin),
    /// HashiCorp Vault.
    Vault(Box<VaultOrigin>),
    /// Texts encrypted for the key of the gateways' namespace.
    Sealed {
        /// The texts by entry.
        texts: BTreeMap<String, String>,
        /// The file with the keys.
        identities: PathBuf,
    },
}

impl Origin {
    /// What kind it is, as `source` of a Credential calls it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Object { .. } => "secretRef",
            Self::File { .. } => "file",
            Self::Env(_) => "env",
            Self::Exec(_) => "exec",
            Self::Vault(_) => "vault",
            Self::Sealed { .. } => "sealed",
        }
    }

    /// Whether a look costs nothing, so that changes are seen at once.
    pub(crate) fn is_watched(&self) -> bool {
        matches!(self, Self::File { .. } | Self::Sealed { .. })
    }
}

/// Files of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileOrigin {
    /// A file for each entry: its content, less one newline at the end.
    Each(BTreeMap<String, PathBuf>),
    /// A folder with a file for each entry, hidden ones left out.
    Folder(PathBuf),
    /// A JSON object.
    Json {
        /// The file.
        path: PathBuf,
        /// Which of its members are wanted.
        keys: BTreeMap<String, String>,
    },
}

/// A program that prints a JSON object: `{"keys": {…}, "version": "…", "expires": "…"}`, or the
/// entries themselves, `version` and `expiration` perhaps among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecOrigin {
    /// The program, by absolute path, and its arguments. No shell.
    pub command: Vec<String>,
    /// Its whole environment, besides a fixed `PATH`.
    pub environment: BTreeMap<String, String>,
    /// How long it may take.
    pub timeout: Duration,
    /// Which entries are wanted.
    pub keys: BTreeMap<String, String>,
}

/// A secret in Vault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaultOrigin {
    /// `https://HOST[:PORT]`; `http://` on loopback only.
    pub address: String,
    /// `X-Vault-Namespace`.
    pub namespace: Option<String>,
    /// The roots that its certificate must lead to; the system's without.
    pub roots: Option<PathBuf>,
    /// How we log in.
    pub auth: VaultAuth,
    /// What we ask.
    pub engine: VaultEngine,
}

/// How we log in to Vault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VaultAuth {
    /// A token in a file, read anew when it changes.
    TokenFile(PathBuf),
    /// A token in a variable.
    TokenEnv(String),
    /// AppRole.
    AppRole {
        /// Where it is mounted.
        mount: String,
        /// The role.
        role_id: String,
        /// The file with the secret id.
        secret_id_file: PathBuf,
    },
    /// A service account's token.
    Kubernetes {
        /// Where it is mounted.
        mount: String,
        /// The role.
        role: String,
        /// The file with the token.
        token_file: PathBuf,
    },
}

/// What we ask of Vault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VaultEngine {
    /// The newest version of a secret of KV version 2.
    Kv {
        /// Where it is mounted.
        mount: String,
        /// The secret.
        path: String,
        /// Which entries are wanted.
        keys: BTreeMap<String, String>,
    },
    /// Texts that Vault decrypts.
    Transit {
        /// Where it is mounted.
        mount: String,
        /// Vault's key.
        key: String,
        /// `vault:v1:…` by entry.
        ciphertexts: BTreeMap<String, String>,
    },
}
