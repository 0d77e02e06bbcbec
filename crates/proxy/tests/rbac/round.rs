//! One configuration with many policies, and everything that is sent through it.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    clients::{Client, Pki},
    draw::Draw,
    engines::Engine,
    harness::{Echo, address, cluster, listener_filter, spare_port},
    policies,
    requests::{PORTS_DRAWN, Request, request},
};

/// Routes, each with policies of its own.
const ROUTES: usize = 150;

/// Listeners with policies on connections.
const GUARDED: usize = 12;

/// What is logged of a request, behind its number.
const REQUEST: &str = "%REQ(X-CASE)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% \
    %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% \
    %DYNAMIC_METADATA(envoy.filters.http.rbac:dry_shadow_engine_result)% \
    %DYNAMIC_METADATA(envoy.filters.http.rbac:dry_shadow_effective_policy_id)% \
    %DYNAMIC_METADATA(envoy.filters.http.rbac:enforced_engine_result)% \
    %DYNAMIC_METADATA(envoy.filters.http.rbac:enforced_effective_policy_id)% \
    %DYNAMIC_METADATA(envoy.common:access_log_hint)%\n";

/// What is logged of a connection, behind its two ends.
const CONNECTION: &str = "%DOWNSTREAM_REMOTE_ADDRESS%>%DOWNSTREAM_LOCAL_PORT% %RESPONSE_FLAGS% %CONNECTION_TERMINATION_DETAILS% \
    %DYNAMIC_METADATA(envoy.filters.network.rbac:shadow_engine_result)% \
    %DYNAMIC_METADATA(envoy.filters.network.rbac:shadow_effective_policy_id)%\n";

pub(crate) struct Round {
    routes: Vec<Value>,
    guards: Vec<Value>,
    manager: Value,
    requests: Vec<Request>,
    /// For each request who sends it, as a number that is taken modulo the clients there are.
    senders: Vec<usize>,
}

pub(crate) struct Outcome {
    pub(crate) differences: Vec<String>,
    pub(crate) connections: usize,
    pub(crate) denied: usize,
}

/// What one engine did: lines by case, and counters.
#[derive(Default)]
struct Told {
    lines: BTreeMap<String, String>,
    counters: Vec<String>,
}

impl Round {
    pub(crate) fn new(draw: &mut Draw, size: usize) -> Self {
        let routes = (0..ROUTES)
            .map(|_| {
                let mut rbac = json!({ "rules": policies::rules(draw) });
                if draw.once_in(2) {
                    rbac["shadow_rules"] = policies::rules(draw);
                    rbac["shadow_rules_stat_prefix"] = "dry_".into();
                }
                rbac
            })
            .collect();
        let guards = (0..GUARDED)
            .map(|_| {
                let mut guard =
                    json!({ "stat_prefix": "tcp.", "rules": policies::connection_rules(draw) });
                if draw.once_in(2) {
                    guard["shadow_rules"] = policies::connection_rules(draw);
                }
                guard
            })
            .collect();
        let slashes = draw.one(&["KEEP_UNCHANGED", "REJECT_REQUEST", "UNESCAPE_AND_FORWARD"]);
        Self {
            routes,
            guards,
            manager: json!({
                "normalize_path": !draw.once_in(3),
                "merge_slashes": draw.once_in(2),
                "path_with_escaped_slashes_action": slashes,
            }),
            requests: (0..size).map(|number| request(draw, number, ROUTES)).collect(),
            senders: (0..size).map(|_| draw.below(1 << 20)).collect(),
        }
    }

    /// Sends everything through both, and says what differs.
    pub(crate) async fn run(self, envoy: &Path) -> Outcome {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::new(dir.path());
        let clients = pki.clients();
        let ports: Vec<u16> = (0..2 + 2 * GUARDED).map(|_| spare_port()).collect();
        let echo = Echo::start("").await;
        let scene = Scene { round: &self, dir: dir.path(), ports, echo: echo.address };
        let ours = scene.play(&clients, None).await;
        let theirs = scene.play(&clients, Some(envoy)).await;
        let mut differences = Vec::new();
        for (case, line) in &theirs.lines {
            let own = ours.lines.get(case).map_or("nothing", String::as_str);
            if own != line {
                differences.push(scene.tell(case, line, own, &clients));
            }
        }
        if ours.lines.len() != theirs.lines.len() {
            differences.push(format!("{} lines, not {}", ours.lines.len(), theirs.lines.len()));
        }
        if ours.counters != theirs.counters {
            let (theirs, ours) = (theirs.counters.join("\n  "), ours.counters.join("\n  "));
            differences.push(format!("counters: Envoy\n  {theirs}\nours\n  {ours}"));
        }
        let denied = theirs.lines.values().filter(|line| line.starts_with("403 ")).count();
        Outcome { differences, connections: GUARDED * clients.len(), denied }
    }
}

