//! PROTOCOL section 7, fetching: the blobs of stored posts, newest first, from several holders at once, each slice proved before it
//! is stored. What is on the disk is not asked for again, after a cut or a kill -9 either.

mod choice;

use crate::Installer;
use bevy_ecs::prelude::*;
use choice::{Choice, Paced, Stalled, choose_holder, known_holders, pause_ms};
use distsoc_engine::clock::Now;
use distsoc_engine::domain::{BlobRef, NodeId, PostId, Slice, Verified};
use distsoc_engine::entropy::Entropy;
use distsoc_engine::io::{LinkId, RequestFailure, Write};
use distsoc_engine::limits;
use distsoc_engine::refusal::Refusal;
use distsoc_engine::schedule::{Glance, Occasions, Phase, at_once_if};
use distsoc_engine::wire::{FileRequest, FileResponse, Packet};
use distsoc_engine::world::blobs::{BlobBook, BlobPart};
use distsoc_engine::world::copies::Holder;
use distsoc_engine::world::fetches::{Fetch, Fetches};
use distsoc_engine::world::files::{Archive, StoredFile};
use distsoc_engine::world::inbox::Inbox;
use distsoc_engine::world::keepers::{Keepers, Lack, Starving};
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::{Link, Offences, Peer, PeerChanges, Peers};
use distsoc_engine::world::storage::Storage;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, Range};

/// Blobs looked at in one frame, at most: the newest first, and half of them in turn, so that what is waited for keeps nothing waiting.
const LOOKED_AT_MAX: usize = 64;
/// Of these, of one author.
const LOOKED_AT_OF_AUTHOR_MAX: usize = 16;
/// Blobs passed on the way to either half, at most, those that are looked at among them.
const PASSED_MAX: usize = 1_024;

/// While some of a blob comes, those who had nothing of it are asked again after this, ms: they may be fetching it themselves.
const SWAP_MS: u64 = 1_000;
/// How often those who have no room for an answer are waited for in one round, before it ends without them.
const CROWDED_PER_ROUND_MAX: u32 = 4;

/// A blob that is not whole.
#[derive(Debug)]
struct Lacking {
    post: PostId,
    author: NodeId,
    written_s: u32,
    /// The slice where asking for it begins: elsewhere than others begin, so that those who fetch it at once have something for each other.
    first: u32,
    /// Peers that did not have it, in this round.
    tried: BTreeSet<NodeId>,
    /// When these were last allowed another time, since some of it came: mono ms.
    swapped_ms: u64,
    strangers: usize,
    /// How often somebody who was asked had no room for an answer, in this round.
    crowded: u32,
    /// It waits for somebody who is left alone for a little while.
    is_put_off: bool,
    /// Rounds in which nobody had it.
    fruitless: u32,
    /// Not before: mono ms; `None` for now.
    from_ms: Option<u64>,
}

impl Lacking {
    fn of(file: &StoredFile, first: u32) -> Self {
        Self {
            post: file.row.id,
            author: file.row.author,
            written_s: file.row.created_at_s,
            first,
            tried: BTreeSet::new(),
            swapped_ms: 0,
            strangers: 0,
            crowded: 0,
            is_put_off: false,
            fruitless: 0,
            from_ms: None,
        }
    }

    /// Some of it came.
    fn came(&mut self, now: Now) {
        (self.fruitless, self.crowded) = (0, 0);
        if self.swapped_ms + SWAP_MS <= now.mono_ms {
            self.swapped_ms = now.mono_ms;
            self.tried.clear();
        }
    }
}

/// What is to be fetched.
#[derive(Resource, Debug, Default)]
struct ToFetch {
    blobs: BTreeMap<BlobRef, Lacking>,
    /// Those to ask for now, of the newest post first.
    ready: BTreeSet<(Reverse<u32>, BlobRef)>,
    /// The last of these that had its turn, where others come after it.
    turn: Option<(Reverse<u32>, BlobRef)>,
    /// The others, by when they are: mono ms.
    waiting: BTreeSet<(u64, BlobRef)>,
    /// What the disk may take, as of the last frame.
    budget_bytes: u64,
}

impl ToFetch {
    fn add(&mut self, blob: BlobRef, lacking: Lacking) {
        if !self.blobs.contains_key(&blob) {
            self.ready.insert((Reverse(lacking.written_s), blob));
            self.blobs.insert(blob, lacking);
        }
    }

