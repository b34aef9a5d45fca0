//! One post of an author whom one in two thousand keeps, a million of two billion (PROTOCOL sections 7 and 15): pushed to the author's
//! connections, then told from keeper to keeper, with swarm links and without. Keepers alone are explicit; who is near whom is the graph's.
//!
//! What a keeper does is what `systems/src/files/chain.rs` does: it tells a digest once, within [`limits::CHAIN_DELAY_MS`], to everybody it
//! has a link with but whoever brought it; whoever hears asks that one for the list, then for the post. Links are made as keepers come: each
//! is offered to holders within three hops, which a worm finds, until it has as many as are looked for. Nobody joins or leaves meanwhile.

use super::graph::{Graph, Person, Wide, mix};
use super::reach::hops;
use super::{Done, Row};
use crate::scenario::Network;
use distsoc_engine::limits;
use distsoc_engine::profile::{NodeProfile, ProfileKind};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// One in so many nodes keeps the author.
const NODES_PER_KEEPER: u64 = 2_000;
/// Networks without swarm links have so many times fewer keepers: what becomes of them shows all the same.
const FEWER: u64 = 20;
/// A hop as the design review reckons it, which knows updates that ride on routing diffs alone.
const REVIEW_HOP_MS: u64 = limits::ROUTING_DIFF_MS;
/// Nodes whose three hops are looked at, and ids taken from each.
const SAMPLES_MAX: u32 = 16;
const IDS_PER_SAMPLE: u64 = 4_096;

/// Everybody who keeps the author, in the order of persons.
struct Keepers {
    people: Vec<Person>,
}

impl Keepers {
    /// One, at random, among each so many of the first people.
    fn scattered(count: u64, one_in: u64, seed: u64) -> Self {
        let place = |number: u64| number * one_in + mix(seed ^ 51, number) % one_in;
        Self {
            people: (0..count).map(place).collect(),
        }
    }

    fn len(&self) -> usize {
        self.people.len()
    }

    /// The keeper closest to a place among all people.
    fn closest(&self, place: Person) -> usize {
        let after = self.people.partition_point(|person| *person < place);
        let near = [after.saturating_sub(1), after.min(self.len() - 1)];
        let distance = |at: &usize| self.people[*at].abs_diff(place);
        near.into_iter().min_by_key(distance).expect("two")
    }
}

/// Where those within three hops of a node are, from its own place.
fn three_hops(graph: &Graph, samples: u32, seed: u64, done: &Done) -> Vec<Person> {
    let mut offsets = Vec::new();
    for sample in 0..u64::from(samples.clamp(1, SAMPLES_MAX)) {
        done.step();
        let from = mix(seed ^ 52, sample) % graph.nodes;
        let within: Vec<Person> = hops(graph, from, |_| true).concat();
        let draw = |number| within[(mix(seed ^ sample, number) % within.len() as u64) as usize];
        let some = (0..IDS_PER_SAMPLE).map(draw);
        offsets.extend(some.map(|other| (other + graph.nodes - from) % graph.nodes));
    }
    offsets
}

/// Who has a link with whom.
type Links = Vec<Vec<u32>>;

/// Links as keepers come, in a random order: each knows so many holders, offers to them one by one until it has as many as it
/// wants, and takes offers while it has fewer than it may have.
fn swarm(
    keepers: &Keepers,
    nodes: u64,
    offsets: &[Person],
    wanted: usize,
    max: usize,
    seed: u64,
) -> Links {
    let count = keepers.len();
    let mut order: Vec<u32> = (0..count as u32).collect();
    for at in (1..count).rev() {
        order.swap(at, (mix(seed ^ 53, at as u64) % (at as u64 + 1)) as usize);
    }
    let mut is_there = vec![false; count];
    let mut links: Links = vec![Vec::with_capacity(max); count];
    for (came, one) in order.iter().enumerate() {
        let own = *one as usize;
        is_there[own] = true;
        for draw in 0..2 * limits::KEEPERS_SEEN_MAX as u64 {
            if links[own].len() >= wanted || came == 0 {
                break;
            }
            let chance = mix(mix(seed ^ 54, u64::from(*one)), draw);
            let offset = offsets[(chance % offsets.len() as u64) as usize];
            let near = keepers.closest((keepers.people[own] + offset) % nodes);
            // A worm that finds nobody there finds anybody.
            let other = match is_there[near] && near != own {
                true => near,
                false => order[(mix(chance, 1) % came as u64) as usize] as usize,
            };
            if links[other].len() < max && !links[own].contains(&(other as u32)) {
                links[own].push(other as u32);
                links[other].push(*one);
            }
        }
    }
    links
}

