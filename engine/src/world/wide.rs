//! What the choice of wide peers and the giving of slots share (PROTOCOL section 6, "Wide peers").

use crate::domain::NodeId;
use bevy_ecs::prelude::Resource;
use std::collections::VecDeque;

/// Estimates of the network's size that are kept.
const ESTIMATES: usize = 15;

/// A wide peer that is to give way to a better one once that is up: make before break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WideSwap {
    /// Who comes.
    pub comes: NodeId,
    /// Who goes then.
    pub leaves: NodeId,
}

/// The swap under way, and how large the network seems.
#[derive(Resource, Debug, Default)]
pub struct WidePlan {
    /// The swap under way.
    pub swap: Option<WideSwap>,
    estimates: VecDeque<f64>,
}

impl WidePlan {
    /// Another estimate of how many nodes there are, from how densely ids lie around some random place: whoever makes ids lie
    /// densely around this node does not change it.
    pub fn note_size(&mut self, count: f64) {
        if self.estimates.len() == ESTIMATES {
            self.estimates.pop_front();
        }
        self.estimates.push_back(count);
    }

    /// How many nodes there seem to be: the median of the estimates, and no fewer than are known.
    #[must_use]
    pub fn size(&self, known: usize) -> f64 {
        let mut sorted: Vec<f64> = self.estimates.iter().copied().collect();
        sorted.sort_by(f64::total_cmp);
        let median = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
        median.max(known as f64 + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_is_a_median_that_outliers_do_not_move() {
        let mut plan = WidePlan::default();
        assert_eq!(plan.size(9), 10.0);
        for _ in 0..ESTIMATES {
            plan.note_size(1e12);
        }
        for _ in 0..8 {
            plan.note_size(2e6);
        }
        assert_eq!((plan.size(9), plan.estimates.len()), (2e6, ESTIMATES));
    }
}
