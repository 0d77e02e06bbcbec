//! What a request's hash is made of.

use std::sync::Arc;

use envoy_types::pb::envoy::config::route::v3::route_action::{
    HashPolicy as PbHash,
    hash_policy::{Cookie, Header, PolicySpecifier},
};

use crate::{
    HashCookie, HashPolicy, HashSource,
    compile::{
        at::{At, fields},
        messages,
    },
};

pub(super) fn policies(at: &At<'_>, policies: &[PbHash]) -> Vec<HashPolicy> {
    let policies = policies.iter().enumerate().filter_map(|(index, policy)| {
        let source = source(&at.nth(index), policy.policy_specifier.as_ref())?;
        Some(HashPolicy { source, is_terminal: policy.terminal })
    });
    policies.collect()
}

fn source(at: &At<'_>, specifier: Option<&PolicySpecifier>) -> Option<HashSource> {
    Some(match specifier {
        Some(PolicySpecifier::Header(header)) => {
            let at = at.field("header");
            fields!(&at, header => Header {
                use { header_name, regex_rewrite }
                accept {}
                refuse {}
            });
            let name = messages::header_name(&at.field("header_name"), header_name);
            let rewrite = match regex_rewrite {
                Some(rewrite) => Some(messages::rewrite(&at.field("regex_rewrite"), rewrite)?),
                None => None,
            };
            HashSource::Header(name, rewrite)
        }
        Some(PolicySpecifier::Cookie(cookie)) => {
            HashSource::Cookie(Arc::new(cookie_of(&at.field("cookie"), cookie)))
        }
        // As in Envoy: a policy that names no property hashes nothing.
        Some(PolicySpecifier::ConnectionProperties(properties)) if !properties.source_ip => {
            return None;
        }
        Some(PolicySpecifier::ConnectionProperties(_)) => HashSource::SourceIp,
        Some(PolicySpecifier::QueryParameter(query)) => {
            if query.name.is_empty() {
                at.field("query_parameter").field("name").fault("is missing");
            }
            HashSource::Query(query.name.as_str().into())
        }
        Some(PolicySpecifier::FilterState(_)) => {
            at.field("filter_state").unsupported();
            return None;
        }
        None => {
            at.fault("says nothing to hash");
            return None;
        }
    })
}

fn cookie_of(at: &At<'_>, cookie: &Cookie) -> HashCookie {
    fields!(at, cookie => Cookie {
        use { name, ttl, path, attributes }
        accept {}
        refuse {}
    });
    if name.is_empty() {
        at.field("name").fault("is missing");
    }
    let text = |field: &str, value: &str| messages::header_value(&at.field(field), value);
    HashCookie {
        name: text("name", name),
        ttl: messages::duration(&at.field("ttl"), ttl.as_ref()),
        path: text("path", path),
        attributes: attributes
            .iter()
            .map(|one| (text("attributes", &one.name), text("attributes", &one.value)))
            .collect(),
    }
}
