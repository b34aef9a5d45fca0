//! The keyed index of the map: from an id to the row of its entry, at 6.3 to 7.3 bytes an entry.
//!
//! An id has two homes, groups of sixteen places, and stands in either. The two-byte tags of all groups lie together, apart from
//! the rows: a miss reads two half lines of what is small enough for the cache near the core, a hit one line of rows and the
//! entry more. Neither branches on anything that varies, so the processor reads ahead into the lookups that follow. With two
//! homes to choose from, all places but one in twenty can be taken.
//!
//! The hash is universal and keyed by the node: ids ground by an attacker, who does not know the key, fall as random ones do.
//! Ids themselves are not kept here: the caller lends the entries.

use super::MapEntry;
use crate::domain::NodeId;
use crate::entropy::Entropy;
use std::hint::select_unpredictable;
use wide::{i8x16, i16x16, u32x4};

/// Where an entry stands in the table of entries: dense, and the same for as long as the id is known.
pub type Row = u32;

const WAYS: usize = 16;
/// How many rows in a row may give way to a new one before the index grows. Two or three do where it is fullest.
const MOVES_MAX: usize = 200;

/// Of twenty places, nineteen are taken before it grows by a seventh: both cost memory.
const fn room_of(groups: usize) -> usize {
    groups * WAYS * 19 / 20
}

/// The tags of a group: 0 where a place is empty.
#[derive(Clone, Copy, Default)]
#[repr(align(32))]
struct Tags([i16; WAYS]);

impl Tags {
    /// Bit n stands for way n, set where it holds this tag.
    #[inline(always)]
    fn ways_with(&self, tag: i16) -> u32 {
        let same = i16x16::new(self.0).simd_eq(i16x16::splat(tag));
        i8x16::from_i16x16_saturate(same).to_bitmask()
    }

    fn taken(&self) -> u32 {
        WAYS as u32 - self.ways_with(0).count_ones()
    }
}

/// The rows of a group.
#[derive(Clone, Copy, Default)]
#[repr(align(64))]
struct Rows([Row; WAYS]);

/// Where an id may stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Homes {
    groups: [usize; 2],
    tag: i16,
}

impl Homes {
    fn other_than(&self, group: usize) -> usize {
        let [first, second] = self.groups;
        if group == first { second } else { first }
    }
}

/// One place: a group and a way of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    group: usize,
    way: usize,
}

/// The key of the hash.
///
/// NH over 32-bit words makes two ids the same with a chance of 2^-32 at most, whatever they are; multiplied by an odd number,
/// two that differ agree in their first n bits with a chance of 2^(1-n) at most (Black et al., "UMAC"; Dietzfelbinger et al.,
/// "A reliable randomized algorithm for the closest-pair problem").
#[derive(Clone)]
struct HashKey {
    words: [u32x4; 2],
    odd: [u64; 2],
}

impl HashKey {
    fn draw(entropy: &mut Entropy) -> Self {
        let mut word = |_| entropy.next_u64() as u32;
        let words = [(); 2].map(|()| u32x4::new(std::array::from_fn(&mut word)));
        let odd = std::array::from_fn(|_| entropy.next_u64() | 1);
        Self { words, odd }
    }

    #[inline(always)]
    fn hash(&self, node: &NodeId) -> u64 {
        let (halves, _) = node.as_bytes().as_chunks::<16>();
        let keyed = |half: usize| {
            let (words, _) = halves[half].as_chunks::<4>();
            let words = std::array::from_fn(|at| u32::from_le_bytes(words[at]));
            (u32x4::new(words) + self.words[half]).to_array()
        };
        let (first, second) = (keyed(0), keyed(1));
        let products = first.iter().zip(second);
        products
            .map(|(first, second)| u64::from(*first) * u64::from(second))
            .fold(0, u64::wrapping_add)
    }

    /// The homes among so many groups, fewer than 2^32.
    #[inline(always)]
    fn homes(&self, node: &NodeId, groups: usize) -> Homes {
        let hash = self.hash(node);
        let [first, second] = self.odd.map(|odd| {
            let high = hash.wrapping_mul(odd) >> 32;
            high * groups as u64
        });
        Homes {
            groups: [(first >> 32) as usize, (second >> 32) as usize],
            // What follows the bits that chose the first home.
            tag: (first >> 16) as i16 | 1,
        }
    }
}

