//! Replays the fuzz corpus of signing requests, as it is and with small changes, so that what was once
//! found stays found without a fuzzer.

#[path = "../../../fuzz/src/requests.rs"]
#[expect(unreachable_pub, reason = "the fuzz target uses it from outside")]
mod requests;

use std::path::Path;

/// In so many places of each file, one byte is changed in each of these ways.
const PLACES: usize = 120;
const CHANGES: [u8; 4] = [0x7f, 0x80, 0xff, 0x01];

#[test]
fn requests_of_the_corpus_and_their_changed_copies_are_read_without_a_panic() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/signing_request");
    let mut files = 0;
    for file in std::fs::read_dir(folder).expect("the corpus is there") {
        let bytes = std::fs::read(file.expect("readable").path()).expect("the file is readable");
        files += 1;
        requests::signing_request(&bytes);
        let step = bytes.len().div_ceil(PLACES);
        for at in (0..bytes.len()).step_by(step) {
            requests::signing_request(&bytes[..at]);
            for change in CHANGES {
                let mut copy = bytes.clone();
                copy[at] = copy[at].wrapping_add(change);
                requests::signing_request(&copy);
            }
        }
    }
    assert!(files >= 8, "{files} files");
}
