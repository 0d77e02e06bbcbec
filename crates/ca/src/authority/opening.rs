//! Opens an authority: what is on disk, what the operator brings, what has to be made.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use rustls_pki_types::CertificateDer;
use sluis_nouns::{TrustDomain, WorkloadId};
use sluis_tls::{Clock, SecretError};
use tokio::sync::watch;

use super::{Authority, AuthorityConfig, BUNDLE_FILE, Current, LOG_FILE, generation_dir, rfc3339};
use crate::{
    CaFiles, FileError, Phase, PluginError, SignerError, Source,
    files::{self, Access},
    log::IssueLog,
    own::{self, CA_CERT, CA_KEY, CERT_CHAIN, ROOT_CERT, ROOT_KEY},
    record::{Generation, Record},
    signer::{Signer, certificates},
};

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is a root certificate, and neither its key nor an intermediate's.
    #[error(
        "{cert} is there and its key {key} is not: restore the key, or move both away for a new root"
    )]
    NoKey {
        /// The certificate.
        cert: PathBuf,
        /// Where the key should be.
        key: PathBuf,
    },
    /// Key and certificate do not fit, or cannot be read.
    #[error("{path}: {source}")]
    Root {
        /// The certificate.
        path: PathBuf,
        /// Why.
        source: SecretError,
    },
    /// An authority's certificates cannot be used.
    #[error("{place}: {source}")]
    Signer {
        /// Where they are.
        place: String,
        /// Why.
        source: SignerError,
    },
    /// The operator's authority cannot be read.
    #[error(transparent)]
    Plugin(#[from] PluginError),
    /// The operator brings another authority while the change to one is going on.
    #[error(
        "the plug-in CA is neither of the two between which the root is being changed: finish that \
         first with `sluis ca rotate`, started as it was before"
    )]
    Rotating,
    /// What is remembered over restarts cannot be read.
    #[error("{path}: {what}")]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The root could not be made or read.
    #[error("root: {0}")]
    Sign(#[from] rcgen::Error),
}

impl Authority {
    /// Opens the authority of a directory, and makes its root and intermediate at the first start.
    ///
    /// # Errors
    ///
    /// [`OpenError`]. A root that cannot be used is never replaced by a new one.
    pub fn open(dir: &Path, config: AuthorityConfig, clock: Clock) -> Result<Self, OpenError> {
        Self::open_with(dir, config, clock, None)
    }

    /// Opens the authority of a directory with the operator's own certificates.
    ///
    /// They are copied into the directory. In an empty one they become the authority. Where another
    /// one signs already: under the same root they take its place at once; under another root a
    /// change of the root begins (both roots are trusted, and the old authority signs until
    /// [`Step::Switch`]).
    ///
    /// # Errors
    ///
    /// [`OpenError`]; certificates that do not pass every check are refused by name.
    pub fn open_with(
        dir: &Path,
        config: AuthorityConfig,
        clock: Clock,
        plugin: Option<CaFiles>,
    ) -> Result<Self, OpenError> {
        files::make_dir(dir)?;
        let since = rfc3339(clock.now());
        let setting = Setting { dir, config: &config, clock: &clock };
        if let Some(files) = &plugin {
            setting.check("the plug-in CA", files)?;
        }
        let record = match (Record::read(dir)?, plugin) {
            (Some(record), None) => record,
            (Some(record), Some(files)) => setting.merge(record, &files)?,
            (None, None) => {
                setting.adopt_old()?;
                let first = Record::first(Source::Own, since);
                setting.files_of(&first, 1)?;
                first
            }
            (None, Some(files)) if !setting.has_old() => {
                setting.import(1, &files)?;
                Record::first(Source::Plugin, since)
            }
            (None, Some(files)) => {
                setting.adopt_old()?;
                let first = Record::first(Source::Own, since);
                setting.files_of(&first, 1)?;
                first.write(dir)?;
                setting.merge(first, &files)?
            }
        };
        let current = setting.current(record)?;
        setting.publish(&current)?;
        let log = IssueLog::open(&dir.join(LOG_FILE))?;
        Ok(Self {
            current: RwLock::new(Arc::new(current)),
            changing: Mutex::new(()),
            changes: watch::Sender::new(0),
            log,
            own: Mutex::default(),
            dir: dir.to_owned(),
            config,
            clock,
        })
    }

    pub(super) fn setting(&self) -> Setting<'_> {
        Setting { dir: &self.dir, config: &self.config, clock: &self.clock }
    }

    /// Puts a new state into use, on disk first.
    pub(super) fn install(&self, current: Current) -> Result<(), OpenError> {
        self.setting().publish(&current)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(current);
        self.changes.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Makes another intermediate under the same root, when the one in use runs out.
    pub(super) fn renew_intermediate(&self) {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let record = self.current().record.clone();
        if record.source_of(record.issuer) == Source::Plugin {
            return;
        }
        match self.setting().current(record) {
            Ok(next) if next.signer.cert().serial != self.current().signer.cert().serial => {
                if let Err(error) = self.install(next) {
                    tracing::error!(%error, "the new intermediate is not in use");
                }
            }
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "no new intermediate"),
        }
    }
}

/// What opening needs to know.
pub(super) struct Setting<'a> {
    pub(super) dir: &'a Path,
    pub(super) config: &'a AuthorityConfig,
    pub(super) clock: &'a Clock,
}