/// Asks the processor to bring the line in which this begins, without waiting for it: what a plain read cannot do.
#[inline(always)]
fn prefetch<T>(what: &T) {
    #[cfg(target_arch = "x86_64")]
    #[allow(
        unsafe_code,
        reason = "a batch of sixteen takes a third less time, and no safe function does it"
    )]
    // SAFETY: a prefetch changes nothing and faults on no address, and this one is a reference.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(what).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = what;
}

/// From ids to rows. Every method takes the entries, by row, that it was told of before.
#[derive(Clone)]
pub struct KeyedIndex {
    tags: Vec<Tags>,
    rows: Vec<Rows>,
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
        Self::with_groups(1, HashKey::draw(entropy))
    }

    fn with_groups(groups: usize, key: HashKey) -> Self {
        Self {
            tags: vec![Tags::default(); groups],
            rows: vec![Rows::default(); groups],
            len: 0,
            key,
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
        self.tags.capacity() * size_of::<Tags>() + self.rows.capacity() * size_of::<Rows>()
    }

    #[inline(always)]
    fn homes(&self, node: &NodeId) -> Homes {
        self.key.homes(node, self.tags.len())
    }

    /// Where an id of these homes may stand: bits 0 to 15 for the ways of its first home, 16 to 31 for those of its second.
    #[inline(always)]
    fn candidates(&self, homes: Homes) -> u32 {
        let [first, second] = homes.groups;
        self.tags[first].ways_with(homes.tag) | self.tags[second].ways_with(homes.tag) << WAYS
    }

    /// The place of the first candidate, of which there must be one.
    #[inline(always)]
    fn first_place(homes: Homes, candidates: u32) -> Place {
        let [first, second] = homes.groups;
        let at = candidates.trailing_zeros() as usize;
        Place {
            // A branch here would be mispredicted every other time, and the reads ahead thrown away.
            group: select_unpredictable(at < WAYS, first, second),
            way: at % WAYS,
        }
    }

    #[inline(always)]
    fn row_at(&self, place: Place) -> Row {
        self.rows[place.group].0[place.way]
    }

    /// The row of an id.
    #[must_use]
    #[inline(always)]
    pub fn find(&self, node: &NodeId, entries: &[MapEntry]) -> Option<Row> {
        self.find_if(node, entries, |_| true)
    }

    /// The row of an id, if its entry is such a one.
    #[must_use]
    #[inline(always)]
    pub fn find_if(
        &self,
        node: &NodeId,
        entries: &[MapEntry],
        is_wanted: impl Fn(&MapEntry) -> bool,
    ) -> Option<Row> {
        let homes = self.homes(node);
        let candidates = self.candidates(homes);
        if candidates == 0 {
            return None;
        }
        let row = self.row_at(Self::first_place(homes, candidates));
        let entry = &entries[row as usize];
        match entry.node == *node {
            true if is_wanted(entry) => Some(row),
            true => None,
            false => {
                let row = self.find_further(node, entries)?;
                is_wanted(&entries[row as usize]).then_some(row)
            }
        }
    }

    /// One in a thousand or so: another id with the same tag. It works out the homes anew, so that others need not keep them.
    #[cold]
    #[inline(never)]
    fn find_further(&self, node: &NodeId, entries: &[MapEntry]) -> Option<Row> {
        let place = self.find_place(node, entries)?;
        Some(self.row_at(place))
    }

    fn find_place(&self, node: &NodeId, entries: &[MapEntry]) -> Option<Place> {
        let homes = self.homes(node);
        let mut candidates = self.candidates(homes);
        while candidates != 0 {
            let place = Self::first_place(homes, candidates);
            if entries[self.row_at(place) as usize].node == *node {
                return Some(place);
            }
            candidates &= candidates - 1;
        }
        None
    }

    /// The rows of many ids at once whose entries are such ones, in their order: the lines and entries of sixteen are on their way together.
    #[inline(always)]
    pub fn find_all(
        &self,
        nodes: &[NodeId],
        entries: &[MapEntry],
        is_wanted: impl Fn(&MapEntry) -> bool,
        mut found: impl FnMut(usize, Option<Row>),
    ) {
        const LANES: usize = 16;
        let mut homes = [Homes::default(); LANES];
        let mut rows = [None; LANES];
        for (chunk, nodes) in nodes.chunks(LANES).enumerate() {
            for (homes, node) in homes.iter_mut().zip(nodes) {
                *homes = self.homes(node);
                for group in homes.groups {
                    prefetch(&self.tags[group]);
                    prefetch(&self.rows[group]);
                }
            }
            for (row, homes) in rows.iter_mut().zip(homes).take(nodes.len()) {
                let candidates = self.candidates(homes);
                *row = match candidates {
                    0 => None,
                    _ => Some(self.row_at(Self::first_place(homes, candidates))),
                };
                if let Some(row) = row {
                    prefetch(&entries[*row as usize]);
                }
            }
            for (lane, (node, row)) in nodes.iter().zip(rows).enumerate() {
                let row = row.and_then(|row| {
                    let entry = &entries[row as usize];
                    match entry.node == *node {
                        true if is_wanted(entry) => Some(row),
                        true => None,
                        false => {
                            let row = self.find_further(node, entries)?;
                            is_wanted(&entries[row as usize]).then_some(row)
                        }
                    }
                });
                found(chunk * LANES + lane, row);
            }
        }
    }

    /// Adds an id that is not in it.
    pub fn insert(&mut self, row: Row, entries: &[MapEntry]) {
        if self.len >= room_of(self.tags.len()) {
            self.rebuild(self.len + self.len / 7 + WAYS, entries);
        }
        if let Err(left) = self.put(row, entries) {
            self.rebuild_with(Some(left), self.len + self.len / 7 + WAYS, entries);
        }
    }

    /// Puts a row into the emptier of its homes. Where both are full, one moves to its other home to let it in, and so on; the
    /// one that is left in the end comes back.
    fn put(&mut self, mut row: Row, entries: &[MapEntry]) -> Result<(), Row> {
        let mut homes = self.homes(&entries[row as usize].node);
        let [first, second] = homes.groups;
        let mut group = match self.tags[second].taken() < self.tags[first].taken() {
            true => second,
            false => first,
        };
        for moves in 0..MOVES_MAX {
            let empty = self.tags[group].ways_with(0);
            if empty != 0 {
                let way = empty.trailing_zeros() as usize;
                self.tags[group].0[way] = homes.tag;
                self.rows[group].0[way] = row;
                self.len += 1;
                return Ok(());
            }
            let way = moves % WAYS;
            self.tags[group].0[way] = homes.tag;
            std::mem::swap(&mut self.rows[group].0[way], &mut row);
            homes = self.homes(&entries[row as usize].node);
            group = homes.other_than(group);
        }
        Err(row)
    }

    /// Makes room for so many ids at once.
    pub fn reserve(&mut self, ids: usize, entries: &[MapEntry]) {
        if ids > room_of(self.tags.len()) {
            self.rebuild(ids, entries);
        }
    }

    fn rebuild(&mut self, ids: usize, entries: &[MapEntry]) {
        self.rebuild_with(None, ids, entries);
    }

    /// Rebuilds it with room for so many ids, and takes in one more. A size at which some row finds no place is passed over.
    fn rebuild_with(&mut self, left: Option<Row>, mut ids: usize, entries: &[MapEntry]) {
        loop {
            let mut groups = ids.div_ceil(WAYS);
            while room_of(groups) < ids {
                groups += (ids - room_of(groups)).div_ceil(WAYS);
            }
            let mut new = Self::with_groups(groups, self.key.clone());
            let mut all = left.into_iter().chain(self.all_rows());
            if all.all(|row| new.put(row, entries).is_ok()) {
                drop(all);
                *self = new;
                return;
            }
            ids += ids / 7 + WAYS;
        }
    }

    fn all_rows(&self) -> impl Iterator<Item = Row> {
        let groups = self.tags.iter().zip(&self.rows);
        groups.flat_map(|(tags, rows)| {
            let places = tags.0.iter().zip(rows.0);
            places.filter(|(tag, _)| **tag != 0).map(|(_, row)| row)
        })
    }

    /// Removes an id; its entry must still name it.
    pub fn remove(&mut self, node: &NodeId, entries: &[MapEntry]) -> Option<Row> {
        let place = self.find_place(node, entries)?;
        self.tags[place.group].0[place.way] = 0;
        self.len -= 1;
        Some(self.row_at(place))
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
    fn tags_lie_in_half_a_line_and_rows_in_one() {
        assert_eq!((size_of::<Tags>(), align_of::<Tags>()), (32, 32));
        assert_eq!((size_of::<Rows>(), align_of::<Rows>()), (64, 64));
    }

    #[test]
    fn ways_are_found_exactly() {
        let tags = Tags(std::array::from_fn(|way| [7, 0x107, 0x700, -7, 0][way % 5]));
        assert_eq!(tags.ways_with(7), 0b1000_0100_0010_0001);
        assert_eq!(tags.ways_with(0x107), 0b0000_1000_0100_0010);
        assert_eq!(tags.ways_with(-7).count_ones(), 3);
        assert_eq!(tags.ways_with(9), 0);
        assert_eq!(tags.taken(), 13);
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
            index.find_all(&nodes, &entries, |_| true, |at, row| batch[at] = row);
            prop_assert!(batch.iter().zip(&nodes).all(|(row, node)| *row == tree.get(node).copied()));
        }
    }

    #[test]
    fn it_does_not_grow_by_churn_and_all_stand_in_a_home() {
        let entries: Vec<MapEntry> = (0..60_000).map(|number| entry(node(number))).collect();
        let mut index = KeyedIndex::new(&mut Entropy::from_seed([2; 32]));
        index.reserve(10_000, &entries);
        let bytes = index.memory_bytes();
        for row in 0..10_000 {
            index.insert(row, &entries);
        }
        for round in 0..50_000 {
            index
                .remove(&entries[round].node, &entries)
                .expect("it is there");
            index.insert(10_000 + round as u32, &entries);
        }
        assert_eq!(index.memory_bytes(), bytes);
        for (row, entry) in entries.iter().enumerate() {
            let expected = (row >= 50_000).then_some(row as Row);
            assert_eq!(index.find(&entry.node, &entries), expected);
        }
        assert_eq!(index.all_rows().count(), 10_000);
    }

    #[test]
    fn it_grows_until_every_id_finds_a_place() {
        // A hash that an attacker would wish for: ids count up, and many that follow each other have the same two homes, which are one.
        let key = HashKey {
            words: [u32x4::ZERO; 2],
            odd: [1 << 58 | 1; 2],
        };
        let near = |number: u32| {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&number.to_le_bytes());
            bytes[16] = 1;
            entry(NodeId::from_bytes(bytes))
        };
        let entries: Vec<MapEntry> = (0..40).map(near).collect();
        let mut index = KeyedIndex::with_groups(2, key);
        for row in 0..32 {
            index.insert(row, &entries);
            assert_eq!(index.tags.len(), if row < 16 { 2 } else { 4 }, "row {row}");
        }
        for (row, entry) in entries.iter().enumerate() {
            let expected = (row < 32).then_some(row as Row);
            assert_eq!(index.find(&entry.node, &entries), expected);
        }
        assert_eq!((index.len(), index.all_rows().count()), (32, 32));
    }

    proptest! {
        #[test]
        fn ids_that_differ_in_little_fall_as_random_ones_do(seed: [u8; 32], byte in 0usize..30, same: u8) {
            let key = HashKey::draw(&mut Entropy::from_seed(seed));
            let groups = 500;
            let mut first = vec![0u32; groups];
            let mut second = vec![0u32; groups];
            for number in 0..10_000u32 {
                let mut bytes = [same; 32];
                bytes[byte..byte + 2].copy_from_slice(&(number as u16).to_le_bytes());
                let homes = key.homes(&NodeId::from_bytes(bytes), groups);
                first[homes.groups[0]] += 1;
                second[homes.groups[1]] += 1;
            }
            // Twenty a group; a universal hash may pile up some, but not all of them.
            prop_assert!(first.iter().chain(&second).all(|ids| *ids < 2_000), "{first:?} {second:?}");
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