/// What comes to pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum News {
    /// The keeper has the new list: it will tell it on, and lacks the post unless it came inline.
    List { from: u32 },
    /// What it tells goes out.
    Tell { from: u32 },
    /// A digest is here.
    Digest { from: u32 },
}

/// What became of a post.
#[derive(Debug, Default)]
struct Cascade {
    /// When each keeper had it, ms, ascending.
    had_ms: Vec<u64>,
    /// Over how many keepers it came.
    hops: Vec<u32>,
    digests: u64,
    /// Of one keeper, at most.
    digests_max: u64,
}

const NOBODY: u32 = u32::MAX;

impl Cascade {
    /// Tells these at once, and everybody else along links, each within the delay; those that are off neither hear nor tell.
    fn run(
        count: usize,
        first: &[u32],
        delay_ms: u64,
        seed: u64,
        is_off: impl Fn(u32) -> bool,
        mut links_of: impl FnMut(u32, &mut Vec<u32>),
    ) -> Self {
        let [low_ms, high_ms] = Network::default().latency_ms;
        let latency_ms = |a: u32, b: u32| {
            let pair = u64::from(a.min(b)) << 32 | u64::from(a.max(b));
            low_ms + mix(seed ^ 55, pair) % (high_ms - low_ms + 1)
        };
        let mut hop_of = vec![NOBODY; count];
        let mut queue = BinaryHeap::new();
        for one in first.iter().filter(|one| !is_off(**one)) {
            hop_of[*one as usize] = 1;
            let at_ms = latency_ms(NOBODY, *one);
            queue.push(Reverse((at_ms, *one, News::List { from: NOBODY })));
        }
        let mut cascade = Self::default();
        let mut linked = Vec::new();
        while let Some(Reverse((now_ms, own, news))) = queue.pop() {
            match news {
                News::List { from } => {
                    // The post itself takes another question, where it did not come with the news.
                    let fetch_ms = match from {
                        NOBODY => 0,
                        from => 2 * latency_ms(own, from),
                    };
                    cascade.had_ms.push(now_ms + fetch_ms);
                    cascade.hops.push(hop_of[own as usize]);
                    let wait_ms = mix(seed ^ 56, u64::from(own)) % delay_ms;
                    queue.push(Reverse((now_ms + wait_ms, own, News::Tell { from })));
                }
                News::Tell { from } => {
                    linked.clear();
                    links_of(own, &mut linked);
                    linked.retain(|other| *other != from && !is_off(*other));
                    cascade.digests += linked.len() as u64;
                    cascade.digests_max = cascade.digests_max.max(linked.len() as u64);
                    for other in &linked {
                        let at_ms = now_ms + latency_ms(own, *other);
                        queue.push(Reverse((at_ms, *other, News::Digest { from: own })));
                    }
                }
                News::Digest { from } => {
                    // Who has it, or asks for it already, asks nobody else.
                    if hop_of[own as usize] == NOBODY {
                        hop_of[own as usize] = hop_of[from as usize] + 1;
                        let at_ms = now_ms + 2 * latency_ms(own, from);
                        queue.push(Reverse((at_ms, own, News::List { from })));
                    }
                }
            }
        }
        cascade.had_ms.sort_unstable();
        cascade.hops.sort_unstable();
        cascade
    }

    fn percent_by(&self, ms: u64, of: usize) -> f64 {
        let reached = self.had_ms.partition_point(|had_ms| *had_ms <= ms);
        reached as f64 * 100.0 / of as f64
    }

    /// When so many in a hundred of all had it; `None` where so many never do.
    fn minutes_until(&self, percent: usize, of: usize) -> Option<f64> {
        let needed = (of * percent).div_ceil(100);
        let had_ms = self.had_ms.get(needed.saturating_sub(1))?;
        Some(*had_ms as f64 / 60_000.0)
    }
}

