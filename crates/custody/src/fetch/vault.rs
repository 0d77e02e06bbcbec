//! Values in HashiCorp Vault, by its HTTP API.
//!
//! In:    an address, a way to log in, a secret of KV version 2 or texts that `transit` decrypts.
//! Out:   entries, with Vault's number of the version, and the time when Vault deletes it, if it does.
//! Never: sends a token in clear text but on loopback, follows a redirect, or keeps a token that Vault
//!        refused.
//!
//! The API is that of <https://developer.hashicorp.com/vault/api-docs>: `auth/token`, `auth/approle`,
//! `auth/kubernetes`, `secret/kv/kv-v2`, `secret/transit`.

mod http;

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
    sync::Arc,
    time::Duration,
};

use ::http::Method;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::{sync::Mutex, time::Instant};
use tracing::{debug, warn};
use zeroize::Zeroizing;

use self::http::{Answer, Server};
use super::{Variables, malformed, time_of};
use crate::{Entries, FetchError, Fetched, Label, Value, VaultAuth, VaultEngine, VaultOrigin};

/// Servers and roles that we are logged in to at once; the least of them are dropped beyond.
const SESSIONS_MAX: usize = 256;
/// A token is renewed when this part of its life is left.
const RENEW_AT: u32 = 3;

/// What we are logged in to.
pub(super) struct Vault {
    variables: Variables,
    sessions: Mutex<HashMap<String, Arc<Mutex<Option<Session>>>>>,
}

/// A token, and how long it is good.
struct Session {
    token: Zeroizing<String>,
    /// When it ends; `None` for one without an end.
    ends: Option<Instant>,
    life: Duration,
    is_renewable: bool,
}

/// `auth` of an answer to a login or a renewal.
#[derive(Deserialize)]
struct Auth {
    client_token: Value,
    #[serde(default)]
    lease_duration: u64,
    #[serde(default)]
    renewable: bool,
}

#[derive(Deserialize)]
struct LoggedIn {
    auth: Auth,
}

/// `data` of an answer to `auth/token/lookup-self`.
#[derive(Deserialize)]
struct Looked {
    data: TokenFacts,
}

#[derive(Deserialize)]
struct TokenFacts {
    #[serde(default)]
    ttl: u64,
    #[serde(default)]
    renewable: bool,
}

#[derive(Deserialize)]
struct Kv {
    data: KvData,
}

#[derive(Deserialize)]
struct KvData {
    data: Option<Entries>,
    metadata: KvMetadata,
}

#[derive(Deserialize)]
struct KvMetadata {
    version: u64,
    #[serde(default)]
    deletion_time: String,
    #[serde(default)]
    destroyed: bool,
}

#[derive(Deserialize)]
struct Decrypted {
    data: Plain,
}

#[derive(Deserialize)]
struct Plain {
    plaintext: Value,
}

impl Vault {
    pub(super) fn new(variables: Variables) -> Self {
        Self { variables, sessions: Mutex::default() }
    }

    /// Logs in where we are not, and asks. A token that is refused is given up, and the question asked
    /// once more with a new one.
    pub(super) async fn fetch(&self, origin: &VaultOrigin) -> Result<Fetched, FetchError> {
        let server = Server::new(origin)?;
        let slot = self.slot(origin).await;
        let mut session = slot.lock().await;
        self.log_in(&server, origin, &mut session).await?;
        match ask(&server, origin, session.as_ref()).await {
            Err(FetchError::Denied { status: 403, .. }) => {
                *session = None;
                self.log_in(&server, origin, &mut session).await?;
                let again = ask(&server, origin, session.as_ref()).await;
                if matches!(again, Err(FetchError::Denied { .. })) {
                    *session = None;
                }
                again
            }
            other => other,
        }
    }

