//! Whole translations, written down: `golden/CASE/{input,proxy,expect}.yaml`.
//!
//! `input.yaml` holds resources, `proxy.yaml` the proxies that ask, `expect.yaml` what each gets, as
//! JSON of Envoy's messages in YAML. `UPDATE_GOLDEN=1` writes `expect.yaml` anew; read the difference.
//! With `ENVOY_BIN` set, a real Envoy reads every result (`--mode validate`).

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking, as tests do")]

use std::{
    collections::BTreeMap,
    env,
    ffi::OsStr,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use envoy_types::pb::envoy::{
    config::{
        bootstrap::v3::{
            Admin, Bootstrap,
            bootstrap::{DynamicResources, StaticResources},
        },
        cluster::v3::Cluster,
        core::v3::{ApiConfigSource, GrpcService, Node, grpc_service},
        listener::v3::{Listener, filter},
    },
    extensions::{
        filters::network::http_connection_manager::v3::{
            HttpConnectionManager, http_connection_manager::RouteSpecifier,
        },
        transport_sockets::tls::v3::{Secret, secret},
    },
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sluis_envoy::{EncodedSet, Kind, ResourceSet, pack, type_url, unpack};
use sluis_model::{Batch, Snapshot, apply};
use sluis_nouns::{ObjectName, TrustDomain, WorkloadId};
use sluis_protojson::{message_from_json, message_to_json};
use sluis_resources::WorkloadAddress;
use sluis_translate::{
    Capture, Known, Marks, NodeFacts, Part, ProxyView, Readers, Rendered, Role, build,
    is_told_in_parts, render_encoded, select_part,
};

/// A proxy of `proxy.yaml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Proxy {
    name: String,
    role: String,
    capture: String,
    dns: bool,
    /// `false` for what only a real Envoy carries out so far.
    #[serde(default = "yes")]
    ours: bool,
    /// Further addresses, as the node tells them.
    #[serde(default)]
    ips: Vec<IpAddr>,
    /// Whether the node says `INTERCEPTION_MODE: TPROXY`.
    transparent: Option<bool>,
    /// Whether it says that it is `sluis-proxy`: what it gets is not for an Envoy.
    #[serde(default)]
    is_sluis: bool,
}

fn yes() -> bool {
    true
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn cases() -> Vec<PathBuf> {
    let mut cases: Vec<PathBuf> =
        fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    cases
}

fn snapshot(origin: &str, text: &str) -> (Snapshot, Vec<String>) {
    let parsed = sluis_resources::parse(origin, text);
    let faults = parsed.faults.iter().filter(|fault| fault.is_error());
    let faults = faults.map(ToString::to_string).collect();
    let batch = Batch { upserts: parsed.resources, removals: Vec::new() };
    (apply(&Snapshot::default(), batch).0, faults)
}

fn view(proxy: &Proxy, snapshot: &Snapshot) -> ProxyView {
    let (namespace, name) = proxy.name.split_once('/').unwrap();
    let name = ObjectName::new(namespace, name);
    let (account, address, labels) = match (snapshot.workload(&name), snapshot.pod(&name)) {
        (Some(workload), _) => {
            let Some(WorkloadAddress::Ip(address)) = workload.spec().address else {
                panic!("no address")
            };
            (workload.spec().service_account.clone().unwrap(), address, workload.labels())
        }
        (None, Some(pod)) => {
            let spec = pod.spec();
            (spec.service_account.clone(), spec.ips[0], pod.meta().labels.clone())
        }
        _ => panic!("proxy.yaml names a WorkloadEntry or Pod of input.yaml"),
    };
    ProxyView {
        id: WorkloadId::new(TrustDomain::default(), namespace, &account).unwrap(),
        name,
        address,
        labels,
        role: if proxy.role == "gateway" { Role::Gateway } else { Role::Sidecar },
        capture: match proxy.capture.split_once(':') {
            Some(("pipe", path)) => Capture::ProxyProtocolPipe(path.to_owned()),
            _ if proxy.capture == "jail" => Capture::Jail,
            _ if proxy.capture == "redirect" => Capture::Redirect,
            _ => Capture::None,
        },
        dns: proxy.dns,
        node: NodeFacts {
            instance_ips: proxy.ips.clone(),
            is_transparent: proxy.transparent,
            is_ours: proxy.is_sluis,
            ..NodeFacts::default()
        },
    }
}

/// The proxies of a case, by label.
fn proxies(case: &Path) -> BTreeMap<String, Proxy> {
    let proxies = fs::read_to_string(case.join("proxy.yaml")).unwrap();
    serde_saphyr::from_str(&proxies).unwrap()
}

/// Every proxy of a case, and what it gets.
fn translate(case: &Path) -> BTreeMap<String, Rendered> {
    let input = fs::read_to_string(case.join("input.yaml")).unwrap();
    let (snapshot, faults) = snapshot("input.yaml", &input);
    assert_eq!(faults, Vec::<String>::new(), "{}", case.display());
    proxies(case)
        .into_iter()
        .map(|(label, proxy)| (label, build(&view(&proxy, &snapshot), &snapshot)))
        .collect()
}

fn shown(rendered: &Rendered) -> Value {
    let set = &rendered.set;
    let mut kinds = Map::new();
    kinds.insert("listeners".into(), set.listeners.values().map(|m| json(&**m)).collect());
    kinds.insert("routes".into(), set.routes.values().map(|m| json(&**m)).collect());
    kinds.insert("clusters".into(), set.clusters.values().map(|m| json(&**m)).collect());
    kinds.insert("endpoints".into(), set.endpoints.values().map(|m| json(&**m)).collect());
    if !set.extensions.is_empty() {
        let extensions = set.extensions.values().map(|m| json(&**m)).collect();
        kinds.insert("extensions".into(), extensions);
    }
    if let Some(names) = &set.names {
        let names: BTreeMap<&String, &Vec<String>> =
            names.table.iter().map(|(name, info)| (name, &info.ips)).collect();
        kinds.insert("names".into(), serde_json::to_value(names).unwrap());
    }
    if !set.secrets.is_empty() {
        let kind = |secret: &Secret| match &secret.r#type {
            Some(secret::Type::TlsCertificate(_)) => "certificate",
            Some(secret::Type::ValidationContext(roots)) if roots.crl.is_some() => "roots, CRL",
            Some(secret::Type::ValidationContext(_)) => "roots",
            _ => "other",
        };
        let secrets: BTreeMap<&String, &str> =
            set.secrets.iter().map(|(name, secret)| (name, kind(secret))).collect();
        kinds.insert("secrets".into(), serde_json::to_value(secrets).unwrap());
    }
    let faults = rendered.faults.iter().map(|fault| Value::String(fault.to_string()));
    kinds.insert("faults".into(), faults.collect());
    Value::Object(kinds)
}

fn json<M: prost::Name>(message: &M) -> Value {
    message_to_json(message).unwrap()
}

#[test]
fn the_sides_of_a_sidecar_are_the_whole_whoever_of_its_class_asks() {
    for case in cases() {
        let input = fs::read_to_string(case.join("input.yaml")).unwrap();
        let (snapshot, _) = snapshot("input.yaml", &input);
        let proxies = fs::read_to_string(case.join("proxy.yaml")).unwrap();
        let proxies: BTreeMap<String, Proxy> = serde_saphyr::from_str(&proxies).unwrap();
        let (readers, known) = (Readers::of(&snapshot), Known::default());
        for (label, proxy) in proxies {
            let view = view(&proxy, &snapshot);
            let part = |view: &ProxyView, part: Part| {
                let inputs = select_part(view, &snapshot, part);
                render_encoded(&inputs, &Marks::of(&inputs), &known).0
            };
            let whole = build(&view, &snapshot).set.encode();
            let place = format!("{} {label}", case.display());
            assert!(part(&view, Part::Whole) == whole, "{place}: encoded otherwise");
            if is_told_in_parts(&view, &snapshot) {
                let outbound = part(&readers.class(&view, &snapshot), Part::Outbound);
                let inbound = part(&view, Part::Inbound);
                for kind in Kind::ALL {
                    let both = inbound.over(&outbound);
                    let shown = |set: &EncodedSet| -> Vec<(String, String)> {
                        let mut all: Vec<_> = set
                            .of(kind)
                            .map(|one| (one.name.clone(), one.version.clone()))
                            .collect();
                        all.sort();
                        all
                    };
                    assert_eq!(shown(&both), shown(&whole), "{place} {kind}");
                }
            }
        }
    }
}

#[test]
fn each_case_translates_into_what_is_written_down() {
    let mut differences = Vec::new();
    for case in cases() {
        let all: Map<String, Value> = translate(&case)
            .iter()
            .map(|(label, rendered)| (label.clone(), shown(rendered)))
            .collect();
        let text = serde_saphyr::to_string(&Value::Object(all)).unwrap();
        let path = case.join("expect.yaml");
        if env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&path, &text).unwrap();
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        let line = expected.lines().zip(text.lines()).position(|(a, b)| a != b);
        if let Some(line) = line {
            let both = (expected.lines().nth(line), text.lines().nth(line));
            differences.push(format!("{}:{}: {both:?}", path.display(), line + 1));
        } else if expected != text {
            differences.push(format!("{}: one is longer", path.display()));
        }
    }
    assert!(differences.is_empty(), "{differences:#?}\n(UPDATE_GOLDEN=1 writes them anew)");
}

