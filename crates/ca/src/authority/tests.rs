//! The root over restarts, and leaves with openssl as their judge.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::UNIX_EPOCH,
};

use tempfile::TempDir;

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn open(dir: &Path) -> Result<Authority, OpenError> {
    Authority::open(dir, AuthorityConfig::default(), Clock::system())
}

fn notebook() -> WorkloadId {
    "spiffe://cluster.local/ns/team-a/sa/notebook".parse().unwrap()
}

/// Runs openssl in `dir` and answers what it printed.
#[track_caller]
fn openssl(dir: &Path, arguments: &str) -> String {
    let out = Command::new("openssl").current_dir(dir).args(arguments.split(' ')).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "openssl {arguments}: {text}{errors}");
    text
}

/// A request by openssl, for a key of this kind and with names that it should not get.
fn request(dir: &Path, key: &str) -> SigningRequest {
    let names = "-addext subjectAltName=URI:spiffe://cluster.local/ns/egress/sa/gateway,DNS:evil";
    openssl(
        dir,
        &format!("req -new -nodes -newkey {key} -keyout key -subj /CN=evil {names} -out csr"),
    );
    SigningRequest::from_pem(&fs::read_to_string(dir.join("csr")).unwrap()).unwrap()
}

#[test]
fn openssl_verifies_the_leaf_and_finds_the_proven_name_only() {
    let dir = TempDir::new().unwrap();
    let authority = open(dir.path()).unwrap();
    for key in ["rsa:2048", "ec -pkeyopt ec_paramgen_curve:P-256", "ed25519"] {
        let request = request(dir.path(), key);
        let issued = authority.issue(&notebook(), &request, Some(MINUTE), Proof::Token).unwrap();
        assert_eq!(issued.chain.len(), 2);
        fs::write(dir.path().join("leaf"), &issued.chain[0]).unwrap();
        fs::write(dir.path().join("root"), &issued.chain[1]).unwrap();
        for purpose in ["sslserver", "sslclient"] {
            openssl(
                dir.path(),
                &format!("verify -x509_strict -purpose {purpose} -CAfile root leaf"),
            );
        }
        let text = openssl(dir.path(), "x509 -noout -text -in leaf");
        for expected in [
            "X509v3 Subject Alternative Name: critical\n                URI:spiffe://cluster.local/ns/team-a/sa/notebook\n",
            "TLS Web Server Authentication, TLS Web Client Authentication",
            "CA:FALSE",
            "Signature Algorithm: ecdsa-with-SHA256",
        ] {
            assert!(text.contains(expected), "{expected} is not in {text}");
        }
        assert!(!text.contains("evil") && !text.contains("gateway"), "{text}");
    }
}

#[test]
fn the_root_survives_a_restart_and_its_key_is_for_the_owner_only() {
    let dir = TempDir::new().unwrap();
    let state = dir.path().join("ca");
    let first = open(&state).unwrap().root_pem().to_owned();
    assert_eq!(open(&state).unwrap().root_pem(), first);
    let mode = |name: &str| fs::metadata(state.join(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(KEY_FILE), 0o600);
    assert_eq!(mode(LOG_FILE), 0o600);
    assert_eq!(fs::metadata(&state).unwrap().permissions().mode() & 0o7777, 0o700);
    let text = openssl(&state, &format!("x509 -noout -text -in {CERT_FILE}"));
    for expected in ["CA:TRUE", "Certificate Sign, CRL Sign", "NIST CURVE: P-256"] {
        assert!(text.contains(expected), "{expected} is not in {text}");
    }
    openssl(&state, &format!("verify -x509_strict -CAfile {CERT_FILE} {CERT_FILE}"));
}

#[test]
fn a_key_that_others_may_read_is_refused_with_the_way_out() {
    let dir = TempDir::new().unwrap();
    open(dir.path()).unwrap();
    let key = dir.path().join(KEY_FILE);
    for mode in [0o640, 0o604, 0o660] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        let error = open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("chmod 600") && error.contains("root-key.pem"), "{error}");
    }
}

#[test]
fn a_root_that_cannot_be_used_is_never_replaced() {
    let dir = TempDir::new().unwrap();
    open(dir.path()).unwrap();
    let (key, cert) = (dir.path().join(KEY_FILE), dir.path().join(CERT_FILE));
    let good = fs::read_to_string(&key).unwrap();

    fs::remove_file(&key).unwrap();
    assert!(matches!(open(dir.path()), Err(OpenError::NoKey { .. })));

    let other = SigningKey::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    files::write(&key, &other.serialize_pem(), Access::Private).unwrap();
    assert!(matches!(open(dir.path()), Err(OpenError::Root { .. })));

    files::write(&key, &good, Access::Private).unwrap();
    open(dir.path()).unwrap();

    // A first start that was cut off: the same key, so that what it signed stays good.
    fs::remove_file(&cert).unwrap();
    open(dir.path()).unwrap();
    assert_eq!(fs::read_to_string(&key).unwrap(), good);
}

