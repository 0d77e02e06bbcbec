//! The root over restarts, and leaves with openssl as their judge.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::UNIX_EPOCH,
};

use tempfile::TempDir;

use super::*;
use crate::{
    files::{self, Access},
    own::ROOT_LIFETIME,
    test_pki::{notebook, open, openssl, request},
};
use sluis_tls::Leaf;

const MINUTE: Duration = Duration::from_secs(60);

fn key_file(dir: &Path) -> PathBuf {
    dir.join("generation-1/root-key.pem")
}

#[test]
fn openssl_verifies_the_leaf_and_finds_the_proven_name_only() {
    let dir = TempDir::new().unwrap();
    let authority = open(dir.path()).unwrap();
    for key in ["rsa:2048", "ec -pkeyopt ec_paramgen_curve:P-256", "ed25519"] {
        let request = request(dir.path(), key);
        let issued = authority.issue(&notebook(), &request, Some(MINUTE), Proof::Token).unwrap();
        assert_eq!(issued.chain.len(), 3, "leaf, intermediate, roots");
        fs::write(dir.path().join("leaf"), &issued.chain[0]).unwrap();
        fs::write(dir.path().join("between"), &issued.chain[1]).unwrap();
        fs::write(dir.path().join("root"), &issued.chain[2]).unwrap();
        for purpose in ["sslserver", "sslclient"] {
            openssl(
                dir.path(),
                &format!(
                    "verify -x509_strict -purpose {purpose} -CAfile root -untrusted between leaf"
                ),
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
fn the_root_and_the_intermediate_survive_a_restart_and_their_keys_are_for_the_owner_only() {
    let dir = TempDir::new().unwrap();
    let state = dir.path().join("ca");
    let first = open(&state).unwrap();
    let (roots, serial) = (first.roots_pem(), first.status().issuer.serial);
    drop(first);
    let again = open(&state).unwrap();
    assert_eq!((again.roots_pem(), again.status().issuer.serial), (roots, serial));
    let mode = |name: &str| fs::metadata(state.join(name)).unwrap().permissions().mode() & 0o7777;
    for private in ["generation-1/root-key.pem", "generation-1/ca-key.pem", LOG_FILE] {
        assert_eq!(mode(private), 0o600, "{private}");
    }
    assert_eq!(fs::metadata(&state).unwrap().permissions().mode() & 0o7777, 0o700);
    let text = openssl(&state, &format!("x509 -noout -text -in {BUNDLE_FILE}"));
    for expected in ["CA:TRUE", "Certificate Sign, CRL Sign", "NIST CURVE: P-256"] {
        assert!(text.contains(expected), "{expected} is not in {text}");
    }
    openssl(&state, &format!("verify -x509_strict -CAfile {BUNDLE_FILE} {BUNDLE_FILE}"));
    let between = "generation-1/ca-cert.pem";
    openssl(&state, &format!("verify -x509_strict -CAfile {BUNDLE_FILE} {between}"));
    let text = openssl(&state, &format!("x509 -noout -text -in {between}"));
    assert!(text.contains("CA:TRUE, pathlen:0"), "{text}");
}

#[test]
fn a_root_of_the_first_version_stays_the_root() {
    let dir = TempDir::new().unwrap();
    drop(open(dir.path()).unwrap());
    let old = fs::read_to_string(dir.path().join(BUNDLE_FILE)).unwrap();
    // What the first version left: the root's two files at the top.
    fs::rename(key_file(dir.path()), dir.path().join("root-key.pem")).unwrap();
    fs::remove_dir_all(dir.path().join("generation-1")).unwrap();
    fs::remove_file(dir.path().join("rotation.json")).unwrap();
    let authority = open(dir.path()).unwrap();
    assert_eq!(authority.roots_pem(), old);
    assert!(!dir.path().join("root-key.pem").exists());
    authority.issue(&notebook(), &request(dir.path(), "ed25519"), None, Proof::Token).unwrap();
}

#[test]
fn a_key_that_others_may_read_is_refused_with_the_way_out() {
    let dir = TempDir::new().unwrap();
    open(dir.path()).unwrap();
    for name in ["root-key.pem", "ca-key.pem"] {
        let key = dir.path().join("generation-1").join(name);
        for mode in [0o640, 0o604, 0o660] {
            fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
            let error = open(dir.path()).unwrap_err().to_string();
            assert!(error.contains("chmod 600") && error.contains(name), "{error}");
        }
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

#[test]
fn a_root_that_cannot_be_used_is_never_replaced() {
    let dir = TempDir::new().unwrap();
    open(dir.path()).unwrap();
    let (key, cert) = (key_file(dir.path()), dir.path().join("generation-1/root-cert.pem"));
    let good = fs::read_to_string(&key).unwrap();

    let other = SigningKey::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    files::write(&key, &other.serialize_pem(), Access::Private).unwrap();
    assert!(matches!(open(dir.path()), Err(OpenError::Root { .. })));

    files::write(&key, &good, Access::Private).unwrap();
    open(dir.path()).unwrap();

    // Without both keys there is nothing to sign with.
    fs::remove_file(&key).unwrap();
    fs::remove_file(dir.path().join("generation-1/ca-key.pem")).unwrap();
    assert!(matches!(open(dir.path()), Err(OpenError::NoKey { .. })));
    files::write(&key, &good, Access::Private).unwrap();

    // A first start that was cut off: the same key, so that what it signed stays good.
    fs::remove_file(&cert).unwrap();
    open(dir.path()).unwrap();
    assert_eq!(fs::read_to_string(&key).unwrap(), good);
}

#[test]
fn the_roots_key_may_be_kept_elsewhere() {
    let dir = TempDir::new().unwrap();
    assert!(open(dir.path()).unwrap().status().issuer.root_key_here);
    fs::remove_file(key_file(dir.path())).unwrap();
    let authority = open(dir.path()).unwrap();
    assert!(!authority.status().issuer.root_key_here);
    authority.issue(&notebook(), &request(dir.path(), "ed25519"), None, Proof::Token).unwrap();
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
        assert_eq!(leaf.not_before, clock.now() - CLOCK_SKEW_MAX, "tolerates a late clock");
        assert_eq!(leaf.serial, issued.serial);
    }
    seconds.fetch_add(ROOT_LIFETIME.as_secs() - 10, Ordering::Relaxed);
    assert_eq!(issue(None).unwrap().not_after, clock.now() + Duration::from_secs(10));
    seconds.fetch_add(10, Ordering::Relaxed);
    assert!(matches!(issue(None), Err(IssueError::RootExpired)));
    let again = Authority::open(dir.path(), AuthorityConfig::default(), clock);
    let error = again.unwrap_err().to_string();
    assert!(error.contains("not valid at this time"), "{error}");
}

#[test]
fn an_identity_of_another_trust_domain_gets_nothing() {
    let dir = TempDir::new().unwrap();
    let authority = open(dir.path()).unwrap();
    let stranger = "spiffe://other.local/ns/team-a/sa/notebook".parse().unwrap();
    let request = request(dir.path(), "ed25519");
    let refused = authority.issue(&stranger, &request, None, Proof::Certificate);
    assert!(matches!(refused, Err(IssueError::TrustDomain { .. })));
    assert_eq!(fs::read_to_string(authority.log_path()).unwrap(), "");
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
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let proofs: Vec<_> = lines.iter().map(|line| line["proof"].as_str().unwrap()).collect();
    assert_eq!(proofs, ["token", "own", "certificate"]);
    assert_eq!(lines[0]["identity"], notebook().to_string());
    assert_eq!(lines[0]["serial"], issued.serial);
    assert_eq!(lines[1]["identity"], "dns:istiod.istio-system.svc");
    let fields: Vec<_> = lines[0].as_object().unwrap().keys().map(String::as_str).collect();
    let expected = "epoch identity issuer key not_after previous proof serial time";
    assert_eq!(fields.join(" "), expected);
    assert_eq!(lines[0]["key"], "Ed25519");
}

#[test]
fn an_identity_of_an_alias_gets_a_certificate_of_the_trust_domain() {
    let dir = TempDir::new().unwrap();
    let aliases = vec!["old.example".parse().unwrap()];
    let config = AuthorityConfig { aliases, ..AuthorityConfig::default() };
    let authority = Authority::open(dir.path(), config, Clock::system()).unwrap();
    let request = request(dir.path(), "ed25519");
    let old = "spiffe://old.example/ns/team-a/sa/notebook".parse().unwrap();
    let issued = authority.issue(&old, &request, None, Proof::Certificate).unwrap();
    let leaf = Leaf::parse(&pem_to_der(&issued.chain[0])).unwrap();
    assert_eq!(leaf.uris, [notebook().to_string()]);
    let foreign = "spiffe://other.example/ns/team-a/sa/notebook".parse().unwrap();
    assert!(authority.issue(&foreign, &request, None, Proof::Certificate).is_err());
}

#[test]
fn a_changed_a_removed_and_an_inserted_line_of_the_log_are_found() {
    let dir = TempDir::new().unwrap();
    let authority = open(dir.path()).unwrap();
    let request = request(dir.path(), "ed25519");
    for _ in 0..4 {
        authority.issue(&notebook(), &request, None, Proof::Token).unwrap();
    }
    let path = authority.log_path();
    let whole = fs::read_to_string(&path).unwrap();
    let audit = crate::audit(&path).unwrap();
    assert_eq!((audit.entries.len(), audit.breaks.len()), (4, 0), "{:?}", audit.breaks);
    let lines: Vec<&str> = whole.lines().collect();
    let changed = lines[1].replace("token", "own");
    let first = lines[0];
    for (what, text, line) in [
        ("changed", [first, &changed, lines[2], lines[3]].join("\n"), "line 3"),
        ("removed", [first, lines[2], lines[3]].join("\n"), "line 2"),
        ("first removed", lines[1..].join("\n"), "line 1"),
        ("inserted", [first, first, lines[1], lines[2]].join("\n"), "line 2"),
        ("swapped", [first, lines[2], lines[1], lines[3]].join("\n"), "line 2"),
    ] {
        fs::write(&path, text + "\n").unwrap();
        let breaks = crate::audit(&path).unwrap().breaks;
        assert!(breaks.first().is_some_and(|found| found.starts_with(line)), "{what}: {breaks:?}");
    }
}

#[test]
fn the_log_goes_on_after_a_restart_and_after_a_line_that_was_cut_off() {
    let dir = TempDir::new().unwrap();
    let request = request(dir.path(), "ed25519");
    let issue = || open(dir.path()).unwrap().issue(&notebook(), &request, None, Proof::Token);
    issue().unwrap();
    issue().unwrap();
    let path = dir.path().join(LOG_FILE);
    assert_eq!(crate::audit(&path).unwrap().breaks, [""; 0]);
    let mut text = fs::read_to_string(&path).unwrap();
    text.push_str("{\"time\":\"20");
    fs::write(&path, text).unwrap();
    issue().unwrap();
    let audit = crate::audit(&path).unwrap();
    assert_eq!(audit.entries.len(), 3);
    assert_eq!(audit.breaks.len(), 1, "the cut-off line alone: {:?}", audit.breaks);
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
    let oversized = format!("{}\n{good}", "x".repeat(20_000));
    assert!(matches!(SigningRequest::from_pem(&oversized), Err(RequestError::Large)));
}

#[test]
fn keys_are_accepted_by_kind_and_size() {
    use crate::RequestError;
    let dir = TempDir::new().unwrap();
    for (key, expected) in [
        ("ec -pkeyopt ec_paramgen_curve:P-256", Ok("ECDSA P-256")),
        ("ec -pkeyopt ec_paramgen_curve:P-384", Ok("ECDSA P-384")),
        ("ed25519", Ok("Ed25519")),
        ("rsa:2048", Ok("RSA")),
        ("rsa:3072", Ok("RSA")),
        ("rsa:1024", Err("weak")),
        ("rsa:2048 -pkeyopt rsa_keygen_pubexp:3", Err("small exponent")),
        ("ec -pkeyopt ec_paramgen_curve:secp224r1", Err("weak curve")),
        ("ec -pkeyopt ec_paramgen_curve:secp256k1", Err("foreign curve")),
        ("ec -pkeyopt ec_paramgen_curve:P-521", Err("curve without a use")),
        ("ed448", Err("another kind")),
    ] {
        openssl(dir.path(), &format!("req -new -nodes -newkey {key} -keyout key -subj / -out csr"));
        let csr = fs::read_to_string(dir.path().join("csr")).unwrap();
        match (SigningRequest::from_pem(&csr), expected) {
            (Ok(got), Ok(wanted)) => assert_eq!(got.algorithm(), wanted),
            (Err(RequestError::Key), Err(_)) => {}
            (got, _) => panic!("{key}: {got:?}, expected {expected:?}"),
        }
    }
}

fn pem_to_der(pem: &str) -> CertificateDer<'static> {
    use rustls_pki_types::pem::PemObject as _;
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}
