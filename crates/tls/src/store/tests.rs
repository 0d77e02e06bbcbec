//! Names, files that change, and what may be set from outside.

use std::{fs, os::unix::fs::symlink, path::Path};

use tempfile::TempDir;

use super::{MESH_ROOTS, SecretStore, StoreError, WORKLOAD_CERTIFICATE};
use crate::{
    Clock, Secret,
    tests::{Pki, TestLeaf},
};

fn store() -> SecretStore {
    SecretStore::new(Clock::system(), None)
}

fn leaf() -> TestLeaf {
    TestLeaf { dns: &["api.data.local"], ..TestLeaf::default() }
}

/// Writes a pair and answers the name that it has.
fn write_pair(dir: &Path, pki: &Pki) -> String {
    let (chain, key) = pki.pems(&leaf());
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("cert.pem"), chain).unwrap();
    fs::write(dir.join("key.pem"), key).unwrap();
    format!("file-cert:{0}/cert.pem~{0}/key.pem", dir.display())
}

#[test]
fn a_pair_of_files_is_read_at_once_and_again_when_it_changed() {
    let (dir, pki) = (TempDir::new().unwrap(), Pki::new("files"));
    let store = store();
    let slot = store.slot(&write_pair(dir.path(), &pki)).unwrap();
    let first = slot.key_pair().unwrap().leaf().serial.clone();
    let changes = store.changes();

    store.poll();
    assert!(!changes.has_changed().unwrap());

    write_pair(dir.path(), &pki);
    store.poll();
    assert!(changes.has_changed().unwrap());
    assert_ne!(slot.key_pair().unwrap().leaf().serial, first);
}

#[test]
fn a_directory_that_is_swapped_by_a_symbolic_link_is_noticed() {
    let (dir, pki) = (TempDir::new().unwrap(), Pki::new("files"));
    write_pair(&dir.path().join("v1"), &pki);
    write_pair(&dir.path().join("v2"), &pki);
    let link = dir.path().join("data");
    symlink("v1", &link).unwrap();
    let store = store();
    let name = format!("file-cert:{0}/cert.pem~{0}/key.pem", link.display());
    let slot = store.slot(&name).unwrap();
    let first = slot.key_pair().unwrap().leaf().serial.clone();

    symlink("v2", dir.path().join("next")).unwrap();
    fs::rename(dir.path().join("next"), &link).unwrap();
    store.poll();
    assert_ne!(slot.key_pair().unwrap().leaf().serial, first);
}

#[test]
fn a_broken_file_keeps_the_last_good_pair_until_it_is_whole_again() {
    let (dir, pki) = (TempDir::new().unwrap(), Pki::new("files"));
    let store = store();
    let name = write_pair(dir.path(), &pki);
    let slot = store.slot(&name).unwrap();
    let first = slot.key_pair().unwrap().leaf().serial.clone();
    let serial = || slot.key_pair().unwrap().leaf().serial.clone();
    let (chain, key) = pki.pems(&leaf());
    let cert_path = dir.path().join("cert.pem");

    for broken in ["", "no certificate", &chain[..chain.len() / 2]] {
        fs::write(&cert_path, broken).unwrap();
        store.poll();
        assert_eq!(serial(), first, "{broken:?}");
    }
    fs::write(&cert_path, &chain).unwrap();
    store.poll();
    assert_eq!(serial(), first, "the key is still that of the old certificate");
    fs::remove_file(&cert_path).unwrap();
    store.poll();
    assert_eq!(serial(), first, "removed");

    fs::write(&cert_path, &chain).unwrap();
    fs::write(dir.path().join("key.pem"), key).unwrap();
    store.poll();
    assert_ne!(serial(), first);
}

#[test]
fn a_file_that_comes_later_is_taken_in_when_it_comes() {
    let (dir, pki) = (TempDir::new().unwrap(), Pki::new("files"));
    let path = dir.path().join("ca.pem");
    let store = store();
    let slot = store.slot(&format!("file-root:{}", path.display())).unwrap();
    assert!(slot.roots().is_none());
    fs::write(&path, &pki.root_pem).unwrap();
    store.poll();
    assert!(slot.roots().is_some());
}

#[test]
fn files_that_nobody_holds_are_forgotten() {
    let (dir, pki) = (TempDir::new().unwrap(), Pki::new("files"));
    let store = store();
    let name = write_pair(dir.path(), &pki);
    let slot = store.slot(&name).unwrap();
    store.poll();
    assert_eq!(store.list().len(), 1);
    drop(slot);
    store.poll();
    assert_eq!(store.list().len(), 0);
}

#[test]
fn the_roots_of_the_system_may_be_another_file_and_may_hold_what_is_not_understood() {
    let (dir, pki) = (TempDir::new().unwrap(), Pki::new("system"));
    let path = dir.path().join("bundle.pem");
    let odd = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    fs::write(&path, format!("{odd}{}", pki.root_pem)).unwrap();
    let store = SecretStore::new(Clock::system(), Some(path.clone()));
    assert!(store.slot("file-root:system").unwrap().roots().is_some());
    let strict = store.slot(&format!("file-root:{}", path.display())).unwrap();
    assert!(strict.roots().is_none(), "what a user wrote must be understood whole");
}

#[test]
fn names_of_files_that_are_malformed_are_refused() {
    for name in ["file-cert:", "file-cert:a", "file-cert:a~", "file-cert:~b", "file-root:"] {
        assert!(matches!(store().slot(name), Err(StoreError::Name(_))), "{name}");
    }
}

#[test]
fn what_sds_sends_cannot_take_the_place_of_identity_or_files() {
    let pki = Pki::new("mesh");
    let store = store();
    let secret = Secret::Roots(pki.roots().into());
    for name in [WORKLOAD_CERTIFICATE, MESH_ROOTS, "file-root:/etc/ca.pem"] {
        let refused = store.put(&secret.to_envoy(name));
        assert!(matches!(refused, Err(StoreError::Reserved(_))), "{name}");
    }
    store.put(&secret.to_envoy("kubernetes://ca")).unwrap();
    let slot = store.slot("kubernetes://ca").unwrap();
    assert!(slot.roots().is_some() && slot.key_pair().is_none());
    store.remove("kubernetes://ca").unwrap();
    assert!(slot.roots().is_none());
}

#[test]
fn a_key_is_never_printed() {
    let pki = Pki::new("mesh");
    let store = store();
    let (chain, key) = pki.pems(&leaf());
    let pair = crate::KeyPair::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
    store.set_identity(pair, pki.roots());
    let printed = format!("{store:?} {:?}", store.slot(WORKLOAD_CERTIFICATE));
    let body = key.lines().nth(1).unwrap();
    assert!(!printed.contains(body) && !printed.contains("PRIVATE"), "{printed}");
    assert!(printed.contains("fingerprint"));
}
