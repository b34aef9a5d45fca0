//! How much a peer adds to what is known (PROTOCOL section 6, "Diversity is scored by what only this peer reports"): pure, so that
//! nodes, simulator and models choose wide peers by the same.

use super::NodeId;

/// Bytes of an id in a sample.
pub const PREFIX_BYTES: usize = 8;
/// The first bytes of an id.
pub type IdPrefix = [u8; PREFIX_BYTES];

/// A new peer must score so much more, in percent of the one it replaces.
pub const SWAP_GAIN_PERCENT: u64 = 115;
/// More than this, in percent of the median of the incumbents, does not count: invented ids must not win.
pub const SCORE_CAP_PERCENT: u64 = 150;

/// One id in 2^4 is in the smallest sample.
pub const SAMPLE_BITS_MAX: u8 = 4;
/// Ids that a sample should have: what the smallest has of an honest node's 7,000.
const SAMPLE_IDS: usize = 400;

impl NodeId {
    /// The part of an id that samples name.
    #[must_use]
    pub fn prefix(&self) -> IdPrefix {
        let (first, _) = self.as_bytes().split_first_chunk().expect("32 bytes");
        *first
    }
}

/// One id in 2^this is in the sample: fewer of a large network, where it says enough.
#[must_use]
pub fn sample_bits(hop_2: usize) -> u8 {
    let fits = |bits: &u8| hop_2 >> bits >= SAMPLE_IDS;
    (1..=SAMPLE_BITS_MAX).take_while(fits).last().unwrap_or(0)
}

/// Whether an id with this keyed hash is in the sample of that key.
#[must_use]
pub fn is_sampled(hash: u64, bits: u8) -> bool {
    hash.trailing_zeros() >= u32::from(bits)
}

/// The score of a candidate: how many of its sampled ids nobody reports but it and perhaps the peer it would replace, capped at 1.5
/// times the median of the incumbents' scores.
#[must_use]
pub fn score_of(sole: u64, mut incumbents: Vec<u64>) -> u64 {
    incumbents.sort_unstable();
    match incumbents.get(incumbents.len() / 2) {
        Some(median) => sole.min(median * SCORE_CAP_PERCENT / 100),
        None => sole,
    }
}

/// Whether replacing a peer of the one score by one of the other is worth the diffs that it costs everybody.
#[must_use]
pub fn is_worth_a_swap(new: u64, old: u64) -> bool {
    new > old && new * 100 >= old * SWAP_GAIN_PERCENT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invented_ids_win_no_more_than_half_as_much_again() {
        assert_eq!(score_of(1_000_000, vec![300, 100, 200]), 300);
        assert_eq!(score_of(250, vec![300, 100, 200]), 250);
        assert_eq!(score_of(7, Vec::new()), 7);
    }

    #[test]
    fn samples_have_some_four_hundred_ids() {
        assert_eq!(
            [0, 799, 800, 3_000, 7_000, 25_000].map(sample_bits),
            [0, 0, 1, 2, 4, 4]
        );
        let sampled = (0..1u64 << 20).filter(|hash| is_sampled(*hash, 4)).count();
        assert_eq!(sampled, 1 << 16);
        assert!(is_sampled(0, 4) && is_sampled(3, 0));
    }

    #[test]
    fn a_swap_needs_a_clear_gain() {
        assert!(is_worth_a_swap(115, 100) && !is_worth_a_swap(114, 100));
        assert!(is_worth_a_swap(1, 0) && !is_worth_a_swap(0, 0));
    }
}
