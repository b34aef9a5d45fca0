//! How well worms find anybody (PROTOCOL sections 6 and 15): every node on a path goes on towards the id closest to the target that is on
//! its map of three hops, with the budget and the shares that nodes have; some are dead and nothing is repaired, or lie.

use super::graph::{Graph, Person, Wide, mix};
use super::{Done, Row};
use distsoc_engine::domain::worm_share;
use distsoc_engine::limits;
use rayon::prelude::*;

/// Nodes on both sides of a target, in the order of ids, to whom all that were ground are connected.
const REGION: u64 = 8;

/// Bearings that a node considers.
const BEARINGS: usize = 8;

/// Who is not as they should be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trouble {
    /// Share of nodes that are dead, percent.
    pub dead_percent: u64,
    /// Share of nodes that take a search and say nothing, or name ids that are not there, percent.
    pub sybil_percent: u64,
    /// Ids ground around each target that do the same, all connected to everybody within [`REGION`] of the target.
    pub ground: u64,
}

impl Trouble {
    fn is_dead(&self, person: Person) -> bool {
        mix(person, 11) % 100 < self.dead_percent
    }

    fn is_sybil(&self, person: Person) -> bool {
        mix(person, 12) % 100 < self.sybil_percent
    }
}

/// The way to a bearing: up to three nodes, or one more where a peer named it, the last being the bearing; how close it is to the
/// target.
#[derive(Clone, Copy, Debug)]
struct Way {
    distance: u64,
    nodes: [Person; 4],
    hops: usize,
}

impl Way {
    /// The same beginning at somebody who is connected to this peer.
    fn over(self, peer: Person) -> Self {
        let [a, b, c, _] = self.nodes;
        Self {
            nodes: [peer, a, b, c],
            hops: self.hops + 1,
            ..self
        }
    }
}

/// A way that led to the target.
#[derive(Clone, Copy, Debug, Default)]
struct Trip {
    /// Bearings.
    jumps: u32,
    /// Connections, to the one who had the target's record.
    links: u32,
}

/// One search.
pub(super) struct Search<'a> {
    pub(super) graph: &'a Graph,
    trouble: Trouble,
    pub(super) target: Person,
    target_id: u64,
    /// All peers are asked first.
    fans_out: bool,
    /// Requests sent.
    requests: u32,
}

