//! Meshes that are not well, one thing at a time.

use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::status::{FaultReport, SyncReport};
use crate::verbs::check::finding::{Outcome, worst};

fn now() -> OffsetDateTime {
    OffsetDateTime::parse("2030-01-01T00:00:00Z", &Rfc3339).unwrap()
}

fn well() -> ProxyReport {
    let synced = SyncReport { state: "SYNCED".to_owned(), age_seconds: 500, detail: None };
    ProxyReport {
        namespace: "a".to_owned(),
        name: "b".to_owned(),
        process: "running".to_owned(),
        is_connected: true,
        certificate_ends: Some("2030-01-01T20:00:00Z".to_owned()),
        sync: BTreeMap::from([("CDS".to_owned(), synced)]),
        ..ProxyReport::default()
    }
}

#[track_caller]
fn check(edit: impl FnOnce(&mut ProxyReport), expected: Outcome, told: &str) {
    let mut proxy = well();
    edit(&mut proxy);
    let found = proxies(&Report { proxies: vec![proxy], ..Report::default() }, 86400, now());
    let errors: Vec<_> = found.checks.iter().filter_map(|check| check.error.clone()).collect();
    assert_eq!(worst(&[found]), expected, "{errors:?}");
    assert!(errors.join("\n").contains(told), "{errors:?}");
}

#[test]
fn a_proxy_is_well_only_when_it_runs_in_sync_with_a_certificate() {
    let state = |state: &str, age| SyncReport {
        state: state.to_owned(),
        age_seconds: age,
        detail: (state == "NACK").then(|| "route x: no such cluster".to_owned()),
    };
    let kind = |proxy: &mut ProxyReport, sync| drop(proxy.sync.insert("RDS".to_owned(), sync));
    check(|_| {}, Outcome::Success, "");
    check(|proxy| proxy.process = "not run here".to_owned(), Outcome::Success, "");
    check(|proxy| proxy.process = "waiting: no port".to_owned(), Outcome::Error, "no port");
    check(|proxy| proxy.restarts = 3, Outcome::Warning, "3 times");
    check(|proxy| proxy.is_connected = false, Outcome::Error, "not connected");
    check(|proxy| kind(proxy, state("NACK", 1)), Outcome::Error, "RDS NACK: route x");
    check(|proxy| kind(proxy, state("STALE", 2)), Outcome::Success, "");
    check(|proxy| kind(proxy, state("STALE", 99)), Outcome::Warning, "99 s");
    check(|proxy| proxy.certificate_ends = None, Outcome::Error, "none was issued");
    let ends = |at: &str| Some(at.to_owned());
    check(|proxy| proxy.certificate_ends = ends("2029-12-31T23:59:59Z"), Outcome::Error, "ended");
    check(
        |proxy| proxy.certificate_ends = ends("2030-01-01T05:00:00Z"),
        Outcome::Warning,
        "renewed",
    );
}

#[test]
fn faults_are_errors_and_warnings_are_doubts() {
    let fault = |level: &str| FaultReport {
        level: level.to_owned(),
        file: String::new(),
        line: 1,
        column: 1,
        resource: None,
        field: String::new(),
        message: String::new(),
        help: None,
    };
    let found = |levels: &[&str]| {
        let report = Report {
            errors: levels.iter().filter(|level| **level == "error").count(),
            details: levels.iter().map(|level| fault(level)).collect(),
            faults: levels.iter().map(|level| format!("a.yaml:1:1: {level}")).collect(),
            ..Report::default()
        };
        let found = control_plane(&report);
        (found.checks[1].outcome, found.checks[1].error.clone().unwrap_or_default())
    };
    assert_eq!(found(&[]).0, Outcome::Success);
    assert_eq!(found(&["warning"]), (Outcome::Warning, "a.yaml:1:1: warning".to_owned()));
    assert_eq!(found(&["warning", "error"]), (Outcome::Error, "a.yaml:1:1: error".to_owned()));
    assert!(found(&["error"; 8]).1.ends_with("… and 3 more"));
}

fn status(edit: &[(&str, serde_json::Value)]) -> AuthorityStatus {
    let mut status = json!({
        "trustDomain": "cluster.local", "trustDomainAliases": [], "certificateLifeSeconds": 86400,
        "issuer": {"generation": 1, "source": "own", "subject": "CN=x", "serial": "01", "key": "P-256",
                   "notAfter": "2031-01-01T00:00:00Z", "intermediates": 1, "rootKeyHere": true},
        "roots": [{"generation": 1, "state": "signing", "subject": "CN=r", "sha256": "00112233445566",
                   "notAfter": "2040-01-01T00:00:00Z"}],
        "phase": "stable", "since": "2029-01-01T00:00:00Z", "waitingFor": [],
    });
    for (pointer, value) in edit {
        *status.pointer_mut(pointer).unwrap() = value.clone();
    }
    serde_json::from_value(status).unwrap()
}

#[test]
fn an_authority_must_last_and_its_log_be_whole() {
    let log = || Ok(Audit { entries: Vec::new(), breaks: Vec::new() });
    let found =
        |edit: &[(&str, serde_json::Value)]| worst(&[authority(&status(edit), &log(), now())]);
    assert_eq!(found(&[]), Outcome::Success);
    assert_eq!(found(&[("/issuer/notAfter", json!("2030-01-31T00:00:00Z"))]), Outcome::Warning);
    assert_eq!(found(&[("/issuer/notAfter", json!("2029-12-31T00:00:00Z"))]), Outcome::Error);
    assert_eq!(found(&[("/roots/0/notAfter", json!("2030-02-01T00:00:00Z"))]), Outcome::Warning);
    assert_eq!(found(&[("/phase", json!("begun"))]), Outcome::Warning);
    let broken = Ok(Audit { entries: Vec::new(), breaks: vec!["line 3 was changed".to_owned()] });
    assert_eq!(worst(&[authority(&status(&[]), &broken, now())]), Outcome::Error);
}
