//! What `RequestAuthentication` objects say: which tokens are taken, and where their keys are.
//!
//! In:    the policies that hold for a workload, the services that it sees.
//! Out:   [`TokensInput`], and the clusters that keys are fetched from.
//! Never: has keys fetched from a host that the mesh does not know, or an `https` URL without TLS: then
//!        the tokens of that rule are refused.
//!
//! Istio's control plane fetches keys itself, from wherever a user says; a namespace's owner could
//! have it ask the addresses of its own network (`http://169.254.169.254/`). Here the proxy fetches
//! them, through a cluster of the mesh: what it may not reach it does not ask.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use sluis_model::Owned;
use sluis_nouns::HostPattern;
use sluis_resources::{JwtKeys, JwtRule, RequestAuthentication};

use super::{Selection, cluster, destination::ClusterKey, origination};
use crate::{ClusterInput, Fault, Role, TokenKeys, TokenRule, TokensInput};

/// Istio's limit where a rule has none.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Claims that are always lists.
const SPACED: [&str; 2] = ["permission", "scope"];

/// What the names of clusters begin with that speak TLS for a key server only.
const KEY_SERVER: &str = "jwks";

/// The parts of a URL that matter.
struct Url<'a> {
    is_tls: bool,
    host: &'a str,
    port: u16,
}

impl<'a> Url<'a> {
    fn parse(url: &'a str) -> Option<Self> {
        let (is_tls, rest) = match url.strip_prefix("https://") {
            Some(rest) => (true, rest),
            None => (false, url.strip_prefix("http://")?),
        };
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        if authority.contains('@') {
            return None;
        }
        let default = if is_tls { 443 } else { 80 };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
                (host, port.parse().ok()?)
            }
            _ => (authority, default),
        };
        (!host.is_empty()).then_some(Self { is_tls, host, port })
    }
}

