//! What follows from the reporters' sets (FIGURES, "Map"): all of hops 2 and 3 from scratch, and what one peer's changes do.

use crate::measure::{Figure, interleaved_warm};
use bevy_ecs::prelude::World;
use distsoc_engine::domain::NodeId;
use distsoc_engine::entropy::Entropy;
use distsoc_engine::world::map::{
    DiscoveryMap, MapEntry, PeerFacts, ReportedHop, Reporter, Row, RowChanges, entries_of,
};
use roaring::RoaringBitmap;
use std::collections::HashSet;
use std::hint::black_box;

const ENTRIES: usize = 350_000;
pub(crate) const REPORTERS: usize = 101;
const REPORTED: usize = 5_500;

/// A map of 101 reporters, each naming 101 ids at its hop 1 and 5,500 at its hop 2.
pub(crate) struct Reported {
    pub(crate) world: World,
    pub(crate) map: DiscoveryMap,
    pub(crate) reporters: Vec<Reporter>,
    ids: Vec<NodeId>,
}

pub(crate) fn reported(entropy: &mut Entropy) -> Reported {
    let ids: Vec<NodeId> = (0..ENTRIES)
        .map(|_| NodeId::from_bytes(entropy.bytes32()))
        .collect();
    let mut world = World::new();
    world.spawn_batch(vec![MapEntry::VACANT; ENTRIES]);
    let mut map = DiscoveryMap::new(NodeId::from_bytes([0xff; 32]), usize::MAX, entropy);
    map.add_rows(0..ENTRIES as Row);
    map.reserve(ENTRIES, entries_of(&world));
    let mut reporters = Vec::new();
    {
        let mut query = world.query::<&mut MapEntry>();
        let mut tables = query.contiguous_iter_mut(&mut world).expect("a table");
        let mut table = tables.next().expect("one table");
        let entries = table.bypass_change_detection();
        for id in &ids[..REPORTERS] {
            let facts = PeerFacts::default();
            map.connect(*id, facts, entries).expect("there is room");
            let reporter = map.add_reporter(*id).expect("fewer than may report");
            for (hop, count) in [(ReportedHop::One, REPORTERS), (ReportedHop::Two, REPORTED)] {
                for _ in 0..count {
                    let id = ids[entropy.below(ENTRIES as u64) as usize];
                    map.report(reporter, hop, id, false, entries)
                        .expect("there is room");
                }
            }
            reporters.push(reporter);
        }
    }
    Reported {
        world,
        map,
        reporters,
        ids,
    }
}

type IdSets = Vec<HashSet<[u8; 32]>>;

/// The same sets, as one would have them without rows.
fn id_sets(reported: &Reported, hop: ReportedHop) -> IdSets {
    let entries = entries_of(&reported.world);
    let of = |reporter: &Reporter| {
        let rows = reported.map.reporters().rows(*reporter, hop);
        let rows = rows.into_iter().flatten();
        rows.map(|row| *entries[row as usize].node.as_bytes())
            .collect()
    };
    reported.reporters.iter().map(of).collect()
}

fn union_of_ids(first: &IdSets, second: &IdSets, connected: &HashSet<[u8; 32]>) -> usize {
    let mut hop_2: HashSet<[u8; 32]> = first.iter().flatten().copied().collect();
    hop_2.retain(|id| !connected.contains(id));
    let mut hop_3: HashSet<[u8; 32]> = second.iter().flatten().copied().collect();
    hop_3.retain(|id| !hop_2.contains(id) && !connected.contains(id));
    hop_3.len()
}

fn union_of_bitmaps(map: &DiscoveryMap, reporters: &[Reporter]) -> u64 {
    let union = |hop: ReportedHop| {
        let sets = reporters
            .iter()
            .filter_map(|one| map.reporters().rows(*one, hop));
        sets.fold(RoaringBitmap::new(), |all, set| all | set)
    };
    let hop_2 = union(ReportedHop::One) - map.hop_1();
    (union(ReportedHop::Two) - map.hop_1() - hop_2).len()
}

