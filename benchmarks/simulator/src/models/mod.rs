//! Networks too large for real nodes, as graphs that go by the same pure functions (PROTOCOL section 15): `model NAME`.

pub mod cascade;
pub mod graph;
pub mod lookup;
pub mod reach;
pub mod traffic;
mod visits;
pub mod wide;

use serde::Serialize;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// Of what.
    pub name: String,
    /// What PROTOCOL section 15 or FIGURES say.
    pub stated: String,
    /// What the model gives.
    pub measured: f64,
    /// Its unit.
    pub unit: &'static str,
}

impl Row {
    fn new(name: impl Into<String>, stated: &str, measured: f64, unit: &'static str) -> Self {
        Self {
            name: name.into(),
            stated: stated.to_owned(),
            measured,
            unit,
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            stated,
            measured,
            unit,
        } = self;
        write!(f, "{name:<48} {measured:>14.1} {unit:<3} stated {stated}")
    }
}

/// How many samples a model has taken, for those who wait.
#[derive(Debug, Default)]
pub struct Done(AtomicU32);

impl Done {
    fn step(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// So many.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.0.load(Relaxed)
    }
}

type Model = fn(u64, u32, u64, &Done) -> Vec<Row>;

const MODELS: [(&str, Model); 5] = [
    ("reach", reach::rows),
    ("lookup", lookup::rows),
    ("traffic", traffic::rows),
    ("wide", wide::rows),
    ("cascade", cascade::rows),
];

/// The names of the models.
#[must_use]
pub fn names() -> Vec<&'static str> {
    MODELS.iter().map(|(name, _)| *name).collect()
}

/// Runs a model over so many nodes, with so many samples; `None` where there is none of this name.
#[must_use]
pub fn run(name: &str, nodes: u64, samples: u32, seed: u64, done: &Done) -> Option<Vec<Row>> {
    let (_, model) = MODELS.iter().find(|(of, _)| *of == name)?;
    Some(model(nodes, samples, seed, done))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(rows: &[Row], name: &str) -> f64 {
        let row = rows.iter().find(|row| row.name.contains(name));
        row.expect("the model has this figure").measured
    }

    #[test]
    fn searches_in_a_large_network_find_whoever_is_there() {
        let graph = graph::Graph::new(100_000_000, graph::Wide::Guided, false, 1);
        let found = lookup::search(
            &graph,
            lookup::Trouble::default(),
            4,
            5,
            1,
            &Done::default(),
        );
        assert_eq!((found.searches, found.found), (4, 4));
        assert!(found.jumps <= 20 && found.requests <= 4 * 303, "{found:?}");
    }

    #[test]
    fn three_hops_hold_what_is_stated() {
        let rows = run("reach", 2_000_000_000, 40, 2, &Done::default()).expect("a model");
        let near = |name: &str, stated: f64| (measured(&rows, name) / stated - 1.0).abs() < 0.15;
        assert!(
            near("hop 1", 101.0) && near("hop 2", 6_980.0) && near("hop 3", 455_000.0),
            "{rows:?}"
        );
        assert!(measured(&rows, "without wide") < measured(&rows, "hop 3") / 2.0);
        assert_eq!(run("no such", 1, 1, 1, &Done::default()), None);
    }

    #[test]
    fn wide_peers_chosen_by_samples_reach_as_far_as_random_ones() {
        let rows = run("wide", 2_000_000, 1, 1, &Done::default()).expect("a model");
        assert!(measured(&rows, "drawn from everybody") > 98.0, "{rows:?}");
    }

    #[test]
    fn news_reach_everybody_by_swarm_links_and_die_out_without() {
        let rows = run("cascade", 20_000_000, 2, 1, &Done::default()).expect("a model");
        assert_eq!(measured(&rows, "keepers"), 10_000.0);
        assert!(measured(&rows, "reached after 8 min") >= 99.0, "{rows:?}");
        assert!(measured(&rows, "sends of the author") <= 101.0);
        assert!(measured(&rows, "times the post arrives") <= 1.05);
        assert!(
            measured(&rows, "1 % keep it, in the end") < 50.0,
            "{rows:?}"
        );
        assert!(
            measured(&rows, "20 % keep it, in the end") > 99.0,
            "{rows:?}"
        );
    }

    #[test]
    fn more_churn_costs_more() {
        let done = Done::default();
        let rows = run("traffic", 2_000_000, 3, 1, &done).expect("a model");
        assert!(done.count() >= 3);
        assert!(measured(&rows, "5 % an hour: a diff") > measured(&rows, "1 % an hour: a diff"));
    }
}
