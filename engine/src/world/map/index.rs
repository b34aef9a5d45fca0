//! The keyed index of the map: from an id to the row of its entry, at about six bytes an entry.
//!
//! A bucket is one cache line: twelve one-byte tags, twelve rows, and 32 bits that say which keys had to go on to the next
//! bucket. A hit reads the line and the entry; a miss mostly reads the line alone, however full the bucket is. The hash is
//! universal and keyed by the node (NH, with a final multiplication): ids ground by an attacker, who does not know the key,
//! fall as random ones do. Ids themselves are not kept here: the caller lends the entries.

use super::MapEntry;
use crate::domain::NodeId;
use crate::entropy::Entropy;
use wide::u8x16;

/// Where an entry stands in the table of entries: dense, and the same for as long as the id is known.
pub type Row = u32;

const WAYS: usize = 12;
/// Buckets are filled to 7/8, and then grow by a fifth: both cost memory, the one in lines read and the other in empty ones.
const fn room_of(buckets: usize) -> usize {
    buckets * WAYS * 7 / 8
}

#[derive(Clone, Copy, Default)]
#[repr(C, align(64))]
struct Bucket {
    /// The tags of the ways, 0 where one is empty, and [`Bucket::passed`].
    head: [u8; 16],
    rows: [Row; WAYS],
}

impl Bucket {
    /// The ways that hold this tag.
    #[inline(always)]
    fn ways_with(&self, tag: u8) -> Ways {
        let same = u8x16::new(self.head).simd_eq(u8x16::splat(tag));
        Ways(same.to_bitmask() & ((1 << WAYS) - 1))
    }

    /// The rows of the ways that are taken.
    fn taken(&self) -> impl Iterator<Item = Row> {
        let tags = self.head.iter().zip(self.rows);
        tags.filter(|(tag, _)| **tag != 0).map(|(_, row)| row)
    }

    /// One bit for each key that found this bucket full: [`Hashed::passing`].
    #[inline(always)]
    fn passed(&self) -> u32 {
        let [.., a, b, c, d] = self.head;
        u32::from_le_bytes([a, b, c, d])
    }

    fn set_passed(&mut self, passed: u32) {
        self.head[WAYS..].copy_from_slice(&passed.to_le_bytes());
    }
}

/// Bit n stands for way n.
#[derive(Clone, Copy)]
struct Ways(u32);

impl Iterator for Ways {
    type Item = usize;

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        let way = self.0.trailing_zeros() as usize;
        self.0 &= self.0.wrapping_sub(1);
        (way < WAYS).then_some(way)
    }
}

/// What the index makes of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hashed(u64);

impl Hashed {
    #[inline(always)]
    fn home(self, buckets: usize) -> usize {
        ((u128::from(self.0) * buckets as u128) >> 64) as usize
    }

    #[inline(always)]
    fn tag(self) -> u8 {
        (self.0 as u8).max(1)
    }

    #[inline(always)]
    fn passing(self) -> u32 {
        1 << (self.0 >> 8 & 31)
    }
}

/// The key of the hash.
#[derive(Clone)]
struct HashKey {
    words: [u64; 4],
    last: [u128; 2],
}

impl HashKey {
    fn draw(entropy: &mut Entropy) -> Self {
        let mut wide = || u128::from(entropy.next_u64()) << 64 | u128::from(entropy.next_u64()) | 1;
        let last = [wide(), wide()];
        let words = std::array::from_fn(|_| entropy.next_u64());
        Self { words, last }
    }

    #[inline(always)]
    fn hash(&self, node: &NodeId) -> Hashed {
        let (words, _) = node.as_bytes().as_chunks::<8>();
        let word = |i: usize| u128::from(u64::from_le_bytes(words[i]).wrapping_add(self.words[i]));
        let product = (word(0) * word(1)).wrapping_add(word(2) * word(3));
        let low = self.last[0].wrapping_mul(u128::from(product as u64));
        let high = self.last[1].wrapping_mul(product >> 64);
        Hashed((low.wrapping_add(high) >> 64) as u64)
    }
}

/// From ids to rows. Every method takes the entries, by row, that it was told of before.
#[derive(Clone)]
pub struct KeyedIndex {
    buckets: Vec<Bucket>,
    len: usize,
    key: HashKey,
}

impl std::fmt::Debug for KeyedIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyedIndex({} ids)", self.len)
    }
}

impl KeyedIndex {
    /// An empty one with a key of its own.
    #[must_use]
    pub fn new(entropy: &mut Entropy) -> Self {
        Self {
            buckets: vec![Bucket::default()],
            len: 0,
            key: HashKey::draw(entropy),
        }
    }

