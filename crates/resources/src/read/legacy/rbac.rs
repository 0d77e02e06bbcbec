//! `rbac.istio.io` ServiceRole, ServiceRoleBinding and ClusterRbacConfig as AuthorizationPolicy.
//!
//! A ClusterRbacConfig says where everything is denied that no role allows: there a policy that allows
//! nothing is made. A binding and its role make a policy for each Service that the role names.

use std::collections::BTreeMap;

use sluis_nouns::Labels;

use super::{
    Made, World,
    tree::{self, list, map, text},
};
use crate::value::{Fields, Value, one_of};
use crate::yaml::{Node, Pos};

const POLICY: (&str, &str) = ("security.istio.io/v1", "AuthorizationPolicy");

/// The name of the policy that allows nothing.
const NOTHING: &str = "allow-nothing";

/// What follows the name of a Service.
const DOMAIN: &str = "svc.cluster.local";

/// All objects of the kinds, read.
#[derive(Default)]
pub(super) struct Rbac<'v> {
    roles: BTreeMap<(String, String), Vec<RoleRule<'v>>>,
    bindings: Vec<Binding<'v>>,
    config: Option<Config<'v>>,
}

struct RoleRule<'v> {
    /// `services`, each with its place.
    services: Vec<(String, Value<'v>)>,
    operation: Option<Node>,
    when: Vec<Node>,
}

struct Binding<'v> {
    at: Value<'v>,
    name: String,
    role: String,
    role_at: Value<'v>,
    subjects: Vec<Subject>,
}

/// Who is meant; neither for anybody.
struct Subject {
    source: Option<Node>,
    when: Vec<Node>,
}

struct Config<'v> {
    at: Value<'v>,
    scope: Scope<'v>,
}

enum Scope<'v> {
    Nothing,
    Everything,
    Only { services: Vec<(String, Value<'v>)>, namespaces: Vec<String> },
}

fn name_of(fields: &mut Fields<'_, '_>) -> Option<String> {
    fields.ignore(&["apiVersion", "kind", "status"]);
    match fields.get("metadata") {
        Some(value) => value.fields(|fields| {
            fields.ignore_rest();
            fields.req("name")
        }),
        None => {
            fields.missing("metadata");
            None
        }
    }
}

/// A list of texts, each with its place.
fn texts<'v>(fields: &mut Fields<'v, '_>, name: &'static str) -> Vec<(String, Value<'v>)> {
    let items = fields.get(name).and_then(|value| value.items()).unwrap_or_default();
    items.into_iter().filter_map(|value| Some((value.read::<String>()?, value))).collect()
}

impl<'v> Rbac<'v> {
    pub(super) fn role(&mut self, value: &Value<'v>) {
        let before = value.doc.errors();
        let read = value.fields(|fields| {
            let name = name_of(fields);
            let rules = section(fields, |fields| {
                let items = fields.get("rules").and_then(|value| value.items()).unwrap_or_default();
                let rules: Vec<_> = items.iter().map(|item| item.fields(role_rule)).collect();
                rules.into_iter().collect::<Option<Vec<_>>>()
            });
            Some((name?, rules?))
        });
        if let Some((name, rules)) = read.filter(|_| value.doc.errors() == before) {
            self.roles.insert((value.doc.namespace.clone(), name), rules);
        }
    }

    pub(super) fn binding(&mut self, value: &Value<'v>) {
        let before = value.doc.errors();
        let read = value.fields(|fields| {
            let name = name_of(fields);
            let spec = section(fields, |fields| {
                enforced(fields, "mode")?;
                let role = fields.get("roleRef")?;
                let of = role.fields(|fields| {
                    let kind = fields.get("kind")?;
                    one_of(&kind, &[("ServiceRole", ())])?;
                    fields.ignore(&["apiGroup"]);
                    fields.req::<String>("name")
                });
                let items = fields.get("subjects").and_then(|value| value.items());
                let subjects: Vec<_> =
                    items.unwrap_or_default().iter().map(|item| item.fields(subject)).collect();
                Some((of?, role, subjects.into_iter().collect::<Option<Vec<_>>>()?))
            });
            Some((name?, spec?))
        });
        if let Some((name, (role, role_at, subjects))) =
            read.filter(|_| value.doc.errors() == before)
        {
            self.bindings.push(Binding { at: value.clone(), name, role, role_at, subjects });
        }
    }

