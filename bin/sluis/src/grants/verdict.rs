//! Whether a credential would be added to a request: by which grant, or why by none.
//!
//! In:    a request that somebody could send, as far as it is known.
//! Out:   [`Verdict`].
//! Never: takes for granted what it was not told: an attribute that is unknown does not match.

use serde::{Deserialize, Serialize};
use sluis_model::{Owned, Snapshot};
use sluis_nouns::ObjectName;
use sluis_resources::{
    Condition, ConditionKey, ConditionValue, CredentialGrant, Injection, Operation, PathPattern,
    Source, TextPattern, Values,
};

use super::{named, shown_condition, shown_operation, shown_source};

/// What is asked: the request, and who sends it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Asked {
    /// The client: `DOMAIN/ns/NAMESPACE/sa/ACCOUNT`, perhaps with `spiffe://`; empty for none.
    #[serde(default)]
    pub principal: String,
    /// The user: `ISSUER/SUBJECT`; empty for none.
    #[serde(default)]
    pub user: String,
    /// Claims of the user's token, `name=value` by lines.
    #[serde(default)]
    pub claims: String,
    /// The method.
    pub method: String,
    /// The URL, `https://host[:port]/path?query`.
    pub url: String,
}

/// What a request would get.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Verdict {
    /// Whether the credential is added.
    pub is_granted: bool,
    /// By which grant: its name and place.
    pub grant: Option<String>,
    /// Of each grant that does not cover the request, or of the guard, why.
    pub reasons: Vec<String>,
    /// What is signed or set, line by line; values of secrets by their names.
    pub shows: Vec<String>,
}

/// A URL in parts.
struct Target {
    host: String,
    port: u16,
    path: String,
    query: Option<String>,
}

/// Says what a request would get.
///
/// # Errors
///
/// When there is no such credential, or the URL is none.
pub(crate) fn test(
    snapshot: &Snapshot,
    name: &ObjectName,
    asked: &Asked,
) -> Result<Verdict, String> {
    let credential =
        named(snapshot, name).ok_or_else(|| format!("there is no Credential {name}"))?;
    let (scheme, target) = target(&asked.url)?;
    let spec = credential.spec();
    let mut reasons = Vec::new();
    if scheme != "https" {
        reasons.push("guard: it never goes over plain text".to_owned());
    }
    if !spec.guard.hosts.iter().any(|host| host.matches(&target.host)) {
        let hosts: Vec<String> = spec.guard.hosts.iter().map(ToString::to_string).collect();
        reasons.push(format!("guard: {} is none of {}", target.host, hosts.join(", ")));
    }
    let is_guarded = reasons.is_empty();
    let mut granted = None;
    for grant in snapshot.grants_of(credential) {
        let place = format!("{} ({})", grant.meta().name, grant.meta().at);
        match covers(grant, asked, &target) {
            Ok(()) if grant.spec().dry_run => {
                reasons.push(format!("grant {place}: would cover it, and is a dry run"));
            }
            Ok(()) => {
                granted = Some(place);
                break;
            }
            Err(why) => reasons.push(format!("grant {place}: {why}")),
        }
    }
    if granted.is_none() && snapshot.grants_of(credential).next().is_none() {
        reasons.push("no grant names it".to_owned());
    }
    let is_granted = is_guarded && granted.is_some();
    Ok(Verdict {
        is_granted,
        grant: granted,
        reasons,
        shows: if is_granted { shows(&spec.injection, asked, &target) } else { Vec::new() },
    })
}

fn target(url: &str) -> Result<(String, Target), String> {
    let (scheme, rest) = url
        .split_once("://")
        .ok_or_else(|| format!("{url:?} is not a URL: write https://host/path"))?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let authority = authority.rsplit('@').next().unwrap_or_default();
    let default = if scheme == "https" { 443 } else { 80 };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => {
            (host, port.parse().map_err(|_| format!("{port:?} is not a port"))?)
        }
        _ => (authority, default),
    };
    let path = path.split('#').next().unwrap_or_default();
    let (path, query) = match path.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (path, None),
    };
    let path = if path.is_empty() { "/" } else { path }.to_owned();
    if host.is_empty() {
        return Err(format!("{url:?} names no host"));
    }
    Ok((scheme.to_owned(), Target { host: host.to_ascii_lowercase(), port, path, query }))
}

