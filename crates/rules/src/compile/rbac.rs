//! Role-based access control: policies, and the filters that carry them out.
//!
//! In:    Envoy's RBAC messages.
//! Out:   [`Rbac`] with its index, in the forms of the HTTP and the network filter.
//! Never: leaves out a condition that it does not understand: the resource is rejected.

#![expect(deprecated, reason = "control planes still write metadata and source_ip so")]

use std::sync::Arc;

use envoy_types::pb::{
    envoy::{
        config::{
            core::v3::{CidrRange, TypedExtensionConfig},
            rbac::v3::{
                MetadataSource, Permission, Policy as PbPolicy, Principal, Rbac as PbRules,
                SourcedMetadata, permission::Rule, principal::Identifier, rbac::Action,
            },
        },
        extensions::{
            filters::{
                http::rbac::v3::{Rbac as HttpRbac, RbacPerRoute},
                network::rbac::v3::Rbac as PbNetwork,
            },
            path::r#match::uri_template::v3::UriTemplateMatchConfig,
        },
        r#type::matcher::v3::{
            PathMatcher, StringMatcher as PbMatcher, path_matcher,
            string_matcher::MatchPattern as TextPattern,
        },
    },
    google::protobuf::Any,
};

use super::{
    at::{At, fields, message_of},
    messages, metadata,
    routes::matches,
};
use crate::{
    Case, NetworkRbac, Rbac, RbacAction, RbacFilter, StringMatcher, Text,
    rbac::{Condition, Policy, template_pattern},
};

/// How deep conditions may be nested: Istio needs 6.
const DEPTH_MAX: usize = 48;

/// One past the last port.
const PORTS_END: u32 = 65_536;

pub(super) fn http_filter(at: &At<'_>, any: &Any) -> Option<RbacFilter> {
    filter(at, &at.unpack::<HttpRbac>(any)?)
}

/// A route's own policies; without any the filter lets its requests pass.
pub(super) fn per_route(at: &At<'_>, any: &Any) -> Option<RbacFilter> {
    let own = at.unpack::<RbacPerRoute>(any)?;
    match &own.rbac {
        Some(own) => filter(&at.field("rbac"), own),
        None => Some(RbacFilter::default()),
    }
}

fn filter(at: &At<'_>, filter: &HttpRbac) -> Option<RbacFilter> {
    fields!(at, filter => HttpRbac {
        use {
            rules, rules_stat_prefix, shadow_rules, shadow_rules_stat_prefix, track_per_rule_stats,
        }
        accept {}
        refuse { matcher, shadow_matcher }
    });
    let set = |field: &str, rules: &Option<PbRules>| match rules {
        Some(rules) => Some(Some(Arc::new(rbac(&at.field(field), rules)?))),
        None => Some(None),
    };
    Some(RbacFilter {
        rules: set("rules", rules)?,
        shadow: set("shadow_rules", shadow_rules)?,
        prefix: rules_stat_prefix.as_str().into(),
        shadow_prefix: shadow_rules_stat_prefix.as_str().into(),
        counts_policies: *track_per_rule_stats,
    })
}

pub(super) fn network_filter(at: &At<'_>, any: &Any) -> Option<NetworkRbac> {
    let filter = at.unpack::<PbNetwork>(any)?;
    fields!(at, &filter => PbNetwork {
        use { rules, shadow_rules, shadow_rules_stat_prefix, stat_prefix, delay_deny }
        // What is known of a connection does not change: the first answer is that of every byte.
        accept { enforcement_type }
        refuse { matcher, shadow_matcher }
    });
    if stat_prefix.is_empty() {
        at.field("stat_prefix").fault("is missing");
    }
    let set = |field: &str, rules: &Option<PbRules>| match rules {
        Some(rules) => {
            let compiled = rbac(&at.field(field), rules)?;
            // Envoy's own rule.
            if compiled.asks_for_headers() {
                at.field(field).fault("asks for a header, which a connection does not have");
            }
            Some(Some(Arc::new(compiled)))
        }
        None => Some(None),
    };
    Some(NetworkRbac {
        filter: RbacFilter {
            rules: set("rules", rules)?,
            shadow: set("shadow_rules", shadow_rules)?,
            shadow_prefix: shadow_rules_stat_prefix.as_str().into(),
            ..RbacFilter::default()
        },
        stat_prefix: stat_prefix.as_str().into(),
        delay: messages::limit(&at.field("delay_deny"), delay_deny.as_ref(), None),
    })
}

