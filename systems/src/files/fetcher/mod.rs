//! PROTOCOL section 7, fetching: the blobs of stored posts, newest first, from several holders at once, each slice proved before it
//! is stored. What is on the disk is not asked for again, after a cut or a kill -9 either.

mod choice;

use crate::Installer;
use bevy_ecs::prelude::*;
use choice::{Choice, Paced, Stalled, choose_holder, pause_ms};
use distsoc_engine::clock::Now;
use distsoc_engine::domain::{BlobRef, NodeId, PostId, Slice, Verified};
use distsoc_engine::entropy::Entropy;
use distsoc_engine::io::{LinkId, RequestFailure, Write};
use distsoc_engine::limits;
use distsoc_engine::refusal::Refusal;
use distsoc_engine::schedule::{Occasions, Phase, at_once_if};
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
use std::ops::Range;

/// Blobs looked at in one frame, at most.
const LOOKED_AT_MAX: usize = 64;

/// A blob that is not whole.
#[derive(Debug)]
struct Lacking {
    post: PostId,
    author: NodeId,
    written_s: u32,
    /// Peers that did not have it, in this round.
    tried: BTreeSet<NodeId>,
    strangers: usize,
    /// Rounds in which nobody had it.
    fruitless: u32,
    /// Not before: mono ms; `None` for now.
    from_ms: Option<u64>,
}

impl Lacking {
    fn of(file: &StoredFile) -> Self {
        Self {
            post: file.row.id,
            author: file.row.author,
            written_s: file.row.created_at_s,
            tried: BTreeSet::new(),
            strangers: 0,
            fruitless: 0,
            from_ms: None,
        }
    }
}

