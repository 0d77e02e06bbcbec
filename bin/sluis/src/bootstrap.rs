//! Makes the bootstrap with which one proxy starts: ours, or a real Envoy.
//!
//! In:    who the proxy is, and where the control plane and the proxy's own files are.
//! Out:   a standard Envoy `Bootstrap`, as JSON (for Envoy) or binary protobuf (for `sluis-proxy`).
//! Never: holds a secret: it names the file of the join token, not the token.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
};

use anyhow::Result;
use envoy_types::pb::envoy::config::bootstrap::v3::Bootstrap;
use prost::Message;
use serde_json::{Map, Value, json};
use sluis_capture::netns;
use sluis_nouns::WorkloadId;

use crate::{state::WorkloadDir, workload::Workload};

/// The name in the control plane's certificate, as Istio's agents expect it.
pub(crate) const CONTROL_PLANE_NAME: &str = "istiod.istio-system.svc";

/// Istio's `proxyMetadata` for RSA keys of so many bits; without it keys are ECDSA P-256.
const RSA_KEY_SIZE: &str = "WORKLOAD_RSA_KEY_SIZE";

/// The socket of the Workload API, in the folder that the workload's annotation names.
pub(crate) const WORKLOAD_API_SOCKET: &str = "workload.sock";

/// Which program the bootstrap is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    /// `sluis-proxy`.
    Sluis,
    /// A real Envoy, with `sluis-proxy agent` beside it.
    Envoy,
}

/// Where the control plane is, and by what it is known.
pub(crate) struct ControlPlane<'a> {
    /// The address of its gRPC port.
    pub address: SocketAddr,
    /// The mesh's root certificates, PEM.
    pub roots: &'a Path,
}

/// The bootstrap of one workload's proxy, in protobuf's JSON form.
pub(crate) fn render(
    workload: &Workload,
    id: &WorkloadId,
    files: &WorkloadDir,
    control: &ControlPlane<'_>,
    engine: Engine,
) -> Value {
    let name = &workload.name;
    let role = if workload.is_gateway { "router" } else { "sidecar" };
    let domain = format!("{}.svc.cluster.local", name.namespace);
    json!({
        "node": {
            "id": format!("{role}~{}~{}.{}~{domain}", workload.address, name.name, name.namespace),
            "cluster": format!("{}.{}", id.service_account(), name.namespace),
            "metadata": metadata(workload, id, files, control, engine),
            "extensions": extensions(engine),
        },
        "admin": {"address": {"pipe": {"path": files.admin_socket(), "mode": 0o600}}},
        "dynamic_resources": {
            "lds_config": {"ads": {}, "resource_api_version": "V3"},
            "cds_config": {"ads": {}, "resource_api_version": "V3"},
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
            },
        },
        "static_resources": {"clusters": [
            control_plane_cluster(control.address),
            agent_cluster(&files.sds_socket()),
        ]},
    })
}

/// The JSON form as the binary that `sluis-proxy` reads.
///
/// # Errors
///
/// When the JSON is not a bootstrap; the text names the field.
pub(crate) fn encode(bootstrap: &Value) -> Result<Vec<u8>> {
    let message: Bootstrap = sluis_protojson::message_from_json(bootstrap)?;
    Ok(message.encode_to_vec())
}

/// What the proxy can do that a stock Envoy cannot; an Envoy lists its own extensions by itself.
fn extensions(engine: Engine) -> Value {
    match engine {
        Engine::Sluis => json!([
            {"name": "istio.alpn", "category": "envoy.filters.http"},
            {"name": sluis_envoy::credentials::CREDENTIALS_FILTER,
             "category": "envoy.filters.http.upstream"},
        ]),
        Engine::Envoy => json!([]),
    }
}

