//! Tokens that an authorization server gives: what is asked of it, and what its answer says.
//!
//! In:    a [`TokenFlow`] as written, material, the subject's token; later the server's answer.
//! Out:   the form to post (RFC 6749 §4.4, RFC 8693, RFC 7523); a [`Token`]; the edits that carry it.
//! Never: speaks to the server; takes a token of another type than was asked for, or one that cannot
//!        stand in a field; repeats what the server wrote but for its error's code.
//!
//! Start at [`TokenFlow::compile`], then [`Flow::client`], [`TokenClient::request`], [`Flow::answer`].

mod answer;

use aws_lc_rs::digest;
use zeroize::Zeroizing;

pub use answer::{ANSWER_BYTES_MAX, AnswerError, Token};

use crate::{
    Assertion, AssertionSigner, DpopKey, Edits, KeySource, Material, MaterialError, Moment, Owned,
    ProofOf, RequestView, SchemeError, Secret, SignError,
    digest::base64,
    query,
    scheme::{field_name, prefix, required},
    view::View,
};

/// How long an assertion is good. RFC 7523 §3 asks for a short time; clocks differ by some seconds.
const ASSERTION_SECONDS: u32 = 60;

/// RFC 7523 §2.2.
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// What a subject's token is where nobody says.
const SUBJECT_TOKEN_TYPE: &str = "urn:ietf:params:oauth:token-type:jwt";

/// What is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Grant {
    /// RFC 6749 §4.4.
    #[default]
    ClientCredentials,
    /// RFC 8693: one token for another.
    TokenExchange,
    /// RFC 7523 §2.1: an assertion that is signed here.
    JwtBearer,
}

/// How a client proves who it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ClientAuthentication {
    /// RFC 6749 §2.3.1, in the field `authorization`.
    #[default]
    Basic,
    /// RFC 6749 §2.3.1, in the form.
    Body,
    /// RFC 7523 §2.2.
    PrivateKeyJwt,
    /// Not: a public client, which only says its name.
    None,
}

/// How a token is had, as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenFlow {
    /// The token endpoint: `https://HOST[:PORT]/PATH`.
    pub token_url: String,
    /// What is asked.
    pub grant: Grant,
    /// How the client proves who it is.
    pub authentication: ClientAuthentication,
    /// The entry of the secret; empty only where nobody asks for a client.
    pub client_id_key: String,
    /// The entry of the secret.
    pub client_secret_key: String,
    /// The key of assertions.
    pub private_key: KeySource,
    /// Its algorithm, as in RFC 7518 §3.1.
    pub private_key_algorithm: String,
    /// `kid` of assertions; empty leaves it out.
    pub private_key_id: String,
    /// RFC 6749 §3.3.
    pub scopes: Vec<String>,
    /// RFC 8693 §2.1; of a [`Grant::JwtBearer`] assertion, `aud`.
    pub audiences: Vec<String>,
    /// RFC 8707.
    pub resources: Vec<String>,
    /// The field with the subject's token; empty is `authorization`.
    pub subject_header: String,
    /// What it is; empty is a JWT.
    pub subject_token_type: String,
    /// What is wanted; empty leaves it out.
    pub requested_token_type: String,
    /// Claims of a [`Grant::JwtBearer`] assertion.
    pub claims: Vec<(String, String)>,
    /// RFC 9449: the token is bound to the key of whoever asks.
    pub dpop: bool,
    /// The field that carries the token; empty is `authorization`.
    pub header: String,
    /// Before the token; where field and prefix are both empty `Bearer `, or `DPoP `.
    pub prefix: String,
    /// More of the form.
    pub parameters: Vec<(String, String)>,
}

/// A flow, checked.
#[derive(Clone, Debug)]
pub struct Flow {
    flow: TokenFlow,
    authority: String,
    path: String,
    owned: Owned,
    fingerprint: [u8; 32],
}

