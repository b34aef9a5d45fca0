//! What is written against what is read, over maps that change while they are written; hostile values.

use super::*;
use crate::entropy::Entropy;
use crate::world::map::{DiscoveryMap, ReportedHop};
use proptest::prelude::*;

const IDS: u8 = 40;
const REPORTERS: u8 = 4;
const ROWS_MAX: Row = 1_000;

fn node(number: u8) -> NodeId {
    NodeId::from_bytes(hash(&[number]))
}

fn own() -> NodeId {
    node(200)
}

#[derive(Clone, Debug)]
enum Step {
    Report(u8, ReportedHop, u8),
    Withdraw(u8, ReportedHop, u8),
    Forget(u8, usize),
    Sweep,
    /// Writes one slice of a reporter.
    Slice(u8, usize),
    Complete,
    Snapshot,
}

fn step() -> impl Strategy<Value = Step> {
    let hop = || prop_oneof![Just(ReportedHop::One), Just(ReportedHop::Two)];
    // The id past the last one is this node's own.
    prop_oneof![
        12 => (0..REPORTERS, hop(), 0..=IDS).prop_map(|(r, h, id)| Step::Report(r, h, id)),
        8 => (0..REPORTERS, hop(), 0..=IDS).prop_map(|(r, h, id)| Step::Withdraw(r, h, id)),
        2 => (0..REPORTERS, 0usize..40).prop_map(|(r, n)| Step::Forget(r, n)),
        4 => Just(Step::Sweep),
        6 => (0..REPORTERS, 1usize..20).prop_map(|(r, n)| Step::Slice(r, n)),
        3 => Just(Step::Complete),
        1 => Just(Step::Snapshot),
    ]
}

type Sets = BTreeMap<NodeId, ([bool; 2], [BTreeSet<NodeId>; 2])>;

/// A map and the disk it is written to.
struct Desk {
    map: DiscoveryMap,
    entries: Vec<MapEntry>,
    rows: Vec<MapRow>,
    chunk: Chunk,
    generation: u32,
    chunks: u32,
    seq: u32,
    /// What the map said when it was last whole on the disk.
    whole: Option<Sets>,
}

impl Desk {
    fn new() -> Self {
        // Few rows, so that they are taken again.
        let mut map = DiscoveryMap::new(own(), usize::MAX, &mut Entropy::from_seed([4; 32]));
        map.add_rows(0..u32::from(IDS));
        Self {
            map,
            entries: vec![MapEntry::VACANT; usize::from(IDS)],
            rows: Vec::new(),
            chunk: Chunk::default(),
            generation: 0,
            chunks: 0,
            seq: 0,
            whole: None,
        }
    }

    fn sets(&self) -> Sets {
        let sets = self.map.reporters();
        let hops = [ReportedHop::One, ReportedHop::Two];
        let of = |(reporter, node)| {
            let ids = |hop| {
                let rows = sets.rows(reporter, hop).unwrap().iter();
                rows.map(|row| self.entries[row as usize].node).collect()
            };
            (
                node,
                (hops.map(|hop| sets.names_us(reporter, hop)), hops.map(ids)),
            )
        };
        sets.iter().map(of).collect()
    }

    fn hand_out(&mut self, is_complete: bool) {
        let chunk = std::mem::take(&mut self.chunk);
        let is_journal = is_complete || self.seq > 0;
        let (place, counter) = match is_journal {
            true => (JOURNAL_BIT | self.seq, &mut self.seq),
            false => (self.chunks, &mut self.chunks),
        };
        *counter += 1;
        let complete = is_complete.then_some(self.chunks);
        self.rows
            .push(chunk.seal(&own(), self.generation, place, complete));
    }

    fn complete(&mut self) {
        let reporters: Vec<_> = self.map.reporters().iter().collect();
        for (reporter, _) in reporters {
            let (entries, chunk) = (&self.entries, &mut self.chunk);
            assert!(
                self.map
                    .write_reporter(reporter, usize::MAX, entries, chunk)
                    .is_all
            );
        }
        self.map.write_rest(&self.entries, &mut self.chunk);
        self.hand_out(true);
        self.whole = Some(self.sets());
        let generation = self.generation;
        self.rows.retain(|row| row.generation == generation);
    }

