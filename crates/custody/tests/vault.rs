//! The Vault client against a stand-in for Vault that another client (hvac) has judged:
//! `tests/e2e/fake_vault.py`, `tests/e2e/check_fake_vault.py`.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::{Value as Json, json};
use sluis_custody::{
    FetchError, Fetched, Fetcher, Label, Origin, Reason, Value, VaultAuth, VaultEngine, VaultOrigin,
};

const ROOT: &str = "hvs.root";

/// A running stand-in; ended when dropped.
struct FakeVault {
    process: Child,
    port: u16,
    folder: tempfile::TempDir,
}

impl Drop for FakeVault {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl FakeVault {
    fn start(arguments: &[&str]) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/e2e/fake_vault.py");
        let mut process = Command::new("python3")
            .arg(script)
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 runs");
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().strip_prefix("listening ").expect("a port").parse().unwrap();
        Self { process, port, folder: tempfile::tempdir().unwrap() }
    }

    /// Asks as an operator would, or changes the world (`/_test/…`).
    fn ask(&self, method: &str, path: &str, namespace: &str, body: &Json) -> Json {
        let body = body.to_string();
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-vault-token: {ROOT}\r\n\
             x-vault-namespace: {namespace}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let body = text.split_once("\r\n\r\n").unwrap().1;
        serde_json::from_str(body).unwrap_or(Json::Null)
    }

    fn write(&self, path: &str, data: &Json) {
        self.ask("POST", &format!("/v1/secret/data/{path}"), "", &json!({"data": data}));
    }

    fn world(&self, what: &str, body: &Json) -> Json {
        self.ask("POST", &format!("/_test/{what}"), "", body)
    }

    /// How often a path was asked for.
    fn asked(&self, path: &str) -> usize {
        let requests = self.world("requests", &json!({}));
        requests.as_array().unwrap().iter().filter(|one| one[1] == path).count()
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn kv(&self, auth: VaultAuth, path: &str) -> VaultOrigin {
        VaultOrigin {
            address: format!("http://127.0.0.1:{}", self.port),
            namespace: None,
            roots: None,
            auth,
            engine: VaultEngine::Kv {
                mount: "secret".to_owned(),
                path: path.to_owned(),
                keys: BTreeMap::new(),
            },
        }
    }

    fn root(&self) -> VaultAuth {
        VaultAuth::TokenFile(self.file("token", &format!("{ROOT}\n")))
    }

    fn app_role(&self) -> VaultAuth {
        self.ask("POST", "/v1/auth/approle/role/gate", "", &json!({}));
        let made = self.ask("POST", "/v1/auth/approle/role/gate/secret-id", "", &json!({}));
        let secret = made["data"]["secret_id"].as_str().unwrap();
        VaultAuth::AppRole {
            mount: "approle".to_owned(),
            role_id: "role-gate".to_owned(),
            secret_id_file: self.file("secret-id", secret),
        }
    }
}

fn fetcher() -> Fetcher {
    Fetcher::new(|name| (name == "VAULT_TOKEN").then(|| Value::new(ROOT)))
}

async fn fetch(fetcher: &Fetcher, origin: VaultOrigin) -> Result<Fetched, FetchError> {
    fetcher.fetch(&Origin::Vault(Box::new(origin))).await
}

fn value<'a>(fetched: &'a Fetched, entry: &str) -> &'a [u8] {
    fetched.entries[entry].expose()
}

#[track_caller]
fn refused(answer: Result<Fetched, FetchError>, reason: Reason) -> String {
    let error = answer.unwrap_err();
    assert_eq!(error.reason(), reason, "{error}");
    let text = format!("{error} {error:?}");
    assert!(!text.contains("s3cret") && !text.contains(ROOT), "{text}");
    text
}

#[tokio::test]
async fn the_newest_version_is_read_with_its_number() {
    let vault = FakeVault::start(&[]);
    vault.write("app/api", &json!({"key": "s3cret", "port": 7}));
    let fetcher = fetcher();
    let read = fetch(&fetcher, vault.kv(vault.root(), "app/api")).await.unwrap();
    assert_eq!((value(&read, "key"), value(&read, "port")), (&b"s3cret"[..], &b"7"[..]));
    assert_eq!((read.label, read.not_after), (Label::Told("1".to_owned()), None));
    vault.write("app/api", &json!({"key": "next"}));
    let by_variable = VaultAuth::TokenEnv("VAULT_TOKEN".to_owned());
    let read = fetch(&fetcher, vault.kv(by_variable, "app/api")).await.unwrap();
    assert_eq!(value(&read, "key"), b"next");
    assert_eq!(read.label, Label::Told("2".to_owned()));
}

