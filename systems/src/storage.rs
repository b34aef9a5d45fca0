//! PROTOCOL section 12: what was learned from the network is written behind, one batch a frame; while the disk does not
//! take it, it waits here and nothing more is learned.

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::io::{Notice, Write};
use distsoc_engine::refusal::{Refusal, RefusalCounts};
use distsoc_engine::schedule::{Glance, Occasions, Phase, at_once_if};
use distsoc_engine::world::authors::{KeptLists, RelationshipChanges};
use distsoc_engine::world::blobs::BlobBook;
use distsoc_engine::world::files::{FileIndex, still_holds};
use distsoc_engine::world::inbox::Inbox;
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::storage::Storage;

/// A disk that refused is tried again after this.
const RETRY_MS: u64 = 10_000;
/// Writes that wait for a disk that refuses, at most; what comes past it is dropped and learned again later.
const RETRY_WRITES_MAX: usize = 16_384;

/// Adds writes that have to wait; returns how many did not fit.
fn queue(waiting: &mut Vec<Write>, more: Vec<Write>) -> u64 {
    let room = RETRY_WRITES_MAX.saturating_sub(waiting.len());
    let dropped = more.len().saturating_sub(room);
    waiting.extend(more.into_iter().take(room));
    dropped as u64
}

fn acknowledge(
    now: Res<Now>,
    mut inbox: ResMut<Inbox>,
    mut storage: ResMut<Storage>,
    mut outbox: ResMut<Outbox>,
    mut counts: ResMut<RefusalCounts>,
) {
    let usage = inbox.disk.take();
    storage.usage_told = (
        storage.usage_told.0 + u64::from(usage.is_some()),
        usage.is_some() && inbox.disk_is_newest,
    );
    storage.usage = usage.unwrap_or(storage.usage);
    for (writes, result) in inbox.take_batches(|batch| storage.in_flight.remove(&batch)) {
        match result {
            Ok(()) => {
                if storage.trouble.take().is_some() {
                    outbox.notify(Notice::Storage(None));
                }
                storage.retry_max = storage.retry_max.map(|max| max.saturating_mul(2));
                if !storage.retry.is_empty() {
                    storage.retry_at_ms = Some(now.mono_ms);
                }
            }
            Err(trouble) => {
                if storage.trouble.replace(trouble) != Some(trouble) {
                    outbox.notify(Notice::Storage(Some(trouble)));
                }
                storage.retry_max = Some((writes.len() / 2).max(1));
                let dropped = queue(&mut storage.retry, writes);
                counts.count_many(Refusal::Full, "write", dropped);
                storage.retry_at_ms = Some(now.after(RETRY_MS));
            }
        }
    }
}

/// Whether what it says of an author has changed while it waited: another list was adopted, or the person did something.
fn is_overtaken(write: &Write, lists: &KeptLists, changes: &RelationshipChanges) -> bool {
    match write {
        Write::RecentPosts { head, .. } => {
            let known = lists.head(&head.author);
            known.is_none_or(|known| known != head)
        }
        Write::Relationship { node, relationship } => {
            let said = relationship.clone().unwrap_or_default();
            changes.is_under_way(node) || lists.relationship(node) != said
        }
        Write::ForgetAuthor(node) => changes.is_under_way(node) || lists.keeps(node),
        _ => false,
    }
}

fn hand_out_due(glance: &Glance<'_>) -> Option<u64> {
    let storage = glance.at::<Storage>();
    let has_any = glance.at::<Outbox>().has_learned();
    match storage.retry_at_ms {
        Some(retry_at_ms) if !has_any => Some(retry_at_ms),
        _ => at_once_if(has_any || storage.retry_max.is_some() || !storage.retry.is_empty()),
    }
}

