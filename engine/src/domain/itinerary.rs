//! Whom to visit next in a search by visits (PROTOCOL section 6, a lookup against liars): pure, so that nodes and models go by the
//! same.
//!
//! Anybody can name ids that lie beside the target, and as many of them as there are keys. So the closest of all is visited by turns
//! with the closest of those named by whoever had the fewest turns: who names liars takes the turns of one, not of all.

use std::collections::BTreeMap;

/// Places that an itinerary remembers at most.
pub const STOPS_MAX: usize = 512;
/// Of those who named a place, how many are remembered.
const NAMERS_MAX: usize = 4;

#[derive(Clone, Debug)]
struct Stop<N, D> {
    distance: D,
    /// Who named it; nobody for what this node knew by itself.
    by: Vec<Option<N>>,
    is_done: bool,
}

/// The places of one search, by id, and how far each is from the target.
#[derive(Clone, Debug)]
pub struct Itinerary<N, D> {
    stops: BTreeMap<N, Stop<N, D>>,
    /// How often somebody named by this one was visited.
    turns: BTreeMap<Option<N>, u32>,
    visits: u32,
    visits_max: u32,
}

impl<N: Copy + Ord, D: Copy + Ord> Itinerary<N, D> {
    /// Nowhere to go yet.
    #[must_use]
    pub fn new(visits_max: u32) -> Self {
        Self {
            stops: BTreeMap::new(),
            turns: BTreeMap::new(),
            visits: 0,
            visits_max,
        }
    }

    /// Somebody names a place that can be visited. Past [`STOPS_MAX`], whoever has named most loses the farthest.
    pub fn name(&mut self, by: Option<N>, node: N, distance: D) {
        let stop = self.stops.entry(node).or_insert(Stop {
            distance,
            by: Vec::new(),
            is_done: false,
        });
        if stop.by.len() < NAMERS_MAX && !stop.by.contains(&by) {
            stop.by.push(by);
        }
        if self.stops.len() > STOPS_MAX {
            self.forget_one();
        }
    }

    fn forget_one(&mut self) {
        let open = || self.stops.iter().filter(|(_, stop)| !stop.is_done);
        let mut named: BTreeMap<Option<N>, usize> = BTreeMap::new();
        for by in open().filter_map(|(_, stop)| stop.by.first()) {
            *named.entry(*by).or_default() += 1;
        }
        let most = named.iter().max_by_key(|(_, count)| **count);
        let most = most.map(|(by, _)| *by);
        let of_most = open().filter(|(_, stop)| stop.by.first().copied() == most);
        let farthest = of_most.max_by_key(|(node, stop)| (stop.distance, **node));
        if let Some(farthest) = farthest.map(|(node, _)| *node) {
            self.stops.remove(&farthest);
        }
    }

    /// Whether somebody has named it.
    #[must_use]
    pub fn knows(&self, node: &N) -> bool {
        self.stops.contains_key(node)
    }

    /// Whether it is still to be visited.
    #[must_use]
    pub fn is_open(&self, node: &N) -> bool {
        self.stops.get(node).is_some_and(|stop| !stop.is_done)
    }

    /// How many were visited.
    #[must_use]
    pub fn visits(&self) -> u32 {
        self.visits
    }
}

/// The places to visit, one after the other; more may be named in between.
impl<N: Copy + Ord, D: Copy + Ord> Iterator for Itinerary<N, D> {
    type Item = N;

    /// `None` where there is none, or enough were visited.
    fn next(&mut self) -> Option<N> {
        if self.visits >= self.visits_max {
            return None;
        }
        let by_closeness = self.visits.is_multiple_of(2);
        let turns_of = |by: &Option<N>| self.turns.get(by).copied().unwrap_or_default();
        let open = self.stops.iter().filter(|(_, stop)| !stop.is_done);
        let ranked = open.map(|(node, stop)| {
            let patron = stop.by.iter().min_by_key(|by| turns_of(by)).copied();
            let turns = patron.as_ref().map_or(0, turns_of);
            let rank = if by_closeness { 0 } else { turns };
            (rank, stop.distance, *node, patron)
        });
        let (.., node, patron) =
            ranked.min_by_key(|(rank, distance, node, _)| (*rank, *distance, *node))?;
        self.visits += 1;
        if let Some(patron) = patron {
            *self.turns.entry(patron).or_default() += 1;
        }
        if let Some(stop) = self.stops.get_mut(&node) {
            stop.is_done = true;
        }
        Some(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_comes_first_and_nobody_comes_twice() {
        let mut itinerary = Itinerary::new(10);
        for (node, distance) in [(1, 30), (2, 10), (3, 20)] {
            itinerary.name(None, node, distance);
        }
        assert_eq!(itinerary.next(), Some(2));
        itinerary.name(Some(2), 2, 10);
        assert!(itinerary.by_ref().eq([3, 1]));
        assert_eq!(itinerary.visits(), 3);
    }

    #[test]
    fn who_names_many_close_ids_takes_half_of_the_turns_at_most() {
        let mut itinerary = Itinerary::new(20);
        for node in 0..10 {
            itinerary.name(Some(1_000 + node), node, 1_000 + node);
        }
        for node in 0..100 {
            itinerary.name(Some(2_000), 100 + node, node);
        }
        let visited: Vec<u32> = itinerary.collect();
        assert_eq!(visited.len(), 20);
        assert_eq!(visited.iter().filter(|node| **node < 10).count(), 10);
    }

    #[test]
    fn who_names_ever_more_does_not_crowd_out_the_others() {
        let mut itinerary = Itinerary::new(u32::MAX);
        for node in 0..10 {
            itinerary.name(Some(1_000_000 + node), node, u32::MAX - node);
        }
        for node in 0..10_000 {
            itinerary.name(Some(2_000_000), 100 + node, node);
        }
        assert!((0..10).all(|node| itinerary.is_open(&node)));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut itinerary = Itinerary::new(u32::MAX);
        for node in 0..10_000u32 {
            itinerary.name(Some(node % 7), node, 10_000 - node);
        }
        assert_eq!(itinerary.count(), STOPS_MAX);
    }
}
