//! Replays the fuzz corpora, and small changes of them, so that what was once found stays found.

#[path = "../../../fuzz/src/http2.rs"]
#[expect(unreachable_pub, reason = "the fuzz targets use them from outside")]
mod http2;

use std::{fs, path::Path};

use proptest::{collection::vec, prelude::*};

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let files = fs::read_dir(&folder).expect("the corpus is there");
    let mut cases: Vec<_> =
        files.map(|entry| entry.expect("the folder can be read").path()).collect();
    cases.sort();
    assert!(cases.len() > 5, "the corpus of {target} has gone");
    cases.iter().map(|path| fs::read(path).expect("the case can be read")).collect()
}

#[test]
fn field_blocks_of_the_corpus_keep_the_promises() {
    corpus("hpack_decode").iter().for_each(|case| http2::hpack_decode(case));
}

#[test]
fn connections_of_the_corpus_keep_the_promises() {
    corpus("http2_engine").iter().for_each(|case| http2::http2_engine(case));
}

/// A case with some octets changed, one cut out, or another case behind it.
fn changed(target: &str) -> impl Strategy<Value = Vec<u8>> + use<> {
    let cases = corpus(target);
    let any_case = prop::sample::select(cases);
    (any_case.clone(), any_case, vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 0..6))
        .prop_map(|(mut case, other, changes)| {
            for (at, octet, how) in changes {
                let at = at.index(case.len().max(1));
                match how {
                    0 if at < case.len() => drop(case.remove(at)),
                    1 => case.insert(at.min(case.len()), octet),
                    2 => case.extend_from_slice(other.get(1..).unwrap_or_default()),
                    _ if at < case.len() => case[at] = octet,
                    _ => {}
                }
            }
            case
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn changed_field_blocks_keep_the_promises(case in changed("hpack_decode")) {
        http2::hpack_decode(&case);
    }

    #[test]
    fn changed_connections_keep_the_promises(case in changed("http2_engine")) {
        http2::http2_engine(&case);
    }
}