#[test]
fn equal_inputs_give_equal_bytes() {
    for case in cases() {
        for ((_, one), (label, other)) in translate(&case).into_iter().zip(translate(&case)) {
            // The name table is a hash map, compared as such; every other kind byte by byte.
            assert_eq!(one.set.names, other.set.names);
            let (one, other) = (one.set.encode(), other.set.encode());
            for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::NameTable) {
                let versions = |set: &EncodedSet| -> Vec<(String, String)> {
                    set.of(kind).map(|one| (one.name.clone(), one.version.clone())).collect()
                };
                assert_eq!(versions(&one), versions(&other), "{}: {label}", case.display());
            }
        }
    }
}

#[test]
fn our_own_data_plane_takes_every_case() {
    for case in cases() {
        let proxies = proxies(&case);
        for (label, rendered) in translate(&case) {
            if !proxies[&label].ours {
                continue;
            }
            let compiled = sluis_rules::compile(&rendered.set, None);
            let faults: Vec<String> = compiled.faults.iter().map(ToString::to_string).collect();
            assert_eq!(faults, Vec::<String>::new(), "{}: {label}", case.display());
        }
    }
}

#[test]
fn the_example_translates_without_an_error() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/credential-egress");
    let mut text = String::new();
    for folder in ["istio", "machine"] {
        for entry in fs::read_dir(example.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|ending| ending == "yaml") {
                text += "\n---\n";
                text += &fs::read_to_string(path).unwrap();
            }
        }
    }
    let (snapshot, faults) = snapshot("example", &text);
    assert_eq!(faults, Vec::<String>::new());
    for workload in snapshot.workloads() {
        let is_gateway =
            snapshot.gateways(&workload.meta().name.namespace, &workload.labels()).next().is_some();
        let proxy = Proxy {
            name: workload.meta().name.to_string(),
            role: if is_gateway { "gateway" } else { "sidecar" }.to_owned(),
            capture: "jail".to_owned(),
            dns: !is_gateway,
            ours: true,
            ips: Vec::new(),
            transparent: None,
            is_sluis: false,
        };
        let rendered = build(&view(&proxy, &snapshot), &snapshot);
        // That its script has the name of Envoy's v2 API is a warning.
        let errors = rendered.faults.iter().filter(|fault| fault.is_error());
        let errors: Vec<String> = errors.map(ToString::to_string).collect();
        assert_eq!(errors, Vec::<String>::new(), "{}", proxy.name);
        assert!(!rendered.set.listeners.is_empty(), "{}", proxy.name);
    }
}

