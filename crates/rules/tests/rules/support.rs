//! Makes runtimes from JSON, and requests from a few words.

use std::sync::Arc;

use serde_json::{Value, json};
use sluis_envoy::{Kind, ResourceSet};
use sluis_rules::{Compiled, HeaderValues, RequestFacts, RouteTable, Runtime, compile};

/// A set with these resources.
pub(crate) fn set(resources: &[(Kind, Value)]) -> ResourceSet {
    let mut set = ResourceSet::default();
    for (kind, value) in resources {
        let any = sluis_protojson::from_json(kind.type_url(), value).unwrap();
        set.insert(*kind, &any).unwrap();
    }
    set
}

/// Compiles a set that has no fault.
#[track_caller]
pub(crate) fn runtime(resources: &[(Kind, Value)]) -> Arc<Runtime> {
    let Compiled { runtime, faults } = compile(&set(resources), None);
    assert!(faults.is_empty(), "{}", listed(&faults));
    runtime
}

/// The faults of a set, one a line.
pub(crate) fn faults(resources: &[(Kind, Value)]) -> String {
    listed(&compile(&set(resources), None).faults)
}

fn listed(faults: &[sluis_rules::Fault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// A table named `t` with these virtual hosts.
#[track_caller]
pub(crate) fn table(virtual_hosts: Value) -> Arc<RouteTable> {
    let runtime = runtime(&[(Kind::Route, json!({ "name": "t", "virtual_hosts": virtual_hosts }))]);
    Arc::clone(&runtime.routes["t"])
}

/// A request.
#[derive(Clone, Default)]
pub(crate) struct Request {
    pub(crate) method: &'static str,
    pub(crate) authority: String,
    pub(crate) path: String,
    pub(crate) scheme: &'static str,
    pub(crate) headers: Vec<(&'static str, &'static str)>,
}

/// A GET of a path on a host, by plain HTTP.
pub(crate) fn get(authority: &str, path: &str) -> Request {
    Request {
        method: "GET",
        authority: authority.to_owned(),
        path: path.to_owned(),
        scheme: "http",
        headers: Vec::new(),
    }
}

impl Request {
    pub(crate) fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }
}

impl RequestFacts for Request {
    fn method(&self) -> &str {
        self.method
    }

    fn authority(&self) -> &str {
        &self.authority
    }

    fn path(&self) -> &str {
        &self.path
    }

    fn scheme(&self) -> &str {
        self.scheme
    }

    fn header<'r>(&'r self, name: &str, values: &mut HeaderValues<'r>) {
        let found = self.headers.iter().filter(|(key, _)| *key == name);
        values.extend(found.map(|(_, value)| value.as_bytes()));
    }
}
