//! Any single edit of a log is found.

use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::*;
use crate::{
    Chain, Tail,
    record::{Gap, Reopening, Use, Verdict, Writer},
};

/// Stands for a key: whoever knows the word signs.
fn sign(word: &str, statement: &[u8]) -> Vec<u8> {
    hash(&[word.as_bytes(), statement].concat()).into_bytes()
}

fn judge(_: &Line, _: &Checkpoint, statement: &[u8], signature: &[u8]) -> Result<Signer, String> {
    if signature == sign("ours", statement) {
        Ok("spiffe://cluster.local/ns/egress/sa/gateway".to_owned())
    } else {
        Err("another key".to_owned())
    }
}

struct Log {
    chain: Chain,
    text: Vec<u8>,
    at: SystemTime,
}

impl Log {
    fn start() -> Self {
        let mut log =
            Self { chain: Chain::default(), text: Vec::new(), at: SystemTime::UNIX_EPOCH };
        log.put(Entry::Start(Writer::default()));
        log
    }

    fn put(&mut self, entry: Entry) {
        self.at += Duration::from_millis(7);
        self.chain.append(self.at, entry, &mut self.text);
    }

    fn sign(&mut self, occasion: Occasion, word: &str) {
        let checkpoint = Checkpoint { occasion, ..Checkpoint::default() };
        let signed = |statement: &[u8]| Ok::<_, ()>(sign(word, statement));
        self.chain.checkpoint(self.at, checkpoint, signed, &mut self.text).unwrap();
    }

    fn uses(&mut self, count: u32) {
        for number in 0..count {
            let mut used = Use { attempt: number, ..Use::default() };
            used.what.path = format!("/item/{number}?key");
            if number % 7 == 0 {
                used.verdict = Verdict::Denied;
            }
            self.put(Entry::Use(Box::new(used)));
            if number % 100 == 99 {
                self.sign(Occasion::Due, "ours");
            }
        }
    }
}

/// A log of a thousand uses, closed in order.
fn thousand() -> Vec<u8> {
    let mut log = Log::start();
    log.uses(1000);
    log.sign(Occasion::Close, "ours");
    log.text
}

fn verify(text: &[u8]) -> Report {
    let mut verifier = Verifier::new(judge);
    verifier.file("log");
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == b'\n');
        let line = &rest[..end.unwrap_or(rest.len())];
        verifier.line(line, end.is_some());
        rest = end.map_or(&[], |end| &rest[end + 1..]);
    }
    verifier.finish()
}

fn is_found(text: &[u8]) -> bool {
    let report = verify(text);
    !report.breaks.is_empty() || !report.is_closed
}

#[test]
fn a_log_as_it_was_written_is_whole() {
    let report = verify(&thousand());
    assert_eq!(report.breaks, []);
    assert_eq!((report.uses, report.checkpoints, report.unsigned), (1000, 11, 0));
    assert!(report.is_closed);
    assert_eq!(report.signers.len(), 1);
}

#[test]
fn a_removed_line_is_named_with_its_place() {
    let text = String::from_utf8(thousand()).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines.remove(500);
    let report = verify(format!("{}\n", lines.join("\n")).as_bytes());
    let first = &report.breaks[0];
    assert_eq!((first.line, first.what.as_str()), (501, "record 501 is missing"));
}

#[test]
fn another_signer_is_found_though_the_chain_is_whole() {
    let mut log = Log::start();
    log.uses(3);
    log.sign(Occasion::Close, "theirs");
    let report = verify(&log.text);
    assert_eq!(report.breaks.len(), 1, "{:?}", report.breaks);
    assert!(report.breaks[0].what.contains("another key"), "{:?}", report.breaks);
    assert_eq!(report.checkpoints, 0);
}

#[test]
fn a_log_that_is_made_anew_from_one_line_on_lacks_a_signature() {
    let mut log = Log::start();
    log.uses(250);
    let text = log.text.clone();
    let report = verify(&text);
    assert_eq!((report.breaks.len(), report.unsigned, report.is_closed), (0, 50, false));
}