/// What the author sends by itself, and the keepers among those it sends to: who fills its social slots keeps it.
fn first_told(keepers: &Keepers, nodes: u64, offsets: &[Person], seed: u64) -> Vec<u32> {
    let social = NodeProfile::of(ProfileKind::Desktop).social_slots;
    let author = mix(seed ^ 57, 1) % keepers.people.last().copied().unwrap_or(1);
    let mut told: Vec<u32> = Vec::new();
    for draw in 0..64 * social as u64 {
        let offset = offsets[(mix(seed ^ 58, draw) % offsets.len() as u64) as usize];
        let near = keepers.closest((author + offset) % nodes) as u32;
        if !told.contains(&near) && told.len() < social {
            told.push(near);
        }
    }
    told
}

/// Chance holders alone: everybody tells all neighbours that keep the author, who is kept by so many in a thousand of the region and
/// by nobody elsewhere.
fn without_links(count: u64, per_mille: u64, seed: u64) -> (Cascade, usize) {
    let one_in = 1_000 / per_mille.max(1);
    // Wide peers are elsewhere, where nobody keeps the author.
    let graph = Graph::new(count * one_in, Wide::None, false, seed);
    let keepers = Keepers::scattered(graph.nodes / one_in, one_in, seed);
    let count = keepers.len();
    let mut near = Vec::new();
    let mut links_of = |own: u32, linked: &mut Vec<u32>| {
        graph.neighbours(keepers.people[own as usize], &mut near);
        let at = |person: &Person| keepers.people.binary_search(person).ok();
        linked.extend(near.iter().filter_map(|one| Some(at(one)? as u32)));
    };
    let social = NodeProfile::of(ProfileKind::Desktop).social_slots as u64;
    let first = (0..social).map(|draw| (mix(seed ^ 59, draw) % count as u64) as u32);
    let first: Vec<u32> = first.collect();
    let delay_ms = limits::CHAIN_DELAY_MS;
    let cascade = Cascade::run(count, &first, delay_ms, seed, |_| false, &mut links_of);
    (cascade, count)
}

/// The model.
#[must_use]
pub fn rows(nodes: u64, samples: u32, seed: u64, done: &Done) -> Vec<Row> {
    let graph = Graph::new(nodes, Wide::Random, false, seed);
    let nodes = graph.nodes;
    let count = (nodes / NODES_PER_KEEPER).max(200);
    let keepers = Keepers::scattered(count, (nodes / count).max(1), seed);
    let offsets = three_hops(&graph, samples, seed, done);
    let first = first_told(&keepers, nodes, &offsets, seed);
    let (wanted, max) = (limits::SWARM_LINKS_WANTED, limits::SWARM_LINKS_MAX);
    let links = swarm(&keepers, nodes, &offsets, wanted, max, seed);
    let along = |links: &Links, delay_ms: u64, is_off: &dyn Fn(u32) -> bool| {
        done.step();
        let links_of = |own: u32, linked: &mut Vec<u32>| linked.extend(&links[own as usize]);
        Cascade::run(keepers.len(), &first, delay_ms, seed, is_off, links_of)
    };
    let all = along(&links, limits::CHAIN_DELAY_MS, &|_| false);
    let mut rows = vec![
        Row::new("keepers", "1,000,000", keepers.len() as f64, ""),
        Row::new("sends of the author", "≤ 101", author_sends(), ""),
    ];
    for (name, ms) in [
        ("30 s", 30_000),
        ("1 min", 60_000),
        ("2 min", 120_000),
        ("4 min", 240_000),
        ("8 min", 480_000),
    ] {
        let percent = all.percent_by(ms, keepers.len());
        let stated = if ms == 480_000 { "≥ 99 %" } else { "" };
        rows.push(Row::new(
            format!("reached after {name}"),
            stated,
            percent,
            "%",
        ));
    }
    let minutes = |cascade: &Cascade, of: usize| cascade.minutes_until(99, of).unwrap_or(f64::NAN);
    let until = minutes(&all, keepers.len());
    rows.push(Row::new("until 99 % have it", "5-8", until, "min"));
    let hops = all.hops.last().copied().unwrap_or_default();
    rows.push(Row::new("keepers on the longest way", "", hops.into(), ""));
    let mean = all.digests as f64 / all.had_ms.len().max(1) as f64;
    rows.push(Row::new("digests a keeper sends", "", mean, ""));
    rows.push(Row::new("and at most", "≤ 8", all.digests_max as f64, ""));
    let arrived = all.had_ms.len() as f64 + author_sends() - first.len() as f64;
    let factor = arrived / all.had_ms.len().max(1) as f64;
    rows.push(Row::new(
        "times the post arrives where needed",
        "≤ 1.05",
        factor,
        "",
    ));

    let slow = minutes(&along(&links, REVIEW_HOP_MS, &|_| false), keepers.len());
    let name = "with 2 min a hop, until 99 % have it";
    rows.push(Row::new(name, "5-8", slow, "min"));
    let is_off = |keeper: u32| mix(seed ^ 60, u64::from(keeper)) % 10 < 3;
    let running = (0..keepers.len() as u32)
        .filter(|one| !is_off(*one))
        .count();
    let some = along(&links, limits::CHAIN_DELAY_MS, &is_off);
    let percent = some.percent_by(480_000, running);
    rows.push(Row::new(
        "with 30 % off, of the others in 8 min",
        "",
        percent,
        "%",
    ));
    for few in [2, 3] {
        let links = swarm(&keepers, nodes, &offsets, few, few, seed);
        let few_linked = along(&links, limits::CHAIN_DELAY_MS, &|_| false);
        let percent = few_linked.percent_by(480_000, keepers.len());
        let name = format!("with {few} links at most, in 8 min");
        rows.push(Row::new(name, "", percent, "%"));
    }
    rows.extend(chance_rows(count, seed, done));
    rows
}

