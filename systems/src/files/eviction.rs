//! PROTOCOL section 7, quota: when the disk is nearly full, what is worth least goes, until there is room again. Own content never
//! does, nor a file whose blobs are on their way; what goes is in no list of things wanted until there is much room.

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::{AuthorStanding, BlobHash, KeepFacts, KeepPriority, PostId};
use distsoc_engine::io::{BatchId, DiskUsage, Write};
use distsoc_engine::limits;
use distsoc_engine::profile::NodeProfile;
use distsoc_engine::schedule::{Occasions, Phase};
use distsoc_engine::world::authors::ListRechecks;
use distsoc_engine::world::blobs::BlobBook;
use distsoc_engine::world::fetches::Fetches;
use distsoc_engine::world::files::{Archive, FirstToGo, KeepFloor, still_holds};
use distsoc_engine::world::inbox::Inbox;
use distsoc_engine::world::keep_order::{KeepOrder, KeepRow};
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::storage::Storage;

/// What the disk did not take is handed in again after this.
const RETRY_MS: u64 = 10_000;
/// A disk that goes on refusing is relieved this often at most: it may be full of what is not ours.
const RELIEF_MS: u64 = 10 * 60 * 1000;
/// By this share of what it holds.
const RELIEF_SHARE: u64 = 20;
/// What went is taken in again below this, percent.
const FLOOR_ENDS_PERCENT: u64 = 80;
/// How often in a frame it is chosen anew because holders of what was chosen are to be asked first.
const DOUBT_ROUNDS_MAX: usize = 4;
/// Files that go in one batch, at most.
const BATCH_MAX: usize = 1_024;
/// Holders that are heard of no more are forgotten this often.
const COPIES_TURN_MS: u64 = 60 * 60 * 1000;

/// What goes, on its way from the disk.
#[derive(Resource, Debug, Default)]
struct Evicting {
    under_way: Option<(BatchId, Vec<Write>)>,
    /// What the disk did not take, with the time to try again: mono ms.
    retry: Option<(Vec<Write>, u64)>,
    /// The disk took the last of it: how often it must have told how full it is by then, and until when to wait for that, mono ms.
    settled: Option<(u64, u64)>,
    relieved_ms: Option<u64>,
    has_begun: bool,
    copies_turned_ms: Option<u64>,
    /// Blobs of the disk that no file names.
    orphans: Vec<BlobHash>,
}

/// How much must go so that a share of room is in use: nothing below the mark at which eviction begins.
fn lacking(used: u64, room: u64) -> u64 {
    let mark = |percent: u64| (u128::from(room) * u128::from(percent) / 100) as u64;
    match room > 0 && used > 0 && used >= mark(limits::EVICTION_BEGINS_PERCENT) {
        true => used - mark(limits::EVICTION_ENDS_PERCENT),
        false => 0,
    }
}

/// How full the fuller share is, percent.
fn fullness(usage: &DiskUsage, files: usize, files_max: usize) -> u64 {
    let percent = |used: u64, room: u64| match room {
        0 => 0,
        _ => (u128::from(used) * 100 / u128::from(room)) as u64,
    };
    let rows = percent(usage.row_bytes, usage.row_room_bytes);
    let blobs = percent(usage.blob_bytes, usage.blob_room_bytes);
    rows.max(blobs).max(percent(files as u64, files_max as u64))
}

fn settle(
    now: Res<Now>,
    storage: Res<Storage>,
    mut inbox: ResMut<Inbox>,
    mut evicting: ResMut<Evicting>,
) {
    let under_way = &mut evicting.under_way;
    let ends = inbox.take_batches(|batch| under_way.take_if(|(id, _)| *id == batch));
    for ((_, writes), result) in ends {
        let (told, just_now) = storage.usage_told;
        evicting.settled = Some((told + u64::from(!just_now), now.after(RETRY_MS)));
        if result.is_err() {
            evicting.retry = Some((writes, now.after(RETRY_MS)));
        }
    }
}

