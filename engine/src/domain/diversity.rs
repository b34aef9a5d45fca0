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

/// One in so many ids is in the sample.
pub const SAMPLE_SHARE: u64 = 16;

impl NodeId {
    /// The part of an id that samples name.
    #[must_use]
    pub fn prefix(&self) -> IdPrefix {
        let (first, _) = self.as_bytes().split_first_chunk().expect("32 bytes");
        *first
    }
}

/// Whether an id with this keyed hash is in the sample of that key.
#[must_use]
pub fn is_sampled(hash: u64) -> bool {
    hash.is_multiple_of(SAMPLE_SHARE)
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
    fn a_swap_needs_a_clear_gain() {
        assert!(is_worth_a_swap(115, 100) && !is_worth_a_swap(114, 100));
        assert!(is_worth_a_swap(1, 0) && !is_worth_a_swap(0, 0));
    }
}
