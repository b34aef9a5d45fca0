//! PROTOCOL section 6: what peers report, taken into the map. A report changes nothing but its reporter's own sets; what follows for
//! the map is derived. Who reports more than a node can know loses its slot.

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::NodeId;
use distsoc_engine::entropy::Entropy;
use distsoc_engine::limits;
use distsoc_engine::refusal::Refusal;
use distsoc_engine::schedule::{Occasions, Phase, at_once_if};
use distsoc_engine::wire::{CELLS, InitialMapSync, MapCell, MapItem, Named, RoutingDiff};
use distsoc_engine::world::gossip::{
    MapSync, MapSyncs, Report, ReportContent, ReportQueue, SyncStep,
};
use distsoc_engine::world::inbox::Arrivals;
use distsoc_engine::world::map::{
    DiscoveryMap, MapEdit, MapEntry, NEW_IDS_PER_FRAME, Numbered, ReportedHop, Row, SetHash,
};
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::{Link, Offences, Peer, Peers};
use std::collections::BTreeSet;

/// How many ids a reporter may name at each hop.
#[derive(Clone, Copy, Debug)]
struct Caps {
    hop_1: u64,
    hop_2: u64,
}

/// PROTOCOL section 6: 256 at hop 1 (anchors 512), and at hop 2 min(25,000, 2 × the median of the peers).
fn caps_for(is_anchor: bool, mut peers_hop_2: Vec<u64>) -> Caps {
    peers_hop_2.sort_unstable();
    let median = peers_hop_2.get(peers_hop_2.len() / 2).copied().unwrap_or(0);
    let few = peers_hop_2.len() < 5;
    let hop_2 = match few {
        true => limits::REPORTED_HOP_2_MAX,
        false => (2 * median).clamp(limits::REPORTED_HOP_2_MIN, limits::REPORTED_HOP_2_MAX),
    };
    let hop_1 = limits::REPORTED_HOP_1_MAX * if is_anchor { 2 } else { 1 };
    Caps { hop_1, hop_2 }
}

/// Takes in what one peer reports.
struct Taker<'a> {
    sync: &'a mut MapSync,
    map: &'a mut DiscoveryMap,
    entries: &'a mut [MapEntry],
    caps: Caps,
    /// Ids past what a node can know, or where they do not belong.
    excess: u32,
    /// Numbers at each hop that stand for nobody here: something went missing, or there was no room for it when they were given.
    unknown: [u32; 2],
}

