//! A power cut at any instant loses nothing that a person was told is safe (PROTOCOL section 12).

use distsoc_simulator::scenario::Scenario;
use distsoc_simulator::simulation::Simulation;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

const BUSY: &str = r#"
name = "busy"
nodes = 4
anchors = 1
duration_s = 120
start_within_s = 1
persons = { follows = 2, posts_per_hour = 3600, posts_from_s = 5, quiet_s = 10 }
disk = { commit_ms = [1, 400] }
expect = { calls_may_fail = true }
"#;

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, rng_seed: RngSeed::Fixed(20_270_115), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_acknowledged_is_lost(seed: u64, cuts in prop::collection::vec((0u32..4, 1u64..4_000_000), 1..12)) {
        let mut simulation = Simulation::new(Scenario::parse(BUSY).expect("a sound scenario"), seed);
        simulation.run_until(20_000_000);
        for (host, after_us) in cuts {
            simulation.run_until(simulation.now_us + after_us);
            simulation.crash(host);
            // The start checks that whatever was acknowledged is on the disk.
            simulation.boot(host);
        }
        simulation.run_until(simulation.now_us + 60_000_000);
        for host in 0..4 {
            simulation.check_survivors(host);
        }
        simulation.check_calm();
        prop_assert_eq!(&simulation.violation, &None, "seed {}", seed);
        let kept: Vec<usize> = simulation.hosts.iter().map(|host| host.acknowledged.len()).collect();
        prop_assert!(kept.iter().sum::<usize>() > 0, "people posted: {:?}", kept);
    }
}
