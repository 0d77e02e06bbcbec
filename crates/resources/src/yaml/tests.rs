//! Places and bounds of the YAML reader.

use super::{DEPTH_MAX, Document, Node, NodeKind, Place, documents};

fn read(text: &str) -> Vec<Document> {
    documents(&"f.yaml".into(), text, Place::WHOLE)
}

fn faults(text: &str) -> Vec<String> {
    read(text).iter().flat_map(|document| &document.faults).map(ToString::to_string).collect()
}

fn get<'n>(node: &'n Node, key: &str) -> &'n Node {
    let NodeKind::Map(entries) = &node.kind else { panic!("no map: {node:?}") };
    &entries.iter().find(|entry| entry.key == key).expect("the key is there").value
}

#[test]
fn keys_and_values_know_their_place() {
    let docs = read("a: 1\nb:\n- c: x\n---\n# two\nd: [1, {e: f}]\n");
    let first = docs[0].root.as_ref().unwrap();
    let NodeKind::List(items) = &get(first, "b").kind else { panic!() };
    let c = get(&items[0], "c");
    assert_eq!((c.at.line, c.at.column), (3, 6));
    let second = docs[1].root.as_ref().unwrap();
    let NodeKind::List(items) = &get(second, "d").kind else { panic!() };
    let e = get(&items[1], "e");
    assert_eq!((e.at.line, e.at.column), (6, 12));
}

#[test]
fn the_lines_of_a_block_are_those_of_the_file() {
    for (text, line, column) in [
        ("m: |\n  x: 1\n", 2, 3),
        ("m: |- # why\n    x: 1\n", 2, 5),
        ("m: |\n\n  x: 1\n", 2, 3),
        ("m: |2\n    x: 1\n", 2, 3),
        ("m:\n  |\n\n\n  x\n", 3, 3),
        ("a: b\n---\nm:\n  n: |\n    x: 1\n", 5, 5),
    ] {
        let docs = read(text);
        let root = docs.last().unwrap().root.as_ref().unwrap();
        let m = get(root, "m");
        let value = if matches!(m.kind, NodeKind::Map(_)) { get(m, "n") } else { m };
        let NodeKind::Literal { first, .. } = &value.kind else { panic!("{value:?}") };
        assert_eq!((first.line, first.column), (line, column), "{text}");
    }
}

#[test]
fn a_broken_document_does_not_lose_the_others() {
    let docs = read("a: 1\n---\nb: [1\n---\nc: 3\n");
    let good: Vec<_> = docs.iter().map(|document| document.root.is_some()).collect();
    assert_eq!(good, [true, false, true]);
    assert!(faults("a: 1\n---\nb: [1\n---\nc: 3\n")[0].starts_with("f.yaml:"));
}

#[test]
fn equal_keys_are_a_fault_that_names_both_lines() {
    assert_eq!(
        faults("s:\n- a: 1\n  b: 2\n  a: 3\n"),
        ["f.yaml:4:3: error: s[0].a: this key is written twice, first in line 2"]
    );
}

#[test]
fn nesting_and_aliases_are_bounded() {
    let deep = format!("a: {}{}", "[".repeat(DEPTH_MAX + 1), "]".repeat(DEPTH_MAX + 1));
    assert!(faults(&deep)[0].contains("nested deeper"), "{:?}", faults(&deep));

    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..8 {
        let items = vec![format!("*a{}", level - 1); 10].join(", ");
        laughs.push_str(&format!("a{level}: &a{level} [{items}]\n"));
    }
    assert!(faults(&laughs)[0].contains("too many values"), "{:?}", faults(&laughs));
    assert_eq!(faults("a: &x {b: 1}\nc: *x\n"), [""; 0]);
}

#[test]
fn what_is_not_understood_is_refused() {
    for (text, expected) in [
        ("a: !env X\n", "the tag !env is not supported"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", "merge keys"),
        ("[a]: b\n", "a key must be a plain text"),
        ("a: *x\n", "not YAML"),
        ("a:\n\tb: 1\n", "not YAML"),
    ] {
        let faults = faults(text);
        assert!(faults.iter().any(|fault| fault.contains(expected)), "{text}: {faults:?}");
    }
}

#[test]
fn json_and_directives_are_read() {
    assert!(read("{\"a\": [1, true, null, \"x\"]}")[0].root.is_some());
    assert!(read("%YAML 1.2\n---\na: b\n")[0].root.is_some());
    assert!(read("").iter().all(|document| document.root.is_none()));
    assert!(read("# only words\n")[0].faults.is_empty());
}

#[test]
fn addresses_that_end_in_colons_are_texts_in_a_list_too() {
    let docs = read("a: [1.2.3.4, 2001:db8::]\nb: [c:]\n");
    let root = docs[0].root.as_ref().unwrap();
    let NodeKind::List(items) = &get(root, "a").kind else { panic!() };
    let NodeKind::Plain(text) = &items[1].kind else { panic!("{items:?}") };
    assert_eq!(text, "2001:db8::");
    let NodeKind::List(items) = &get(root, "b").kind else { panic!() };
    assert!(matches!(items[0].kind, NodeKind::Map(_)));
}