    /// Where the token of a server and a role is kept.
    async fn slot(&self, origin: &VaultOrigin) -> Arc<Mutex<Option<Session>>> {
        let key = format!("{} {:?} {:?}", origin.address, origin.namespace, origin.auth);
        let mut sessions = self.sessions.lock().await;
        if sessions.len() >= SESSIONS_MAX && !sessions.contains_key(&key) {
            sessions.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        Arc::clone(sessions.entry(key).or_default())
    }

    /// Sees to it that there is a token that is good for a while.
    async fn log_in(
        &self,
        server: &Server,
        origin: &VaultOrigin,
        session: &mut Option<Session>,
    ) -> Result<(), FetchError> {
        let given = match &origin.auth {
            VaultAuth::TokenFile(path) => Some(text(path)?),
            VaultAuth::TokenEnv(name) => {
                let value = (self.variables)(name);
                let value = value.ok_or_else(|| FetchError::NoVariable(name.clone()))?;
                Some(utf8(&value)?)
            }
            VaultAuth::AppRole { .. } | VaultAuth::Kubernetes { .. } => None,
        };
        if let (Some(given), Some(known)) = (&given, &*session)
            && *given != known.token
        {
            *session = None;
        }
        if let Some(known) = session.as_mut() {
            if !known.wants_renewal() {
                return Ok(());
            }
            match renew(server, known).await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    debug!(vault = server.name(), %error, "token not renewed");
                    if given.is_some() && known.is_good() {
                        return Ok(());
                    }
                    *session = None;
                }
            }
        }
        *session = Some(match given {
            Some(token) => look_up(server, token).await?,
            None => enter(server, &origin.auth).await?,
        });
        Ok(())
    }
}

impl Session {
    fn new(token: Zeroizing<String>, seconds: u64, is_renewable: bool) -> Self {
        let life = Duration::from_secs(seconds);
        // Vault says 0 for a token without an end.
        let ends = (seconds > 0).then(|| Instant::now() + life);
        Self { token, ends, life, is_renewable }
    }

    fn wants_renewal(&self) -> bool {
        self.ends.is_some_and(|ends| ends - Instant::now() < self.life / RENEW_AT)
    }

    fn is_good(&self) -> bool {
        self.ends.is_none_or(|ends| ends > Instant::now())
    }
}

/// Learns how long a token that we were given is good.
async fn look_up(server: &Server, token: Zeroizing<String>) -> Result<Session, FetchError> {
    let answer = server.ask(Method::GET, "auth/token/lookup-self", Some(&token), None).await?;
    let Looked { data } = answer.read("the token")?;
    Ok(Session::new(token, data.ttl, data.renewable))
}

async fn renew(server: &Server, session: &mut Session) -> Result<(), FetchError> {
    if !session.is_renewable {
        return Err(FetchError::Gone("the token's next life".to_owned()));
    }
    let path = "auth/token/renew-self";
    let answer = server.ask(Method::POST, path, Some(&session.token), Some(b"{}")).await?;
    let LoggedIn { auth } = answer.read("the renewal of the token")?;
    let before = session.life;
    *session = Session::new(utf8(&auth.client_token)?, auth.lease_duration, auth.renewable);
    // Near its greatest age a token's renewals get shorter; then a new login is better.
    if session.life < before / RENEW_AT {
        session.is_renewable = false;
        warn!(vault = server.name(), left = ?session.life, "the token nears its greatest age");
    }
    // The part of the life that is left counts from the first one.
    session.life = session.life.max(before.min(session.life * RENEW_AT));
    Ok(())
}

/// Logs in by a role.
async fn enter(server: &Server, auth: &VaultAuth) -> Result<Session, FetchError> {
    let (mount, members): (_, [(&str, Zeroizing<String>); 2]) = match auth {
        VaultAuth::AppRole { mount, role_id, secret_id_file } => {
            let role = Zeroizing::new(role_id.clone());
            (mount, [("role_id", role), ("secret_id", text(secret_id_file)?)])
        }
        VaultAuth::Kubernetes { mount, role, token_file } => {
            let role = Zeroizing::new(role.clone());
            (mount, [("role", role), ("jwt", text(token_file)?)])
        }
        VaultAuth::TokenFile(_) | VaultAuth::TokenEnv(_) => {
            return Err(FetchError::Malformed("a token needs no login".to_owned()));
        }
    };
    let body: BTreeMap<&str, &str> =
        members.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let body = Zeroizing::new(serde_json::to_vec(&body).map_err(|error| malformed(&error))?);
    let path = format!("auth/{}/login", trimmed(mount));
    let answer = server.ask(Method::POST, &path, None, Some(&body)).await?;
    let LoggedIn { auth } = answer.read("the login")?;
    let token = utf8(&auth.client_token)?;
    Ok(Session::new(token, auth.lease_duration, auth.renewable))
}