    fn remove(&mut self, blob: &BlobRef) -> Option<Lacking> {
        let lacking = self.blobs.remove(blob)?;
        self.ready.remove(&(Reverse(lacking.written_s), *blob));
        self.waiting
            .remove(&(lacking.from_ms.unwrap_or_default(), *blob));
        Some(lacking)
    }

    /// It is asked for at this time, or now.
    fn set_from(&mut self, blob: &BlobRef, from_ms: Option<u64>) {
        let Some(mut lacking) = self.remove(blob) else {
            return;
        };
        match from_ms {
            Some(at_ms) => self.waiting.insert((at_ms, *blob)),
            None => self.ready.insert((Reverse(lacking.written_s), *blob)),
        };
        lacking.from_ms = from_ms;
        self.blobs.insert(*blob, lacking);
    }

    /// Those whose time has come are asked for; gives back when the next is.
    fn wake(&mut self, now_ms: u64) -> Option<u64> {
        while let Some((at_ms, blob)) = self.waiting.first().copied() {
            if at_ms > now_ms {
                return Some(at_ms);
            }
            self.set_from(&blob, None);
        }
        None
    }
}

/// A slice of a blob where asking for it may begin.
fn first_of(blob: &BlobRef, entropy: &mut Entropy) -> u32 {
    let requests = blob.slices().div_ceil(limits::FILE_SLICES_MAX);
    entropy.below(requests.into()) as u32 * limits::FILE_SLICES_MAX
}

/// Files that came: their blobs are wanted.
fn note_new(mut archive: Archive, mut to_fetch: ResMut<ToFetch>, mut entropy: ResMut<Entropy>) {
    if archive.blobs.news.is_empty() {
        return;
    }
    for id in std::mem::take(&mut archive.blobs.news) {
        let Some(file) = archive.get(&id) else {
            continue;
        };
        for blob in &file.row.blobs {
            let part = archive.blobs.get(blob);
            if part.is_some_and(|part| !part.is_whole()) {
                let first = first_of(blob, &mut entropy);
                to_fetch.add(*blob, Lacking::of(file, first));
            }
        }
    }
}

fn take_answers(
    now: Res<Now>,
    mut inbox: ResMut<Inbox>,
    mut fetches: ResMut<Fetches>,
    mut to_fetch: ResMut<ToFetch>,
    mut archive: Archive,
    mut keepers: ResMut<Keepers>,
    mut stalled: ResMut<Stalled>,
    mut paced: ResMut<Paced>,
    mut outbox: ResMut<Outbox>,
    mut offences: ResMut<Offences>,
    links: Query<&Link>,
) {
    let requests = &mut fetches.requests;
    let ends = inbox.take_responses(|request| requests.remove(&request));
    for (fetch, result) in ends {
        let slices = match result {
            Ok(Packet::FileResponse(response)) => checked(&fetch, response),
            Err(RequestFailure::Refused(refusal)) => Err(refusal),
            // It may have it, and no room for an answer now; or it is gone.
            Err(RequestFailure::NoResponse | RequestFailure::LinkDown) => {
                stalled.note(fetch.holder, limits::CROWDED_PAUSE_MS, *now);
                if let Some(lacking) = to_fetch.blobs.get_mut(&fetch.blob) {
                    lacking.crowded += 1;
                }
                continue;
            }
            Err(RequestFailure::TimedOut) => {
                stalled.note(fetch.holder, limits::FETCH_PAUSE_MS, *now);
                paced.answered(&fetch.holder, limits::LARGE_RESPONSE_TIMEOUT_MS);
                Ok(Vec::new())
            }
            Ok(_) => Err(Refusal::NotWanted),
        };
        let life = archive.blobs.get(&fetch.blob).map(|part| part.life());
        match (slices, life) {
            (Ok(slices), Some(life)) if !slices.is_empty() => {
                stalled.forgive(&fetch.holder);
                paced.answered(&fetch.holder, now.mono_ms.saturating_sub(fetch.asked_ms));
                let end = fetch.slices.start + slices.len() as u32;
                let writes = slices.into_iter().map(Write::Slice).collect();
                let batch = outbox.store_behind(writes);
                fetches
                    .writes
                    .insert(batch, (fetch.blob, fetch.slices.start..end, life));
                if let Some(lacking) = to_fetch.blobs.get_mut(&fetch.blob) {
                    lacking.came(*now);
                    keepers.saw(lacking.author, fetch.holder);
                    let post = lacking.post;
                    let remote = links.iter().find(|link| link.id == fetch.link);
                    let remote = remote.filter(|_| archive.index.contains(&post));
                    if let Some(link) = remote {
                        let holder = Holder::of(fetch.holder, link.remote.ip());
                        if archive
                            .copies
                            .saw(post, holder, (now.wall_ms / 1000) as u32)
                        {
                            archive.judge_file(&post, None);
                        }
                    }
                }
            }
            (nothing, _) => {
                if let Err(refusal) = nothing {
                    offences.note(fetch.link, refusal, "FileResponse");
                }
                if let Some(lacking) = to_fetch.blobs.get_mut(&fetch.blob) {
                    lacking.tried.insert(fetch.holder);
                }
            }
        }
    }
}

