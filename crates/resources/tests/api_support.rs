//! Holds the annotations on `docs/api-support.md` to those that are read.

use std::path::Path;

use regex::Regex;

#[test]
fn the_page_has_every_annotation_that_is_read() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).expect("the file is text");
    let (page, code) = (read("../../docs/api-support.md"), read("src/read/meta.rs"));
    let code = code.split("#[cfg(test)]").next().unwrap_or_default();
    let code = format!("{code}{}", read("../nouns/src/annotations.rs"));
    let pattern = Regex::new(r#""([a-z.]+/[A-Za-z-]+)""#).expect("the pattern is right");
    let annotations: Vec<&str> =
        pattern.captures_iter(&code).filter_map(|found| Some(found.get(1)?.as_str())).collect();
    assert!(annotations.len() > 5);
    for annotation in annotations {
        assert!(page.contains(&format!("\n| `{annotation}` |")), "{annotation}");
    }
}
