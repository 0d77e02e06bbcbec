//! The filters that hold a proxy to its authorization policies, as Istio makes them.
//!
//! In:    [`AuthorizationInput`].
//! Out:   RBAC and ext_authz filters: CUSTOM before the token is read; AUDIT, DENY, ALLOW after it.
//! Never: a filter that lets through what a policy could not say: see `rules` for attributes of HTTP
//!        where only bytes are seen.
//!
//! A route that leads to a guarded external host has policies of its own: the filters named
//! [`GUARDS`] do nothing until a route says so.

mod ext_authz;
mod matchers;
mod rules;

use envoy_types::pb::{
    envoy::{
        config::{
            listener::v3::Filter,
            rbac::v3::{Policy, Rbac, rbac::Action},
        },
        extensions::filters::{
            http::rbac::v3::{Rbac as HttpRbac, RbacPerRoute},
            network::{http_connection_manager::v3::HttpFilter, rbac::v3::Rbac as NetworkRbac},
        },
    },
    google::protobuf::Any,
};
use sluis_envoy::pack;

pub(super) use self::matchers::{anything, listed_claim};
use self::rules::Layer;
use super::filter::{http_filter, network_filter};
use crate::{AuthorizationInput, CustomInput, PolicySet, RuleInput, RuleMatch};

pub(super) const HTTP_RBAC: &str = "envoy.filters.http.rbac";
pub(super) const NETWORK_RBAC: &str = "envoy.filters.network.rbac";

/// The filters that enforce the policies of the host that a route leads to: audit, deny, allow.
const GUARDS: [&str; 3] = ["sluis.guard.audit", "sluis.guard.deny", "sluis.guard.allow"];

/// Istio's prefixes of what shadow rules tell, by action.
const DRY_RUN_ALLOW: &str = "istio_dry_run_allow_";
const DRY_RUN_DENY: &str = "istio_dry_run_deny_";

/// Istio's prefix of what the rules of CUSTOM policies tell ext_authz.
const EXT_AUTHZ: &str = "istio_ext_authz_";

/// What Istio puts behind the names of rules whose provider cannot be asked.
const BAD_CUSTOM: &str = "-deny-due-to-bad-CUSTOM-action";

/// Istio's prefix of the statistics of network filters.
const TCP: &str = "tcp.";

/// The rules of one action, as Envoy's filters take them.
struct Rules {
    enforced: Option<Rbac>,
    shadow: Option<Rbac>,
    prefix: &'static str,
}

impl Rules {
    fn of(set: &PolicySet, action: Action, layer: Layer) -> Option<Self> {
        if set.enforced.is_none() && set.dry_run.is_none() {
            return None;
        }
        let rbac = |rules: &Vec<RuleInput>| rules::rbac(rules, action, layer);
        let shadow = set.dry_run.as_ref().map(rbac);
        // Without shadow rules Istio writes the prefix for ALLOW, its enumeration's zero.
        let prefix = match (&shadow, action) {
            (None, _) | (Some(_), Action::Allow) => DRY_RUN_ALLOW,
            (Some(_), Action::Deny) => DRY_RUN_DENY,
            (Some(_), Action::Log) => "",
        };
        Some(Self { enforced: set.enforced.as_ref().map(rbac), shadow, prefix })
    }

    fn http(self) -> HttpRbac {
        HttpRbac {
            rules: self.enforced,
            shadow_rules: self.shadow,
            shadow_rules_stat_prefix: self.prefix.to_owned(),
            ..HttpRbac::default()
        }
    }

    fn network(self) -> NetworkRbac {
        NetworkRbac {
            rules: self.enforced,
            shadow_rules: self.shadow,
            shadow_rules_stat_prefix: self.prefix.to_owned(),
            stat_prefix: TCP.to_owned(),
            ..NetworkRbac::default()
        }
    }
}

/// The policies that a filter enforces, in the order of asking.
fn local(input: &AuthorizationInput) -> [(&PolicySet, Action); 3] {
    [(&input.audit, Action::Log), (&input.deny, Action::Deny), (&input.allow, Action::Allow)]
}

