//! Values of credentials, as a snapshot holds them: Secrets under names that no user can write.
//!
//! In:    what the control plane fetched, made into resources here.
//! Out:   the keys, and lookups by credential.
//! Never: is among what users wrote: who lists objects leaves them out by [`is_held`].

use std::collections::BTreeMap;

use sluis_nouns::{Labels, ObjectName, SourceRef};
use sluis_resources::{Key, Kind, Meta, Resource, Secret, SecretValue, Spec};

use crate::Snapshot;

/// Before the name of the credential. A colon is in no name of Kubernetes.
const PREFIX: &str = "credential:";
/// Behind the name, for the version before. Neither is this.
const PREVIOUS: &str = "#previous";

/// Which version of a credential's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Age {
    /// The one in use.
    Current,
    /// The one before, while its grace lasts.
    Previous,
}

/// The key under which a credential's values are held.
#[must_use]
pub fn held_key(credential: &ObjectName, age: Age) -> Key {
    let suffix = match age {
        Age::Current => "",
        Age::Previous => PREVIOUS,
    };
    let name = format!("{PREFIX}{}{suffix}", credential.name);
    Key { kind: Kind::Secret, name: ObjectName::new(&*credential.namespace, name) }
}

/// The values of a credential as a resource.
#[must_use]
pub fn held_values(
    credential: &ObjectName,
    age: Age,
    data: BTreeMap<String, SecretValue>,
) -> Resource {
    let Key { kind, name } = held_key(credential, age);
    Resource {
        meta: Meta {
            kind,
            name,
            labels: Labels::default(),
            annotations: BTreeMap::new(),
            created: None,
            at: SourceRef::default(),
        },
        spec: Spec::Secret(Secret { kind: "Opaque".to_owned(), data }),
    }
}

/// Whether a key is of values that were fetched, and not of an object that a user wrote.
#[must_use]
pub fn is_held(key: &Key) -> bool {
    key.kind == Kind::Secret && key.name.name.contains(':')
}

impl Snapshot {
    /// The values of a credential, if there are some now.
    #[must_use]
    pub fn held(
        &self,
        credential: &ObjectName,
        age: Age,
    ) -> Option<&BTreeMap<String, SecretValue>> {
        match &self.get(&held_key(credential, age))?.spec {
            Spec::Secret(secret) => Some(&secret.data),
            _ => None,
        }
    }
}
