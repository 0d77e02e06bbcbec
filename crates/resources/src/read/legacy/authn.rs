//! `authentication.istio.io` Policy and MeshPolicy as PeerAuthentication and RequestAuthentication.
//!
//! In Istio 1.0 to 1.5 a policy without `peers` took plain text alone, `mtls` without a mode took mutual
//! TLS alone, and a request had to have a token of one of `origins` unless `originIsOptional`.

use sluis_nouns::Labels;

use super::{
    Made, World,
    tree::{self, list, map, text},
};
use crate::kinds::core::{Service, TargetPort};
use crate::read::object::find;
use crate::value::{Fields, Value, one_of};
use crate::yaml::{Node, Pos};

const PEER: (&str, &str) = ("security.istio.io/v1", "PeerAuthentication");
const REQUEST: (&str, &str) = ("security.istio.io/v1", "RequestAuthentication");
const AUTHORIZATION: (&str, &str) = ("security.istio.io/v1", "AuthorizationPolicy");

/// What is said of the workloads that a policy is for.
struct Said {
    /// The mode of mutual TLS, and where it is written.
    mode: (&'static str, Pos),
    /// The rules of tokens.
    tokens: Vec<Node>,
    is_token_optional: bool,
}

/// One of `targets`: a Service, and some of its ports.
struct Target {
    name: String,
    at: Pos,
    labels: Labels,
    /// Ports of the workload; empty for all.
    ports: Vec<u16>,
}

/// The objects that a policy becomes; none when something is wrong with it.
pub(super) fn policy(value: &Value<'_>, world: &World<'_>, is_mesh: bool) -> Vec<Made> {
    let before = value.doc.errors();
    let own = if is_mesh { world.root_namespace } else { value.doc.namespace.as_str() };
    let read = value.fields(|fields| {
        fields.ignore(&["apiVersion", "kind", "status"]);
        let name = fields.get("metadata").and_then(|metadata| {
            let name = metadata.fields(|fields| {
                fields.ignore_rest();
                fields.req::<String>("name")
            })?;
            match is_mesh && name != "default" {
                true => metadata.fault("the only MeshPolicy is called default"),
                false => Some(name),
            }
        });
        if !fields.has("metadata") {
            fields.missing("metadata");
        }
        let at = fields.value().node.at;
        let (said, targets) = match fields.get("spec") {
            Some(spec) => {
                let at = spec.node.at;
                spec.fields(|fields| {
                    let targets = targets(fields, world, own, is_mesh);
                    Some((said(fields, at)?, targets?))
                })?
            }
            None => (
                Said { mode: ("DISABLE", at), tokens: Vec::new(), is_token_optional: true },
                Vec::new(),
            ),
        };
        Some((name?, said, targets))
    });
    match read {
        Some((name, said, targets)) if value.doc.errors() == before => {
            objects(value, (own, &name), &said, &targets)
        }
        _ => Vec::new(),
    }
}

fn said(fields: &mut Fields<'_, '_>, at: Pos) -> Option<Said> {
    let is_peer_optional: bool = fields.or_default("peerIsOptional");
    let is_token_optional: bool = fields.or_default("originIsOptional");
    if let Some(value) = fields.get("principalBinding") {
        one_of(&value, &[("USE_PEER", ()), ("USE_ORIGIN", ())])?;
        value.warn("this has no effect: policies name source.principal or request.auth.principal");
    }
    let mut mode = ("DISABLE", at);
    for peer in fields.get("peers").and_then(|value| value.items()).unwrap_or_default() {
        let found = peer.fields(|fields| {
            fields.unsupported(&["jwt"]);
            let strict = ("STRICT", peer.node.at);
            match fields.get("mtls") {
                Some(value) => value.fields(mtls),
                // `mtls:` and nothing behind it: mutual TLS, without parameters.
                None if find(peer.node, "mtls").is_some() => Some(strict),
                None => {
                    fields.missing("mtls");
                    None
                }
            }
        })?;
        mode = if is_peer_optional { ("PERMISSIVE", found.1) } else { found };
    }
    let mut tokens = Vec::new();
    for origin in fields.get("origins").and_then(|value| value.items()).unwrap_or_default() {
        tokens.push(origin.fields(|fields| match fields.get("jwt") {
            Some(value) => value.fields(token),
            None => {
                fields.missing("jwt");
                None
            }
        })?);
    }
    Some(Said { mode, tokens, is_token_optional })
}

fn mtls(fields: &mut Fields<'_, '_>) -> Option<(&'static str, Pos)> {
    let at = fields.value().node.at;
    let is_plain_taken: bool = fields.or_default("allowTls");
    let names = [("STRICT", "STRICT"), ("PERMISSIVE", "PERMISSIVE")];
    let (mode, at) = match fields.get("mode") {
        Some(value) => (one_of(&value, &names)?, value.node.at),
        None => ("STRICT", at),
    };
    Some((if is_plain_taken { "PERMISSIVE" } else { mode }, at))
}

/// One of `origins[].jwt` as one of `jwtRules`.
fn token(fields: &mut Fields<'_, '_>) -> Option<Node> {
    let at = fields.value().node.at;
    let mut entries = Vec::new();
    for name in ["issuer", "audiences", "jwks", "jwksUri"] {
        if let Some(value) = fields.get(name) {
            entries.push((name, value.node.clone()));
        }
    }
    if let Some(value) = fields.get("jwtHeaders") {
        let header = |one: Value<'_>| map(one.node.at, [("name", one.node.clone())]);
        let headers = value.items()?.into_iter().map(header).collect();
        entries.push(("fromHeaders", list(value.node.at, headers)));
    }
    if let Some(value) = fields.get("jwtParams") {
        entries.push(("fromParams", value.node.clone()));
    }
    for name in ["triggerRules", "trigger_rules"] {
        if let Some(value) = fields.get(name) {
            value.fault_help::<()>(
                "a RequestAuthentication looks at every path",
                "take it out, and name the paths that need a token in an AuthorizationPolicy",
            );
        }
    }
    Some(map(at, entries))
}

fn targets(
    fields: &mut Fields<'_, '_>,
    world: &World<'_>,
    namespace: &str,
    is_mesh: bool,
) -> Option<Vec<Target>> {
    let Some(value) = fields.get("targets") else { return Some(Vec::new()) };
    if is_mesh {
        return value.fault("a MeshPolicy has no targets");
    }
    let mut found = Vec::new();
    for item in value.items()? {
        found.push(item.fields(|fields| {
            fields.unsupported(&["labels"]);
            let name: String = fields.req("name")?;
            let named = fields.get("name")?;
            let short = name.split('.').next().unwrap_or_default();
            let (service, labels) = world.service(&named, namespace, short)?;
            let mut ports = Vec::new();
            for port in fields.get("ports").and_then(|value| value.items()).unwrap_or_default() {
                ports.push(workload_port(&port, service)?);
            }
            Some(Target { name: short.to_owned(), at: item.node.at, labels: labels.clone(), ports })
        })?);
    }
    Some(found)
}

/// The workload's port behind a port of the Service, by number or name.
fn workload_port(value: &Value<'_>, service: &Service) -> Option<u16> {
    let (number, name) = value.fields(|fields| {
        let number: Option<u16> = fields.opt("number");
        let name: Option<String> = fields.opt("name");
        Some((number, name))
    })?;
    let port = service.ports.iter().find(|port| match (&name, number) {
        (Some(name), _) => port.name == *name,
        (None, number) => number == Some(port.port),
    });
    match port.map(|port| &port.target_port) {
        Some(TargetPort::Number(number)) => Some(*number),
        Some(TargetPort::Name(name)) => value.fault_help(
            format!("the Service leads to port {name:?}, whose number only the workloads know"),
            "write a PeerAuthentication with portLevelMtls",
        ),
        None => value.fault("the Service has no such port"),
    }
}

fn objects(
    value: &Value<'_>,
    (namespace, name): (&str, &str),
    said: &Said,
    targets: &[Target],
) -> Vec<Made> {
    let mut made = Vec::new();
    let mut of = |name: &str, target: Option<&Target>| {
        let at = value.node.at;
        let selector = target.map(|target| ("selector", selector(target)));
        let mode = map(said.mode.1, [("mode", text(said.mode.1, said.mode.0))]);
        let ports = target.map(|target| target.ports.as_slice()).unwrap_or_default();
        let mut spec: Vec<(&str, Node)> = selector.iter().cloned().collect();
        if ports.is_empty() {
            spec.push(("mtls", mode));
        } else {
            let texts: Vec<String> = ports.iter().map(u16::to_string).collect();
            let levels = texts.iter().map(|port| (port.as_str(), mode.clone()));
            spec.push(("portLevelMtls", map(at, levels)));
        }
        made.push(tree::object(value, PEER, (namespace, name), map(at, spec)));
        if said.tokens.is_empty() {
            return;
        }
        if !ports.is_empty() {
            value.fault_help::<()>(
                "tokens of single ports cannot be asked for in a RequestAuthentication",
                "name the ports in an AuthorizationPolicy",
            );
        }
        let rules = ("jwtRules", list(at, said.tokens.clone()));
        let spec = map(at, selector.iter().cloned().chain([rules]));
        made.push(tree::object(value, REQUEST, (namespace, name), spec));
        if !said.is_token_optional {
            let spec = map(at, selector.into_iter().chain(without_token(at)));
            let name = format!("{name}-needs-token");
            made.push(tree::object(value, AUTHORIZATION, (namespace, &name), spec));
        }
    };
    match targets {
        [] => of(name, None),
        [target] => of(name, Some(target)),
        targets => {
            for target in targets {
                of(&format!("{name}-{}", target.name), Some(target));
            }
        }
    }
    made
}

fn selector(target: &Target) -> Node {
    let labels = target.labels.iter().map(|(key, value)| (key.as_str(), text(target.at, value)));
    map(target.at, [("matchLabels", map(target.at, labels))])
}

/// A request without a token is denied: a RequestAuthentication alone lets it pass.
fn without_token(at: Pos) -> [(&'static str, Node); 2] {
    let anybody = list(at, vec![text(at, "*")]);
    let source = map(at, [("source", map(at, [("notRequestPrincipals", anybody)]))]);
    let rule = map(at, [("from", list(at, vec![source]))]);
    [("action", text(at, "DENY")), ("rules", list(at, vec![rule]))]
}
