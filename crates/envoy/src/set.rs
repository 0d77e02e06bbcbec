//! The set of resources that one proxy should hold, decoded and encoded.
//!
//! In:    typed resources (control plane) or `Any`s with names (data plane).
//! Out:   maps sorted by name, so that equal sets give equal bytes.
//! Never: guesses: a resource that does not decode is reported and left out.

use std::{collections::BTreeMap, fmt, sync::Arc};

use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::Cluster, core::v3::TypedExtensionConfig,
            endpoint::v3::ClusterLoadAssignment, listener::v3::Listener,
            route::v3::RouteConfiguration,
        },
        extensions::transport_sockets::tls::v3::Secret,
    },
    google::protobuf::Any,
};
use prost::Name;

use crate::{Encoded, EncodedSet, Kind, NameTable, UnpackError, unpack};

/// The name under which the one name table travels.
pub const NAME_TABLE: &str = "name-table";

/// What one proxy should hold, by kind and name.
///
/// Resources are shared: a set that differs in one listener from another shares the rest with it.
#[derive(Clone, Default, PartialEq)]
pub struct ResourceSet {
    /// Clusters by name (CDS).
    pub clusters: BTreeMap<String, Arc<Cluster>>,
    /// Endpoints by the name of their cluster (EDS).
    pub endpoints: BTreeMap<String, Arc<ClusterLoadAssignment>>,
    /// Secrets by name (SDS). Never printed: they may hold keys.
    pub secrets: BTreeMap<String, Arc<Secret>>,
    /// Listeners by name (LDS).
    pub listeners: BTreeMap<String, Arc<Listener>>,
    /// Route tables by name (RDS).
    pub routes: BTreeMap<String, Arc<RouteConfiguration>>,
    /// Filters that listeners name, by name (ECDS).
    pub extensions: BTreeMap<String, Arc<TypedExtensionConfig>>,
    /// The names that a sidecar's resolver answers (NDS).
    pub names: Option<Arc<NameTable>>,
}

/// Secrets by name only: they may hold keys.
impl fmt::Debug for ResourceSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { clusters, endpoints, secrets, listeners, routes, extensions, names } = self;
        f.debug_struct("ResourceSet")
            .field("clusters", clusters)
            .field("endpoints", endpoints)
            .field("secrets", &secrets.keys())
            .field("listeners", listeners)
            .field("routes", routes)
            .field("extensions", extensions)
            .field("names", names)
            .finish()
    }
}

/// A resource that was not taken into the set.
#[derive(Debug, thiserror::Error)]
#[error("{kind} {name}: {source}")]
pub struct RejectedResource {
    /// The kind under which it came.
    pub kind: Kind,
    /// Its name; may be empty when not even that could be read.
    pub name: String,
    /// What is wrong with it.
    #[source]
    pub source: UnpackError,
}

impl ResourceSet {
    /// Takes in one resource as it came off the wire, replacing the one of the same name.
    ///
    /// Returns the resource's name, which is read from the resource itself.
    ///
    /// # Errors
    ///
    /// When the bytes are not a resource of that kind; the set is then unchanged.
    pub fn insert(&mut self, kind: Kind, body: &Any) -> Result<String, RejectedResource> {
        let reject = |source| RejectedResource { kind, name: String::new(), source };
        let name = match kind {
            Kind::Cluster => {
                let value: Cluster = unpack(body).map_err(reject)?;
                put(&mut self.clusters, value.name.clone(), value)
            }
            Kind::Endpoints => {
                let value: ClusterLoadAssignment = unpack(body).map_err(reject)?;
                put(&mut self.endpoints, value.cluster_name.clone(), value)
            }
            Kind::Secret => {
                let value: Secret = unpack(body).map_err(reject)?;
                put(&mut self.secrets, value.name.clone(), value)
            }
            Kind::Listener => {
                let value: Listener = unpack(body).map_err(reject)?;
                put(&mut self.listeners, value.name.clone(), value)
            }
            Kind::Route => {
                let value: RouteConfiguration = unpack(body).map_err(reject)?;
                put(&mut self.routes, value.name.clone(), value)
            }
            Kind::Extension => {
                let value: TypedExtensionConfig = unpack(body).map_err(reject)?;
                put(&mut self.extensions, value.name.clone(), value)
            }
            Kind::NameTable => {
                self.names = Some(Arc::new(unpack(body).map_err(reject)?));
                NAME_TABLE.to_owned()
            }
        };
        Ok(name)
    }

    /// Takes a resource out. A name that is not there is no fault.
    pub fn remove(&mut self, kind: Kind, name: &str) {
        match kind {
            Kind::Cluster => drop(self.clusters.remove(name)),
            Kind::Endpoints => drop(self.endpoints.remove(name)),
            Kind::Secret => drop(self.secrets.remove(name)),
            Kind::Listener => drop(self.listeners.remove(name)),
            Kind::Route => drop(self.routes.remove(name)),
            Kind::Extension => drop(self.extensions.remove(name)),
            Kind::NameTable => self.names = None,
        }
    }