impl Setting<'_> {
    fn domain(&self) -> &TrustDomain {
        &self.config.trust_domain
    }

    /// Checks certificates as peers would.
    pub(super) fn check(&self, place: &str, files: &CaFiles) -> Result<Signer, OpenError> {
        let sample = WorkloadId::new(self.domain().clone(), "default", "default")
            .expect("`default` is a DNS label");
        Signer::check(files, &sample, self.clock)
            .map_err(|source| OpenError::Signer { place: place.to_owned(), source })
    }

    /// The texts of a generation; of our own, what it lacks is made.
    pub(super) fn files_of(&self, record: &Record, number: u32) -> Result<CaFiles, OpenError> {
        let dir = generation_dir(self.dir, number);
        match record.source_of(number) {
            Source::Own => own::open(&dir, self.domain(), self.clock, self.config.lifetime_max),
            Source::Plugin => Ok(CaFiles::from_dir(&dir)?),
        }
    }

    /// The state that a record describes.
    pub(super) fn current(&self, record: Record) -> Result<Current, OpenError> {
        let place = generation_dir(self.dir, record.issuer);
        let signer =
            self.check(&place.display().to_string(), &self.files_of(&record, record.issuer)?)?;
        let mut roots: Vec<(u32, CertificateDer<'static>)> = Vec::new();
        for generation in &record.generations {
            for root in self.roots_of(generation.number)? {
                if !roots.iter().any(|(_, known)| *known == root) {
                    roots.push((generation.number, root));
                }
            }
        }
        Ok(Current::new(record, signer, roots))
    }

    /// The roots of a generation that is there.
    fn roots_of(&self, number: u32) -> Result<Vec<CertificateDer<'static>>, OpenError> {
        let path = generation_dir(self.dir, number).join(ROOT_CERT);
        let text = files::read(&path, Access::Public)?.unwrap_or_default();
        certificates("root-cert.pem", &text)
            .map_err(|source| OpenError::Signer { place: path.display().to_string(), source })
    }

    /// Writes down what is trusted and what signs. The bundle goes first: a root that is trusted too
    /// early harms nobody, one that is trusted too late does.
    fn publish(&self, current: &Current) -> Result<(), OpenError> {
        files::write(&self.dir.join(BUNDLE_FILE), &current.bundle, Access::Public)?;
        Ok(current.record.write(self.dir)?)
    }

    /// Takes an operator's certificates over another authority.
    fn merge(&self, record: Record, plugin: &CaFiles) -> Result<Record, OpenError> {
        let bad = |source| OpenError::Signer { place: "the plug-in CA".to_owned(), source };
        let cert = certificates("ca-cert.pem", &plugin.cert).map_err(bad)?;
        for generation in &record.generations {
            let path = generation_dir(self.dir, generation.number).join(CA_CERT);
            let known = files::read(&path, Access::Public)?.unwrap_or_default();
            if certificates("ca-cert.pem", &known).is_ok_and(|known| known.first() == cert.first())
            {
                return Ok(record);
            }
        }
        if record.phase != Phase::Stable {
            return Err(OpenError::Rotating);
        }
        let roots = certificates("root-cert.pem", &plugin.roots).map_err(bad)?;
        let trusted = self.roots_of(record.issuer)?;
        let is_same = roots.iter().all(|root| trusted.contains(root))
            && trusted.iter().all(|root| roots.contains(root));
        let number = self.import(record.next_number(), plugin)?;
        let since = rfc3339(self.clock.now());
        let next = Generation { number, source: Source::Plugin };
        if is_same {
            tracing::info!("the plug-in CA has another certificate under the same root");
            let record = record.on(Phase::Stable, since);
            return Ok(Record { generations: vec![next], issuer: number, ..record });
        }
        tracing::warn!(
            "the plug-in CA has another root: both are trusted, and the old authority \
            signs until `sluis ca rotate switch`"
        );
        let mut record = record.on(Phase::Begun, since);
        record.generations.push(next);
        Ok(record)
    }

    /// Copies an operator's certificates into a generation's folder.
    pub(super) fn import(&self, number: u32, plugin: &CaFiles) -> Result<u32, OpenError> {
        let dir = generation_dir(self.dir, number);
        files::make_dir(&dir)?;
        files::write(&dir.join(CA_KEY), &plugin.key, Access::Private)?;
        files::write(&dir.join(CA_CERT), &plugin.cert, Access::Public)?;
        files::write(&dir.join(CERT_CHAIN), &plugin.chain, Access::Public)?;
        files::write(&dir.join(ROOT_CERT), &plugin.roots, Access::Public)?;
        Ok(number)
    }

    /// Whether a root of an older version, or of a first start that was cut off, is there.
    fn has_old(&self) -> bool {
        let first = generation_dir(self.dir, 1);
        [self.dir.join(ROOT_KEY), self.dir.join(BUNDLE_FILE), first.join(ROOT_KEY)]
            .iter()
            .any(|path| path.exists())
    }

    /// Moves the root of an older version, which had its files at the top, to the first generation.
    fn adopt_old(&self) -> Result<(), OpenError> {
        let first = generation_dir(self.dir, 1);
        let (key, cert) = (self.dir.join(ROOT_KEY), self.dir.join(BUNDLE_FILE));
        if !key.exists() {
            return match cert.exists() && !first.join(ROOT_CERT).exists() {
                true => Err(OpenError::NoKey { cert, key }),
                false => Ok(()),
            };
        }
        files::read(&key, Access::Private)?;
        files::make_dir(&first)?;
        // The key goes last: until it is gone from the top, this is done again.
        if let Some(text) = files::read(&cert, Access::Public)? {
            files::write(&first.join(ROOT_CERT), &text, Access::Public)?;
        }
        let fault = |source| FileError::Io { path: key.clone(), source };
        Ok(fs::rename(&key, first.join(ROOT_KEY)).map_err(fault)?)
    }
}
