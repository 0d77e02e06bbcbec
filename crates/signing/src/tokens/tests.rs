//! Forms as the specifications show them, and answers.

use super::{AnswerError, ClientAuthentication, Flow, Grant, Token, TokenFlow, TokenRequest};
use crate::{
    DpopKey, KeyEncoding, KeySource, Material, Moment, RequestView, SchemeError, Secret, SignError,
};

const MOMENT: Moment = Moment { unix_nanos: 1_700_000_000_000_000_000, nonce: [9; 16] };
const KEY: &[u8] = include_bytes!("../../tests/keys/rfc8037-a1.pem");

fn material() -> Material {
    let entries: [(&str, &[u8]); 3] =
        [("id", b"s6BhdRkqt3"), ("secret", b"7Fjfp0ZBr1KtDRbnfVdmIw"), ("key", KEY)];
    entries.into_iter().map(|(name, value)| (name, Secret::new(value.to_vec()))).collect()
}

fn flow() -> TokenFlow {
    TokenFlow {
        token_url: "https://as.example.com/token?tenant=a".into(),
        client_id_key: "id".into(),
        client_secret_key: "secret".into(),
        ..TokenFlow::default()
    }
}

fn exchange() -> TokenFlow {
    TokenFlow { grant: Grant::TokenExchange, ..flow() }
}

fn asked(flow: &Flow, subject: Option<&str>) -> Result<TokenRequest, SignError> {
    let client = flow.client(&material()).unwrap();
    let key = DpopKey::generate().unwrap();
    client.request(flow, subject, Some((&key, None)), [&MOMENT; 3])
}

fn text(secret: &Secret) -> &str {
    str::from_utf8(secret.expose()).unwrap()
}

fn field<'r>(request: &'r TokenRequest, wanted: &str) -> Option<&'r str> {
    request.fields.iter().find(|(name, _)| *name == wanted).map(|(_, value)| text(value))
}

