//! Holds `install/crds.yaml` to the readers. `make support` writes it anew.

use std::path::Path;

use sluis_resources::{crds, parse};

#[test]
fn the_definitions_are_those_of_the_readers() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../install/crds.yaml");
    let made = crds();
    if std::env::var_os("UPDATE_SUPPORT").is_some() {
        std::fs::write(&path, &made).expect("the file can be written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == made, "install/crds.yaml is old (make support)");
}

#[test]
fn each_field_of_the_examples_is_in_the_definitions() {
    let made = crds();
    let example =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/credential-grant/istio");
    for name in ["credential.yaml", "grant.yaml"] {
        let text = std::fs::read_to_string(example.join(name)).expect("the example is there");
        assert_eq!(parse(name, &text).faults, [], "{name}");
    }
    for field in
        ["stringToSign:", "perIdentityPerMinute:", "principals:", "tokenUrl:", "onFailure:"]
    {
        assert!(made.contains(&format!("{field} {{")), "{field}");
    }
    // Definitions are left out with a warning, like all that says nothing of traffic.
    let faults = parse("crds.yaml", &made).faults;
    assert!(faults.iter().all(|fault| !fault.is_error()) && faults.len() == 2, "{faults:#?}");
}
