//! The writer by itself: real files, a real certificate, disks that are full.

use std::{collections::BTreeMap, fs, io::Read as _, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use flate2::read::GzDecoder;
use sluis_audit::{Report, Verifier};
use sluis_tls::{Clock, KeyPair, Roots, verify_statement};

use super::*;

const OURS: &str = "spiffe://cluster.local/ns/egress/sa/gateway";

/// A store with a certificate, and the roots that it leads to.
fn identity() -> (SecretStore, Roots) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::default();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = parameters.self_signed(&key).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_der(root.der(), key).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::default();
    parameters.subject_alt_names = vec![rcgen::SanType::URI(OURS.try_into().unwrap())];
    parameters.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let leaf = parameters.signed_by(&key, &issuer).unwrap();
    let pair = KeyPair::from_pem(leaf.pem().as_bytes(), key.serialize_pem().as_bytes()).unwrap();
    let roots = || Roots::from_pem(root.pem().as_bytes()).unwrap();
    let store = SecretStore::new(Clock::system(), None);
    store.set_identity(pair, roots());
    (store, roots())
}

fn settings(folder: &Path) -> AuditSettings {
    let mut settings =
        AuditSettings::new(folder.join("gateway.jsonl"), "router~gateway".to_owned());
    settings.checkpoint_lines = 10;
    settings
}

fn used(number: u32) -> Use {
    let mut used = Use { attempt: number, ..Use::default() };
    used.credential = Some(Credential { name: "egress/api".to_owned(), ..Credential::default() });
    used.what.path = "/graphql?token".to_owned();
    used
}

fn uses(log: &AuditLog, count: u32) {
    for number in 0..count {
        let ticket = log.begin(|| used(number)).unwrap();
        ticket.finish(Outcome { status: 200, ..Outcome::default() });
    }
}

/// All files of a log, oldest first, uncompressed.
fn texts(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut texts = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().replace("gateway.jsonl", "~"); // sorts last
        let bytes = fs::read(&path).unwrap();
        let mut text = Vec::new();
        match name.strip_suffix(".gz") {
            Some(_) => drop(GzDecoder::new(&*bytes).read_to_end(&mut text).unwrap()),
            None => text = bytes,
        }
        texts.insert(name, text);
    }
    texts
}

fn verify(folder: &Path, roots: &Roots) -> Report {
    let mut verifier = Verifier::new(|_, checkpoint, statement, signature| {
        let chain: Vec<_> = checkpoint
            .chain
            .iter()
            .map(|one| rustls_pki_types::CertificateDer::from(STANDARD.decode(one).unwrap()))
            .collect();
        let signed = (checkpoint.scheme.as_str(), statement, signature);
        let peer = verify_statement(roots, SystemTime::now(), &chain, signed)
            .map_err(|error| error.to_string())?;
        Ok(peer.uris.join(","))
    });
    for (name, text) in texts(folder) {
        verifier.file(&name);
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            let whole = line.strip_suffix(b"\n");
            verifier.line(whole.unwrap_or(line), whole.is_some());
        }
    }
    verifier.finish()
}

#[test]
fn a_log_that_is_closed_in_order_is_whole_and_signed_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let (store, roots) = identity();
    let (log, writer) = AuditLog::start(settings(folder.path()), &store).unwrap();
    uses(&log, 100);
    writer.close();
    let report = verify(folder.path(), &roots);
    assert_eq!(report.breaks, []);
    assert_eq!((report.uses, report.unsigned, report.is_closed), (100, 0, true));
    assert_eq!(report.signers.keys().collect::<Vec<_>>(), [OURS]);
    let head = log.head().unwrap();
    assert_eq!(report.head, Some((head.seq, head.hash)));
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &fs::metadata(folder.path().join("gateway.jsonl")).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(log.begin(|| used(0)).map(drop), Err(AuditUnavailable), "after its end");
}

#[test]
fn a_log_goes_on_over_restarts_and_full_files() {
    let folder = tempfile::tempdir().unwrap();
    let (store, roots) = identity();
    for _ in 0..3 {
        let mut settings = settings(folder.path());
        settings.file_bytes_max = 16 << 10;
        let (log, writer) = AuditLog::start(settings, &store).unwrap();
        uses(&log, 200);
        writer.close();
    }
    let report = verify(folder.path(), &roots);
    assert_eq!(report.breaks, []);
    assert_eq!((report.uses, report.is_closed), (600, true));
    assert_eq!(report.notes, [""; 0]);
    assert!(texts(folder.path()).len() > 3, "files were put aside");
}

#[test]
fn a_line_that_a_kill_cut_off_is_sealed_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let (store, roots) = identity();
    let (log, writer) = AuditLog::start(settings(folder.path()), &store).unwrap();
    uses(&log, 5);
    writer.close();
    let path = folder.path().join("gateway.jsonl");
    let text = fs::read(&path).unwrap();
    fs::write(&path, &text[..text.len() - 40]).unwrap();
    assert!(!verify(folder.path(), &roots).breaks.is_empty(), "nothing has sealed it yet");
    let (log, writer) = AuditLog::start(settings(folder.path()), &store).unwrap();
    uses(&log, 5);
    writer.close();
    let report = verify(folder.path(), &roots);
    assert_eq!(report.breaks, []);
    assert_eq!((report.uses, report.is_closed, report.notes.len()), (10, true, 2));
}

#[test]
fn a_request_whose_task_goes_away_is_recorded_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = identity();
    let (log, writer) = AuditLog::start(settings(folder.path()), &store).unwrap();
    drop(log.begin(|| used(1)).unwrap());
    writer.close();
    let text = fs::read_to_string(folder.path().join("gateway.jsonl")).unwrap();
    assert!(text.contains("\"details\":\"abandoned\""), "{text}");
}

#[test]
fn where_nothing_can_be_written_nothing_may_be_used() {
    let (store, _) = identity();
    let mut settings = AuditSettings::new("/dev/full".into(), String::new());
    let (log, writer) = AuditLog::start(settings.clone(), &store).unwrap();
    assert_eq!(log.begin(|| used(1)).map(drop), Err(AuditUnavailable));
    assert_eq!(log.state().unwrap().refused, 1);
    drop((log, writer));
    settings.goes_on_without = true;
    let (log, _writer) = AuditLog::start(settings, &store).unwrap();
    assert!(log.begin(|| used(1)).is_ok(), "the operator said so");
}

#[test]
fn the_queue_is_bounded_by_what_is_under_way() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = identity();
    let (log, _writer) = AuditLog::start(settings(folder.path()), &store).unwrap();
    let tickets: Vec<_> = (0..PENDING_MAX).map(|_| log.begin(Use::default).unwrap()).collect();
    assert_eq!(log.begin(Use::default).map(drop), Err(AuditUnavailable));
    drop(tickets);
}
