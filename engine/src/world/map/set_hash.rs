//! The keyed hash by which two ends compare a reporter's sets (PROTOCOL section 6): sums of it are digests, and its upper
//! bits say which cell an id falls into. The asker draws the key anew for each connection, so nobody can find ids beforehand
//! whose sums agree.

use super::ReportedHop;
use crate::crypto::derive_key;
use crate::domain::NodeId;
use crate::wire::CELLS;

/// The hash under one key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetHash([u64; 8]);

impl SetHash {
    /// The hash of a connection whose asker drew this salt.
    #[must_use]
    pub fn new(salt: u64) -> Self {
        let key = |half: u8| {
            derive_key(
                "distsoc/2 map digest",
                &[&salt.to_be_bytes()[..], &[half]].concat(),
            )
        };
        let (a, b) = (key(0), key(1));
        let word = |i: usize| {
            let bytes: [u8; 8] = std::array::from_fn(|j| {
                if i < 4 {
                    a[i * 8 + j]
                } else {
                    b[(i - 4) * 8 + j]
                }
            });
            u64::from_be_bytes(bytes) | 1
        };
        Self(std::array::from_fn(word))
    }

    /// The hash of an id that is reported at this hop.
    #[must_use]
    #[inline]
    pub fn of(&self, hop: ReportedHop, node: &NodeId) -> u64 {
        let key = &self.0;
        let (words, _) = node.as_bytes().as_chunks::<8>();
        let word = |i: usize| u128::from(u64::from_be_bytes(words[i]).wrapping_add(key[i]));
        let product = (word(0) * word(1)).wrapping_add(word(2) * word(3));
        let (low, high) = (product as u64, (product >> 64) as u64);
        let mixed = u128::from(low ^ key[4]) * u128::from(high ^ key[5]);
        let folded = (mixed as u64) ^ ((mixed >> 64) as u64);
        let last = match hop {
            ReportedHop::One => key[6],
            ReportedHop::Two => key[7],
        };
        let last = u128::from(folded ^ last) * u128::from(key[4] ^ key[6]);
        (last as u64) ^ ((last >> 64) as u64)
    }

    /// What an id adds to the digest of a set. The lower half of a digest is that of hop 1 alone: who takes only a part of hop 2
    /// still sees whether it has all of hop 1 ([`same_at_hop_1`]).
    #[must_use]
    #[inline]
    pub fn in_digest(&self, hop: ReportedHop, node: &NodeId) -> u64 {
        match hop {
            ReportedHop::One => self.of(hop, node) & u64::from(u32::MAX),
            ReportedHop::Two => self.of(hop, node) << 32,
        }
    }

    /// The cell of an id: the same at both hops.
    #[must_use]
    #[inline]
    pub fn cell(&self, node: &NodeId) -> usize {
        (self.of(ReportedHop::One, node) >> 32) as usize % CELLS
    }
}

/// Whether two digests are of the same ids at hop 1.
#[must_use]
pub fn same_at_hop_1(one: u64, other: u64) -> bool {
    one as u32 == other as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_tells_whether_hop_1_alone_is_the_same() {
        let hash = SetHash::new(1);
        let node = |number: u32| NodeId::from_bytes(crate::crypto::hash(&number.to_le_bytes()));
        let digest = |hop_1: u32, hop_2: u32| {
            let first = (0..hop_1).map(|one| hash.in_digest(ReportedHop::One, &node(one)));
            let second = (0..hop_2).map(|one| hash.in_digest(ReportedHop::Two, &node(one)));
            first.chain(second).fold(0, u64::wrapping_add)
        };
        assert_ne!(digest(100, 1_000), digest(100, 999));
        assert!(same_at_hop_1(digest(100, 1_000), digest(100, 0)));
        assert!(!same_at_hop_1(digest(100, 1_000), digest(99, 1_000)));
    }

    #[test]
    fn cells_are_even_and_keys_tell_apart() {
        let (hash, other) = (SetHash::new(1), SetHash::new(2));
        let node = |number: u32| NodeId::from_bytes(crate::crypto::hash(&number.to_le_bytes()));
        let mut cells = vec![0u32; CELLS];
        for number in 0..102_400 {
            let node = node(number);
            cells[hash.cell(&node)] += 1;
            assert_ne!(
                hash.of(ReportedHop::One, &node),
                hash.of(ReportedHop::Two, &node)
            );
            assert_ne!(
                hash.of(ReportedHop::One, &node),
                other.of(ReportedHop::One, &node)
            );
        }
        assert!(
            cells.iter().all(|count| (50..170).contains(count)),
            "{cells:?}"
        );
    }
}
