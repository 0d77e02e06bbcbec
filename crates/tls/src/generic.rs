//! Values that filters use: keys, tokens and passwords by name, with the label of their version.
//!
//! In:    an Envoy `GenericSecret` with inline data.
//! Out:   [`GenericSecret`], whose entries are read one by one where they are used.
//! Never: shows a value: `Debug` has names and version; memory is overwritten when it is given up.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use envoy_types::pb::envoy::{
    config::core::v3::{DataSource, data_source::Specifier},
    extensions::transport_sockets::tls::v3::GenericSecret as EnvoyGeneric,
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use zeroize::Zeroizing;

use crate::SecretError;

/// The entry that labels the version, for records.
pub const VERSION_ENTRY: &str = "@version";
/// The entry that says when the values expire (RFC 3339).
pub const NOT_AFTER_ENTRY: &str = "@not_after";

/// The entry under which the one value of Envoy's older form (`secret`) is kept.
const ONLY_ENTRY: &str = "";
/// Entries of one secret; a credential has a handful.
const ENTRIES_MAX: usize = 64;
/// Bytes of all values of one secret: keys of any kind fit in a fraction.
const BYTES_MAX: usize = 256 * 1024;

/// Values by name.
pub struct GenericSecret {
    entries: BTreeMap<String, Zeroizing<Vec<u8>>>,
    version: String,
    not_after: Option<SystemTime>,
}

impl GenericSecret {
    /// Values by name, with a label of their version and the time from which they are void.
    #[must_use]
    pub fn new(
        entries: impl IntoIterator<Item = (String, Zeroizing<Vec<u8>>)>,
        version: impl Into<String>,
        not_after: Option<SystemTime>,
    ) -> Self {
        Self { entries: entries.into_iter().collect(), version: version.into(), not_after }
    }

    /// Reads Envoy's message. Its older form, one nameless value, is the entry `""`.
    ///
    /// # Errors
    ///
    /// When data is not inline, the bounds are passed, or `@not_after` is no time.
    pub(crate) fn from_envoy(name: &str, message: &EnvoyGeneric) -> Result<Self, SecretError> {
        if message.secrets.len() > ENTRIES_MAX {
            return Err(SecretError::Generic("it has more than 64 entries"));
        }
        let only = message.secret.iter().map(|source| (ONLY_ENTRY, source));
        let named = message.secrets.iter().map(|(key, source)| (key.as_str(), source));
        let (mut entries, mut version, mut not_after) = (BTreeMap::new(), String::new(), None);
        let mut bytes = 0;
        for (key, source) in only.chain(named) {
            let value = inline(name, source)?;
            bytes += value.len();
            match key {
                VERSION_ENTRY => version = String::from_utf8_lossy(&value).into_owned(),
                NOT_AFTER_ENTRY => not_after = Some(time_of(&value)?),
                _ => drop(entries.insert(key.to_owned(), value)),
            }
        }
        if bytes > BYTES_MAX {
            return Err(SecretError::Generic("its values have more than 256 KiB"));
        }
        if entries.is_empty() {
            return Err(SecretError::Generic("it has no entry"));
        }
        Ok(Self { entries, version, not_after })
    }

    pub(crate) fn to_envoy(&self) -> EnvoyGeneric {
        let source = |bytes: &[u8]| DataSource {
            specifier: Some(Specifier::InlineBytes(bytes.to_vec())),
            ..DataSource::default()
        };
        let mut message = EnvoyGeneric::default();
        for (key, value) in &self.entries {
            if key == ONLY_ENTRY {
                message.secret = Some(source(value));
            } else {
                message.secrets.insert(key.clone(), source(value));
            }
        }
        if !self.version.is_empty() {
            message.secrets.insert(VERSION_ENTRY.to_owned(), source(self.version.as_bytes()));
        }
        let text = self.not_after.and_then(|at| OffsetDateTime::from(at).format(&Rfc3339).ok());
        if let Some(text) = text {
            message.secrets.insert(NOT_AFTER_ENTRY.to_owned(), source(text.as_bytes()));
        }
        message
    }

    /// One value. The name `""` is the one value of Envoy's older form.
    #[must_use]
    pub fn entry(&self, key: &str) -> Option<&[u8]> {
        self.entries.get(key).map(|value| value.as_slice())
    }

    /// The names of the values, in order, without those that are about the secret.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The label of the version, for records; empty when none came. It says nothing of the values.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// When the values expire. From then on whoever uses them refuses to.
    #[must_use]
    pub fn not_after(&self) -> Option<SystemTime> {
        self.not_after
    }

    /// Whether the values have expired.
    #[must_use]
    pub fn is_expired(&self, now: SystemTime) -> bool {
        self.not_after.is_some_and(|end| end <= now)
    }
}

impl fmt::Debug for GenericSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GenericSecret")
            .field("keys", &self.keys().collect::<Vec<_>>())
            .field("version", &self.version)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