impl Taker<'_> {
    /// What an item stands for; `None` where the map is full or the number unknown.
    fn resolve(&mut self, hop: ReportedHop, named: Named) -> Option<Numbered> {
        let reporter = self.sync.reporter;
        match named {
            Named::Known(number) => {
                let found = self.map.reporters().numbered(reporter, number);
                self.unknown[hop as usize] += u32::from(found.is_none());
                found
            }
            Named::New(number, node) => {
                let given = self.map.number(reporter, number, node, self.entries).ok();
                self.sync.is_capped |= given.is_none();
                given
            }
            Named::Bare(node) if node == *self.map.own() => Some(Numbered::Us),
            Named::Bare(node) => self.map.find(&node, self.entries).map(Numbered::Row),
        }
    }

    /// Whether it stands in the reporter's set already.
    fn is_there(&self, hop: ReportedHop, named: Named) -> bool {
        let reporters = self.map.reporters();
        let node = self.node_of(named);
        let row = node.and_then(|node| self.map.find(&node, self.entries));
        let rows = reporters.rows(self.sync.reporter, hop);
        row.is_some_and(|row| rows.is_some_and(|rows| rows.contains(row)))
    }

    /// Whether an id may be added to what the reporter names; what stands there has its room.
    fn has_room(&mut self, hop: ReportedHop, named: Named) -> bool {
        let rows = self.map.reporters().rows(self.sync.reporter, hop);
        let count = rows.map_or(0, |rows| rows.len());
        let room = match hop {
            ReportedHop::One => self.caps.hop_1,
            ReportedHop::Two => self.caps.hop_2,
        };
        if count >= room && self.is_there(hop, named) {
            return true;
        }
        let fits = count < room;
        self.sync.is_capped |= !fits;
        self.sync.is_hop_1_capped |= !fits && hop == ReportedHop::One;
        // Who knows more than the others may be an anchor; who knows more than anybody can, lies.
        let is_lie = !fits && (hop == ReportedHop::One || count >= limits::REPORTED_HOP_2_MAX);
        self.excess += u32::from(is_lie);
        fits
    }

    /// A number whose id is not taken from this reporter: if others name the id, it costs no room to know it by this number later.
    fn keep_number(&mut self, named: Named) {
        if let Named::New(number, node) = named
            && self.map.find(&node, self.entries).is_some()
        {
            // The row is there: there is room for nothing more than the number.
            let _ = self
                .map
                .number(self.sync.reporter, number, node, self.entries);
        }
    }

    /// Takes an id in; its row, if it has one.
    fn add(&mut self, hop: ReportedHop, item: &MapItem) -> Option<Row> {
        if !self.has_room(hop, item.named) {
            self.keep_number(item.named);
            return None;
        }
        let reporter = self.sync.reporter;
        match (self.resolve(hop, item.named), item.named) {
            (Some(Numbered::Row(row)), _) => {
                self.map
                    .report_row(reporter, hop, row, item.is_anchor, self.entries);
                Some(row)
            }
            (Some(Numbered::Us), _) => {
                let own = *self.map.own();
                let _ = self.map.report(reporter, hop, own, false, self.entries);
                None
            }
            (None, Named::New(_, node) | Named::Bare(node)) => {
                let reported = self
                    .map
                    .report(reporter, hop, node, item.is_anchor, self.entries);
                self.sync.is_capped |= reported.is_err();
                self.sync.is_hop_1_capped |= reported.is_err() && hop == ReportedHop::One;
                self.map.find(&node, self.entries)
            }
            (None, Named::Known(_)) => None,
        }
    }

    fn remove(&mut self, hop: ReportedHop, item: &MapItem) {
        let reporter = self.sync.reporter;
        match self.resolve(hop, item.named) {
            Some(Numbered::Row(row)) => {
                self.map.withdraw_row(reporter, hop, row, self.entries);
            }
            Some(Numbered::Us) => {
                let own = *self.map.own();
                self.map.withdraw(reporter, hop, &own, self.entries);
            }
            None => {}
        }
    }

    /// Takes a diff in; whether its digest is that of the one before and of what it names, so that nothing was left out.
    fn take_diff(&mut self, diff: &RoutingDiff) -> bool {
        let mut digest = self.sync.told;
        let changes = &diff.changes;
        let hops = [
            (
                ReportedHop::One,
                &changes.hop_1_removed,
                &changes.hop_1_added,
            ),
            (
                ReportedHop::Two,
                &changes.hop_2_removed,
                &changes.hop_2_added,
            ),
        ];
        for (hop, removed, added) in hops {
            for item in removed {
                digest = digest.wrapping_sub(self.hash_of(hop, item.named));
                self.remove(hop, item);
            }
            for item in added {
                digest = digest.wrapping_add(self.hash_of(hop, item.named));
                self.add(hop, item);
            }
        }
        digest == diff.digest
    }

    /// What an id adds to a digest; nothing where its number is unknown.
    fn hash_of(&self, hop: ReportedHop, named: Named) -> u64 {
        let hash = self.map.reporters().hash(self.sync.reporter);
        self.node_of(named)
            .map_or(0, |node| hash.in_digest(hop, &node))
    }

    /// Which id is named, unless by an unknown number.
    fn node_of(&self, named: Named) -> Option<NodeId> {
        match named {
            Named::New(_, node) | Named::Bare(node) => Some(node),
            Named::Known(number) => {
                match self.map.reporters().numbered(self.sync.reporter, number)? {
                    Numbered::Row(row) => Some(self.entries[row as usize].node),
                    Numbered::Us => Some(*self.map.own()),
                }
            }
        }
    }

    /// Whether an id falls into the cell that it stands in. Of an unknown number that cannot be said.
    fn belongs(&self, named: Named, hash: SetHash, cell: usize) -> bool {
        self.node_of(named)
            .is_none_or(|node| hash.cell(&node) == cell)
    }

    /// Makes the cells what the answer says; what the reporter had in them beside is gone.
    fn take_cells(&mut self, cells: &[MapCell], first_cell: usize) {
        let reporter = self.sync.reporter;
        let hash = self.map.reporters().hash(reporter);
        let mut told = [false; CELLS];
        for cell in cells
            .iter()
            .filter(|cell| usize::from(cell.number) >= first_cell)
        {
            told[usize::from(cell.number)] = true;
        }
        let own_cell = hash.cell(self.map.own());
        for hop in [ReportedHop::One, ReportedHop::Two] {
            let rows = self
                .map
                .reporters()
                .rows(reporter, hop)
                .into_iter()
                .flatten();
            let mut before: BTreeSet<Row> = rows
                .filter(|row| told[hash.cell(&self.entries[*row as usize].node)])
                .collect();
            let mut names_us = !told[own_cell] && self.map.reporters().names_us(reporter, hop);
            for cell in cells.iter().filter(|cell| told[usize::from(cell.number)]) {
                for (_, item) in cell.items().filter(|(of, _)| *of == hop) {
                    if !self.belongs(item.named, hash, usize::from(cell.number)) {
                        self.excess += 1;
                        continue;
                    }
                    match self.add(hop, item) {
                        Some(row) => drop(before.remove(&row)),
                        None => names_us |= self.map.reporters().names_us(reporter, hop),
                    }
                }
            }
            for row in before {
                self.map.withdraw_row(reporter, hop, row, self.entries);
            }
            if !names_us {
                let own = *self.map.own();
                self.map.withdraw(reporter, hop, &own, self.entries);
            }
        }
    }
}

