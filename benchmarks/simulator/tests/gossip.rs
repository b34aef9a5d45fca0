//! Peers that lie about their maps: it costs them their slot, and nobody else memory (PROTOCOL sections 6 and 13).

use distsoc_engine::crypto::{Secret, hash};
use distsoc_engine::domain::NodeId;
use distsoc_engine::io::{Call, LinkId};
use distsoc_engine::node::Node;
use distsoc_engine::refusal::{Refusal, RefusalCounts};
use distsoc_engine::wire::{
    CELLS, Expected, InitialMapSync, MapCell, MapCells, MapChanges, MapItem, MapReconcile, Named,
    Number, Packet, RoutingDiff, admit,
};
use distsoc_engine::world::map::{DiscoveryMap, HopCounts, SetHash, entries_of};
use distsoc_engine::world::peers::Peers;
use distsoc_simulator::cargo::Cargo;
use distsoc_simulator::host::Heard;
use distsoc_simulator::queue::HostNumber;
use distsoc_simulator::scenario::Scenario;
use distsoc_simulator::simulation::Simulation;

const VICTIM: HostNumber = 1;

const TOWN: &str = r#"
name = "town"
nodes = 4
anchors = 1
duration_s = 100000
start_within_s = 1
persons = { follows = 0, posts_per_hour = 0 }
"#;

fn liar() -> Secret {
    Secret::from_seed(&[201; 32])
}

fn invented(number: u64) -> NodeId {
    NodeId::from_bytes(hash(&number.to_be_bytes()))
}

struct Lie {
    simulation: Simulation,
    puppet: HostNumber,
    link: LinkId,
    asked: u32,
}

impl Lie {
    fn begin() -> Self {
        let mut simulation = Simulation::new(Scenario::parse(TOWN).expect("a sound scenario"), 7);
        simulation.run_until(400_000_000);
        let puppet = simulation.add_puppet(&liar());
        let link = simulation
            .puppet_joins(puppet, VICTIM)
            .expect("a free slot");
        Self {
            simulation,
            puppet,
            link,
            asked: 0,
        }
    }

    fn pass(&mut self, ms: u64) {
        let until_us = self.simulation.now_us + ms * 1000;
        assert!(
            self.simulation.run_until(until_us),
            "{:?}",
            self.simulation.violation
        );
    }

    fn victim(&self) -> &Node {
        self.simulation.hosts[VICTIM as usize]
            .node()
            .expect("the victim runs")
    }

    fn counts(&self) -> HopCounts {
        self.victim().world().resource::<DiscoveryMap>().counts()
    }

    fn is_connected(&self) -> bool {
        self.victim()
            .world()
            .resource::<Peers>()
            .by_node(&liar().node_id())
            .is_some()
    }

    fn refused(&self, refusal: Refusal) -> u64 {
        self.victim()
            .world()
            .resource::<RefusalCounts>()
            .total(refusal)
    }

    /// Answers whatever the victim asks about the map with what the closure says, for so long.
    fn answer(&mut self, ms: u64, mut answer: impl FnMut(&MapReconcile) -> InitialMapSync) {
        for _ in 0..ms / 100 {
            self.pass(100);
            for heard in self.simulation.heard_by(self.puppet) {
                let Heard::Stream(link, cargo) = heard else {
                    continue;
                };
                let Cargo::Request(bytes, _) = &cargo else {
                    continue;
                };
                let Ok(packet) = admit(bytes, Expected::Request) else {
                    continue;
                };
                if let Packet::MapReconcile(request) = packet.into_inner() {
                    self.asked += 1;
                    let bytes = Packet::from(answer(&request)).encode();
                    self.simulation
                        .puppet_answers(self.puppet, link, &cargo, &bytes);
                }
            }
        }
    }

    fn diff(&mut self, seq: u64, changes: MapChanges) {
        let diff = RoutingDiff {
            seq,
            digest: 1,
            changes,
        };
        let bytes = Packet::from(diff).encode();
        self.simulation
            .puppet_notifies(self.puppet, self.link, &bytes);
    }
}

fn nothing(seq: u64) -> InitialMapSync {
    InitialMapSync {
        seq,
        digest: 0,
        next_cell: CELLS as u16,
        cells: MapCells::default(),
    }
}

