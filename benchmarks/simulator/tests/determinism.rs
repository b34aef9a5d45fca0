//! The same seed and scenario give the same run, bit for bit (PROTOCOL section 13).

use distsoc_simulator::report::{Report, run};
use distsoc_simulator::scenario::Scenario;

/// Something of everything: losses, NAT, crashes, joins, a partition, crooked clocks.
const EVERYTHING: &str = r#"
name = "everything"
nodes = 12
anchors = 2
duration_s = 300
profiles = { desktop = 60, mobile = 40 }
network = { latency_ms = [5, 120], jitter_ms = 40, loss_per_million = 20000, uplink_kbit_s = 4000, nat_percent = 30 }
clock = { skew_ms = 5000 }
persons = { posts_per_hour = 120, posts_from_s = 20, quiet_s = 60 }
expect = { calls_may_fail = true }
faults = [
    { at_s = 60, kind = "crash", percent = 30, within_s = 60, for_s = 20 },
    { at_s = 70, kind = "join", count = 4, within_s = 20 },
    { at_s = 80, kind = "partition", percent = 40, for_s = 70 },
    { at_s = 90, kind = "address-change", percent = 20 },
    { at_s = 100, kind = "disk-full", percent = 20, for_s = 30 },
    { at_s = 120, kind = "clock-jump", percent = 20, by = -20000 },
    { at_s = 130, kind = "leave", percent = 20, for_s = 10 },
]
"#;

fn once(seed: u64) -> Report {
    let report = run(
        Scenario::parse(EVERYTHING).expect("a sound scenario"),
        seed,
        |_| {},
    );
    assert_eq!(report.violation, None, "seed {seed}");
    report
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let (first, second) = (once(7), once(7));
    assert_eq!(first.hash, second.hash);
    let text = |report: &Report| serde_json::to_string(report).expect("a report is JSON");
    assert_eq!(text(&first), text(&second));
}

#[test]
fn another_seed_gives_another_run() {
    assert_ne!(once(7).hash, once(8).hash);
}
