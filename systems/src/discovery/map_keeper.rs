//! PROTOCOL section 12, `discovery_map`: the map outlives the node. Every two minutes what changed of the connected reporters' sets
//! goes into a journal; a new snapshot replaces both once the journal is a quarter of the last one. At a start what was
//! stored is on the map from the first frame on, named by reporters that are remembered: who of them comes back is reconciled
//! (map_sync), who does not is forgotten after ten minutes.
//!
//! A map on which nobody reports is not stored: the last one that was worth something stays.

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::NodeId;
use distsoc_engine::entropy::Entropy;
use distsoc_engine::io::Write;
use distsoc_engine::limits;
use distsoc_engine::profile::NodeProfile;
use distsoc_engine::refusal::RefusalCounts;
use distsoc_engine::schedule::{AT_ONCE, Occasions, Phase};
use distsoc_engine::world::gossip::{MapSync, MapSyncs};
use distsoc_engine::world::identity::Identity;
use distsoc_engine::world::inbox::Inbox;
use distsoc_engine::world::map::snapshot::{CHUNK_BYTES, JOURNAL_BIT};
use distsoc_engine::world::map::{
    Chunk, DiscoveryMap, MapEdit, MapEntry, MapImage, MapView, Reporter, ReporterSets, Row,
    remember,
};
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::{PeerChange, PeerChanges, peers_changed};
use distsoc_engine::world::storage::Storage;
use std::collections::BTreeSet;
use std::ops::Bound;

/// What of the map is on its way to the disk.
#[derive(Resource, Debug)]
struct Keeper {
    generation: u32,
    /// The next slice is due: mono ms; `None` before the first frame.
    next_ms: Option<u64>,
    /// While something is being written: the reporter that was the last; `Some(None)` before the first.
    writing: Option<Option<NodeId>>,
    chunk: Chunk,
    /// Values of the snapshot so far.
    chunks: u32,
    /// Values of the journal so far; the first one ends the snapshot.
    seq: u32,
    snapshot_bytes: usize,
    journal_bytes: usize,
    stage: Stage,
}

/// What the next writing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// A snapshot that has not begun.
    Snapshot,
    /// The rest of one.
    Unfinished,
    /// What changed since.
    Journal,
}

impl Keeper {
    fn new(generation: u32) -> Self {
        Self {
            generation,
            next_ms: None,
            writing: None,
            chunk: Chunk::default(),
            chunks: 0,
            seq: 0,
            snapshot_bytes: 0,
            journal_bytes: 0,
            stage: Stage::Snapshot,
        }
    }

    /// A new snapshot is to begin: the old one is stale, or the disk did not take all of this one.
    fn begin_anew(&mut self) {
        *self = Self {
            next_ms: self.next_ms,
            ..Self::new(self.generation.wrapping_add(1))
        };
    }

    /// Whether the journal is worth a new snapshot.
    fn is_stale(&self) -> bool {
        self.stage == Stage::Journal
            && self.journal_bytes > limits::MAP_JOURNAL_BYTES_MIN.max(self.snapshot_bytes / 4)
    }

    /// Hands a value out.
    fn hand_out(&mut self, own: &NodeId, is_complete: bool, outbox: &mut Outbox) {
        let chunk = std::mem::take(&mut self.chunk);
        let is_journal = is_complete || self.stage == Stage::Journal;
        let bytes = match self.stage {
            Stage::Journal => &mut self.journal_bytes,
            _ => &mut self.snapshot_bytes,
        };
        *bytes += chunk.len();
        let place = match is_journal {
            true => JOURNAL_BIT | self.seq,
            false => self.chunks,
        };
        match is_journal {
            true => self.seq += 1,
            false => self.chunks += 1,
        }
        let complete = is_complete.then_some(self.chunks);
        let row = chunk.seal(own, self.generation, place, complete);
        outbox.store(Write::MapRow(row));
    }

    /// The image on the disk is whole at the end of this value.
    fn complete(&mut self, own: &NodeId, outbox: &mut Outbox) {
        if self.stage != Stage::Journal {
            self.hand_out(own, true, outbox);
            self.stage = Stage::Journal;
            let generation = self.generation;
            outbox.store(Write::MapOnly { generation });
        } else if !self.chunk.is_empty() {
            self.hand_out(own, true, outbox);
        }
        self.writing = None;
    }
}