/// Whether a grant covers a request; why not.
fn covers(grant: &Owned<CredentialGrant>, asked: &Asked, target: &Target) -> Result<(), String> {
    let spec = grant.spec();
    if !spec.from.is_empty() && !spec.from.iter().any(|source| is_from(source, asked)) {
        let all: Vec<String> = spec.from.iter().map(shown_source).collect();
        let who = if asked.principal.is_empty() { "nobody" } else { &asked.principal };
        return Err(format!("{who} is not from {}", all.join(" or ")));
    }
    if !spec.to.is_empty() && !spec.to.iter().any(|one| is_to(one, asked, target)) {
        let all: Vec<String> = spec.to.iter().map(shown_operation).collect();
        return Err(format!("the request is not to {}", all.join(" or ")));
    }
    match spec.when.iter().find(|condition| !holds(condition, asked, target)) {
        Some(condition) => {
            Err(format!("not so, as far as is told: {}", shown_condition(condition)))
        }
        None => Ok(()),
    }
}

/// Domain, namespace and account of the client.
fn identity(asked: &Asked) -> Option<[&str; 3]> {
    let text = asked.principal.strip_prefix("spiffe://").unwrap_or(&asked.principal);
    let mut parts = text.split('/');
    let (domain, ns, namespace, sa, account) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    (ns == "ns" && sa == "sa" && parts.next().is_none()).then_some([domain, namespace, account])
}

/// What `values` say of a text that may be unknown.
fn any_of<T>(values: &Values<T>, is: impl Fn(&T) -> bool) -> bool {
    (values.any.is_empty() || values.any.iter().any(&is)) && !values.none.iter().any(is)
}

/// The same, of something that is not known: it must not be asked for.
fn texts(values: &Values<TextPattern>, known: Option<&str>) -> bool {
    match known {
        Some(text) => any_of(values, |pattern| is(pattern, text)),
        None => values.is_empty(),
    }
}

fn is(pattern: &TextPattern, text: &str) -> bool {
    match pattern {
        TextPattern::Exact(whole) => whole == text,
        TextPattern::Prefix(start) => text.starts_with(start.as_str()),
        TextPattern::Suffix(end) => text.ends_with(end.as_str()),
        TextPattern::Present => !text.is_empty(),
    }
}

