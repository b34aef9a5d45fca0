//! PROTOCOL section 7, fetching: the blobs of stored posts, newest first, from several holders at once, each slice proved before it
//! is stored. What is on the disk is not asked for again, after a cut or a kill -9 either.

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::{BlobHash, NodeId, PostId, Slice, Verified};
use distsoc_engine::entropy::Entropy;
use distsoc_engine::io::{LinkId, RequestFailure, StorageTrouble, Write};
use distsoc_engine::limits;
use distsoc_engine::refusal::Refusal;
use distsoc_engine::schedule::{Occasions, Phase};
use distsoc_engine::wire::{FileRequest, FileResponse, Packet};
use distsoc_engine::world::blobs::BlobState;
use distsoc_engine::world::copies::HolderKey;
use distsoc_engine::world::fetches::{Fetch, Fetches};
use distsoc_engine::world::files::Archive;
use distsoc_engine::world::inbox::Inbox;
use distsoc_engine::world::keepers::{Keepers, Starving};
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::{Link, Offences, Peer, PeerChanges, Peers};
use distsoc_engine::world::storage::Storage;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Peers asked for one blob that are not known to keep its author, in one round.
const STRANGERS_PER_ROUND_MAX: usize = 4;
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
    /// Not before: mono ms.
    from_ms: u64,
}

/// What is to be fetched.
#[derive(Resource, Debug, Default)]
struct ToFetch {
    blobs: BTreeMap<BlobHash, Lacking>,
    /// The newest post first.
    order: BTreeSet<(Reverse<u32>, BlobHash)>,
}

impl ToFetch {
    fn add(&mut self, hash: BlobHash, lacking: Lacking) {
        if !self.blobs.contains_key(&hash) {
            self.order.insert((Reverse(lacking.written_s), hash));
            self.blobs.insert(hash, lacking);
        }
    }

