//! Rewrites a pod's probes so that its sidecar asks them, as Istio's injector does.
//!
//! In:    the `spec` of a Pod, as JSON; the status port of the sidecar.
//! Out:   the spec with its probes led to that port; what the sidecar is to ask for each of them
//!        (`ISTIO_KUBE_APP_PROBERS`).
//! Never: loses a probe: one that cannot be asked by the sidecar is refused by name.
//!
//! The platform has no certificate of the mesh, so under STRICT mutual TLS its own questions would fail.
//! HTTP, HTTPS, TCP and gRPC probes and the lifecycle hooks by HTTP and TCP become HTTP to
//! `/app-health/CONTAINER/…` and `/app-lifecycle/CONTAINER/…`; `exec` stays as it is.

use serde_json::{Map, Value, json};

/// The sidecar itself, whose probes stay.
const SIDECAR: &str = "istio-proxy";

/// Which fields of a container hold probes, and by which word the sidecar knows them.
const PROBES: [(&str, &str); 3] =
    [("livenessProbe", "livez"), ("readinessProbe", "readyz"), ("startupProbe", "startupz")];
const HOOKS: [(&str, &str); 2] = [("preStop", "prestopz"), ("postStart", "poststartz")];

/// A probe that the sidecar cannot ask.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {reason}")]
pub struct AppProbeError {
    /// The field.
    pub at: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Rewrites the probes of a pod's `spec`; gives what the sidecar is to ask, by path. A spec that was
/// rewritten before is not changed.
///
/// # Errors
///
/// [`AppProbeError`] for a port of a name that the container does not have. Then the spec may be
/// rewritten in part.
pub fn rewrite(spec: &mut Value, status_port: u16) -> Result<Map<String, Value>, AppProbeError> {
    let mut probers = Map::new();
    for list in ["containers", "initContainers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for (index, container) in containers.into_iter().flatten().enumerate() {
            // An init container that ends has no probes.
            if container["name"] == SIDECAR
                || (list == "initContainers" && container["restartPolicy"] != "Always")
            {
                continue;
            }
            let at = format!("spec.{list}[{index}]");
            rewrite_container(container, &at, status_port, &mut probers)?;
        }
    }
    Ok(probers)
}

fn rewrite_container(
    container: &mut Value,
    at: &str,
    status_port: u16,
    probers: &mut Map<String, Value>,
) -> Result<(), AppProbeError> {
    let name = container["name"].as_str().unwrap_or_default().to_owned();
    let ports = container["ports"].clone();
    for (field, word) in PROBES {
        let Some(probe) = container.get_mut(field) else { continue };
        let at = format!("{at}.{field}");
        let path = format!("/app-health/{name}/{word}");
        probers
            .extend(rewrite_action(probe, &ports, &at, &path, status_port)?.map(|one| (path, one)));
    }
    for (field, word) in HOOKS {
        let Some(hook) = container.get_mut("lifecycle").and_then(|all| all.get_mut(field)) else {
            continue;
        };
        // There are no hooks by gRPC.
        if hook.get("grpc").is_some() {
            continue;
        }
        let at = format!("{at}.lifecycle.{field}");
        let path = format!("/app-lifecycle/{name}/{word}");
        probers
            .extend(rewrite_action(hook, &ports, &at, &path, status_port)?.map(|one| (path, one)));
    }
    Ok(())
}