/// Derivation from scratch, and a change of one peer's report.
pub(crate) fn derivation(quick: bool) -> Vec<Figure> {
    let rounds = if quick { 7 } else { 31 };
    let mut entropy = Entropy::from_seed([8; 32]);
    let mut reported = reported(&mut entropy);
    let first = id_sets(&reported, ReportedHop::One);
    let second = id_sets(&reported, ReportedHop::Two);
    let connected: HashSet<[u8; 32]> = reported.ids[..REPORTERS]
        .iter()
        .map(|id| *id.as_bytes())
        .collect();
    let derived = reported.map.derive(ENTRIES);
    assert_eq!(derived.hop_3.count(), reported.map.counts().hop_3);
    assert_eq!(
        derived.hop_3.count(),
        union_of_ids(&first, &second, &connected)
    );
    let samples = interleaved_warm(
        rounds,
        &mut [
            (1, &mut || drop(black_box(reported.map.derive(ENTRIES)))),
            (1, &mut || {
                black_box(union_of_bitmaps(&reported.map, &reported.reporters));
            }),
            (1, &mut || {
                black_box(union_of_ids(&first, &second, &connected));
            }),
        ],
    );
    let ms = |samples: &[f64]| samples.iter().map(|ns| ns / 1e6).collect::<Vec<f64>>();
    let ratio = |other: usize| {
        let pairs = samples[other].iter().zip(&samples[0]);
        pairs
            .map(|(other, ours)| other / ours)
            .collect::<Vec<f64>>()
    };
    let mut figures = vec![
        Figure::of(
            "hops 2 and 3 from scratch, 101 sets of 5,500",
            "ms",
            ms(&samples[0]),
        )
        .goal("≤ 0.8"),
        Figure::of("the same, times faster than roaring unions", "×", ratio(1)),
        Figure::of("the same, times faster than std HashSet", "×", ratio(2)).goal("≥ 20"),
    ];
    figures.push(one_peer(rounds, &mut reported, &mut entropy));
    figures.extend(diff(rounds, &reported, &mut entropy));
    figures
}

/// The difference of two views of 350,000 ids that 3,500 changes lie between, beside sets of ids.
fn diff(rounds: usize, reported: &Reported, entropy: &mut Entropy) -> Vec<Figure> {
    const CHANGES: usize = 3_500;
    let old: RoaringBitmap = (0..ENTRIES as Row).filter(|row| row % 7 != 0).collect();
    let mut new = old.clone();
    let mut changed = RoaringBitmap::new();
    while changed.len() < CHANGES as u64 {
        let row = entropy.below(ENTRIES as u64) as Row;
        if changed.insert(row) && !new.remove(row) {
            new.insert(row);
        }
    }
    let none = RoaringBitmap::new();
    let ids = |rows: &RoaringBitmap| -> HashSet<[u8; 32]> {
        rows.iter()
            .map(|row| *reported.ids[row as usize].as_bytes())
            .collect()
    };
    let (old_ids, new_ids) = (ids(&old), ids(&new));
    let changes = RowChanges::between([&none, &old], [&none, &new]);
    let count = changes.added[1].len() + changes.removed[1].len();
    assert_eq!(count, CHANGES as u64);
    let samples = interleaved_warm(
        rounds,
        &mut [
            (1, &mut || {
                drop(black_box(RowChanges::between([&none, &old], [&none, &new])));
            }),
            (1, &mut || {
                let added: Vec<_> = new_ids.difference(&old_ids).copied().collect();
                let removed: Vec<_> = old_ids.difference(&new_ids).copied().collect();
                black_box((added, removed));
            }),
        ],
    );
    let pairs = samples[1].iter().zip(&samples[0]);
    let ratios = pairs.map(|(other, ours)| other / ours).collect();
    let ms = samples[0].iter().map(|ns| ns / 1e6).collect();
    vec![
        Figure::of("difference of 3,500 changes in 350,000 ids", "ms", ms).goal("≤ 0.1"),
        Figure::of("the same, times faster than std HashSet", "×", ratios).goal("≥ 500"),
    ]
}

/// One per cent of what a peer names goes, as much comes; then back again.
fn one_peer(rounds: usize, reported: &mut Reported, entropy: &mut Entropy) -> Figure {
    let Reported {
        world,
        map,
        reporters,
        ..
    } = reported;
    let reporter = reporters[0];
    let hop = ReportedHop::Two;
    let named: Vec<Row> = map
        .reporters()
        .rows(reporter, hop)
        .into_iter()
        .flatten()
        .collect();
    let out: Vec<Row> = named.iter().copied().step_by(2 * 100).collect();
    let mut come: Vec<Row> = Vec::new();
    while come.len() < out.len() {
        let row = entropy.below(ENTRIES as u64) as Row;
        if !named.contains(&row) && !come.contains(&row) {
            come.push(row);
        }
    }
    let mut query = world.query::<&mut MapEntry>();
    let mut tables = query.contiguous_iter_mut(world).expect("a table");
    let mut table = tables.next().expect("one table");
    let entries = table.bypass_change_detection();
    let mut change = |out: &[Row], come: &[Row]| {
        for row in out {
            map.withdraw_row(reporter, hop, *row, entries);
        }
        for row in come {
            map.report_row(reporter, hop, *row, false, entries);
        }
    };
    let samples = interleaved_warm(
        rounds,
        &mut [(2, &mut || {
            change(&out, &come);
            change(&come, &out);
        })],
    );
    let us = samples[0].iter().map(|ns| ns / 1e3).collect();
    let what = "a peer's 1 % change applied (55 ids of 5,500)";
    Figure::of(what, "µs", us).goal("≤ 10")
}