/// The slices of a response that were asked for.
fn checked(fetch: &Fetch, response: FileResponse) -> Result<Vec<Verified<Slice>>, Refusal> {
    let is_asked = response.blob == fetch.blob
        && response.first == fetch.slices.start
        && response.slices.len() <= fetch.slices.len();
    is_asked
        .then_some(response.slices)
        .ok_or(Refusal::NotWanted)
}

fn settle(
    now: Res<Now>,
    mut inbox: ResMut<Inbox>,
    mut fetches: ResMut<Fetches>,
    mut to_fetch: ResMut<ToFetch>,
    mut archive: Archive,
    mut storage: ResMut<Storage>,
) {
    let writes = &mut fetches.writes;
    let ends = inbox.take_batches(|batch| writes.remove(&batch));
    for ((blob, slices, life), result) in ends {
        match result {
            Ok(()) => {
                storage.blobs_refused = false;
                archive.blobs.add(&blob, slices, life);
                let part = archive.blobs.get(&blob);
                if part.is_some_and(|part| part.is_whole()) {
                    to_fetch.remove(&blob);
                }
            }
            Err(trouble) => {
                storage.blobs_refused |= trouble.lacks_room();
                to_fetch.set_from(&blob, Some(now.after(limits::FETCH_PAUSE_MS)));
            }
        }
    }
}

/// The first run of a blob that is neither here nor on its way, from a slice on and round to it, of a request's length at most.
fn next_run(part: &BlobPart<'_>, fetches: &Fetches, first: u32) -> Option<Range<u32>> {
    run_from(part, fetches, first).or_else(|| run_from(part, fetches, 0))
}

fn run_from(part: &BlobPart<'_>, fetches: &Fetches, mut from: u32) -> Option<Range<u32>> {
    let blob = part.blob();
    loop {
        let run = part.missing_from(from)?;
        let busy = fetches
            .runs_of(&blob)
            .find(|busy| busy.contains(&run.start));
        match busy {
            Some(busy) => from = busy.end,
            None => {
                let next_busy = fetches
                    .runs_of(&blob)
                    .filter(|busy| busy.start > run.start)
                    .map(|busy| busy.start)
                    .min();
                let end = run
                    .end
                    .min(run.start + limits::FILE_SLICES_MAX)
                    .min(next_busy.unwrap_or(u32::MAX));
                return Some(run.start..end);
            }
        }
    }
}

/// Whom blobs are asked of, and with what room.
#[derive(bevy_ecs::system::SystemParam)]
struct Holders<'w, 's> {
    now: Res<'w, Now>,
    storage: Res<'w, Storage>,
    keepers: Res<'w, Keepers>,
    stalled: Res<'w, Stalled>,
    paced: ResMut<'w, Paced>,
    starving: ResMut<'w, Starving>,
    fetches: ResMut<'w, Fetches>,
    archive: Archive<'w, 's>,
    entropy: ResMut<'w, Entropy>,
    outbox: ResMut<'w, Outbox>,
}

/// What becomes of a blob that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// It is asked for, as far as there is room.
    Stays,
    /// It is looked at again at this time: mono ms.
    At(u64),
    /// It is not wanted any more.
    Gone,
}

/// What was looked at in a frame.
#[derive(Debug, Default)]
struct Looks {
    of_author: BTreeMap<NodeId, usize>,
    next: BTreeMap<BlobRef, Next>,
}

impl Looks {
    /// Whether a blob is to be looked at: once, and so many of an author.
    fn takes(&mut self, blob: &BlobRef, author: NodeId) -> bool {
        let of_author = self.of_author.entry(author).or_default();
        let takes = !self.next.contains_key(blob) && *of_author < LOOKED_AT_OF_AUTHOR_MAX;
        *of_author += usize::from(takes);
        takes
    }
}

