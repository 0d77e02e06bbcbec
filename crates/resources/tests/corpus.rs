//! Replays the fuzz corpus of manifests, as it is and with small changes, so that what was once found
//! stays found without a fuzzer.

#[path = "../../../fuzz/src/manifests.rs"]
#[expect(unreachable_pub, reason = "the fuzz target uses it from outside")]
mod manifests;

use std::path::Path;

/// Changed copies of each file: enough to cut through each of its lines, and done in a second.
const CHANGES: u64 = 60;

fn corpus() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus/manifest");
    let mut files: Vec<(String, Vec<u8>)> = std::fs::read_dir(folder)
        .expect("the corpus is there")
        .map(|file| file.expect("the corpus is readable").path())
        .map(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (name, std::fs::read(&path).expect("the file is readable"))
        })
        .collect();
    files.sort();
    files
}

#[test]
fn every_file_of_the_corpus_keeps_the_promises() {
    let files = corpus();
    assert!(files.len() > 15, "only {} files", files.len());
    for (_, data) in &files {
        manifests::manifest(data);
    }
}

#[test]
fn changed_files_of_the_corpus_keep_the_promises() {
    let files = corpus();
    for (index, (_, data)) in files.iter().enumerate() {
        for change in 0..CHANGES {
            let other = &files[(index + 1) % files.len()].1;
            manifests::manifest(&changed(data, other, change));
        }
    }
}

/// Makes a changed copy: the same for the same number.
fn changed(data: &[u8], other: &[u8], number: u64) -> Vec<u8> {
    // SplitMix64.
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = |below: usize| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % below.max(1) as u64).unwrap_or(0)
    };
    let mut out = data.to_vec();
    for _ in 0..=next(3) {
        let at = next(out.len());
        match next(5) {
            0 => out.truncate(at),
            1 => drop(out.splice(at..at, *b"[{ ")),
            2 if at < out.len() => out[at] = b"\0\n\t :-*&!|>'\"{}[]%@~#0a"[next(23)],
            3 => out.drain(at..(at + next(9)).min(out.len())).for_each(drop),
            _ => {
                let from = next(other.len());
                let piece = &other[from..(from + next(40)).min(other.len())];
                drop(out.splice(at..at, piece.iter().copied()));
            }
        }
    }
    out
}