fn item(number: usize, id: u64) -> MapItem {
    MapItem {
        named: Named::New(Number::new(number).expect("a small one"), invented(id)),
        is_anchor: false,
    }
}

fn bare(node: NodeId) -> MapItem {
    MapItem {
        named: Named::Bare(node),
        is_anchor: false,
    }
}

#[test]
fn who_reports_more_than_a_node_can_know_loses_its_slot() {
    let mut lie = Lie::begin();
    let before = lie.counts();
    let mut most = 0;
    // Forty thousand ids, each in its cell.
    let mut by_cell = vec![Vec::new(); CELLS];
    let mut salt = None;
    for _ in 0..60 {
        lie.answer(2_000, |request| {
            if salt.replace(request.salt) != Some(request.salt) {
                let hash = SetHash::new(request.salt);
                by_cell = vec![Vec::new(); CELLS];
                (0..40_000)
                    .map(invented)
                    .for_each(|node| by_cell[hash.cell(&node)].push(node));
            }
            let first = usize::from(request.first_cell);
            let next = (first + 8).min(CELLS);
            let cell = |number: usize| MapCell {
                number: number as u16,
                hop_1: Vec::new(),
                hop_2: by_cell[number].iter().map(|node| bare(*node)).collect(),
            };
            InitialMapSync {
                seq: 1,
                digest: 2,
                next_cell: next as u16,
                cells: MapCells::new((first..next).map(cell).collect()).expect("in order"),
            }
        });
        most = most.max(lie.counts().total());
        if !lie.is_connected() {
            break;
        }
    }
    assert!(!lie.is_connected(), "it lost its slot");
    assert!(lie.refused(Refusal::OutOfRange) > 0);
    assert!(most > 20_000 && most <= 25_000 + before.total(), "{most}");
    lie.pass(240_000);
    let without = HopCounts {
        hop_1: before.hop_1 - 1,
        ..before
    };
    assert_eq!(lie.counts(), without, "what only it reported is gone");
    lie.simulation.check_calm();
    assert_eq!(lie.simulation.violation, None);
}

#[test]
fn ids_in_cells_where_they_do_not_belong_are_refused() {
    let mut lie = Lie::begin();
    let before = lie.counts();
    lie.answer(60_000, |_| InitialMapSync {
        seq: 1,
        digest: 2,
        next_cell: CELLS as u16,
        cells: MapCells::new(vec![MapCell {
            number: 0,
            hop_1: Vec::new(),
            hop_2: (0..1_000).map(|id| bare(invented(id))).collect(),
        }])
        .expect("one"),
    });
    assert!(lie.refused(Refusal::OutOfRange) > 0 && !lie.is_connected());
    assert!(lie.counts().total() < before.total() + 20);
}

#[test]
fn reporting_and_withdrawing_costs_no_memory() {
    let mut lie = Lie::begin();
    lie.answer(60_000, |_| nothing(0));
    let ids = 1_500;
    for round in 0..20u64 {
        let at = |id: usize| round * ids as u64 + id as u64;
        let mut changes = MapChanges {
            hop_2_added: (0..ids).map(|id| item(id, at(id))).collect(),
            ..MapChanges::default()
        };
        lie.diff(2 * round + 1, changes.clone());
        lie.answer(130_000, |_| nothing(2 * round + 1));
        changes.hop_2_removed = std::mem::take(&mut changes.hop_2_added);
        lie.diff(2 * round + 2, changes);
        lie.answer(130_000, |_| nothing(2 * round + 2));
    }
    let rows = entries_of(lie.victim().world()).len();
    assert!(rows < 5_000, "{rows} rows after {} ids", 20 * ids);
}

#[test]
fn diffs_that_make_no_sense_are_asked_about_ever_more_rarely() {
    let mut lie = Lie::begin();
    lie.answer(60_000, |_| nothing(0));
    let before = lie.asked;
    for round in 0..30 {
        let unknown = MapItem {
            named: Named::Known(Number::new(77).expect("a small one")),
            is_anchor: false,
        };
        let changes = MapChanges {
            hop_1_added: vec![unknown],
            ..MapChanges::default()
        };
        lie.diff(1_000 * round, changes);
        lie.answer(120_000, |_| nothing(1_000 * round));
    }
    let asked = lie.asked - before;
    assert!((1..=70).contains(&asked), "asked {asked} times in an hour");
}

