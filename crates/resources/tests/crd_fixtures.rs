//! Accepts and refuses what Istio does, on Istio's own test data.
//!
//! The data is not part of the project: `SLUIS_CONFORMANCE_DIR` names the directory with it. Without
//! that variable the tests pass without having looked at anything.

use std::path::{Path, PathBuf};

use sluis_resources::{Fault, parse};

/// What is said of a kind that is read and checked, and that nothing carries out yet.
const PENDING: &str = "this kind is known, and not carried out yet";

/// What Istio accepts and we refuse by name, because nothing carries it out: the file, and the field.
const REFUSED_HERE: [(&str, &str); 3] = [
    ("authz-valid", "spec.rules[0].when[14].key"),
    // Services and GatewayClasses are targets of waypoints, which there are none of.
    ("reqauth-valid", "spec.targetRefs"),
    ("telemetry-valid", "spec.accessLogging[0].filter"),
];

fn directory(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("SLUIS_CONFORMANCE_DIR")?;
    Some(Path::new(&root).join(name))
}

/// Returns the YAML files of a directory with their text, in the order of their names.
fn files(directory: &Path) -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> = std::fs::read_dir(directory)
        .expect("the conformance data is readable")
        .map(|entry| entry.expect("the directory is readable").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .map(|path| {
            let text = std::fs::read_to_string(&path).expect("the file is text");
            (path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), text)
        })
        .collect();
    files.sort();
    files
}

/// Cuts a text into its documents, without those that are only comments.
fn documents(text: &str) -> Vec<String> {
    let mut documents = vec![String::new()];
    for line in text.lines() {
        if line.starts_with("---") || line == "#---" {
            documents.push(String::new());
        } else if let Some(document) = documents.last_mut() {
            document.push_str(line);
            document.push('\n');
        }
    }
    let written = |document: &String| {
        document.lines().any(|line| !line.trim().is_empty() && !line.starts_with('#'))
    };
    documents.into_iter().filter(written).collect()
}

/// Cuts `_err`, a part of what Istio says, off a document.
fn expectation(document: &str) -> (Option<String>, String) {
    let (mut message, mut rest) = (None, String::new());
    for line in document.lines() {
        match line.strip_prefix("_err:") {
            Some(text) => message = Some(text.trim().trim_matches(['"', '\'']).to_owned()),
            None => rest = rest + line + "\n",
        }
    }
    (message, rest)
}

/// Returns the field that a message of Istio's names, such as `spec.ports`.
fn field_of(message: &str) -> Option<&str> {
    let words = message.split([' ', ':']);
    words.map(|word| word.trim_matches('"')).find(|word| word.starts_with("spec"))
}

fn errors(name: &str, text: &str) -> Vec<Fault> {
    let parsed = parse(name, text);
    parsed.faults.into_iter().filter(|fault| fault.is_error() && fault.message != PENDING).collect()
}

/// Says what is wrong with our verdict on a document of `crds`, if anything is.
fn judge(valid: bool, document: &str) -> Option<String> {
    let (message, document) = expectation(document);
    let errors = errors("fixture.yaml", &document);
    if valid {
        return errors.first().map(|fault| format!("refused: {fault}\n{document}"));
    }
    if errors.is_empty() {
        return Some(format!("accepted, and Istio says {message:?}\n{document}"));
    }
    let field = message.as_deref().and_then(field_of).unwrap_or("spec");
    let is_named = errors.iter().any(|fault| fault.path.starts_with(field));
    (!is_named).then(|| format!("no fault names {field}: {errors:#?}\n{document}"))
}

fn is_refused_here(name: &str, complaint: &str) -> bool {
    let is_meant = |(file, field): &(&str, &str)| {
        *file == name && complaint.starts_with("refused: ") && complaint.contains(field)
    };
    REFUSED_HERE.iter().any(is_meant)
}

#[test]
fn istios_valid_objects_are_accepted_and_its_invalid_ones_refused() {
    let Some(directory) = directory("crds") else { return };
    let (mut passed, mut listed, mut wrong) = (0, 0, Vec::new());
    for (name, text) in files(&directory) {
        let valid = name.ends_with("-valid");
        assert!(valid || name.ends_with("-invalid"), "{name}: files are named so");
        for document in documents(&text) {
            match judge(valid, &document) {
                Some(complaint) if is_refused_here(&name, &complaint) => listed += 1,
                Some(complaint) => wrong.push(format!("{name}: {complaint}")),
                None => passed += 1,
            }
        }
    }
    let all = passed + listed + wrong.len();
    println!("{passed} of {all} of Istio's documents are judged alike, {listed} refused by a list");
    assert_eq!(listed, REFUSED_HERE.len(), "the list names what there is");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(passed > 30, "only {passed} documents were judged");
}

#[test]
fn istios_sample_configurations_are_read() {
    let Some(directory) = directory("configs") else { return };
    let mut objects = 0;
    for (name, text) in files(&directory) {
        let unsupported = |fault: &Fault| fault.message == "this kind is not supported";
        let mut errors = errors(&name, &text);
        errors.retain(|fault| !unsupported(fault));
        assert_eq!(errors, [], "{name}");
        objects += parse(&name, &text).resources.len();
    }
    println!("{objects} objects are read");
}
