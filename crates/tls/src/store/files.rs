//! Secrets that live in files: reads them, and notices that they changed.

use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::{Crls, KeyPair, Roots, Secret, SecretError, secret::Strictness};

const CERT_PREFIX: &str = "file-cert:";
const ROOT_PREFIX: &str = "file-root:";
const CRL_PREFIX: &str = "file-crl:";
const SYSTEM_ROOTS: &str = "file-root:system";

/// A whole operating system's bundle is some 250 kB; no certificate or key comes near this.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Coarsest times that file systems in use have (FAT: two seconds).
const STAMP_GRAIN_MAX: Duration = Duration::from_secs(2);

/// Where operating systems keep their trusted roots, the most common first.
const SYSTEM_BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/usr/local/share/certs/ca-root-nss.crt",
];

/// The files behind one secret.
#[derive(Debug)]
pub(super) enum Files {
    Certificate { chain: PathBuf, key: PathBuf },
    Roots(PathBuf),
    Crls(PathBuf),
    System(Vec<PathBuf>),
}

/// Files with what was last seen of them.
#[derive(Debug)]
pub(super) struct Watched {
    files: Files,
    seen: Option<Vec<Stamp>>,
    /// Whether the stamps were so young that a further write could have left them as they are.
    unsettled: bool,
    complaint: Option<String>,
}

/// What changes when a file is written to, replaced, or reached over another symbolic link.
#[derive(Debug, PartialEq, Eq)]
struct Stamp(Option<(SystemTime, [i64; 2], [u64; 3])>);

#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path}: larger than {FILE_BYTES_MAX} bytes")]
    Large { path: PathBuf },
    #[error("no bundle of roots at any of the usual places")]
    NoBundle,
    #[error(transparent)]
    Secret(#[from] SecretError),
}

impl Files {
    /// The files that a name stands for; none when it is not a name of files.
    pub(super) fn of(name: &str, system_roots: Option<&Path>) -> Result<Option<Self>, ()> {
        if name == SYSTEM_ROOTS {
            let usual = || SYSTEM_BUNDLES.iter().map(PathBuf::from).collect();
            return Ok(Some(Self::System(
                system_roots.map_or_else(usual, |path| vec![path.to_owned()]),
            )));
        }
        if let Some(pair) = name.strip_prefix(CERT_PREFIX) {
            let (chain, key) = pair.split_once('~').ok_or(())?;
            if chain.is_empty() || key.is_empty() || key.contains('~') {
                return Err(());
            }
            return Ok(Some(Self::Certificate { chain: chain.into(), key: key.into() }));
        }
        if let Some(path) = name.strip_prefix(CRL_PREFIX) {
            return if path.is_empty() { Err(()) } else { Ok(Some(Self::Crls(path.into()))) };
        }
        match name.strip_prefix(ROOT_PREFIX) {
            Some("") => Err(()),
            Some(path) => Ok(Some(Self::Roots(path.into()))),
            None => Ok(None),
        }
    }

    fn stamps(&self) -> Vec<Stamp> {
        match self {
            Self::Certificate { chain, key } => vec![Stamp::of(chain), Stamp::of(key)],
            Self::Roots(path) | Self::Crls(path) => vec![Stamp::of(path)],
            Self::System(paths) => paths.iter().map(|path| Stamp::of(path)).collect(),
        }
    }

    fn read(&self) -> Result<Secret, ReadError> {
        match self {
            Self::Certificate { chain, key } => {
                let pair = KeyPair::from_pem(&read(chain)?, &read(key)?)?;
                Ok(Secret::KeyPair(Arc::new(pair)))
            }
            Self::Roots(path) => {
                Ok(Secret::Roots(Arc::new(Roots::parse(&read(path)?, Strictness::Each)?)))
            }
            Self::Crls(path) => Ok(Secret::Crls(Arc::new(Crls::from_pem(&read(path)?)?))),
            Self::System(paths) => {
                let path = paths.iter().find(|path| path.exists()).ok_or(ReadError::NoBundle)?;
                Ok(Secret::Roots(Arc::new(Roots::parse(&read(path)?, Strictness::Any)?)))
            }
        }
    }
}

impl Watched {
    pub(super) fn new(files: Files) -> Self {
        Self { files, seen: None, unsettled: false, complaint: None }
    }

    /// The secret, when the files may have changed since the last look and hold a good one.
    ///
    /// After a failure each look reads again: a pair may have been met half written, and a stamp
    /// is taken before the content, never after.
    pub(super) fn look(&mut self, name: &str) -> Option<Secret> {
        let stamps = self.files.stamps();
        let same = self.seen.as_ref() == Some(&stamps);
        if same && !self.unsettled && self.complaint.is_none() {
            return None;
        }
        let now = SystemTime::now();
        self.unsettled = stamps.iter().any(|stamp| stamp.is_young(now));
        self.seen = Some(stamps);
        match self.files.read() {
            Ok(secret) => {
                self.complaint = None;
                Some(secret)
            }
            Err(error) => {
                let complaint = error.to_string();
                if self.complaint.as_ref() != Some(&complaint) {
                    tracing::warn!(secret = name, error = complaint, "secret not usable");
                }
                self.complaint = Some(complaint);
                None
            }
        }
    }
}

impl Stamp {
    fn of(path: &Path) -> Self {
        Self(path.metadata().ok().and_then(|meta| {
            let changed = [meta.ctime(), meta.ctime_nsec()];
            Some((meta.modified().ok()?, changed, [meta.dev(), meta.ino(), meta.size()]))
        }))
    }

    /// Times of files tick in milliseconds at best, in seconds at worst.
    fn is_young(&self, now: SystemTime) -> bool {
        self.0.is_some_and(|(modified, ..)| {
            now.duration_since(modified).is_ok_and(|age| age < STAMP_GRAIN_MAX)
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ReadError> {
    let fault = |source| ReadError::Io { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(fault)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(fault)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(ReadError::Large { path: path.to_owned() });
    }
    Ok(bytes)
}
