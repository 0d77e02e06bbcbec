//! Rules as Envoy's RBAC has them: permissions for what is asked, principals for who asks.
//!
//! In:    rules whose clauses are in Istio's order.
//! Out:   one policy for each rule, by its name.
//! Never: widens ALLOW or narrows another action. Where only bytes are seen, a rule of ALLOW that looks
//!        at HTTP is left out, and of a rule of another action only the clause is (Istio's rule).

use envoy_types::pb::envoy::{
    config::{
        core::v3::TypedExtensionConfig,
        rbac::v3::{
            Permission, Policy, Principal, Rbac,
            permission::{self, Rule},
            principal::{self, Authenticated, Identifier},
            rbac::Action,
        },
    },
    extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig,
    r#type::matcher::v3::StringMatcher,
};
use sluis_envoy::pack;
use sluis_resources::{ConditionKey, ConditionValue, TextPattern};

use super::{super::wrap, matchers};
use crate::{Attribute, Clause, RuleInput, Wanted};

/// What the identities of certificates begin with; policies leave it out.
const SPIFFE: &str = "spiffe://";

/// What a filter sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layer {
    /// Requests.
    Http,
    /// Connections.
    Bytes,
}

/// A clause looks at HTTP where only bytes are seen.
struct HttpOnly;

/// All rules of one action.
pub(super) fn rbac(rules: &[RuleInput], action: Action, layer: Layer) -> Rbac {
    let named = |rule: &RuleInput| {
        let policy = match &rule.matches {
            None => never(),
            Some(matches) => Policy {
                permissions: alternatives(&matches.to, action, layer, permission).ok()?,
                principals: alternatives(&matches.from, action, layer, principal).ok()?,
                ..Policy::default()
            },
        };
        Some((rule.id.clone(), policy))
    };
    Rbac {
        action: action.into(),
        policies: rules.iter().filter_map(named).collect(),
        ..Rbac::default()
    }
}

/// A policy that nothing matches.
fn never() -> Policy {
    Policy {
        permissions: vec![Permission::not(Permission::any())],
        principals: vec![Principal::not(Principal::any())],
        ..Policy::default()
    }
}

/// What permissions and principals have in common.
trait Part: Sized {
    fn any() -> Self;
    fn and(all: Vec<Self>) -> Self;
    fn or(all: Vec<Self>) -> Self;
    fn not(one: Self) -> Self;
}

impl Part for Permission {
    fn any() -> Self {
        rule(Rule::Any(true))
    }

    fn and(rules: Vec<Self>) -> Self {
        rule(Rule::AndRules(permission::Set { rules }))
    }

    fn or(rules: Vec<Self>) -> Self {
        rule(Rule::OrRules(permission::Set { rules }))
    }

    fn not(one: Self) -> Self {
        rule(Rule::NotRule(Box::new(one)))
    }
}

impl Part for Principal {
    fn any() -> Self {
        id(Identifier::Any(true))
    }

    fn and(ids: Vec<Self>) -> Self {
        id(Identifier::AndIds(principal::Set { ids }))
    }

    fn or(ids: Vec<Self>) -> Self {
        id(Identifier::OrIds(principal::Set { ids }))
    }

    fn not(one: Self) -> Self {
        id(Identifier::NotId(Box::new(one)))
    }
}

fn rule(rule: Rule) -> Permission {
    Permission { rule: Some(rule) }
}

fn id(identifier: Identifier) -> Principal {
    Principal { identifier: Some(identifier) }
}

/// One part for each alternative: all of its clauses.
fn alternatives<P: Part>(
    all: &[Vec<Clause>],
    action: Action,
    layer: Layer,
    make: fn(&Attribute, &[Wanted], Layer) -> Result<P, HttpOnly>,
) -> Result<Vec<P>, HttpOnly> {
    let one = |clauses: &Vec<Clause>| {
        let mut parts = Vec::new();
        for clause in clauses {
            for (values, is_wanted) in [(&clause.any, true), (&clause.none, false)] {
                if values.is_empty() {
                    continue;
                }
                match make(&clause.attribute, values, layer) {
                    Ok(part) => parts.push(if is_wanted { part } else { P::not(part) }),
                    Err(only) if action == Action::Allow => return Err(only),
                    Err(HttpOnly) => {}
                }
            }
        }
        if parts.is_empty() {
            parts.push(P::any());
        }
        Ok(P::and(parts))
    };
    all.iter().map(one).collect()
}