fn inline(name: &str, source: &DataSource) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    match &source.specifier {
        Some(Specifier::InlineBytes(bytes)) => Ok(Zeroizing::new(bytes.clone())),
        Some(Specifier::InlineString(text)) => Ok(Zeroizing::new(text.clone().into_bytes())),
        _ => Err(SecretError::Unsupported {
            name: name.to_owned(),
            what: "an entry of a generic secret that is not inline",
        }),
    }
}

fn time_of(text: &[u8]) -> Result<SystemTime, SecretError> {
    let text = std::str::from_utf8(text).ok();
    let time = text.and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
    let seconds = time.map(|time| u64::try_from(time.unix_timestamp()).unwrap_or_default());
    seconds
        .map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds))
        .ok_or(SecretError::Generic("@not_after is no time of RFC 3339"))
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
        Secret as EnvoySecret, secret::Type,
    };

    use super::*;
    use crate::{Clock, Secret, SecretStore};

    fn source(text: &str) -> DataSource {
        let specifier = Some(Specifier::InlineString(text.to_owned()));
        DataSource { specifier, ..DataSource::default() }
    }

    fn message(entries: &[(&str, &str)]) -> EnvoySecret {
        let secrets = entries.iter().map(|(key, text)| ((*key).to_owned(), source(text)));
        let generic = EnvoyGeneric { secret: None, secrets: secrets.collect() };
        let name = "credential://egress/api".to_owned();
        EnvoySecret { name, r#type: Some(Type::GenericSecret(generic)) }
    }

    const ENTRIES: [(&str, &str); 4] = [
        ("key", "s3cret-value"),
        ("id", "AK-0001"),
        ("@version", "7"),
        ("@not_after", "2027-01-01T00:00:00Z"),
    ];

    #[test]
    fn a_slot_gives_the_entries_with_version_and_end() {
        let store = SecretStore::new(Clock::system(), None);
        let slot = store.slot("credential://egress/api").unwrap();
        assert!(slot.generic().is_none());
        store.put(&message(&ENTRIES)).unwrap();
        let secret = slot.generic().unwrap();
        assert_eq!(secret.entry("key"), Some(b"s3cret-value".as_slice()));
        assert_eq!(secret.entry("absent"), None);
        assert_eq!(secret.keys().collect::<Vec<_>>(), ["id", "key"]);
        assert_eq!(secret.version(), "7");
        let end = UNIX_EPOCH + Duration::from_secs(1_798_761_600);
        assert_eq!(secret.not_after(), Some(end));
        assert!(secret.is_expired(end) && !secret.is_expired(end - Duration::from_secs(1)));
        store.remove("credential://egress/api").unwrap();
        assert!(slot.generic().is_none());
    }

    #[test]
    fn debug_shows_names_and_version_and_no_value() {
        let store = SecretStore::new(Clock::system(), None);
        store.put(&message(&ENTRIES)).unwrap();
        let text = format!("{store:?}");
        assert!(text.contains("key") && text.contains("version: \"7\""), "{text}");
        assert!(!text.contains("s3cret") && !text.contains("AK-0001"), "{text}");
    }

    #[test]
    fn what_goes_out_comes_back() {
        let secret = Secret::from_envoy(&message(&ENTRIES)).unwrap();
        let again = Secret::from_envoy(&secret.to_envoy("credential://egress/api")).unwrap();
        let Secret::Generic(again) = again else { panic!("not generic") };
        assert_eq!(again.entry("id"), Some(b"AK-0001".as_slice()));
        assert_eq!((again.version(), again.not_after().is_some()), ("7", true));
    }

    #[test]
    fn envoys_one_value_is_the_nameless_entry() {
        let mut only = message(&[]);
        only.r#type = Some(Type::GenericSecret(EnvoyGeneric {
            secret: Some(source("token")),
            ..EnvoyGeneric::default()
        }));
        let Secret::Generic(secret) = Secret::from_envoy(&only).unwrap() else { panic!() };
        assert_eq!(secret.entry(""), Some(b"token".as_slice()));
    }

    #[test]
    fn files_bad_times_and_empty_secrets_are_refused_and_the_value_before_stays() {
        let file = Specifier::Filename("/etc/shadow".to_owned());
        let mut by_file = message(&ENTRIES);
        if let Some(Type::GenericSecret(generic)) = &mut by_file.r#type {
            let by_file = DataSource { specifier: Some(file), ..DataSource::default() };
            generic.secrets.insert("key".to_owned(), by_file);
        }
        let store = SecretStore::new(Clock::system(), None);
        store.put(&message(&ENTRIES)).unwrap();
        let huge = "x".repeat(BYTES_MAX + 1);
        let bad = [
            by_file,
            message(&[("key", "x"), ("@not_after", "tomorrow")]),
            message(&[("@version", "3")]),
            message(&[("key", &huge)]),
        ];
        for secret in bad {
            let text = store.put(&secret).unwrap_err().to_string();
            assert!(!text.contains("s3cret"), "{text}");
        }
        let slot = store.slot("credential://egress/api").unwrap();
        assert_eq!(slot.generic().unwrap().version(), "7");
    }
}