impl TokenFlow {
    /// Checks a flow as a whole.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn compile(mut self) -> Result<Flow, SchemeError> {
        let url = || SchemeError::Name { what: "token_url", name: self.token_url.clone() };
        let rest = self.token_url.strip_prefix("https://").ok_or_else(url)?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let is_bad = |byte: u8| byte <= 0x20 || byte >= 0x7f || b"#@\\".contains(&byte);
        if authority.is_empty() || authority.contains('?') || rest.bytes().any(is_bad) {
            return Err(url());
        }
        let (authority, path) = (authority.to_owned(), path.to_owned());
        let proves = self.authentication != ClientAuthentication::None;
        if proves || (!self.client_secret_key.is_empty() && self.client_id_key.is_empty()) {
            required("client_id_key", &self.client_id_key)?;
        }
        if matches!(self.authentication, ClientAuthentication::Basic | ClientAuthentication::Body) {
            required("client_secret_key", &self.client_secret_key)?;
        }
        if self.signs() {
            required("private_key_key", &self.private_key.entry)?;
            let algorithm = self.private_key_algorithm.clone();
            Assertion { algorithm, ..Assertion::default() }.check()?;
        }
        if self.grant == Grant::JwtBearer && self.audiences.is_empty() {
            self.audiences.push(self.token_url.clone());
        }
        prefix("prefix", &self.prefix)?;
        if self.header.is_empty() && self.prefix.is_empty() {
            if self.dpop { "DPoP " } else { "Bearer " }.clone_into(&mut self.prefix);
        }
        let header = if self.header.is_empty() { "authorization" } else { &self.header };
        self.header = field_name("header", header)?;
        let subject =
            if self.subject_header.is_empty() { "authorization" } else { &self.subject_header };
        self.subject_header = field_name("subject_header", subject)?;
        let mut fields = vec![self.header.clone()];
        if self.dpop {
            fields.push("dpop".to_owned());
        }
        let owned = Owned { fields, ..Owned::default() };
        let text = format!("{self:?}");
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest::digest(&digest::SHA256, text.as_bytes()).as_ref());
        let path = if path.is_empty() { "/".to_owned() } else { path };
        Ok(Flow { flow: self, authority, path, owned, fingerprint })
    }

    /// Whether a key signs assertions.
    fn signs(&self) -> bool {
        self.grant == Grant::JwtBearer || self.authentication == ClientAuthentication::PrivateKeyJwt
    }
}

impl Flow {
    /// The token endpoint's host, with its port if it has one.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The token endpoint's path and query.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What of a request is its own. The subject's field is not, where another carries the token.
    #[must_use]
    pub fn owned(&self) -> &Owned {
        &self.owned
    }

    /// The field, in lower case, with the token that is exchanged; nothing where none is.
    #[must_use]
    pub fn subject_field(&self) -> Option<&str> {
        let is_wanted = self.flow.grant == Grant::TokenExchange;
        is_wanted.then_some(self.flow.subject_header.as_str())
    }