    fn take(&mut self, step: Step) {
        let (map, entries) = (&mut self.map, &mut self.entries);
        let reporter = |map: &mut DiscoveryMap, by: u8| map.add_reporter(node(100 + by)).unwrap();
        let named = |id: u8| if id == IDS { own() } else { node(id) };
        match step {
            Step::Report(by, hop, id) => {
                let by = reporter(map, by);
                // The rows may be taken by ids that nobody names any more.
                let _ = map.report(by, hop, named(id), id % 7 == 0, entries);
            }
            Step::Withdraw(by, hop, id) => {
                let by = reporter(map, by);
                map.withdraw(by, hop, &named(id), entries);
            }
            Step::Forget(by, ids_max) => {
                if let Some(by) = map.reporters().by_node(&node(100 + by)) {
                    map.forget(by, ids_max, entries);
                }
            }
            Step::Sweep => map.sweep(entries, |_| false),
            Step::Slice(by, ids_max) => {
                let by = reporter(map, by);
                map.write_reporter(by, ids_max, entries, &mut self.chunk);
                if ids_max.is_multiple_of(2) {
                    self.hand_out(false);
                }
            }
            Step::Complete => self.complete(),
            Step::Snapshot => {
                map.begin_snapshot();
                self.chunk = Chunk::default();
                (self.chunks, self.seq) = (0, 0);
                self.generation += 1;
            }
        }
    }

    fn read(&self) -> Option<Sets> {
        let image = MapImage::decode(&self.rows, &own(), ROWS_MAX).unwrap()?;
        Some(sets_of(&image))
    }
}

fn sets_of(image: &MapImage) -> Sets {
    let of = |(node, sets): (&NodeId, &ReporterImage)| {
        (*node, (sets.names_us, image.named_by(node).unwrap()))
    };
    image.reporters.iter().map(of).collect()
}

/// A small map, written in several values.
fn written() -> Desk {
    let mut desk = Desk::new();
    for number in 0..60 {
        let hop = [ReportedHop::One, ReportedHop::Two][usize::from(number % 3 > 0)];
        desk.take(Step::Report(number % REPORTERS, hop, number % (IDS + 1)));
        if number % 10 == 9 {
            desk.take(Step::Slice(number % REPORTERS, 2));
        }
    }
    desk.take(Step::Complete);
    desk.take(Step::Forget(1, 100));
    desk.take(Step::Report(0, ReportedHop::One, 39));
    desk.take(Step::Complete);
    desk
}

proptest! {
    #[test]
    fn what_is_read_is_what_was_there_when_it_was_whole(
        steps in prop::collection::vec(step(), 1..300),
        rotation in any::<prop::sample::Index>(),
    ) {
        let mut desk = Desk::new();
        for step in steps {
            desk.take(step);
            prop_assert_eq!(&desk.read(), &desk.whole);
        }
        if !desk.rows.is_empty() {
            let at = rotation.index(desk.rows.len());
            desk.rows.rotate_left(at);
            prop_assert_eq!(desk.read(), desk.whole, "in whatever order");
        }
    }

    #[test]
    fn a_byte_that_was_changed_or_cut_off_is_a_refusal_or_an_older_map(
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        flip in 1u8..,
        cut in any::<bool>(),
    ) {
        let mut desk = written();
        let which = which.index(desk.rows.len());
        let mut bytes = desk.rows[which].bytes.to_vec();
        let at = at.index(bytes.len());
        match cut {
            true => bytes.truncate(at),
            false => bytes[at] ^= flip,
        }
        desk.rows[which].bytes = bytes.into();
        match MapImage::decode(&desk.rows, &own(), ROWS_MAX) {
            Ok(Some(image)) => {
                prop_assert!(desk.rows[which].chunk > JOURNAL_BIT, "only the journal is dispensable");
                prop_assert_eq!(image.reporters.len(), usize::from(REPORTERS), "as before the last change");
            }
            Ok(None) => prop_assert!(false, "damage is told"),
            Err(_) => {}
        }
    }

    #[test]
    fn records_of_any_bytes_are_no_panic(
        records in prop::collection::vec(any::<u8>(), 0..400),
        kind in 1u8..5,
        at in any::<prop::sample::Index>(),
        flip in any::<u8>(),
    ) {
        // Sealed by whoever wrote it, so that the checksum holds.
        let mut foreign = Chunk::default();
        foreign.0.push(kind);
        foreign.0.extend(&records);
        let sealed = foreign.seal(&own(), 0, JOURNAL_BIT, Some(0));
        let _ = MapImage::decode(&[sealed], &own(), ROWS_MAX);

        let mut desk = written();
        let which = at.index(desk.rows.len());
        let row = &desk.rows[which];
        let (complete, records) = open(row, &own()).unwrap();
        let mut changed = Chunk::default();
        changed.0.extend(records);
        if !records.is_empty() {
            changed.0[HEADER_BYTES + at.index(records.len())] ^= flip;
        }
        desk.rows[which] = changed.seal(&own(), row.generation, row.chunk, complete);
        if let Ok(Some(image)) = MapImage::decode(&desk.rows, &own(), ROWS_MAX) {
            prop_assert!(image.reporters.len() <= ReporterSets::REPORTERS_MAX);
            prop_assert!(image.rows_end() <= ROWS_MAX as usize);
            prop_assert!(image.rows().iter().all(|row| image.id(row).0 != own()));
        }
    }

    #[test]
    fn rows_come_back(rows in prop::collection::btree_set(0u32..ROWS_MAX, 0..300), more in 0u32..300) {
        let mut rows: RoaringBitmap = rows.into_iter().collect();
        rows.insert_range(500..500 + more);
        let mut bytes = Vec::new();
        put_rows(&mut bytes, &rows);
        let mut reader = Reader(&bytes);
        prop_assert_eq!(reader.rows(u64::from(ROWS_MAX), ROWS_MAX).unwrap(), rows.clone());
        prop_assert!(reader.0.is_empty());
        if let Some(last) = rows.max() {
            prop_assert_eq!(Reader(&bytes).rows(u64::from(ROWS_MAX), last), Err(Refusal::OutOfRange));
            prop_assert_eq!(Reader(&bytes).rows(rows.len() - 1, ROWS_MAX), Err(Refusal::OutOfRange));
        }
    }
}

