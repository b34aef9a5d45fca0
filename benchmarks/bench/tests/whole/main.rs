//! PROTOCOL section 7, quota, by a whole node on its real disk: whatever happens, in whatever order, the files keep to the budget,
//! what goes is worth least, own content stays, and what the node says it has is there, no more and no less.
//!
//! A failure prints the seed and the acts it was brought down to. `DISTSOC_SEED=… DISTSOC_CASES=… cargo test -p distsoc-bench --test whole`
//! repeats or goes on.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod acts;
mod checks;
mod cloud;
mod disk;
mod model;
mod play;
mod stage;

use acts::{BUDGETS, acts};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use stage::Stage;

fn number(name: &str, otherwise: u64) -> u64 {
    let set = std::env::var(name).ok();
    set.and_then(|set| set.parse().ok()).unwrap_or(otherwise)
}

/// Plays random acts on fresh nodes; says how many files went for lack of room.
fn play_all(cases: u64, refuses: bool) -> usize {
    let (seed, cases) = (number("DISTSOC_SEED", 1), number("DISTSOC_CASES", cases));
    let mut bytes = [u8::from(refuses); 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config {
        cases: cases as u32,
        failure_persistence: None,
        max_shrink_iters: number("DISTSOC_SHRINKS", 200) as u32,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let evicted = std::cell::Cell::new(0);
    let case = (BUDGETS, any::<u64>(), acts(refuses));
    let played = runner.run(&case, |(budget, seed, acts)| {
        let mut stage = Stage::new(budget, seed);
        for act in acts {
            stage.play(act);
            stage.check();
        }
        stage.check_at_the_end();
        evicted.set(evicted.get() + stage.evicted);
        Ok(())
    });
    if let Err(failure) = played {
        panic!("DISTSOC_SEED={seed}: {failure}");
    }
    evicted.get()
}

#[test]
fn the_budget_holds_and_what_goes_is_worth_least() {
    let evicted = play_all(6, false);
    assert!(evicted > 100, "{evicted}");
}

#[test]
fn a_disk_that_refuses_now_and_then_leaves_nothing_behind() {
    let evicted = play_all(5, true);
    assert!(evicted > 100, "{evicted}");
}
