//! Nodes as Istio's agents and tools write them.

use envoy_types::pb::envoy::config::core::v3::Locality;

use super::*;

fn value(kind: ValueKind) -> Value {
    Value { kind: Some(kind) }
}

fn text(text: &str) -> Value {
    value(ValueKind::StringValue(text.to_owned()))
}

fn node(id: &str, fields: Vec<(&str, Value)>) -> ProxyNode {
    let fields = fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    ProxyNode::read(&Node {
        id: id.to_owned(),
        metadata: Some(Struct { fields }),
        locality: Some(Locality { region: "eu".into(), zone: "a".into(), sub_zone: "".into() }),
        ..Node::default()
    })
}

const ID: &str = "sidecar~10.0.0.1~web-1.shop~shop.svc.cluster.local";

#[test]
fn istios_metadata_is_read_and_the_rest_kept_for_matches() {
    let labels = [("app".to_owned(), text("web"))].into_iter().collect();
    let node = node(
        ID,
        vec![
            ("NAMESPACE", text("shop")),
            ("LABELS", value(ValueKind::StructValue(Struct { fields: labels }))),
            ("INSTANCE_IPS", text("10.0.0.1,2001:db8::1")),
            ("SERVICE_ACCOUNT", text("web")),
            ("CLUSTER_ID", text("one")),
            ("NETWORK", text("net")),
            ("ISTIO_VERSION", text("1.27.1")),
            ("DNS_CAPTURE", text("true")),
            ("INTERCEPTION_MODE", text("NONE")),
            ("HTTP_PROXY_PORT", text("15007")),
            (
                "PROXY_CONFIG",
                value(ValueKind::StructValue(Struct {
                    fields: [("concurrency".to_owned(), value(ValueKind::NumberValue(2.0)))].into(),
                })),
            ),
            ("POD_NAME", text("web-1")),
        ],
    );
    assert_eq!(node.labels.get("app"), Some("web"));
    assert_eq!(node.account.as_deref(), Some("web"));
    assert!(node.takes_dns);
    assert_eq!(node.interception, Interception::None);
    let facts = &node.facts;
    assert_eq!((facts.cluster_id.as_str(), facts.network.as_str()), ("one", "net"));
    assert_eq!((facts.istio_version.as_str(), facts.locality.as_str()), ("1.27.1", "eu/a"));
    assert_eq!((facts.http_proxy_port, facts.instance_ips.len()), (15007, 2));
    assert_eq!(facts.metadata["PROXY_CONFIG"], r#"{"concurrency":2}"#);
    assert!(!facts.metadata.contains_key("POD_NAME"));
}

#[test]
fn an_id_names_type_address_and_workload() {
    let id = NodeId::read(&node(ID, vec![])).unwrap();
    assert_eq!((id.role, id.address.to_string().as_str()), (Role::Sidecar, "10.0.0.1"));
    assert_eq!(id.name.to_string(), "shop/web-1");
    let id = NodeId::read(&node(
        "router~10.0.0.1~gateway.a~a.svc.cluster.local",
        vec![("NAMESPACE", text("b")), ("INSTANCE_IPS", text("10.9.9.9"))],
    ));
    let id = id.unwrap();
    assert_eq!((id.role, id.address.to_string().as_str()), (Role::Gateway, "10.9.9.9"));
    assert_eq!(id.name.to_string(), "b/gateway");
}

#[test]
fn an_id_that_is_not_served_is_refused_by_name() {
    for (id, expected) in [
        ("waypoint~10.0.0.1~w.shop~shop.svc.cluster.local", "\"waypoint\""),
        ("ztunnel~10.0.0.1~z.shop~shop.svc.cluster.local", "\"ztunnel\""),
        ("sidecar~~web.shop~shop.svc.cluster.local", "no IP address"),
        ("sidecar", "TYPE~IP"),
        ("sidecar~10.0.0.1~web~", "TYPE~IP"),
    ] {
        let error = NodeId::read(&node(id, vec![])).unwrap_err().to_string();
        assert!(error.contains(expected), "{id}: {error}");
    }
}