impl Selection<'_> {
    /// The tokens that the proxy's workload takes; `None` when nothing is said.
    pub(super) fn tokens(&mut self) -> Option<Arc<TokensInput>> {
        let (snapshot, view) = (self.snapshot, self.view);
        let policies: Vec<&Owned<RequestAuthentication>> =
            snapshot.request_authentications(&view.name.namespace, &view.labels).collect();
        let mut rules: Vec<TokenRule> = Vec::new();
        for policy in policies {
            for rule in &policy.spec().rules {
                let made = self.token_rule(policy, rule);
                rules.push(made);
            }
        }
        if rules.is_empty() {
            return None;
        }
        // As in Istio; the sort is stable.
        rules.sort_by(|a, b| a.issuer.cmp(&b.issuer));
        Some(Arc::new(TokensInput { rules, chooses_route: view.role == Role::Gateway }))
    }

    fn token_rule(&mut self, policy: &Owned<RequestAuthentication>, rule: &JwtRule) -> TokenRule {
        let keys = match &rule.keys {
            Some(JwtKeys::Inline(keys)) => TokenKeys::Inline(as_set(keys)),
            Some(JwtKeys::Uri(uri)) => {
                let cluster = self.key_server(uri).unwrap_or_else(|(cluster, message)| {
                    let message = format!("{message}: tokens of this issuer are refused");
                    let fault = Fault::error(rule.at.clone(), message);
                    self.fault(policy.meta(), fault.field("jwksUri"));
                    cluster
                });
                let timeout = rule.timeout.unwrap_or(TIMEOUT);
                TokenKeys::Remote { uri: uri.clone(), cluster, timeout }
            }
            None => {
                let message = "the keys are not looked up by the issuer's OpenID document: tokens of \
                               this issuer are refused";
                let fault = Fault::error(rule.at.clone(), message.to_owned());
                let fault = fault.help("write jwksUri, as the document names it");
                self.fault(policy.meta(), fault.field("jwksUri"));
                TokenKeys::Remote {
                    uri: "https://unknown.invalid/".to_owned(),
                    cluster: format!("{KEY_SERVER}|443||unknown.invalid"),
                    timeout: TIMEOUT,
                }
            }
        };
        let spaced: BTreeSet<String> =
            rule.space_delimited_claims.iter().cloned().chain(SPACED.map(str::to_owned)).collect();
        let claims = rule.output_claim_to_headers.iter();
        TokenRule {
            issuer: rule.issuer.clone().unwrap_or_default(),
            audiences: rule.audiences.clone(),
            keys,
            from_headers: rule
                .from_headers
                .iter()
                .map(|header| (header.name.clone(), header.prefix.clone()))
                .collect(),
            from_params: rule.from_params.clone(),
            from_cookies: rule.from_cookies.clone(),
            payload_header: rule.output_payload_to_header.clone(),
            claims: claims.map(|claim| (claim.claim.clone(), claim.header.clone())).collect(),
            is_forwarded: rule.forward_original_token,
            spaced_claims: spaced.into_iter().collect(),
            is_required: rule.is_required,
        }
    }

    /// The cluster that keys are fetched from; else the name of one that there is not, and why.
    fn key_server(&mut self, uri: &str) -> Result<String, (String, String)> {
        let nowhere = |what: &str| format!("{KEY_SERVER}|0||{what}");
        let Some(url) = Url::parse(uri) else {
            return Err((nowhere("unknown"), format!("{uri:?} names no host")));
        };
        let unknown = |message: String| (nowhere(url.host), message);
        let host: HostPattern = url
            .host
            .to_ascii_lowercase()
            .parse()
            .map_err(|error| unknown(format!("{:?}: {error}", url.host)))?;
        let Some(service) = self.service(&host) else {
            return Err(unknown(format!(
                "{host} is no host that the mesh knows (a Service or ServiceEntry), so keys are not \
                 fetched from it"
            )));
        };
        if service.port(url.port).is_none() {
            return Err(unknown(format!("{host} has no port {}", url.port)));
        }
        let key = ClusterKey { host, subset: String::new(), port: url.port };
        let Some(made) = cluster::of_port(self, &service, url.port) else {
            return Err(unknown(format!("{} leads nowhere", key.name())));
        };
        if !url.is_tls || made.tls.is_some() {
            return Ok(key.name());
        }
        // The service's own cluster carries what the workload has encrypted itself.
        let name = format!("{KEY_SERVER}|{}||{}", url.port, url.host);
        let tls = origination::to_key_server(url.host);
        let stat_name = format!("{name};");
        self.key_servers.push(ClusterInput {
            name: name.clone(),
            stat_name,
            tls: Some(tls),
            is_tls_by_endpoint: false,
            ..made
        });
        Ok(name)
    }
}

/// A single key is a set of one (RFC 7517 §5); Envoy takes sets only.
fn as_set(keys: &str) -> String {
    let is_set = serde_json::from_str::<serde_json::Value>(keys)
        .is_ok_and(|value| value.get("keys").is_some());
    if is_set { keys.to_owned() } else { format!("{{\"keys\":[{keys}]}}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        for (url, expected) in [
            ("https://a.test/keys", Some((true, "a.test", 443))),
            ("http://a.test", Some((false, "a.test", 80))),
            ("https://a.test:8443?x", Some((true, "a.test", 8443))),
            ("http://169.254.169.254/latest", Some((false, "169.254.169.254", 80))),
            ("http://[::1]:80/", Some((false, "[::1]", 80))),
            ("http://me@a.test/", None),
            ("http://a.test:x/", None),
            ("https:///", None),
            ("ftp://a.test/", None),
        ] {
            let parsed = Url::parse(url).map(|url| (url.is_tls, url.host, url.port));
            assert_eq!(parsed, expected, "{url}");
        }
    }

    #[test]
    fn a_single_key_becomes_a_set() {
        assert_eq!(as_set(r#"{"kty":"oct"}"#), r#"{"keys":[{"kty":"oct"}]}"#);
        assert_eq!(as_set(r#"{"keys":[]}"#), r#"{"keys":[]}"#);
    }
}