/// Writes one slice; whether that was the last but for what changed in the meantime.
fn write_slice(
    keeper: &mut Keeper,
    syncs: &MapSyncs,
    map: &mut DiscoveryMap,
    entries: &[MapEntry],
) -> bool {
    let after = keeper.writing.flatten();
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let mut left = limits::MAP_SLICE_IDS;
    for (node, sync) in syncs.by_node.range((from, Bound::Unbounded)) {
        if is_kept(sync, map) {
            let written = map.write_reporter(sync.reporter, left, entries, &mut keeper.chunk);
            left = left.saturating_sub(written.rows);
            if !written.is_all {
                return false;
            }
        }
        keeper.writing = Some(Some(*node));
        if left == 0 {
            return false;
        }
    }
    true
}

/// Reporters are stored while they are connected, and stay so until they are forgotten.
fn is_kept(sync: &MapSync, map: &DiscoveryMap) -> bool {
    sync.link.is_some() || map.is_written(sync.reporter)
}

/// Everything that is left, in one frame: since the last slice of each reporter, not much.
fn write_all(keeper: &mut Keeper, syncs: &MapSyncs, map: &mut DiscoveryMap, entries: &[MapEntry]) {
    for sync in syncs.by_node.values() {
        if is_kept(sync, map) {
            map.write_reporter(sync.reporter, usize::MAX, entries, &mut keeper.chunk);
        }
    }
    map.write_rest(entries, &mut keeper.chunk);
}

fn keep(
    now: Res<Now>,
    inbox: Res<Inbox>,
    syncs: Res<MapSyncs>,
    storage: Res<Storage>,
    mut keeper: ResMut<Keeper>,
    mut entropy: ResMut<Entropy>,
    mut map: MapEdit,
    mut outbox: ResMut<Outbox>,
) {
    let keeper = &mut *keeper;
    let first_ms = || now.after(entropy.jittered(limits::MAP_SNAPSHOT_FIRST_MS));
    let due_ms = *keeper.next_ms.get_or_insert_with(first_ms);
    let is_last = inbox.stopping && keeper.stage == Stage::Journal;
    if now.mono_ms < due_ms && !is_last {
        outbox.wake_at(due_ms);
        return;
    }
    if storage.trouble.is_some() && keeper.stage != Stage::Snapshot {
        keeper.begin_anew();
    }
    let pause_ms = match keeper.writing {
        _ if !storage.takes_more() => limits::MAP_JOURNAL_MS,
        None if syncs.by_node.values().all(|sync| sync.link.is_none()) => limits::MAP_JOURNAL_MS,
        _ => {
            let (map, entries) = map.parts();
            write(keeper, &syncs, map, entries, is_last, &mut outbox)
        }
    };
    let next_ms = now.after(pause_ms);
    keeper.next_ms = Some(next_ms);
    outbox.wake_at(next_ms);
}

/// Writes what is due now; how long until the next time.
fn write(
    keeper: &mut Keeper,
    syncs: &MapSyncs,
    map: &mut DiscoveryMap,
    entries: &[MapEntry],
    is_last: bool,
    outbox: &mut Outbox,
) -> u64 {
    if keeper.writing.is_none() {
        if keeper.is_stale() && !is_last {
            keeper.begin_anew();
        }
        if keeper.stage == Stage::Snapshot {
            map.begin_snapshot();
            keeper.stage = Stage::Unfinished;
        }
        keeper.writing = Some(None);
    }
    let own = *map.own();
    if is_last || write_slice(keeper, syncs, map, entries) {
        write_all(keeper, syncs, map, entries);
        keeper.complete(&own, outbox);
        return limits::MAP_JOURNAL_MS;
    }
    if keeper.chunk.len() >= CHUNK_BYTES {
        keeper.hand_out(&own, false, outbox);
    }
    limits::MAP_STORE_SLICE_MS
}

/// Reporters of the last run that have not come back.
#[derive(Resource, Debug, Default)]
struct Remembered {
    nodes: BTreeSet<NodeId>,
    is_dated: bool,
}

