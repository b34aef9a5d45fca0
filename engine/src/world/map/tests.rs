//! The map against a naive model: sets of ids by reporter, everything derived from scratch.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const IDS: u8 = 60;
const REPORTERS: u8 = 6;

fn node(number: u8) -> NodeId {
    NodeId::from_bytes(crate::crypto::hash(&[number]))
}

#[derive(Clone, Debug)]
enum Step {
    Connect(u8, bool, bool),
    Disconnect(u8),
    Report(u8, ReportedHop, u8, bool),
    Withdraw(u8, ReportedHop, u8),
    Forget(u8, usize),
    Sweep,
}

fn step() -> impl Strategy<Value = Step> {
    let hop = || prop_oneof![Just(ReportedHop::One), Just(ReportedHop::Two)];
    prop_oneof![
        2 => (0..IDS, any::<bool>(), any::<bool>()).prop_map(|(id, a, w)| Step::Connect(id, a, w)),
        1 => (0..IDS).prop_map(Step::Disconnect),
        8 => (0..REPORTERS, hop(), 0..IDS, any::<bool>()).prop_map(|(r, h, id, a)| Step::Report(r, h, id, a)),
        4 => (0..REPORTERS, hop(), 0..IDS).prop_map(|(r, h, id)| Step::Withdraw(r, h, id)),
        1 => (0..REPORTERS, 0usize..40).prop_map(|(r, n)| Step::Forget(r, n)),
        1 => Just(Step::Sweep),
    ]
}

#[derive(Default)]
struct Model {
    connected: BTreeMap<u8, PeerFacts>,
    named: BTreeMap<(ReportedHop, u8), BTreeSet<u8>>,
}

impl Model {
    fn at(&self, hop: ReportedHop) -> BTreeSet<u8> {
        let sets = self.named.iter().filter(|((of, _), _)| *of == hop);
        sets.flat_map(|(_, ids)| ids.iter().copied()).collect()
    }

    fn hop(&self, id: u8) -> Option<u8> {
        match id {
            _ if self.connected.contains_key(&id) => Some(1),
            _ if self.at(ReportedHop::One).contains(&id) => Some(2),
            _ if self.at(ReportedHop::Two).contains(&id) => Some(3),
            _ => None,
        }
    }
}

fn check(map: &DiscoveryMap, model: &Model, entries: &[MapEntry]) -> Result<(), TestCaseError> {
    let mut counts = [0; 4];
    for id in 0..IDS {
        let hop = model.hop(id);
        counts[usize::from(hop.unwrap_or(0))] += 1;
        let entry = map
            .find(&node(id), entries)
            .map(|row| entries[row as usize]);
        prop_assert_eq!(entry.and_then(|entry| entry.hop()), hop, "id {}", id);
        let Some(entry) = entry else { continue };
        let named = model.named.values().filter(|ids| ids.contains(&id)).count();
        prop_assert_eq!(entry.reporters() as usize, named);
        if let Some(facts) = model.connected.get(&id) {
            prop_assert_eq!(
                (entry.is_anchor(), entry.is_wide()),
                (facts.is_anchor, facts.is_wide)
            );
        }
    }
    let [_, hop_1, hop_2, hop_3] = counts;
    prop_assert_eq!(
        map.counts(),
        HopCounts {
            hop_1,
            hop_2,
            hop_3
        }
    );
    prop_assert!(
        map.find(&node(200), entries).is_none(),
        "the own id never enters"
    );
    let derived = map.derive(entries.len());
    for (row, entry) in entries.iter().enumerate() {
        let hop = match row as Row {
            row if map.hop_1().contains(row) => Some(1),
            row if derived.hop_2.contains(row) => Some(2),
            row if derived.hop_3.contains(row) => Some(3),
            _ => None,
        };
        prop_assert_eq!(entry.hop(), hop, "row {} from scratch", row);
    }
    Ok(())
}

fn map_with(rows: Row, entries_max: usize) -> (DiscoveryMap, Vec<MapEntry>) {
    let mut map = DiscoveryMap::new(node(200), entries_max, &mut Entropy::from_seed([4; 32]));
    map.add_rows(0..rows);
    (map, vec![MapEntry::VACANT; rows as usize])
}

proptest! {
    #[test]
    fn what_is_kept_step_by_step_is_what_follows_from_scratch(steps in prop::collection::vec(step(), 1..400)) {
        let (mut map, mut entries) = map_with(u32::from(IDS), usize::MAX);
        let mut model = Model::default();
        for step in steps {
            let reporter = |map: &mut DiscoveryMap, number| map.add_reporter(node(100 + number)).unwrap();
            match step {
                Step::Connect(id, is_anchor, is_wide) => {
                    let facts = PeerFacts { is_anchor, is_wide };
                    map.connect(node(id), facts, &mut entries).unwrap();
                    model.connected.insert(id, facts);
                }
                Step::Disconnect(id) => {
                    map.disconnect(&node(id), &mut entries);
                    model.connected.remove(&id);
                }
                Step::Report(by, hop, id, is_anchor) => {
                    let by_number = reporter(&mut map, by);
                    let is_new = map.report(by_number, hop, node(id), is_anchor, &mut entries).unwrap();
                    prop_assert_eq!(is_new, model.named.entry((hop, by)).or_default().insert(id));
                }
                Step::Withdraw(by, hop, id) => {
                    let by_number = reporter(&mut map, by);
                    let had = map.withdraw(by_number, hop, &node(id), &mut entries);
                    prop_assert_eq!(had, model.named.entry((hop, by)).or_default().remove(&id));
                }
                Step::Forget(by, slice) => {
                    let by_number = reporter(&mut map, by);
                    let mut slices = 0;
                    while !map.forget(by_number, slice + 1, &mut entries) {
                        slices += 1;
                        prop_assert!(slices < 200);
                    }
                    model.named.retain(|(_, reporter), _| *reporter != by);
                }
                Step::Sweep => {
                    map.sweep(&mut entries, |_| false);
                    let known = (0..IDS).filter(|id| model.hop(*id).is_some()).count();
                    prop_assert_eq!(map.vacant(), usize::from(IDS) - known, "every other row is free again");
                }
            }
            check(&map, &model, &entries)?;
        }
        map.settle(&entries);
        let target = node(1);
        let mut known: Vec<NodeId> = (0..IDS).filter(|id| model.hop(*id).is_some()).map(node).collect();
        known.sort_by_key(|id| -> [u8; 32] { std::array::from_fn(|i| id.as_bytes()[i] ^ target.as_bytes()[i]) });
        prop_assert_eq!(map.closest(&target, usize::from(IDS), &entries, |_| true), known);
    }
}

