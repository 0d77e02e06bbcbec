//! Reads RequestAuthentication.

use serde_json::Value as Json;

use super::forms::{checked, read_fields, read_names};
use super::target::policy_target;
use crate::kinds::request_authentication::{
    ClaimToHeader, JwtHeader, JwtKeys, JwtRule, RequestAuthentication,
};
use crate::kinds::target::{PolicyTarget, TargetKind};
use crate::value::{Fields, Read, Value};

read_fields! {
    RequestAuthentication => request_authentication,
    JwtRule => jwt_rule,
    JwtHeader => jwt_header,
    ClaimToHeader => claim_to_header,
}

read_names! {
    Presence {
        "OPTIONAL" => Presence::Optional,
        "REQUIRED" => Presence::Required,
    }
}

/// Most of `spaceDelimitedClaims`, as Istio has it.
const CLAIMS_MAX: usize = 64;

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Presence {
    #[default]
    Optional,
    Required,
}

/// A text that is not empty.
struct Word(String);

impl Read for Word {
    fn read(value: &Value<'_>) -> Option<Self> {
        checked(value, |text| match text {
            "" => Err("an empty text is not allowed".to_owned()),
            text => Ok(Self(text.to_owned())),
        })
    }
}

fn words(fields: &mut Fields<'_, '_>, name: &'static str) -> Vec<String> {
    fields.or_default::<Vec<Word>>(name).into_iter().map(|Word(text)| text).collect()
}

fn request_authentication(fields: &mut Fields<'_, '_>) -> Option<RequestAuthentication> {
    let target = policy_target(fields);
    if let PolicyTarget::Objects(targets) = &target
        && targets.iter().any(|target| target.kind != TargetKind::Gateway)
    {
        // Only waypoints would read it.
        let name = if fields.has("targetRefs") { "targetRefs" } else { "targetRef" };
        fields.fault_at(name, "tokens are verified for a Gateway or by a selector only");
    }
    Some(RequestAuthentication { target, rules: fields.or_default("jwtRules") })
}

fn jwt_rule(fields: &mut Fields<'_, '_>) -> Option<JwtRule> {
    fields.at_most_one(&["jwks", "jwksUri", "jwks_uri"]);
    let inline = fields.get("jwks").and_then(|value| checked(&value, key_set));
    let uri = ["jwksUri", "jwks_uri"]
        .map(|name| fields.get(name).and_then(|value| checked(&value, key_uri)));
    let [uri, old_uri] = uri;
    let keys = inline.map(JwtKeys::Inline).or(uri.or(old_uri).map(JwtKeys::Uri));
    let issuer = fields.opt("issuer").map(|Word(text)| text);
    if issuer.is_none() && !["jwksUri", "jwks_uri"].into_iter().any(|name| fields.has(name)) {
        fields.fault_at("issuer", "an issuer or a jwksUri is required");
    }
    let claims = words(fields, "spaceDelimitedClaims");
    if claims.len() > CLAIMS_MAX
        && let Some(value) = fields.get("spaceDelimitedClaims")
    {
        value.fault::<()>(format!("there are more than {CLAIMS_MAX} entries"));
    }
    Some(JwtRule {
        at: fields.at(),
        issuer,
        audiences: words(fields, "audiences"),
        keys,
        from_headers: fields.or_default("fromHeaders"),
        from_params: words(fields, "fromParams"),
        from_cookies: words(fields, "fromCookies"),
        output_payload_to_header: fields.opt("outputPayloadToHeader"),
        output_claim_to_headers: claims_to_headers(fields),
        forward_original_token: fields.or_default("forwardOriginalToken"),
        timeout: fields.opt("timeout"),
        space_delimited_claims: claims,
        is_required: fields.or_default::<Presence>("presence") == Presence::Required,
    })
}

fn claims_to_headers(fields: &mut Fields<'_, '_>) -> Vec<ClaimToHeader> {
    fields.or_default("outputClaimToHeaders")
}

fn jwt_header(fields: &mut Fields<'_, '_>) -> Option<JwtHeader> {
    let name = fields.req("name").map(|Word(name)| name);
    let prefix = fields.or_default("prefix");
    Some(JwtHeader { name: name?, prefix })
}

fn claim_to_header(fields: &mut Fields<'_, '_>) -> Option<ClaimToHeader> {
    let claim = fields.req("claim").map(|Word(claim)| claim);
    let header: Option<Header> = fields.req("header");
    Some(ClaimToHeader { header: header?.0, claim: claim? })
}

/// The name of a header, of letters, digits, dashes and underscores.
struct Header(String);

impl Read for Header {
    fn read(value: &Value<'_>) -> Option<Self> {
        checked(value, |text| {
            let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
            if text.is_empty() || !text.bytes().all(fits) {
                return Err(format!("{text:?} is not the name of a header"));
            }
            Ok(Self(text.to_owned()))
        })
    }
}

/// Sees that a text is a JSON Web Key Set or a single key, RFC 7517 §4 and §5.
fn key_set(text: &str) -> Result<String, String> {
    let set: Json = serde_json::from_str(text).map_err(|_| "this is not JSON".to_owned())?;
    let is_key = |key: &Json| key.get("kty").is_some_and(Json::is_string);
    let is_set = match set.get("keys") {
        Some(keys) => keys.as_array().is_some_and(|keys| keys.iter().all(is_key)),
        None => is_key(&set),
    };
    if !is_set {
        return Err("this is not a set of keys, nor a key: kty is missing".to_owned());
    }
    Ok(text.to_owned())
}

/// Longest URL of a key set, as Istio has it.
const URI_BYTES_MAX: usize = 2048;

fn key_uri(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let Some(rest) = rest else {
        return Err(format!("{text:?} must begin with http:// or https://"));
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if text.len() > URI_BYTES_MAX || host.is_empty() || text.contains(|c: char| c.is_control()) {
        return Err(format!("{text:?} is not a URL"));
    }
    Ok(text.to_owned())
}
