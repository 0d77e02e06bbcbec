//! What the debug port says of the mesh: services, their endpoints, and the objects behind them.

use serde_json::{Value, json};
use sluis_model::{EndpointAddress, MeshService, ServiceEndpoint, ServiceSource, is_held};

use super::Debug;

impl Debug {
    /// Every service.
    pub(super) fn registryz(&self) -> Value {
        self.control.snapshot().all_services().map(|service| describe(service)).collect()
    }

    /// The endpoints of every port of every service.
    pub(super) fn endpointz(&self) -> Value {
        let snapshot = self.control.snapshot();
        let mut all = Vec::new();
        for service in snapshot.all_services() {
            for port in &service.ports {
                let endpoints = snapshot.endpoints(service, port);
                let shown: Vec<Value> = endpoints.iter().map(endpoint).collect();
                all.push(json!({
                    "svc": format!("{}:{}", service.host, port.name),
                    "port": port.number,
                    "ep": shown,
                }));
            }
        }
        Value::Array(all)
    }

    /// Every object, and where it stands. What it says is in its file.
    pub(super) fn configz(&self) -> Value {
        let snapshot = self.control.snapshot();
        let object = |resource: &std::sync::Arc<sluis_resources::Resource>| {
            let meta = &resource.meta;
            let labels: Vec<String> =
                meta.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            json!({
                "kind": meta.kind.to_string(),
                "metadata": {
                    "name": &*meta.name.name,
                    "namespace": &*meta.name.namespace,
                    "labels": labels,
                    "creationTimestamp": meta.created,
                },
                "at": meta.at.to_string(),
            })
        };
        snapshot.resources().filter(|one| !is_held(&one.key())).map(object).collect()
    }
}

fn describe(service: &MeshService) -> Value {
    let ports: Vec<Value> = service
        .ports
        .iter()
        .map(|port| {
            json!({
                "name": port.name,
                "port": port.number,
                "protocol": format!("{:?}", port.protocol),
            })
        })
        .collect();
    let addresses: Vec<String> = service.addresses.iter().map(ToString::to_string).collect();
    json!({
        "hostname": service.host.to_string(),
        "Attributes": {
            "ServiceRegistry": match service.source {
                ServiceSource::Platform => "Kubernetes",
                ServiceSource::Entry => "External",
            },
            "Name": &*service.object.name,
            "Namespace": &*service.object.namespace,
        },
        "ports": ports,
        "addresses": addresses,
        "autoAllocatedIPv4Address": service.auto_address.map(|address| address.to_string()),
        "Resolution": format!("{:?}", service.resolution),
        "MeshExternal": service.location == sluis_resources::Location::MeshExternal,
    })
}

fn endpoint(endpoint: &ServiceEndpoint) -> Value {
    let address = match &endpoint.address {
        EndpointAddress::Ip(ip) => ip.to_string(),
        EndpointAddress::Dns(name) => name.clone(),
        EndpointAddress::Unix(path) => path.clone(),
    };
    json!({
        "Addresses": [address],
        "EndpointPort": endpoint.port,
        "LbWeight": endpoint.weight,
        "Labels": endpoint.labels.to_string(),
        "ServiceAccount": endpoint.account.as_ref().map(|(namespace, account)| format!("{namespace}/{account}")),
    })
}