/// Rewrites one probe or hook; gives what the sidecar is to ask in its place.
fn rewrite_action(
    probe: &mut Value,
    ports: &Value,
    at: &str,
    path: &str,
    status_port: u16,
) -> Result<Option<Value>, AppProbeError> {
    let Some(fields) = probe.as_object_mut() else { return Ok(None) };
    let Some(kind) =
        ["httpGet", "tcpSocket", "grpc"].into_iter().find(|kind| fields.contains_key(*kind))
    else {
        return Ok(None);
    };
    let mut action = fields[kind].clone();
    if kind == "httpGet" && action["port"] == status_port && action["path"] == path {
        return Ok(None);
    }
    if let Value::String(name) = &action["port"] {
        let named = ports.as_array().into_iter().flatten().find(|port| port["name"] == **name);
        let number = named.map(|port| port["containerPort"].clone());
        // Kubernetes takes a number in quotes too.
        let number = number.or_else(|| name.parse::<u16>().ok().map(Value::from));
        action["port"] = number.ok_or_else(|| AppProbeError {
            at: format!("{at}.{kind}.port"),
            reason: format!("the container has no port {name:?}"),
        })?;
    }
    let mut prober = json!({kind: action});
    if let Some(seconds) = fields.get("timeoutSeconds") {
        prober["timeoutSeconds"] = seconds.clone();
    }
    match kind {
        "httpGet" => {
            fields[kind]["port"] = json!(status_port);
            fields[kind]["path"] = json!(path);
            // The platform asks the sidecar in the clear, and the sidecar the application by TLS.
            if fields[kind]["scheme"] == "HTTPS" {
                fields[kind]["scheme"] = json!("HTTP");
            }
        }
        _ => {
            fields.remove(kind);
            fields.insert("httpGet".to_owned(), json!({"path": path, "port": status_port}));
        }
    }
    Ok(Some(prober))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Value {
        json!({
            "initContainers": [
                {"name": "once", "startupProbe": {"tcpSocket": {"port": 1}}},
                {"name": "stays", "restartPolicy": "Always", "startupProbe": {"tcpSocket": {"port": 7}}},
            ],
            "containers": [
                {"name": "web", "ports": [{"name": "http", "containerPort": 8080}],
                 "livenessProbe": {"httpGet": {"path": "/live", "port": "http", "scheme": "HTTPS"},
                                   "timeoutSeconds": 3, "periodSeconds": 5},
                 "readinessProbe": {"grpc": {"port": 9000, "service": "shop"}},
                 "startupProbe": {"exec": {"command": ["true"]}},
                 "lifecycle": {"preStop": {"httpGet": {"path": "bye", "port": 80}},
                               "postStart": {"tcpSocket": {"port": "81"}}}},
                {"name": "istio-proxy", "readinessProbe": {"httpGet": {"port": 15021}}},
            ],
        })
    }

    #[test]
    fn every_kind_is_led_to_the_sidecar() {
        let mut spec = pod();
        let probers = rewrite(&mut spec, 15020).unwrap();
        let wanted = json!({
            "/app-health/web/livez": {
                "httpGet": {"path": "/live", "port": 8080, "scheme": "HTTPS"}, "timeoutSeconds": 3},
            "/app-health/web/readyz": {"grpc": {"port": 9000, "service": "shop"}},
            "/app-health/stays/startupz": {"tcpSocket": {"port": 7}},
            "/app-lifecycle/web/prestopz": {"httpGet": {"path": "bye", "port": 80}},
            "/app-lifecycle/web/poststartz": {"tcpSocket": {"port": 81}},
        });
        assert_eq!(Value::Object(probers), wanted);
        let web = &spec["containers"][0];
        assert_eq!(
            web["livenessProbe"],
            json!({"httpGet": {"path": "/app-health/web/livez", "port": 15020, "scheme": "HTTP"},
                   "timeoutSeconds": 3, "periodSeconds": 5})
        );
        assert_eq!(
            web["readinessProbe"],
            json!({"httpGet": {"path": "/app-health/web/readyz", "port": 15020}})
        );
        assert_eq!(web["startupProbe"], pod()["containers"][0]["startupProbe"]);
        assert_eq!(spec["containers"][1], pod()["containers"][1]);
        assert_eq!(spec["initContainers"][0], pod()["initContainers"][0]);
    }

    #[test]
    fn rewritten_again_nothing_changes() {
        let mut spec = pod();
        rewrite(&mut spec, 15020).unwrap();
        let before = spec.clone();
        assert!(rewrite(&mut spec, 15020).unwrap().is_empty());
        assert_eq!(spec, before);
    }

    #[test]
    fn a_port_of_an_unknown_name_is_refused() {
        let mut spec =
            json!({"containers": [{"name": "a", "livenessProbe": {"tcpSocket": {"port": "db"}}}]});
        let error = rewrite(&mut spec, 15020).unwrap_err();
        assert_eq!(error.at, "spec.containers[0].livenessProbe.tcpSocket.port");
    }
}
