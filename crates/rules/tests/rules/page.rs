//! `docs/api-support.md` names every extension of Envoy that compiles.

use std::path::Path;

#[test]
fn the_page_has_every_extension_that_compiles() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("../../docs/api-support.md")).unwrap();
    let mut found = 0;
    let mut folders = vec![root.join("src/compile")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let code = std::fs::read_to_string(&path).unwrap();
            for name in code.split('"').filter(|text| text.starts_with("envoy.")) {
                // `envoy.extensions.filters.http.lua.v3.Lua` is `lua.v3.Lua` on the page.
                let parts: Vec<&str> = name.split('.').collect();
                let short = match parts.iter().position(|part| *part == "v3") {
                    Some(version) => parts[version - 1..].join("."),
                    None if name.starts_with("envoy.transport_sockets.") => continue,
                    None => name.to_owned(),
                };
                assert!(page.contains(&format!("`{short}`")), "{name} is not on the page");
                found += 1;
            }
        }
    }
    assert!(found > 20, "only {found} names were looked for");
}
