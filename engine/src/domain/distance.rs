//! How far apart ids are (PROTOCOL section 6, "closest NodeId (XOR)"), and the few numbers that routing by id needs: all pure, so
//! that nodes, simulator and models go by the same.

use super::NodeId;
use crate::limits;

/// The XOR of two ids, compared as a number: smaller is closer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Distance([u8; 32]);

impl Distance {
    /// Farther than any id.
    pub const MAX: Self = Self([0xff; 32]);

    /// Between two ids.
    #[must_use]
    pub fn between(a: &NodeId, b: &NodeId) -> Self {
        Self(std::array::from_fn(|i| a.as_bytes()[i] ^ b.as_bytes()[i]))
    }

    /// The bits in which the two agree from the first on, 256 where they are the same.
    #[must_use]
    pub fn common_bits(&self) -> u32 {
        match self.0.iter().position(|byte| *byte != 0) {
            Some(at) => at as u32 * 8 + self.0[at].leading_zeros(),
            None => 256,
        }
    }

    /// The part of the id space that is closer than this, from 0 to 1.
    #[must_use]
    pub fn share(&self) -> f64 {
        // 16 bytes hold more bits than a float.
        let (high, _) = self.0.split_at(16);
        let high = high
            .iter()
            .fold(0u128, |sum, byte| sum << 8 | u128::from(*byte));
        high as f64 / 2f64.powi(128)
    }
}

impl NodeId {
    /// The XOR distance to another id.
    #[must_use]
    pub fn distance(&self, other: &NodeId) -> Distance {
        Distance::between(self, other)
    }

    /// The id with one bit flipped and every later bit replaced by those of `random`: a random id among all that agree with this
    /// one in exactly `bits` bits.
    #[must_use]
    pub fn sibling(&self, bits: u32, random: &[u8; 32]) -> NodeId {
        let (byte, mask) = (bits as usize / 8, 0x80u8 >> (bits % 8));
        let mut id = *self.as_bytes();
        let later = mask - 1;
        id[byte] = (id[byte] ^ mask) & !later | random[byte] & later;
        id[byte + 1..].copy_from_slice(&random[byte + 1..]);
        NodeId::from_bytes(id)
    }
}

/// How many ids there are in all, judged by how close to an id the `rank`-th closest one is (1 is the closest).
#[must_use]
pub fn estimated_count(rank: usize, distance: &Distance) -> f64 {
    rank as f64 / distance.share().max(f64::MIN_POSITIVE)
}

/// PROTOCOL section 6, "harmonically drawn id distances": a finger points at a random id that agrees with the own one in so many
/// bits, every number of bits up to that of the nearest neighbours being as likely as any other.
///
/// `draw` is a random number below 2^32.
#[must_use]
pub fn finger_bits(count: f64, draw: u32) -> u32 {
    let bits = count.max(2.0).log2().floor().min(255.0) as u32;
    ((u64::from(draw) * u64::from(bits.max(1))) >> 32) as u32
}

/// How much of its budget a node gives to the next attempt, beside the request itself.
///
/// An own search keeps a quarter for each of its three paths and one for what comes after; on the way, three quarters go on.
#[must_use]
pub fn worm_share(budget: u16, is_own: bool, attempts: u8) -> u16 {
    let rest = budget.saturating_sub(1);
    match (is_own, attempts) {
        (true, before @ 0..limits::WORM_PATHS) => {
            rest / (u16::from(limits::WORM_PATHS - before) + 1)
        }
        (true, _) => rest / 2,
        (false, _) => rest / 4 * 3 + rest % 4 * 3 / 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u64) -> NodeId {
        NodeId::from_bytes(crate::crypto::hash(&number.to_le_bytes()))
    }

    #[test]
    fn shares_and_counts_fit_random_ids() {
        let own = node(0);
        let mut all: Vec<Distance> = (1..10_001).map(|n| own.distance(&node(n))).collect();
        all.sort_unstable();
        let estimate = estimated_count(64, &all[63]);
        assert!((7_000.0..14_000.0).contains(&estimate), "{estimate}");
        assert!(own.distance(&own).share() == 0.0 && Distance::MAX.share() > 0.999);
    }

    #[test]
    fn a_sibling_agrees_in_as_many_bits_as_asked_for() {
        for bits in 0..255 {
            let sibling = node(1).sibling(bits, node(2).as_bytes());
            assert_eq!(node(1).distance(&sibling).common_bits(), bits);
        }
        let agreeing = |draw| finger_bits(2e9, draw);
        assert_eq!((agreeing(0), agreeing(u32::MAX)), (0, 29));
        assert_eq!(finger_bits(1.0, u32::MAX), 0);
    }

    #[test]
    fn shares_never_exceed_the_budget_and_reach_far() {
        for budget in 1..=limits::WORM_BUDGET {
            let mut left = budget;
            for attempts in 0..u8::MAX {
                let share = worm_share(left, true, attempts);
                if left == 0 {
                    break;
                }
                assert!(share < left, "{share} of {left}");
                left -= 1 + share;
            }
        }
        // What is left after 101 peers were asked takes a path far enough, three times over.
        let (mut budget, mut links) = (worm_share(limits::WORM_BUDGET - 101, true, 0), 1);
        while budget > 0 {
            budget = worm_share(budget, false, 0);
            links += 1;
        }
        assert!(links >= 10, "{links}");
    }
}
