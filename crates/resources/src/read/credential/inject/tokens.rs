//! Reads the kinds that carry a token: one that is fetched, one that is signed here.

use super::{
    AUTHORIZATION, BTreeMap, ClientAuthentication, Duration, Fields, JwtAlgorithm,
    JwtSignInjection, KeyEncoding, Oauth2Grant, Oauth2Injection, SecretKey, Use, checked, entry_or,
    key, read_fields, read_names, secret_header, template,
};

read_fields! {
    Oauth2Injection => oauth2,
    JwtSignInjection => jwt_sign,
}

read_names! {
    Oauth2Grant {
        "clientCredentials" => Oauth2Grant::ClientCredentials,
        "tokenExchange" => Oauth2Grant::TokenExchange,
        "jwtBearer" => Oauth2Grant::JwtBearer,
    }
    ClientAuthentication {
        "basic" => ClientAuthentication::Basic,
        "body" => ClientAuthentication::Body,
        "privateKeyJwt" => ClientAuthentication::PrivateKeyJwt,
        "none" => ClientAuthentication::None,
    }
    JwtAlgorithm {
        "HS256" => JwtAlgorithm::Hs256,
        "RS256" => JwtAlgorithm::Rs256,
        "PS256" => JwtAlgorithm::Ps256,
        "ES256" => JwtAlgorithm::Es256,
        "ES384" => JwtAlgorithm::Es384,
        "EdDSA" => JwtAlgorithm::EdDsa,
    }
}

/// The type of a user's token, RFC 8693 §3.
const JWT_TYPE: &str = "urn:ietf:params:oauth:token-type:jwt";

/// Parameters of the form that other fields say.
const OWN_PARAMETERS: [&str; 11] = [
    "assertion",
    "audience",
    "client_assertion",
    "client_assertion_type",
    "client_id",
    "client_secret",
    "grant_type",
    "requested_token_type",
    "scope",
    "subject_token",
    "subject_token_type",
];

/// Life of a signed token where none is written, and the longest.
const LIFETIME: Duration = Duration::from_secs(60);
const LIFETIME_MAX: Duration = Duration::from_secs(3600);

fn oauth2(fields: &mut Fields<'_, '_>) -> Option<Oauth2Injection> {
    let token_url = match fields.get("tokenUrl") {
        Some(value) => checked(&value, token_url),
        None => {
            fields.missing("tokenUrl");
            None
        }
    };
    let grant: Oauth2Grant = fields.or_default("grant");
    let client_authentication: ClientAuthentication = fields.or_default("clientAuthentication");
    if grant == Oauth2Grant::ClientCredentials
        && client_authentication == ClientAuthentication::None
        && let Some(value) = fields.get("clientAuthentication")
    {
        value.fault::<()>("a public client has no credentials of its own (RFC 6749 §4.4)");
    }
    let dpop: bool = fields.or_default("dpop");
    let subject_header =
        secret_header(fields, "subjectHeader").unwrap_or_else(|| AUTHORIZATION.to_owned());
    let parameters: BTreeMap<String, String> = fields.or_default("parameters");
    for (name, value) in
        fields.get("parameters").and_then(|value| value.entries()).unwrap_or_default()
    {
        if OWN_PARAMETERS.contains(&name) {
            value.fault::<()>(format!("{name} has a field of its own"));
        }
    }
    if grant != Oauth2Grant::TokenExchange {
        let why = "only grant: tokenExchange has a subject";
        fields.useless(&["subjectHeader", "subjectTokenType", "requestedTokenType"], why);
    }
    Some(Oauth2Injection {
        grant,
        client_authentication,
        client_id_key: entry_or(fields, "clientId", "clientId"),
        client_secret_key: entry_or(fields, "clientSecret", "clientSecret"),
        private_key_key: entry_or(fields, "privateKey", "privateKey"),
        private_key_algorithm: fields.opt("privateKeyAlgorithm").unwrap_or(JwtAlgorithm::Rs256),
        private_key_id: fields.opt("privateKeyId"),
        scopes: fields.or_default("scopes"),
        audiences: fields.or_default("audiences"),
        resources: fields.or_default("resources"),
        subject_header,
        subject_token_type: fields.opt("subjectTokenType").unwrap_or_else(|| JWT_TYPE.to_owned()),
        requested_token_type: fields.opt("requestedTokenType"),
        claims: fields.or_default("claims"),
        parameters,
        dpop,
        header: secret_header(fields, "header").unwrap_or_else(|| AUTHORIZATION.to_owned()),
        prefix: fields
            .opt("prefix")
            .unwrap_or_else(|| if dpop { "DPoP " } else { "Bearer " }.to_owned()),
        token_url: token_url?,
    })
}

fn token_url(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("https://").ok_or_else(|| {
        format!("{text:?} must begin with https://: the client's secret goes there")
    })?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.is_empty() || authority.contains('@') || text.contains(['#', ' ']) {
        return Err(format!("{text:?} is not a URL"));
    }
    Ok(text.to_owned())
}

fn jwt_sign(fields: &mut Fields<'_, '_>) -> Option<JwtSignInjection> {
    let algorithm: Option<JwtAlgorithm> = fields.req("algorithm");
    let encoding = match algorithm {
        Some(JwtAlgorithm::Hs256) => KeyEncoding::Raw,
        _ => KeyEncoding::Pem,
    };
    let key: Option<SecretKey> = key(fields, "privateKey", encoding);
    let lifetime = fields.opt("lifetime").unwrap_or(LIFETIME);
    if (lifetime > LIFETIME_MAX || lifetime < Duration::from_secs(1))
        && let Some(value) = fields.get("lifetime")
    {
        value.fault::<()>("a token that is made for each request lives a second to an hour");
    }
    let claims = fields.get("claims").and_then(|value| value.entries()).unwrap_or_default();
    let claims: BTreeMap<String, String> = claims
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), template(&value, Use::Made)?)))
        .collect();
    Some(JwtSignInjection {
        key_id: fields.opt("keyId"),
        issuer: fields.or_default("issuer"),
        subject: fields.or_default("subject"),
        audiences: fields.or_default("audiences"),
        lifetime,
        claims,
        header: secret_header(fields, "header").unwrap_or_else(|| AUTHORIZATION.to_owned()),
        prefix: fields.opt("prefix").unwrap_or_else(|| "Bearer ".to_owned()),
        algorithm: algorithm?,
        key: key?,
    })
}
