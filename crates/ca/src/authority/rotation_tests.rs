//! The change of the root, step by step and over restarts, and the operator's own authority.

use std::{
    fs,
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
    CaFiles, Phase, PluginError, SignerError, Source,
    test_pki::{CA, Operator, notebook, open, openssl, request},
};

const LIFE: Duration = Duration::from_secs(3600);

/// An authority whose time is ours.
struct Timed {
    dir: TempDir,
    seconds: Arc<AtomicU64>,
}

impl Timed {
    fn new() -> Self {
        let seconds = Arc::new(AtomicU64::new(1_800_000_000));
        Self { dir: TempDir::new().unwrap(), seconds }
    }

    fn open(&self) -> Authority {
        let read = self.seconds.clone();
        let now = move || UNIX_EPOCH + Duration::from_secs(read.load(Ordering::Relaxed));
        let config = AuthorityConfig { lifetime_max: LIFE, ..AuthorityConfig::default() };
        Authority::open(self.dir.path(), config, Clock::new(now)).unwrap()
    }

    fn pass(&self, seconds: u64) {
        self.seconds.fetch_add(seconds, Ordering::Relaxed);
    }
}

fn early(result: Result<(), RotateError>) -> Pending {
    match result {
        Err(RotateError::Early { first, .. }) => first,
        other => panic!("{other:?}"),
    }
}

#[test]
fn no_step_is_taken_before_the_one_before_has_reached_everybody() {
    let time = Timed::new();
    let request = request(time.dir.path(), "ed25519");
    let authority = time.open();
    let first = authority.issue(&notebook(), &request, None, Proof::Token).unwrap();
    assert_eq!(first.chain[2].matches("BEGIN").count(), 1);

    authority.rotate(Step::Begin, false, None).unwrap();
    assert_eq!(authority.roots_pem().matches("BEGIN").count(), 2);
    let old_issuer = authority.status().issuer.serial;
    let waits = early(authority.rotate(Step::Switch, false, None));
    assert_eq!((waits.identity, waits.serial), (notebook().to_string(), first.serial.clone()));

    // It renews: now it knows both roots.
    let grounds = Grounds { proof: Proof::Certificate, replaces: Some(first.serial) };
    let second = authority.issue(&notebook(), &request, None, grounds).unwrap();
    assert_eq!(second.chain[2].matches("BEGIN").count(), 2);
    authority.rotate(Step::Switch, false, None).unwrap();
    assert_ne!(authority.status().issuer.serial, old_issuer);
    early(authority.rotate(Step::Finish, false, None));

    // It does not renew: its certificate ends, and with it the wait.
    time.pass(LIFE.as_secs());
    authority.rotate(Step::Finish, false, None).unwrap();
    assert_eq!(authority.roots_pem().matches("BEGIN").count(), 1);
    assert_eq!(authority.status().phase, Phase::Stable);
    assert!(!time.dir.path().join("generation-1").exists(), "the old key is gone");
}

#[test]
fn every_phase_survives_a_restart_and_openssl_verifies_every_chain_in_it() {
    let time = Timed::new();
    let dir = time.dir.path();
    let request = request(dir, "ed25519");
    let mut old: Option<String> = None;
    for (step, phase, roots) in [
        (None, Phase::Stable, 1),
        (Some(Step::Begin), Phase::Begun, 2),
        (Some(Step::Switch), Phase::Switched, 2),
        (Some(Step::Finish), Phase::Stable, 1),
    ] {
        if let Some(step) = step {
            assert_eq!(time.open().next_step(), step);
            time.open().rotate(step, true, None).unwrap();
        }
        let status = time.open().status();
        assert_eq!((status.phase, status.roots.len()), (phase, roots));
        let issued = time.open().issue(&notebook(), &request, None, Proof::Token).unwrap();
        for (name, pem) in ["leaf", "between", "roots"].iter().zip(&issued.chain) {
            fs::write(dir.join(name), pem).unwrap();
        }
        let verify = "-x509_strict -attime 1800000000 -CAfile roots -untrusted between";
        openssl(dir, &format!("verify {verify} leaf"));
        assert_eq!(fs::read_to_string(dir.join("root-cert.pem")).unwrap(), issued.chain[2]);
        // What was issued in the phase before is good in this one, while it is asked to wait.
        if let Some(before) = old.replace(issued.chain[..2].concat())
            && step != Some(Step::Finish)
        {
            fs::write(dir.join("before"), before).unwrap();
            openssl(dir, &format!("verify {verify} -untrusted before before"));
        }
    }
}

