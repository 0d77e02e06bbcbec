//! What is written is what is read, whatever it is and however long the connection lasts.

use proptest::collection::vec;
use proptest::prelude::*;

use super::{LIST_BYTES_MAX, Section};
use crate::hpack::{Decoder, Encoder, Indexing, huffman, integer};

/// Few names and values, so that they come again; and any octets.
fn field() -> impl Strategy<Value = (Vec<u8>, Vec<u8>, bool)> {
    let name = prop_oneof![
        4 => prop::sample::select(vec![":path", ":status", "cookie", "x-a", "x-b", "x-request-id", ""])
            .prop_map(|name| name.as_bytes().to_vec()),
        1 => vec(any::<u8>(), 0..40),
    ];
    let value = prop_oneof![
        4 => (0..30_u8).prop_map(|n| format!("value-{n}").into_bytes()),
        1 => vec(any::<u8>(), 0..300),
        1 => vec(32..127_u8, 0..1200),
    ];
    (name, value, prop::bool::weighted(0.1))
}

/// A change of the table's size, and the fields of one block: name, value, never indexed.
type Block = (Option<u32>, Vec<(Vec<u8>, Vec<u8>, bool)>);

/// A connection: sections, some behind a change of the table's size.
fn connection() -> impl Strategy<Value = Vec<Block>> {
    let size = prop_oneof![5 => Just(None), 1 => (0..5000_u32).prop_map(Some)];
    vec((size, vec(field(), 0..20)), 1..40)
}

proptest! {
    #[test]
    fn sections_come_back_as_they_were(connection in connection()) {
        let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(4096));
        let mut section = Section::new();
        for (size, fields) in connection {
            if let Some(size) = size {
                encoder.set_table_bytes_max(size);
            }
            let mut block = Vec::new();
            for (name, value, never) in &fields {
                let indexing = if *never { Indexing::Never } else { Indexing::Usual };
                encoder.encode(name, value, indexing, &mut block);
            }
            prop_assert_eq!(decoder.decode(&block, LIST_BYTES_MAX, &mut section), Ok(()));
            let expected: Vec<(&[u8], &[u8], bool)> =
                fields.iter().map(|(name, value, never)| (&name[..], &value[..], *never)).collect();
            prop_assert_eq!(section.iter().collect::<Vec<_>>(), expected);
            if !fields.is_empty() {
                prop_assert_eq!(encoder.table_size(), decoder.table_size());
            }
        }
    }

    #[test]
    fn any_octets_survive_the_huffman_code(text in vec(any::<u8>(), 0..200)) {
        let mut coded = Vec::new();
        huffman::encode(&text, &mut coded);
        prop_assert_eq!(coded.len(), huffman::encoded_len(&text));
        let mut back = b"before".to_vec();
        prop_assert_eq!(huffman::decode(&coded, &mut back), Ok(()));
        prop_assert_eq!(&back[6..], &text[..]);
    }

    /// A text has one code: what is read and written again is the same.
    #[test]
    fn bits_that_are_a_text_are_its_only_code(bits in vec(any::<u8>(), 0..40)) {
        let mut text = Vec::new();
        if huffman::decode(&bits, &mut text).is_ok() {
            let mut again = Vec::new();
            huffman::encode(&text, &mut again);
            prop_assert_eq!(again, bits);
        }
    }

    #[test]
    fn integers_come_back_as_they_were(value in any::<u32>(), prefix in 4..=7_u32) {
        let mut out = Vec::new();
        integer::encode(value as usize, prefix, 0, &mut out);
        let mut at = 0;
        prop_assert_eq!(integer::decode(&out, &mut at, prefix), Ok(value));
        prop_assert_eq!(at, out.len());
    }

    #[test]
    fn any_octets_as_a_block_give_fields_within_the_limit_or_an_error(
        blocks in vec(vec(any::<u8>(), 0..200), 1..5),
        limit in 0..4096_usize,
    ) {
        let mut decoder = Decoder::new(4096);
        let mut section = Section::new();
        for block in blocks {
            let result = decoder.decode(&block, limit, &mut section);
            if result.is_err_and(|error| error.ends_connection()) {
                break;
            }
            let size: usize = section.iter().map(|(name, value, _)| name.len() + value.len() + 32).sum();
            prop_assert!(size <= limit);
        }
    }
}