/// Files that go, without those that would go only for copies that were seen and not proved of late, and are worth much: what was
/// seen does not count for these before it is. `None` where more are to be looked at than a frame has time for.
fn choose_proved(
    archive: &mut Archive,
    fetches: &Fetches,
    bytes: u64,
    count: usize,
) -> Option<Vec<KeepRow>> {
    let now_s = archive.now_s();
    // Each may bring another to the front, which then is looked at in its turn: in the next frame, where there are many.
    for _ in 0..DOUBT_ROUNDS_MAX {
        let chosen = choose_freeing(archive, fetches, bytes, count);
        let doubtful = chosen.iter().filter_map(|row| {
            let candidate = archive.order.get(*row)?;
            // As if its author were followed: holders who are asked must not see a difference.
            let alone = KeepFacts {
                copies: 0,
                standing: AuthorStanding::Followed,
                ..candidate.facts(now_s)
            };
            let is_worth_much = alone.priority().is_at_least(limits::PROOF_WORTH_MIN);
            let is_unproved = archive.copies.is_unproved(&candidate.id, now_s);
            (is_worth_much && is_unproved).then_some(candidate.id)
        });
        let doubtful: Vec<PostId> = doubtful.collect();
        if doubtful.is_empty() {
            return Some(chosen);
        }
        for id in doubtful {
            archive.copies.doubt(id);
            archive.judge_file(&id, None);
        }
    }
    None
}

/// Files that go for so many bytes, or so many files.
fn choose(archive: &Archive, fetches: &Fetches, bytes: u64, count: usize) -> Vec<KeepRow> {
    let is_free = |row: KeepRow| {
        let id = archive.order.get(row).map(|candidate| candidate.id);
        id.is_some_and(|id| {
            let file = archive.get(&id);
            file.is_some_and(|file| !file.row.blobs.iter().any(|blob| fetches.is_under_way(blob)))
        })
    };
    let mut chosen = archive.order.choose(bytes, is_free);
    if chosen.len() > BATCH_MAX {
        let id = |row: KeepRow| archive.order.get(row).map(|candidate| candidate.id);
        chosen.sort_by_cached_key(|row| (archive.order.priority(*row), id(*row)));
        chosen.truncate(BATCH_MAX);
    }
    if chosen.len() < count.min(BATCH_MAX) {
        chosen.clear();
        archive.order.least_worth(|row, _| {
            if is_free(row) {
                chosen.push(row);
            }
            chosen.len() < count.min(BATCH_MAX)
        });
    }
    chosen
}

/// Files whose going frees so many bytes of the disk: what of their blobs is not here yet frees none.
fn choose_freeing(archive: &Archive, fetches: &Fetches, bytes: u64, count: usize) -> Vec<KeepRow> {
    let missing = |row: &KeepRow| {
        let candidate = archive.order.get(*row);
        let file = candidate.and_then(|candidate| archive.get(&candidate.id));
        file.map_or(0, |file| archive.missing_bytes(file))
    };
    let (mut wanted, mut before) = (bytes, 0);
    loop {
        let chosen = choose(archive, fetches, wanted, count);
        let lacking: u64 = chosen.iter().map(missing).sum();
        // More of them are looked for as long as there are more.
        if bytes + lacking <= wanted || chosen.len() == before || chosen.len() >= BATCH_MAX {
            return chosen;
        }
        (wanted, before) = (bytes + lacking, chosen.len());
    }
}

/// The place of a file in the order of going.
fn place_of(order: &KeepOrder, row: KeepRow) -> Option<(KeepPriority, PostId)> {
    Some((order.priority(row)?, order.get(row)?.id))
}

fn first_to_go(archive: &Archive) -> Option<FirstToGo> {
    let mut first = None;
    archive.order.least_worth(|row, _| {
        first = place_of(&archive.order, row);
        false
    });
    let (worth, id) = first?;
    let file = archive.get(&id)?;
    let came = archive.worth_of(&file.row.author, file.row.created_at_s);
    Some(FirstToGo { id, worth, came })
}

