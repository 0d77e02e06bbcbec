//! What the debug port says of proxies: how far they are, who they are, what they should hold.

use envoy_types::pb::google::protobuf::Any;
use serde_json::{Map, Value, json};
use sluis_control::Client;
use sluis_envoy::Kind;
use sluis_translate::Role;
use sluis_xds::Peer;

use super::{Debug, Denial};

/// The kinds of `/debug/syncz`, with Istio's prefix for each.
const SYNCZ: [(Kind, &str); 5] = [
    (Kind::Cluster, "cluster"),
    (Kind::Listener, "listener"),
    (Kind::Route, "route"),
    (Kind::Endpoints, "endpoint"),
    (Kind::Extension, "extensionconfig"),
];

impl Debug {
    /// For each proxy the versions sent and accepted.
    pub(super) fn syncz(&self) -> Value {
        self.control.clients().iter().map(sync).collect()
    }

    /// For each proxy who it is and what it says of itself.
    pub(super) fn adsz(&self) -> Value {
        let clients: Vec<Value> = self.control.clients().iter().map(describe).collect();
        json!({"totalClients": clients.len(), "clients": clients})
    }

    /// What a proxy should hold, as Envoy's admin interface would show it. Secrets by name only.
    pub(super) fn config_dump(&self, id: String) -> Result<Value, Denial> {
        let client = self.client(id)?;
        let version = |kind: Kind| client.kinds.get(&kind).map_or("", |status| &status.accepted);
        let wrapped = |kind: Kind, wrap: &dyn Fn(Value, &str) -> Value| {
            let all = resources(&client, kind)?;
            Ok(all.into_iter().map(|one| wrap(one, version(kind))).collect::<Vec<Value>>())
        };
        let clusters =
            wrapped(Kind::Cluster, &|one, at| json!({"version_info": at, "cluster": one}))?;
        let listeners = wrapped(Kind::Listener, &|one, at| {
            let name = one["name"].clone();
            json!({"name": name, "active_state": {"version_info": at, "listener": one}})
        })?;
        let routes =
            wrapped(Kind::Route, &|one, at| json!({"version_info": at, "route_config": one}))?;
        let endpoints = wrapped(
            Kind::Endpoints,
            &|one, at| json!({"version_info": at, "endpoint_config": one}),
        )?;
        let filters =
            wrapped(Kind::Extension, &|one, at| json!({"version_info": at, "ecds_filter": one}))?;
        let secrets: Vec<Value> =
            client.config.encoded.of(Kind::Secret).map(|one| json!({"name": one.name})).collect();
        Ok(json!({"configs": [
            section("ClustersConfigDump", "dynamic_active_clusters", clusters),
            section("ListenersConfigDump", "dynamic_listeners", listeners),
            section("RoutesConfigDump", "dynamic_route_configs", routes),
            section("EndpointsConfigDump", "dynamic_endpoint_configs", endpoints),
            section("EcdsConfigDump", "ecds_filters", filters),
            section("SecretsConfigDump", "dynamic_active_secrets", secrets),
        ]}))
    }

    /// The endpoints that a proxy should hold.
    pub(super) fn endpoints_of(&self, id: String) -> Result<Value, Denial> {
        let client = self.client(id)?;
        resources(&client, Kind::Endpoints).map(Value::Array)
    }
}

fn section(message: &str, field: &str, items: Vec<Value>) -> Value {
    json!({"@type": format!("type.googleapis.com/envoy.admin.v3.{message}"), field: items})
}

/// The resources of one kind, each with its `@type`.
fn resources(client: &Client, kind: Kind) -> Result<Vec<Value>, Denial> {
    let bodies = client.config.public.of(kind).map(|resource| &resource.body);
    bodies.map(|body: &Any| sluis_protojson::to_json(body).map_err(Denial::Failed)).collect()
}

fn sync(client: &Client) -> Value {
    let name = &client.view.name;
    let mut shown = Map::new();
    shown.insert("cluster".into(), client.view.node.cluster_id.clone().into());
    shown.insert("proxy".into(), format!("{}.{}", name.name, name.namespace).into());
    shown.insert("proxy_type".into(), role(client).into());
    shown.insert("istio_version".into(), client.view.node.istio_version.clone().into());
    for (kind, prefix) in SYNCZ {
        if let Some(status) = client.kinds.get(&kind) {
            shown.insert(format!("{prefix}_sent"), status.version.clone().into());
            shown.insert(format!("{prefix}_acked"), status.accepted.clone().into());
        }
    }
    Value::Object(shown)
}

fn describe(client: &Client) -> Value {
    let (view, node) = (&client.view, &client.node);
    let labels: Map<String, Value> =
        view.labels.iter().map(|(key, value)| (key.clone(), value.clone().into())).collect();
    let kinds: Map<String, Value> = client
        .kinds
        .iter()
        .filter(|(_, status)| !status.version.is_empty())
        .map(|(kind, status)| {
            let shown = json!({
                "state": status.sync.to_string(),
                "resources": client.config.public.count(*kind),
                "ageSeconds": status.age.as_secs(),
            });
            (kind.type_url().to_owned(), shown)
        })
        .collect();
    json!({
        "connectionId": format!("{}-{}", node.id, client.key.0),
        "connectedSeconds": client.connected.as_secs(),
        "peer": match &client.peer {
            Peer::Verified(id) => id.to_string(),
            Peer::Local => "local, without TLS".to_owned(),
        },
        "identity": view.id.to_string(),
        "address": view.address.to_string(),
        "labels": labels,
        "locality": view.node.locality,
        "metadata": view.node.metadata,
        "watches": kinds,
    })
}

fn role(client: &Client) -> &'static str {
    match client.view.role {
        Role::Gateway => "router",
        Role::Sidecar => "sidecar",
    }
}
