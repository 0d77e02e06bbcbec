//! Objects of a small mesh, with one of each sort of trouble.

use std::path::PathBuf;

use sluis_control::Control;
use sluis_model::Batch;
use sluis_nouns::TrustDomain;
use sluis_resources::Options;

use super::*;

const MESH: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  gatewayClassName: istio
  listeners: [{name: web, port: 80, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: lost, namespace: shop}
spec:
  parentRefs: [{name: edge, sectionName: nowhere}]
---
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Secret
  metadata: {name: key, namespace: shop}
  stringData: {token: hunter2}
";

const BROKEN: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec: {hosts: [reviews], http: [{rout: []}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: second, namespace: shop}
spec: {gatewayClassName: istio, listenrs: []}
";

struct Mesh {
    _folder: tempfile::TempDir,
    control: Control,
    faults: Vec<Fault>,
}

fn mesh() -> Mesh {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("good.yaml"), MESH).unwrap();
    std::fs::write(folder.path().join("broken.yaml"), BROKEN).unwrap();
    let loaded = sluis_sources::load(&[PathBuf::from(folder.path())], &Options::default());
    let mut faults = loaded.all_faults();
    let upserts = loaded.files.into_iter().flat_map(|(_, parsed)| parsed.resources).collect();
    let control = Control::new(TrustDomain::default());
    control.apply(Batch { upserts, removals: Vec::new() });
    faults.extend(condition_faults(&control.snapshot()));
    Mesh { _folder: folder, control, faults }
}

fn get(mesh: &Mesh, words: &str) -> Vec<ObjectReport> {
    list(&mesh.control.snapshot(), &mesh.faults, &kinds_named(words).unwrap(), true)
}

#[test]
fn each_object_says_how_it_stands() {
    let found: Vec<String> = get(&mesh(), "all")
        .into_iter()
        .map(|one| format!("{} {}/{}: {}", one.resource, one.namespace, one.name, one.state))
        .collect();
    assert_eq!(
        found,
        [
            "virtualservices.networking.istio.io shop/reviews: Refused",
            "gateways.gateway.networking.k8s.io shop/edge: AddressNotUsable",
            "gateways.gateway.networking.k8s.io shop/second: Refused",
            "httproutes.gateway.networking.k8s.io shop/lost: NoMatchingParent",
            "secrets shop/key: OK",
        ]
    );
}

#[test]
fn a_whole_object_is_what_was_written_and_its_status() {
    let mesh = mesh();
    let [route] = &get(&mesh, "httproutes")[..] else { panic!("one route") };
    assert_eq!(route.object["spec"]["parentRefs"][0]["sectionName"], "nowhere");
    let parent = &route.object["status"]["parents"][0];
    assert_eq!(parent["parentRef"]["name"], "edge");
    let accepted = parent["conditions"].as_array().unwrap();
    let accepted = accepted.iter().find(|one| one["type"] == "Accepted").unwrap();
    assert_eq!(
        (&accepted["status"], &accepted["reason"]),
        (&json!("False"), &json!("NoMatchingParent"))
    );
    let [edge, second] = &get(&mesh, "gtw")[..] else { panic!("two gateways") };
    assert_eq!(edge.object["status"]["listeners"][0]["attachedRoutes"], 0);
    assert_eq!(second.object["spec"]["listenrs"], json!([]));
    let refused = &second.object["status"]["validationMessages"][0];
    assert_eq!(refused["level"], "ERROR");
}

#[test]
fn no_secret_is_shown() {
    let [secret] = &get(&mesh(), "secrets")[..] else { panic!("one secret") };
    assert_eq!(secret.object["metadata"]["name"], "key");
    assert!(!secret.object.to_string().contains("hunter2"), "{}", secret.object);
}
