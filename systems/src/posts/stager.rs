//! PROTOCOL sections 7 and 9, media: a blob of one's own is on the disk before a post names it.

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::{BlobRef, Slice, Verified};
use distsoc_engine::io::{BatchId, Call, CallError, CallId, Reply, StorageTrouble, Write};
use distsoc_engine::limits;
use distsoc_engine::schedule::{Occasions, Phase};
use distsoc_engine::world::blobs::BlobBook;
use distsoc_engine::world::inbox::Inbox;
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::storage::Storage;
use std::collections::BTreeMap;

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

fn take(
    now: Res<Now>,
    storage: Res<Storage>,
    mut inbox: ResMut<Inbox>,
    mut book: ResMut<BlobBook>,
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
        let staged: u64 = book.staged().map(|state| state.blob.stored_bytes()).sum();
        let own_max = storage.usage.budget_bytes / limits::OWN_SHARE;
        let max = match own_max {
            0 => limits::STAGED_BYTES_MAX,
            _ => limits::STAGED_BYTES_MAX.min(own_max),
        };
        if staged + blob.stored_bytes() > max {
            let full = match blob.stored_bytes() > max {
                true => {
                    "this file alone is larger than the quarter of the budget that own posts may take: make it smaller, or raise the budget"
                }
                false => "too much was uploaded that no post names yet: post it, or wait an hour",
            };
            outbox.reply(call, Err(CallError::Refused(full)));
            continue;
        }
        let state = book.stage(blob, now.after(limits::STAGED_MS));
        if state.is_whole() {
            outbox.reply(call, Ok(Reply::Done));
            continue;
        }
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
                let state = book.stage(staging.blob, now.after(limits::STAGED_MS));
                state.add(0..staging.blob.slices());
                Ok(Reply::Done)
            }
            Some(trouble) => {
                storage.blobs_refused |= trouble == StorageTrouble::Full;
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
}
