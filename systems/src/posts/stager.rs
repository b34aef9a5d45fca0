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
/// Slices written in one batch.
const BATCH_SLICES: usize = 32;

/// How often a blob that the disk had no room for is handed to it again; each time twice as much has gone before.
const TRIES_MAX: u32 = 3;

/// A blob that a person brought.
#[derive(Debug)]
struct Upload {
    blob: BlobRef,
    slices: Vec<Verified<Slice>>,
    /// Until when room is waited for: mono ms.
    until_ms: u64,
    /// How often the disk had none.
    tries: u32,
}

impl Upload {
    /// Bytes that it takes; more where so much was not enough, since others come in meanwhile and what is free may lie apart.
    fn room_bytes(&self) -> u64 {
        self.blob.disk_bytes() << self.tries
    }
}

/// A blob on its way to the disk.
#[derive(Debug)]
struct Staging {
    upload: Upload,
    batches: usize,
    failed: Option<StorageTrouble>,
}

/// Blobs on their way, by the call that brought them.
#[derive(Resource, Debug, Default)]
struct Stagings {
    /// In order.
    waiting: VecDeque<(CallId, Upload)>,
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
    let own_max = storage.own_bytes_max().all;
    let (bytes, own_bytes) = (blob.disk_bytes(), archive.own_bytes().all);
    let why = if bytes > own_max.min(limits::STAGED_BYTES_MAX) {
        "this file alone is larger than the quarter of the budget that own posts may take: make it smaller, or raise the budget"
    } else if own_bytes + bytes > own_max {
        "own posts may take a quarter of the budget, and with this file they would take more: delete some, or raise the budget"
    } else if staged + bytes > limits::STAGED_BYTES_MAX || own_bytes + staged + bytes > own_max {
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
        let staged: u64 = others.map(|other| other.disk_bytes()).sum();
        if let Err(refused) = check(&archive, &storage, blob, staged) {
            outbox.reply(call, Err(refused));
            continue;
        }
        archive.blobs.stage(blob, until_ms);
        let upload = Upload {
            blob,
            slices,
            until_ms: now.after(ROOM_MS),
            tries: 0,
        };
        stagings.waiting.push_back((call, upload));
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
    while let Some((call, upload)) = stagings.waiting.pop_front() {
        let under_way = stagings.by_call.values().map(|staging| &staging.upload);
        let room_bytes = under_way.chain([&upload]).map(Upload::room_bytes).sum();
        storage.own_blob_bytes = room_bytes;
        if storage.own_blob_bytes_lacking() > 0 && now.mono_ms < upload.until_ms {
            outbox.wake_at(upload.until_ms);
            stagings.waiting.push_front((call, upload));
            return;
        }
        storage.own_blob_bytes = 0;
        let batches = upload.slices.chunks(BATCH_SLICES);
        let count = batches.len();
        for chunk in batches {
            let batch = outbox.store_durable(chunk.iter().cloned().map(Write::Slice).collect());
            stagings.batches.insert(batch, call);
        }
        let staging = Staging {
            upload,
            batches: count,
            failed: None,
        };
        stagings.by_call.insert(call, staging);
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
                let blob = staging.upload.blob;
                let life = book.stage(blob, now.after(limits::STAGED_MS)).life();
                book.add(&blob, 0..blob.slices(), life);
                storage.blobs_refused = false;
                Ok(Reply::Done)
            }
            Some(trouble)
                if trouble.lacks_room()
                    && staging.upload.tries < TRIES_MAX
                    && now.mono_ms < staging.upload.until_ms =>
            {
                storage.blobs_refused = true;
                let mut upload = staging.upload;
                upload.tries += 1;
                stagings.waiting.push_front((call, upload));
                continue;
            }
            Some(trouble) => {
                storage.blobs_refused |= trouble.lacks_room();
                // What came of it waits for no post.
                book.stage(staging.upload.blob, now.mono_ms);
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