impl Search<'_> {
    /// Ids past the last honest one are ground, and closer to the target than any.
    pub(super) fn distance(&self, person: Person) -> u64 {
        match person.checked_sub(self.graph.nodes) {
            Some(ground) => ground + 1,
            None => self.graph.id_bits(person) ^ self.target_id,
        }
    }

    pub(super) fn is_lost(&self, person: Person) -> bool {
        person >= self.graph.nodes || self.trouble.is_sybil(person)
    }

    /// Whether a node has been left the target's record: its neighbours on the ring, and twelve of ranks 5 to 64.
    pub(super) fn has_record(&self, person: Person) -> bool {
        if person >= self.graph.nodes || self.is_lost(person) || self.trouble.is_dead(person) {
            return false;
        }
        match self.graph.ranks_between(person, self.target) {
            0..=2 => true,
            3..=32 => mix(person, self.target).is_multiple_of(5),
            _ => false,
        }
    }

    pub(super) fn is_dead(&self, person: Person) -> bool {
        person < self.graph.nodes && self.trouble.is_dead(person)
    }

    /// All ids ground around the target.
    pub(super) fn ground(&self) -> std::ops::Range<Person> {
        self.graph.nodes..self.graph.nodes + self.trouble.ground
    }

    /// The living that a node is connected to, of those ground nobody else.
    pub(super) fn neighbours(&self, person: Person, all: &mut Vec<Person>) {
        if person >= self.graph.nodes {
            return all.clear();
        }
        self.graph.neighbours(person, all);
        all.retain(|other| !self.is_dead(*other));
        all.extend(self.ground_at(person));
    }

    /// The ids ground around the target that this node is connected to.
    fn ground_at(&self, person: Person) -> std::ops::Range<Person> {
        let count = match self.trouble.ground {
            0 => 0,
            _ if person == self.target => 0,
            count if self.graph.ranks_between(person, self.target) <= REGION => count,
            _ => 0,
        };
        self.graph.nodes..self.graph.nodes + count
    }

    /// The ways to the closest ids on this node's map, and those to the target itself, where it is on it.
    fn ways(&self, from: Person) -> (Vec<Way>, Vec<Way>) {
        let (mut first, mut second, mut third) = (Vec::new(), Vec::new(), Vec::new());
        let mut ways: Vec<Way> = Vec::new();
        let mut to_target: Vec<Way> = Vec::new();
        let mut add = |nodes: [Person; 4], hops: usize| {
            let bearing = nodes[hops - 1];
            let distance = self.distance(bearing);
            if bearing == self.target {
                to_target.push(Way {
                    distance,
                    nodes,
                    hops,
                });
                return;
            }
            let is_full = ways.len() == BEARINGS;
            if is_full && ways.last().is_some_and(|worst| worst.distance <= distance) {
                return;
            }
            if self.trouble.is_dead(bearing)
                || ways.iter().any(|way| way.nodes[way.hops - 1] == bearing)
            {
                return;
            }
            ways.push(Way {
                distance,
                nodes,
                hops,
            });
            ways.sort_by_key(|way| (way.distance, way.hops));
            ways.truncate(BEARINGS);
        };
        self.graph.neighbours(from, &mut first);
        for a in &first {
            if self.trouble.is_dead(*a) {
                continue;
            }
            add([*a, 0, 0, 0], 1);
            for ground in self.ground_at(*a) {
                add([*a, ground, 0, 0], 2);
            }
            self.graph.neighbours(*a, &mut second);
            for b in &second {
                if self.trouble.is_dead(*b) {
                    continue;
                }
                add([*a, *b, 0, 0], 2);
                for ground in self.ground_at(*b) {
                    add([*a, *b, ground, 0], 3);
                }
                self.graph.neighbours(*b, &mut third);
                for c in &third {
                    add([*a, *b, *c, 0], 3);
                }
            }
        }
        to_target.truncate(BEARINGS);
        (ways, to_target)
    }

    /// What all peers answer who are asked at once: the ways to the id that each knows to be closest.
    fn leads(&self, from: Person) -> (Vec<Way>, Vec<Way>) {
        let (mut peers, mut ways, mut to_target) = (Vec::new(), Vec::new(), Vec::new());
        self.graph.neighbours(from, &mut peers);
        for peer in peers
            .into_iter()
            .filter(|peer| !self.is_dead(*peer) && !self.is_lost(*peer))
        {
            let (of_peer, to) = self.ways(peer);
            let first = of_peer.into_iter().take(1).map(|way| way.over(peer));
            ways.extend(first);
            to_target.extend(to.into_iter().map(|way| way.over(peer)));
        }
        ways.sort_by_key(|way| (way.distance, way.hops));
        ways.dedup_by_key(|way| way.distance);
        ways.truncate(BEARINGS);
        (ways, to_target)
    }

    /// Whether the search gets there from this node; how many bearings it took, and connections to those on the way that led there.
    fn go(&mut self, from: Person, budget: u16, ttl: u8, is_own: bool) -> Option<Trip> {
        let own = self.graph.id_bits(from) ^ self.target_id;
        let mut budget = budget;
        if self.has_record(from) {
            return Some(Trip::default());
        }
        let (mut ways, mut to_target) = self.ways(from);
        if is_own && self.fans_out {
            let (leads, to) = self.leads(from);
            ways.extend(leads);
            ways.sort_by_key(|way| (way.distance, way.hops));
            to_target.extend(to);
        }
        let is_honest = |way: &Way| {
            !way.nodes[..way.hops - 1]
                .iter()
                .any(|node| self.is_lost(*node))
        };
        let straight = to_target.iter().filter(|way| is_honest(way));
        if let Some(links) = straight.map(|way| way.hops - 1).min() {
            let links = links as u32;
            return Some(Trip { jumps: 1, links });
        }
        if ttl == 0 {
            return None;
        }
        for (attempts, way) in (0u8..).zip(&ways) {
            if budget == 0 || way.distance >= own && !is_own {
                break;
            }
            let share = worm_share(budget, is_own, attempts);
            let links = way.hops as u16;
            budget -= (1 + share).min(budget);
            self.requests += u32::from(links);
            let is_lost = way.nodes[..way.hops].iter().any(|node| self.is_lost(*node));
            if is_lost || share < links {
                continue;
            }
            let bearing = way.nodes[way.hops - 1];
            if let Some(trip) = self.go(bearing, share - links, ttl - 1, false) {
                return Some(Trip {
                    jumps: trip.jumps + 1,
                    links: trip.links + u32::from(links),
                });
            }
        }
        None
    }
}

