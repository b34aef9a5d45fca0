//! Searches by visits, where worms have found nothing (PROTOCOL section 6, a lookup against liars): the searcher dials those close to
//! the target one by one, and asks each of them who is closer. A liar says nothing, or names the liars that are closest.

use super::graph::Person;
use super::lookup::Search;
use distsoc_engine::domain::Itinerary;
use distsoc_engine::limits;

/// Ids that an answer names.
const NAMED: usize = limits::WORM_TARGETS_MAX;
/// Ways to one of them that are asked.
const WAYS: usize = limits::ADDRESS_WAYS_MAX;

/// An id on somebody's map, and the nodes between the two, for some of the ways to it.
struct Near {
    distance: u64,
    person: Person,
    between: Vec<Vec<Person>>,
}

impl Search<'_> {
    /// The ids closest to the target on this node's map, the target itself included.
    fn near(&self, from: Person) -> Vec<Near> {
        let mut near: Vec<Near> = Vec::new();
        let mut add = |person: Person, between: &[Person]| {
            let distance = self.distance(person);
            let worst = near.last().map(|one| one.distance);
            if person == from || near.len() == NAMED && worst.is_some_and(|worst| distance > worst)
            {
                return;
            }
            match near.binary_search_by_key(&distance, |one| one.distance) {
                Ok(at) => {
                    let ways = &mut near[at].between;
                    let shortest = ways.first().map_or(usize::MAX, Vec::len);
                    if between.len() < shortest {
                        ways.clear();
                    }
                    if between.len() <= shortest && ways.len() < WAYS {
                        ways.push(between.to_vec());
                    }
                }
                Err(at) if !self.is_dead(person) => {
                    let between = vec![between.to_vec()];
                    near.insert(
                        at,
                        Near {
                            distance,
                            person,
                            between,
                        },
                    );
                    near.truncate(NAMED);
                }
                Err(_) => {}
            }
        };
        let (mut first, mut second, mut third) = (Vec::new(), Vec::new(), Vec::new());
        self.neighbours(from, &mut first);
        first.iter().for_each(|a| add(*a, &[]));
        for a in &first {
            self.neighbours(*a, &mut second);
            for b in &second {
                add(*b, &[*a]);
                self.neighbours(*b, &mut third);
                third.iter().for_each(|c| add(*c, &[*a, *b]));
            }
        }
        near
    }

    /// What the closest liars say: the liars that are closest.
    fn closest_liars(&self) -> Vec<Person> {
        let around = self.graph.around(self.target, 16 * NAMED as u64);
        let mut liars: Vec<Person> = self.ground().collect();
        liars.extend(around.into_iter().filter(|person| self.is_lost(*person)));
        liars.sort_by_key(|person| self.distance(*person));
        liars.truncate(NAMED);
        liars
    }

    /// Whether visits find the target, and how many it took.
    pub(super) fn visit(&mut self, from: Person) -> Option<u32> {
        let mut itinerary = Itinerary::new(limits::VISITS_PER_SEARCH_MAX);
        let is_honest = |between: &Vec<Person>| !between.iter().any(|node| self.is_lost(*node));
        let mut peers = Vec::new();
        self.neighbours(from, &mut peers);
        for peer in peers {
            itinerary.name(None, peer, self.distance(peer));
        }
        for Near {
            distance,
            person,
            between,
        } in self.near(from)
        {
            if self.is_lost(person) || between.iter().any(is_honest) {
                itinerary.name(None, person, distance);
            }
        }
        while let Some(person) = itinerary.next() {
            if self.is_lost(person) {
                for liar in self.closest_liars() {
                    itinerary.name(Some(person), liar, self.distance(liar));
                }
                continue;
            }
            if self.has_record(person) {
                return Some(itinerary.visits());
            }
            for Near {
                distance,
                person: named,
                between,
            } in self.near(person)
            {
                let reached = between.iter().any(is_honest);
                if named == self.target && reached {
                    return Some(itinerary.visits());
                }
                if named != self.target && (reached || self.is_lost(named)) {
                    itinerary.name(Some(person), named, distance);
                }
            }
        }
        None
    }
}