/// Remembered reporters are forgotten in time, and sooner where those of this run need the room.
fn age_out(
    now: Res<Now>,
    changes: Res<PeerChanges>,
    profile: Res<NodeProfile>,
    map: MapView,
    mut remembered: ResMut<Remembered>,
    mut syncs: ResMut<MapSyncs>,
) {
    // Who comes back brings hardly anything new.
    let is_new = |change: &&PeerChange| match change {
        PeerChange::Up { node, .. } => {
            !remembered.nodes.contains(node) && syncs.by_node.contains_key(node)
        }
        PeerChange::Down { .. } => false,
    };
    let newcomers = changes.0.iter().filter(is_new).count();
    let is_away = |syncs: &MapSyncs, node: &NodeId| {
        let sync = syncs.by_node.get(node);
        sync.is_some_and(|sync| sync.link.is_none())
    };
    remembered.nodes.retain(|node| is_away(&syncs, node));
    if !remembered.is_dated {
        remembered.is_dated = true;
        // They go as those do who have just gone, but later.
        let gone_ms = now.after(limits::REMEMBERED_MS - limits::REPORTER_GRACE_MS);
        for node in &remembered.nodes {
            if let Some(sync) = syncs.by_node.get_mut(node) {
                sync.gone_ms = gone_ms;
            }
        }
    }
    let ids = map.map.counts().total() + newcomers * limits::REPORT_IDS_TYPICAL;
    let lack_ids = ids.saturating_sub(profile.map_entries_max);
    let reporters = map.map.reporters().iter().count() + limits::REPORTERS_SPARE;
    let lack = reporters
        .saturating_sub(ReporterSets::REPORTERS_MAX)
        .max(lack_ids.div_ceil(limits::REPORT_IDS_TYPICAL).min(newcomers));
    for _ in 0..lack {
        let Some(node) = remembered.nodes.pop_first() else {
            break;
        };
        if let Some(sync) = syncs.by_node.get_mut(&node) {
            sync.gone_ms = now.mono_ms.saturating_sub(limits::REPORTER_GRACE_MS);
        }
    }
}

/// A reporter of the last run, away since before this one.
fn remembered_sync(reporter: Reporter) -> MapSync {
    MapSync {
        gone_ms: u64::MAX / 2,
        ..MapSync::standing(reporter)
    }
}

/// Takes in what was stored, and begins to store.
pub(crate) fn install(frame: &mut Installer<'_>) {
    let rows = std::mem::take(&mut frame.restored.map);
    let own = frame.world.resource::<Identity>().node_id();
    let entries_max = frame.world.resource::<NodeProfile>().map_entries_max;
    // Rows are never given back, and hop 2 is not bound by the map's size.
    let rows_max =
        2 * entries_max + ReporterSets::REPORTERS_MAX * 2 * limits::REPORTED_HOP_1_MAX as usize;
    let newest = rows.iter().map(|row| row.generation).max();
    let next = newest.map_or(0, |newest| newest.wrapping_add(1));
    let mut remembered = Remembered::default();
    let mut only = next;
    match MapImage::decode(&rows, &own, rows_max as Row) {
        Ok(Some(image)) => {
            only = image.generation;
            let reporters_max = ReporterSets::REPORTERS_MAX - limits::REPORTERS_SPARE;
            let reporters = remember(frame.world, &image, reporters_max);
            let mut syncs = frame.world.resource_mut::<MapSyncs>();
            for (node, reporter) in reporters {
                syncs.by_node.insert(node, remembered_sync(reporter));
                remembered.nodes.insert(node);
            }
        }
        Ok(None) => {}
        Err(refusal) => {
            let mut counts = frame.world.resource_mut::<RefusalCounts>();
            counts.count(refusal, "discovery_map");
        }
    }
    if rows.iter().any(|row| row.generation != only) {
        let mut outbox = frame.world.resource_mut::<Outbox>();
        outbox.store(Write::MapOnly { generation: only });
    }
    frame.world.insert_resource(remembered);
    frame.world.insert_resource(Keeper::new(next));
    frame.due(
        |glance| match glance.at::<Remembered>() {
            remembered if remembered.nodes.is_empty() => None,
            remembered if remembered.is_dated => peers_changed(glance),
            _ => Some(AT_ONCE),
        },
        Phase::Judge,
        age_out,
    );
    frame.on_or_due(
        Occasions::STOP,
        |glance| glance.at::<Keeper>().next_ms.or(Some(AT_ONCE)),
        Phase::Plan,
        keep,
    );
}
