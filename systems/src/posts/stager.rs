//! PROTOCOL sections 7 and 9, media: a blob of one's own is on the disk before a post names it.

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::{BlobRef, Slice, Verified};
use distsoc_engine::io::{BatchId, Call, CallError, CallId, Reply, StorageTrouble, Write};
use distsoc_engine::limits;
use distsoc_engine::schedule::{Occasions, Phase, at_once_if};
use distsoc_engine::world::blobs::BlobBook;
use distsoc_engine::world::files::Archive;
use distsoc_engine::world::inbox::Inbox;
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::storage::Storage;
use std::collections::{BTreeMap, VecDeque};

/// So long it is waited for room that eviction makes.
const ROOM_MS: u64 = 30_000;
/// Pages that a slice takes beyond its bytes, at most, as a share of these: one in so many.
const PAGES_SHARE: u64 = 8;
/// Slices written in one batch.
const BATCH_SLICES: usize = 32;

/// A blob on its way to the disk.
#[derive(Debug)]
struct Staging {
    blob: BlobRef,
    batches: usize,
    failed: Option<StorageTrouble>,
}

/// Blobs on their way, by the call that brought them.
#[derive(Resource, Debug, Default)]
struct Stagings {
    /// In order, with the time until when room is waited for: mono ms.
    waiting: VecDeque<(CallId, Vec<Verified<Slice>>, u64)>,
    by_call: BTreeMap<CallId, Staging>,
    batches: BTreeMap<BatchId, CallId>,
}

/// The blob, where the slices are all of one.
fn whole(slices: &[Verified<Slice>]) -> Option<BlobRef> {
    let blob = slices.first()?.blob();
    let in_order = slices
        .iter()
        .zip(0..)
        .all(|(slice, number)| slice.blob() == blob && slice.number() == number);
    (in_order && slices.len() as u32 == blob.slices()).then_some(blob)
}

/// Why a blob beside those that wait for their posts, of so many bytes, is not taken in.
fn check(
    archive: &Archive,
    storage: &Storage,
    blob: BlobRef,
    staged: u64,
) -> Result<(), CallError> {
    let own_max = match storage.usage.budget_bytes / limits::OWN_SHARE {
        // Nothing is known of the disk yet.
        0 => u64::MAX,
        max => max,
    };
    let bytes = blob.stored_bytes();
    let why = if bytes > own_max.min(limits::STAGED_BYTES_MAX) {
        "this file alone is larger than the quarter of the budget that own posts may take: make it smaller, or raise the budget"
    } else if archive.own_bytes() + bytes > own_max {
        "own posts may take a quarter of the budget, and with this file they would take more: delete some, or raise the budget"
    } else if staged + bytes > limits::STAGED_BYTES_MAX
        || archive.own_bytes() + staged + bytes > own_max
    {
        "too much was uploaded that no post names yet: post it, or wait an hour"
    } else {
        return Ok(());
    };
    Err(CallError::Refused(why))
}

fn take(
    now: Res<Now>,
    storage: Res<Storage>,
    mut inbox: ResMut<Inbox>,
    mut archive: Archive,
    mut stagings: ResMut<Stagings>,
    mut outbox: ResMut<Outbox>,
) {
    let calls = inbox.take_calls(|call| match call {
        Call::Stage(slices) => Some(slices.clone()),
        _ => None,
    });
    for (call, slices) in calls {
        let Some(blob) = whole(&slices) else {
            let partial = CallError::Refused("a blob is stored whole or not at all");
            outbox.reply(call, Err(partial));
            continue;
        };
        let until_ms = now.after(limits::STAGED_MS);
        if archive.blobs.get(&blob).is_some_and(|part| part.is_whole()) {
            archive.blobs.stage(blob, until_ms);
            outbox.reply(call, Ok(Reply::Done));
            continue;
        }
        let others = archive.blobs.staged();
        let others = others.filter(|other| other.hash != blob.hash);
        let staged: u64 = others.map(|other| other.stored_bytes()).sum();
        if let Err(refused) = check(&archive, &storage, blob, staged) {
            outbox.reply(call, Err(refused));
            continue;
        }
        archive.blobs.stage(blob, until_ms);
        let until_ms = now.after(ROOM_MS);
        stagings.waiting.push_back((call, slices, until_ms));
    }
}

/// Hands blobs to the disk, one after the other as there is room. Past the time that eviction has for it, the disk decides.
fn write(
    now: Res<Now>,
    mut storage: ResMut<Storage>,
    mut stagings: ResMut<Stagings>,
    mut outbox: ResMut<Outbox>,
) {
    let stagings = &mut *stagings;
    let takes = |blob: BlobRef| blob.stored_bytes() + blob.stored_bytes() / PAGES_SHARE;
    storage.own_blob_bytes = 0;
    while let Some((_, slices, until_ms)) = stagings.waiting.front() {
        let blob = slices[0].blob();
        let under_way = stagings.by_call.values().map(|staging| staging.blob);
        storage.own_blob_bytes = under_way.chain([blob]).map(takes).sum();
        if storage.own_blob_bytes_lacking() > 0 && now.mono_ms < *until_ms {
            outbox.wake_at(*until_ms);
            return;
        }
        storage.own_blob_bytes = 0;
        let Some((call, slices, _)) = stagings.waiting.pop_front() else {
            return;
        };
        let batches = slices.chunks(BATCH_SLICES);
        let staging = Staging {
            blob,
            batches: batches.len(),
            failed: None,
        };
        stagings.by_call.insert(call, staging);
        for chunk in batches {
            let batch = outbox.store_durable(chunk.iter().cloned().map(Write::Slice).collect());
            stagings.batches.insert(batch, call);
        }
    }
}

fn settle(
    now: Res<Now>,
    mut inbox: ResMut<Inbox>,
    mut book: ResMut<BlobBook>,
    mut stagings: ResMut<Stagings>,
    mut storage: ResMut<Storage>,
    mut outbox: ResMut<Outbox>,
) {
    if stagings.batches.is_empty() {
        return;
    }
    let stagings = &mut *stagings;
    let batches = &mut stagings.batches;
    for (call, result) in inbox.take_batches(|batch| batches.remove(&batch)) {
        let Some(staging) = stagings.by_call.get_mut(&call) else {
            continue;
        };
        staging.batches -= 1;
        staging.failed = staging.failed.or(result.err());
        if staging.batches > 0 {
            continue;
        }
        let staging = stagings.by_call.remove(&call).expect("it was just seen");
        let reply = match staging.failed {
            None => {
                let blob = staging.blob;
                let life = book.stage(blob, now.after(limits::STAGED_MS)).life();
                book.add(&blob, 0..blob.slices(), life);
                storage.blobs_refused = false;
                Ok(Reply::Done)
            }
            Some(trouble) => {
                storage.blobs_refused |= trouble == StorageTrouble::Full;
                // What came of it waits for no post.
                book.stage(staging.blob, now.mono_ms);
                Err(CallError::Storage(trouble))
            }
        };
        outbox.reply(call, reply);
    }
}

/// Own blobs.
pub(crate) fn install(frame: &mut Installer<'_>) {
    frame.world.insert_resource(Stagings::default());
    frame.on(Occasions::BATCH, Phase::Ingest, settle);
    frame.on(Occasions::CALL, Phase::Judge, take);
    frame.due(
        |glance| at_once_if(!glance.at::<Stagings>().waiting.is_empty()),
        Phase::Plan,
        write,
    );
}
