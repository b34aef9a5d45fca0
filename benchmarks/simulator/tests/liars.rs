//! Real nodes of which some answer searches falsely, and ids ground around a target: whoever is honest is found all the same
//! (PROTOCOL section 6, a lookup against liars).

use distsoc_engine::crypto::{Secret, hash};
use distsoc_engine::domain::NodeId;
use distsoc_engine::io::{Call, FoundBy};
use distsoc_simulator::queue::{Event, HostNumber};
use distsoc_simulator::scenario::Scenario;
use distsoc_simulator::simulation::Simulation;

/// Phones have few peers, so that most of a small town lies beyond hop 1 of everybody.
fn town(percent: u32) -> Simulation {
    let text = format!(
        r#"
name = "liars"
nodes = 100
anchors = 2
duration_s = 100000
start_within_s = 10
persons = {{ follows = 0, posts_per_hour = 0 }}
profiles = {{ desktop = 0, mobile = 100 }}
# Whoever is found is found without the anchors' directory.
directory = false
faults = [{{ at_s = 60, kind = "lie", percent = {percent} }}]
"#
    );
    Simulation::new(Scenario::parse(&text).expect("a sound scenario"), 5)
}

fn pass(simulation: &mut Simulation, ms: u64) {
    let until_us = simulation.now_us + ms * 1_000;
    let is_well = simulation.run_until(until_us);
    assert!(is_well, "{:?}", simulation.violation);
}

fn honest(simulation: &Simulation) -> Vec<HostNumber> {
    let hosts = (0..).zip(&simulation.hosts);
    let honest = hosts.filter(|(_, host)| host.is_on() && !host.lies);
    honest.map(|(number, _)| number).collect()
}

/// Lets honest nodes look for others that are no peers of theirs; how many were found, of how many.
fn searched(simulation: &mut Simulation, pairs: Vec<(HostNumber, HostNumber)>) -> [usize; 2] {
    let mut asked = 0;
    for some in pairs.chunks(4) {
        for (from, target) in some {
            let target = simulation.hosts[*target as usize].node_id();
            simulation.ask(*from, Call::Find(target));
        }
        asked += some.len();
        pass(simulation, 40_000);
    }
    let finds = simulation.hosts.iter().flat_map(|host| &host.finds);
    let is_direct = |found: &Option<distsoc_engine::io::Found>| {
        found
            .as_ref()
            .is_some_and(|found| found.found_by == FoundBy::Direct)
    };
    let answers: Vec<bool> = finds
        .filter(|found| !is_direct(found))
        .map(Option::is_some)
        .collect();
    let all = simulation
        .hosts
        .iter()
        .map(|host| host.finds.len())
        .sum::<usize>();
    assert_eq!(all, asked, "every search has its answer");
    [
        answers.iter().filter(|found| **found).count(),
        answers.len(),
    ]
}

/// The anchors, to whom everybody is connected, lie as well.
fn found_among(percent: u32) -> [usize; 2] {
    let mut simulation = town(percent);
    pass(&mut simulation, 600_000);
    for anchor in &mut simulation.hosts[..2] {
        anchor.lies |= percent > 0;
    }
    let honest = honest(&simulation);
    let others = honest.iter().cycle().skip(7);
    let pairs = honest.iter().copied().zip(others.copied());
    let pairs: Vec<_> = pairs.filter(|(a, b)| a != b && *a > 1 && *b > 1).collect();
    searched(&mut simulation, pairs)
}

#[test]
fn among_one_in_five_liars_everybody_honest_is_found() {
    let [found, all] = found_among(20);
    assert!(all > 50 && found * 100 >= all * 99, "{found} of {all}");
}

#[test]
fn among_as_many_liars_nine_in_ten_are_found() {
    let [found, all] = found_among(50);
    assert!(all > 30 && found * 100 >= all * 90, "{found} of {all}");
}

/// A key whose id agrees with the target in ten bits: closer than anybody of a hundred.
fn ground(target: &NodeId, first: u64) -> ([u8; 32], u64) {
    let seeds = (first..).map(|number| hash(&number.to_be_bytes()));
    let mut numbered = (first..).zip(seeds);
    let id = |seed: &[u8; 32]| Secret::from_seed(seed).node_id();
    let is_close = |seed: &[u8; 32]| target.distance(&id(seed)).common_bits() >= 10;
    let (number, seed) = numbered
        .find(|(_, seed)| is_close(seed))
        .expect("they are endless");
    (seed, number + 1)
}

#[test]
fn a_node_with_sixty_four_ids_ground_around_it_is_found() {
    const TARGET: HostNumber = 40;
    let mut simulation = town(0);
    pass(&mut simulation, 300_000);
    let target = simulation.hosts[TARGET as usize].node_id();
    let mut next = 0;
    for _ in 0..64 {
        let (seed, after) = ground(&target, next);
        next = after;
        let number = simulation.add_host_of(seed);
        simulation.hosts[number as usize].lies = true;
        simulation
            .queue
            .at(simulation.now_us + 1, Event::Boot(number));
    }
    pass(&mut simulation, 900_000);
    let pairs = honest(&simulation)
        .into_iter()
        .filter(|from| *from != TARGET && *from > 1);
    let pairs: Vec<_> = pairs.map(|from| (from, TARGET)).collect();
    let [found, all] = searched(&mut simulation, pairs);
    assert!(all > 60 && found * 100 >= all * 95, "{found} of {all}");
}