fn given(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

fn is_from(source: &Source, asked: &Asked) -> bool {
    let id = identity(asked);
    let principal = asked.principal.strip_prefix("spiffe://").unwrap_or(&asked.principal);
    let accounts = &source.service_accounts;
    texts(&source.principals, given(principal))
        && texts(&source.namespaces, id.map(|[_, namespace, _]| namespace))
        && texts(&source.trust_domains, id.map(|[domain, _, _]| domain))
        && match id {
            Some([_, namespace, account]) => {
                any_of(accounts, |one| one.namespace == namespace && one.account == account)
            }
            None => accounts.is_empty(),
        }
        && texts(&source.request_principals, given(&asked.user))
        && source.ip_blocks.is_empty()
        && source.remote_ip_blocks.is_empty()
}

fn is_to(operation: &Operation, asked: &Asked, target: &Target) -> bool {
    let host = |pattern: &TextPattern| {
        let lower = TextPattern::new(&super::text(pattern).to_ascii_lowercase());
        is(&lower, &target.host) || is(&lower, &format!("{}:{}", target.host, target.port))
    };
    any_of(&operation.methods, |pattern| is(pattern, &asked.method))
        && any_of(&operation.hosts, host)
        && any_of(&operation.ports, |port| *port == target.port)
        && any_of(&operation.paths, |path| match path {
            PathPattern::Text(pattern) => is(pattern, &target.path),
            PathPattern::Template(template) => fits(template, &target.path),
        })
}

/// Whether a path fits a template: `{*}` is one segment, `{**}` any number of them.
fn fits(template: &str, path: &str) -> bool {
    let mut segments = path.split('/');
    for wanted in template.split('/') {
        match (wanted, segments.next()) {
            ("{**}", _) => return true,
            ("{*}", Some(segment)) if !segment.is_empty() => {}
            (literal, Some(segment)) if literal == segment => {}
            _ => return false,
        }
    }
    segments.next().is_none()
}

fn holds(condition: &Condition, asked: &Asked, target: &Target) -> bool {
    let id = identity(asked);
    let claims = |name: &str| -> Vec<&str> {
        let lines = asked.claims.lines().filter_map(|line| line.split_once('='));
        lines.filter(|(key, _)| *key == name).map(|(_, value)| value).collect()
    };
    let user = given(&asked.user);
    let known: Vec<&str> = match &condition.key {
        ConditionKey::SourcePrincipal => {
            given(asked.principal.trim_start_matches("spiffe://")).into_iter().collect()
        }
        ConditionKey::SourceNamespace => id.iter().map(|id| id[1]).collect(),
        ConditionKey::SourceTrustDomain => id.iter().map(|id| id[0]).collect(),
        ConditionKey::SourceServiceAccount => {
            let Some([_, namespace, account]) = id else { return false };
            return any_of(&condition.values, |value| {
                matches!(value, ConditionValue::ServiceAccount(one)
                    if one.namespace == namespace && one.account == account)
            });
        }
        ConditionKey::RequestPrincipal => user.into_iter().collect(),
        ConditionKey::RequestAudiences => claims("aud"),
        ConditionKey::RequestPresenter => claims("azp"),
        ConditionKey::RequestClaim(path) => claims(&path.join(".")),
        ConditionKey::DestinationPort => {
            return any_of(&condition.values, |value| *value == ConditionValue::Port(target.port));
        }
        // Nothing is told of these.
        ConditionKey::RequestHeader(_)
        | ConditionKey::SourceIp
        | ConditionKey::RemoteIp
        | ConditionKey::DestinationIp
        | ConditionKey::ConnectionSni => return false,
    };
    let one = |text: &&str, value: &ConditionValue| matches!(value, ConditionValue::Text(pattern) if is(pattern, text));
    any_of(&condition.values, |value| known.iter().any(|text| one(text, value)))
}

/// What is signed or set, with names in the place of secrets.
fn shows(injection: &Injection, asked: &Asked, target: &Target) -> Vec<String> {
    let secret = |entry: &str| format!("<{entry}>");
    match injection {
        Injection::Header(one) => vec![format!("{}: {}{}", one.name, one.prefix, secret(&one.key))],
        Injection::Basic(one) => {
            let pair = format!("{}:{}", secret(&one.username_key), secret(&one.password_key));
            vec![format!("{}: Basic base64({pair})", one.header)]
        }
        Injection::Query(one) => vec![format!("query: {}={}", one.name, secret(&one.key))],
        Injection::Cookie(one) => vec![format!("cookie: {}={}", one.name, secret(&one.key))],
        Injection::Hmac(one) => {
            let signed = expanded(&one.string_to_sign, asked, target);
            let mut lines = vec!["string to sign:".to_owned()];
            lines.extend(signed.split('\n').map(|line| format!("  {line}")));
            for output in &one.outputs {
                let value = expanded(&output.template, asked, target);
                lines.push(format!("{}: {value}", output.header));
            }
            lines
        }
        Injection::MessageSignature(one) => {
            vec![format!("signature over: {}", one.components.join(" "))]
        }
        Injection::AwsSigV4(one) => {
            vec![format!("AWS4-HMAC-SHA256 for {}/{}", one.region, one.service)]
        }
        Injection::Oauth2(one) => {
            vec![format!("{}: {}<token from {}>", one.header, one.prefix, one.token_url)]
        }
        Injection::JwtSign(one) => {
            vec![format!("{}: {}<{} token>", one.header, one.prefix, one.algorithm.as_str())]
        }
        Injection::ClientCertificate(one) => {
            vec![format!("TLS: the certificate {}", secret(&one.certificate_key))]
        }
    }
}

/// A template with what is known of a request, and names for the rest.
fn expanded(template: &str, asked: &Asked, target: &Target) -> String {
    let mut text = String::new();
    let mut rest = template;
    while let Some(at) = rest.find('{') {
        text.push_str(&rest[..at]);
        let Some((inner, after)) = rest[at + 1..].split_once('}') else { break };
        let name = inner.split(':').next().unwrap_or_default();
        let query = target.query.clone().unwrap_or_default();
        text.push_str(&match name {
            "method" => asked.method.clone(),
            "host" => target.host.clone(),
            "authority" if target.port == 443 => target.host.clone(),
            "authority" => format!("{}:{}", target.host, target.port),
            "path" => target.path.clone(),
            "query" => query,
            "path_and_query" if target.query.is_none() => target.path.clone(),
            "path_and_query" => format!("{}?{query}", target.path),
            "scheme" => "https".to_owned(),
            other => format!("<{}>", other.trim_start_matches("secret.")),
        });
        rest = after;
    }
    text + rest
}