#[tokio::test]
async fn a_version_that_vault_will_delete_has_that_end() {
    let vault = FakeVault::start(&[]);
    let end =
        json!({"data": {"key": "x"}, "options": {"test_deletion_time": "2031-01-01T00:00:00Z"}});
    vault.ask("POST", "/v1/secret/data/a", "", &end);
    let read = fetch(&fetcher(), vault.kv(vault.root(), "a")).await.unwrap();
    assert!(read.not_after.is_some());
}

#[tokio::test]
async fn what_is_absent_or_deleted_is_missing_and_what_has_parts_is_malformed() {
    let vault = FakeVault::start(&[]);
    let fetcher = fetcher();
    refused(fetch(&fetcher, vault.kv(vault.root(), "absent")).await, Reason::Missing);
    vault.write("gone", &json!({"key": "s3cret"}));
    vault.ask("DELETE", "/v1/secret/data/gone", "", &json!({}));
    refused(fetch(&fetcher, vault.kv(vault.root(), "gone")).await, Reason::Missing);
    vault.write("deep", &json!({"key": {"of": "s3cret"}}));
    refused(fetch(&fetcher, vault.kv(vault.root(), "deep")).await, Reason::Malformed);
}

#[tokio::test]
async fn a_role_logs_in_once_renews_and_logs_in_again_when_its_token_is_revoked() {
    let vault = FakeVault::start(&[]);
    vault.write("a", &json!({"key": "s3cret"}));
    let (fetcher, auth) = (fetcher(), vault.app_role());
    for _ in 0..3 {
        fetch(&fetcher, vault.kv(auth.clone(), "a")).await.unwrap();
    }
    let login = "/v1/auth/approle/login";
    assert_eq!(vault.asked(login), 1, "the token is kept");
    vault.world("revoke", &json!({}));
    fetch(&fetcher, vault.kv(auth.clone(), "a")).await.unwrap();
    assert_eq!(vault.asked(login), 2);
    // A token that lives a moment is renewed, or its role logs in again, and nobody notices.
    vault.world("life", &json!({"seconds": 1}));
    vault.world("revoke", &json!({}));
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while vault.asked("/v1/auth/token/renew-self") == 0 {
        assert!(std::time::Instant::now() < deadline, "never renewed");
        fetch(&fetcher, vault.kv(auth.clone(), "a")).await.unwrap();
    }
}

#[tokio::test]
async fn a_wrong_secret_id_or_token_is_denied() {
    let vault = FakeVault::start(&[]);
    vault.write("a", &json!({"key": "s3cret"}));
    let fetcher = fetcher();
    let VaultAuth::AppRole { mount, role_id, .. } = vault.app_role() else { panic!() };
    let secret_id_file = vault.file("wrong", "s3cret-id");
    let wrong = VaultAuth::AppRole { mount, role_id, secret_id_file };
    refused(fetch(&fetcher, vault.kv(wrong, "a")).await, Reason::Denied);
    let token = VaultAuth::TokenFile(vault.file("token", "hvs.s3cret"));
    refused(fetch(&fetcher, vault.kv(token, "a")).await, Reason::Denied);
    let absent = VaultAuth::TokenFile(vault.folder.path().join("absent"));
    refused(fetch(&fetcher, vault.kv(absent, "a")).await, Reason::Missing);
}

#[tokio::test]
async fn a_service_accounts_token_logs_in() {
    let vault = FakeVault::start(&[]);
    vault.write("a", &json!({"key": "s3cret"}));
    vault.ask("POST", "/v1/auth/k8s/role/gate", "", &json!({"test_jwt": "a.b.c"}));
    let auth = |jwt: &str| VaultAuth::Kubernetes {
        mount: "k8s".to_owned(),
        role: "gate".to_owned(),
        token_file: vault.file("jwt", jwt),
    };
    let fetcher = fetcher();
    fetch(&fetcher, vault.kv(auth("a.b.c\n"), "a")).await.unwrap();
    let other = Fetcher::new(|_| None);
    refused(fetch(&other, vault.kv(auth("x.y.z"), "a")).await, Reason::Denied);
}