#[test]
fn a_real_envoy_refuses_a_script_without_its_credentials() {
    let Some(envoy) = env::var_os("ENVOY_BIN") else { return };
    let rendered = translate(&folder().join("article"));
    let said = reads(&envoy, "article-without-keys", &rendered["gateway"].set, false);
    let said = said.expect_err("a script must not load without its keys");
    assert!(said.contains("DATA_API_ACCESS_KEY is missing or empty"), "{said}");
}

#[test]
fn a_real_envoy_takes_every_case() {
    let Some(envoy) = env::var_os("ENVOY_BIN") else { return };
    for case in cases() {
        let proxies = proxies(&case);
        for (label, rendered) in translate(&case) {
            if proxies[&label].is_sluis {
                continue;
            }
            let name = format!("{}-{}", case.file_name().unwrap().to_string_lossy(), label);
            validate(&envoy, &name.replace(' ', "-"), &rendered.set);
        }
    }
}

#[test]
fn every_file_of_the_conformance_data_translates() {
    let Some(root) = env::var_os("SLUIS_CONFORMANCE_DIR") else { return };
    let mut files: Vec<PathBuf> = fs::read_dir(Path::new(&root).join("configs"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&file).unwrap();
        let (snapshot, _) = snapshot(&name, &text);
        for (role, labels) in [
            (Role::Sidecar, vec![("app", "a")]),
            (Role::Gateway, vec![("istio", "ingressgateway")]),
            (Role::Gateway, vec![("istio", "egressgateway")]),
        ] {
            for namespace in ["testns", "default", "istio-system"] {
                let view = ProxyView {
                    name: ObjectName::new(namespace, "proxy"),
                    id: WorkloadId::new(TrustDomain::default(), namespace, "proxy").unwrap(),
                    address: "10.3.0.1".parse().unwrap(),
                    labels: labels.iter().copied().collect(),
                    role,
                    capture: Capture::Redirect,
                    dns: role == Role::Sidecar,
                    node: NodeFacts::default(),
                };
                let rendered = build(&view, &snapshot);
                if let Some(envoy) = env::var_os("ENVOY_BIN").filter(|_| namespace == "testns") {
                    validate(&envoy, &format!("{name}-{role:?}-{}", labels[0].1), &rendered.set);
                }
            }
        }
    }
}