    /// How many ids.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes it takes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.buckets.capacity() * size_of::<Bucket>()
    }

    fn next(&self, bucket: usize) -> usize {
        match bucket + 1 {
            end if end == self.buckets.len() => 0,
            next => next,
        }
    }

    /// The row of an id.
    #[must_use]
    #[inline(always)]
    pub fn find(&self, node: &NodeId, entries: &[MapEntry]) -> Option<Row> {
        let hashed = self.key.hash(node);
        let home = hashed.home(self.buckets.len());
        let bucket = &self.buckets[home];
        match bucket.ways_with(hashed.tag()).next() {
            Some(way) if entries[bucket.rows[way] as usize].node == *node => Some(bucket.rows[way]),
            None if bucket.passed() & hashed.passing() == 0 => None,
            _ => self.find_further(home, hashed, node, entries),
        }
    }

    /// One in ten or so: another tag that is the same, or a key that found its bucket full.
    #[cold]
    #[inline(never)]
    fn find_further(
        &self,
        home: usize,
        hashed: Hashed,
        node: &NodeId,
        entries: &[MapEntry],
    ) -> Option<Row> {
        let (bucket, way) = self.find_from(home, hashed, node, entries)?;
        Some(self.buckets[bucket].rows[way])
    }

    #[inline]
    fn find_from(
        &self,
        home: usize,
        hashed: Hashed,
        node: &NodeId,
        entries: &[MapEntry],
    ) -> Option<(usize, usize)> {
        let (tag, passing) = (hashed.tag(), hashed.passing());
        let mut at = home;
        loop {
            let bucket = &self.buckets[at];
            for way in bucket.ways_with(tag) {
                if entries[bucket.rows[way] as usize].node == *node {
                    return Some((at, way));
                }
            }
            if bucket.passed() & passing == 0 {
                return None;
            }
            at = self.next(at);
        }
    }

    /// The rows of many ids at once, in their order: the lines and entries of sixteen are on their way together.
    pub fn find_all(
        &self,
        nodes: &[NodeId],
        entries: &[MapEntry],
        mut found: impl FnMut(usize, Option<Row>),
    ) {
        const LANES: usize = 16;
        let mut lanes = [(Hashed(0), 0usize); LANES];
        let mut firsts = [Ways(0); LANES];
        for (chunk, nodes) in nodes.chunks(LANES).enumerate() {
            for (lane, node) in lanes.iter_mut().zip(nodes) {
                let hashed = self.key.hash(node);
                *lane = (hashed, hashed.home(self.buckets.len()));
            }
            for (first, (hashed, home)) in firsts.iter_mut().zip(&lanes).take(nodes.len()) {
                *first = self.buckets[*home].ways_with(hashed.tag());
            }
            for (lane, node) in nodes.iter().enumerate() {
                let (hashed, home) = lanes[lane];
                let bucket = &self.buckets[home];
                let at_home = firsts[lane]
                    .map(|way| bucket.rows[way])
                    .find(|row| entries[*row as usize].node == *node);
                let row = match at_home {
                    Some(row) => Some(row),
                    None if bucket.passed() & hashed.passing() == 0 => None,
                    None => self
                        .find_from(self.next(home), hashed, node, entries)
                        .map(|(bucket, way)| self.buckets[bucket].rows[way]),
                };
                found(chunk * LANES + lane, row);
            }
        }
    }

    /// Adds an id that is not in it.
    pub fn insert(&mut self, row: Row, entries: &[MapEntry]) {
        if self.len >= room_of(self.buckets.len()) {
            self.rebuild(self.len + self.len / 5 + WAYS, entries);
        }
        self.put(row, self.key.hash(&entries[row as usize].node));
        self.len += 1;
    }

    fn put(&mut self, row: Row, hashed: Hashed) {
        let mut at = hashed.home(self.buckets.len());
        loop {
            let bucket = &mut self.buckets[at];
            if let Some(way) = bucket.ways_with(0).next() {
                bucket.head[way] = hashed.tag();
                bucket.rows[way] = row;
                return;
            }
            bucket.set_passed(bucket.passed() | hashed.passing());
            at = self.next(at);
        }
    }

    /// Makes room for so many ids at once.
    pub fn reserve(&mut self, ids: usize, entries: &[MapEntry]) {
        if ids > room_of(self.buckets.len()) {
            self.rebuild(ids, entries);
        }
    }

    fn rebuild(&mut self, ids: usize, entries: &[MapEntry]) {
        let mut buckets = ids.div_ceil(WAYS);
        while room_of(buckets) < ids {
            buckets += (ids - room_of(buckets)).div_ceil(WAYS);
        }
        let old = std::mem::replace(&mut self.buckets, vec![Bucket::default(); buckets]);
        for bucket in old {
            for row in bucket.taken() {
                self.put(row, self.key.hash(&entries[row as usize].node));
            }
        }
    }

    /// Removes an id; its entry must still name it.
    pub fn remove(&mut self, node: &NodeId, entries: &[MapEntry]) -> Option<Row> {
        let hashed = self.key.hash(node);
        let home = hashed.home(self.buckets.len());
        let (found, way) = self.find_from(home, hashed, node, entries)?;
        self.buckets[found].head[way] = 0;
        self.len -= 1;
        let mut at = home;
        while at != found {
            let passed = self.who_passed(at, entries);
            self.buckets[at].set_passed(passed);
            at = self.next(at);
        }
        Some(self.buckets[found].rows[way])
    }

    /// The bits of the keys that stand behind this bucket and belong to it or before it.
    fn who_passed(&self, bucket: usize, entries: &[MapEntry]) -> u32 {
        let buckets = self.buckets.len();
        let mut passed = 0;
        let (mut at, mut distance) = (bucket, 0);
        loop {
            at = self.next(at);
            distance += 1;
            let behind = &self.buckets[at];
            for row in behind.taken() {
                let hashed = self.key.hash(&entries[row as usize].node);
                let way_here = (at + buckets - hashed.home(buckets)) % buckets;
                if way_here >= distance {
                    passed |= hashed.passing();
                }
            }
            if behind.passed() == 0 || at == bucket {
                return passed;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn node(number: u32) -> NodeId {
        NodeId::from_bytes(crate::crypto::hash(&number.to_le_bytes()))
    }

    fn entry(node: NodeId) -> MapEntry {
        MapEntry {
            node,
            ..MapEntry::VACANT
        }
    }

    #[test]
    fn a_bucket_is_one_line() {
        assert_eq!((size_of::<Bucket>(), align_of::<Bucket>()), (64, 64));
    }

    #[test]
    fn ways_are_found_exactly() {
        let mut bucket = Bucket::default();
        for way in 0..WAYS {
            bucket.head[way] = [7, 6, 8, 0x87][way % 4];
        }
        assert!(bucket.ways_with(7).eq([0, 4, 8]));
        assert_eq!(bucket.ways_with(0x87).collect::<Vec<_>>().len(), 3);
        assert_eq!(bucket.ways_with(9).next(), None);
    }

    proptest! {
        #[test]
        fn does_what_a_tree_does(steps in prop::collection::vec((0u32..600, any::<bool>()), 1..2000)) {
            let mut entries: Vec<MapEntry> = (0..600).map(|number| entry(node(number))).collect();
            entries.push(MapEntry::VACANT);
            let mut index = KeyedIndex::new(&mut Entropy::from_seed([1; 32]));
            let mut tree = BTreeMap::new();
            for (number, add) in steps {
                let node = node(number);
                if add && !tree.contains_key(&node) {
                    index.insert(number, &entries);
                    tree.insert(node, number);
                } else if !add {
                    prop_assert_eq!(index.remove(&node, &entries), tree.remove(&node));
                }
                prop_assert_eq!(index.len(), tree.len());
            }
            let nodes: Vec<NodeId> = (0..700).map(node).collect();
            for node in &nodes {
                prop_assert_eq!(index.find(node, &entries), tree.get(node).copied());
            }
            let mut batch = vec![None; nodes.len()];
            index.find_all(&nodes, &entries, |at, row| batch[at] = row);
            prop_assert!(batch.iter().zip(&nodes).all(|(row, node)| *row == tree.get(node).copied()));
        }
    }

    #[test]
    fn bits_of_keys_that_passed_are_exact_after_churn() {
        let entries: Vec<MapEntry> = (0..20_000).map(|number| entry(node(number))).collect();
        let mut index = KeyedIndex::new(&mut Entropy::from_seed([2; 32]));
        index.reserve(10_000, &entries);
        for row in 0..10_000 {
            index.insert(row, &entries);
        }
        for round in 0..10_000 {
            index
                .remove(&entries[round].node, &entries)
                .expect("it is there");
            index.insert(10_000 + round as u32, &entries);
        }
        for bucket in 0..index.buckets.len() {
            let exact = index.who_passed(bucket, &entries);
            assert_eq!(index.buckets[bucket].passed(), exact, "bucket {bucket}");
        }
    }

    #[test]
    fn an_entry_costs_less_than_seven_and_a_half_bytes() {
        let entries: Vec<MapEntry> = (0..50_000).map(|number| entry(node(number))).collect();
        let mut index = KeyedIndex::new(&mut Entropy::from_seed([3; 32]));
        for row in 0..50_000 {
            index.insert(row, &entries);
            let bytes = index.memory_bytes();
            assert!(
                row < 1000 || bytes * 2 <= index.len() * 15,
                "{bytes} at {row}"
            );
        }
    }
}
