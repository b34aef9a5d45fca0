//! The dice of a run: xoshiro256++, seeded by one number. Integers only, so that every machine and every build profile
//! draws the same. Nothing here is fit for keys: nodes get their own seeds through [`crate::simulation`].

/// A generator that repeats for the same seed.
#[derive(Clone, Debug)]
pub struct Chance {
    state: [u64; 4],
}

/// One step of splitmix64: spreads a seed over all bits.
#[must_use]
pub fn spread(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

impl Chance {
    /// A generator of this seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut next = seed;
        let state = std::array::from_fn(|_| {
            next = spread(next);
            next
        });
        Self { state }
    }

    /// 64 uniform bits.
    pub fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let drawn = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        drawn
    }

    /// A uniform number in `0..bound`; 0 for a bound of 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// A uniform number in `low..=high`; `low` where the range is empty.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low).saturating_add(1))
    }

    /// True this many times in a million.
    pub fn happens(&mut self, per_million: u32) -> bool {
        per_million > 0 && self.below(1_000_000) < u64::from(per_million)
    }

    /// `count` different numbers of `0..bound` in ascending order; all of them where there are fewer.
    pub fn pick(&mut self, count: usize, bound: usize) -> Vec<usize> {
        let count = count.min(bound);
        let mut picked = std::collections::BTreeSet::new();
        // Floyd's sampling: one draw for each pick, whatever the bound.
        for top in bound - count..bound {
            let drawn = self.below(top as u64 + 1) as usize;
            if !picked.insert(drawn) {
                picked.insert(top);
            }
        }
        picked.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same() {
        let draw = |seed| {
            let mut chance = Chance::new(seed);
            (0..50).map(|_| chance.below(1000)).collect::<Vec<_>>()
        };
        assert_eq!(draw(5), draw(5));
        assert_ne!(draw(5), draw(6));
    }

    #[test]
    fn picks_are_different_and_within_bounds() {
        let mut chance = Chance::new(1);
        for count in 0..20 {
            let picked = chance.pick(count, 12);
            assert_eq!(picked.len(), count.min(12));
            assert!(picked.windows(2).all(|pair| pair[0] < pair[1]));
            assert!(picked.iter().all(|number| *number < 12));
        }
    }

    #[test]
    fn rates_are_about_what_was_asked_for() {
        let mut chance = Chance::new(2);
        let hits = (0..100_000).filter(|_| chance.happens(50_000)).count();
        assert!((4_000..6_000).contains(&hits), "{hits}");
        assert!(!chance.happens(0));
    }
}
