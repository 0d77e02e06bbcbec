//! Does one piece of a request's work so many times: `instructions CASE TIMES`, to be counted from
//! outside (`benches/instructions.py`): only what runs within [`counted`] is.
//!
//! In:    the name of a case, and how often.
//! Out:   nothing but a sum, so that the work cannot be left out.
//! Never: measures time.

#![expect(clippy::print_stdout, reason = "its output is its purpose")]

use std::{env, error::Error, hint::black_box, sync::Arc};

use serde_json::{Value, json};
use sluis_envoy::{Kind, ResourceSet};
use sluis_http1::{Limits, Method, RequestHead, ResponseHead, Scan};
use sluis_rules::{
    HeaderValues, HttpFilterKind, Metadata, Network, PeerFacts, Rbac, RbacFacts, RequestFacts,
    Runtime, compile,
};

type Failure = Box<dyn Error>;

const REQUEST: &[u8] = b"POST /api/v1/items?page=1 HTTP/1.1\r\nHost: api.example.com\r\n\
    User-Agent: python-requests/2.32\r\nAccept-Encoding: gzip, deflate\r\nAccept: */*\r\n\
    Connection: keep-alive\r\nAuthorization: Bearer abcdefghijklmnopqrstuvwxyz\r\n\
    Content-Type: application/json\r\nX-Request-Id: 0f8fad5b-d9cb-469f-a165-70867728950e\r\n\
    Content-Length: 2\r\n\r\n{}";

const RESPONSE: &[u8] =
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Sun, 22 Nov 2026 12:00:00 GMT\r\n\
    Content-Type: application/json\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\
    Cache-Control: no-store\r\nX-Served-By: cache-7\r\n\r\n{}";

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [case, times] = arguments.as_slice() else {
        return Err("instructions CASE TIMES".into());
    };
    let times: u32 = times.parse()?;
    let (name, size) = case.split_once('-').unwrap_or((case, "0"));
    let size: usize = size.parse()?;
    let sum = match name {
        "request" => request(times)?,
        "response" => response(times)?,
        "routes" => routes(size, times)?,
        "rules" => rules(size, times)?,
        _ => return Err(format!("no case {case}").into()),
    };
    println!("{sum}");
    Ok(())
}

/// Tables that a case asks in turn: their hash maps have seeds of their own.
const TABLES: usize = 8;

/// What is counted. Making tables, and the first time of a piece, are outside.
#[inline(never)]
fn counted<R>(work: impl FnOnce() -> R) -> R {
    black_box(work())
}

/// Reads a request's head, changes it as a gateway does, and writes it.
fn request(times: u32) -> Result<usize, Failure> {
    let (mut head, mut out) = (RequestHead::default(), Vec::new());
    let mut once = || -> Result<usize, Failure> {
        let mut scan = Scan::default();
        head.parse(&mut scan, black_box(REQUEST), &Limits::default())?.ok_or("cut off")?;
        head.strip_hop_by_hop(sluis_http1::Upgrade::Remove);
        head.fields.set(b"x-forwarded-for", b"192.0.2.7")?;
        head.fields.set(b"x-forwarded-proto", b"https")?;
        out.clear();
        head.write_to(&mut out);
        Ok(black_box(&out).len())
    };
    once()?;
    counted(|| (0..times).map(|_| once()).sum())
}

/// The same for a response.
fn response(times: u32) -> Result<usize, Failure> {
    let (mut head, mut out) = (ResponseHead::default(), Vec::new());
    let mut once = || -> Result<usize, Failure> {
        let mut scan = Scan::default();
        let parsed = head.parse(&mut scan, black_box(RESPONSE), &Limits::default(), Method::Get)?;
        parsed.ok_or("cut off")?;
        head.strip_hop_by_hop(sluis_http1::Upgrade::Remove);
        head.fields.set(b"x-envoy-upstream-service-time", b"3")?;
        out.clear();
        head.write_open_to(&mut out);
        Ok(black_box(&out).len())
    };
    once()?;
    counted(|| (0..times).map(|_| once()).sum())
}

struct Facts<'f>(&'f str);

impl RequestFacts for Facts<'_> {
    fn method(&self) -> &str {
        "GET"
    }

    fn authority(&self) -> &str {
        "api.example.com"
    }

    fn path(&self) -> &str {
        self.0
    }

    fn scheme(&self) -> &str {
        "https"
    }

    fn header<'r>(&'r self, _: &str, _: &mut HeaderValues<'r>) {}
}