    /// The names of the resources of one kind, sorted.
    #[must_use]
    pub fn names_of(&self, kind: Kind) -> Vec<String> {
        match kind {
            Kind::Cluster => self.clusters.keys().cloned().collect(),
            Kind::Endpoints => self.endpoints.keys().cloned().collect(),
            Kind::Secret => self.secrets.keys().cloned().collect(),
            Kind::Listener => self.listeners.keys().cloned().collect(),
            Kind::Route => self.routes.keys().cloned().collect(),
            Kind::Extension => self.extensions.keys().cloned().collect(),
            Kind::NameTable => self.names.iter().map(|_| NAME_TABLE.to_owned()).collect(),
        }
    }

    /// The set as it travels. Equal sets give equal bytes and versions.
    #[must_use]
    pub fn encode(&self) -> EncodedSet {
        let mut set = EncodedSet::default();
        put_all(&mut set, Kind::Cluster, &self.clusters);
        put_all(&mut set, Kind::Endpoints, &self.endpoints);
        put_all(&mut set, Kind::Secret, &self.secrets);
        put_all(&mut set, Kind::Listener, &self.listeners);
        put_all(&mut set, Kind::Route, &self.routes);
        put_all(&mut set, Kind::Extension, &self.extensions);
        if let Some(names) = &self.names {
            let table = Encoded::new(Kind::NameTable, NAME_TABLE, names.as_ref());
            set.set(Kind::NameTable, vec![Arc::new(table)]);
        }
        set
    }
}

fn put_all<M: Name>(set: &mut EncodedSet, kind: Kind, all: &BTreeMap<String, Arc<M>>) {
    if !all.is_empty() {
        let encoded = all.iter().map(|(name, value)| Encoded::new(kind, name, &**value));
        set.set(kind, encoded.map(Arc::new).collect());
    }
}

fn put<M>(map: &mut BTreeMap<String, Arc<M>>, name: String, value: M) -> String {
    map.insert(name.clone(), Arc::new(value));
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pack;

    fn cluster(name: &str) -> Cluster {
        Cluster { name: name.to_owned(), ..Cluster::default() }
    }

    #[test]
    fn a_set_survives_its_way_over_the_wire() {
        let mut sent = ResourceSet::default();
        sent.clusters.insert("a".to_owned(), Arc::new(cluster("a")));
        let mut received = ResourceSet::default();
        for resource in sent.encode().of(Kind::Cluster) {
            assert_eq!(received.insert(Kind::Cluster, &resource.body).unwrap(), "a");
        }
        assert_eq!(sent, received);
    }

    #[test]
    fn debug_shows_no_bytes_of_a_secret() {
        use envoy_types::pb::envoy::{
            config::core::v3::{DataSource, data_source::Specifier},
            extensions::transport_sockets::tls::v3::{TlsCertificate, secret::Type},
        };
        let key = b"-----BEGIN PRIVATE KEY-----".to_vec();
        let certificate = TlsCertificate {
            private_key: Some(DataSource {
                specifier: Some(Specifier::InlineBytes(key.clone())),
                ..DataSource::default()
            }),
            ..TlsCertificate::default()
        };
        let secret =
            Secret { name: "s".to_owned(), r#type: Some(Type::TlsCertificate(certificate)) };
        let bytes = format!("{key:?}");
        let shown = bytes.trim_matches(['[', ']']);
        assert!(format!("{secret:?}").contains(shown), "the message itself shows them");
        let mut set = ResourceSet::default();
        set.secrets.insert("s".to_owned(), Arc::new(secret));
        for text in [format!("{set:?}"), format!("{:?}", set.encode())] {
            assert!(text.contains("\"s\""), "{text}");
            assert!(!text.contains(shown) && !text.contains("PRIVATE"), "{text}");
        }
    }

    #[test]
    fn equal_content_has_an_equal_version_and_other_content_another() {
        let version = |name: &str| {
            let mut set = ResourceSet::default();
            set.clusters.insert("x".to_owned(), Arc::new(cluster(name)));
            set.encode().get(Kind::Cluster, "x").unwrap().version.clone()
        };
        assert_eq!(version("a"), version("a"));
        assert_ne!(version("a"), version("b"));
    }

    #[test]
    fn a_resource_of_another_type_is_refused_and_changes_nothing() {
        let mut set = ResourceSet::default();
        assert!(set.insert(Kind::Listener, &pack(&cluster("a"))).is_err());
        assert_eq!(set, ResourceSet::default());
    }
}