/// Has a real Envoy take a set.
fn validate(envoy: &OsStr, name: &str, set: &ResourceSet) {
    if let Err(said) = reads(envoy, name, set, true) {
        panic!("{name}: {said}");
    }
}

/// Has a real Envoy read a set, as static resources with its route tables inline. What it says of a
/// set that it refuses is the error.
fn reads(envoy: &OsStr, name: &str, set: &ResourceSet, has_keys: bool) -> Result<(), String> {
    let path = env::temp_dir().join(format!("sluis-golden-{}-{name}.json", std::process::id()));
    fs::write(&path, json(&bootstrap(set)).to_string()).unwrap();
    let scripts =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/credential-egress/lua/?.lua");
    let keys = [("DATA_API_ACCESS_KEY", "access"), ("DATA_API_SECRET_KEY", "secret")];
    let output = Command::new(envoy)
        .args(["--mode", "validate", "-l", "error", "-c"])
        .arg(&path)
        .env("LUA_PATH", scripts)
        .envs(keys.into_iter().filter(|_| has_keys))
        .output()
        .unwrap();
    fs::remove_file(path).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(said) }
}

fn bootstrap(set: &ResourceSet) -> Bootstrap {
    let control_plane = |name: &str| -> Cluster {
        message_from_json(&json!({
            "name": name,
            "type": "STATIC",
            "connect_timeout": "1s",
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": {"http2_protocol_options": {}},
                },
            },
        }))
        .unwrap()
    };
    let mut clusters: Vec<Cluster> = set.clusters.values().map(|m| (**m).clone()).collect();
    clusters.extend([control_plane("xds-grpc"), control_plane("sds-grpc")]);
    let grpc = grpc_service::EnvoyGrpc { cluster_name: "xds-grpc".into(), ..Default::default() };
    Bootstrap {
        node: Some(Node { id: "test".into(), cluster: "test".into(), ..Node::default() }),
        admin: Some(Admin::default()),
        static_resources: Some(StaticResources {
            listeners: set.listeners.values().map(|m| with_routes(m, set)).collect(),
            clusters,
            ..StaticResources::default()
        }),
        dynamic_resources: Some(DynamicResources {
            ads_config: Some(ApiConfigSource {
                api_type: 2,
                transport_api_version: 2,
                grpc_services: vec![GrpcService {
                    target_specifier: Some(grpc_service::TargetSpecifier::EnvoyGrpc(grpc)),
                    ..GrpcService::default()
                }],
                ..ApiConfigSource::default()
            }),
            ..DynamicResources::default()
        }),
        ..Bootstrap::default()
    }
}

