//! What changes on a map in two minutes, and what telling it costs (PROTOCOL section 15): nodes are away for an hour at a time, as many of
//! them an hour as the churn says, and come back.

use super::graph::{Graph, Person, Wide, mix};
use super::reach::hops;
use super::{Done, Row};
use distsoc_engine::domain::NodeId;
use distsoc_engine::wire::{
    CELLS, InitialMapSync, MapCell, MapCells, MapChanges, MapItem, MapReconcile, Named, Number,
    Packet, RoutingDiff,
};
use distsoc_engine::world::map::{ReportedHop, SetHash};

const CYCLES_A_DAY: f64 = 720.0;
const CYCLES_AWAY: u64 = 30;
const PEERS: f64 = 101.0;
/// UDP and IP, QUIC header and tag, stream frame; and half an acknowledgement.
const OVERHEAD: f64 = (28 + 31 + 5 + (28 + 31 + 6) / 2) as f64;

/// Whether a node is up in this cycle, if `percent` of all leave each hour.
fn is_up(person: Person, cycle: u64, percent: u64) -> bool {
    let period = CYCLES_AWAY * 100 / percent;
    (mix(person, 31) + cycle) % period >= CYCLES_AWAY
}

fn differences(old: &[Person], new: &[Person]) -> (Vec<Person>, Vec<Person>) {
    let lacks = |all: &[Person], one: &Person| all.binary_search(one).is_err();
    let added = new.iter().filter(|one| lacks(old, one)).copied();
    let removed = old.iter().filter(|one| lacks(new, one)).copied();
    (added.collect(), removed.collect())
}

fn items(of: &[Person]) -> Vec<MapItem> {
    let item = |person: &Person| MapItem {
        // Who leaves mostly comes back: the peer knows its number.
        named: match Number::new((*person % 16_384) as usize) {
            Some(number) => Named::Known(number),
            None => Named::Bare(NodeId::from_bytes([0; 32])),
        },
        is_anchor: false,
    };
    of.iter().map(item).collect()
}

/// What a node reports in this cycle.
fn reported(graph: &Graph, node: Person, cycle: u64, percent: u64) -> Vec<(ReportedHop, Person)> {
    let [first, second, _] = hops(graph, node, |person| is_up(person, cycle, percent));
    let first = first.into_iter().map(|person| (ReportedHop::One, person));
    let second = second.into_iter().map(|person| (ReportedHop::Two, person));
    first.chain(second).collect()
}

/// Bytes of question and answers when a peer is back after an hour: the cells in which something has changed, every id in full.
fn sync_bytes(
    before: &[(ReportedHop, Person)],
    after: &[(ReportedHop, Person)],
    graph: &Graph,
) -> f64 {
    let hash = SetHash::new(9);
    let mut sums = Box::new([[0u64; CELLS]; 2]);
    let mut cells: Vec<Vec<(ReportedHop, NodeId)>> = vec![Vec::new(); CELLS];
    for (side, all) in [before, after].into_iter().enumerate() {
        for (hop, person) in all {
            let node = graph.id(*person);
            let cell = hash.cell(&node);
            sums[side][cell] = sums[side][cell].wrapping_add(hash.of(*hop, &node));
            if side == 1 {
                cells[cell].push((*hop, node));
            }
        }
    }
    let question = MapReconcile {
        salt: mix(1, 2),
        with_hop_2: true,
        afresh: false,
        first_cell: 0,
        sums: MapReconcile::sums_of(&sums[0], 0, true),
    };
    let differ = (0..CELLS).filter(|cell| !question.agrees(*cell, sums[1][*cell]));
    let told = differ.map(|cell| {
        let of = |wanted: ReportedHop| -> Vec<MapItem> {
            let of_hop = cells[cell].iter().filter(|(hop, _)| *hop == wanted);
            let item = |(at, (_, node)): (usize, &(ReportedHop, NodeId))| MapItem {
                named: Number::new(at)
                    .map_or(Named::Bare(*node), |number| Named::New(number, *node)),
                is_anchor: false,
            };
            of_hop.enumerate().map(item).collect()
        };
        MapCell {
            number: cell as u16,
            hop_1: of(ReportedHop::One),
            hop_2: of(ReportedHop::Two),
        }
    });
    let answer = InitialMapSync {
        seq: 1_000,
        digest: mix(1, 1),
        next_cell: CELLS as u16,
        cells: MapCells::new(told.collect()).expect("in order"),
    };
    let bytes = Packet::from(question).encode().len() + Packet::from(answer).encode().len();
    let datagrams = bytes.div_ceil(1_200) as f64;
    bytes as f64 + datagrams * OVERHEAD
}

