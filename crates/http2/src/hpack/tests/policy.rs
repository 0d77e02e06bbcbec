//! What the encoder puts into its table, and what it never does.

use super::{Decoder, Section, decode, lines, octets};
use crate::hpack::{Encoder, Indexing, TABLE_BYTES_DEFAULT, static_name, static_name_at};

fn block(encoder: &mut Encoder, fields: &[(&str, &str)], indexing: Indexing) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        encoder.encode(name.as_bytes(), value.as_bytes(), indexing, &mut out);
    }
    out
}

#[test]
fn a_field_enters_the_table_when_it_comes_again() {
    let mut encoder = Encoder::new();
    let field = [("x-team", "payments")];
    let once = block(&mut encoder, &field, Indexing::Usual);
    assert_eq!(once, b"\x00\x06x-team\x08payments");
    let again = block(&mut encoder, &field, Indexing::Usual);
    assert_eq!(again[0], 0x40);
    assert_eq!(block(&mut encoder, &field, Indexing::Usual), [0xbe]);
    // Another value of the name takes the name from the table.
    let other = block(&mut encoder, &[("x-team", "search")], Indexing::Usual);
    assert_eq!(other, b"\x0f\x2f\x06search");
}

#[test]
fn a_value_that_changes_every_time_never_enters_the_table() {
    let mut encoder = Encoder::new();
    for request in 0..10_000 {
        let id = format!("{request:032x}");
        let out = block(&mut encoder, &[("x-request-id", &id)], Indexing::Usual);
        assert_eq!(out[0], 0x00);
    }
    assert!(encoder.table_is_empty());
}

#[test]
fn a_secret_never_enters_the_table() {
    let mut encoder = Encoder::new();
    let field = [("authorization", "Bearer secret"), ("x-key", "secret")];
    let first = block(&mut encoder, &field, Indexing::Never);
    for _ in 0..3 {
        assert_eq!(block(&mut encoder, &field, Indexing::Never), first);
    }
    assert!(encoder.table_is_empty());
    assert_eq!(
        decode(&mut Decoder::new(4096), &first).unwrap(),
        ["!authorization: Bearer secret", "!x-key: secret"]
    );
    // Even where the static table has the field.
    let method = block(&mut encoder, &[(":method", "GET")], Indexing::Never);
    assert_eq!(method, b"\x12\x03GET");
}

#[test]
fn a_value_that_came_as_secret_and_as_usual_is_not_found_for_the_secret() {
    let mut encoder = Encoder::new();
    let field = [("x-key", "value")];
    for _ in 0..3 {
        block(&mut encoder, &field, Indexing::Usual);
    }
    let out = block(&mut encoder, &field, Indexing::Never);
    assert_eq!(out, b"\x1f\x2f\x05value");
}

#[test]
fn large_values_stay_out_of_the_table() {
    let mut encoder = Encoder::new();
    let large = "x".repeat(2000);
    for _ in 0..3 {
        block(&mut encoder, &[("cookie", &large)], Indexing::Usual);
    }
    assert!(encoder.table_is_empty());
}

#[test]
fn fields_of_the_static_table_take_one_octet() {
    for index in 1..=61 {
        let mut section = Section::new();
        Decoder::new(4096).decode(&[0x80 | index], 4096, &mut section).unwrap();
        let field = section.get(0).unwrap();
        let mut out = Vec::new();
        Encoder::new().encode(field.name, field.value, Indexing::Usual, &mut out);
        assert_eq!(out, [0x80 | index]);
        assert_eq!(static_name(field.name), field.known);
        assert_eq!(static_name_at(index), Some(field.name));
    }
    for unknown in ["", "x", ":pat", ":paths", "pathx", &":path".repeat(100)] {
        assert_eq!(static_name(unknown.as_bytes()), 0);
    }
    assert_eq!((static_name_at(0), static_name_at(62)), (None, None));
}

#[test]
fn the_peer_is_told_of_every_change_of_the_tables_size() {
    let fields = [(":method", "GET")];
    for (what, sizes, expected) in [
        ("the same size", &[4096][..], "82"),
        ("more than is used", &[65_536], "82"),
        ("less", &[256], "3fe1 01 82"),
        ("none", &[0], "20 82"),
        ("less, then more", &[100, 4096], "3f45 3fe1 1f 82"),
        ("less, then less", &[1000, 30], "3e 82"),
        ("less, then more than before", &[0, u32::MAX], "20 3fe1 1f 82"),
    ] {
        let mut encoder = Encoder::new();
        for &size in sizes {
            encoder.set_table_bytes_max(size);
        }
        assert_eq!(block(&mut encoder, &fields, Indexing::Usual), octets(expected), "{what}");
        assert_eq!(block(&mut encoder, &fields, Indexing::Usual), [0x82], "{what}");
    }
}

#[test]
fn a_table_that_shrinks_is_in_step_at_both_ends() {
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(TABLE_BYTES_DEFAULT as usize));
    let mut section = Section::new();
    let fields: Vec<(String, String)> =
        (0..40).map(|n| (format!("x-name-{n}"), format!("value {n}"))).collect();
    for size in [4096, 600, 4096, 0, 90, 2000, 2000] {
        encoder.set_table_bytes_max(size);
        for _ in 0..3 {
            let mut out = Vec::new();
            for (name, value) in &fields {
                encoder.encode(name.as_bytes(), value.as_bytes(), Indexing::Usual, &mut out);
            }
            decoder.decode(&out, 1 << 16, &mut section).unwrap();
            let expected: Vec<String> =
                fields.iter().map(|(name, value)| format!("{name}: {value}")).collect();
            assert_eq!(lines(&section), expected);
            assert!(encoder.table_size() <= size as usize);
            assert_eq!(encoder.table_size(), decoder.table_size());
        }
    }
}