fn with_routes(listener: &Arc<Listener>, set: &ResourceSet) -> Listener {
    let mut listener = (**listener).clone();
    for chain in &mut listener.filter_chains {
        for filter in &mut chain.filters {
            let Some(filter::ConfigType::TypedConfig(config)) = &mut filter.config_type else {
                continue;
            };
            if config.type_url != type_url::<HttpConnectionManager>() {
                continue;
            }
            let mut manager: HttpConnectionManager = unpack(config).unwrap();
            if let Some(RouteSpecifier::Rds(rds)) = &manager.route_specifier {
                let routes = (*set.routes[&rds.route_config_name]).clone();
                manager.route_specifier = Some(RouteSpecifier::RouteConfig(routes));
            }
            *config = pack(&manager);
        }
    }
    listener
}

/// Changed copies of each case: with all cases, a few seconds.
const CHANGES: u64 = 25;

/// One line of a text left out, written twice, moved elsewhere, or with the value of another line.
fn changed(text: &str, change: u64) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    // Knuth's multiplier: all that is needed is that changes differ, and are the same every time.
    let mut state = change.wrapping_add(1).wrapping_mul(6_364_136_223_846_793_005);
    let mut pick = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(state >> 33).unwrap() % lines.len()
    };
    let (here, there) = (pick(), pick());
    let swapped = lines[here].split_once(':').zip(lines[there].split_once(':'));
    let swapped = swapped.map(|((key, _), (_, value))| format!("{key}:{value}"));
    match (change % 4, &swapped) {
        (0, _) => drop(lines.remove(here)),
        (1, _) => lines.insert(here, lines[here]),
        (2, Some(line)) => lines[here] = line,
        _ => lines.swap(here, there),
    }
    lines.join("\n")
}

#[test]
fn whatever_can_be_read_of_changed_cases_is_translated_the_same_twice() {
    let mut translated = 0;
    for case in cases() {
        let text = fs::read_to_string(case.join("input.yaml")).unwrap();
        let (whole, _) = snapshot("input.yaml", &text);
        let proxies: Vec<_> =
            proxies(&case).into_values().map(|proxy| view(&proxy, &whole)).collect();
        for change in 0..CHANGES {
            let (snapshot, _) = snapshot("input.yaml", &changed(&text, change));
            for view in &proxies {
                let built = build(view, &snapshot);
                assert_eq!(built, build(view, &snapshot), "{} {change}", case.display());
                translated += 1;
            }
        }
    }
    assert!(translated > 500, "only {translated}");
}