    /// Whether tokens are bound to a key.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        self.flow.dpop
    }

    /// Which tokens may be used again: those of the same flow, subject and version of the secret.
    #[must_use]
    pub fn key(&self, subject: Option<&str>) -> [u8; 32] {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&self.fingerprint);
        if let Some(subject) = subject {
            context.update(b"\0");
            context.update(subject.as_bytes());
        }
        let mut key = [0; 32];
        key.copy_from_slice(context.finish().as_ref());
        key
    }

    /// Reads the keys of one version of the secret.
    ///
    /// # Errors
    ///
    /// Why the secret does not fit.
    pub fn client(&self, material: &Material) -> Result<TokenClient, MaterialError> {
        let flow = &self.flow;
        let text = |entry: &str| match entry {
            "" => Ok(Secret::new(Vec::new())),
            entry => Ok(Secret::new(material.text(entry)?.as_bytes().to_vec())),
        };
        let id = text(&flow.client_id_key)?;
        let secret = text(&flow.client_secret_key)?;
        let signer = |issuer: &Secret, audiences: &[String], claims: &[(String, String)]| {
            let issuer = String::from_utf8_lossy(issuer.expose()).into_owned();
            let own = |name: &str| claims.iter().find(|(known, _)| known == name);
            let subject = own("sub").map_or(issuer.clone(), |(_, value)| value.clone());
            let issuer = own("iss").map_or(issuer, |(_, value)| value.clone());
            let rest = claims.iter().filter(|(name, _)| name != "sub" && name != "iss");
            let assertion = Assertion {
                algorithm: flow.private_key_algorithm.clone(),
                key: flow.private_key.clone(),
                key_id: flow.private_key_id.clone(),
                issuer,
                subject,
                audiences: audiences.to_vec(),
                lifetime_seconds: ASSERTION_SECONDS,
                claims: rest.cloned().collect(),
            };
            assertion.signer(material)
        };
        let proof = match flow.authentication {
            ClientAuthentication::PrivateKeyJwt => {
                Some(signer(&id, std::slice::from_ref(&flow.token_url), &[])?)
            }
            _ => None,
        };
        let grant = match flow.grant {
            Grant::JwtBearer => Some(signer(&id, &flow.audiences, &flow.claims)?),
            _ => None,
        };
        Ok(TokenClient { id, secret, proof, grant })
    }

    /// The edits that send a request with its token.
    ///
    /// # Errors
    ///
    /// Why it must not be sent.
    pub fn carry(
        &self,
        token: &Token,
        request: &RequestView<'_>,
        moment: &Moment,
        dpop: Option<(&DpopKey, Option<&str>)>,
    ) -> Result<Edits, SignError> {
        let view = View::new(request, moment, &self.owned)?;
        let mut edits = view.edits()?;
        let value = [self.flow.prefix.as_bytes(), token.value().expose()].concat();
        edits.set_field(&self.flow.header, value)?;
        if self.flow.dpop {
            let (key, nonce) = dpop.ok_or(SignError::Library)?;
            let token = std::str::from_utf8(token.value().expose());
            let target = if view.target() == "*" { "" } else { view.target() };
            let url = format!("{}://{}{target}", request.scheme, request.authority);
            let of = ProofOf {
                method: request.method,
                url: &url,
                token: Some(token.map_err(|_| SignError::Library)?),
                nonce,
            };
            edits.set_field("dpop", key.proof(of, moment)?.into_bytes())?;
        }
        Ok(edits)
    }
}

/// A client of an authorization server, with one version of its secret.
pub struct TokenClient {
    id: Secret,
    secret: Secret,
    proof: Option<AssertionSigner>,
    grant: Option<AssertionSigner>,
}