fn metadata(
    workload: &Workload,
    id: &WorkloadId,
    files: &WorkloadDir,
    control: &ControlPlane<'_>,
    engine: Engine,
) -> Value {
    let mut fields = Map::new();
    let mut set = |key: &str, value: String| drop(fields.insert(key.to_owned(), json!(value)));
    set("NAMESPACE", workload.name.namespace.to_string());
    set("WORKLOAD_NAME", workload.name.name.to_string());
    set("SERVICE_ACCOUNT", id.service_account().to_owned());
    set("CA_ADDR", control.address.to_string());
    set("CA_ROOT_CA", control.roots.display().to_string());
    set("SLUIS_JOIN_TOKEN", files.join_token().display().to_string());
    set("SLUIS_TRUST_DOMAIN", id.trust_domain().to_string());
    if workload.is_gateway && engine == Engine::Sluis {
        set("SLUIS_AUDIT", files.audit_log().display().to_string());
    }
    if let Some(folder) = &workload.workload_api {
        set("SLUIS_WORKLOAD_API", folder.join(WORKLOAD_API_SOCKET).display().to_string());
    }
    if let Some(bits) = workload.environment.get(RSA_KEY_SIZE) {
        set(RSA_KEY_SIZE, bits.clone());
    }
    if let Some(path) = &workload.lua_path {
        set("SLUIS_LUA_PATH", path.display().to_string());
    }
    if let Some(workers) = workload.workers {
        set("SLUIS_WORKERS", workers.to_string());
    }
    if let Some(netns) = &workload.netns {
        // A packet filter brings connections and names to the proxy's own ports.
        if !workload.is_gateway {
            set("DNS_CAPTURE", "true".to_owned());
            let mode = if workload.is_transparent { "TPROXY" } else { "REDIRECT" };
            set("INTERCEPTION_MODE", mode.to_owned());
            set("SLUIS_STATUS_PORT", workload.status_port.to_string());
        }
        set("INSTANCE_IPS", instance_ips(workload.address, netns));
    } else if !workload.is_gateway {
        set("SLUIS_CAPTURE_PIPE", files.capture_socket().display().to_string());
        if engine == Engine::Sluis {
            set("SLUIS_HANDOFF", files.handoff_socket().display().to_string());
        }
    }
    Value::Object(fields)
}

/// All addresses of the workload, its own first, as Istio's agent tells them. A namespace that is not
/// there yet has no others: the proxy cannot start either.
fn instance_ips(own: IpAddr, netns: &Path) -> String {
    let found = netns::addresses(netns).unwrap_or_default();
    let all = [own].into_iter().chain(found.into_iter().filter(|ip| *ip != own));
    all.map(|ip| ip.to_string()).collect::<Vec<_>>().join(",")
}

/// The control plane, spoken to under mutual TLS with the workload's own certificate.
fn control_plane_cluster(address: SocketAddr) -> Value {
    let sds = json!({
        "resource_api_version": "V3",
        "api_config_source": {
            "api_type": "GRPC",
            "transport_api_version": "V3",
            "grpc_services": [{"envoy_grpc": {"cluster_name": "sds-grpc"}}],
        },
    });
    json!({
        "name": "xds-grpc",
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": http2_options(),
        "load_assignment": {"cluster_name": "xds-grpc", "endpoints": [{"lb_endpoints": [{"endpoint": {
            "address": {"socket_address": {
                "address": address.ip().to_string(),
                "port_value": address.port(),
            }},
        }}]}]},
        "transport_socket": {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": CONTROL_PLANE_NAME,
                "common_tls_context": {
                    "alpn_protocols": ["h2"],
                    "tls_certificate_sds_secret_configs": [{"name": "default", "sds_config": sds}],
                    "combined_validation_context": {
                        "default_validation_context": {"match_typed_subject_alt_names": [
                            {"san_type": "DNS", "matcher": {"exact": CONTROL_PLANE_NAME}},
                        ]},
                        "validation_context_sds_secret_config": {"name": "ROOTCA", "sds_config": sds},
                    },
                },
            },
        },
    })
}

/// The agent beside a real Envoy, which holds the workload's key.
fn agent_cluster(socket: &Path) -> Value {
    json!({
        "name": "sds-grpc",
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": http2_options(),
        "load_assignment": {"cluster_name": "sds-grpc", "endpoints": [{"lb_endpoints": [{"endpoint": {
            "address": {"pipe": {"path": socket}},
        }}]}]},
    })
}

fn http2_options() -> Value {
    json!({
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        },
    })
}