/// RFC 6749 §4.4.2; the example of §2.3.1.
#[test]
fn client_credentials_are_asked_for_as_the_specification_shows() {
    let flow = TokenFlow { scopes: vec!["a".into(), "b:c".into()], ..flow() }.compile().unwrap();
    let request = asked(&flow, None).unwrap();
    let basic = "Basic czZCaGRSa3F0Mzo3RmpmcDBaQnIxS3REUmJuZlZkbUl3";
    assert_eq!(field(&request, "authorization"), Some(basic));
    assert_eq!(field(&request, "content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(text(&request.body), "grant_type=client_credentials&scope=a%20b%3Ac");
    assert_eq!((flow.authority(), flow.path()), ("as.example.com", "/token?tenant=a"));
}

#[test]
fn a_client_may_prove_itself_in_the_form() {
    let flow = TokenFlow { authentication: ClientAuthentication::Body, ..flow() };
    let request = asked(&flow.compile().unwrap(), None).unwrap();
    let form = "grant_type=client_credentials&client_id=s6BhdRkqt3&\
                client_secret=7Fjfp0ZBr1KtDRbnfVdmIw";
    assert_eq!((text(&request.body), field(&request, "authorization")), (form, None));
}

/// RFC 8693 §2.3.
#[test]
fn a_token_is_exchanged_as_the_specification_shows() {
    let flow = TokenFlow {
        audiences: vec!["data-api".into()],
        resources: vec!["https://backend.example.com/api".into()],
        subject_token_type: "urn:ietf:params:oauth:token-type:access_token".into(),
        ..exchange()
    };
    let flow = flow.compile().unwrap();
    let subject = "accVkjcJyb4BWCxGsndESCJQbdFMogUC5PbRDqceLTC";
    assert_eq!(
        text(&asked(&flow, Some(subject)).unwrap().body),
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&\
         subject_token=accVkjcJyb4BWCxGsndESCJQbdFMogUC5PbRDqceLTC&\
         subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aaccess_token&\
         audience=data-api&resource=https%3A%2F%2Fbackend.example.com%2Fapi"
    );
    assert_eq!(flow.subject_field(), Some("authorization"));
    let none = asked(&flow, None).unwrap_err();
    assert_eq!(none, SignError::NoComponent { component: "authorization".into() });
}

#[test]
fn assertions_say_who_asks_and_who_is_meant() {
    let flow = TokenFlow {
        grant: Grant::JwtBearer,
        authentication: ClientAuthentication::PrivateKeyJwt,
        private_key: KeySource { entry: "key".into(), encoding: KeyEncoding::Pem },
        private_key_algorithm: "EdDSA".into(),
        audiences: vec!["https://as.example.com".into()],
        claims: vec![("sub".into(), "robot".into()), ("tenant".into(), "t".into())],
        ..flow()
    };
    let request = asked(&flow.compile().unwrap(), None).unwrap();
    let claims = |name: &str| -> serde_json::Value {
        let (_, rest) = text(&request.body).split_once(&format!("{name}=")).unwrap();
        let token = rest.split('&').next().unwrap();
        let part = token.split('.').nth(1).unwrap();
        use base64::Engine as _;
        let part = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).unwrap();
        serde_json::from_slice(&part).unwrap()
    };
    let grant = claims("&assertion");
    assert_eq!(
        (&grant["iss"], &grant["sub"], &grant["aud"], &grant["tenant"]),
        (&"s6BhdRkqt3".into(), &"robot".into(), &"https://as.example.com".into(), &"t".into())
    );
    let proof = claims("client_assertion");
    let url = "https://as.example.com/token?tenant=a";
    assert_eq!((&proof["sub"], &proof["aud"]), (&"s6BhdRkqt3".into(), &url.into()));
    assert_eq!(proof["exp"], 1_700_000_060);
    assert!(text(&request.body).contains("client_assertion_type=urn%3Aietf%3A"));
}

fn answer(flow: TokenFlow, status: u16, body: &str) -> Result<Token, AnswerError> {
    flow.compile().unwrap().answer(status, body.as_bytes(), None, &MOMENT)
}

#[test]
fn a_token_is_taken_from_an_answer_that_has_one() {
    let body =
        r#"{"access_token":"2YotnFZFEjr1zCsicMWpAA","token_type":"Bearer","expires_in":3600}"#;
    let token = answer(flow(), 200, body).unwrap();
    assert_eq!(text(token.value()), "2YotnFZFEjr1zCsicMWpAA");
    assert_eq!((token.lifetime_seconds(), token.fresh_seconds()), (3600, 3570));
    assert!(!format!("{token:?}").contains("2Yotn"));
    let short = answer(flow(), 200, &body.replace("3600", "\"10\"")).unwrap();
    assert_eq!((short.lifetime_seconds(), short.fresh_seconds()), (10, 8));
}

/// `{"exp":1700000007}`.
#[test]
fn an_exchanged_token_does_not_outlive_its_subject() {
    let body = br#"{"access_token":"a","token_type":"N_A"}"#;
    let flow = exchange().compile().unwrap();
    let lifetime =
        |subject| flow.answer(200, body, Some(subject), &MOMENT).unwrap().lifetime_seconds();
    assert_eq!(lifetime("e30.eyJleHAiOjE3MDAwMDAwMDd9.x"), 7);
    assert_eq!(lifetime("opaque"), 300);
}

#[test]
fn an_answer_without_a_token_says_why() {
    let check = |status, body: &str, message: &str| {
        assert_eq!(answer(flow(), status, body).unwrap_err().to_string(), message, "{body}");
    };
    let refused = "the authorization server refuses:";
    check(400, r#"{"error":"invalid_grant"}"#, &format!("{refused} invalid_grant, status 400"));
    check(401, r#"{"error":"a b\n"}"#, &format!("{refused} unknown, status 401"));
    check(503, "busy", "the authorization server fails: status 503");
    check(302, "", "the authorization server fails: status 302");
    let has = "the authorization server's answer has";
    check(200, "<html>", &format!("{has} no JSON"));
    check(200, "{}", &format!("{has} no token_type"));
    let typed =
        |kind: &str, token: &str| format!(r#"{{"token_type":"{kind}","access_token":"{token}"}}"#);
    check(200, &typed("mac", "a"), &format!("{has} another token_type than was asked for"));
    check(200, &typed("DPoP", "a"), &format!("{has} another token_type than was asked for"));
    check(200, &typed("bearer", ""), &format!("{has} an access_token that cannot be sent"));
    check(200, &typed("bearer", "a\\nb"), &format!("{has} an access_token that cannot be sent"));
    // A token that is not bound, where one that is was asked for.
    let bound = TokenFlow { dpop: true, ..flow() };
    let error = answer(bound.clone(), 200, &typed("Bearer", "a")).unwrap_err();
    assert_eq!(error, AnswerError::Malformed { what: "another token_type than was asked for" });
    let nonce = answer(bound, 400, r#"{"error":"use_dpop_nonce"}"#).unwrap_err();
    assert_eq!(nonce, AnswerError::NonceWanted);
}

#[test]
fn a_token_is_carried_with_a_proof_where_it_is_bound() {
    let flow = TokenFlow { dpop: true, ..flow() }.compile().unwrap();
    let body = br#"{"token_type":"DPoP","access_token":"tok"}"#;
    let token = flow.answer(200, body, None, &MOMENT).unwrap();
    let key = DpopKey::generate().unwrap();
    let fields: [(&str, &[u8]); 2] = [("authorization", b"Bearer user"), ("DPoP", b"theirs")];
    let request = RequestView {
        method: "GET",
        scheme: "https",
        authority: "api.example",
        path_and_query: "/a?b",
        fields: &fields,
        body: None,
    };
    let edits = flow.carry(&token, &request, &MOMENT, Some((&key, Some("n")))).unwrap();
    assert_eq!(edits.removed(), ["authorization", "DPoP"]);
    let names: Vec<_> = edits.set().map(|(name, _)| name).collect();
    assert_eq!(names, ["authorization", "dpop"]);
    assert_eq!(edits.set().next().unwrap().1, b"DPoP tok");
    assert_eq!(flow.carry(&token, &request, &MOMENT, None).unwrap_err(), SignError::Library);
}

#[test]
fn a_flow_that_makes_no_sense_is_refused_as_a_whole() {
    let check = |change: fn(&mut TokenFlow), error: SchemeError| {
        let mut flow = flow();
        change(&mut flow);
        assert_eq!(flow.compile().unwrap_err(), error);
    };
    let missing = |what| SchemeError::Missing { what };
    for url in
        ["http://as.example/token", "https://", "https://u@h/", "https://h/#f", "https://h /"]
    {
        let flow = TokenFlow { token_url: url.into(), ..flow() };
        let name = url.to_owned();
        assert_eq!(flow.compile().unwrap_err(), SchemeError::Name { what: "token_url", name });
    }
    check(|flow| flow.client_id_key.clear(), missing("client_id_key"));
    check(|flow| flow.client_secret_key.clear(), missing("client_secret_key"));
    check(|flow| flow.grant = Grant::JwtBearer, missing("private_key_key"));
}

#[test]
fn only_the_same_may_be_used_again() {
    let (one, other) = (exchange().compile().unwrap(), flow().compile().unwrap());
    assert_eq!(one.key(Some("a")), exchange().compile().unwrap().key(Some("a")));
    assert_ne!(one.key(Some("a")), one.key(Some("b")));
    assert_ne!(one.key(None), one.key(Some("")));
    assert_ne!(one.key(None), other.key(None));
}