/// Every connection of a desktop hears it from the author.
fn author_sends() -> f64 {
    NodeProfile::of(ProfileKind::Desktop).slots() as f64
}

fn chance_rows(count: u64, seed: u64, done: &Done) -> Vec<Row> {
    let mut rows = Vec::new();
    let count = (count / FEWER).max(200);
    for (per_mille, stated) in [
        (5, "dies out"),
        (10, "dies out"),
        (20, ""),
        (50, ""),
        (200, "works"),
    ] {
        done.step();
        let (cascade, of) = without_links(count, per_mille, seed);
        let share = per_mille as f64 / 10.0;
        let name = format!("no links, {share} % keep it, in the end");
        let percent = cascade.percent_by(u64::MAX, of);
        rows.push(Row::new(name, stated, percent, "%"));
        let name = format!("no links, {share} % keep it, after 4 min");
        let percent = cascade.percent_by(240_000, of);
        rows.push(Row::new(name, "", percent, "%"));
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_has_more_links_than_may_be_and_links_are_mutual() {
        let keepers = Keepers::scattered(2_000, 50, 3);
        let offsets: Vec<Person> = (0..500).map(|draw| mix(4, draw) % 100_000).collect();
        let links = swarm(&keepers, 100_000, &offsets, 6, 8, 5);
        for (own, of) in (0u32..).zip(&links) {
            assert!(of.len() <= 8, "{own}: {of:?}");
            assert!(of.iter().all(|other| links[*other as usize].contains(&own)));
        }
        // Where everybody is full, a newcomer may have none.
        let linked = links.iter().filter(|of| of.len() >= 2).count();
        assert!(linked >= 1_900, "{linked} of 2,000 have two and more");
    }

    #[test]
    fn a_chain_tells_one_after_the_other_within_ten_seconds_each() {
        let links_of =
            |own: u32, linked: &mut Vec<u32>| linked.extend((own < 9).then_some(own + 1));
        let cascade = Cascade::run(10, &[0], 10_000, 1, |_| false, links_of);
        assert_eq!(cascade.hops, (1..=10).collect::<Vec<u32>>());
        assert_eq!((cascade.digests, cascade.digests_max), (9, 1));
        let last_ms = *cascade.had_ms.last().expect("ten");
        assert!(
            (2_000..9 * (10_000 + 5 * 80)).contains(&last_ms),
            "{last_ms}"
        );
        let cut = Cascade::run(10, &[0], 10_000, 1, |keeper| keeper == 5, links_of);
        assert_eq!(cut.had_ms.len(), 5);
    }
}
