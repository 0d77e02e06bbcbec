//! Reads AuthorizationPolicy, and holds it to Istio's rules.

use sluis_nouns::Cidr;

use super::forms::{checked, read_fields, read_names};
use super::meta::DRY_RUN;
use super::target::policy_target;
use super::virtual_service::entry;
use crate::kinds::authorization::{
    AuthorizationAction, AuthorizationPolicy, AuthorizationRule, Condition, ConditionKey,
    ConditionValue, Operation, PathPattern, ServiceAccountRef, Source, TextPattern, Values,
};
use crate::resource::Meta;
use crate::value::{Fields, Read, Value};

read_fields! {
    Spec => spec,
    Provider => provider,
    AuthorizationRule => rule,
    From => from,
    To => to,
    Source => source,
    Operation => operation,
    Condition => condition,
}

read_names! {
    Action {
        "ALLOW" => Action::Allow,
        "DENY" => Action::Deny,
        "AUDIT" => Action::Audit,
        "CUSTOM" => Action::Custom,
    }
}

/// Most rules of a policy, and sources of a rule, as Istio has it.
const RULES_MAX: usize = 512;

/// Most entries of a list of service accounts, as Istio has it.
const ACCOUNTS_MAX: usize = 16;

/// Longest service account, as Istio has it.
const ACCOUNT_BYTES_MAX: usize = 320;

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Action {
    #[default]
    Allow,
    Deny,
    Audit,
    Custom,
}

/// Reads the object; an AuthorizationPolicy without a spec denies everything, as with an empty one.
pub(super) fn authorization_policy(
    fields: &mut Fields<'_, '_>,
    meta: Option<&Meta>,
) -> Option<AuthorizationPolicy> {
    let spec = match fields.get("spec") {
        Some(value) => value.read::<Spec>().map(|Spec(policy)| policy),
        None => Some(AuthorizationPolicy::default()),
    };
    let dry_run = dry_run(fields, meta?, spec.as_ref());
    Some(AuthorizationPolicy { dry_run: dry_run.unwrap_or_default(), ..spec? })
}

fn dry_run(
    fields: &mut Fields<'_, '_>,
    meta: &Meta,
    policy: Option<&AuthorizationPolicy>,
) -> Option<bool> {
    let text = meta.annotations.get(DRY_RUN)?;
    let annotations = fields.get("metadata").and_then(|value| entry(&value, "annotations"));
    let value = annotations.and_then(|value| entry(&value, DRY_RUN))?;
    let possible = policy.is_none_or(|policy| {
        matches!(policy.action, AuthorizationAction::Allow | AuthorizationAction::Deny)
    });
    if !possible {
        return value.fault("this is possible only with action ALLOW and DENY");
    }
    // What Go's strconv.ParseBool takes.
    match text.as_str() {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => value.fault(format!("{text:?} is neither true nor false")),
    }
}

struct Spec(AuthorizationPolicy);

fn spec(fields: &mut Fields<'_, '_>) -> Option<Spec> {
    let target = policy_target(fields);
    let action: Action = fields.or_default("action");
    let provider: Option<Provider> = fields.opt("provider");
    let rules: Vec<AuthorizationRule> = fields.or_default("rules");
    check_count(fields, "rules", RULES_MAX);
    if rules.is_empty() && matches!(action, Action::Deny | Action::Custom) {
        let message =
            "without rules this action never matches: an empty rule {} matches everything";
        fields.fault_at("rules", message);
    }
    if action == Action::Custom {
        check_custom(fields);
        if provider.is_none() {
            fields.fault_at("provider.name", "action CUSTOM needs the name of a provider");
        }
    } else if let Some(value) = fields.get("provider") {
        value.fault::<()>("a provider is possible only with action CUSTOM");
    }
    match action {
        Action::Deny => warn_of_tcp(fields, &rules),
        Action::Allow => warn_of_other_paths(fields),
        Action::Audit | Action::Custom => {}
    }
    check_targets(fields, action);
    let action = match action {
        Action::Allow => AuthorizationAction::Allow,
        Action::Deny => AuthorizationAction::Deny,
        Action::Audit => AuthorizationAction::Audit,
        Action::Custom => AuthorizationAction::Custom(provider.map(|Provider(name)| name)?),
    };
    Some(Spec(AuthorizationPolicy { target, action, rules, dry_run: false }))
}

