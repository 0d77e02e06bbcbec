//! The set of resources that one proxy should hold, decoded and encoded.
//!
//! In:    typed resources (control plane) or `Any`s with names (data plane).
//! Out:   maps sorted by name, so that equal sets give equal bytes.
//! Never: guesses: a resource that does not decode is reported and left out.

use std::{collections::BTreeMap, sync::Arc};

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

use crate::{Kind, NameTable, UnpackError, canonical, pack, unpack};

/// The name under which the one name table travels.
const NAME_TABLE: &str = "name-table";

/// What one proxy should hold, by kind and name.
///
/// Resources are shared: a set that differs in one listener from another shares the rest with it.
#[derive(Clone, Debug, Default, PartialEq)]
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

/// One resource as it travels: its name, the hash of its content, and its bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    /// The name by which the resource is subscribed to.
    pub name: String,
    /// The hash of the bytes, as 16 hexadecimal digits. Equal content has an equal version.
    pub version: String,
    /// The resource itself.
    pub body: Any,
}

/// A [`ResourceSet`] ready to be sent: for each kind, the resources by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EncodedSet {
    kinds: BTreeMap<Kind, BTreeMap<String, Encoded>>,
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
        set.put_all(Kind::Cluster, &self.clusters);
        set.put_all(Kind::Endpoints, &self.endpoints);
        set.put_all(Kind::Secret, &self.secrets);
        set.put_all(Kind::Listener, &self.listeners);
        set.put_all(Kind::Route, &self.routes);
        set.put_all(Kind::Extension, &self.extensions);
        if let Some(names) = &self.names {
            set.put(Kind::NameTable, NAME_TABLE, names.as_ref());
        }
        set
    }
}

impl EncodedSet {
    /// The resources of one kind by name.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &Encoded> {
        self.kinds.get(&kind).into_iter().flat_map(BTreeMap::values)
    }

    /// One resource.
    #[must_use]
    pub fn get(&self, kind: Kind, name: &str) -> Option<&Encoded> {
        self.kinds.get(&kind)?.get(name)
    }

    /// How many resources there are of one kind.
    #[must_use]
    pub fn count(&self, kind: Kind) -> usize {
        self.kinds.get(&kind).map_or(0, BTreeMap::len)
    }

    /// Takes a resource out. A name that is not there is no fault.
    pub fn remove(&mut self, kind: Kind, name: &str) {
        if let Some(all) = self.kinds.get_mut(&kind) {
            all.remove(name);
        }
    }

    fn put_all<M: Name>(&mut self, kind: Kind, all: &BTreeMap<String, Arc<M>>) {
        for (name, value) in all {
            self.put(kind, name, value.as_ref());
        }
    }

    fn put<M: Name>(&mut self, kind: Kind, name: &str, value: &M) {
        let mut body = pack(value);
        if let Some(maps) = maps(kind) {
            body.value = canonical::sorted(body.value, maps);
        }
        let version = format!("{:016x}", xxhash_rust::xxh3::xxh3_64(&body.value));
        let encoded = Encoded { name: name.to_owned(), version, body };
        self.kinds.entry(kind).or_default().insert(name.to_owned(), encoded);
    }
}

/// Where resources of a kind hold maps, whose entries are sorted: equal sets give equal bytes.
fn maps(kind: Kind) -> Option<&'static [canonical::Field]> {
    match kind {
        Kind::Cluster => Some(&canonical::CLUSTER),
        Kind::Endpoints => Some(&canonical::ENDPOINTS),
        Kind::Listener => Some(&canonical::LISTENER),
        Kind::Route => Some(&canonical::ROUTES),
        _ => None,
    }
}

fn put<M>(map: &mut BTreeMap<String, Arc<M>>, name: String, value: M) -> String {
    map.insert(name.clone(), Arc::new(value));
    name
}

#[cfg(test)]
mod tests {
    use super::*;

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
