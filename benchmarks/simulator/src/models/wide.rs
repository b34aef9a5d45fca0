//! The choice of diverse peers (PROTOCOL sections 6 and 15): from peers of the neighbourhood, by the scores and thresholds that nodes go by,
//! to a third hop as large as with peers drawn from everybody.

use super::graph::{Graph, Person, Wide, mix};
use super::reach::hops;
use super::{Done, Row};
use distsoc_engine::domain::{is_sampled, is_worth_a_swap, score_of};
use std::collections::{BTreeMap, BTreeSet};

const DIVERSE: usize = 8;
const EVALUATIONS: u64 = 100;
const BITS: u8 = 4;

/// A node's social peers, and those in its diverse slots with their second hops.
struct Chooser<'a> {
    graph: &'a Graph,
    social: Vec<Vec<Person>>,
    diverse: Vec<Vec<Person>>,
}

/// What a peer reports at its hop 2.
fn reported(graph: &Graph, person: Person) -> Vec<Person> {
    let [_, second, _] = hops(graph, person, |_| true);
    second
}

impl Chooser<'_> {
    /// How many ids all of them report together.
    fn reach(&self) -> usize {
        let all: BTreeSet<Person> = self
            .social
            .iter()
            .chain(&self.diverse)
            .flatten()
            .copied()
            .collect();
        all.len()
    }

    /// How many report each id of a sample.
    fn counts(&self, salt: u64) -> BTreeMap<Person, u32> {
        let mut counts = BTreeMap::new();
        let all = self.social.iter().chain(&self.diverse).flatten();
        for person in all.filter(|person| is_sampled(mix(salt, **person), BITS)) {
            *counts.entry(*person).or_default() += 1;
        }
        counts
    }

    /// One evaluation: the least diverse against this candidate, over the sample of a salt.
    fn evaluate(&mut self, candidate: Person, salt: u64) -> bool {
        let counts = self.counts(salt);
        let in_sample = |person: &&Person| is_sampled(mix(salt, **person), BITS);
        let sole = |set: &Vec<Person>| {
            set.iter()
                .filter(in_sample)
                .filter(|person| counts[*person] == 1)
                .count() as u64
        };
        let scores: Vec<u64> = self.diverse.iter().map(sole).collect();
        let weakest = (0..scores.len())
            .min_by_key(|at| scores[*at])
            .expect("eight");
        let going: &Vec<Person> = &self.diverse[weakest];
        let new_set = reported(self.graph, candidate);
        let is_new = |person: &&Person| match counts.get(*person) {
            None => true,
            Some(count) => *count == 1 && going.binary_search(person).is_ok(),
        };
        let new = new_set.iter().filter(in_sample).filter(is_new).count() as u64;
        let worth = is_worth_a_swap(score_of(new, scores.clone()), scores[weakest]);
        if worth {
            self.diverse[weakest] = new_set;
        }
        worth
    }
}

/// The model.
#[must_use]
pub fn rows(nodes: u64, samples: u32, seed: u64, done: &Done) -> Vec<Row> {
    let graph = Graph::new(nodes, Wide::Random, false, seed);
    let samples = u64::from(samples.div_ceil(50)).max(2);
    let (mut before, mut after, mut ideal, mut swaps) = (0.0, 0.0, 0.0, 0.0);
    for sample in 0..samples {
        done.step();
        let from = mix(seed ^ 41, sample) % graph.nodes;
        let [first, second, _] = hops(&graph, from, |_| true);
        let is_social = |person: &&Person| person.abs_diff(from) < 100 * 200;
        let social = first
            .iter()
            .filter(is_social)
            .map(|one| reported(&graph, *one));
        // Whoever one meets first: peers of peers nearby.
        let near = second.iter().filter(is_social).take(DIVERSE);
        let far = (0..DIVERSE as u64).map(|draw| mix(seed ^ 42 ^ sample, draw) % graph.nodes);
        let mut chooser = Chooser {
            graph: &graph,
            social: social.collect(),
            diverse: far.map(|one| reported(&graph, one)).collect(),
        };
        ideal += chooser.reach() as f64 / samples as f64;
        chooser.diverse = near.map(|one| reported(&graph, *one)).collect();
        before += chooser.reach() as f64 / samples as f64;
        for evaluation in 0..EVALUATIONS {
            let draw = mix(seed ^ 43 ^ sample, evaluation);
            if chooser.evaluate(draw % graph.nodes, mix(draw, 44)) {
                swaps += 1.0 / samples as f64;
            }
        }
        after += chooser.reach() as f64 / samples as f64;
    }
    vec![
        Row::new("hop 3 with peers of the neighbourhood", "", before, ""),
        Row::new("hop 3 after the evaluations", "", after, ""),
        Row::new(
            "of that with peers drawn from everybody",
            "≥ 99 %",
            after * 100.0 / ideal,
            "%",
        ),
        Row::new("swaps in 100 evaluations", "few", swaps, ""),
    ]
}
