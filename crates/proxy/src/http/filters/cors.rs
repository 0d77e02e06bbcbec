//! The CORS filter: answers preflights, and says in responses which origin may read them.

use sluis_http1::{Fields, Method};
use sluis_rules::{CorsPolicy, FilterSetting, Matched, RouteAction};

use super::Stage;
use crate::http::{
    desk::Desk,
    reply::{Reply, Unsent},
};

const METHOD: &[u8] = b"access-control-request-method";
const HEADERS: &[u8] = b"access-control-request-headers";
const NETWORK: &[u8] = b"access-control-request-private-network";

/// The policies that apply, the most specific first: the first that says something counts.
struct Policies<'c>(Vec<&'c CorsPolicy>);

impl<'c> Policies<'c> {
    fn of(name: &str, matched: &Matched<'c>) -> Self {
        let said = matched.settings(name).filter_map(|setting| match setting {
            FilterSetting::Cors(policy) => Some(&**policy),
            _ => None,
        });
        let typed: Vec<_> = said.collect();
        // As in Envoy: the older place counts only where the newer is empty.
        Self(if typed.is_empty() {
            matched.cors().map(|policy| &**policy).collect()
        } else {
            typed
        })
    }

    fn text(&self, pick: impl Fn(&'c CorsPolicy) -> &'c str) -> &'c str {
        self.0.iter().map(|policy| pick(policy)).find(|text| !text.is_empty()).unwrap_or_default()
    }

    fn flag(&self, pick: impl Fn(&CorsPolicy) -> Option<bool>, default: bool) -> bool {
        self.0.iter().find_map(|policy| pick(policy)).unwrap_or(default)
    }

    fn allows(&self, origin: &[u8]) -> bool {
        let listed = self.0.iter().map(|policy| &policy.origins).find(|list| !list.is_empty());
        listed.is_some_and(|origins| {
            origins.iter().any(|allowed| allowed.matches(b"*") || allowed.matches(origin))
        })
    }
}

/// Looks at a request: answers it when it is a preflight, else remembers what the response says.
pub(super) fn on_request<'c>(
    name: &str,
    stage: Stage<'_, 'c>,
    desk: &mut Desk,
) -> Result<(), Box<Reply<'c>>> {
    let Some(matched) = stage.matched.filter(|m| matches!(m.route.action, RouteAction::Forward(_)))
    else {
        return Ok(());
    };
    let policies = Policies::of(name, matched);
    let is_on = policies.0.first().is_some_and(|policy| policy.enabled.holds(stage.scene.draw));
    let fields = &desk.request.fields;
    let Some(origin) = fields.get_name(b"origin").filter(|origin| is_on && !origin.is_empty())
    else {
        return Ok(());
    };
    let is_allowed = policies.allows(origin);
    let asked = fields.get_name(METHOD).unwrap_or_default();
    let is_preflight = desk.request.method() == Method::Options && !asked.is_empty();
    if is_preflight && (is_allowed || !policies.flag(|policy| policy.forwards_unmatched, true)) {
        let mut reply = Reply::new(200, "cors_response").of(*matched).unchanged();
        reply.fields = preflight(&policies, fields, origin, is_allowed);
        return Err(reply.into());
    }
    if is_allowed {
        let mut said = vec![(&b"access-control-allow-origin"[..], origin.to_vec())];
        if policies.flag(|policy| policy.credentials, false) {
            said.push((b"access-control-allow-credentials", b"true".to_vec()));
        }
        let expose = policies.text(|policy| &policy.expose);
        if !expose.is_empty() {
            said.push((b"access-control-expose-headers", expose.into()));
        }
        desk.marks.cors = said;
    }
    Ok(())
}

/// What a preflight is told.
fn preflight(
    policies: &Policies<'_>,
    request: &Fields,
    origin: &[u8],
    is_allowed: bool,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut said: Vec<(&[u8], &[u8])> = Vec::new();
    if is_allowed {
        said.push((b"access-control-allow-origin", origin));
    }
    if policies.flag(|policy| policy.credentials, false) {
        said.push((b"access-control-allow-credentials", b"true"));
    }
    let of_request = |name: &[u8]| request.get_name(name).unwrap_or_default();
    match policies.text(|policy| &policy.methods) {
        "" => {}
        "*" => said.push((b"access-control-allow-methods", of_request(METHOD))),
        methods => said.push((b"access-control-allow-methods", methods.as_bytes())),
    }
    match policies.text(|policy| &policy.headers) {
        "" => {}
        "*" => said.push((b"access-control-allow-headers", of_request(HEADERS))),
        headers => said.push((b"access-control-allow-headers", headers.as_bytes())),
    }
    let expose = policies.text(|policy| &policy.expose);
    if is_allowed && !expose.is_empty() {
        said.push((b"access-control-expose-headers", expose.as_bytes()));
    }
    let max_age = policies.text(|policy| &policy.max_age);
    if !max_age.is_empty() {
        said.push((b"access-control-max-age", max_age.as_bytes()));
    }
    if policies.flag(|policy| policy.private_network, false) && of_request(NETWORK) == b"true" {
        said.push((b"access-control-allow-private-network", b"true"));
    }
    said.into_iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
}

/// Says in a response which origin may read it.
pub(super) fn on_response(desk: &mut Desk) -> Result<(), Unsent> {
    for (name, value) in &desk.marks.cors {
        desk.response.fields.set(name, value).map_err(|_| Unsent::Fault)?;
    }
    Ok(())
}