/// What is to be done after a diff: nothing, or to ask what is different.
fn after_diff(sync: &mut MapSync, diff: &RoutingDiff, digest: u64, is_whole: bool, at_ms: u64) {
    let Some(seq) = sync.seq else {
        // The first sync is under way; it ends with a digest of its own.
        return;
    };
    let follows = seq.checked_add(1) == Some(diff.seq) && is_whole;
    (sync.seq, sync.told) = (Some(diff.seq), diff.digest);
    if follows && sync.agrees(digest, diff.digest) {
        sync.failures = 0;
    } else if sync.step == SyncStep::Standing {
        sync.failures += 1;
        sync.step = SyncStep::Due {
            at_ms,
            first_cell: 0,
        };
    }
}

/// What is to be done after cells: to go on, to be content, or to begin again.
fn after_cells(sync: &mut MapSync, answer: &InitialMapSync, digest: u64, now: Now) {
    sync.told = answer.digest;
    let (at_ms, first_cell) = match usize::from(answer.next_cell) < CELLS {
        true => (now.mono_ms, answer.next_cell),
        false if sync.agrees(digest, answer.digest) => {
            sync.seq = Some(answer.seq);
            sync.failures = 0;
            sync.step = SyncStep::Standing;
            return;
        }
        // A diff came in between, or the reporter is not one with itself.
        false => {
            sync.failures += 1;
            sync.seq = Some(answer.seq);
            (now.after(sync.retry_ms()), 0)
        }
    };
    sync.step = SyncStep::Due { at_ms, first_cell };
}

fn queue_diffs(
    peers: Res<Peers>,
    mut arrivals: ResMut<Arrivals<RoutingDiff>>,
    mut queue: ResMut<ReportQueue>,
    mut links: Query<(&Link, &mut Peer)>,
    now: Res<Now>,
) {
    for arrival in arrivals.take() {
        let found = peers
            .up_behind(arrival.link)
            .and_then(|entity| links.get_mut(entity).ok());
        if let Some((link, mut peer)) = found {
            peer.heard_ms = now.mono_ms;
            queue.0.push_back(Report {
                node: link.node,
                link: arrival.link,
                content: ReportContent::Diff(arrival.packet),
            });
        }
    }
}

fn items_of(content: &ReportContent) -> usize {
    match content {
        ReportContent::Diff(diff) => diff.changes.len(),
        ReportContent::Remembered(named) => named.len(),
        ReportContent::Cells { sync, .. } => sync
            .cells
            .as_slice()
            .iter()
            .map(|cell| cell.hop_1.len() + cell.hop_2.len())
            .sum(),
    }
}

