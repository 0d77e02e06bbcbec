//! Replays the fuzz corpora, so that what was once found stays found without a fuzzer.

#[path = "../../../fuzz/src/checks.rs"]
#[expect(unreachable_pub, reason = "the fuzz targets use them from outside")]
mod checks;
#[path = "../../../fuzz/src/framing.rs"]
#[expect(unreachable_pub, reason = "the fuzz targets use them from outside")]
mod framing;
#[path = "../../../fuzz/src/letter.rs"]
#[expect(unreachable_pub, reason = "the fuzz targets use them from outside")]
mod letter;
#[path = "../../../fuzz/src/peers.rs"]
#[expect(unreachable_pub, reason = "the fuzz targets use them from outside")]
mod peers;

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

#[test]
fn hyper_reads_what_it_is_asked_to_judge() {
    let two =
        b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n\
                GET /b HTTP/1.1\r\nHost: a\r\n\r\n";
    let seen = peers::requests(two);
    let told: Vec<_> = seen.iter().map(|seen| (&seen.path[..], &seen.content[..])).collect();
    assert_eq!(told, [(&b"/a"[..], &b"hi"[..]), (b"/b", b"")]);
    let answer = peers::response(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "GET");
    assert_eq!(answer.map(|seen| (seen.status, seen.content)), Some((200, b"hi".to_vec())));
    assert_eq!(peers::response(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi", "GET"), None);
}