fn rbac(at: &At<'_>, rules: &PbRules) -> Option<Rbac> {
    fields!(at, rules => PbRules {
        use { action, policies, audit_logging_options }
        accept {}
        refuse {}
    });
    if let Some(audit) = audit_logging_options {
        for (index, logger) in audit.logger_configs.iter().enumerate() {
            if !logger.is_optional {
                at.field("audit_logging_options").field("logger_configs").nth(index).unsupported();
            }
        }
    }
    let action = match Action::try_from(*action) {
        Ok(Action::Allow) => RbacAction::Allow,
        Ok(Action::Deny) => RbacAction::Deny,
        Ok(Action::Log) => RbacAction::Log,
        Err(_) => {
            at.field("action").unsupported();
            return None;
        }
    };
    let at = at.field("policies");
    let policies: Option<Vec<Policy>> = policies
        .iter()
        .map(|(name, message)| {
            Some(Policy { name: name.as_str().into(), when: policy(&at.key(name), message)? })
        })
        .collect();
    Some(Rbac::new(action, policies?))
}

pub(super) fn policy(at: &At<'_>, policy: &PbPolicy) -> Option<Condition> {
    fields!(at, policy => PbPolicy {
        use { permissions, principals }
        accept { cel_config }
        refuse { condition, checked_condition }
    });
    let permissions = some_of(&at.field("permissions"), permissions, 0, permission);
    let principals = some_of(&at.field("principals"), principals, 0, principal);
    Some(Condition::All(vec![Condition::Any(permissions?), Condition::Any(principals?)]))
}

