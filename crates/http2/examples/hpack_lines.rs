//! One end of an HPACK connection by lines, for judges that are other programs.
//!
//! `N` begins a new connection; `S SIZE` takes the peer's SETTINGS_HEADER_TABLE_SIZE; `E FIELD…`
//! answers with a field block; `D LIST_BYTES_MAX BLOCK` answers with fields, or with `!` and why not.
//! A field is `NAME:VALUE:KIND`, where KIND is `u` or, for one never indexed, `n`. Octets are in hex.

use std::io::{BufRead, Result, Write};

use sluis_http2::hpack::{Decoder, Encoder, Indexing, Section};

/// What the judges offer as the size of our decoder's table.
const TABLE_BYTES_MAX: usize = 16_384;

fn octets(hex: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex digits");
    (0..hex.len()).step_by(2).map(digit).collect()
}

fn hex(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

fn encoded(encoder: &mut Encoder, fields: &[&str]) -> String {
    let mut block = Vec::new();
    for field in fields {
        let mut parts = field.split(':');
        let mut part = || parts.next().expect("three parts");
        let (name, value) = (octets(part()), octets(part()));
        let indexing = if part() == "n" { Indexing::Never } else { Indexing::Usual };
        encoder.encode(&name, &value, indexing, &mut block);
    }
    hex(&block)
}

fn decoded(decoder: &mut Decoder, words: &[&str]) -> String {
    let mut section = Section::new();
    let list_bytes_max = words[0].parse().expect("a number");
    let block = octets(words.get(1).copied().unwrap_or_default());
    if let Err(error) = decoder.decode(&block, list_bytes_max, &mut section) {
        return format!("! {error}");
    }
    let fields = section.iter().map(|(name, value, never)| {
        format!("{}:{}:{}", hex(name), hex(value), if never { "n" } else { "u" })
    });
    fields.collect::<Vec<_>>().join(" ")
}

fn main() -> Result<()> {
    let (mut encoder, mut decoder) = (Encoder::new(), Decoder::new(TABLE_BYTES_MAX));
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let answer = match words.split_first() {
            Some((&"E", fields)) => encoded(&mut encoder, fields),
            Some((&"D", rest)) => decoded(&mut decoder, rest),
            Some((&"S", rest)) => {
                encoder.set_table_bytes_max(rest[0].parse().expect("a number"));
                String::new()
            }
            _ => {
                (encoder, decoder) = (Encoder::new(), Decoder::new(TABLE_BYTES_MAX));
                String::new()
            }
        };
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}