#[test]
fn a_life_is_bounded_by_the_authority_and_by_its_root() {
    let dir = TempDir::new().unwrap();
    let seconds = Arc::new(AtomicU64::new(1_800_000_000));
    let read = seconds.clone();
    let clock = Clock::new(move || UNIX_EPOCH + Duration::from_secs(read.load(Ordering::Relaxed)));
    let config = AuthorityConfig { lifetime_max: MINUTE, ..AuthorityConfig::default() };
    let authority = Authority::open(dir.path(), config, clock.clone()).unwrap();
    let request = request(dir.path(), "ed25519");
    let issue = |wish| authority.issue(&notebook(), &request, wish, Proof::Token);
    for (wish, life) in [(None, 60), (Some(30), 30), (Some(3_600), 60)] {
        let issued = issue(wish.map(Duration::from_secs)).unwrap();
        assert_eq!(issued.not_after, clock.now() + Duration::from_secs(life), "{wish:?}");
        let leaf = Leaf::parse(&pem_to_der(&issued.chain[0])).unwrap();
        assert_eq!(leaf.not_before, clock.now() - CLOCK_SKEW_MAX);
        assert_eq!(leaf.serial, issued.serial);
    }
    seconds.fetch_add(ROOT_LIFETIME.as_secs() - 10, Ordering::Relaxed);
    assert_eq!(issue(None).unwrap().not_after, clock.now() + Duration::from_secs(10));
    seconds.fetch_add(10, Ordering::Relaxed);
    assert!(matches!(issue(None), Err(IssueError::RootExpired)));
    let again = Authority::open(dir.path(), AuthorityConfig::default(), clock);
    assert!(matches!(again, Err(OpenError::Validity { .. })));
}

#[test]
fn an_identity_of_another_trust_domain_gets_nothing() {
    let dir = TempDir::new().unwrap();
    let authority = open(dir.path()).unwrap();
    let stranger = "spiffe://other.local/ns/team-a/sa/notebook".parse().unwrap();
    let request = request(dir.path(), "ed25519");
    let refused = authority.issue(&stranger, &request, None, Proof::Certificate);
    assert!(matches!(refused, Err(IssueError::TrustDomain { .. })));
    assert_eq!(fs::read_to_string(dir.path().join(LOG_FILE)).unwrap(), "");
}

#[test]
fn each_certificate_leaves_a_line_without_secrets() {
    let dir = TempDir::new().unwrap();
    let authority = open(dir.path()).unwrap();
    let request = request(dir.path(), "ed25519");
    let issued = authority.issue(&notebook(), &request, None, Proof::Token).unwrap();
    authority.issue_server(&["istiod.istio-system.svc".to_owned()]).unwrap();
    drop(authority);
    open(dir.path()).unwrap().issue(&notebook(), &request, None, Proof::Certificate).unwrap();
    let log = fs::read_to_string(dir.path().join(LOG_FILE)).unwrap();
    let lines: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let proofs: Vec<_> = lines.iter().map(|line| line["proof"].as_str().unwrap()).collect();
    assert_eq!(proofs, ["token", "own", "certificate"]);
    assert_eq!(lines[0]["identity"], notebook().to_string());
    assert_eq!(lines[0]["serial"], issued.serial);
    assert_eq!(lines[1]["identity"], "dns:istiod.istio-system.svc");
    let fields: Vec<_> = lines[0].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(fields, ["identity", "not_after", "proof", "serial", "time"]);
}

#[test]
fn a_request_that_is_forged_weak_or_no_request_is_refused() {
    use crate::RequestError;
    let dir = TempDir::new().unwrap();
    request(dir.path(), "ed25519");
    let good = fs::read_to_string(dir.path().join("csr")).unwrap();
    openssl(dir.path(), "req -in csr -outform DER -out der");
    let mut der = fs::read(dir.path().join("der")).unwrap();
    *der.last_mut().unwrap() ^= 1;
    fs::write(dir.path().join("der"), der).unwrap();
    openssl(dir.path(), "req -in der -inform DER -out forged");
    let forged = fs::read_to_string(dir.path().join("forged")).unwrap();
    assert!(matches!(SigningRequest::from_pem(&forged), Err(RequestError::Signature)));
    for text in ["", "x", &good[..good.len() / 2]] {
        assert!(matches!(SigningRequest::from_pem(text), Err(RequestError::Malformed(_))));
    }
    assert!(matches!(SigningRequest::from_pem(&good.repeat(64)), Err(RequestError::Large)));
    openssl(dir.path(), "req -new -nodes -newkey rsa:1024 -keyout key -subj /CN=weak -out csr");
    let weak = fs::read_to_string(dir.path().join("csr")).unwrap();
    // The library may refuse so short a key before its length is looked at.
    let refused = SigningRequest::from_pem(&weak).unwrap_err();
    assert!(matches!(refused, RequestError::Key | RequestError::Signature), "{refused}");
}

fn pem_to_der(pem: &str) -> rustls_pki_types::CertificateDer<'static> {
    use rustls_pki_types::pem::PemObject as _;
    rustls_pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}