/// What came of many searches.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// How many there were.
    pub searches: u32,
    /// How many found their target.
    pub found: u32,
    /// Bearings on the way, of those.
    pub jumps: u32,
    /// Connections on the way, of those.
    pub links: u32,
    /// Requests, of all.
    pub requests: u32,
    /// How many visits found in the end.
    pub found_by_visits: u32,
    /// Visits, of all that needed any.
    pub visits: u32,
}

impl Outcome {
    fn and(self, other: Self) -> Self {
        Self {
            searches: self.searches + other.searches,
            found: self.found + other.found,
            jumps: self.jumps + other.jumps,
            links: self.links + other.links,
            requests: self.requests + other.requests,
            found_by_visits: self.found_by_visits + other.found_by_visits,
            visits: self.visits + other.visits,
        }
    }

    fn percent(&self) -> f64 {
        f64::from(self.found + self.found_by_visits) * 100.0 / f64::from(self.searches.max(1))
    }

    fn percent_by_worms(&self) -> f64 {
        f64::from(self.found) * 100.0 / f64::from(self.searches.max(1))
    }

    /// What one search takes at 100 ms there and back, s: all peers are asked, and somebody who died unnoticed is waited for as long
    /// again as the others took; then it goes from one to the next, and back along the way or by a dial of whoever has found it.
    fn seconds(&self, someone_died: bool) -> f64 {
        let asked = if someone_died { 0.2 } else { 0.1 };
        let there = 0.05 * f64::from(self.links);
        asked + there + there.min(0.15)
    }

    fn mean_jumps(&self) -> f64 {
        f64::from(self.jumps) / f64::from(self.found.max(1))
    }
}

/// Searches from honest nodes that live for targets that do.
#[must_use]
pub fn search(
    graph: &Graph,
    trouble: Trouble,
    searches: u32,
    ttl: u8,
    seed: u64,
    done: &Done,
) -> Outcome {
    let each = each_search(graph, trouble, searches, ttl, seed, false, done);
    each.into_iter().fold(Outcome::default(), Outcome::and)
}

fn each_search(
    graph: &Graph,
    trouble: Trouble,
    searches: u32,
    ttl: u8,
    seed: u64,
    fans_out: bool,
    done: &Done,
) -> Vec<Outcome> {
    let good = |salt: u64| {
        let draws = (0..).map(move |draw| mix(seed ^ salt, draw) % graph.nodes);
        draws.filter(|person| !trouble.is_dead(*person) && !trouble.is_sybil(*person))
    };
    let pairs: Vec<(Person, Person)> = good(21).zip(good(22)).take(searches as usize).collect();
    let outcomes = pairs.par_iter().map(|(from, target)| {
        let mut search = Search {
            graph,
            trouble,
            target: *target,
            target_id: graph.id_bits(*target),
            fans_out,
            requests: 0,
        };
        let found = search.go(*from, limits::WORM_BUDGET - 101, ttl, true);
        let visited = match found {
            Some(_) => None,
            None => Some(search.visit(*from)),
        };
        done.step();
        Outcome {
            searches: 1,
            found: u32::from(found.is_some()),
            jumps: found.unwrap_or_default().jumps,
            links: found.unwrap_or_default().links,
            requests: search.requests + 101,
            found_by_visits: u32::from(visited.flatten().is_some()),
            visits: visited.map_or(0, |visits| visits.unwrap_or(limits::VISITS_PER_SEARCH_MAX)),
        }
    });
    outcomes.collect()
}