fn hand_out(
    now: Res<Now>,
    inbox: Res<Inbox>,
    mut storage: ResMut<Storage>,
    files: Res<FileIndex>,
    blobs: Res<BlobBook>,
    lists: KeptLists,
    changes: Res<RelationshipChanges>,
    mut outbox: ResMut<Outbox>,
    mut counts: ResMut<RefusalCounts>,
) {
    let learned = outbox.take_learned();
    let due = inbox.stopping || storage.retry_at_ms.is_some_and(|at| at <= now.mono_ms);
    let waiting = storage.retry_at_ms.is_some() && !due;
    let writes = if waiting {
        let dropped = queue(&mut storage.retry, learned);
        counts.count_many(Refusal::Full, "write", dropped);
        Vec::new()
    } else {
        storage.retry_at_ms = None;
        let mut writes = std::mem::take(&mut storage.retry);
        writes.extend(learned);
        // What goes for lack of room has gone to the disk already: what came of it with this frame, or waits since one before, must
        // not come after.
        writes.retain(|write| {
            still_holds(write, &files, &blobs) && !is_overtaken(write, &lists, &changes)
        });
        match storage.retry_max {
            Some(max) if writes.len() > max && !inbox.stopping => {
                storage.retry = writes.split_off(max);
                storage.retry_at_ms = Some(now.after(RETRY_MS));
            }
            Some(_) | None => storage.retry_max = None,
        }
        writes
    };
    if !writes.is_empty() {
        let batch = outbox.store_behind(writes.clone());
        storage.in_flight.insert(batch, writes);
    }
    if let Some(at) = storage.retry_at_ms {
        outbox.wake_at(at);
    }
}

fn end_of_stop(mut inbox: ResMut<Inbox>) {
    inbox.stopping = false;
}

/// Takes in what the disk acknowledged.
pub(crate) fn install(frame: &mut Installer<'_>) {
    let usage = frame.restored.usage;
    frame.world.resource_mut::<Storage>().usage = usage;
    frame.on(Occasions::BATCH, Phase::Ingest, acknowledge);
}

/// Hands out what this frame learned; after everything else.
pub(crate) fn install_last(frame: &mut Installer<'_>) {
    frame.on_or_due(Occasions::STOP, hand_out_due, Phase::Emit, hand_out);
    frame.on(Occasions::STOP, Phase::Emit, end_of_stop);
}

#[cfg(test)]
mod tests {
    use super::*;
    use bevy_ecs::system::SystemState;
    use distsoc_engine::domain::NodeId;
    use distsoc_engine::io::{BatchId, CallId, Relationship};
    use distsoc_engine::world::authors::{Author, AuthorIndex, OwnHead, RelationshipChange};

    #[test]
    fn what_waited_is_not_written_over_an_act_of_the_persons() {
        let node = NodeId::from_bytes([7; 32]);
        let mut world = World::new();
        world.insert_resource(OwnHead::default());
        let entity = world.spawn(Author::new(node)).id();
        let mut index = AuthorIndex::default();
        index.insert(node, entity);
        world.insert_resource(index);
        let hosted = Relationship {
            hosted_since_ms: Some(5),
            ..Relationship::default()
        };
        let followed = Relationship {
            followed_since_ms: Some(6),
            ..Relationship::default()
        };
        let says = |relationship| Write::Relationship { node, relationship };
        let [takes, ends, forgets] = [
            says(Some(hosted.clone())),
            says(None),
            Write::ForgetAuthor(node),
        ];
        let mut state = SystemState::<KeptLists>::new(&mut world);
        let mut overtaken = |relationship: &Relationship, changes: &RelationshipChanges| {
            let author = world.get_mut::<Author>(entity);
            author.expect("it is there").relationship = relationship.clone();
            let lists = state.get(&world).expect("its resources are there");
            [&takes, &ends, &forgets].map(|write| is_overtaken(write, &lists, changes))
        };
        let nothing = RelationshipChanges::default();
        assert_eq!(overtaken(&hosted, &nothing), [false, true, true]);
        let none = Relationship::default();
        assert_eq!(overtaken(&none, &nothing), [true, false, false]);
        assert_eq!(overtaken(&followed, &nothing), [true; 3]);
        // The disk is about to have it.
        let change = RelationshipChange {
            call: CallId(1),
            node,
            relationship: followed,
        };
        let mut changes = RelationshipChanges::default();
        changes.0.insert(BatchId(1), change);
        assert_eq!(overtaken(&none, &changes), [true; 3]);
    }
}
