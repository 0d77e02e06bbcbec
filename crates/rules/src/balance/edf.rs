//! Turns by weight: each has a deadline, the earliest is taken and gets its next one, as far away
//! as it is light (earliest deadline first). That is what a caller keeps between two choices.

use std::{cmp::Ordering, collections::BinaryHeap};

use super::mix;

/// The turns of one caller (a worker) at one balancer. Make it anew when the balancer changes.
#[derive(Clone, Debug, Default)]
pub struct Turns {
    slots: Vec<Slot>,
    seed: u64,
}

#[derive(Clone, Debug, Default)]
enum Slot {
    #[default]
    Unused,
    Round(u64),
    Edf(Edf),
}

impl Turns {
    /// Starts at a place that the seed decides, so that callers do not move in step.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { slots: Vec::new(), seed }
    }

    /// Makes room. Only the first call after a change does anything.
    pub(super) fn fit(&mut self, slots: usize) {
        if self.slots.len() < slots {
            self.slots.resize_with(slots, Slot::default);
        }
    }

    /// The next of `count`, in turn.
    pub(super) fn round(&mut self, slot: usize, count: usize) -> usize {
        let seed = self.seed;
        let Some(slot) = self.slots.get_mut(slot) else { return 0 };
        if let Slot::Round(turn) = slot {
            *turn = turn.wrapping_add(1);
            return (*turn % count as u64) as usize;
        }
        *slot = Slot::Round(seed);
        (seed % count as u64) as usize
    }

    /// The next of `count`, by weight; the weight of the one that is taken is asked for again.
    pub(super) fn weighted(
        &mut self,
        slot: usize,
        count: usize,
        weight: impl Fn(usize) -> f64,
    ) -> usize {
        let seed = self.seed;
        let Some(slot) = self.slots.get_mut(slot) else { return 0 };
        if !matches!(slot, Slot::Edf(_)) {
            *slot = Slot::Edf(Edf::new(count, &weight, seed));
        }
        match slot {
            Slot::Edf(edf) => edf.next(&weight),
            Slot::Unused | Slot::Round(_) => 0,
        }
    }
}

/// A schedule of deadlines.
#[derive(Clone, Debug)]
struct Edf {
    now: f64,
    order: u64,
    heap: BinaryHeap<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    deadline: f64,
    /// Of equal deadlines the one that was set first is first.
    order: u64,
    index: u32,
}

impl Edf {
    fn new(count: usize, weight: &impl Fn(usize) -> f64, seed: u64) -> Self {
        let mut edf = Self { now: 0.0, order: 0, heap: BinaryHeap::with_capacity(count) };
        for index in 0..count {
            edf.add(index, weight(index));
        }
        if count > 0 {
            for _ in 0..mix(seed) % count as u64 {
                edf.next(weight);
            }
        }
        edf
    }

    fn add(&mut self, index: usize, weight: f64) {
        // A weight of nothing would never come again; Envoy's least is 1 divided by many.
        let deadline = self.now + 1.0 / weight.max(f64::MIN_POSITIVE);
        self.order += 1;
        self.heap.push(Entry { deadline, order: self.order, index: index as u32 });
    }

    fn next(&mut self, weight: &impl Fn(usize) -> f64) -> usize {
        let Some(entry) = self.heap.pop() else { return 0 };
        let index = entry.index as usize;
        self.now = entry.deadline;
        self.add(index, weight(index));
        index
    }
}

impl Ord for Entry {
    /// The heap gives the greatest: that is to be the earliest.
    fn cmp(&self, other: &Self) -> Ordering {
        other.deadline.total_cmp(&self.deadline).then(other.order.cmp(&self.order))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Entry {}