#[test]
fn steps_out_of_order_are_refused_and_a_begun_change_can_be_given_up() {
    let time = Timed::new();
    let authority = time.open();
    let roots = authority.roots_pem();
    for step in [Step::Switch, Step::Finish, Step::Cancel] {
        assert!(matches!(authority.rotate(step, true, None), Err(RotateError::Order { .. })));
    }
    authority.rotate(Step::Begin, false, None).unwrap();
    for step in [Step::Begin, Step::Finish] {
        assert!(matches!(authority.rotate(step, true, None), Err(RotateError::Order { .. })));
    }
    authority.rotate(Step::Cancel, false, None).unwrap();
    assert_eq!(authority.roots_pem(), roots);
    assert_eq!(time.open().roots_pem(), roots);
    authority.rotate(Step::Begin, false, None).unwrap();
    authority.rotate(Step::Switch, true, None).unwrap();
    let refused = authority.rotate(Step::Cancel, true, None);
    assert!(matches!(refused, Err(RotateError::Order { .. })));
}

#[test]
fn the_bundle_is_a_spiffe_document() {
    let time = Timed::new();
    let authority = time.open();
    authority.rotate(Step::Begin, false, None).unwrap();
    let bundle = authority.spiffe_bundle();
    let keys = bundle["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 2);
    for key in keys {
        assert_eq!(
            (&key["use"], &key["kty"], &key["crv"]),
            (&"x509-svid".into(), &"EC".into(), &"P-256".into())
        );
        assert_eq!(key["x5c"].as_array().unwrap().len(), 1);
        assert_eq!(key["x"].as_str().unwrap().len(), 43, "32 bytes in base64 without padding");
    }
    assert_eq!(bundle["spiffe_sequence"], 2);
}

fn open_with(dir: &Path, plugin: CaFiles) -> Result<Authority, OpenError> {
    Authority::open_with(dir, AuthorityConfig::default(), Clock::system(), Some(plugin))
}

#[test]
fn an_operators_authority_of_each_kind_of_key_signs_what_openssl_verifies() {
    let home = TempDir::new().unwrap();
    for (number, key, form) in [
        (0, "ec -pkeyopt ec_paramgen_curve:P-256", ""),
        (1, "ec -pkeyopt ec_paramgen_curve:P-384", ""),
        (2, "rsa:2048", ""),
        // SEC1 and PKCS#1.
        (3, "ec -pkeyopt ec_paramgen_curve:P-256", "ec -in ca-key.pem -out sec1"),
        (4, "rsa:2048", "rsa -traditional -in ca-key.pem -out sec1"),
    ] {
        let dir = home.path().join(number.to_string());
        let mut files = Operator { key, ..Operator::new(&dir) }.make("root");
        if !form.is_empty() {
            openssl(&dir, form);
            files.key = fs::read_to_string(dir.join("sec1")).unwrap();
            assert!(!files.key.contains("BEGIN PRIVATE KEY"));
        }
        let authority = open_with(&dir.join("state"), files).unwrap();
        let status = authority.status();
        assert_eq!((status.issuer.source, status.issuer.intermediates), (Source::Plugin, 1));
        let request = request(&dir, "ed25519");
        let issued = authority.issue(&notebook(), &request, None, Proof::Token).unwrap();
        for (name, pem) in ["leaf", "between", "roots"].iter().zip(&issued.chain) {
            fs::write(dir.join(name), pem).unwrap();
        }
        openssl(&dir, "verify -x509_strict -CAfile roots -untrusted between leaf");
    }
}

#[test]
fn an_operators_authority_with_a_fault_is_refused_by_name() {
    let home = TempDir::new().unwrap();
    let dir = home.path();
    let good = Operator::new(dir).make("root");
    let other = Operator::new(&dir.join("other")).make("root");
    let with = |extensions: &str, key: &str, days: i32| {
        let fresh = dir.join("fresh");
        let _ = fs::remove_dir_all(&fresh);
        Operator { dir: &fresh, key, extensions, days }.make("root")
    };
    let p256 = "ec -pkeyopt ec_paramgen_curve:P-256";
    let leaf = "basicConstraints=CA:false\n";
    let mute = "basicConstraints=critical,CA:true\nkeyUsage=digitalSignature\n";
    let constrained = format!("{CA}nameConstraints=critical,excluded;URI:cluster.local\n");
    for (what, files, expected) in [
        ("another key", CaFiles { key: other.key.clone(), ..good.clone() }, "not the key of"),
        (
            "another root",
            CaFiles { roots: other.roots.clone(), chain: good.cert.clone(), ..good.clone() },
            "neither root-cert.pem nor",
        ),
        (
            "no certificate",
            CaFiles { cert: "x".into(), ..good.clone() },
            "ca-cert.pem: it holds no",
        ),
        (
            "no roots",
            CaFiles { roots: String::new(), ..good.clone() },
            "root-cert.pem: it holds no",
        ),
        (
            "an encrypted key",
            CaFiles { key: good.key.replace("PRIVATE", "ENCRYPTED PRIVATE"), ..good.clone() },
            "decrypt it",
        ),
        ("no authority", with(leaf, p256, 10), "CA is false"),
        ("may not sign", with(mute, p256, 10), "key usage"),
        ("expired", with(CA, p256, -1), "not valid at this time"),
        ("weak RSA", with(CA, "rsa:1024", 10), "RSA"),
        (
            "a curve that few verify",
            with(CA, "ec -pkeyopt ec_paramgen_curve:P-521", 10),
            "use ECDSA P-256",
        ),
        ("Ed25519, which Envoy does not verify", with(CA, "ed25519", 10), "use ECDSA P-256"),
        ("names that exclude the mesh", with(&constrained, p256, 10), "would be refused"),
    ] {
        let state = dir.join("state");
        let error = open_with(&state, files).expect_err(what).to_string();
        assert!(error.contains(expected), "{what}: {error}");
        assert!(!state.join("root-cert.pem").exists(), "{what}: nothing was put into use");
        assert!(!error.contains("BEGIN"), "{what}: {error}");
    }
}

#[test]
fn a_path_length_that_leaves_no_room_is_refused() {
    let home = TempDir::new().unwrap();
    let dir = home.path();
    // The middle one allows no authority below it, and there is one.
    let middle = Operator::new(dir).make("root");
    for (from, to) in [("ca-key.pem", "middle-key"), ("ca-cert.pem", "middle-cert")] {
        fs::rename(dir.join(from), dir.join(to)).unwrap();
    }
    let lower = Operator::new(dir).make("middle");
    let files = CaFiles { chain: middle.cert, roots: middle.roots, ..lower };
    let error = open_with(&dir.join("state"), files).unwrap_err();
    let OpenError::Signer { source: SignerError::PathLength { allowed: 0, below: 1, .. }, .. } =
        error
    else {
        panic!("{error}");
    };
}

#[test]
fn an_operators_authority_takes_over_by_a_change_of_the_root() {
    let home = TempDir::new().unwrap();
    let (state, dir) = (home.path().join("state"), home.path().join("operator"));
    let own = open(&state).unwrap().roots_pem();
    let files = Operator::new(&dir).make("root");
    let authority = open_with(&state, files.clone()).unwrap();
    let status = authority.status();
    assert_eq!((status.phase, status.issuer.source), (Phase::Begun, Source::Own));
    assert!(authority.roots_pem().starts_with(&own) && authority.roots_pem().len() > own.len());
    authority.rotate(Step::Switch, false, None).unwrap();
    authority.rotate(Step::Finish, false, None).unwrap();
    drop(authority);
    // The same certificates again change nothing; others under the same root are used at once.
    let again = open_with(&state, files).unwrap().status();
    assert_eq!(
        (again.phase, again.issuer.source, again.roots.len()),
        (Phase::Stable, Source::Plugin, 1)
    );
    let renewed = open_with(&state, Operator::new(&dir).make("root")).unwrap().status();
    assert_eq!((renewed.phase, renewed.roots.len()), (Phase::Stable, 1));
    assert_ne!(renewed.issuer.serial, again.issuer.serial);
}

#[test]
fn the_folder_of_an_operators_authority_is_read_as_istio_lays_it_out() {
    let home = TempDir::new().unwrap();
    let dir = home.path();
    Operator::new(dir).make("root");
    fs::rename(dir.join("root-cert"), dir.join("root-cert.pem")).unwrap();
    let read = CaFiles::from_dir(dir).unwrap();
    assert!(read.chain.is_empty(), "cert-chain.pem may be left out");
    open_with(&dir.join("state"), read).unwrap();
    openssl(dir, "pkey -in ca-key.pem -out open-key.pem");
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(dir.join("ca-key.pem"), fs::Permissions::from_mode(0o644)).unwrap();
    let error = CaFiles::from_dir(dir).unwrap_err().to_string();
    assert!(error.contains("chmod 600"), "{error}");
    fs::remove_file(dir.join("ca-key.pem")).unwrap();
    let error = CaFiles::from_dir(dir).unwrap_err();
    assert!(matches!(error, PluginError::Missing { entry: "ca-key.pem", .. }), "{error}");
}