/// Refuses targets that nothing enforces: Istio's waypoints alone look at Services and classes, and
/// what guards an external host decides for itself.
fn check_targets(fields: &mut Fields<'_, '_>, action: Action) {
    let check = |target: &Value<'_>| {
        let kind = entry(target, "kind").and_then(|kind| kind.read::<String>());
        match kind.as_deref() {
            Some("Service" | "GatewayClass") => {
                target.fault::<()>(
                    "only waypoints enforce such a policy, and there are none: use a selector, a \
                     Gateway or a ServiceEntry",
                );
            }
            Some("ServiceEntry") if action == Action::Custom => {
                target.fault::<()>("a ServiceEntry cannot be guarded with action CUSTOM");
            }
            _ => {}
        }
    };
    if let Some(target) = fields.get("targetRef").filter(Value::is_set) {
        check(&target);
    }
    for target in fields.get("targetRefs").and_then(|value| value.items()).unwrap_or_default() {
        check(&target);
    }
}

/// Tells of ALLOW with `notPaths`: a path in a spelling that nobody thought of is let through.
fn warn_of_other_paths(fields: &mut Fields<'_, '_>) {
    for rule in fields.get("rules").and_then(|value| value.items()).unwrap_or_default() {
        for to in entry(&rule, "to").and_then(|value| value.items()).unwrap_or_default() {
            let Some(operation) = entry(&to, "operation") else { continue };
            if let Some(value) = entry(&operation, "notPaths").filter(Value::is_set) {
                value.warn(
                    "this lets every other spelling of the path through: list the paths that are \
                     allowed",
                );
            }
        }
    }
}

struct Provider(String);

fn provider(fields: &mut Fields<'_, '_>) -> Option<Provider> {
    let name: String = fields.or_default("name");
    if name.is_empty() {
        fields.fault_at("name", "the name of a provider must not be empty");
    }
    Some(Provider(name))
}

fn check_count(fields: &mut Fields<'_, '_>, name: &'static str, max: usize) {
    if let Some(value) = fields.get(name)
        && value.items().is_some_and(|items| items.len() > max)
    {
        value.fault::<()>(format!("there are more than {max} entries"));
    }
}

/// Istio: a CUSTOM rule is evaluated before anything is known of the peer and the token.
fn check_custom(fields: &mut Fields<'_, '_>) {
    const OF_IDENTITY: [&str; 10] = [
        "principals",
        "notPrincipals",
        "requestPrincipals",
        "notRequestPrincipals",
        "namespaces",
        "notNamespaces",
        "serviceAccounts",
        "notServiceAccounts",
        "trustDomains",
        "notTrustDomains",
    ];
    const KEYS: [&str; 4] =
        ["source.namespace", "source.serviceAccount", "source.trustDomain", "source.principal"];
    let message = "this is not possible with action CUSTOM";
    for rule in fields.get("rules").and_then(|value| value.items()).unwrap_or_default() {
        for from in entry(&rule, "from").and_then(|value| value.items()).unwrap_or_default() {
            let Some(source) = entry(&from, "source") else { continue };
            for name in OF_IDENTITY {
                if let Some(value) = entry(&source, name).filter(Value::is_set) {
                    value.fault::<()>(message);
                }
            }
        }
        for when in entry(&rule, "when").and_then(|value| value.items()).unwrap_or_default() {
            let Some(key) = entry(&when, "key") else { continue };
            let Some(text) = key.read::<String>() else { continue };
            if KEYS.contains(&text.as_str()) || text.starts_with("request.auth.") {
                key.fault::<()>(message);
            }
        }
    }
}

/// Istio: a DENY rule of HTTP attributes alone, in which TCP has nothing to look at, denies all of it.
fn warn_of_tcp(fields: &mut Fields<'_, '_>, rules: &[AuthorizationRule]) {
    let items = fields.get("rules").and_then(|value| value.items()).unwrap_or_default();
    for (rule, item) in rules.iter().zip(items) {
        let of_tcp = |source: &Source| {
            let http = Source {
                request_principals: source.request_principals.clone(),
                trust_domains: source.trust_domains.clone(),
                ..Source::default()
            };
            *source != http
        };
        let from_tcp = rule.from.iter().any(of_tcp);
        let to_tcp = rule.to.iter().any(|operation| !operation.ports.is_empty());
        let only_from = !rule.from.is_empty() && rule.to.is_empty() && !from_tcp;
        if only_from || (!rule.to.is_empty() && !to_tcp) {
            item.warn("this denies all TCP connections too: name the ports that are meant");
        }
    }
}

fn rule(fields: &mut Fields<'_, '_>) -> Option<AuthorizationRule> {
    let at = fields.at();
    let from: Vec<From> = fields.or_default("from");
    let to: Vec<To> = fields.or_default("to");
    let when = fields.or_default("when");
    check_count(fields, "from", RULES_MAX);
    let from = from.into_iter().map(|From(source)| source).collect();
    Some(AuthorizationRule { at, from, to: to.into_iter().map(|To(to)| to).collect(), when })
}