fn apply_reports(
    now: Res<Now>,
    peers: Res<Peers>,
    mut queue: ResMut<ReportQueue>,
    mut syncs: ResMut<MapSyncs>,
    mut map: MapEdit,
    mut entropy: ResMut<Entropy>,
    mut offences: ResMut<Offences>,
    mut outbox: ResMut<Outbox>,
    up: Query<&Peer>,
) {
    let (map, entries) = map.parts();
    let mut slice = limits::MAP_SLICE_IDS;
    while let Some(report) = queue.0.pop_front() {
        let items = items_of(&report.content);
        let is_first = slice == limits::MAP_SLICE_IDS;
        // Room for hop 1 is not ours to take.
        if items + NEW_IDS_PER_FRAME > map.vacant() || (items > slice && !is_first) {
            map.ask_for_room(items + 2 * NEW_IDS_PER_FRAME);
            queue.0.push_front(report);
            outbox.wake_at(now.mono_ms);
            break;
        }
        slice = slice.saturating_sub(items);
        let hop_2_of = |sync: &MapSync| {
            map.reporters()
                .rows(sync.reporter, ReportedHop::Two)
                .map(|rows| rows.len())
        };
        // Who has not told everything yet says nothing about how much there is to tell.
        let others = syncs
            .by_node
            .iter()
            .filter(|(node, sync)| **node != report.node && sync.step == SyncStep::Standing);
        let others: Vec<u64> = others.filter_map(|(_, sync)| hop_2_of(sync)).collect();
        let peer = peers
            .by_node(&report.node)
            .and_then(|entity| up.get(entity).ok());
        let current = syncs
            .by_node
            .get_mut(&report.node)
            .filter(|sync| sync.link == Some(report.link));
        let (Some(sync), Some(peer)) = (current, peer) else {
            continue;
        };
        sync.heard_ms = now.mono_ms;
        let mut taker = Taker {
            sync,
            map,
            entries,
            caps: caps_for(peer.is_anchor(), others),
            excess: 0,
            unknown: [0; 2],
        };
        let mut is_all = true;
        match &report.content {
            ReportContent::Diff(diff) => is_all = taker.take_diff(diff),
            ReportContent::Remembered(named) => {
                for (hop, item) in named {
                    taker.add(*hop, item);
                }
            }
            ReportContent::Cells { first_cell, sync } => {
                taker.take_cells(sync.cells.as_slice(), usize::from(*first_cell))
            }
        }
        let (mut excess, [unknown_1, unknown_2]) = (taker.excess, taker.unknown);
        // Of who names more than is taken, some numbers stand for nobody here; what their ids add to a digest cannot be said then.
        let tolerates = sync.is_capped && unknown_2 > 0;
        let is_whole = unknown_1 == 0 && (unknown_2 == 0 && is_all || tolerates);
        let digest = map.reporters().digest(sync.reporter);
        let name = match &report.content {
            ReportContent::Diff(diff) => {
                let at_ms = now.after(entropy.below(sync.retry_ms()));
                after_diff(sync, diff, digest, is_whole, at_ms);
                "RoutingDiff"
            }
            // What is remembered is this node's own word.
            ReportContent::Remembered(_) => {
                excess = 0;
                (sync.is_capped, sync.is_hop_1_capped) = (false, false);
                sync.step = SyncStep::Due {
                    at_ms: now.mono_ms,
                    first_cell: 0,
                };
                "InitialMapSync"
            }
            ReportContent::Cells { sync: answer, .. } => {
                after_cells(sync, answer, digest, *now);
                if unknown_1 + unknown_2 > 0
                    && matches!(sync.step, SyncStep::Due { first_cell: 0, .. })
                {
                    // Asked again as before, it would name them as before.
                    sync.failures = sync.failures.max(limits::RECONCILES_BEFORE_DUMP);
                }
                if sync.failures > limits::RECONCILES_BEFORE_DUMP {
                    // Everything was told, and it is not what the digest says.
                    offences.note(report.link, Refusal::OutOfRange, "InitialMapSync");
                }
                "InitialMapSync"
            }
        };
        if excess > 0 {
            offences.note_many(report.link, Refusal::OutOfRange, name, excess);
        }
    }
    map.settle(entries);
}

