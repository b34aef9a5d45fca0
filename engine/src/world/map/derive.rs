//! Hops 2 and 3 from nothing but what the reporters name: what the counts in the entries must agree with at any time. For checking
//! a map, and for building one at once.

use super::{DiscoveryMap, ReportedHop, Row};
use roaring::RoaringBitmap;

/// A set of rows, a bit each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowBits {
    words: Vec<u64>,
    /// The bytes of the set that is being added.
    scratch: Vec<u8>,
}

/// The first four bytes of a roaring bitmap without runs, as its format has them.
const NO_RUNS: u32 = 12_346;
/// Members that a container has at most as a list; more are a bitset.
const LIST_MAX: usize = 4_096;
const CONTAINER_BYTES: usize = 8_192;
const CONTAINER_WORDS: usize = CONTAINER_BYTES / 8;

impl RowBits {
    /// No row of so many.
    #[must_use]
    pub fn new(rows: usize) -> Self {
        let containers = rows.div_ceil(1 << 16);
        Self {
            words: vec![0; containers * CONTAINER_WORDS],
            scratch: Vec::new(),
        }
    }

    /// Whether the row is in it.
    #[must_use]
    pub fn contains(&self, row: Row) -> bool {
        let word = self.words.get(row as usize / 64).copied();
        word.unwrap_or_default() >> (row % 64) & 1 == 1
    }

    /// How many rows.
    #[must_use]
    pub fn count(&self) -> usize {
        self.words
            .iter()
            .map(|word| word.count_ones() as usize)
            .sum()
    }

    /// Takes rows out that are in the other.
    pub fn subtract(&mut self, other: &Self) {
        for (word, out) in self.words.iter_mut().zip(&other.words) {
            *word &= !out;
        }
    }

    /// Adds a set.
    ///
    /// The lists of a roaring bitmap lie in its serialized form as they are: setting bits from there takes half the time that its
    /// iterator does.
    ///
    /// # Panics
    /// If a row is past the number this was made for.
    pub fn add(&mut self, set: &RoaringBitmap) {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        set.serialize_into(&mut scratch)
            .expect("writing to memory does not fail");
        if self.add_containers(&scratch).is_none() {
            for row in set {
                self.words[row as usize / 64] |= 1 << (row % 64);
            }
        }
        self.scratch = scratch;
    }

    /// `None` where the form is another; nothing but members has been set then.
    fn add_containers(&mut self, bytes: &[u8]) -> Option<()> {
        let (cookie, rest) = bytes.split_first_chunk::<4>()?;
        if u32::from_le_bytes(*cookie) != NO_RUNS {
            return None;
        }
        let (count, rest) = rest.split_first_chunk::<4>()?;
        let count = u32::from_le_bytes(*count) as usize;
        let (heads, rest) = rest.split_at_checked(count * 4)?;
        // Where each container begins: they follow each other anyway.
        let (_, mut rest) = rest.split_at_checked(count * 4)?;
        for head in heads.as_chunks::<4>().0 {
            let [a, b, c, d] = *head;
            let key = usize::from(u16::from_le_bytes([a, b]));
            let members = usize::from(u16::from_le_bytes([c, d])) + 1;
            let words = &mut self.words[key * CONTAINER_WORDS..][..CONTAINER_WORDS];
            let words: &mut [u64; CONTAINER_WORDS] = words.try_into().ok()?;
            if members <= LIST_MAX {
                let (list, after) = rest.split_at_checked(members * 2)?;
                for member in list.as_chunks::<2>().0 {
                    let member = usize::from(u16::from_le_bytes(*member));
                    words[member / 64] |= 1 << (member % 64);
                }
                rest = after;
            } else {
                let (bits, after) = rest.split_at_checked(CONTAINER_BYTES)?;
                for (word, more) in words.iter_mut().zip(bits.as_chunks::<8>().0) {
                    *word |= u64::from_le_bytes(*more);
                }
                rest = after;
            }
        }
        Some(())
    }
}

/// Who is at hop 2 and who at hop 3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Derived {
    /// Named by a reporter at its hop 1, and not connected.
    pub hop_2: RowBits,
    /// Named at hop 2 only.
    pub hop_3: RowBits,
}

impl DiscoveryMap {
    /// The hops by the reporters' sets alone, of a table with so many rows.
    #[must_use]
    pub fn derive(&self, rows: usize) -> Derived {
        let mut connected = RowBits::new(rows);
        connected.add(self.hop_1());
        let union = |hop: ReportedHop| {
            let mut all = RowBits::new(rows);
            for (reporter, _) in self.reporters().iter() {
                if let Some(set) = self.reporters().rows(reporter, hop) {
                    all.add(set);
                }
            }
            all
        };
        let mut hop_2 = union(ReportedHop::One);
        hop_2.subtract(&connected);
        let mut hop_3 = union(ReportedHop::Two);
        hop_3.subtract(&connected);
        hop_3.subtract(&hop_2);
        Derived { hop_2, hop_3 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sets() -> impl Strategy<Value = Vec<RoaringBitmap>> {
        let sparse = prop::collection::vec(0u32..200_000, 0..300)
            .prop_map(|rows| rows.into_iter().collect::<RoaringBitmap>());
        // More than fit into a list, and a run.
        let dense = (0u32..100_000, 4_000u32..40_000, 1usize..4).prop_map(|(from, count, step)| {
            (from..from + count)
                .step_by(step)
                .collect::<RoaringBitmap>()
        });
        let run = (0u32..100_000, 1u32..90_000).prop_map(|(from, count)| {
            let mut set = RoaringBitmap::new();
            set.insert_range(from..from + count);
            set
        });
        prop::collection::vec(prop_oneof![sparse, dense, run], 0..6)
    }

    proptest! {
        #[test]
        fn bits_are_the_union_of_sets(sets in sets(), out in sets()) {
            let (mut bits, mut model) = (RowBits::new(200_000), RoaringBitmap::new());
            for set in &sets {
                bits.add(set);
                model |= set;
            }
            let mut gone = RowBits::new(200_000);
            for set in &out {
                gone.add(set);
                model -= set;
            }
            bits.subtract(&gone);
            prop_assert_eq!(bits.count() as u64, model.len());
            prop_assert!(model.iter().all(|row| bits.contains(row)));
        }
    }
}