#[test]
fn a_full_map_takes_hop_2_still_and_refuses_hop_3() {
    let (mut map, mut entries) = map_with(20, 10);
    let reporter = map.add_reporter(node(100)).unwrap();
    for id in 0..10 {
        let is_new = map.report(reporter, ReportedHop::Two, node(id), false, &mut entries);
        assert_eq!(is_new, Ok(true));
    }
    let refused = map.report(reporter, ReportedHop::Two, node(10), false, &mut entries);
    assert_eq!(refused, Err(Refusal::Full));
    let taken = map.report(reporter, ReportedHop::One, node(10), true, &mut entries);
    assert_eq!(taken, Ok(true));
    let own = map.report(reporter, ReportedHop::One, node(200), false, &mut entries);
    assert_eq!(own, Ok(true));
    assert!(
        map.find(&node(200), &entries).is_none()
            && map.reporters().names_us(reporter, ReportedHop::One)
    );
    let as_peer = map.connect(node(200), PeerFacts::default(), &mut entries);
    assert_eq!(as_peer, Err(Refusal::WrongAuthor));
    assert_eq!(
        map.counts(),
        HopCounts {
            hop_1: 0,
            hop_2: 1,
            hop_3: 10
        }
    );
}

#[test]
fn there_are_only_so_many_reporters() {
    let (mut map, mut entries) = map_with(300, 300);
    let id = |number: u32| NodeId::from_bytes(crate::crypto::hash(&number.to_le_bytes()));
    for number in 0..255 {
        let reporter = map.add_reporter(id(number)).unwrap();
        map.report(reporter, ReportedHop::One, node(1), false, &mut entries)
            .unwrap();
    }
    assert_eq!(map.add_reporter(id(1000)), None);
    let row = map.find(&node(1), &entries).unwrap();
    assert_eq!(
        entries[row as usize].reporters(),
        255,
        "counted in one byte"
    );
    assert_eq!(map.reporters().who(ReportedHop::One, row).count(), 255);
}

#[test]
fn an_id_with_a_number_keeps_its_row_and_each_reporter_counts_once() {
    let (mut map, mut entries) = map_with(8, 8);
    let number = |index| Number::new(index).unwrap();
    let (a, b) = (
        map.add_reporter(node(100)).unwrap(),
        map.add_reporter(node(101)).unwrap(),
    );
    for index in 0..1_000 {
        map.number(a, number(index), node(1), &mut entries).unwrap();
    }
    let row = match map.number(b, number(9), node(1), &mut entries).unwrap() {
        Numbered::Row(row) => row,
        Numbered::Us => panic!("that is somebody else"),
    };
    assert_eq!(entries[row as usize].marks[MapEntry::NUMBERED], 2);
    assert_eq!(
        map.reporters().numbered(a, number(0)),
        None,
        "it has a newer one"
    );
    assert_eq!(
        map.reporters().numbered(a, number(999)),
        Some(Numbered::Row(row))
    );
    map.sweep(&mut entries, |_| false);
    assert_eq!(map.vacant(), 7);
    map.number(a, number(999), node(200), &mut entries).unwrap();
    assert_eq!(map.reporters().numbered(a, number(999)), Some(Numbered::Us));
    assert!(map.forget(a, 10, &mut entries) && map.forget(b, 10, &mut entries));
    map.sweep(&mut entries, |held| held == row);
    assert_eq!(map.vacant(), 7);
    map.sweep(&mut entries, |_| false);
    assert_eq!(map.vacant(), 8);
}

#[test]
fn digests_agree_however_the_sets_came_about() {
    let (mut map, mut entries) = map_with(100, 100);
    let hash = SetHash::new(7);
    let reporter = map.add_reporter(node(100)).unwrap();
    map.report(reporter, ReportedHop::Two, node(9), false, &mut entries)
        .unwrap();
    map.begin_connection(reporter, hash, &mut entries);
    for id in (0..40).chain([200]) {
        map.report(reporter, ReportedHop::One, node(id), false, &mut entries)
            .unwrap();
    }
    for id in 20..40 {
        map.withdraw(reporter, ReportedHop::One, &node(id), &mut entries);
    }
    let named = (0..20)
        .chain([200])
        .map(|id| hash.in_digest(ReportedHop::One, &node(id)));
    let digest = named.fold(
        hash.in_digest(ReportedHop::Two, &node(9)),
        u64::wrapping_add,
    );
    assert_eq!(map.reporters().digest(reporter), digest);
}