/// What is to be fetched.
#[derive(Resource, Debug, Default)]
struct ToFetch {
    blobs: BTreeMap<BlobRef, Lacking>,
    /// Those to ask for now, of the newest post first.
    ready: BTreeSet<(Reverse<u32>, BlobRef)>,
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

/// Files that came: their blobs are wanted.
fn note_new(mut archive: Archive, mut to_fetch: ResMut<ToFetch>) {
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
                to_fetch.add(*blob, Lacking::of(file));
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
            Err(RequestFailure::TimedOut) => {
                stalled.note(fetch.holder, *now);
                Ok(Vec::new())
            }
            _ => Ok(Vec::new()),
        };
        let life = archive.blobs.get(&fetch.blob).map(|part| part.life());
        match (slices, life) {
            (Ok(slices), Some(life)) if !slices.is_empty() => {
                stalled.forgive(&fetch.holder);
                let end = fetch.slices.start + slices.len() as u32;
                let writes = slices.into_iter().map(Write::Slice).collect();
                let batch = outbox.store_behind(writes);
                fetches
                    .writes
                    .insert(batch, (fetch.blob, fetch.slices.start..end, life));
                if let Some(lacking) = to_fetch.blobs.get_mut(&fetch.blob) {
                    lacking.fruitless = 0;
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

/// The first run of a blob that is neither here nor on its way, of a request's length at most.
fn next_run(part: &BlobPart<'_>, fetches: &Fetches) -> Option<Range<u32>> {
    let (mut from, blob) = (0, part.blob());
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

fn fetch(
    now: Res<Now>,
    storage: Res<Storage>,
    peers: Res<Peers>,
    changes: Res<PeerChanges>,
    keepers: Res<Keepers>,
    stalled: Res<Stalled>,
    mut paced: ResMut<Paced>,
    mut starving: ResMut<Starving>,
    mut fetches: ResMut<Fetches>,
    mut to_fetch: ResMut<ToFetch>,
    archive: Archive,
    mut entropy: ResMut<Entropy>,
    mut outbox: ResMut<Outbox>,
    up: Query<&Link, With<Peer>>,
) {
    if to_fetch.blobs.is_empty() {
        return;
    }
    if changes.came_up().next().is_some() {
        // Whoever is new may have it.
        let mut fruitless = Vec::new();
        for (blob, lacking) in &mut to_fetch.blobs {
            lacking.strangers = 0;
            if lacking.fruitless > 0 {
                fruitless.push(*blob);
            }
        }
        for blob in fruitless {
            to_fetch.set_from(&blob, None);
        }
    }
    let budget_bytes = storage.usage.budget_bytes;
    if budget_bytes > std::mem::replace(&mut to_fetch.budget_bytes, budget_bytes) {
        // What had no room may have it now.
        to_fetch.wake(u64::MAX);
    }
    if let Some(at_ms) = to_fetch.wake(now.mono_ms) {
        outbox.wake_at(at_ms);
    }
    if to_fetch.ready.is_empty() {
        return;
    }
    let has_room = |fetches: &Fetches| {
        fetches.requests.len() < limits::FETCHES_MAX
            && fetches.slices_in_flight() < limits::SLICES_IN_FLIGHT_MAX
            && fetches.bytes_under_way() < storage.blob_bytes_left()
    };
    if !storage.takes_more() || !has_room(&fetches) {
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
    entropy.shuffle(&mut connected);
    let to_fetch = &mut *to_fetch;
    let (mut gone, mut later) = (Vec::new(), Vec::new());
    for (_, blob) in to_fetch.ready.iter().take(LOOKED_AT_MAX) {
        if !has_room(&fetches) {
            break;
        }
        let lacking = to_fetch
            .blobs
            .get_mut(blob)
            .expect("what is asked for is there");
        // What cannot be as long as its file says never comes.
        let part = archive.blobs.get(blob);
        let part = part.filter(|part| part.is_possible() && !part.is_whole());
        let Some(part) = part else {
            gone.push(*blob);
            continue;
        };
        if !archive.index.contains(&lacking.post) {
            // Another that names it is the reason from now on.
            let mut others = part.posts();
            let Some(file) = others.find_map(|post| archive.get(post)) else {
                gone.push(*blob);
                continue;
            };
            (lacking.post, lacking.author) = (file.row.id, file.row.author);
        }
        while fetches.asked_for(blob) < limits::FETCHES_PER_BLOB_MAX && has_room(&fetches) {
            let Some(run) = next_run(&part, &fetches) else {
                break;
            };
            let choice = choose_holder(
                lacking, &keepers, &fetches, &connected, &stalled, &paced, *now,
            );
            let Choice::Ask {
                node,
                link,
                is_stranger,
            } = choice
            else {
                if let Choice::Wait(at_ms) = choice {
                    outbox.wake_at(at_ms);
                } else if !fetches.is_under_way(blob) && fetches.requests.is_empty() {
                    // Nobody has it now.
                    let pause_ms = pause_ms(lacking.fruitless);
                    lacking.fruitless += 1;
                    if lacking.fruitless >= limits::FRUITLESS_ROUNDS_BEFORE_WORM {
                        starving.note(lacking.author, Lack::Content);
                    }
                    let from_ms = now.after(entropy.jittered(pause_ms));
                    lacking.tried.clear();
                    lacking.strangers = 0;
                    later.push((*blob, from_ms));
                    outbox.wake_at(from_ms);
                }
                break;
            };
            lacking.strangers += usize::from(is_stranger);
            paced.asked(node, *now);
            let request = FileRequest {
                blob: *blob,
                first: run.start,
                count: run.len() as u32,
            };
            let id = outbox.request(link, &request.into());
            let fetch = Fetch {
                blob: *blob,
                slices: run,
                holder: node,
                link,
            };
            fetches.requests.insert(id, fetch);
        }
    }
    for blob in gone {
        to_fetch.remove(&blob);
    }
    for (blob, from_ms) in later {
        to_fetch.set_from(&blob, Some(from_ms));
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
    frame.due(
        |glance| at_once_if(!glance.at::<ToFetch>().blobs.is_empty()),
        Phase::Plan,
        fetch,
    );
}
