//! Who gets a credential for what.

use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::{
    harness::soon,
    scene::{HOST, SECRET, Scene, Setting, any_grant, reply},
};

fn grant(name: &str, permission: Value, more: Value) -> Value {
    let mut grant = json!({ "name": name, "policy": {
        "permissions": [permission], "principals": [{ "any": true }] } });
    for (name, value) in more.as_object().unwrap() {
        grant[name] = value.clone();
    }
    grant
}

fn path(prefix: &str) -> Value {
    json!({ "url_path": { "path": { "prefix": prefix } } })
}

async fn with(grants: Value) -> Scene {
    Scene::new(Setting { credential: json!({ "grants": grants }), ..Setting::default() }).await
}

#[tokio::test]
async fn a_request_that_no_grant_covers_is_refused() {
    let scene = with(json!([grant("egress/g", path("/graphql"), json!({}))])).await;
    assert_eq!(scene.get("/graphql", "").await.status, 200);
    assert_eq!(scene.server.only().field("x-key").unwrap(), format!("Key {SECRET}"));
    for target in ["/other", "/Graphql", "/x?/graphql"] {
        let reply = scene.get(target, "").await;
        assert_eq!((reply.status, &*reply.body), (403, "credential denied"), "{target}");
    }
    assert!(scene.server.seen().is_empty());
    let lines = scene.log().await;
    let refused = "403 CRD credential_denied - /other - - - denied -".to_owned();
    assert!(lines.contains(&refused), "{lines:?}");
}

#[tokio::test]
async fn nobody_without_a_certificate_is_a_principal() {
    let mut named = any_grant();
    named["policy"]["principals"] =
        json!([{ "authenticated": { "principal_name": { "prefix": "spiffe://" } } }]);
    let scene = with(json!([named])).await;
    assert_eq!(
        scene.get("/", "X-Forwarded-Client-Cert: By=x;URI=spiffe://a\r\n").await.status,
        403
    );
    assert!(scene.server.seen().is_empty());
}

/// Asks with a certificate of this identity; the server name is the gateway's, whatever the host.
async fn as_workload(scene: &Scene, identity: &str, host: &str) -> u16 {
    let (chain, key) = scene.pki.issue(identity);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(scene.pki.roots()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            CertificateDer::pem_file_iter(chain).unwrap().map(Result::unwrap).collect(),
            PrivateKeyDer::from_pem_file(key).unwrap(),
        )
        .unwrap();
    let stream = scene.proxy.connect("in").await;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from("gateway.test").unwrap();
    let mut stream = soon("handshake", connector.connect(name, stream)).await.unwrap();
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    reply(&mut stream).await.status
}

#[tokio::test]
async fn a_principal_is_that_of_the_clients_certificate() {
    let mut named = any_grant();
    let identity = "spiffe://cluster.local/ns/team-a/sa/notebook";
    named["policy"]["principals"] =
        json!([{ "authenticated": { "principal_name": { "exact": identity } } }]);
    named["per_identity_per_minute"] = json!(2);
    let setting =
        Setting { credential: json!({ "grants": [named] }), is_mutual: true, ..Setting::default() };
    let scene = Scene::new(setting).await;
    assert_eq!(as_workload(&scene, identity, HOST).await, 200);
    assert_eq!(scene.server.only().field("x-key").unwrap(), format!("Key {SECRET}"));
    for other in [
        "spiffe://cluster.local/ns/team-b/sa/notebook",
        "spiffe://cluster.local/ns/team-a/sa/notebook2",
        "spiffe://evil.local/ns/team-a/sa/notebook",
    ] {
        assert_eq!(as_workload(&scene, other, HOST).await, 403, "{other}");
    }
    // Neither the server name nor the certificate makes another host a good one.
    for host in ["gateway.test", "evil.test", "api.test.evil.test"] {
        assert_eq!(as_workload(&scene, identity, host).await, 503, "{host}");
    }
    assert!(scene.server.seen().is_empty());
}

#[tokio::test]
async fn permissions_are_of_the_request_as_it_is_sent() {
    let scene = Scene::new(Setting {
        credential: json!({ "grants": [grant("egress/g", path("/v2/"), json!({}))] }),
        routes: json!([{ "match": { "prefix": "/old/" },
            "route": { "cluster": "api", "prefix_rewrite": "/v2/" } },
            { "match": { "prefix": "/v2/" },
            "route": { "cluster": "api", "prefix_rewrite": "/v1/" } }]),
        ..Setting::default()
    })
    .await;
    assert_eq!(scene.get("/old/a", "").await.status, 200);
    assert_eq!(scene.server.only().target, "/v2/a");
    assert_eq!(scene.get("/v2/a", "").await.status, 403);
}

#[tokio::test]
async fn a_grant_in_dry_run_is_only_told() {
    let dry = grant("egress/dry", json!({ "any": true }), json!({ "dry_run": true }));
    let scene = with(json!([dry])).await;
    assert_eq!(scene.get("/", "").await.status, 403);
    let lines = scene.log().await;
    assert_eq!(lines, ["403 CRD credential_denied - / - - - denied egress/dry"]);
}

#[tokio::test]
async fn an_identity_uses_a_grant_so_often_in_a_minute() {
    let few = grant("egress/few", json!({ "any": true }), json!({ "per_identity_per_minute": 2 }));
    let scene = with(json!([few])).await;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(scene.get("/", "").await.status);
    }
    assert_eq!(statuses, [200, 200, 429, 429]);
    assert_eq!(scene.server.seen().len(), 2);
    assert_eq!(scene.proxy.counter("credentials.limited").await, 2);
}

#[tokio::test]
async fn the_first_credential_with_a_grant_is_used_and_owns_nothing_of_the_others() {
    let first = Setting {
        credential: json!({ "name": "egress/first",
            "grants": [grant("egress/a", path("/a"), json!({}))] }),
        ..Setting::default()
    };
    let second = Setting {
        injection: json!({ "header": { "name": "x-second", "key": "k" } }),
        ..Setting::default()
    };
    let all = json!([crate::scene::credential(&first), crate::scene::credential(&second)]);
    let mut options = json!({
        "@type": format!("{}.upstreams.http.v3.HttpProtocolOptions", crate::scene::TYPE),
        "explicit_http_config": { "http_protocol_options": {} },
        "upstream_http_protocol_options": { "auto_sni": true, "auto_san_validation": true } });
    options["http_filters"] = json!([
        { "name": "c", "typed_config": {
            "@type": "type.googleapis.com/sluis.egress.v1alpha1.CredentialInjection",
            "credentials": all } },
        { "name": "codec", "typed_config": { "@type": format!(
            "{}.filters.http.upstream_codec.v3.UpstreamCodec", crate::scene::TYPE) } }]);
    let scene = Scene::new(Setting {
        cluster: json!({ "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options } }),
        ..Setting::default()
    })
    .await;
    let forged = "X-Key: mine\r\nX-Second: mine\r\n";
    assert_eq!(scene.get("/a", forged).await.status, 200);
    let seen = scene.server.only();
    assert_eq!(
        (seen.field("x-key"), seen.field("x-second")),
        (Some(format!("Key {SECRET}")), None)
    );
    assert_eq!(scene.get("/b", forged).await.status, 200);
    let seen = scene.server.only();
    assert_eq!((seen.field("x-key"), seen.field("x-second")), (None, Some(SECRET.to_owned())));
    assert_eq!(seen.host, HOST);
}