    fn remove(&mut self, hash: &BlobHash) {
        if let Some(lacking) = self.blobs.remove(hash) {
            self.order.remove(&(Reverse(lacking.written_s), *hash));
        }
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
            let state = archive.blobs.get(&blob.hash);
            if state.is_some_and(|state| !state.is_whole()) {
                let lacking = Lacking {
                    post: id,
                    author: file.row.author,
                    written_s: file.row.created_at_s,
                    tried: BTreeSet::new(),
                    strangers: 0,
                    fruitless: 0,
                    from_ms: 0,
                };
                to_fetch.add(blob.hash, lacking);
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
            _ => Ok(Vec::new()),
        };
        let is_wanted = archive.blobs.get(&fetch.blob).is_some();
        match slices {
            Ok(slices) if !slices.is_empty() && is_wanted => {
                let end = fetch.slices.start + slices.len() as u32;
                let writes = slices.into_iter().map(Write::Slice).collect();
                let batch = outbox.store_behind(writes);
                fetches
                    .writes
                    .insert(batch, (fetch.blob, fetch.slices.start..end));
                if let Some(lacking) = to_fetch.blobs.get_mut(&fetch.blob) {
                    lacking.fruitless = 0;
                    keepers.saw(lacking.author, fetch.holder);
                    let post = lacking.post;
                    let remote = links.iter().find(|link| link.id == fetch.link);
                    if let Some(link) = remote {
                        let key = HolderKey::of(&fetch.holder, link.remote.ip());
                        if archive.copies.saw(post, key, (now.wall_ms / 1000) as u32) {
                            archive.judge_file(&post, None);
                        }
                    }
                }
            }
            nothing => {
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
    let is_asked = response.blob.hash == fetch.blob
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
    for ((hash, slices), result) in ends {
        match result {
            Ok(()) => {
                storage.blobs_refused = false;
                let Some(state) = archive.blobs.get_mut(&hash) else {
                    continue;
                };
                state.add(slices);
                if state.is_whole() {
                    to_fetch.remove(&hash);
                }
            }
            Err(trouble) => {
                storage.blobs_refused |= trouble == StorageTrouble::Full;
                if let Some(lacking) = to_fetch.blobs.get_mut(&hash) {
                    lacking.from_ms = now.after(limits::FETCH_PAUSE_MS);
                }
            }
        }
    }
}

/// The first run of a blob that is neither here nor on its way, of a request's length at most.
fn next_run(state: &BlobState, fetches: &Fetches) -> Option<Range<u32>> {
    let mut from = 0;
    loop {
        let run = state.missing_from(from)?;
        let busy = fetches
            .runs_of(&state.blob.hash)
            .find(|busy| busy.contains(&run.start));
        match busy {
            Some(busy) => from = busy.end,
            None => {
                let next_busy = fetches
                    .runs_of(&state.blob.hash)
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

/// Whom to ask: those known to keep the author, the author, then a few strangers; the least busy first.
fn choose_holder(
    lacking: &Lacking,
    keepers: &Keepers,
    fetches: &Fetches,
    connected: &[(NodeId, LinkId)],
) -> Option<(NodeId, LinkId, bool)> {
    let is_free = |node: &NodeId| {
        !lacking.tried.contains(node) && fetches.asked_of(node) < limits::FETCHES_PER_PEER_MAX
    };
    let link_of = |node: &NodeId| {
        let found = connected.iter().find(|(other, _)| other == node);
        found.map(|(_, link)| *link)
    };
    let known = keepers
        .links(&lacking.author)
        .chain(keepers.seen(&lacking.author))
        .chain([lacking.author]);
    let known = known.filter(is_free);
    let best = known
        .filter_map(|node| Some((fetches.asked_of(&node), node, link_of(&node)?)))
        .min_by_key(|(busy, ..)| *busy);
    if let Some((_, node, link)) = best {
        return Some((node, link, false));
    }
    // Somebody known is busy: that is waited for.
    let is_waiting = fetches
        .requests
        .values()
        .any(|fetch| !lacking.tried.contains(&fetch.holder));
    if lacking.strangers >= STRANGERS_PER_ROUND_MAX || is_waiting {
        return None;
    }
    let stranger = connected.iter().find(|(node, _)| is_free(node))?;
    Some((stranger.0, stranger.1, true))
}

fn fetch(
    now: Res<Now>,
    storage: Res<Storage>,
    peers: Res<Peers>,
    changes: Res<PeerChanges>,
    keepers: Res<Keepers>,
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
        for lacking in to_fetch.blobs.values_mut() {
            lacking.strangers = 0;
            if lacking.fruitless > 0 {
                lacking.from_ms = lacking.from_ms.min(now.mono_ms);
            }
        }
    }
    let has_room = |fetches: &Fetches| {
        fetches.requests.len() < limits::FETCHES_MAX
            && fetches.slices_in_flight() < limits::SLICES_IN_FLIGHT_MAX
    };
    if !storage.takes_more() || !has_room(&fetches) {
        return;
    }
    let mut connected: Vec<(NodeId, LinkId)> = peers
        .up()
        .filter_map(|(node, entity)| Some((node, up.get(entity).ok()?.id)))
        .collect();
    entropy.shuffle(&mut connected);
    let to_fetch = &mut *to_fetch;
    let (mut gone, mut looked_at) = (Vec::new(), 0);
    for (_, hash) in &to_fetch.order {
        let lacking = to_fetch
            .blobs
            .get_mut(hash)
            .expect("what is in order is there");
        if lacking.from_ms > now.mono_ms {
            outbox.wake_at(lacking.from_ms);
            continue;
        }
        looked_at += 1;
        if looked_at > LOOKED_AT_MAX || !has_room(&fetches) {
            break;
        }
        let Some(state) = archive.blobs.get(hash).filter(|state| !state.is_whole()) else {
            gone.push(*hash);
            continue;
        };
        while fetches.asked_for(hash) < limits::FETCHES_PER_BLOB_MAX && has_room(&fetches) {
            let Some(run) = next_run(state, &fetches) else {
                break;
            };
            let holder = choose_holder(lacking, &keepers, &fetches, &connected);
            let Some((node, link, is_stranger)) = holder else {
                let is_busy = !fetches.requests.is_empty();
                if !fetches.is_under_way(hash) && !is_busy {
                    // Nobody has it now.
                    let pause_ms = limits::FETCH_PAUSE_MS << lacking.fruitless.min(7);
                    let pause_ms = pause_ms.min(limits::FOLLOW_PULL_MS);
                    lacking.fruitless += 1;
                    if lacking.fruitless >= limits::FRUITLESS_ROUNDS_BEFORE_WORM {
                        starving.note(lacking.author);
                    }
                    lacking.from_ms = now.after(entropy.jittered(pause_ms));
                    lacking.tried.clear();
                    lacking.strangers = 0;
                    outbox.wake_at(lacking.from_ms);
                }
                break;
            };
            lacking.strangers += usize::from(is_stranger);
            let request = FileRequest {
                blob: state.blob,
                first: run.start,
                count: run.len() as u32,
            };
            let id = outbox.request(link, &request.into());
            let fetch = Fetch {
                blob: *hash,
                slices: run,
                holder: node,
                link,
            };
            fetches.requests.insert(id, fetch);
        }
    }
    for hash in gone {
        to_fetch.remove(&hash);
    }
}

/// Fetches the blobs of stored posts.
pub(crate) fn install(frame: &mut Installer<'_>) {
    frame.world.insert_resource(Fetches::default());
    frame.world.insert_resource(ToFetch::default());
    frame.on(Occasions::RESPONSE, Phase::Ingest, take_answers);
    frame.on(Occasions::BATCH, Phase::Ingest, settle);
    frame.add(Phase::Plan, note_new);
    frame.add(Phase::Plan, fetch);
}