/// What peers report.
pub(crate) fn install(frame: &mut Installer<'_>) {
    frame.on(
        Occasions::packet(&RoutingDiff::SPEC),
        Phase::Judge,
        queue_diffs,
    );
    frame.due(
        |glance| at_once_if(!glance.at::<ReportQueue>().0.is_empty()),
        Phase::Judge,
        apply_reports,
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use distsoc_engine::entropy::Entropy;
    use distsoc_engine::wire::{MapCells, MapChanges};

    fn map_with_a_reporter() -> (DiscoveryMap, MapSync) {
        let own = NodeId::from_bytes([1; 32]);
        let mut map = DiscoveryMap::new(own, 100, &mut Entropy::from_seed([1; 32]));
        let reporter = map.add_reporter(NodeId::from_bytes([2; 32]));
        let sync = MapSync {
            seq: Some(0),
            ..MapSync::standing(reporter.expect("the first of them"))
        };
        (map, sync)
    }

    #[test]
    fn what_stands_of_a_reporter_that_names_too_many_stays() {
        let (mut map, mut sync) = map_with_a_reporter();
        let mut entries = vec![MapEntry::VACANT; 64];
        map.add_rows(0..64);
        let reporter = sync.reporter;
        let mut taker = Taker {
            sync: &mut sync,
            map: &mut map,
            entries: &mut entries,
            caps: Caps {
                hop_1: 10,
                hop_2: 10,
            },
            excess: 0,
            unknown: [0; 2],
        };
        let item = |number: u8| MapItem {
            named: Named::Bare(NodeId::from_bytes([number; 32])),
            is_anchor: false,
        };
        let names = |taker: &Taker| {
            let rows = taker.map.reporters().rows(reporter, ReportedHop::Two);
            let rows = rows.into_iter().flatten();
            rows.map(|row| taker.entries[row as usize].node)
                .collect::<BTreeSet<_>>()
        };
        for number in 40..50 {
            assert!(taker.add(ReportedHop::Two, &item(number)).is_some());
        }
        let before = names(&taker);
        assert!(taker.add(ReportedHop::Two, &item(50)).is_none());
        assert!(taker.sync.is_capped);
        // Told again with five more, in every cell: those that have room keep it.
        let hash = taker.map.reporters().hash(reporter);
        let mut cells: Vec<MapCell> = Vec::new();
        for number in 0..CELLS {
            let in_cell = |item: &MapItem| match item.named {
                Named::Bare(node) => hash.cell(&node) == number,
                _ => false,
            };
            cells.push(MapCell {
                number: number as u16,
                hop_1: Vec::new(),
                hop_2: (35..50).map(item).filter(in_cell).collect(),
            });
        }
        taker.take_cells(&cells, 0);
        assert_eq!((before.len(), names(&taker)), (10, before));
    }

    /// Every diff of a reporter that moves a lot may be too long to be whole: that each is followed by a sync is no failing of the syncs.
    #[test]
    fn a_sync_that_ends_well_makes_up_for_the_diffs_before_it() {
        let (_, mut sync) = map_with_a_reporter();
        let now = Now {
            mono_ms: 0,
            wall_ms: 0,
        };
        for seq in 1..20 {
            let diff = RoutingDiff {
                seq,
                digest: seq,
                changes: MapChanges::default(),
            };
            after_diff(&mut sync, &diff, 0, true, 0);
            assert_eq!(sync.failures, 1);
            let answer = InitialMapSync {
                seq,
                digest: seq,
                next_cell: CELLS as u16,
                cells: MapCells::default(),
            };
            after_cells(&mut sync, &answer, seq, now);
            assert_eq!((sync.failures, sync.step), (0, SyncStep::Standing));
        }
    }

    #[test]
    fn a_reporter_may_name_twice_what_the_others_do() {
        assert_eq!(caps_for(false, vec![7_000; 20]).hop_2, 14_000);
        assert_eq!(caps_for(false, vec![20_000; 20]).hop_2, 25_000);
        assert_eq!(
            caps_for(false, vec![3; 20]).hop_2,
            limits::REPORTED_HOP_2_MIN
        );
        assert_eq!(
            caps_for(false, vec![10]).hop_2,
            25_000,
            "too few to compare with"
        );
        assert_eq!(
            (caps_for(false, vec![]).hop_1, caps_for(true, vec![]).hop_1),
            (256, 512)
        );
    }
}
