//! What is in force after files have changed in every way.

use std::fs;
use std::path::Path;

use super::{Files, Options, SourceEvent, load};

fn namespace(name: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n")
}

fn upserts(event: &SourceEvent) -> Vec<String> {
    event.upserts.iter().map(|resource| resource.key().name.to_string()).collect()
}

fn removals(event: &SourceEvent) -> Vec<String> {
    event.removals.iter().map(|key| key.name.to_string()).collect()
}

struct Folder {
    directory: tempfile::TempDir,
}

impl Folder {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn files(&self) -> Files {
        Files::new(vec![self.path().to_owned()], Options::default())
    }
}

#[test]
fn the_files_of_a_directory_are_found_at_any_depth() {
    let folder = Folder::new();
    folder.write("a.yaml", &namespace("a"));
    folder.write("sub/deep/b.yml", &namespace("b"));
    folder
        .write("c.json", r#"{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "c"}}"#);
    folder.write(".hidden.yaml", &namespace("no"));
    folder.write(".git/d.yaml", &namespace("no"));
    folder.write("readme.txt", "no");
    folder.write("a.yaml~", &namespace("no"));
    let event = folder.files().refresh().unwrap();
    assert_eq!(upserts(&event), ["a", "b", "c"]);
    assert_eq!(event.faults, []);
}

#[test]
fn only_what_changed_is_told() {
    let folder = Folder::new();
    folder.write("a.yaml", &format!("{}---\n{}", namespace("a"), namespace("b")));
    let mut files = folder.files();
    assert_eq!(upserts(&files.refresh().unwrap()), ["a", "b"]);
    assert_eq!(files.refresh(), None);
    folder.write("a.yaml", &format!("{}---\n{}", namespace("a"), namespace("c")));
    let event = files.refresh().unwrap();
    assert_eq!((upserts(&event), removals(&event)), (vec!["c".into()], vec!["b".into()]));
    fs::remove_file(folder.path().join("a.yaml")).unwrap();
    assert_eq!(removals(&files.refresh().unwrap()), ["a", "c"]);
}

#[test]
fn a_broken_file_keeps_its_last_good_version() {
    let folder = Folder::new();
    folder.write("a.yaml", &namespace("a"));
    folder.write("b.yaml", &namespace("b"));
    let mut files = folder.files();
    files.refresh().unwrap();

    folder.write("a.yaml", &format!("{}---\nkind: [\n", namespace("x")));
    folder.write("b.yaml", &namespace("z"));
    let event = files.refresh().unwrap();
    assert_eq!((upserts(&event), removals(&event)), (vec!["z".into()], vec!["b".into()]));
    assert!(event.faults[0].at.to_string().contains("a.yaml:"), "{:?}", event.faults);
    assert!(event.never_good.is_empty());

    folder.write("a.yaml", &namespace("x"));
    let event = files.refresh().unwrap();
    assert_eq!((upserts(&event), removals(&event)), (vec!["x".into()], vec!["a".into()]));
    assert_eq!(event.faults, []);
}

#[test]
fn a_file_that_was_never_good_is_told_and_not_used() {
    let folder = Folder::new();
    folder.write("a.yaml", &format!("{}---\nkind: X\n", namespace("a")));
    let mut files = folder.files();
    let event = files.refresh().unwrap();
    assert_eq!(upserts(&event), [""; 0]);
    assert_eq!(event.never_good, [folder.path().join("a.yaml")]);
    assert!(!event.faults.is_empty());
    // The same fault is not told again.
    assert_eq!(files.refresh(), None);
}

#[test]
fn an_object_in_two_files_is_a_fault_that_names_both() {
    let folder = Folder::new();
    folder.write("a.yaml", &namespace("a"));
    folder.write("b.yaml", &format!("\n{}", namespace("a")));
    let mut files = folder.files();
    let event = files.refresh().unwrap();
    assert_eq!(upserts(&event), ["a"]);
    let fault = event.faults[0].to_string();
    assert!(fault.contains("b.yaml:2:1") && fault.contains("a.yaml:1:1"), "{fault}");
    assert_eq!(load(&[folder.path().to_owned()], &Options::default()).all_faults().len(), 1);

    // With the first one gone, the second is in force, from its own place.
    fs::remove_file(folder.path().join("a.yaml")).unwrap();
    let event = files.refresh().unwrap();
    assert_eq!(
        (upserts(&event), removals(&event), event.faults.len()),
        (vec!["a".into()], vec![], 0)
    );
}

#[test]
fn a_path_that_cannot_be_read_keeps_what_was_below_it() {
    let folder = Folder::new();
    let inner = folder.path().join("inner");
    folder.write("inner/a.yaml", &namespace("a"));
    let mut files = Files::new(vec![inner.clone()], Options::default());
    assert_eq!(upserts(&files.refresh().unwrap()), ["a"]);
    fs::rename(&inner, folder.path().join("away")).unwrap();
    let event = files.refresh().unwrap();
    assert_eq!(removals(&event), [""; 0]);
    assert!(event.faults[0].to_string().contains("cannot be read"), "{:?}", event.faults);

    folder.write("inner/a.yaml", "\u{0}");
    fs::write(inner.join("a.yaml"), [0xff, 0xfe]).unwrap();
    let event = files.refresh().unwrap();
    assert_eq!(removals(&event), [""; 0]);
    assert!(event.faults[0].to_string().contains("a.yaml: error: this cannot be read"));
}

#[test]
fn each_file_is_loaded_with_its_own_faults() {
    let folder = Folder::new();
    folder.write("a.yaml", &namespace("a"));
    folder.write("b.yaml", "kind: X\n");
    let loaded =
        load(&[folder.path().to_owned(), folder.path().join("missing.yaml")], &Options::default());
    let faults: Vec<usize> = loaded.files.iter().map(|(_, parsed)| parsed.faults.len()).collect();
    assert_eq!(faults, [0, 1]);
    assert_eq!(loaded.faults.len(), 1, "{:?}", loaded.faults);
    assert_eq!(loaded.all_faults().len(), 2);
}

#[test]
fn an_old_policy_finds_its_service_in_another_file() {
    const POLICY: &str = "
apiVersion: authentication.istio.io/v1alpha1
kind: Policy
metadata: {name: old, namespace: shop}
spec: {targets: [{name: web}], peers: [{mtls: {}}]}
";
    let service = |app: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: shop}}\n\
             spec: {{selector: {{app: {app}}}, ports: [{{name: http, port: 80}}]}}\n"
        )
    };
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    let selected = |event: &SourceEvent| {
        let policy = event.upserts.iter().find_map(|one| match &one.spec {
            sluis_resources::Spec::PeerAuthentication(policy) => policy.selector.clone(),
            _ => None,
        });
        policy.and_then(|labels| labels.get("app").map(str::to_owned))
    };
    write("policy.yaml", POLICY);
    let mut files = Files::new(vec![dir.path().to_path_buf()], Options::default());
    let first = files.refresh().unwrap();
    assert!(first.faults[0].to_string().contains("no Service shop/web"), "{:?}", first.faults);
    assert_eq!(first.never_good, [dir.path().join("policy.yaml")]);
    write("service.yaml", &service("a"));
    let second = files.refresh().unwrap();
    assert_eq!(
        (second.faults.as_slice(), selected(&second).as_deref()),
        ([].as_slice(), Some("a"))
    );
    write("service.yaml", &service("b"));
    assert_eq!(selected(&files.refresh().unwrap()).as_deref(), Some("b"));
    // Without its Service the policy stays in force as it was.
    fs::remove_file(dir.path().join("service.yaml")).unwrap();
    let last = files.refresh().unwrap();
    assert_eq!((last.removals.len(), last.upserts.len(), last.faults.len()), (1, 0, 1));
}
