//! Replays the fuzz corpora, so that what was once found stays found without a fuzzer.

#[path = "../../../fuzz/src/checks.rs"]
#[expect(unreachable_pub, reason = "the fuzz targets use them from outside")]
mod checks;

use std::{fs, path::Path};

fn replay(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut replayed = 0;
    for entry in fs::read_dir(&folder).expect("the corpus is there") {
        let path = entry.expect("the folder can be read").path();
        check(&fs::read(&path).expect("the case can be read"));
        replayed += 1;
    }
    assert!(replayed > 5, "the corpus of {target} has gone");
}

#[test]
fn requests_of_the_corpus_keep_the_promises() {
    replay("request_head", checks::request_head);
}

#[test]
fn conversions_of_the_corpus_keep_the_promises() {
    replay("converted_head", checks::converted_head);
}

#[test]
fn responses_of_the_corpus_keep_the_promises() {
    replay("response_head", checks::response_head);
}

#[test]
fn chunked_bodies_of_the_corpus_keep_the_promises() {
    replay("chunked", checks::chunked);
}
