//! Holds `docs/reference/support.md` to the readers. `make support` writes it anew.

use std::path::Path;

#[test]
fn the_support_page_says_what_the_readers_do() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference/support.md");
    let page = sluis_resources::support_page();
    if std::env::var_os("UPDATE_SUPPORT").is_some() {
        std::fs::write(&path, &page).expect("the page can be written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let different = page.lines().zip(written.lines()).find(|(new, old)| new != old);
    assert!(written == page, "docs/reference/support.md is old (make support): {different:#?}");
}
