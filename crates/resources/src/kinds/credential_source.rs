//! `source` of a Credential: where the secret comes from. Data only; who fetches is elsewhere.

use std::collections::BTreeMap;
use std::time::Duration;

/// `source`. Exactly one. Read by the control plane, never by a proxy.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SecretSource {
    /// `secretRef`: a Kubernetes Secret of the Credential's own namespace.
    SecretRef(SecretRefSource),
    /// `file`: files of the machine of the control plane.
    File(FileSource),
    /// `env`: variables of the control plane's environment, by entry.
    Env(BTreeMap<String, String>),
    /// `exec`: what a program prints.
    Exec(ExecSource),
    /// `vault`: HashiCorp Vault's HTTP API.
    Vault(Box<VaultSource>),
    /// `sealed`: texts encrypted for the gateways' key, by entry.
    Sealed(BTreeMap<String, String>),
}

impl SecretSource {
    /// Returns its name, as `source` has it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::SecretRef(_) => "secretRef",
            Self::File(_) => "file",
            Self::Env(_) => "env",
            Self::Exec(_) => "exec",
            Self::Vault(_) => "vault",
            Self::Sealed(_) => "sealed",
        }
    }

    /// Returns the names under which the secret's entries are to be had: the keys of `keys`, `paths` and
    /// the like. `None` where all entries are taken as they are called.
    pub fn entries(&self) -> Option<Vec<&str>> {
        let keys = match self {
            Self::SecretRef(source) => &source.keys,
            Self::File(FileSource::Each(paths)) => paths,
            Self::File(FileSource::Directory(_)) => return None,
            Self::File(FileSource::Json { keys, .. }) => keys,
            Self::Env(variables) => variables,
            Self::Exec(source) => &source.keys,
            Self::Vault(source) => match &source.engine {
                VaultEngine::Kv { keys, .. } => keys,
                VaultEngine::Transit { ciphertexts, .. } => ciphertexts,
            },
            Self::Sealed(entries) => entries,
        };
        (!keys.is_empty()).then(|| keys.keys().map(String::as_str).collect())
    }
}

/// `secretRef`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SecretRefSource {
    /// `name`. Default: the Credential's own name.
    pub name: String,
    /// `keys`: the Secret's entry for each of ours; empty takes all as they are called.
    pub keys: BTreeMap<String, String>,
}

/// `file`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FileSource {
    /// `paths`: the file for each entry; its whole content, less one newline at the end.
    Each(BTreeMap<String, String>),
    /// `directory`: a file for each entry, as Kubernetes mounts a Secret.
    Directory(String),
    /// `json`: one file with a JSON object of texts.
    Json {
        /// The file.
        path: String,
        /// `keys`: its member for each of our entries; empty takes all.
        keys: BTreeMap<String, String>,
    },
}

/// `exec`: a program that prints a JSON object of texts, `expiration` (RFC 3339) and `version` perhaps
/// among them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ExecSource {
    /// `command` with its arguments; the program is an absolute path. No shell.
    pub command: Vec<String>,
    /// `env`: its whole environment, besides `PATH`.
    pub environment: BTreeMap<String, String>,
    /// `timeout`. Default 10 seconds.
    pub timeout: Duration,
    /// `keys`: its member for each of our entries; empty takes all.
    pub keys: BTreeMap<String, String>,
}

/// `vault`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VaultSource {
    /// `address`: an `https://` URL, or `http://` on loopback.
    pub address: String,
    /// `namespace` of Vault Enterprise.
    pub namespace: Option<String>,
    /// `caCertificates`: path of the roots; `None` for the system's.
    pub ca_certificates: Option<String>,
    /// `auth`.
    pub auth: VaultAuth,
    /// `kv` or `transit`.
    pub engine: VaultEngine,
}

/// `auth`: how the control plane logs in. Exactly one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum VaultAuth {
    /// `tokenFile`.
    TokenFile(String),
    /// `tokenEnv`: a variable of the control plane's environment.
    TokenEnv(String),
    /// `appRole`.
    AppRole {
        /// `mount`. Default `approle`.
        mount: String,
        /// `roleId`.
        role_id: String,
        /// `secretIdFile`.
        secret_id_file: String,
    },
    /// `kubernetes`.
    Kubernetes {
        /// `mount`. Default `kubernetes`.
        mount: String,
        /// `role`.
        role: String,
        /// `tokenFile` with the service account's token. Default where Kubernetes mounts it.
        token_file: String,
    },
}

/// What is asked of Vault. Exactly one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum VaultEngine {
    /// `kv`: version 2 of the key-value engine.
    Kv {
        /// `mount`. Default `secret`.
        mount: String,
        /// `path`.
        path: String,
        /// `keys`: its member for each of our entries; empty takes all.
        keys: BTreeMap<String, String>,
    },
    /// `transit`: texts that Vault decrypts.
    Transit {
        /// `mount`. Default `transit`.
        mount: String,
        /// `key`: the name of Vault's key.
        key: String,
        /// `ciphertexts`: `vault:v1:…` by entry.
        ciphertexts: BTreeMap<String, String>,
    },
}