    pub(super) fn config(&mut self, value: &Value<'v>) {
        let before = value.doc.errors();
        let read = value.fields(|fields| {
            name_of(fields)?;
            section(fields, scope)
        });
        let Some(scope) = read.filter(|_| value.doc.errors() == before) else { return };
        match &self.config {
            Some(_) => {
                value.fault::<()>("there is another one: which of them is meant cannot be told");
            }
            None => self.config = Some(Config { at: value.clone(), scope }),
        }
    }

    /// The policies that all of it means.
    pub(super) fn policies(self, world: &World<'_>) -> Vec<Made> {
        let Some(config) = &self.config else {
            for binding in &self.bindings {
                binding.at.warn("no ClusterRbacConfig turns roles on: this has no effect");
            }
            return Vec::new();
        };
        let mut made = config.denials(world);
        for binding in &self.bindings {
            let namespace = binding.at.doc.namespace.clone();
            let Some(rules) = self.roles.get(&(namespace.clone(), binding.role.clone())) else {
                binding
                    .role_at
                    .fault::<()>(format!("there is no ServiceRole {namespace}/{}", binding.role));
                continue;
            };
            if !config.scope.touches(&namespace) {
                binding.at.warn("the ClusterRbacConfig leaves this namespace out: no effect");
                continue;
            }
            made.extend(binding.policies(world, &namespace, rules));
        }
        made
    }
}

fn section<'v, T>(
    fields: &mut Fields<'v, '_>,
    read: impl FnOnce(&mut Fields<'v, '_>) -> Option<T>,
) -> Option<T> {
    match fields.get("spec") {
        Some(value) => value.fields(read),
        None => {
            fields.missing("spec");
            None
        }
    }
}

/// Roles that were only tried are refused: what they would have denied must not be let through.
fn enforced(fields: &mut Fields<'_, '_>, name: &'static str) -> Option<()> {
    let Some(value) = fields.get(name) else { return Some(()) };
    match one_of(&value, &[("ENFORCED", true), ("PERMISSIVE", false)])? {
        true => Some(()),
        false => value.fault_help(
            "this cannot be said of a part of the policies",
            "write an AuthorizationPolicy with the annotation istio.io/dry-run",
        ),
    }
}

fn scope<'v>(fields: &mut Fields<'v, '_>) -> Option<Scope<'v>> {
    enforced(fields, "enforcementMode")?;
    let mode = fields.get("mode");
    let names = [("OFF", 0), ("ON", 1), ("ON_WITH_INCLUSION", 2), ("ON_WITH_EXCLUSION", 3)];
    let mode = match &mode {
        Some(value) => one_of(value, &names)?,
        None => 0,
    };
    let included = fields.get("inclusion");
    if let Some(value) = fields.get("exclusion")
        && mode == 3
    {
        return value.fault_help(
            "an AuthorizationPolicy names what is meant, not what is left out",
            "write ON_WITH_INCLUSION with the other namespaces",
        );
    }
    let (mut services, mut namespaces) = (Vec::new(), Vec::new());
    if let Some(value) = included {
        value.fields(|fields| {
            services = texts(fields, "services");
            namespaces = texts(fields, "namespaces").into_iter().map(|(name, _)| name).collect();
            Some(())
        })?;
    }
    Some(match mode {
        0 => Scope::Nothing,
        2 => Scope::Only { services, namespaces },
        _ => Scope::Everything,
    })
}

impl Scope<'_> {
    /// Whether something of a namespace is denied unless it is allowed.
    fn touches(&self, namespace: &str) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::Only { services, namespaces } => {
                let of = |service: &str| service.split('.').nth(1) == Some(namespace);
                namespaces.iter().any(|name| name == namespace)
                    || services.iter().any(|(service, _)| of(service))
            }
        }
    }
}

