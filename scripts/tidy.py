#!/usr/bin/env python3
"""Checks the rules of the tree that no lint knows; prints each breach and exits 1 if there is one.

A Rust file opens with `//!` and has at most 800 lines; no mod.rs, no module called util, common,
helpers or misc; a TODO carries an issue number; a crate imports only what its wall lets through;
links between Markdown files resolve; the tests that docs/reference/bad-inputs.md names are there.
"""

import pathlib
import re
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
LINES_MAX = 800

# Which crates may depend on what. A wall that falls here falls for every reader of DESIGN.
WALLS = {
    "tokio": {"sluis-xds", "sluis-tls", "sluis-identity", "sluis-ca", "sluis-sources",
              "sluis-control", "sluis-capture", "sluis-custody", "sluis-proxy", "sluis", "sluis-proxy-bin"},
    "tonic": {"sluis-xds", "sluis-identity", "sluis-ca"},
    "rustls": {"sluis-tls", "sluis-proxy", "sluis-xds", "sluis-identity", "sluis-ca", "sluis-custody"},
    "rcgen": {"sluis-ca", "sluis-identity"},
    "mlua": {"sluis-script"},
    "prost-reflect": {"sluis-protojson"},
    "clap": {"sluis", "sluis-proxy-bin"},
    "anyhow": {"sluis", "sluis-proxy-bin"},
    "sluis-resources": {"sluis-model", "sluis-translate", "sluis-sources", "sluis-control", "sluis"},
    "sluis-ca": {"sluis"},
    "sluis-custody": {"sluis"},
}


def main() -> int:
    breaches = []
    files = [p for p in ROOT.rglob("*.rs") if not {"target", ".git"} & set(p.relative_to(ROOT).parts)]
    for path in files:
        name = path.relative_to(ROOT)
        text = path.read_text()
        lines = text.splitlines()
        if path.name == "mod.rs" or path.stem in {"util", "utils", "common", "helpers", "misc"}:
            breaches.append(f"{name}: no module of this name")
        if not text.startswith("//!") and not text.startswith("#!["):
            breaches.append(f"{name}: does not open with //!")
        if len(lines) > LINES_MAX:
            breaches.append(f"{name}: {len(lines)} lines, more than {LINES_MAX}")
        for number, line in enumerate(lines, 1):
            if re.search(r"\bTODO\b(?!\(#\d+\))", line):
                breaches.append(f"{name}:{number}: TODO without (#issue)")
    for manifest in sorted(ROOT.glob("crates/*/Cargo.toml")) + sorted(ROOT.glob("bin/*/Cargo.toml")):
        package = tomllib.loads(manifest.read_text())
        crate = package["package"]["name"]
        for dependency in package.get("dependencies", {}):
            if dependency in WALLS and crate not in WALLS[dependency]:
                breaches.append(f"{manifest.relative_to(ROOT)}: {crate} may not depend on {dependency}")
    for page in ROOT.rglob("*.md"):
        if {"target", ".git"} & set(page.relative_to(ROOT).parts):
            continue
        for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            if not (page.parent / link).exists():
                breaches.append(f"{page.relative_to(ROOT)}: link to {link} leads nowhere")
    tests = {name for path in files for name in re.findall(r"\bfn (\w+)\(\)", path.read_text())}
    page = ROOT / "docs/reference/bad-inputs.md"
    for name in re.findall(r"`([a-z0-9_]{20,})`", page.read_text()):
        if name not in tests:
            breaches.append(f"{page.relative_to(ROOT)}: no test is called {name}")
    for breach in breaches:
        print(breach)
    print(f"tidy: {len(files)} Rust files, {len(breaches)} breaches")
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
