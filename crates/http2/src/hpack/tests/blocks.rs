//! Field blocks that are wrong, or too large.

use super::{DecodeError, Decoder, LIST_BYTES_MAX, Section, decode, lines, octets};
use crate::hpack::LIST_BYTES_BEYOND_MAX;

#[test]
fn malformed_blocks_are_refused_by_what_is_wrong_with_them() {
    use DecodeError::{Huffman, Index, Integer, LateSizeUpdate, SizeUpdate, Truncated};
    for (what, hex, error) in [
        ("index zero", "80", Index),
        ("index behind both tables", "be", Index),
        ("a huge index", "ff ffff ff0f", Index),
        ("an index of 33 bits", "ff ffff ffff 1f", Integer),
        ("an index of six octets of zeros", "ff 8080 8080 8000", Integer),
        ("an index that breaks off", "ff", Truncated),
        ("an index that breaks off later", "ff 80", Truncated),
        ("a name's index behind both tables", "7e 0161", Index),
        ("a literal without a name", "40", Truncated),
        ("a literal without a value", "40 0161", Truncated),
        ("a name that breaks off", "40 0261", Truncated),
        ("a value that breaks off", "00 0161 0562", Truncated),
        ("a value of 4 GiB", "00 0161 7f80 ffff ff0f 62", Truncated),
        ("a length of 33 bits", "00 0161 7f81 ffff ff1f 62", Integer),
        ("padding by zeros", "00 8118 00", Huffman),
        ("padding by a zero at the end", "00 811e 00", Huffman),
        ("eight bits of padding", "00 821f ff 00", Huffman),
        ("padding alone", "00 81ff 00", Huffman),
        ("EOS", "00 84 ffff fffc 00", Huffman),
        ("EOS behind a character", "00 85 1fff ffff ff 00", Huffman),
        ("a code that breaks off", "00 82ffff 00", Huffman),
        ("a table larger than offered", "3fe2 1f", SizeUpdate),
        ("a table of 4 GiB", "3fe0 ffff ff0f", SizeUpdate),
        ("a table size behind a field", "82 20", LateSizeUpdate),
        ("a table size that breaks off", "3f", Truncated),
    ] {
        assert_eq!(decode(&mut Decoder::new(4096), &octets(hex)), Err(error), "{what}");
        assert!(error.ends_connection());
    }
}

#[test]
fn unusual_blocks_that_the_rfc_allows_are_read() {
    for (what, hex, fields) in [
        ("nothing", "", &[][..]),
        ("a table of all that is offered", "3fe1 1f 82", &[":method: GET"]),
        ("two sizes", "20 3fe1 1f 82", &[":method: GET"]),
        ("an empty name and value", "00 00 00", &[": "]),
        ("a size in more octets than it needs", "3f80 8000 82", &[":method: GET"]),
        ("an empty Huffman string", "00 80 80", &[": "]),
        ("a static name spelled out", "00 053a 7061 7468 012f", &[":path: /"]),
    ] {
        assert_eq!(decode(&mut Decoder::new(4096), &octets(hex)).unwrap(), fields, "{what}");
    }
}

#[test]
fn a_table_of_size_zero_holds_nothing() {
    let mut decoder = Decoder::new(4096);
    assert_eq!(decode(&mut decoder, &octets("20 4001 6101 62")).unwrap(), ["a: b"]);
    assert_eq!(decode(&mut decoder, &octets("be")), Err(DecodeError::Index));
}

#[test]
fn an_entry_larger_than_the_table_empties_it() {
    let mut decoder = Decoder::new(4096);
    assert_eq!(decode(&mut decoder, &octets("4001 6101 62 be")).unwrap().len(), 2);
    let mut large = octets("40 0161 7f");
    large.extend(octets("e1 1f")); // 127 + 97 + 31 × 128 = 4,192 octets
    large.extend(std::iter::repeat_n(b'x', 4192));
    assert_eq!(decode(&mut decoder, &large).unwrap().len(), 1);
    assert_eq!(decoder.table_size(), 0);
    assert_eq!(decode(&mut decoder, &octets("be")), Err(DecodeError::Index));
}

#[test]
fn an_entry_that_pushes_out_the_one_it_takes_its_name_from_is_whole() {
    let mut decoder = Decoder::new(4096);
    // 38 octets are room for one entry of three characters of name and three of value.
    assert_eq!(decode(&mut decoder, &octets("3f07 4003 6e61 6d03 6f6e 65")).unwrap(), ["nam: one"]);
    assert_eq!(decode(&mut decoder, &octets("7e 0374 776f be")).unwrap(), ["nam: two"; 2]);
}

#[test]
fn a_list_over_its_limit_leaves_the_table_in_step() {
    let mut decoder = Decoder::new(4096);
    let mut section = Section::new();
    // Two fields of 34 octets each, the second of which is one too many; both enter the table.
    let block = octets("4001 6101 31 4001 6201 32 82");
    assert_eq!(decoder.decode(&block, 67, &mut section), Err(DecodeError::ListTooLarge));
    assert!(!DecodeError::ListTooLarge.ends_connection());
    assert_eq!(lines(&section), ["a: 1"]);
    assert_eq!(decoder.decode(&octets("bf be"), 68, &mut section), Ok(()));
    assert_eq!(lines(&section), ["a: 1", "b: 2"]);
    assert_eq!(section.bytes(), b"a1b2");
}

#[test]
fn a_list_without_measure_ends_the_connection() {
    let mut decoder = Decoder::new(4096);
    let mut section = Section::new();
    let mut bomb = octets("40 0161 7f");
    bomb.extend(octets("81 1e")); // 127 + 1 + 30 × 128 = 3,968 octets, an entry of 4,001
    bomb.extend(std::iter::repeat_n(b'x', 3968));
    let references = (LIST_BYTES_MAX + LIST_BYTES_BEYOND_MAX) / 4001;
    bomb.extend(std::iter::repeat_n(0xbe, references - 1));
    let held = {
        let mut decoder = Decoder::new(4096);
        let result = decoder.decode(&bomb, LIST_BYTES_MAX, &mut section);
        assert_eq!(result, Err(DecodeError::ListTooLarge));
        section.bytes().len()
    };
    assert!(held <= LIST_BYTES_MAX);
    bomb.push(0xbe);
    let result = decoder.decode(&bomb, LIST_BYTES_MAX, &mut section);
    assert_eq!(result, Err(DecodeError::ListWithoutMeasure));
}

#[test]
fn a_table_used_for_long_holds_at_most_twice_its_size() {
    let mut decoder = Decoder::new(4096);
    for round in 0..20_000_u32 {
        let mut block = octets("40 0461 6161 61");
        let len = (round % 100) as usize;
        block.push(len as u8);
        block.extend(std::iter::repeat_n(b'x', len));
        assert_eq!(decode(&mut decoder, &block).unwrap().len(), 1);
        assert!(decoder.table_size() <= 4096);
        assert!(decoder.table_bytes_held() <= 8192);
    }
}