impl Config<'_> {
    /// The policies that allow nothing.
    fn denials(&self, world: &World<'_>) -> Vec<Made> {
        let at = self.at.node.at;
        let nothing = |namespace: &str, name: &str, spec: Node| {
            tree::object(&self.at, POLICY, (namespace, name), spec)
        };
        match &self.scope {
            Scope::Nothing => Vec::new(),
            Scope::Everything => vec![nothing(world.root_namespace, NOTHING, map(at, []))],
            Scope::Only { services, namespaces } => {
                let mut made: Vec<Made> =
                    namespaces.iter().map(|one| nothing(one, NOTHING, map(at, []))).collect();
                for (service, value) in services {
                    let mut parts = service.split('.');
                    let name = parts.next().unwrap_or_default();
                    let Some(namespace) = parts.next() else {
                        value.fault::<()>(
                            "the full name is expected: NAME.NAMESPACE.svc.cluster.local",
                        );
                        continue;
                    };
                    if let Some((_, labels)) = world.service(value, namespace, name) {
                        let spec = map(at, [("selector", selector(at, labels))]);
                        made.push(nothing(namespace, &format!("{NOTHING}-{name}"), spec));
                    }
                }
                made
            }
        }
    }
}

impl Binding<'_> {
    fn policies(&self, world: &World<'_>, namespace: &str, rules: &[RoleRule<'_>]) -> Vec<Made> {
        let at = self.at.node.at;
        // By Service: its labels, and the rules for it. No name stands for all.
        let mut of: BTreeMap<String, (Option<Labels>, Vec<Node>)> = BTreeMap::new();
        for rule in rules {
            for (pattern, value) in &rule.services {
                for (name, labels) in named(world, namespace, pattern, value) {
                    let (_, made) = of.entry(name).or_insert((labels, Vec::new()));
                    made.extend(self.subjects.iter().map(|subject| rule.of(at, subject)));
                }
            }
        }
        let mut made = Vec::new();
        for (service, (labels, rules)) in of.into_iter().filter(|(_, (_, rules))| !rules.is_empty())
        {
            let selector = labels.map(|labels| ("selector", selector(at, &labels)));
            let rules = [("action", text(at, "ALLOW")), ("rules", list(at, rules))];
            let spec = map(at, selector.into_iter().chain(rules));
            let dash = if service.is_empty() { "" } else { "-" };
            let name = format!("{}{dash}{service}", self.name);
            made.push(tree::object(&self.at, POLICY, (namespace, &name), spec));
        }
        made
    }
}

/// The Services that one of `services` means, with their labels: a name, `*`, `prefix*` or `*suffix`.
fn named(
    world: &World<'_>,
    namespace: &str,
    pattern: &str,
    value: &Value<'_>,
) -> Vec<(String, Option<Labels>)> {
    if pattern == "*" {
        return vec![(String::new(), None)];
    }
    if !pattern.contains('*') {
        let name = pattern.split('.').next().unwrap_or_default();
        let found = world.service(value, namespace, name);
        return found
            .into_iter()
            .map(|(_, labels)| (name.to_owned(), Some(labels.clone())))
            .collect();
    }
    let mut found = Vec::new();
    for (object, service) in &world.services {
        let host = format!("{}.{}.{DOMAIN}", object.name, object.namespace);
        let is_meant = match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
            (Some(end), _) => host.ends_with(end),
            (_, Some(start)) => host.starts_with(start),
            _ => false,
        };
        if is_meant && *object.namespace == *namespace && !service.selector.is_empty() {
            found.push((object.name.to_string(), Some(service.selector.clone())));
        }
    }
    if found.is_empty() {
        value.fault::<()>(format!("no Service of namespace {namespace} is meant by this"));
    }
    found
}

fn selector(at: Pos, labels: &Labels) -> Node {
    let labels = labels.iter().map(|(key, value)| (key.as_str(), text(at, value)));
    map(at, [("matchLabels", map(at, labels))])
}

impl RoleRule<'_> {
    /// One rule of the policy: what the role allows, to one of the subjects.
    fn of(&self, at: Pos, subject: &Subject) -> Node {
        let mut entries = Vec::new();
        if let Some(source) = &subject.source {
            let source = map(at, [("source", source.clone())]);
            entries.push(("from", list(at, vec![source])));
        }
        if let Some(operation) = &self.operation {
            let operation = map(at, [("operation", operation.clone())]);
            entries.push(("to", list(at, vec![operation])));
        }
        let when: Vec<Node> = self.when.iter().chain(&subject.when).cloned().collect();
        if !when.is_empty() {
            entries.push(("when", list(at, when)));
        }
        map(at, entries)
    }
}

/// The fields of an operation that have the same name and the same meaning.
const OPERATION: [&str; 8] =
    ["hosts", "notHosts", "paths", "notPaths", "methods", "notMethods", "ports", "notPorts"];