#[test]
fn diffs_too_often_are_dropped_and_who_goes_on_is_sent_away() {
    let mut lie = Lie::begin();
    lie.answer(60_000, |_| nothing(0));
    for seq in 0..400 {
        lie.diff(seq, MapChanges::default());
        lie.pass(50);
    }
    assert!(
        lie.refused(Refusal::RateExceeded) > 0,
        "dropped and counted"
    );
    assert!(!lie.is_connected());
}

const PHONES: &str = r#"
name = "phones"
nodes = 60
anchors = 2
duration_s = 100000
start_within_s = 10
persons = { follows = 0, posts_per_hour = 0 }
profiles = { desktop = 5, mobile = 95 }
"#;

/// Seconds until nobody who runs has this node on the map.
fn forgotten_after_s(simulation: &mut Simulation, gone: HostNumber) -> u64 {
    let id = simulation.hosts[gone as usize].node_id();
    let since_us = simulation.now_us;
    loop {
        let knows = |number: HostNumber| {
            let node = simulation.hosts[number as usize].node();
            node.is_some_and(|node| {
                let (map, entries) = (
                    node.world().resource::<DiscoveryMap>(),
                    entries_of(node.world()),
                );
                map.find(&id, entries).is_some()
            })
        };
        let after_s = (simulation.now_us - since_us) / 1_000_000;
        if !(0..simulation.hosts.len() as HostNumber).any(knows) {
            return after_s;
        }
        assert!(after_s < 1_000, "node {gone} stands on a map still");
        assert!(
            simulation.run_until(simulation.now_us + 1_000_000),
            "{:?}",
            simulation.violation
        );
    }
}

#[test]
fn every_map_forgets_a_node_that_was_killed_within_six_minutes() {
    let mut simulation = Simulation::new(Scenario::parse(PHONES).expect("a sound scenario"), 3);
    assert!(
        simulation.run_until(900_000_000),
        "{:?}",
        simulation.violation
    );
    let truth = simulation.map_truth();
    assert!(truth.settled > 3_000, "{truth:?}");
    for gone in [7, 20, 33, 41, 58] {
        simulation.power_off(gone);
        let after_s = forgotten_after_s(&mut simulation, gone);
        assert!(
            after_s <= 360,
            "node {gone} is on a map still after {after_s} s"
        );
        simulation.run_until(simulation.now_us + 200_000_000);
    }
}

#[test]
fn whoever_is_within_three_hops_is_found_and_the_step_is_told() {
    let mut simulation = Simulation::new(Scenario::parse(PHONES).expect("a sound scenario"), 4);
    assert!(
        simulation.run_until(900_000_000),
        "{:?}",
        simulation.violation
    );
    let nodes = simulation.hosts.len() as HostNumber;
    for asker in 0..nodes {
        for target in [(asker + 7) % nodes, (asker + 23) % nodes] {
            let target = simulation.hosts[target as usize].node_id();
            simulation.ask(asker, Call::Find(target));
        }
        let nobody = Secret::from_seed(&hash(&asker.to_be_bytes())).node_id();
        simulation.ask(asker, Call::Find(nobody));
        assert!(
            simulation.run_until(simulation.now_us + 6_000_000),
            "{:?}",
            simulation.violation
        );
    }
    let mut by_step = std::collections::BTreeMap::new();
    for host in &simulation.hosts {
        assert_eq!(host.finds.len(), 3, "every search has its answer");
        for found in &host.finds {
            *by_step
                .entry(found.as_ref().map(|found| found.found_by.name()))
                .or_insert(0) += 1;
        }
        for found in host.finds.iter().flatten() {
            let target = simulation
                .hosts
                .iter()
                .find(|host| host.node_id() == found.node_id);
            assert!(target.is_some(), "nobody else is found");
            assert!(found.ms <= 4_500, "{found:?}");
        }
    }
    // One in three was invented; of the others, those behind a connection that nobody dialled cannot be handed on.
    assert!(by_step[&None] <= 75, "{by_step:?}");
    assert!(
        by_step[&Some("direct")] > 10 && by_step[&Some("reporter")] > 10,
        "{by_step:?}"
    );
}
