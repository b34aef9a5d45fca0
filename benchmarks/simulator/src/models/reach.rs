//! How many nodes lie within three hops (PROTOCOL section 15).

use super::graph::{Graph, Person, Wide, mix};
use super::{Done, Row};

/// The ids at hops 1, 2 and 3 of a node.
#[must_use]
pub fn hops(graph: &Graph, from: Person, is_up: impl Fn(Person) -> bool) -> [Vec<Person>; 3] {
    let mut found = Vec::new();
    graph.neighbours(from, &mut found);
    found.retain(|person| is_up(*person));
    let first = found.clone();
    let next = |ring: &[Person], inner: &[&[Person]]| -> Vec<Person> {
        let (mut all, mut found) = (Vec::new(), Vec::new());
        for person in ring {
            graph.neighbours(*person, &mut found);
            all.extend(found.iter().filter(|other| is_up(**other)));
        }
        all.sort_unstable();
        all.dedup();
        all.retain(|person| {
            *person != from && inner.iter().all(|ring| ring.binary_search(person).is_err())
        });
        all
    };
    let second = next(&first, &[&first]);
    let third = next(&second, &[&first, &second]);
    [first, second, third]
}

fn mean(graph: &Graph, samples: u64, seed: u64, done: &Done) -> [f64; 3] {
    let mut sums = [0.0; 3];
    for sample in 0..samples {
        done.step();
        let from = mix(seed, sample) % graph.nodes;
        for (sum, ring) in sums.iter_mut().zip(hops(graph, from, |_| true)) {
            *sum += ring.len() as f64 / samples as f64;
        }
    }
    sums
}

/// The model: with and without wide peers, near and log-uniform.
#[must_use]
pub fn rows(nodes: u64, samples: u32, seed: u64, done: &Done) -> Vec<Row> {
    let samples = u64::from(samples.div_ceil(10)).max(4);
    let mut rows = Vec::new();
    let random = Graph::new(nodes, Wide::Random, false, seed);
    let [first, second, third] = mean(&random, samples, seed, done);
    rows.push(Row::new("hop 1", "101", first, ""));
    rows.push(Row::new("hop 2", "6,980", second, ""));
    rows.push(Row::new(
        "hop 3",
        "365 K at 1M, 446 K at 10M, 455 K at 2B",
        third,
        "",
    ));
    let logarithmic = Graph::new(nodes, Wide::Random, true, seed);
    let [_, _, third] = mean(&logarithmic, samples, seed, done);
    rows.push(Row::new("hop 3, log-uniform locality", "614 K", third, ""));
    let none = Graph::new(nodes, Wide::None, false, seed);
    let [_, _, third] = mean(&none, samples, seed, done);
    rows.push(Row::new("hop 3 without wide peers", "123-177 K", third, ""));
    let guided = Graph::new(nodes, Wide::Guided, false, seed);
    let [_, second, third] = mean(&guided, samples, seed, done);
    rows.push(Row::new("hop 2 with ring and fingers", "", second, ""));
    rows.push(Row::new("hop 3 with ring and fingers", "", third, ""));
    rows
}