struct From(Source);

fn from(fields: &mut Fields<'_, '_>) -> Option<From> {
    fields.req("source").map(From)
}

struct To(Operation);

fn to(fields: &mut Fields<'_, '_>) -> Option<To> {
    fields.req("operation").map(To)
}

fn source(fields: &mut Fields<'_, '_>) -> Option<Source> {
    let source = Source {
        principals: values(fields, ["principals", "notPrincipals"], text),
        request_principals: values(fields, ["requestPrincipals", "notRequestPrincipals"], text),
        namespaces: values(fields, ["namespaces", "notNamespaces"], text),
        service_accounts: values(fields, ["serviceAccounts", "notServiceAccounts"], account),
        trust_domains: values(fields, ["trustDomains", "notTrustDomains"], trust_domain),
        ip_blocks: values(fields, ["ipBlocks", "notIpBlocks"], ip),
        remote_ip_blocks: values(fields, ["remoteIpBlocks", "notRemoteIpBlocks"], ip),
    };
    for name in ["serviceAccounts", "notServiceAccounts"] {
        check_count(fields, name, ACCOUNTS_MAX);
    }
    if source.is_empty() {
        fields.value().fault::<()>("a source must not be empty");
    }
    let others = !(source.principals.is_empty() && source.namespaces.is_empty());
    if others && !source.service_accounts.is_empty() {
        let message = "serviceAccounts cannot be beside principals or namespaces";
        fields.fault_at("serviceAccounts", message);
    }
    Some(source)
}

fn operation(fields: &mut Fields<'_, '_>) -> Option<Operation> {
    let operation = Operation {
        hosts: values(fields, ["hosts", "notHosts"], text),
        ports: values(fields, ["ports", "notPorts"], |_, text| port(text)),
        methods: values(fields, ["methods", "notMethods"], text),
        paths: values(fields, ["paths", "notPaths"], |_, text| path(text)),
    };
    if operation.is_empty() {
        fields.value().fault::<()>("an operation must not be empty");
    }
    Some(operation)
}