/// The model at 1 % and 5 % an hour.
#[must_use]
pub fn rows(nodes: u64, samples: u32, seed: u64, done: &Done) -> Vec<Row> {
    let graph = Graph::new(nodes, Wide::Random, false, seed);
    let samples = u64::from(samples);
    let mut rows = Vec::new();
    for (percent, stated) in [
        (1, ["9", "613", "64", "26 + keep-alive", "≤ 5 (12)"]),
        (5, ["45", "3,030", "270", "56 + keep-alive", "≤ 25 (61)"]),
    ] {
        let (mut hop_2, mut all, mut bytes) = (0.0, 0.0, 0.0);
        for sample in 0..samples {
            done.step();
            let from = mix(seed ^ 32, sample) % graph.nodes;
            let at = |cycle: u64| hops(&graph, from, |person| is_up(person, cycle, percent));
            let (before, after) = (at(1_000), at(1_001));
            let changes: Vec<(Vec<Person>, Vec<Person>)> = before
                .iter()
                .zip(&after)
                .map(|(old, new)| differences(old, new))
                .collect();
            let count = |hop: usize| (changes[hop].0.len() + changes[hop].1.len()) as f64;
            hop_2 += count(1) / samples as f64;
            all += (0..3).map(count).sum::<f64>() / samples as f64;
            let diff = RoutingDiff {
                seq: 1_000,
                digest: mix(1, 1),
                changes: MapChanges {
                    hop_1_added: items(&changes[0].0),
                    hop_1_removed: items(&changes[0].1),
                    hop_2_added: items(&changes[1].0),
                    hop_2_removed: items(&changes[1].1),
                    ..MapChanges::default()
                },
            };
            bytes += Packet::from(diff).encode().len() as f64 / samples as f64;
        }
        let mut sync = 0.0;
        for sample in 0..samples {
            done.step();
            let peer = mix(seed ^ 33, sample) % graph.nodes;
            let at = |cycle| reported(&graph, peer, cycle, percent);
            sync += sync_bytes(&at(1_000), &at(1_000 + CYCLES_AWAY), &graph) / samples as f64;
        }
        let returns = PEERS * 24.0 * percent as f64 / 100.0;
        let day = 2.0 * PEERS * CYCLES_A_DAY * (bytes + OVERHEAD) / 1e6;
        let name = |what: &str| format!("{percent} % an hour: {what}");
        rows.push(Row::new(
            name("hop-2 changes a cycle"),
            stated[0],
            hop_2,
            "",
        ));
        rows.push(Row::new(
            name("map entries changed a cycle"),
            stated[1],
            all,
            "",
        ));
        rows.push(Row::new(
            name("a diff, all returning"),
            stated[2],
            bytes,
            "B",
        ));
        rows.push(Row::new(
            name("diffs a day, both ways, packets and all"),
            stated[3],
            day,
            "MB",
        ));
        rows.push(Row::new(
            name("a sync after an hour, packets and all"),
            "",
            sync / 1e3,
            "kB",
        ));
        rows.push(Row::new(
            name("map syncs a day, both ways"),
            stated[4],
            2.0 * returns * sync / 1e6,
            "MB",
        ));
    }
    rows
}