#[tokio::test]
async fn a_namespace_is_sent_and_texts_of_transit_are_decrypted() {
    let vault = FakeVault::start(&[]);
    let data = json!({"data": {"key": "of the team"}});
    vault.ask("POST", "/v1/secret/data/a", "team", &data);
    let fetcher = fetcher();
    let mut origin = vault.kv(vault.root(), "a");
    refused(fetch(&fetcher, origin.clone()).await, Reason::Missing);
    origin.namespace = Some("team".to_owned());
    assert_eq!(value(&fetch(&fetcher, origin).await.unwrap(), "key"), b"of the team");

    vault.ask("POST", "/v1/transit/keys/k", "", &json!({}));
    let plain = json!({"plaintext": "czNjcmV0"});
    let sealed = vault.ask("POST", "/v1/transit/encrypt/k", "", &plain);
    let ciphertext = sealed["data"]["ciphertext"].as_str().unwrap().to_owned();
    let mut origin = vault.kv(vault.root(), "a");
    let transit = |ciphertext: String| VaultEngine::Transit {
        mount: "transit".to_owned(),
        key: "k".to_owned(),
        ciphertexts: [("key".to_owned(), ciphertext)].into(),
    };
    origin.engine = transit(ciphertext);
    assert_eq!(value(&fetch(&fetcher, origin.clone()).await.unwrap(), "key"), b"s3cret");
    origin.engine = transit("nonsense".to_owned());
    refused(fetch(&fetcher, origin).await, Reason::Denied);
}

#[tokio::test]
async fn a_vault_that_is_down_sealed_or_somewhere_else_is_told_apart() {
    let vault = FakeVault::start(&[]);
    vault.write("a", &json!({"key": "s3cret"}));
    let (fetcher, origin) = (fetcher(), vault.kv(vault.root(), "a"));
    vault.world("down", &json!({"status": 503}));
    let text = refused(fetch(&fetcher, origin.clone()).await, Reason::Unreachable);
    assert!(text.contains("503"), "{text}");
    vault.world("down", &json!({"status": 307}));
    let text = refused(fetch(&fetcher, origin.clone()).await, Reason::Denied);
    assert!(text.contains("redirects"), "{text}");
    vault.world("up", &json!({}));
    fetch(&fetcher, origin.clone()).await.unwrap();
    let (port, mut origin) = (vault.port, origin);
    let token = fs::read_to_string(vault.folder.path().join("token")).unwrap();
    drop(vault);
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("token"), token).unwrap();
    origin.auth = VaultAuth::TokenFile(folder.path().join("token"));
    let text = refused(fetch(&fetcher, origin).await, Reason::Unreachable);
    assert!(text.contains(&port.to_string()), "{text}");
}

#[tokio::test]
async fn a_token_goes_in_clear_text_to_loopback_only() {
    let vault = FakeVault::start(&[]);
    let fetcher = fetcher();
    for address in [
        "http://vault.example.com:8200",
        "http://10.0.0.1",
        "ftp://127.0.0.1",
        "127.0.0.1",
        "https://me@x",
    ] {
        let origin = VaultOrigin { address: address.to_owned(), ..vault.kv(vault.root(), "a") };
        refused(fetch(&fetcher, origin).await, Reason::Denied);
    }
}

#[tokio::test]
async fn the_certificate_must_lead_to_the_roots_and_name_the_host() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    fs::write(path("cert.pem"), made.cert.pem()).unwrap();
    fs::write(path("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let other = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    fs::write(path("other.pem"), other.cert.pem()).unwrap();
    let vault = FakeVault::start(&["--cert", &path("cert.pem"), "--key", &path("key.pem")]);
    let fetcher = fetcher();
    let origin = |host: &str, roots: &str| VaultOrigin {
        address: format!("https://{host}:{}", vault.port),
        roots: Some(path(roots).into()),
        ..vault.kv(vault.root(), "absent")
    };
    // It got as far as to be told that there is nothing.
    refused(fetch(&fetcher, origin("127.0.0.1", "cert.pem")).await, Reason::Missing);
    refused(fetch(&fetcher, origin("127.0.0.1", "other.pem")).await, Reason::Unreachable);
    refused(fetch(&fetcher, origin("localhost", "cert.pem")).await, Reason::Unreachable);
    refused(fetch(&fetcher, origin("127.0.0.1", "absent.pem")).await, Reason::Denied);
}
