//! Every scenario file, at a size that a test can afford: all invariants hold, everything expected is there.

use distsoc_simulator::report::{Report, run};
use distsoc_simulator::scenario::Scenario;

const NODES: usize = 16;

/// Times a byte of content arrives over the times it is needed, in a thousand, where its author is kept (FIGURES, files).
const DELIVERY_PER_MILLE_MAX: f64 = 1_050.0;

/// Runs a scenario file with few nodes; panics with the seed and the way to repeat it.
fn holds(name: &str, seed: u64) -> Report {
    holds_with(name, seed, NODES)
}

fn holds_with(name: &str, seed: u64, nodes: usize) -> Report {
    let path = format!("{}/../scenarios/{name}.toml", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).expect("the scenario is there");
    let mut scenario = Scenario::parse(&text).expect("the scenario is sound");
    scenario.resize(nodes);
    // A few followers would all be connected to an author with a desktop.
    scenario.popular.on_phones = true;
    for fault in &mut scenario.faults {
        fault.count = fault.count.map(|count| count.min(2 * nodes));
    }
    let report = run(scenario, seed, |_| {});
    let again = format!("run benchmarks/scenarios/{name}.toml --seed {seed} --nodes {nodes}");
    assert_eq!(
        report.violation, None,
        "seed {seed}; repeat with: cargo run -p distsoc-simulator -- {again}"
    );
    assert!(
        report.posts > 0 && report.connections > 0,
        "something happened"
    );
    report
}

#[test]
fn busy() {
    holds_with("busy", 1, 5);
}

#[test]
fn calm() {
    let report = holds("calm", 11);
    assert_eq!(
        report.delivered[0], report.delivered[1],
        "everything arrives on a good day"
    );
    assert_eq!(report.dials_failed, 0);
    let per_mille = report.delivery_factor_where_kept * 1000.0;
    assert!(
        report.needed_bytes > 0 && (1000.0..=DELIVERY_PER_MILLE_MAX).contains(&per_mille),
        "content came {per_mille} times for a thousand: {} B needed, {:?} B came",
        report.needed_bytes,
        report.arrived_bytes
    );
}

#[test]
fn popular() {
    let report = holds_with("popular", 24, 40);
    assert!(report.delivered[1] > 300, "{:?}", report.delivered);
    // Its connections, and whoever asks it for the post or the picture.
    let sends = report.popular_sends_per_post;
    assert!(sends > 1.0 && sends <= 101.0, "{sends} sends a post");
}

#[test]
fn cascade() {
    let report = holds_with("cascade", 25, 40);
    assert!(report.delivered[1] > 60, "{:?}", report.delivered);
}

#[test]
fn mixed() {
    holds("mixed", 12);
}

#[test]
fn churn() {
    let report = holds("churn", 13);
    assert!(report.crashes > 0);
}

#[test]
fn partition() {
    holds("partition", 14);
}

#[test]
fn mass_restart() {
    let report = holds("mass-restart", 15);
    assert_eq!(report.crashes as usize, NODES);
}

#[test]
fn disk_full() {
    let report = holds("disk-full", 16);
    assert!(report.batches_refused > 0);
}

#[test]
fn eviction_storm() {
    let report = holds("eviction-storm", 23);
    assert!(report.needed_bytes > 50_000_000, "{}", report.needed_bytes);
    assert!(report.pictures[0] < report.pictures[1], "not all has room");
}

#[test]
fn lossy() {
    let report = holds("lossy", 17);
    assert!(
        report
            .traffic
            .iter()
            .any(|row| row.cause == "sent again" && row.count > 0)
    );
}

#[test]
fn nat() {
    holds("nat", 18);
}

#[test]
fn map() {
    let report = holds_with("map", 20, 40);
    assert!(report.maps[0] > 1_000, "{:?}", report.maps);
}

#[test]
fn map_churn() {
    let report = holds_with("map-churn", 21, 40);
    assert!(
        report.crashes > 0 && report.maps[0] > 1_000,
        "{:?}",
        report.maps
    );
}

#[test]
fn map_hourly() {
    let report = holds_with("map-hourly", 22, 30);
    assert!(report.maps[0] > 500, "{:?}", report.maps);
}

#[test]
fn flood_of_joins() {
    let report = holds("flood-of-joins", 19);
    assert_eq!(report.running, 3 * NODES);
}

#[test]
fn what_does_not_make_sense_is_said_in_a_sentence() {
    let wrong = [
        ("name = \"x\"", "nodes"),
        (
            "name = \"x\"\nnodes = 0\nduration_s = 5",
            "nodes must be between 1 and",
        ),
        (
            "name = \"x\"\nnodes = 2\nduration_s = 5\nanchors = 3",
            "3 anchors do not fit into 2 nodes",
        ),
        (
            "name = \"x\"\nnodes = 5\nduration_s = 5\ncolour = 3",
            "unknown field `colour`",
        ),
        (
            "name = \"x\"\nnodes = 5\nduration_s = 5\n[network]\nlatency_ms = [9, 3]",
            "network.latency_ms",
        ),
        (
            "name = \"x\"\nnodes = 5\nduration_s = 5\n[[faults]]\nat_s = 9\nkind = \"crash\"\ncount = 1",
            "fault 1: at_s 9",
        ),
        (
            "name = \"x\"\nnodes = 5\nduration_s = 5\n[[faults]]\nat_s = 1\nkind = \"crash\"",
            "fault 1: name the affected",
        ),
        (
            "name = \"x\"\nnodes = 5\nduration_s = 5\n[[faults]]\nat_s = 1\nkind = \"flood\"",
            "unknown variant `flood`",
        ),
        (
            "name = \"x\"\nnodes = 5\nduration_s = 5\n[[faults]]\nat_s = 1\nkind = \"crash\"\nnodes = [5]",
            "from 0 to 4",
        ),
    ];
    for (text, expected) in wrong {
        let error = Scenario::parse(text).expect_err(text).to_string();
        assert!(error.contains(expected), "{error}");
    }
}