impl Holders<'_, '_> {
    fn has_room(&self) -> bool {
        self.fetches.requests.len() < limits::FETCHES_MAX
            && self.fetches.slices_in_flight() < limits::SLICES_IN_FLIGHT_MAX
            && self.fetches.bytes_under_way() < self.storage.blob_bytes_left()
    }

    /// Asks for what is missing of a blob and not on its way.
    fn ask_for(
        &mut self,
        blob: &BlobRef,
        lacking: &mut Lacking,
        connected: &[(NodeId, LinkId)],
    ) -> Next {
        // What cannot be as long as its file says never comes.
        let part = self.archive.blobs.get(blob);
        let Some(part) = part.filter(|part| part.is_possible() && !part.is_whole()) else {
            return Next::Gone;
        };
        if !self.archive.index.contains(&lacking.post) {
            // Another that names it is the reason from now on.
            let mut others = part.posts();
            let Some(file) = others.find_map(|post| self.archive.get(post)) else {
                return Next::Gone;
            };
            (lacking.post, lacking.author) = (file.row.id, file.row.author);
        }
        let known = known_holders(lacking.author, &self.keepers);
        while self.fetches.asked_for(blob) < limits::FETCHES_PER_BLOB_MAX && self.has_room() {
            let part = self.archive.blobs.get(blob);
            let Some(run) = part.and_then(|part| next_run(&part, &self.fetches, lacking.first))
            else {
                break;
            };
            let (fetches, now) = (&self.fetches, *self.now);
            let choice = choose_holder(
                lacking,
                &known,
                fetches,
                connected,
                &self.stalled,
                &self.paced,
                now,
            );
            match choice {
                Choice::Ask {
                    node,
                    link,
                    is_stranger,
                } => {
                    lacking.strangers += usize::from(is_stranger);
                    self.ask(node, link, *blob, run);
                }
                Choice::Wait(at_ms) => {
                    self.outbox.wake_at(at_ms);
                    break;
                }
                Choice::Busy => break,
                // Whoever is being asked for it may have it.
                Choice::Nobody | Choice::Later(_) if self.fetches.is_under_way(blob) => break,
                Choice::Later(at_ms) if lacking.crowded <= CROWDED_PER_ROUND_MAX => {
                    // Who had nothing may have it by then.
                    self.ask_anew(blob, lacking);
                    lacking.is_put_off = true;
                    self.outbox.wake_at(at_ms);
                    return Next::At(at_ms);
                }
                Choice::Nobody | Choice::Later(_) => {
                    return Next::At(self.end_round(blob, lacking));
                }
            }
        }
        Next::Stays
    }

    fn ask(&mut self, holder: NodeId, link: LinkId, blob: BlobRef, slices: Range<u32>) {
        self.paced.asked(holder, *self.now);
        let request = FileRequest {
            blob,
            first: slices.start,
            count: slices.len() as u32,
        };
        let id = self.outbox.request(link, &request.into());
        let fetch = Fetch {
            blob,
            slices,
            holder,
            link,
            asked_ms: self.now.mono_ms,
        };
        self.fetches.requests.insert(id, fetch);
    }

    /// All may be asked again, for another part of it: who has none of what was asked for may have that.
    fn ask_anew(&mut self, blob: &BlobRef, lacking: &mut Lacking) {
        lacking.tried.clear();
        lacking.first = first_of(blob, &mut self.entropy);
    }

    /// Nobody has it now: gives back when the next round begins.
    fn end_round(&mut self, blob: &BlobRef, lacking: &mut Lacking) -> u64 {
        let pause_ms = pause_ms(lacking.fruitless);
        lacking.fruitless += 1;
        if lacking.fruitless >= limits::FRUITLESS_ROUNDS_BEFORE_WORM {
            self.starving.note(lacking.author, Lack::Content);
        }
        self.ask_anew(blob, lacking);
        (lacking.strangers, lacking.crowded) = (0, 0);
        lacking.is_put_off = false;
        let from_ms = self.now.after(self.entropy.jittered(pause_ms));
        self.outbox.wake_at(from_ms);
        from_ms
    }
}

