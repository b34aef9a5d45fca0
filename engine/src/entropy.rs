//! Randomness as a value: one generator seeded by the driver.
//!
//! In production the seed comes from the operating system, in the simulator from the scenario, so that the
//! same seed and the same inputs give the same run (PROTOCOL section 13).

use bevy_ecs::prelude::Resource;
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// The node's only source of randomness.
#[derive(Resource)]
pub struct Entropy(ChaCha20Rng);

impl Entropy {
    /// A generator that repeats for the same 32-byte seed.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(ChaCha20Rng::from_seed(seed))
    }

    /// 64 uniform bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A uniform number in `0..bound`; 0 for a bound of 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// 32 uniform bytes.
    pub fn bytes32(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        self.0.fill_bytes(&mut bytes);
        bytes
    }

    /// A duration between `ms - ms/4` and `ms + ms/4`, so that nothing periodic is aligned between nodes
    /// (PROTOCOL section 3).
    pub fn jittered(&mut self, ms: u64) -> u64 {
        ms - ms / 4 + self.below(ms / 2 + 1)
    }

    /// Shuffles in place (Fisher-Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last as u64 + 1) as usize;
            items.swap(last, other);
        }
    }
}

impl std::fmt::Debug for Entropy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Entropy(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let draw = |seed| {
            let mut entropy = Entropy::from_seed([seed; 32]);
            (0..64).map(|_| entropy.below(1000)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn draws_stay_within_their_bounds() {
        let mut entropy = Entropy::from_seed([1; 32]);
        assert_eq!(entropy.below(0), 0);
        for _ in 0..10_000 {
            assert!(entropy.below(7) < 7);
            assert!((750..=1250).contains(&entropy.jittered(1000)));
        }
    }
}