/// A list that must not be empty.
fn some_of<M>(
    at: &At<'_>,
    list: &[M],
    depth: usize,
    one: fn(&At<'_>, &M, usize) -> Option<Condition>,
) -> Option<Vec<Condition>> {
    if list.is_empty() {
        at.fault("is empty");
        return None;
    }
    list.iter().enumerate().map(|(index, each)| one(&at.nth(index), each, depth + 1)).collect()
}

fn permission(at: &At<'_>, permission: &Permission, depth: usize) -> Option<Condition> {
    if too_deep(at, depth) {
        return None;
    }
    let Some(rule) = &permission.rule else {
        at.fault("says nothing to match");
        return None;
    };
    let all = |at: &At<'_>, set: &[Permission]| some_of(at, set, depth, self::permission);
    Some(match rule {
        Rule::AndRules(set) => Condition::All(all(&at.field("and_rules"), &set.rules)?),
        Rule::OrRules(set) => Condition::Any(all(&at.field("or_rules"), &set.rules)?),
        Rule::NotRule(inner) => not(self::permission(&at.field("not_rule"), inner, depth + 1)?),
        Rule::Any(any) => always(at, *any)?,
        Rule::Header(header) => Condition::Header(matches::header(&at.field("header"), header)?),
        Rule::UrlPath(path) => url_path(&at.field("url_path"), path)?,
        Rule::UriTemplate(template) => uri_template(&at.field("uri_template"), template)?,
        Rule::DestinationIp(range) => {
            Condition::Destination(cidr(&at.field("destination_ip"), range)?)
        }
        Rule::DestinationPort(port) if *port < PORTS_END => Condition::Port(*port, port + 1),
        Rule::DestinationPort(_) => {
            at.field("destination_port").fault("is not a port number");
            return None;
        }
        Rule::DestinationPortRange(range) => {
            let end = |port: i32| u32::try_from(port).ok().filter(|port| *port <= PORTS_END);
            match (end(range.start), end(range.end)) {
                (Some(start), Some(end)) if start < end => Condition::Port(start, end),
                _ => {
                    at.field("destination_port_range").fault("is not a range of ports");
                    return None;
                }
            }
        }
        Rule::RequestedServerName(matcher) => {
            Condition::ServerName(text(&at.field("requested_server_name"), matcher)?)
        }
        Rule::Metadata(matcher) => {
            Condition::Metadata(metadata::matcher(&at.field("metadata"), matcher)?)
        }
        Rule::SourcedMetadata(matcher) => sourced(&at.field("sourced_metadata"), matcher)?,
        Rule::Matcher(_) => {
            at.field("matcher").unsupported();
            return None;
        }
    })
}

fn principal(at: &At<'_>, principal: &Principal, depth: usize) -> Option<Condition> {
    if too_deep(at, depth) {
        return None;
    }
    let Some(identifier) = &principal.identifier else {
        at.fault("says nothing to match");
        return None;
    };
    let all = |at: &At<'_>, set: &[Principal]| some_of(at, set, depth, self::principal);
    let range = |field: &str, range: &CidrRange| cidr(&at.field(field), range);
    Some(match identifier {
        Identifier::AndIds(set) => Condition::All(all(&at.field("and_ids"), &set.ids)?),
        Identifier::OrIds(set) => Condition::Any(all(&at.field("or_ids"), &set.ids)?),
        Identifier::NotId(inner) => not(self::principal(&at.field("not_id"), inner, depth + 1)?),
        Identifier::Any(any) => always(at, *any)?,
        Identifier::Authenticated(authenticated) => {
            let at = at.field("authenticated");
            let at = at.field("principal_name");
            Condition::Authenticated(match &authenticated.principal_name {
                Some(matcher) => Some(name(&at, matcher)?),
                None => None,
            })
        }
        Identifier::SourceIp(ip) => Condition::Source(range("source_ip", ip)?),
        Identifier::DirectRemoteIp(ip) => Condition::DirectRemote(range("direct_remote_ip", ip)?),
        Identifier::RemoteIp(ip) => Condition::Remote(range("remote_ip", ip)?),
        Identifier::Header(header) => {
            Condition::Header(matches::header(&at.field("header"), header)?)
        }
        Identifier::UrlPath(path) => url_path(&at.field("url_path"), path)?,
        Identifier::Metadata(matcher) => {
            Condition::Metadata(metadata::matcher(&at.field("metadata"), matcher)?)
        }
        Identifier::SourcedMetadata(matcher) => sourced(&at.field("sourced_metadata"), matcher)?,
        // Who came is told by the connection; nothing here writes filter state.
        Identifier::FilterState(_) => {
            at.field("filter_state").unsupported();
            return None;
        }
        Identifier::Custom(custom) => {
            at.field("custom").fault(format!("{:?} is not supported", custom.name));
            return None;
        }
    })
}

fn not(inner: Condition) -> Condition {
    Condition::Not(Box::new(inner))
}

fn too_deep(at: &At<'_>, depth: usize) -> bool {
    if depth > DEPTH_MAX {
        at.fault(format!("is nested deeper than {DEPTH_MAX}"));
    }
    depth > DEPTH_MAX
}

/// Envoy's own rule: `any` must be true.
fn always(at: &At<'_>, any: bool) -> Option<Condition> {
    if !any {
        at.field("any").fault("must be true");
    }
    any.then_some(Condition::Always)
}

fn cidr(at: &At<'_>, range: &CidrRange) -> Option<crate::Cidr> {
    messages::cidrs(at, std::slice::from_ref(range)).pop()
}

/// A comparison that may be with the start or the end of nothing, as Istio writes `prefix: ""`.
fn text(at: &At<'_>, matcher: &PbMatcher) -> Option<StringMatcher> {
    messages::string_matcher(at, Some(matcher))
}

/// A comparison with a client's name. Expressions that only look for a part need no machine.
fn name(at: &At<'_>, matcher: &PbMatcher) -> Option<StringMatcher> {
    if let Some(TextPattern::SafeRegex(regex)) = &matcher.match_pattern
        && !matcher.ignore_case
        && let Some(part) = regex.regex.strip_prefix(".*").and_then(|rest| rest.strip_suffix(".*"))
        && !part.is_empty()
        && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-_".contains(&byte))
    {
        return Some(StringMatcher::Contains(Text::new(part, Case::Sensitive)));
    }
    text(at, matcher)
}

fn url_path(at: &At<'_>, path: &PathMatcher) -> Option<Condition> {
    match &path.rule {
        Some(path_matcher::Rule::Path(matcher)) => {
            Some(Condition::Path(text(&at.field("path"), matcher)?))
        }
        None => {
            at.fault("says nothing to match");
            None
        }
    }
}

fn uri_template(at: &At<'_>, config: &TypedExtensionConfig) -> Option<Condition> {
    let at = at.field("typed_config");
    let any = config.typed_config.as_ref();
    match any.map(|any| (message_of(any), any)) {
        Some(("envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig", any)) => {
            let config = at.unpack::<UriTemplateMatchConfig>(any)?;
            template_pattern(&config.path_template)
                .map_err(|error| at.field("path_template").fault(error))
                .ok()
                .map(Condition::Template)
        }
        Some((other, _)) => {
            at.fault(format!("{other} is not supported"));
            None
        }
        None => {
            at.fault("is missing");
            None
        }
    }
}

fn sourced(at: &At<'_>, matcher: &SourcedMetadata) -> Option<Condition> {
    if matcher.metadata_source != MetadataSource::Dynamic as i32 {
        at.field("metadata_source").unsupported();
        return None;
    }
    match &matcher.metadata_matcher {
        Some(inner) => {
            metadata::matcher(&at.field("metadata_matcher"), inner).map(Condition::Metadata)
        }
        None => {
            at.field("metadata_matcher").fault("is missing");
            None
        }
    }
}
