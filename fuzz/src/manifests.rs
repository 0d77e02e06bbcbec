//! What must hold for any text that is read as manifests.
//!
//! In:    any bytes.
//! Out:   a panic when a promise of the reader is broken.
//! Never: judges whether input should be accepted; that is for the tables of the reader's tests.

use sluis_resources::{Options, parse, parse_with};

/// Most faults of one document, and the one that says how many more there are.
const FAULTS_MAX: usize = 501;

/// Reading ends without a panic; places are in the text; faults are few; what is taken strictly is
/// taken leniently as the same; and reading again finds the same.
///
/// # Panics
///
/// When that does not hold.
pub fn manifest(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let strict = parse("fuzz.yaml", text);
    // A lone carriage return ends a line of YAML too.
    let lines = text.split(['\n', '\r']).count() + 1;
    let documents = text.lines().filter(|line| line.starts_with("---")).count() + 1;
    assert!(strict.faults.len() <= FAULTS_MAX * documents, "{} faults", strict.faults.len());
    for fault in &strict.faults {
        let line = usize::try_from(fault.at.line).unwrap_or(usize::MAX);
        assert!((1..=lines).contains(&line), "{fault} is not in the text");
        assert!(!fault.message.is_empty(), "{fault}");
    }
    let lenient = parse_with("fuzz.yaml", text, &Options::LENIENT);
    for resource in &strict.resources {
        assert!(lenient.resources.contains(resource), "{} is lost leniently", resource.key());
    }
    if !strict.has_errors() {
        assert_eq!(strict, lenient, "nothing is wrong, and it is read differently");
    }
    assert_eq!(strict, parse("fuzz.yaml", text), "the verdict depends on more than the text");
}