#[test]
fn a_line_that_a_kill_cut_off_is_sealed_by_the_restart() {
    let mut log = Log::start();
    log.uses(5);
    log.text.truncate(log.text.len() - 20);
    let tail = Tail::of(&log.text).unwrap();
    assert!(tail.torn_bytes > 0 && !tail.is_closed);
    log.chain = Chain::after(&tail);
    log.text.push(b'\n');
    let reopening = Reopening { torn_bytes: tail.torn_bytes, ..Reopening::default() };
    log.put(Entry::Restart(reopening));
    log.put(Entry::Gap(Gap { lost: 2 }));
    log.sign(Occasion::Close, "ours");
    let report = verify(&log.text);
    assert_eq!(report.breaks, []);
    assert_eq!((report.notes.len(), report.lost), (3, 2), "{:?}", report.notes);
    // The piece that was left is held by the chain as well.
    let text = String::from_utf8(log.text).unwrap();
    assert!(is_found(text.replacen("/item/4", "/item/3", 1).as_bytes()));
}

#[test]
fn what_was_cut_off_without_a_restart_is_a_fault() {
    let text = thousand();
    assert!(is_found(&text[..text.len() - 1]), "the last line end");
    assert!(is_found(&text[..text.len() - 30]), "a part of the last line");
}

/// One edit of a log.
#[derive(Clone, Debug)]
enum Edit {
    Byte { at: prop::sample::Index, to: u8 },
    Insert { at: prop::sample::Index, byte: u8 },
    Delete { at: prop::sample::Index },
    RemoveLine { at: prop::sample::Index },
    RepeatLine { at: prop::sample::Index, to: prop::sample::Index },
    SwapLines { one: prop::sample::Index, other: prop::sample::Index },
    Truncate { at: prop::sample::Index },
}

fn edits() -> impl Strategy<Value = Edit> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        (index(), any::<u8>()).prop_map(|(at, to)| Edit::Byte { at, to }),
        (index(), any::<u8>()).prop_map(|(at, byte)| Edit::Insert { at, byte }),
        index().prop_map(|at| Edit::Delete { at }),
        index().prop_map(|at| Edit::RemoveLine { at }),
        (index(), index()).prop_map(|(at, to)| Edit::RepeatLine { at, to }),
        (index(), index()).prop_map(|(one, other)| Edit::SwapLines { one, other }),
        index().prop_map(|at| Edit::Truncate { at }),
    ]
}

fn edited(text: &[u8], edit: &Edit) -> Vec<u8> {
    let mut bytes = text.to_vec();
    let mut lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    match edit {
        Edit::Byte { at, to } => {
            bytes[at.index(text.len())] = *to;
            return bytes;
        }
        Edit::Insert { at, byte } => {
            bytes.insert(at.index(text.len()), *byte);
            return bytes;
        }
        Edit::Delete { at } => {
            bytes.remove(at.index(text.len()));
            return bytes;
        }
        Edit::Truncate { at } => {
            bytes.truncate(at.index(text.len()));
            return bytes;
        }
        Edit::RemoveLine { at } => {
            lines.remove(at.index(lines.len()));
        }
        Edit::RepeatLine { at, to } => {
            let line = lines[at.index(lines.len())];
            lines.insert(to.index(lines.len() + 1), line);
        }
        Edit::SwapLines { one, other } => {
            let (one, other) = (one.index(lines.len()), other.index(lines.len()));
            lines.swap(one, other);
        }
    }
    lines.concat()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_single_edit_of_a_thousand_records_is_found(edit in edits()) {
        thread_local! {
            static TEXT: Vec<u8> = thousand();
        }
        TEXT.with(|text| {
            let edited = edited(text, &edit);
            prop_assume!(edited != *text);
            prop_assert!(is_found(&edited), "{edit:?}");
            Ok(())
        })?;
    }
}
