//! The ids of the map in their order, at four bytes each: who is closest to a target (PROTOCOL section 6, "the closest NodeId (XOR)").
//!
//! A sorted list of rows. What is added and removed waits and goes in together: one search each and one pass over the list, so
//! that a peer's 7,000 ids cost little more than one.

use super::MapEntry;
use super::index::Row;
use crate::domain::NodeId;
use std::ops::Range;

/// Rows in the order of their ids.
#[derive(Clone, Debug, Default)]
pub struct NearestIndex {
    sorted: Vec<Row>,
    added: Vec<Row>,
    removed: Vec<Row>,
}

fn id(row: Row, entries: &[MapEntry]) -> &NodeId {
    &entries[row as usize].node
}

/// The bits in which two ids agree from the first on, 256 where they are the same.
fn common_bits(a: &NodeId, b: &NodeId) -> u32 {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    match a.iter().zip(b).position(|(a, b)| a != b) {
        Some(byte) => byte as u32 * 8 + (a[byte] ^ b[byte]).leading_zeros(),
        None => 256,
    }
}

fn bit(node: &NodeId, number: u32) -> bool {
    node.as_bytes()[number as usize / 8] & (0x80 >> (number % 8)) != 0
}

impl NearestIndex {
    /// How many ids; what waits is not among them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sorted.len()
    }

    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sorted.is_empty()
    }

    /// Bytes it takes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let rows = self.sorted.capacity() + self.added.capacity() + self.removed.capacity();
        rows * size_of::<Row>()
    }

    /// Adds an id that is not in it, with the next [`Self::settle`].
    pub fn insert(&mut self, row: Row) {
        self.added.push(row);
    }

    /// Removes one, with the next [`Self::settle`]; until then its entry must name it.
    pub fn remove(&mut self, row: Row) {
        self.removed.push(row);
    }

    /// Takes in what was added and removed.
    pub fn settle(&mut self, entries: &[MapEntry]) {
        self.settle_removed(entries);
        self.settle_added(entries);
    }

    fn settle_removed(&mut self, entries: &[MapEntry]) {
        let mut removed = std::mem::take(&mut self.removed);
        removed.sort_unstable();
        // Added and removed between two settlings: neither.
        self.added.retain(|row| match removed.binary_search(row) {
            Ok(at) => {
                removed.remove(at);
                false
            }
            Err(_) => true,
        });
        if removed.is_empty() {
            return;
        }
        let position = |row: &Row| {
            let node = id(*row, entries);
            self.sorted
                .binary_search_by(|other| id(*other, entries).cmp(node))
                .expect("what is removed was added")
        };
        let mut gaps: Vec<usize> = removed.iter().map(position).collect();
        gaps.sort_unstable();
        let mut end = gaps[0];
        for (number, gap) in gaps.iter().enumerate() {
            let next = gaps.get(number + 1).copied().unwrap_or(self.sorted.len());
            self.sorted.copy_within(gap + 1..next, end);
            end += next - (gap + 1);
        }
        self.sorted.truncate(end);
    }

    fn settle_added(&mut self, entries: &[MapEntry]) {
        let mut added = std::mem::take(&mut self.added);
        if added.is_empty() {
            return;
        }
        added.sort_unstable_by(|a, b| id(*a, entries).cmp(id(*b, entries)));
        let mut end = self.sorted.len();
        let room = self.sorted.capacity() - end;
        if room < added.len() {
            // Doubling would cost as much memory as the list itself.
            self.sorted.reserve_exact(added.len() + end / 8);
        }
        let mut to = end + added.len();
        self.sorted.resize(to, 0);
        for row in added.into_iter().rev() {
            let node = id(row, entries);
            let at = self.sorted[..end].partition_point(|other| id(*other, entries) < node);
            self.sorted.copy_within(at..end, to - (end - at));
            to -= end - at + 1;
            self.sorted[to] = row;
            end = at;
        }
    }

    /// The rows of the ids that agree with the target in more than `bits` bits, within a range that agree in `bits`.
    fn agreeing(
        &self,
        target: &NodeId,
        bits: u32,
        range: &Range<usize>,
        entries: &[MapEntry],
    ) -> Range<usize> {
        let ones = range.start
            + self.sorted[range.clone()].partition_point(|row| !bit(id(*row, entries), bits));
        match bit(target, bits) {
            true => ones..range.end,
            false => range.start..ones,
        }
    }

    /// Up to `count` rows that the closure accepts, closest (XOR) to the target first.
    #[must_use]
    pub fn closest(
        &self,
        target: &NodeId,
        count: usize,
        entries: &[MapEntry],
        mut accepts: impl FnMut(Row) -> bool,
    ) -> Vec<Row> {
        let mut found = Vec::new();
        // Whole ranges, the farthest below: each is further from the target than everything above it.
        let mut ranges = vec![(0u32, 0..self.sorted.len())];
        while let Some((mut bits, range)) = ranges.pop() {
            if found.len() >= count {
                break;
            }
            match range.len() {
                0 => continue,
                1 => found.extend(Some(self.sorted[range.start]).filter(|row| accepts(*row))),
                _ => {
                    let (first, last) = (self.sorted[range.start], self.sorted[range.end - 1]);
                    bits = bits.max(common_bits(id(first, entries), id(last, entries)));
                    let near = self.agreeing(target, bits, &range, entries);
                    let far = match near.start == range.start {
                        true => near.end..range.end,
                        false => range.start..near.start,
                    };
                    ranges.push((bits + 1, far));
                    ranges.push((bits + 1, near));
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn entries(seed: u8) -> Vec<MapEntry> {
        let node = |number: u32| {
            let mut bytes = crate::crypto::hash(&[&number.to_le_bytes()[..], &[seed]].concat());
            // Half of them crowd together, as ground ids do.
            if number.is_multiple_of(2) {
                bytes[..4].fill(0x5a);
            }
            NodeId::from_bytes(bytes)
        };
        let entry = |number| MapEntry {
            node: node(number),
            ..MapEntry::VACANT
        };
        (0..400).map(entry).collect()
    }

    fn distance(a: &NodeId, b: &NodeId) -> [u8; 32] {
        std::array::from_fn(|i| a.as_bytes()[i] ^ b.as_bytes()[i])
    }

    proptest! {
        #[test]
        fn the_closest_are_those_that_sorting_by_distance_gives(
            seed in any::<u8>(),
            steps in prop::collection::vec((0u32..400, any::<bool>(), 0u8..8), 1..600),
            count in 1usize..20,
        ) {
            let entries = entries(seed);
            let (mut index, mut model) = (NearestIndex::default(), BTreeSet::new());
            for (row, add, settle) in steps {
                if add && model.insert(row) {
                    index.insert(row);
                } else if !add && model.remove(&row) {
                    index.remove(row);
                }
                if settle == 0 {
                    index.settle(&entries);
                }
            }
            index.settle(&entries);
            prop_assert_eq!(index.len(), model.len());
            for target in entries.iter().take(30).map(|entry| entry.node) {
                let mut rows: Vec<Row> = model.iter().copied().filter(|row| row % 3 != 0).collect();
                rows.sort_by_key(|row| distance(id(*row, &entries), &target));
                rows.truncate(count);
                prop_assert_eq!(index.closest(&target, count, &entries, |row| row % 3 != 0), rows);
            }
        }
    }
}