/// The model: random targets, healthy, with dead nodes, with liars.
#[must_use]
pub fn rows(nodes: u64, searches: u32, seed: u64, done: &Done) -> Vec<Row> {
    let graph = Graph::new(nodes, Wide::Guided, false, seed);
    let random = Graph::new(nodes, Wide::Random, false, seed);
    let ttl = limits::WORM_TTL_MAX - 3;
    let mut rows = Vec::new();
    let healthy = search(&graph, Trouble::default(), searches, ttl, seed, done);
    rows.push(Row::new(
        "random target found",
        "≥ 99.9 %",
        healthy.percent(),
        "%",
    ));
    rows.push(Row::new(
        "jumps, mean",
        "≤ 4 (3.2)",
        healthy.mean_jumps(),
        "",
    ));
    let requests = f64::from(healthy.requests) / f64::from(searches);
    rows.push(Row::new("requests a search", "≤ 303", requests, ""));
    let dead = Trouble {
        dead_percent: 30,
        ..Trouble::default()
    };
    let with_dead = search(&graph, dead, searches, ttl, seed, done);
    rows.push(Row::new(
        "with 30 % dead, nothing repaired",
        "≥ 99 %",
        with_dead.percent(),
        "%",
    ));
    rows.push(Row::new(
        "jumps then, mean",
        "(2.8)",
        with_dead.mean_jumps(),
        "",
    ));
    for (percent, goal) in [(20, "≥ 99 %"), (50, "≥ 90 %")] {
        let liars = Trouble {
            sybil_percent: percent,
            ..Trouble::default()
        };
        let found = search(&graph, liars, searches, limits::WORM_TTL_MAX, seed, done);
        let name = format!("with {percent} % of nodes liars");
        rows.push(Row::new(name, goal, found.percent(), "%"));
        let name = format!("with {percent} % of nodes liars, by worms alone");
        rows.push(Row::new(name, "", found.percent_by_worms(), "%"));
        let name = format!("with {percent} % of nodes liars, visits a search");
        let visits = f64::from(found.visits) / f64::from((found.searches - found.found).max(1));
        rows.push(Row::new(name, "", visits, ""));
    }
    let ground = Trouble {
        ground: 64,
        ..Trouble::default()
    };
    let found = search(&graph, ground, searches, limits::WORM_TTL_MAX, seed, done);
    rows.push(Row::new(
        "with 64 ids ground around it",
        "≥ 95 %",
        found.percent(),
        "%",
    ));
    let unguided = search(&random, Trouble::default(), searches, ttl, seed, done);
    rows.push(Row::new(
        "without id-guided slots",
        "7.3 % at TTL 5",
        unguided.percent_by_worms(),
        "%",
    ));
    for (what, trouble) in [("", Trouble::default()), (", 30 % dead", dead)] {
        let few = searches.div_ceil(8);
        let each = each_search(&graph, trouble, few, ttl, seed, true, done);
        let of_all = |sum: fn(&Outcome) -> u32| {
            f64::from(each.iter().map(sum).sum::<u32>()) / f64::from(few)
        };
        let name = format!("jumps after all peers were asked{what}");
        rows.push(Row::new(name, "(1.6)", of_all(|one| one.jumps), ""));
        let found = each.iter().filter(|one| one.found > 0);
        let mut seconds: Vec<f64> = found.map(|one| one.seconds(!what.is_empty())).collect();
        seconds.sort_by(f64::total_cmp);
        for (percent, goal) in [(50, "≤ 0.5"), (99, "≤ 1.5")] {
            let at = (seconds.len().saturating_sub(1) * percent).div_ceil(100);
            let name = format!("seconds at 100 ms round trips, p{percent}{what}");
            rows.push(Row::new(
                name,
                goal,
                seconds.get(at).copied().unwrap_or(f64::NAN),
                "s",
            ));
        }
    }
    rows
}