/// One of the values of what is asked.
fn permission(
    attribute: &Attribute,
    wanted: &[Wanted],
    layer: Layer,
) -> Result<Permission, HttpOnly> {
    let of_http = matches!(attribute, Attribute::Host | Attribute::Method | Attribute::Path);
    if of_http && layer == Layer::Bytes {
        return Err(HttpOnly);
    }
    let one = |wanted: &Wanted| -> Option<Permission> {
        let value = match wanted {
            Wanted::Template(template) => return Some(uri_template(template)),
            Wanted::Value(value) => value,
        };
        Some(rule(match (attribute, value) {
            (Attribute::Host, ConditionValue::Text(pattern)) => {
                Rule::Header(matchers::header(":authority", pattern, true))
            }
            (Attribute::Method, ConditionValue::Text(pattern)) => {
                Rule::Header(matchers::header(":method", pattern, false))
            }
            (Attribute::Path, ConditionValue::Text(pattern)) => {
                Rule::UrlPath(matchers::path(pattern))
            }
            (Attribute::Key(ConditionKey::ConnectionSni), ConditionValue::Text(pattern)) => {
                Rule::RequestedServerName(matchers::text(pattern))
            }
            (Attribute::Key(_), ConditionValue::Ip(range)) => {
                Rule::DestinationIp(wrap::cidr(*range))
            }
            (Attribute::Key(_), ConditionValue::Port(port)) => {
                Rule::DestinationPort(u32::from(*port))
            }
            _ => return None,
        }))
    };
    // A value of another type than its attribute has matches nothing; the reader makes none.
    Ok(Permission::or(wanted.iter().filter_map(one).collect()))
}

/// One of the values of who asks.
fn principal(
    attribute: &Attribute,
    wanted: &[Wanted],
    layer: Layer,
) -> Result<Principal, HttpOnly> {
    use ConditionKey::{
        RequestAudiences, RequestClaim, RequestHeader, RequestPresenter, RequestPrincipal,
    };
    let Attribute::Key(key) = attribute else {
        return Ok(Principal::not(Principal::any()));
    };
    let of_http = matches!(
        key,
        RequestHeader(_) | RequestPrincipal | RequestAudiences | RequestPresenter | RequestClaim(_)
    );
    if of_http && layer == Layer::Bytes {
        return Err(HttpOnly);
    }
    let listed = |names: &[String]| {
        let texts: Vec<StringMatcher> = texts(wanted).map(matchers::text).collect();
        id(metadata(matchers::listed_claim(names, &texts)))
    };
    Ok(match key {
        RequestAudiences => listed(&["aud".to_owned()]),
        RequestPresenter => listed(&["azp".to_owned()]),
        RequestClaim(names) => listed(names),
        RequestPrincipal => {
            let mut all: Vec<Principal> = texts(wanted).map(request_principal).collect();
            if all.len() == 1 { all.remove(0) } else { Principal::or(all) }
        }
        _ => Principal::or(wanted.iter().filter_map(|one| identity(key, one)).collect()),
    })
}

fn texts(wanted: &[Wanted]) -> impl Iterator<Item = &TextPattern> {
    wanted.iter().filter_map(|wanted| match wanted {
        Wanted::Value(ConditionValue::Text(pattern)) => Some(pattern),
        _ => None,
    })
}

