//! Tokens of end users: what is taken, refused, told and forwarded.

use std::{
    sync::LazyLock,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

use crate::{
    pair::{Scene, filters, router},
    signing::{Signer, encode},
};

static SIGNER: LazyLock<Signer> = LazyLock::new(Signer::new);

fn local(names: &[&str]) -> Value {
    json!({ "inline_string": SIGNER.set(names) })
}

fn provider(issuer: &str) -> Value {
    json!({ "issuer": issuer, "local_jwks": local(&["rsa", "es256", "es384", "es512"]) })
}

fn with(mut provider: Value, more: Value) -> Value {
    provider.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    provider
}

fn everything(requires: Value) -> Value {
    json!([{ "match": { "prefix": "/" }, "requires": requires }])
}

/// The filter before everything.
fn scene(settings: Value) -> Scene {
    let routes =
        json!([{ "name": "r", "match": { "prefix": "/" }, "route": { "cluster": "origin" } }]);
    Scene::routes(routes).with(filters(
        "envoy.filters.http.jwt_authn",
        "jwt_authn.v3.JwtAuthentication",
        settings,
    ))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

fn good(issuer: &str) -> String {
    SIGNER.token("RS256", &json!({ "iss": issuer, "sub": "you", "exp": now() + 3600 }))
}

#[expect(clippy::too_many_lines, reason = "a table of tokens")]
#[test]
fn tokens_are_taken_and_refused_as_by_envoy() {
    let audiences = json!({ "audiences": ["a.test", "https://b.test/"] });
    let mut scene = scene(json!({
        "providers": { "me": with(provider("me"), audiences) },
        "rules": everything(json!({ "provider_name": "me" })),
    }));
    let hour = now() + 3600;
    let claims = |more: Value| with(json!({ "iss": "me", "aud": "a.test", "exp": hour }), more);
    for algorithm in
        ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"]
    {
        let token = SIGNER.token(algorithm, &claims(json!({})));
        scene = scene.get("/p?q=1", &[&bearer(&token)]);
    }
    for more in [
        json!({ "aud": ["x", "http://b.test"] }),
        json!({ "aud": "c.test" }),
        json!({ "aud": [] }),
        json!({ "aud": 1 }),
        json!({ "iss": "you" }),
        json!({ "iss": 1 }),
        json!({ "sub": 1 }),
        json!({ "jti": 1 }),
        json!({ "exp": 1 }),
        json!({ "exp": now() - 30 }),
        json!({ "exp": now() - 90 }),
        json!({ "exp": "1" }),
        json!({ "exp": -1 }),
        json!({ "exp": 0 }),
        json!({ "nbf": now() + 30 }),
        json!({ "nbf": now() + 90 }),
        json!({ "nbf": "x" }),
        json!({ "iat": "x" }),
        json!({ "iat": -1 }),
    ] {
        let token = SIGNER.token("RS256", &claims(more));
        scene = scene.get("/", &[&bearer(&token)]);
    }
    let body = claims(json!({})).to_string();
    for header in [
        r#"{"alg":"none"}"#,
        r#"{"alg":1}"#,
        r#"{"typ":"JWT"}"#,
        r#"{"alg":"RS1"}"#,
        r#"{"alg":"HS256"}"#,
        r#"{"alg":"RS256","kid":"rsa"}"#,
        r#"{"alg":"RS256","kid":"other"}"#,
        r#"{"alg":"RS256","kid":1}"#,
        "[]",
        "x",
    ] {
        scene = scene.get("/", &[&bearer(&SIGNER.raw("RS256", header, &body))]);
    }
    let token = SIGNER.token("RS256", &claims(json!({})));
    let foreign = Signer::new().token("RS256", &claims(json!({})));
    for fields in [
        vec![],
        vec!["Authorization: Basic x".to_owned()],
        vec!["Authorization: Bearer".to_owned()],
        vec!["Authorization: Bearer x".to_owned()],
        vec!["Authorization: Bearer a.b.c".to_owned()],
        vec!["Authorization: bearer a.b.c".to_owned()],
        vec![format!("Authorization: Bearer {}.x", encode(r#"{"alg":"RS256"}"#))],
        vec![format!("Authorization: Bearer {}.!.x", encode(r#"{"alg":"RS256"}"#))],
        vec![format!("Authorization: Bearer {}.{}.!", encode(r#"{"alg":"RS256"}"#), encode("{}"))],
        vec![format!("Authorization: Bearer {}.{}.AA", encode(r#"{"alg":"RS256"}"#), encode("[]"))],
        vec![bearer(&foreign)],
        vec![bearer(&token), bearer(&foreign)],
        vec![bearer(&token), "Content-Type: application/grpc".to_owned()],
        vec![bearer("x.y.z"), "Content-Type: application/grpc".to_owned()],
    ] {
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        scene = scene.get("/", &fields);
    }
    let long = format!("/{}?access_token=x", "p".repeat(300));
    scene
        .get(&format!("/?access_token={token}&x=1"), &[])
        .get(&format!("/?access_token={foreign}"), &[])
        .get(&format!("/?access_token={foreign}"), &[&bearer(&token)])
        .get(&long, &[])
        .check();
}

#[test]
fn tokens_are_looked_for_and_taken_out_as_by_envoy() {
    let places = json!({
        "from_headers": [{ "name": "X-Token" }, { "name": "x-other", "value_prefix": "JWT=" }],
        "from_params": ["t"],
        "from_cookies": ["session"],
    });
    for forward in [false, true] {
        let settings = with(with(provider("me"), places.clone()), json!({ "forward": forward }));
        let (token, foreign) = (good("me"), Signer::new().token("RS256", &json!({ "iss": "me" })));
        scene(json!({
            "providers": { "me": settings },
            "rules": everything(json!({ "provider_name": "me" })),
        }))
        .get("/", &[&bearer(&token)])
        .get("/", &[&format!("x-token: {token}")])
        .get("/", &[&format!("x-other: JWT={token}")])
        .get("/", &[&format!("x-other: some JWT= {token}")])
        .get("/", &[&format!("x-other: {token}")])
        .get(&format!("/a?t={token}"), &[])
        .get(&format!("/a?b=1&t={token}&c=2"), &[])
        .get(&format!("/a?t={}", token.replace('.', "%2E")), &[])
        .get(&format!("/a?access_token={token}"), &[])
        .get("/", &[&format!("Cookie: a=b; session={token}; c=d")])
        .get("/", &[&format!("Cookie: session=\"{token}\"")])
        .get("/", &[&format!("Cookie: session={foreign}")])
        .get("/", &["Cookie: session="])
        .get("/", &[&format!("x-token: {token}"), &format!("Cookie: session={foreign}")])
        .get(&format!("/a?t={token}"), &[&format!("x-token: {foreign}")])
        .check();
    }
}

#[test]
fn good_tokens_are_told_of_as_by_envoy() {
    let told = json!({
        "forward_payload_header": "x-payload",
        "claim_to_headers": [
            { "header_name": "x-sub", "claim_name": "sub" },
            { "header_name": "x-number", "claim_name": "n" },
            { "header_name": "x-fraction", "claim_name": "f" },
            { "header_name": "x-flag", "claim_name": "b" },
            { "header_name": "x-list", "claim_name": "l" },
            { "header_name": "x-nested", "claim_name": "o.i" },
            { "header_name": "x-object", "claim_name": "o" },
            { "header_name": "x-missing", "claim_name": "missing" },
        ],
    });
    for pad in [false, true] {
        let settings = with(provider("me"), told.clone());
        let settings = with(settings, json!({ "pad_forward_payload_header": pad }));
        let claims = json!({ "iss": "me", "sub": "you", "n": 12, "f": 1.5, "b": true,
            "l": ["a", "b"], "o": { "i": "deep" } });
        let token = SIGNER.token("ES256", &claims);
        let short = SIGNER.token("ES256", &json!({ "iss": "me" }));
        let lies = ["x-payload: mine", "x-sub: mine", "x-missing: mine", "x-untouched: mine"];
        let with_token = bearer(&token);
        let mut fields = lies.to_vec();
        fields.push(&with_token);
        scene(json!({
            "providers": { "me": settings },
            "rules": everything(json!({ "requires_any": { "requirements": [
                { "provider_name": "me" }, { "allow_missing": {} }] } })),
        }))
        .get("/", &[&with_token])
        .get("/", &[&bearer(&short)])
        .get("/", &lies)
        .get("/", &fields)
        .check();
    }
}

/// How requirements are put together, and which reason the client is told. One case is left out:
/// under `allow_missing` alone Envoy lets a bad token through beside a good one, and ours does not.
#[test]
fn requirements_are_put_together_as_by_envoy() {
    let one = |name: &str| json!({ "provider_name": name });
    let missing = || json!({ "allow_missing": {} });
    let failed = || json!({ "allow_missing_or_failed": {} });
    let any = |list: Vec<Value>| json!({ "requires_any": { "requirements": list } });
    let all = |list: Vec<Value>| json!({ "requires_all": { "requirements": list } });
    let istio = any(vec![
        one("a"),
        one("b"),
        all(vec![any(vec![one("a"), missing()]), any(vec![one("b"), missing()])]),
    ]);
    for requires in [
        any(vec![one("a"), one("b")]),
        any(vec![one("b"), one("a")]),
        all(vec![one("a"), one("b")]),
        any(vec![one("a"), missing()]),
        any(vec![missing(), one("a")]),
        any(vec![one("a"), failed()]),
        any(vec![one("a"), missing(), failed()]),
        missing(),
        failed(),
        json!({ "provider_and_audiences": { "provider_name": "a", "audiences": ["other"] } }),
        istio,
        json!({}),
    ] {
        let a = with(
            provider("a"),
            json!({ "claim_to_headers": [{ "header_name": "x-a", "claim_name": "sub" }] }),
        );
        let b = with(
            with(
                provider("b"),
                json!({ "claim_to_headers": [{ "header_name": "x-b", "claim_name": "sub" }] }),
            ),
            json!({ "from_headers": [{ "name": "x-b-token" }, { "name": "authorization", "value_prefix": "Bearer " }] }),
        );
        let (ta, tb, tc) = (good("a"), good("b"), good("c"));
        let old = SIGNER.token("RS256", &json!({ "iss": "a", "exp": 1 }));
        let foreign = Signer::new().token("RS256", &json!({ "iss": "b" }));
        let for_other = SIGNER.token("RS256", &json!({ "iss": "a", "aud": "other", "sub": "x" }));
        scene(json!({ "providers": { "a": a, "b": b }, "rules": everything(requires) }))
            .get("/", &[])
            .get("/", &["x-a: lie", "x-b: lie"])
            .get("/", &[&bearer(&ta)])
            .get("/", &[&bearer(&tb)])
            .get("/", &[&bearer(&tc)])
            .get("/", &[&bearer(&old)])
            .get("/", &[&bearer(&foreign)])
            .get("/", &[&bearer(&for_other)])
            .get("/", &[&bearer("x.y.z")])
            .get("/", &["Authorization: Bearer x"])
            .get("/", &[&format!("x-b-token: {tb}")])
            .get("/", &[&format!("x-b-token: {ta}")])
            .get("/", &[&bearer(&ta), &format!("x-b-token: {tb}")])
            .get("/", &[&bearer(&old), &format!("x-b-token: {tb}")])
            .check();
    }
}

#[test]
fn rules_and_routes_choose_requirements_as_by_envoy() {
    let per_route = |more: Value| {
        let mut message = more;
        message["@type"] =
            json!("type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig");
        json!({ "envoy.filters.http.jwt_authn": message })
    };
    let route = |prefix: &str, per: Value| {
        json!({ "name": prefix, "match": { "prefix": prefix }, "route": { "cluster": "origin" },
            "typed_per_filter_config": per })
    };
    let routes = json!([
        route("/off", per_route(json!({ "disabled": true }))),
        route("/named", per_route(json!({ "requirement_name": "needs" }))),
        route("/open", per_route(json!({ "requirement_name": "open" }))),
        route("/wrong", per_route(json!({ "requirement_name": "nobody" }))),
        route("/", json!({})),
    ]);
    for (bypass, strip) in [(false, false), (true, true)] {
        let settings = json!({
            "providers": { "me": provider("me") },
            "rules": [
                { "match": { "path": "/exact" }, "requires": { "provider_name": "me" } },
                { "match": { "prefix": "/free" } },
                { "match": { "prefix": "/h", "headers": [{ "name": "x-h", "present_match": true }] },
                  "requires": { "provider_name": "me" } },
                { "match": { "safe_regex": { "regex": "/r[0-9]+" } }, "requirement_name": "needs" },
                { "match": { "prefix": "/q", "query_parameters": [{ "name": "q", "string_match": { "exact": "1" } }] },
                  "requires": { "provider_name": "me" } },
            ],
            "requirement_map": { "needs": { "provider_name": "me" }, "open": { "allow_missing": {} } },
            "bypass_cors_preflight": bypass,
            "strip_failure_response": strip,
        });
        let manager =
            filters("envoy.filters.http.jwt_authn", "jwt_authn.v3.JwtAuthentication", settings);
        let token = bearer(&good("me"));
        let mut scene = Scene::routes(routes.clone()).with(manager);
        for path in [
            "/off", "/named", "/open", "/exact", "/exact/x", "/exact?x", "/free", "/h", "/r12",
            "/r12?x", "/rx", "/q?q=1", "/q",
        ] {
            scene = scene.get(path, &[]).get(path, &[&token]).get(path, &["x-h: 1"]);
        }
        let origin = "Origin: https://a.test";
        scene
            .send("OPTIONS", "/exact", &[origin, "Access-Control-Request-Method: GET"], "")
            .send("OPTIONS", "/exact", &[origin], "")
            .send("POST", "/exact", &[origin, "Access-Control-Request-Method: GET"], "x")
            .check();
    }
}

/// Claims choose the route once they are known.
#[test]
fn claims_choose_routes_as_by_envoy() {
    let claim = |name: &str, value: Value, invert: bool| {
        json!({ "filter": "envoy.filters.http.jwt_authn", "invert": invert, "value": value,
            "path": [{ "key": "payload" }, { "key": name }] })
    };
    let text = |text: &str| json!({ "string_match": { "exact": text } });
    let either = |value: Value| json!({ "or_match": { "value_matchers": [value.clone(), { "list_match": { "one_of": value } }] } });
    let route = |name: &str, matchers: Vec<Value>| {
        json!({ "name": name, "match": { "prefix": "/", "dynamic_metadata": matchers },
            "route": { "cluster": "origin" } })
    };
    for (clears, payload) in [(true, true), (false, true), (true, false)] {
        let routes = json!([
            route("group", vec![claim("groups", either(text("admin")), false)]),
            route("scope", vec![claim("scope", either(text("write")), false)]),
            route(
                "not",
                vec![claim("sub", either(text("you")), true), claim("iss", text("me"), false)]
            ),
            route("rest", vec![]),
        ]);
        let mut settings = with(provider("me"), json!({ "clear_route_cache": clears }));
        if payload {
            settings["payload_in_metadata"] = json!("payload");
            settings["normalize_payload_in_metadata"] =
                json!({ "space_delimited_claims": ["scope"] });
        }
        let token = |more: Value| {
            let claims = with(json!({ "iss": "me", "sub": "you" }), more);
            bearer(&SIGNER.token("RS256", &claims))
        };
        let manager = json!({ "http_filters": [
            { "name": "envoy.filters.http.jwt_authn", "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
                "providers": { "me": settings },
                "rules": everything(json!({ "requires_any": { "requirements": [
                    { "provider_name": "me" }, { "allow_missing": {} }] } })),
            } },
            router(),
        ] });
        Scene::routes(routes)
            .with(manager)
            .get("/", &[])
            .get("/", &[&token(json!({}))])
            .get("/", &[&token(json!({ "groups": "admin" }))])
            .get("/", &[&token(json!({ "groups": ["x", "admin"] }))])
            .get("/", &[&token(json!({ "groups": ["x"] }))])
            .get("/", &[&token(json!({ "scope": "read write" }))])
            .get("/", &[&token(json!({ "scope": "readwrite" }))])
            .get("/", &[&token(json!({ "sub": "other" }))])
            .check();
    }
}

#[test]
fn lifetimes_and_subjects_are_judged_as_by_envoy() {
    for more in [
        json!({ "require_expiration": true }),
        json!({ "max_lifetime": "100s" }),
        json!({ "subjects": { "prefix": "spiffe://" } }),
        json!({ "clock_skew_seconds": 5 }),
        json!({ "issuer": "" }),
    ] {
        let mut scene = scene(json!({
            "providers": { "me": with(provider("me"), more) },
            "rules": everything(json!({ "provider_name": "me" })),
        }));
        for claims in [
            json!({ "iss": "me" }),
            json!({ "iss": "me", "exp": now() + 50, "sub": "spiffe://a" }),
            json!({ "iss": "me", "exp": now() + 500, "sub": "spiffe://a" }),
            json!({ "iss": "me", "exp": now() - 30, "sub": "a" }),
            json!({ "iss": "other" }),
            json!({}),
        ] {
            scene = scene.get("/", &[&bearer(&SIGNER.token("PS256", &claims))]);
        }
        scene.check();
    }
}

#[test]
fn a_requirement_that_nobody_has_is_refused() {
    let per_route = json!({ "envoy.filters.http.jwt_authn": {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig",
        "requirement_name": "nobody" } });
    let routes = json!([{ "name": "r", "match": { "prefix": "/" }, "route": { "cluster": "origin" },
        "typed_per_filter_config": per_route }]);
    let settings = json!({
        "providers": { "me": provider("me") },
        "requirement_map": { "needs": { "provider_name": "me" }, "open": { "allow_missing": {} } },
    });
    let name = "envoy.filters.http.jwt_authn";
    let manager = filters(name, "jwt_authn.v3.JwtAuthentication", settings);
    Scene::routes(routes).with(manager).get("/", &[]).get("/", &[&bearer(&good("me"))]).check();
}

#[test]
fn tokens_of_edwards_curves_are_taken_as_by_envoy() {
    let settings = json!({ "issuer": "me", "local_jwks": local(&["ed"]) });
    scene(json!({
        "providers": { "me": settings },
        "rules": everything(json!({ "provider_name": "me" })),
    }))
    .get("/", &[&bearer(&SIGNER.token("EdDSA", &json!({ "iss": "me" })))])
    .get("/", &[&bearer(&Signer::new().token("EdDSA", &json!({ "iss": "me" })))])
    .check();
}

/// Secrets: those that are long enough.
#[test]
fn secrets_are_taken_as_by_envoy() {
    let settings = json!({ "issuer": "me", "local_jwks": local(&["oct"]) });
    let mut scene = scene(json!({
        "providers": { "me": settings },
        "rules": everything(json!({ "provider_name": "me" })),
    }));
    for algorithm in ["HS256", "HS384", "HS512", "RS256"] {
        let token = SIGNER.token(algorithm, &json!({ "iss": "me" }));
        scene = scene.get("/", &[&bearer(&token)]).get("/", &[&bearer(&format!("{token}AAAA"))]);
    }
    scene.check();
}