/// The disk, what is on it, and what must go.
#[derive(bevy_ecs::system::SystemParam)]
struct Shelf<'w, 's> {
    now: Res<'w, Now>,
    profile: Res<'w, NodeProfile>,
    storage: ResMut<'w, Storage>,
    fetches: Res<'w, Fetches>,
    evicting: ResMut<'w, Evicting>,
    archive: Archive<'w, 's>,
    floor: ResMut<'w, KeepFloor>,
    rechecks: ResMut<'w, ListRechecks>,
    outbox: ResMut<'w, Outbox>,
}

impl Shelf<'_, '_> {
    /// What stored lists name and had no place may have one now.
    fn recheck_all(&mut self) {
        let kept = self.archive.kept.iter().filter(|author| author.is_kept());
        self.rechecks.0.extend(kept.map(|author| author.node));
        self.outbox.wake_at(self.now.mono_ms);
    }

    /// Holders that are heard of no more count no more, and what is kept is worth less from one window to the next: what was worth no
    /// place has one then.
    fn let_time_pass(&mut self) {
        let now_s = self.archive.now_s();
        for id in self.archive.copies.turn(now_s) {
            self.archive.judge_file(&id, None);
        }
        if self.floor.least.is_none() {
            return;
        }
        self.archive.order.turn(now_s);
        let falls = match first_to_go(&self.archive) {
            Some(first) => self.floor.fall_to(first),
            None => true,
        };
        if falls {
            self.recheck_all();
        }
    }

    /// What the disk did not take is handed in again when it is time; true while there is such.
    fn retries(&mut self) -> bool {
        let Some((mut writes, at_ms)) = self.evicting.retry.take() else {
            return false;
        };
        if at_ms > self.now.mono_ms {
            self.outbox.wake_at(at_ms);
            self.evicting.retry = Some((writes, at_ms));
            return true;
        }
        writes.retain(|write| still_holds(write, &self.archive.index, &self.archive.blobs));
        self.hand_out(writes);
        true
    }

    /// Whether what went is not yet counted: more would go for it.
    fn is_unsettled(&mut self) -> bool {
        let Some((told, until_ms)) = self.evicting.settled else {
            return false;
        };
        let waits = self.storage.usage_told.0 < told && self.now.mono_ms < until_ms;
        match waits {
            true => self.outbox.wake_at(until_ms),
            false => self.evicting.settled = None,
        }
        waits
    }

    /// Bytes that must go, and files.
    fn lacking(&mut self) -> (u64, usize) {
        let usage = self.storage.usage;
        let mut bytes = lacking(usage.row_bytes, usage.row_room_bytes)
            .max(lacking(usage.blob_bytes, usage.blob_room_bytes))
            .max(self.storage.own_blob_bytes_lacking());
        let (files, files_max) = (self.archive.index.len(), self.profile.files_max);
        let relieved_ms = self.evicting.relieved_ms;
        let may_relieve = relieved_ms.is_none_or(|at_ms| self.now.mono_ms >= at_ms + RELIEF_MS);
        if self.storage.is_full() && may_relieve {
            self.evicting.relieved_ms = Some(self.now.mono_ms);
            // One refusal, one relief: where there is still no room, the next slice says so.
            self.storage.blobs_refused = false;
            bytes = bytes.max((usage.row_bytes + usage.blob_bytes) / RELIEF_SHARE);
        }
        (bytes, lacking(files as u64, files_max as u64) as usize)
    }

    /// How full the fuller share is, percent.
    fn fullness(&self) -> u64 {
        let files = self.archive.index.len();
        fullness(&self.storage.usage, files, self.profile.files_max)
    }