async fn ask(
    server: &Server,
    origin: &VaultOrigin,
    session: Option<&Session>,
) -> Result<Fetched, FetchError> {
    let token = session.map(|session| &session.token);
    match &origin.engine {
        VaultEngine::Kv { mount, path, keys } => {
            let what = format!("{}/{}", trimmed(mount), trimmed(path));
            let url = format!("{}/data/{}", trimmed(mount), trimmed(path));
            let answer = server.ask(Method::GET, &url, token, None).await?;
            kv(&answer, &what, keys)
        }
        VaultEngine::Transit { mount, key, ciphertexts } => {
            let url = format!("{}/decrypt/{}", trimmed(mount), trimmed(key));
            let mut entries = Entries::new();
            for (entry, ciphertext) in ciphertexts {
                let body = BTreeMap::from([("ciphertext", ciphertext.trim())]);
                let body = serde_json::to_vec(&body).map_err(|error| malformed(&error))?;
                let answer = server.ask(Method::POST, &url, token, Some(&body)).await?;
                let Decrypted { data } = answer.read("the decryption")?;
                let plain = STANDARD.decode(data.plaintext.expose());
                let plain = plain.map_err(|_| {
                    FetchError::Malformed("a plaintext is not in base64".to_owned())
                })?;
                entries.insert(entry.clone(), Value::new(plain));
            }
            Fetched::new(entries, &BTreeMap::new(), Label::None, None)
        }
    }
}

fn kv(answer: &Answer, what: &str, keys: &BTreeMap<String, String>) -> Result<Fetched, FetchError> {
    // A deleted version is a 404 with metadata; so is nothing at all, without.
    let Kv { data } = answer.read(what)?;
    let KvData { data: Some(entries), metadata } = data else {
        return Err(FetchError::Gone(what.to_owned()));
    };
    if metadata.destroyed {
        return Err(FetchError::Gone(what.to_owned()));
    }
    // With `delete_version_after` the newest version already knows its end.
    let end = match metadata.deletion_time.as_str() {
        "" => None,
        text => Some(time_of(text)?),
    };
    Fetched::new(entries, keys, Label::Told(metadata.version.to_string()), end)
}

impl Answer {
    /// Takes what is wanted from an answer of success.
    fn read<T: DeserializeOwned>(&self, what: &str) -> Result<T, FetchError> {
        let what = || what.to_owned();
        match self.status {
            200 => serde_json::from_slice(&self.body).map_err(|error| malformed(&error)),
            404 => Err(FetchError::Gone(what())),
            400 | 401 | 403 => Err(FetchError::Denied { what: what(), status: self.status }),
            300..=399 => Err(FetchError::Address(
                "it redirects us, and tokens do not follow: name the active node".to_owned(),
            )),
            status => Err(FetchError::Unavailable { what: what(), status }),
        }
    }
}

/// The text of a file, without white space around it.
fn text(path: &Path) -> Result<Zeroizing<String>, FetchError> {
    let text = fs::read_to_string(path).map(Zeroizing::new);
    let text = text.map_err(|error| FetchError::Unreadable { path: path.to_owned(), error })?;
    Ok(Zeroizing::new(text.trim().to_owned()))
}

fn utf8(value: &Value) -> Result<Zeroizing<String>, FetchError> {
    let text = std::str::from_utf8(value.expose());
    let text = text.map_err(|_| FetchError::Malformed("a token is no text".to_owned()))?;
    Ok(Zeroizing::new(text.trim().to_owned()))
}

fn trimmed(path: &str) -> &str {
    path.trim_matches('/')
}
