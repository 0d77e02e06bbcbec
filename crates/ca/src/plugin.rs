//! An operator's own authority, in the layout of Istio's `cacerts`: a directory or a Secret.

use std::path::{Path, PathBuf};

use crate::{
    CaFiles, FileError,
    files::{self, Access},
    own::{CA_CERT, CA_KEY, CERT_CHAIN, ROOT_CERT},
};

/// The names of a Secret of the type `kubernetes.io/tls`, which Istio takes too.
const TLS_NAMES: [&str; 3] = ["tls.crt", "tls.key", "ca.crt"];

/// Why an operator's authority cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// A file cannot be read, or its key may be read by others.
    #[error(transparent)]
    File(#[from] FileError),
    /// One of the files is not there.
    #[error("{place}: {entry} is missing")]
    Missing {
        /// The directory or the Secret.
        place: String,
        /// What is missing.
        entry: &'static str,
    },
    /// An entry is not text.
    #[error("{place}: {entry} is not text")]
    Text {
        /// The Secret.
        place: String,
        /// Which entry.
        entry: &'static str,
    },
}

impl CaFiles {
    /// Reads `ca-cert.pem`, `ca-key.pem`, `root-cert.pem` and, where there is one, `cert-chain.pem`.
    ///
    /// # Errors
    ///
    /// [`PluginError`]; also when others than the owner may read the key.
    pub fn from_dir(dir: &Path) -> Result<Self, PluginError> {
        let path = |name: &str| -> PathBuf { dir.join(name) };
        let need = |entry: &'static str, access| {
            files::read(&path(entry), access)?
                .ok_or_else(|| PluginError::Missing { place: dir.display().to_string(), entry })
        };
        Ok(Self {
            cert: need(CA_CERT, Access::Public)?,
            key: need(CA_KEY, Access::Private)?,
            chain: files::read(&path(CERT_CHAIN), Access::Public)?.unwrap_or_default(),
            roots: need(ROOT_CERT, Access::Public)?,
        })
    }

    /// Reads the entries of a Secret: those of `cacerts`, or `tls.crt`, `tls.key` and `ca.crt`.
    ///
    /// # Errors
    ///
    /// [`PluginError::Missing`], [`PluginError::Text`].
    pub fn from_entries<'a>(
        place: &str,
        entries: impl Fn(&str) -> Option<&'a [u8]>,
    ) -> Result<Self, PluginError> {
        let read = |entry: &'static str| match entries(entry).map(std::str::from_utf8) {
            None => Ok(None),
            Some(Ok(text)) => Ok(Some(text.to_owned())),
            Some(Err(_)) => Err(PluginError::Text { place: place.to_owned(), entry }),
        };
        let need = |entry: &'static str| {
            read(entry)?.ok_or_else(|| PluginError::Missing { place: place.to_owned(), entry })
        };
        let [tls_cert, tls_key, tls_roots] = TLS_NAMES;
        if read(CA_CERT)?.is_none() && read(tls_cert)?.is_some() {
            let cert = need(tls_cert)?;
            let (key, roots) = (need(tls_key)?, need(tls_roots)?);
            return Ok(Self { chain: cert.clone(), cert, key, roots });
        }
        Ok(Self {
            cert: need(CA_CERT)?,
            key: need(CA_KEY)?,
            chain: read(CERT_CHAIN)?.unwrap_or_default(),
            roots: need(ROOT_CERT)?,
        })
    }
}