/// Finds the route of a path, of so many.
fn routes(count: usize, times: u32) -> Result<usize, Failure> {
    let route = |at: usize| {
        let path = format!("/api/v1/items{at}/");
        json!({"name": format!("r{at}"), "match": {"prefix": path}, "direct_response": {"status": 200}})
    };
    let table = json!({"name": "t", "virtual_hosts": [{
        "name": "all", "domains": ["*"], "routes": (0..count).map(route).collect::<Vec<_>>(),
    }]});
    let tables = (0..TABLES).map(|_| {
        let runtime = compiled(Kind::Route, &table)?;
        Ok(Arc::clone(runtime.routes.get("t").ok_or("no table")?))
    });
    let tables: Vec<_> = tables.collect::<Result<_, Failure>>()?;
    let paths: Vec<String> = (0..count).map(|at| format!("/api/v1/items{at}/x")).collect();
    let once = |at: usize| -> Result<usize, Failure> {
        let facts = Facts(black_box(&paths[at % count]));
        let found = tables[at % TABLES].route(&facts).map_err(|_| "no route")?;
        Ok(found.route.name.len())
    };
    let warm: usize = (0..TABLES).map(once).sum::<Result<_, _>>()?;
    let times = usize::try_from(times)?;
    counted(|| (0..times).map(once).sum::<Result<usize, _>>()).map(|sum| sum + warm)
}

/// Decides by so many policies, of which one matches.
fn rules(count: usize, times: u32) -> Result<usize, Failure> {
    let policy = |at: usize| {
        let name = format!("spiffe://cluster.local/ns/team{at}/sa/app");
        let policy = json!({
            "permissions": [{"url_path": {"path": {"prefix": "/api/"}}}],
            "principals": [{"authenticated": {"principal_name": {"exact": name}}}],
        });
        (format!("p{at:05}"), policy)
    };
    let policies: serde_json::Map<String, Value> = (0..count).map(policy).collect();
    let types = "type.googleapis.com/envoy.extensions.filters";
    let filters = json!([
        {"name": "rbac", "typed_config": {
            "@type": format!("{types}.http.rbac.v3.RBAC"), "rules": {"policies": policies}}},
        {"name": "router", "typed_config": {"@type": format!("{types}.http.router.v3.Router")}},
    ]);
    let manager = json!({
        "@type": format!("{types}.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "h", "http_filters": filters,
        "rds": {"route_config_name": "r", "config_source": {"ads": {}}},
    });
    let listener = json!({
        "name": "l",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 80}},
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    });
    let tables = (0..TABLES).map(|_| {
        let runtime = compiled(Kind::Listener, &listener)?;
        Ok(rules_of(&runtime).ok_or("no rules")?)
    });
    let tables: Vec<Arc<Rbac>> = tables.collect::<Result<_, Failure>>()?;
    let uris: Vec<_> =
        (0..count).map(|at| vec![format!("spiffe://cluster.local/ns/team{at}/sa/app")]).collect();
    let request = Facts("/api/v1/items7");
    let metadata = Metadata::default();
    let once = |at: usize| {
        let facts = RbacFacts {
            peer: PeerFacts {
                is_tls: true,
                uris: black_box(&uris[at % count]),
                ..PeerFacts::default()
            },
            request: Some(&request),
            metadata: &metadata,
        };
        usize::from(tables[at % TABLES].decide(&facts).is_allowed)
    };
    let warm: usize = (0..TABLES).map(once).sum();
    let times = usize::try_from(times)?;
    let allowed = counted(|| (0..times).map(once).sum::<usize>());
    if allowed == times { Ok(allowed + warm) } else { Err("not everything was allowed".into()) }
}

fn rules_of(runtime: &Runtime) -> Option<Arc<Rbac>> {
    let chain = runtime.listeners.get("l")?.chains.first()?;
    let Network::Http(manager) = &chain.network else { return None };
    let HttpFilterKind::Rbac(filter) = &manager.filters.first()?.kind else { return None };
    filter.rules.clone()
}

fn compiled(kind: Kind, resource: &Value) -> Result<Arc<Runtime>, Failure> {
    let mut set = ResourceSet::default();
    set.insert(kind, &sluis_protojson::from_json(kind.type_url(), resource)?)?;
    let compiled = compile(&set, None);
    match compiled.faults.first() {
        Some(fault) => Err(fault.to_string().into()),
        None => Ok(compiled.runtime),
    }
}