/// What is posted to the token endpoint.
#[derive(Debug)]
pub struct TokenRequest {
    /// Fields besides those of the body's length; in lower case.
    pub fields: Vec<(&'static str, Secret)>,
    /// The form.
    pub body: Secret,
}

/// A form that is written (WHATWG URL §5.2), without copies that stay in memory.
struct Form(Zeroizing<Vec<u8>>);

impl Form {
    fn add(&mut self, name: &str, value: &[u8]) {
        if !self.0.is_empty() {
            self.0.push(b'&');
        }
        self.0.extend_from_slice(query::encode(name.as_bytes(), b"").as_bytes());
        self.0.push(b'=');
        let value = Zeroizing::new(query::encode(value, b""));
        self.0.extend_from_slice(value.as_bytes());
    }
}

impl TokenClient {
    /// What to post for a token. The subject is the token that is exchanged, if one is.
    /// The moments are of the grant's assertion, of the client's and of the proof: the nonce of each
    /// must be its own.
    ///
    /// # Errors
    ///
    /// Why an assertion or a proof cannot be made.
    pub fn request(
        &self,
        flow: &Flow,
        subject: Option<&str>,
        dpop: Option<(&DpopKey, Option<&str>)>,
        moments: [&Moment; 3],
    ) -> Result<TokenRequest, SignError> {
        let of = &flow.flow;
        let mut form = Form(Zeroizing::default());
        self.grant(of, subject, moments[0], &mut form)?;
        for resource in &of.resources {
            form.add("resource", resource.as_bytes());
        }
        if !of.scopes.is_empty() {
            form.add("scope", of.scopes.join(" ").as_bytes());
        }
        for (name, value) in &of.parameters {
            form.add(name, value.as_bytes());
        }
        let text = |text: &str| Secret::new(text.as_bytes().to_vec());
        let mut fields = vec![
            ("content-type", text("application/x-www-form-urlencoded")),
            ("accept", text("application/json")),
        ];
        match of.authentication {
            ClientAuthentication::Basic => fields.push(("authorization", self.basic())),
            ClientAuthentication::Body => {
                form.add("client_id", self.id.expose());
                form.add("client_secret", self.secret.expose());
            }
            ClientAuthentication::PrivateKeyJwt => {
                form.add("client_id", self.id.expose());
                form.add("client_assertion_type", ASSERTION_TYPE.as_bytes());
                let signer = self.proof.as_ref().ok_or(SignError::Library)?;
                form.add("client_assertion", signer.sign(moments[1])?.expose());
            }
            ClientAuthentication::None if !self.id.expose().is_empty() => {
                form.add("client_id", self.id.expose());
            }
            ClientAuthentication::None => {}
        }
        if of.dpop {
            let (key, nonce) = dpop.ok_or(SignError::Library)?;
            let of = ProofOf { method: "POST", url: &of.token_url, token: None, nonce };
            fields.push(("dpop", text(&key.proof(of, moments[2])?)));
        }
        Ok(TokenRequest { fields, body: Secret::new(std::mem::take(&mut *form.0)) })
    }

    /// What is asked: the parameters of the grant.
    fn grant(
        &self,
        of: &TokenFlow,
        subject: Option<&str>,
        moment: &Moment,
        form: &mut Form,
    ) -> Result<(), SignError> {
        match of.grant {
            Grant::ClientCredentials => form.add("grant_type", b"client_credentials"),
            Grant::TokenExchange => {
                form.add("grant_type", b"urn:ietf:params:oauth:grant-type:token-exchange");
                let subject = subject.ok_or_else(|| SignError::NoComponent {
                    component: of.subject_header.clone(),
                })?;
                form.add("subject_token", subject.as_bytes());
                let kind = if of.subject_token_type.is_empty() {
                    SUBJECT_TOKEN_TYPE
                } else {
                    &of.subject_token_type
                };
                form.add("subject_token_type", kind.as_bytes());
                if !of.requested_token_type.is_empty() {
                    form.add("requested_token_type", of.requested_token_type.as_bytes());
                }
            }
            Grant::JwtBearer => {
                form.add("grant_type", b"urn:ietf:params:oauth:grant-type:jwt-bearer");
                let signer = self.grant.as_ref().ok_or(SignError::Library)?;
                form.add("assertion", signer.sign(moment)?.expose());
            }
        }
        // Of an assertion the audience is a claim.
        if of.grant != Grant::JwtBearer {
            of.audiences.iter().for_each(|audience| form.add("audience", audience.as_bytes()));
        }
        Ok(())
    }

    /// RFC 6749 §2.3.1: both are encoded as a form's values before they are put together.
    fn basic(&self) -> Secret {
        let part = |value: &Secret| Zeroizing::new(query::encode(value.expose(), b""));
        let pair = Zeroizing::new([&*part(&self.id), ":", &*part(&self.secret)].concat());
        let value = Zeroizing::new(base64(pair.as_bytes()));
        Secret::new(["Basic ", &*value].concat().into_bytes())
    }
}

#[cfg(test)]
mod tests;