/// A round at its place.
struct Scene<'r> {
    round: &'r Round,
    dir: &'r Path,
    /// Without TLS, with TLS, then the same of each guarded listener.
    ports: Vec<u16>,
    echo: SocketAddr,
}

impl Scene<'_> {
    fn at(&self, listener: usize, client: &Client) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.ports[2 * listener + usize::from(client.is_tls())]))
    }

    /// Who sends a request.
    fn sender<'c>(&self, number: usize, clients: &'c [Client]) -> &'c Client {
        &clients[self.round.senders[number] % clients.len()]
    }

    async fn play(&self, clients: &[Client], envoy: Option<&Path>) -> Told {
        let name = if envoy.is_some() { "envoy" } else { "ours" };
        let (requests, connections) =
            (self.dir.join(format!("{name}.log")), self.dir.join(format!("{name}-tcp.log")));
        let bootstrap = self.bootstrap(&requests, &connections);
        let engine = match envoy {
            None => Engine::ours(bootstrap).await,
            Some(binary) => {
                let at = SocketAddr::from(([127, 0, 0, 1], self.ports[0]));
                Engine::envoy(binary, self.dir, &bootstrap, at).await
            }
        };
        let asking = clients.iter().map(|client| async move {
            let is_own = |one: &&Request| std::ptr::eq(self.sender(one.number, clients), client);
            let own: Vec<&Request> = self.round.requests.iter().filter(is_own).collect();
            client.ask(self.at(0, client), &own).await;
        });
        join_all(asking).await;
        let mut knocks = Vec::new();
        for guard in 0..GUARDED {
            let knocking = clients.iter().enumerate().map(|(at, client)| async move {
                let to = self.at(guard + 1, client);
                let (from, is_echoed) = client.knock(to).await;
                (format!("guard {guard} client {at}"), format!("{from}>{}", to.port()), is_echoed)
            });
            knocks.extend(join_all(knocking).await);
        }
        let counters = engine
            .end(self.dir, &[(&requests, self.round.requests.len()), (&connections, knocks.len())])
            .await;
        let mut told = Told { lines: by_number(&requests), counters };
        assert_eq!(told.lines.len(), self.round.requests.len(), "{name} has not logged everything");
        let details = by_number(&connections);
        for (case, ends, is_echoed) in knocks {
            let line = if is_echoed { "in" } else { details.get(&ends).map_or("?", |l| l) };
            told.lines.insert(case, line.to_owned());
        }
        told
    }

    fn bootstrap(&self, requests: &Path, connections: &Path) -> Value {
        let mut listeners = Vec::new();
        for (at, port) in self.ports.iter().enumerate() {
            let filters = match at / 2 {
                0 => json!([self.manager(requests)]),
                guard => self.guarded(guard - 1, connections),
            };
            let mut chain = json!({ "filters": filters });
            if at % 2 == 1 {
                chain["transport_socket"] = self.tls();
            }
            let mut listener = json!({
                "name": format!("l{at}"),
                "address": address(SocketAddr::from(([127, 0, 0, 1], *port))),
                "filter_chains": [chain],
            });
            if at % 2 == 1 {
                // Envoy's policies know no server name without it.
                listener["listener_filters"] =
                    json!([listener_filter("tls_inspector", "TlsInspector")]);
            }
            listeners.push(listener);
        }
        json!({
            "node": { "id": "n", "cluster": "c" },
            "admin": { "address": { "pipe": { "path": self.dir.join("admin") } } },
            "static_resources": { "listeners": listeners, "clusters": [cluster("echo", &[self.echo])] },
        })
    }

    fn manager(&self, log: &Path) -> Value {
        let routes = self.round.routes.iter().enumerate().map(|(at, rbac)| {
            let rbac = self.placed(rbac, 0);
            json!({
                "match": { "prefix": "/", "headers":
                    [{ "name": "x-route", "string_match": { "exact": at.to_string() } }] },
                "direct_response": { "status": 200 },
                "typed_per_filter_config": { "rbac": { "@type":
                    "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute",
                    "rbac": rbac } },
            })
        });
        // What is found here is what later policies can ask of the metadata.
        let first = json!({ "@type": HTTP_RBAC, "shadow_rules_stat_prefix": "first_",
            "shadow_rules": { "policies": { "first": { "principals": [{ "any": true }],
                "permissions": [{ "header": { "name": ":method",
                    "string_match": { "exact": "GET" } } }] } } } });
        let mut manager = json!({
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "in",
            "route_config": { "name": "r", "virtual_hosts":
                [{ "name": "all", "domains": ["*"], "routes": routes.collect::<Vec<_>>() }] },
            "http_filters": [
                { "name": "first", "typed_config": first },
                { "name": "rbac", "typed_config": { "@type": HTTP_RBAC } },
                { "name": "router", "typed_config":
                    { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" } },
            ],
            "access_log": [file(log, REQUEST)],
        });
        for (name, value) in self.round.manager.as_object().unwrap() {
            manager[name] = value.clone();
        }
        json!({ "name": "http", "typed_config": manager })
    }

    fn guarded(&self, guard: usize, log: &Path) -> Value {
        let mut rbac = self.placed(&self.round.guards[guard], guard + 1);
        rbac["@type"] = "type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC".into();
        json!([
            { "name": "rbac", "typed_config": rbac },
            { "name": "tcp", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                "stat_prefix": "t", "cluster": "echo", "access_log": [file(log, CONNECTION)] } },
        ])
    }

    /// Policies with the ports that a listener has in the places of those that were drawn.
    fn placed(&self, rbac: &Value, listener: usize) -> Value {
        let mut text = rbac.to_string();
        let (plain, tls) = (self.ports[2 * listener], self.ports[2 * listener + 1]);
        for (drawn, real) in PORTS_DRAWN.iter().zip([plain, tls, 9]) {
            let range = |end: u16| format!("\"end\":{},\"start\":{drawn}}}", drawn + end);
            for end in [1, 2] {
                let placed = format!("\"end\":{},\"start\":{real}}}", real + end);
                text = text.replace(
                    &format!("\"destination_port_range\":{{{}", range(end)),
                    &format!("\"destination_port_range\":{{{placed}"),
                );
            }
            text = text.replace(
                &format!("\"destination_port\":{drawn}}}"),
                &format!("\"destination_port\":{real}}}"),
            );
        }
        text.parse().unwrap()
    }

    fn tls(&self) -> Value {
        let file = |name: &str| json!({ "filename": self.dir.join(name) });
        json!({ "name": "tls", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "tls_certificates": [{ "certificate_chain": file("server.pem"), "private_key": file("server.key") }],
                "validation_context": { "trusted_ca": file("roots.pem") },
            },
        } })
    }

    /// A difference for the reader.
    fn tell(&self, case: &str, theirs: &str, ours: &str, clients: &[Client]) -> String {
        let mut text = format!("=== {case}\nEnvoy: {theirs}\nours:  {ours}\n");
        if let Ok(number) = case.parse::<usize>() {
            let request = String::from_utf8_lossy(&self.round.requests[number].text).into_owned();
            let route = request.split("x-route: ").nth(1).unwrap().split('\r').next().unwrap();
            let rbac = &self.round.routes[route.parse::<usize>().unwrap()];
            let who = &self.sender(number, clients).what;
            text.push_str(&format!("{who}\n{request}{rbac}\n{}\n", self.round.manager));
        } else {
            let guard = case.split(' ').nth(1).unwrap().parse::<usize>().unwrap();
            let client = case.split(' ').nth(3).unwrap().parse::<usize>().unwrap();
            text.push_str(&format!("{}\n{}\n", clients[client].what, self.round.guards[guard]));
        }
        text
    }
}

const HTTP_RBAC: &str = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC";

fn file(path: &Path, format: &str) -> Value {
    json!({ "name": "file", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
        "path": path,
        "log_format": { "text_format_source": { "inline_string": format } } } })
}

/// Lines by their first word.
fn by_number(log: &PathBuf) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    // Envoy logs the path of a request that is refused for its path half normalised.
    let refused = "400 - path_normalization_failed ";
    let alike =
        |rest: &str| if rest.starts_with(refused) { refused.to_owned() } else { rest.to_owned() };
    lines.map(|(number, rest)| (number.to_owned(), alike(rest))).collect()
}
