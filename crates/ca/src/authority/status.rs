//! What the authority tells people of itself.

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use sluis_tls::Leaf;

use super::{Authority, generation_dir, rfc3339};
use crate::{Phase, Source, own};

/// The state of an authority. Times are RFC 3339 in UTC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthorityStatus {
    /// The trust domain.
    pub trust_domain: String,
    /// Its other names.
    pub trust_domain_aliases: Vec<String>,
    /// How long a workload's certificate lives at most, seconds.
    pub certificate_life_seconds: u64,
    /// What signs.
    pub issuer: IssuerStatus,
    /// What is trusted.
    pub roots: Vec<RootStatus>,
    /// How far a change of the root has come.
    pub phase: Phase,
    /// Since when.
    pub since: String,
    /// The certificates that the next step of a change waits for.
    pub waiting_for: Vec<Pending>,
}

/// The authority that signs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IssuerStatus {
    /// Its number.
    pub generation: u32,
    /// Whose it is.
    pub source: Source,
    /// The subject of its certificate.
    pub subject: String,
    /// The serial number of its certificate.
    pub serial: String,
    /// The kind of its key.
    pub key: String,
    /// Until when its chain is valid.
    pub not_after: String,
    /// Certificates between a leaf and its root.
    pub intermediates: usize,
    /// Whether the root's key is on this machine.
    pub root_key_here: bool,
}

/// One trusted root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RootStatus {
    /// The authority that brought it.
    pub generation: u32,
    /// `signing`, `next` or `retiring`.
    pub state: String,
    /// Its subject.
    pub subject: String,
    /// Its SHA-256.
    pub sha256: String,
    /// Until when it is valid.
    pub not_after: String,
}

/// A certificate that a step waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Whose it is.
    pub identity: String,
    /// Its serial number.
    pub serial: String,
    /// Until when it is valid: then the step waits for it no longer.
    pub until: String,
}

impl Authority {
    /// The state as it is.
    #[must_use]
    pub fn status(&self) -> AuthorityStatus {
        let current = self.current();
        let (record, signer) = (&current.record, &current.signer);
        let source = record.source_of(record.issuer);
        let dir = generation_dir(&self.dir, record.issuer);
        let roots = current.roots.iter().filter_map(|(generation, der)| {
            let facts = Leaf::parse(der).ok()?;
            let state = match generation.cmp(&record.issuer) {
                std::cmp::Ordering::Less => "retiring",
                std::cmp::Ordering::Equal => "signing",
                std::cmp::Ordering::Greater => "next",
            };
            Some(RootStatus {
                generation: *generation,
                state: state.to_owned(),
                subject: facts.subject,
                sha256: digest(&SHA256, der)
                    .as_ref()
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect(),
                not_after: rfc3339(facts.not_after),
            })
        });
        let config = &self.config;
        AuthorityStatus {
            trust_domain: config.trust_domain.to_string(),
            trust_domain_aliases: config.aliases.iter().map(ToString::to_string).collect(),
            certificate_life_seconds: config.lifetime_max.as_secs(),
            issuer: IssuerStatus {
                generation: record.issuer,
                source,
                subject: signer.cert().subject.clone(),
                serial: signer.cert().serial.clone(),
                key: signer.algorithm().to_owned(),
                not_after: rfc3339(signer.ends()),
                intermediates: signer.chain().len(),
                root_key_here: source == Source::Own && own::has_root_key(&dir),
            },
            roots: roots.collect(),
            phase: record.phase,
            since: record.since.clone(),
            waiting_for: self.pending(),
        }
    }
}
