//! What is sealed opens for its key only, and not when a bit of it was changed.

use super::*;

fn pair() -> (Identity, Recipient) {
    let identity = Identity::generate().unwrap();
    let recipient = identity.recipient().unwrap();
    (identity, recipient)
}

#[test]
fn what_is_sealed_opens_for_each_of_its_keys_and_for_no_other() {
    let ((one, to_one), (two, to_two), (other, _)) = (pair(), pair(), pair());
    for plain in [&b""[..], b"s3cret", &vec![7; CHUNK], &vec![7; CHUNK + 1], &vec![7; BYTES_MAX]] {
        let sealed = seal(plain, &[to_one.clone(), to_two.clone()]).unwrap();
        assert_eq!(open(&sealed, std::slice::from_ref(&one)).unwrap().as_slice(), plain);
        assert_eq!(open(&sealed, std::slice::from_ref(&two)).unwrap().as_slice(), plain);
        let refused = open(&sealed, std::slice::from_ref(&other)).unwrap_err();
        assert!(matches!(refused, SealError::WrongKey), "{refused}");
    }
    let too_much = vec![0; BYTES_MAX + 1];
    assert!(matches!(seal(&too_much, &[to_one]), Err(SealError::TooLarge)));
}

#[test]
fn a_changed_bit_anywhere_is_noticed() {
    let (identity, recipient) = pair();
    let sealed = seal(b"s3cret", &[recipient]).unwrap();
    let bytes = armor::take_off(&sealed).unwrap();
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        let opened = open(&armor::put_on(&changed), std::slice::from_ref(&identity));
        assert!(opened.is_err(), "byte {at}");
    }
    for length in 0..bytes.len() {
        let cut = armor::put_on(&bytes[..length]);
        assert!(open(&cut, std::slice::from_ref(&identity)).is_err(), "{length} bytes");
    }
}

#[test]
fn a_last_chunk_that_is_taken_away_is_noticed() {
    let (identity, recipient) = pair();
    let bytes = armor::take_off(&seal(&vec![7; CHUNK + 1], &[recipient]).unwrap()).unwrap();
    let cut = armor::put_on(&bytes[..bytes.len() - (1 + TAG)]);
    assert!(matches!(open(&cut, &[identity]), Err(SealError::Changed)));
}

#[test]
fn keys_are_written_and_read_as_age_does() {
    let (identity, recipient) = pair();
    let text = identity.to_text().unwrap();
    assert!(text.starts_with("AGE-SECRET-KEY-1") && recipient.to_string().starts_with("age1"));
    let again: Identity = text.parse().unwrap();
    assert_eq!(again.recipient().unwrap(), recipient);
    assert_eq!(recipient.to_string().parse::<Recipient>().unwrap(), recipient);
    let mut broken = recipient.to_string();
    broken.replace_range(10..11, if &broken[10..11] == "q" { "p" } else { "q" });
    assert!(broken.parse::<Recipient>().is_err(), "the checksum");
    assert!(recipient.to_string().parse::<Identity>().is_err(), "a public key is no private one");
    assert!(!format!("{identity:?}").contains(&text[20..40]));
}

/// Made by another implementation: npm `age-encryption` 0.3.1.
#[test]
fn a_file_of_another_implementation_opens() {
    let text = include_str!("tests/foreign.age");
    let identity: Identity = include_str!("tests/foreign.key").parse().unwrap();
    assert_eq!(open(text, &[identity]).unwrap().as_slice(), b"sealed elsewhere");
}

#[test]
fn a_file_of_keys_that_others_may_read_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    let (identity, _) = pair();
    fs::write(&path, format!("# made today\n{}\n", *identity.to_text().unwrap())).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(identities(&path).unwrap().len(), 1);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(identities(&path), Err(FetchError::Exposed { mode: 0o640, .. })));
}