/// The filters of CUSTOM policies: before tokens are read.
pub(super) fn custom_http(input: &AuthorizationInput) -> Vec<HttpFilter> {
    let mut filters = Vec::new();
    for custom in &input.custom {
        match &custom.backend {
            None => {
                let rbac =
                    HttpRbac { rules: Some(refusing(custom, Layer::Http)), ..HttpRbac::default() };
                filters.push(http_filter(HTTP_RBAC, &rbac));
            }
            Some(backend) => {
                let rbac = HttpRbac {
                    shadow_rules: Some(asking(custom, Layer::Http)),
                    shadow_rules_stat_prefix: EXT_AUTHZ.to_owned(),
                    ..HttpRbac::default()
                };
                let filter = ext_authz::http(&custom.provider, backend);
                filters.push(http_filter(HTTP_RBAC, &rbac));
                filters.push(http_filter(ext_authz::HTTP, &filter));
            }
        }
    }
    filters
}

/// The filters of AUDIT, DENY and ALLOW policies: after tokens are read.
pub(super) fn http(input: &AuthorizationInput) -> Vec<HttpFilter> {
    let rules = |(set, action)| Rules::of(set, action, Layer::Http);
    let all = local(input).into_iter().filter_map(rules);
    all.map(|rules| http_filter(HTTP_RBAC, &rules.http())).collect()
}

/// The filters of all policies for a chain that forwards bytes.
pub(super) fn network(input: &AuthorizationInput) -> Vec<Filter> {
    let mut filters = Vec::new();
    for custom in &input.custom {
        let rules = || NetworkRbac { stat_prefix: TCP.to_owned(), ..NetworkRbac::default() };
        match &custom.backend {
            None => {
                let refusing = Some(refusing(custom, Layer::Bytes));
                let rbac = NetworkRbac { rules: refusing, ..rules() };
                filters.push(network_filter(NETWORK_RBAC, &rbac));
            }
            // As in Istio: a provider that is asked over HTTP is not asked about bytes.
            Some(backend) if backend.is_http => {}
            Some(backend) => {
                let rbac = NetworkRbac {
                    shadow_rules: Some(asking(custom, Layer::Bytes)),
                    shadow_rules_stat_prefix: EXT_AUTHZ.to_owned(),
                    ..rules()
                };
                let filter = ext_authz::network(&custom.provider, backend);
                filters.push(network_filter(NETWORK_RBAC, &rbac));
                filters.push(network_filter(ext_authz::NETWORK, &filter));
            }
        }
    }
    let rules = |(set, action)| Rules::of(set, action, Layer::Bytes);
    let all = local(input).into_iter().filter_map(rules);
    filters.extend(all.map(|rules| network_filter(NETWORK_RBAC, &rules.network())));
    filters
}

/// The filters that wait for what a route says of its host.
pub(super) fn guards() -> impl Iterator<Item = HttpFilter> {
    GUARDS.into_iter().map(|name| http_filter(name, &HttpRbac::default()))
}

/// What a route to a guarded host says to those filters.
pub(super) fn per_route(input: &AuthorizationInput) -> impl Iterator<Item = (String, Any)> {
    GUARDS.into_iter().zip(local(input)).filter_map(|(name, (set, action))| {
        let rbac = Rules::of(set, action, Layer::Http)?.http();
        Some((name.to_owned(), pack(&RbacPerRoute { rbac: Some(rbac) })))
    })
}

/// What a rule matches, as one policy of RBAC.
pub(super) fn policy(matches: &RuleMatch) -> Policy {
    let rule = RuleInput { id: String::new(), matches: Some(matches.clone()) };
    let made = rules::rbac(&[rule], Action::Allow, Layer::Http).policies.remove("");
    made.expect("requests show everything that a rule looks at")
}

/// The rules whose match asks the provider.
fn asking(custom: &CustomInput, layer: Layer) -> Rbac {
    rules::rbac(&custom.rules, Action::Deny, layer)
}

/// The same, for a provider that cannot be asked.
fn refusing(custom: &CustomInput, layer: Layer) -> Rbac {
    let rbac = asking(custom, layer);
    let named = rbac.policies.into_iter().map(|(name, policy)| (name + BAD_CUSTOM, policy));
    Rbac { policies: named.collect(), ..rbac }
}