/// What the connection or a header says of who asks.
fn identity(key: &ConditionKey, wanted: &Wanted) -> Option<Principal> {
    let Wanted::Value(value) = wanted else { return None };
    let name = match (key, value) {
        (ConditionKey::RequestHeader(name), ConditionValue::Text(pattern)) => {
            return Some(id(Identifier::Header(matchers::header(name, pattern, false))));
        }
        (ConditionKey::RemoteIp, ConditionValue::Ip(range)) => {
            return Some(id(Identifier::RemoteIp(wrap::cidr(*range))));
        }
        (_, ConditionValue::Ip(range)) => {
            return Some(id(Identifier::DirectRemoteIp(wrap::cidr(*range))));
        }
        (ConditionKey::SourcePrincipal, ConditionValue::Text(pattern)) => {
            matchers::after(SPIFFE, pattern)
        }
        (ConditionKey::SourceNamespace, ConditionValue::Text(pattern)) => {
            matchers::regex(format!(".*/ns/{}/.*", starred(pattern, ".*")))
        }
        (ConditionKey::SourceTrustDomain, ConditionValue::Text(pattern)) => match pattern {
            TextPattern::Present => matchers::prefix(SPIFFE),
            TextPattern::Exact(domain) => matchers::prefix(format!("{SPIFFE}{domain}/")),
            pattern => matchers::regex(format!("{SPIFFE}{}/.*", starred(pattern, "[^/]*"))),
        },
        (_, ConditionValue::ServiceAccount(account)) => {
            let (namespace, name) =
                (matchers::quoted(&account.namespace), matchers::quoted(&account.account));
            matchers::regex(format!("{SPIFFE}.+/ns/{namespace}/(.+/|)sa/{name}(/.+)?"))
        }
        _ => return None,
    };
    Some(id(Identifier::Authenticated(Authenticated { principal_name: Some(name) })))
}

/// A pattern as an RE2 expression, in which a star is `any`.
fn starred(pattern: &TextPattern, any: &str) -> String {
    let text = crate::select::written(pattern);
    text.split('*').map(matchers::quoted).collect::<Vec<_>>().join(any)
}

/// `ISSUER/SUBJECT`, parted at the last slash, as Istio reads it.
fn request_principal(pattern: &TextPattern) -> Principal {
    let text = crate::select::written(pattern);
    let parts = text.rsplit_once('/');
    let starless = |text: &str| text.trim_start_matches('*').to_owned();
    let (issuer, subject) = match (pattern, parts) {
        (TextPattern::Present, _) => (matchers::anything(), matchers::anything()),
        (TextPattern::Suffix(_), Some(("*", subject))) => {
            (matchers::anything(), matchers::exact(subject))
        }
        (TextPattern::Suffix(_), Some((issuer, subject))) => {
            (matchers::suffix(starless(issuer)), matchers::exact(subject))
        }
        (TextPattern::Suffix(end), None) => (matchers::anything(), matchers::suffix(end)),
        (TextPattern::Prefix(_), Some((issuer, "*"))) => {
            (matchers::exact(issuer), matchers::anything())
        }
        (TextPattern::Prefix(_), Some((issuer, subject))) => {
            (matchers::exact(issuer), matchers::prefix(subject.trim_end_matches('*')))
        }
        (TextPattern::Prefix(start), None) => (matchers::prefix(start), matchers::anything()),
        (TextPattern::Exact(_), Some((issuer, subject))) => {
            (matchers::exact(issuer), matchers::exact(subject))
        }
        (TextPattern::Exact(text), None) => (matchers::exact(text), matchers::exact("")),
    };
    Principal::and(vec![
        id(metadata(matchers::claim("iss", issuer))),
        id(metadata(matchers::claim("sub", subject))),
    ])
}

#[expect(deprecated, reason = "Istio uses this field, and not the newer one with a source")]
fn metadata(wanted: envoy_types::pb::envoy::r#type::matcher::v3::MetadataMatcher) -> Identifier {
    Identifier::Metadata(wanted)
}

fn uri_template(template: &str) -> Permission {
    let path_template = template.replace("{**}", "**").replace("{*}", "*");
    rule(Rule::UriTemplate(TypedExtensionConfig {
        name: "uri-template".to_owned(),
        typed_config: Some(pack(&UriTemplateMatchConfig { path_template })),
    }))
}