/// Reads a field and its negation. The reader gets the policy's namespace and a text that is not empty.
fn values<T>(
    fields: &mut Fields<'_, '_>,
    [any, none]: [&'static str; 2],
    read: impl Fn(&str, &str) -> Result<T, String> + Copy,
) -> Values<T> {
    let own = fields.value().doc.namespace.clone();
    let mut list = |name| -> Vec<T> {
        let items = fields.get(name).and_then(|value| value.items()).unwrap_or_default();
        let item = |value: Value<'_>| checked(&value, |text| not_empty(text, |t| read(&own, t)));
        items.into_iter().filter_map(item).collect()
    };
    Values { any: list(any), none: list(none) }
}

fn not_empty<T>(text: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<T, String> {
    if text.is_empty() {
        return Err("an empty value is not allowed".to_owned());
    }
    read(text)
}

#[expect(clippy::unnecessary_wraps, reason = "one of several readers with the same form")]
fn text(_: &str, text: &str) -> Result<TextPattern, String> {
    Ok(TextPattern::new(text))
}

fn wildcard(text: &str) -> Result<TextPattern, String> {
    let stars = text.matches('*').count();
    if stars > 1 || (stars == 1 && !text.starts_with('*') && !text.ends_with('*')) {
        return Err(format!("{text:?}: one star is possible, at the start or at the end"));
    }
    Ok(TextPattern::new(text))
}

fn trust_domain(_: &str, text: &str) -> Result<TextPattern, String> {
    if text.contains('/') {
        return Err(format!("{text:?} is not a trust domain: it has a slash"));
    }
    wildcard(text)
}

fn account(own: &str, text: &str) -> Result<ServiceAccountRef, String> {
    let (namespace, account) = text.split_once('/').unwrap_or((own, text));
    if text.contains('*') || account.contains('/') || namespace.is_empty() || account.is_empty() {
        return Err(format!("{text:?} has neither the form account nor namespace/account"));
    }
    if text.len() > ACCOUNT_BYTES_MAX {
        return Err(format!("this is longer than {ACCOUNT_BYTES_MAX} bytes"));
    }
    Ok(ServiceAccountRef { namespace: namespace.to_owned(), account: account.to_owned() })
}

fn ip(_: &str, text: &str) -> Result<Cidr, String> {
    text.parse().map_err(|error| format!("{error}"))
}

fn port(text: &str) -> Result<u16, String> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or_else(|| format!("{text:?} is not a port"))
}

/// Istio: `{*}` and `{**}` are whole segments, `{**}` is the last of them, and what is beside them is
/// literal.
fn path(text: &str) -> Result<PathPattern, String> {
    const ONE: &str = "{*}";
    const ANY: &str = "{**}";
    let is_template = text.contains(ONE) || text.contains(ANY);
    let literal = |b: u8| b.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@=".contains(&b);
    let mut any_seen = false;
    for segment in text.trim_matches('/').split('/') {
        match segment {
            ONE | ANY if any_seen => return Err(format!("{text:?}: {ANY} must be the last")),
            ONE => {}
            ANY => any_seen = true,
            segment if segment.contains(['{', '}']) => {
                return Err(format!("{text:?}: braces are possible only as {ONE} and {ANY}"));
            }
            segment if is_template && (segment.is_empty() || !segment.bytes().all(literal)) => {
                return Err(format!("{text:?}: {segment:?} cannot be in a template"));
            }
            _ => {}
        }
    }
    Ok(if is_template {
        PathPattern::Template(text.to_owned())
    } else {
        PathPattern::Text(TextPattern::new(text))
    })
}

fn condition(fields: &mut Fields<'_, '_>) -> Option<Condition> {
    let key: Option<ConditionKey> = fields.req("key");
    let names = ["values", "notValues"];
    let read = |own: &str, text: &str| match &key {
        Some(key) => value_of(key, own, text),
        None => Ok(ConditionValue::Text(TextPattern::new(text))),
    };
    let values = values(fields, names, read);
    let written = names.map(|name| fields.get(name).is_some_and(|value| value.is_set()));
    if !written.contains(&true) {
        fields.fault_at("values", "one of values and notValues is required");
    }
    Some(Condition { at: fields.at(), key: key?, values })
}

fn value_of(key: &ConditionKey, own: &str, text: &str) -> Result<ConditionValue, String> {
    use ConditionKey::{
        DestinationIp, DestinationPort, RemoteIp, SourceIp, SourceServiceAccount, SourceTrustDomain,
    };
    match key {
        SourceIp | RemoteIp | DestinationIp => ip(own, text).map(ConditionValue::Ip),
        DestinationPort => port(text).map(ConditionValue::Port),
        SourceServiceAccount => account(own, text).map(ConditionValue::ServiceAccount),
        SourceTrustDomain => wildcard(text).map(ConditionValue::Text),
        _ => Ok(ConditionValue::Text(TextPattern::new(text))),
    }
}

impl Read for ConditionKey {
    fn read(value: &Value<'_>) -> Option<Self> {
        checked(value, key)
    }
}

fn key(text: &str) -> Result<ConditionKey, String> {
    Ok(match text {
        "source.ip" => ConditionKey::SourceIp,
        "remote.ip" => ConditionKey::RemoteIp,
        "source.namespace" => ConditionKey::SourceNamespace,
        "source.serviceAccount" => ConditionKey::SourceServiceAccount,
        "source.principal" => ConditionKey::SourcePrincipal,
        "source.trustDomain" => ConditionKey::SourceTrustDomain,
        "request.auth.principal" => ConditionKey::RequestPrincipal,
        "request.auth.audiences" => ConditionKey::RequestAudiences,
        "request.auth.presenter" => ConditionKey::RequestPresenter,
        "destination.ip" => ConditionKey::DestinationIp,
        "destination.port" => ConditionKey::DestinationPort,
        "connection.sni" => ConditionKey::ConnectionSni,
        "destination.namespace" => return Err("the policy's own namespace says this".to_owned()),
        _ => return map_key(text),
    })
}

/// Reads the keys of the form `a[b]`.
fn map_key(text: &str) -> Result<ConditionKey, String> {
    let form = || format!("{text:?} must have the form a[b]");
    if text.starts_with("destination.labels") {
        return Err("the policy's selector says this".to_owned());
    }
    let inner = |prefix: &str| -> Option<Result<&str, String>> {
        let rest = text.strip_prefix(prefix)?;
        let inner = rest.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        Some(inner.filter(|inner| !inner.is_empty()).ok_or_else(form))
    };
    if let Some(name) = inner("request.headers") {
        return name.map(|name| ConditionKey::RequestHeader(name.to_owned()));
    }
    if let Some(path) = inner("request.auth.claims") {
        return path
            .map(|path| ConditionKey::RequestClaim(path.split("][").map(str::to_owned).collect()));
    }
    if text.starts_with("experimental.envoy.filters.") {
        return Err(format!("{text:?}: metadata of other filters cannot be looked at here"));
    }
    Err(format!("{text:?} is not a key that conditions know"))
}
