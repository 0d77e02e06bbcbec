//! The static table (RFC 7541 Appendix A), found by name without a search.

use super::constants::STATIC;

/// The number of entries; the dynamic table's first has the next index.
pub(super) const COUNT: usize = STATIC.len();

/// Sets the names apart; found by trial, and checked when this is compiled.
const MULTIPLIER: u32 = 0xf0f7_7331;

/// From a name's hash to the index of the first entry of that name; 0 for none.
static SLOTS: [u8; 128] = {
    let mut slots = [0; 128];
    let mut index = 0;
    while index < COUNT {
        let name = STATIC[index].0;
        let slot = hash(name);
        let first = slots[slot] as usize;
        if first == 0 {
            slots[slot] = entry_number(index);
        } else {
            assert!(same(STATIC[first - 1].0, name), "two names share a slot");
        }
        index += 1;
    }
    slots
};

/// How many entries have the name of this one, counted from the first; by index less one.
static RUNS: [u8; COUNT] = {
    let mut runs = [1; COUNT];
    let mut index = COUNT - 1;
    while index > 0 {
        index -= 1;
        if same(STATIC[index].0, STATIC[index + 1].0) {
            runs[index] = runs[index + 1] + 1;
        }
    }
    runs
};

/// The first entry of each entry's name; by index less one.
static FIRSTS: [u8; COUNT] = {
    let mut firsts = [0; COUNT];
    let mut index = 0;
    while index < COUNT {
        firsts[index] = SLOTS[hash(STATIC[index].0)];
        index += 1;
    }
    firsts
};

const fn entry_number(index: usize) -> u8 {
    index as u8 + 1
}

const fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let mut at = 0;
    while at < a.len() {
        if a[at] != b[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// Of the length and three characters: no two names of the table agree in all four.
#[inline]
const fn hash(name: &[u8]) -> usize {
    let len = name.len();
    if len == 0 {
        return 0;
    }
    let key = (len as u32 & 0xff)
        | (name[0] as u32) << 8
        | (name[len / 2] as u32) << 16
        | (name[len - 1] as u32) << 24;
    (key.wrapping_mul(MULTIPLIER) >> 25) as usize
}

/// The index of the first entry of the static table with this name, or 0.
#[must_use]
#[inline]
pub fn find(name: &[u8]) -> u8 {
    let index = SLOTS[hash(name)];
    if index != 0 && STATIC[usize::from(index) - 1].0 == name { index } else { 0 }
}

/// The name of an entry of the static table, counted from 1.
#[must_use]
pub fn name(index: u8) -> Option<&'static [u8]> {
    STATIC.get(usize::from(index).wrapping_sub(1)).map(|entry| entry.0)
}

/// The entry with this value, among those of the name whose first entry is `first`.
#[inline]
pub(super) fn with_value(first: u8, value: &[u8]) -> Option<usize> {
    let first = usize::from(first);
    let run = usize::from(RUNS[first - 1]);
    (first..first + run).find(|&index| STATIC[index - 1].1 == value)
}

/// Name, value and first entry of the name, by index from 1.
#[inline]
pub(super) fn entry(index: usize) -> Option<(&'static [u8], &'static [u8], u8)> {
    let at = index.wrapping_sub(1);
    STATIC.get(at).map(|&(name, value)| (name, value, FIRSTS[at]))
}