    /// The least worth go, for so many bytes and files.
    fn let_go(&mut self, bytes: u64, count: usize) -> Vec<Write> {
        let now_s = self.archive.now_s();
        self.archive.order.turn(now_s);
        let archive = &mut self.archive;
        let Some(chosen) = choose_proved(archive, &self.fetches, bytes, count) else {
            self.outbox.wake_at(self.now.mono_ms);
            return Vec::new();
        };
        let mut writes = Vec::new();
        for row in chosen {
            let Some((went, id)) = place_of(&archive.order, row) else {
                continue;
            };
            if let Some(file) = archive.get(&id) {
                let came = archive.worth_of(&file.row.author, file.row.created_at_s);
                self.floor.let_go(id, came, went, now_s);
            }
            writes.extend(archive.forget(&id));
        }
        writes
    }

    /// Blobs of the disk that no file names, without those that one names by now.
    fn orphans(&mut self) -> Vec<Write> {
        let orphans = std::mem::take(&mut self.evicting.orphans).into_iter();
        let writes = orphans.map(Write::ForgetBlob);
        writes
            .filter(|write| still_holds(write, &self.archive.index, &self.archive.blobs))
            .collect()
    }

    fn hand_out(&mut self, writes: Vec<Write>) {
        let batch = self.outbox.store_behind(writes.clone());
        self.evicting.under_way = Some((batch, writes));
    }
}

fn evict(mut shelf: Shelf) {
    let now_ms = shelf.now.mono_ms;
    let turned_ms = shelf.evicting.copies_turned_ms;
    if turned_ms.is_none_or(|at_ms| now_ms >= at_ms + COPIES_TURN_MS) {
        shelf.evicting.copies_turned_ms = Some(now_ms);
        shelf.let_time_pass();
    }
    let over = shelf.archive.blobs.take_overdue(now_ms);
    shelf.evicting.orphans.extend(over);
    if shelf.evicting.under_way.is_some() || shelf.retries() || shelf.is_unsettled() {
        return;
    }
    let orphans = shelf.orphans();
    if !orphans.is_empty() {
        // They go first: no file does for the room that these still take.
        return shelf.hand_out(orphans);
    }
    let (bytes, count) = shelf.lacking();
    let is_first = !std::mem::replace(&mut shelf.evicting.has_begun, true);
    if is_first && shelf.fullness() >= limits::EVICTION_ENDS_PERCENT {
        let now_s = shelf.archive.now_s();
        shelf.archive.order.turn(now_s);
        if let Some(first) = first_to_go(&shelf.archive) {
            // What was written after the newest that is here has not been here.
            let until_s = shelf.archive.order.newest_written_s();
            shelf.floor.begin(first, until_s);
        }
    }
    if bytes > 0 || count > 0 {
        let writes = shelf.let_go(bytes, count);
        if !writes.is_empty() {
            shelf.hand_out(writes);
        }
    } else if shelf.floor.least.is_some() && shelf.fullness() < FLOOR_ENDS_PERCENT {
        shelf.floor.end();
        shelf.recheck_all();
    }
}

/// What goes when the disk is nearly full.
pub(crate) fn install(frame: &mut Installer<'_>) {
    let stored = std::mem::take(&mut frame.restored.blobs);
    let mut book = frame.world.resource_mut::<BlobBook>();
    let orphans = stored.iter().filter(|blob| !book.restore(blob));
    let evicting = Evicting {
        orphans: orphans.map(|blob| blob.hash).collect(),
        ..Evicting::default()
    };
    frame.world.insert_resource(evicting);
    frame.on(Occasions::BATCH, Phase::Ingest, settle);
    frame.add(Phase::Plan, evict);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_the_upper_mark_to_the_lower() {
        assert_eq!(lacking(949, 1_000), 0);
        assert_eq!(lacking(950, 1_000), 50);
        assert_eq!(lacking(951, 1_000), 51);
        assert_eq!(lacking(2_000, 1_000), 1_100);
        assert_eq!(lacking(5, 0), 0, "nothing is known of the disk yet");
        assert_eq!(
            lacking(u64::MAX, u64::MAX),
            u64::MAX - u64::MAX / 10 * 9 - 4
        );
    }
}
