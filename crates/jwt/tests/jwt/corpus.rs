//! The fuzzer's corpus, and random bytes: nothing ends the program, and nothing unsigned is good.

use std::path::Path;

use proptest::prelude::*;
use sluis_jwt::{KeySet, Origin, Token};

/// What the fuzzer checks, of a token or a key set.
fn check(text: &str) {
    let token = Token::parse(text);
    for origin in [Origin::Local, Origin::Remote] {
        if let Ok(keys) = KeySet::parse(text, origin) {
            assert!(!keys.is_empty());
            if let Ok(token) = &token {
                assert!(keys.verify(token).is_err());
            }
        }
    }
}

#[test]
fn the_corpus_is_read_without_an_end() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/token");
    let mut found = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        check(&String::from_utf8_lossy(&std::fs::read(entry.unwrap().path()).unwrap()));
        found += 1;
    }
    assert!(found > 10, "{found} files");
}

proptest! {
    #[test]
    fn any_text_is_read_without_an_end(text in ".{0,200}") {
        check(&text);
    }

    #[test]
    fn anything_like_a_token_is_read_without_an_end(
        text in "[A-Za-z0-9_-]{0,60}\\.[A-Za-z0-9_-]{0,60}\\.[A-Za-z0-9_-]{0,60}",
    ) {
        check(&text);
    }
}