#[test]
fn the_own_id_anothers_map_and_one_that_lies_elsewhere_are_refused() {
    let decode = |rows: &[MapRow], own: &NodeId| MapImage::decode(rows, own, ROWS_MAX);
    let mut entries = vec![MapEntry::VACANT];
    entries[0].node = own();
    let mut chunk = Chunk::default();
    chunk.ids(&RoaringBitmap::from([0]), &entries);
    let row = chunk.seal(&own(), 0, JOURNAL_BIT, Some(0));
    assert_eq!(decode(&[row], &own()), Err(Refusal::WrongAuthor));
    let mut chunk = Chunk::default();
    let none = RoaringBitmap::new();
    chunk.reporter(&own(), [false; 2], [&none, &none]);
    let row = chunk.seal(&own(), 0, JOURNAL_BIT, Some(0));
    assert_eq!(decode(&[row], &own()), Err(Refusal::WrongAuthor));

    let desk = written();
    assert!(decode(&desk.rows, &own()).unwrap().is_some());
    assert_eq!(decode(&desk.rows, &node(3)), Err(Refusal::ListMismatch));
    let mut moved = desk.rows.clone();
    moved.iter_mut().for_each(|row| row.generation += 1);
    assert_eq!(decode(&moved, &own()), Err(Refusal::ListMismatch));
    let lacking: Vec<MapRow> = desk
        .rows
        .iter()
        .filter(|row| row.chunk != 1)
        .cloned()
        .collect();
    assert_eq!(decode(&lacking, &own()), Err(Refusal::Malformed));
}

#[test]
fn a_reporter_that_names_too_much_is_refused() {
    let many = 2 * limits::REPORTED_HOP_1_MAX as u32 + 1;
    let entry = |number: u32| MapEntry {
        node: NodeId::from_bytes(hash(&number.to_be_bytes())),
        ..MapEntry::VACANT
    };
    let entries: Vec<MapEntry> = (0..many).map(entry).collect();
    let rows: RoaringBitmap = (0..many).collect();
    let mut chunk = Chunk::default();
    chunk.ids(&rows, &entries);
    chunk.reporter(&node(1), [false; 2], [&rows, &RoaringBitmap::new()]);
    let row = chunk.seal(&own(), 0, JOURNAL_BIT, Some(0));
    let decoded = MapImage::decode(&[row], &own(), many);
    assert_eq!(decoded, Err(Refusal::OutOfRange));
}

#[test]
fn an_unfinished_generation_gives_way_to_the_one_before() {
    let mut desk = written();
    let whole = desk.read();
    desk.take(Step::Snapshot);
    desk.take(Step::Slice(0, 6));
    desk.take(Step::Slice(0, 6));
    assert!(desk.rows.iter().any(|row| row.generation == 1));
    assert_eq!(desk.read(), whole);
}