/// What has to wait no longer, since somebody came or there is more room.
fn end_waits(storage: Res<Storage>, changes: Res<PeerChanges>, mut to_fetch: ResMut<ToFetch>) {
    if changes.came_up().next().is_some() {
        let mut waiting = Vec::new();
        for (blob, lacking) in &mut to_fetch.blobs {
            lacking.strangers = 0;
            if lacking.fruitless > 0 || lacking.is_put_off {
                waiting.push(*blob);
            }
        }
        for blob in waiting {
            to_fetch.set_from(&blob, None);
        }
    }
    let budget_bytes = storage.usage.budget_bytes;
    if budget_bytes > std::mem::replace(&mut to_fetch.budget_bytes, budget_bytes) {
        to_fetch.wake(u64::MAX);
    }
}

fn fetch(
    peers: Res<Peers>,
    mut to_fetch: ResMut<ToFetch>,
    mut holders: Holders,
    up: Query<&Link, With<Peer>>,
) {
    if let Some(at_ms) = to_fetch.wake(holders.now.mono_ms) {
        holders.outbox.wake_at(at_ms);
    }
    if to_fetch.ready.is_empty() || !holders.storage.takes_more() || !holders.has_room() {
        return;
    }
    let mut connected: Vec<(NodeId, LinkId)> = peers
        .up()
        .filter_map(|(node, entity)| {
            // Whoever is being sent away for misconduct stands for some seconds more.
            let link = up.get(entity).ok().filter(|link| !link.too_far())?;
            Some((node, link.id))
        })
        .collect();
    holders.entropy.shuffle(&mut connected);
    let ToFetch {
        blobs, ready, turn, ..
    } = &mut *to_fetch;
    let mut looks = Looks::default();
    let mut look = |blob: &BlobRef, holders: &mut Holders, most: usize| {
        let lacking = blobs.get_mut(blob);
        let lacking = lacking.expect("what is asked for is there");
        if looks.takes(blob, lacking.author) {
            let next = holders.ask_for(blob, lacking, &connected);
            looks.next.insert(*blob, next);
        }
        looks.next.len() < most && holders.has_room()
    };
    for (_, blob) in ready.iter().take(PASSED_MAX) {
        if !look(blob, &mut holders, LOOKED_AT_MAX / 2) {
            break;
        }
    }
    let from = turn.take().map_or(Bound::Unbounded, Bound::Excluded);
    let in_turn = ready.range((from, Bound::Unbounded));
    for (passed, key) in (1..).zip(in_turn) {
        if !look(&key.1, &mut holders, LOOKED_AT_MAX) || passed == PASSED_MAX {
            *turn = Some(*key);
            break;
        }
    }
    for (blob, next) in looks.next {
        match next {
            Next::Stays => {}
            Next::At(at_ms) => to_fetch.set_from(&blob, Some(at_ms)),
            Next::Gone => drop(to_fetch.remove(&blob)),
        }
    }
}

/// Fetches the blobs of stored posts.
pub(crate) fn install(frame: &mut Installer<'_>) {
    frame.world.insert_resource(Fetches::default());
    frame.world.insert_resource(ToFetch::default());
    frame.world.insert_resource(Stalled::default());
    frame.world.insert_resource(Paced::default());
    frame.on(Occasions::RESPONSE, Phase::Ingest, take_answers);
    frame.on(Occasions::BATCH, Phase::Ingest, settle);
    frame.due(
        |glance| at_once_if(!glance.at::<BlobBook>().news.is_empty()),
        Phase::Plan,
        note_new,
    );
    let has_any = |glance: &Glance<'_>| at_once_if(!glance.at::<ToFetch>().blobs.is_empty());
    frame.due(has_any, Phase::Plan, end_waits);
    frame.due(has_any, Phase::Plan, fetch);
}

#[cfg(test)]
mod tests {
    use super::*;
    use distsoc_engine::domain::BlobHash;

    #[test]
    fn so_many_blobs_of_an_author_are_looked_at_and_each_once() {
        let blob = |number: u8| BlobRef {
            hash: BlobHash::from_bytes([number; 32]),
            length: 1,
        };
        let [one, other] = [1, 2].map(|node| NodeId::from_bytes([node; 32]));
        let mut looks = Looks::default();
        for number in 0..50 {
            let takes = looks.takes(&blob(number), one);
            assert_eq!(takes, usize::from(number) < LOOKED_AT_OF_AUTHOR_MAX);
            if takes {
                looks.next.insert(blob(number), Next::Stays);
            }
        }
        assert!(!looks.takes(&blob(0), other) && looks.takes(&blob(60), other));
    }
}
