//! A real Envoy as the proxy. Runs when `ENVOY_BIN` names one.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use envoy_types::pb::envoy::{
    config::{
        cluster::v3::{
            Cluster,
            cluster::{ClusterDiscoveryType, DiscoveryType, EdsClusterConfig},
        },
        core::v3::{
            Address, AggregatedConfigSource, ApiVersion, ConfigSource, SocketAddress,
            address::Address as AddressKind, config_source::ConfigSourceSpecifier,
            socket_address::PortSpecifier,
        },
        endpoint::v3::{
            ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints,
            lb_endpoint::HostIdentifier,
        },
        listener::v3::{Filter, FilterChain, Listener, filter::ConfigType},
        route::v3::RouteConfiguration,
    },
    extensions::filters::{
        http::router::v3::Router,
        network::http_connection_manager::v3::{
            HttpConnectionManager, HttpFilter, Rds, http_connection_manager::RouteSpecifier,
            http_filter,
        },
    },
};
use sluis_envoy::pack;

use super::*;

/// An Envoy that ends with the test.
struct Envoy(Child);

impl Drop for Envoy {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[tokio::test]
async fn a_real_envoy_takes_its_configuration_and_refuses_a_bad_listener() {
    let Some(binary) = std::env::var_os("ENVOY_BIN") else { return };
    for (api, has_tls) in
        [("GRPC", true), ("DELTA_GRPC", true), ("GRPC", false), ("DELTA_GRPC", false)]
    {
        let (pki, world) = (Pki::new(), World::with(&mesh("one")));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let directory = Arc::clone(&world) as Arc<dyn Directory>;
        let server = if has_tls {
            Server::new(pki.server_tls(), directory)
        } else {
            Server::plaintext(directory)
        };
        let server = Running::serve(listener, server);
        let directory = tempfile::tempdir().unwrap();
        let tls = if has_tls { client_tls(&pki, directory.path()) } else { String::default() };
        let bootstrap = bootstrap(api, server.address, &tls);
        let _envoy = Envoy(
            Command::new(&binary)
                .args(["--config-yaml", &bootstrap, "--concurrency", "1", "-l", "warning"])
                .args(["--disable-hot-restart", "--use-dynamic-base-id"])
                .stdin(Stdio::null())
                .spawn()
                .unwrap(),
        );
        for kind in [Kind::Cluster, Kind::Endpoints, Kind::Listener, Kind::Route] {
            world.acked(kind).await;
        }

        world.forget_reports();
        let mut bad = mesh("one");
        bad.listeners.insert(
            "bad".to_owned(),
            Arc::new(Listener { name: "bad".to_owned(), ..Listener::default() }),
        );
        world.push(&bad);
        let nack = |report: &Report| matches!(report, Report::Nack { .. });
        let Report::Nack { detail, .. } = world.reported(Kind::Listener, nack).await else {
            unreachable!()
        };
        assert!(detail.contains("bad"), "{api}: {detail}");

        // A cluster that replaces another warms up and takes over, and the listener is good again.
        world.forget_reports();
        world.push(&mesh("two"));
        for kind in [Kind::Cluster, Kind::Endpoints, Kind::Listener] {
            world.acked(kind).await;
        }
        let all = world.reports.borrow().clone();
        assert!(!all.iter().any(|(_, report)| nack(report)), "{api}: {all:?}");
    }
}

/// One cluster with endpoints over EDS, and one listener with routes over RDS.
fn mesh(cluster: &str) -> ResourceSet {
    let ads = || ConfigSource {
        resource_api_version: ApiVersion::V3.into(),
        config_source_specifier: Some(ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..ConfigSource::default()
    };
    let mut set = ResourceSet::default();
    set.clusters.insert(
        cluster.to_owned(),
        Arc::new(Cluster {
            name: cluster.to_owned(),
            cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
            eds_cluster_config: Some(EdsClusterConfig {
                eds_config: Some(ads()),
                ..EdsClusterConfig::default()
            }),
            ..Cluster::default()
        }),
    );
    let endpoint = LbEndpoint {
        host_identifier: Some(HostIdentifier::Endpoint(Endpoint {
            address: Some(address(1)),
            ..Endpoint::default()
        })),
        ..LbEndpoint::default()
    };
    set.endpoints.insert(
        cluster.to_owned(),
        Arc::new(ClusterLoadAssignment {
            cluster_name: cluster.to_owned(),
            endpoints: vec![LocalityLbEndpoints {
                lb_endpoints: vec![endpoint],
                ..LocalityLbEndpoints::default()
            }],
            ..ClusterLoadAssignment::default()
        }),
    );
    let manager = HttpConnectionManager {
        stat_prefix: cluster.to_owned(),
        http_filters: vec![HttpFilter {
            name: "envoy.filters.http.router".to_owned(),
            config_type: Some(http_filter::ConfigType::TypedConfig(pack(&Router::default()))),
            ..HttpFilter::default()
        }],
        route_specifier: Some(RouteSpecifier::Rds(Rds {
            config_source: Some(ads()),
            route_config_name: "routes".to_owned(),
        })),
        ..HttpConnectionManager::default()
    };
    set.listeners.insert(
        "web".to_owned(),
        Arc::new(Listener {
            name: "web".to_owned(),
            address: Some(address(0)),
            filter_chains: vec![FilterChain {
                filters: vec![Filter {
                    name: "envoy.filters.network.http_connection_manager".to_owned(),
                    config_type: Some(ConfigType::TypedConfig(pack(&manager))),
                }],
                ..FilterChain::default()
            }],
            ..Listener::default()
        }),
    );
    let routes = RouteConfiguration { name: "routes".to_owned(), ..RouteConfiguration::default() };
    set.routes.insert("routes".to_owned(), Arc::new(routes));
    set
}

fn address(port: u32) -> Address {
    Address {
        address: Some(AddressKind::SocketAddress(SocketAddress {
            address: "127.0.0.1".to_owned(),
            port_specifier: Some(PortSpecifier::PortValue(port)),
            ..SocketAddress::default()
        })),
    }
}

fn bootstrap(api: &str, server: SocketAddr, transport_socket: &str) -> String {
    let (id, port) = (node().id, server.port());
    format!(
        r#"
node: {{id: "{id}", cluster: web}}
dynamic_resources:
  ads_config:
    api_type: {api}
    transport_api_version: V3
    grpc_services: [{{envoy_grpc: {{cluster_name: xds-grpc}}}}]
  cds_config: {{ads: {{}}, resource_api_version: V3}}
  lds_config: {{ads: {{}}, resource_api_version: V3}}
static_resources:
  clusters:
  - name: xds-grpc
    type: STATIC
    load_assignment:
      cluster_name: xds-grpc
      endpoints:
      - lb_endpoints:
        - endpoint:
            address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}
{transport_socket}"#
    )
}

/// The control plane's cluster under mutual TLS with files.
fn client_tls(pki: &Pki, directory: &Path) -> String {
    let pair = pki.workload(KNOWN);
    let file = |name: &str, content: String| {
        let path = directory.join(name);
        fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let certificate = file("certificate.pem", pair.certificate_pem());
    let key = file("key.pem", pair.key_pem());
    let roots = file("roots.pem", pki.ca_pem());
    let name = crate::CONTROL_PLANE_NAME;
    format!(
        r#"
    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: {name}
        common_tls_context:
          tls_certificates:
          - certificate_chain: {{filename: "{certificate}"}}
            private_key: {{filename: "{key}"}}
          validation_context:
            trusted_ca: {{filename: "{roots}"}}
            match_typed_subject_alt_names:
            - san_type: DNS
              matcher: {{exact: {name}}}
"#
    )
}