fn role_rule<'v>(fields: &mut Fields<'v, '_>) -> Option<RoleRule<'v>> {
    let at = fields.value().node.at;
    let services = texts(fields, "services");
    if services.is_empty() {
        fields.missing("services");
    }
    let mut operation = Vec::new();
    for name in OPERATION {
        if let Some(value) = fields.get(name) {
            // `*` alone meant "any", which is what nothing means today.
            let is_any =
                value.items()?.iter().any(|one| one.read::<String>().as_deref() == Some("*"));
            match (is_any, name.starts_with("not")) {
                (true, false) => {}
                (true, true) => return value.fault("this matches nothing"),
                (false, _) => operation.push((name, quoted(&value)?)),
            }
        }
    }
    let mut when = Vec::new();
    for item in fields.get("constraints").and_then(|value| value.items()).unwrap_or_default() {
        when.push(item.fields(|fields| {
            let key: String = fields.req("key")?;
            let values = fields.get("values")?;
            condition(&fields.get("key")?, &key, quoted(&values)?)
        })?);
    }
    let operation = (!operation.is_empty()).then(|| map(at, operation));
    Some(RoleRule { services, operation, when })
}

/// A list whose values are texts: ports were numbers.
fn quoted(value: &Value<'_>) -> Option<Node> {
    let item = |one: &Value<'_>| match &one.node.kind {
        crate::yaml::NodeKind::Plain(plain) => text(one.node.at, plain.clone()),
        _ => one.node.clone(),
    };
    Some(list(value.node.at, value.items()?.iter().map(item).collect()))
}

/// One of `constraints` or `properties` as one of `when`.
fn condition(value: &Value<'_>, key: &str, values: Node) -> Option<Node> {
    const SAME: [&str; 8] = [
        "source.ip",
        "source.namespace",
        "source.principal",
        "destination.ip",
        "destination.port",
        "connection.sni",
        "request.auth.principal",
        "request.auth.audiences",
    ];
    let is_same = SAME.contains(&key)
        || key == "request.auth.presenter"
        || ["request.headers[", "request.auth.claims[", "experimental.envoy.filters."]
            .iter()
            .any(|start| key.starts_with(start));
    if !is_same {
        return value.fault_help(
            format!("{key:?} is no condition of an AuthorizationPolicy"),
            "select the workloads by name or labels",
        );
    }
    Some(map(value.node.at, [("key", text(value.node.at, key)), ("values", values)]))
}

fn subject(fields: &mut Fields<'_, '_>) -> Option<Subject> {
    let at = fields.value().node.at;
    let (mut source, mut when) = (Vec::new(), Vec::new());
    if let Some(value) = fields.get("user") {
        let user: String = value.read()?;
        if user != "*" {
            source.push(("principals", list(value.node.at, vec![value.node.clone()])));
        }
    }
    for (name, new) in [
        ("names", "principals"),
        ("notNames", "notPrincipals"),
        ("namespaces", "namespaces"),
        ("notNamespaces", "notNamespaces"),
        ("ips", "ipBlocks"),
        ("notIps", "notIpBlocks"),
    ] {
        if let Some(value) = fields.get(name) {
            source.push((new, value.node.clone()));
        }
    }
    let mut groups: Vec<Node> =
        fields.get("group").iter().map(|value| value.node.clone()).collect();
    if let Some(value) = fields.get("groups") {
        groups.extend(value.items()?.iter().map(|one| one.node.clone()));
    }
    if !groups.is_empty() {
        let key = text(at, "request.auth.claims[groups]");
        when.push(map(at, [("key", key), ("values", list(at, groups))]));
    }
    fields.unsupported(&["notGroups"]);
    for (key, value) in
        fields.get("properties").and_then(|value| value.entries()).unwrap_or_default()
    {
        let one = list(value.node.at, vec![text(value.node.at, value.read::<String>()?)]);
        let known = [("source.namespace", "namespaces"), ("source.principal", "principals")];
        match known.iter().find(|(old, _)| *old == key) {
            Some((_, new)) if !source.iter().any(|(name, _)| name == new) => {
                source.push((new, one))
            }
            _ => when.push(condition(&value, key, one)?),
        }
    }
    let source = (!source.is_empty()).then(|| map(at, source));
    Some(Subject { source, when })
}
