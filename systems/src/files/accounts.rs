//! PROTOCOL section 7, quota, for the person: what is kept for whom, why, and what would go next; pins, and the budget.

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::PostId;
use distsoc_engine::io::{
    BatchId, Call, CallError, CallId, Effect, KeptView, OwnBytes, Reply, StorageTrouble,
    StorageView, Write,
};
use distsoc_engine::limits;
use distsoc_engine::schedule::{Occasions, Phase, at_once_if};
use distsoc_engine::world::authors::Author;
use distsoc_engine::world::files::{Archive, StoredFile, Tally};
use distsoc_engine::world::identity::Identity;
use distsoc_engine::world::inbox::Inbox;
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::storage::Storage;
use std::collections::BTreeMap;

/// A disk that says nothing about a new budget for so long did not take it.
const BUDGET_ANSWER_MS: u64 = 10_000;

/// What waits for the disk.
#[derive(Resource, Debug, Default)]
struct Waiting {
    pins: BTreeMap<BatchId, (CallId, PostId, bool)>,
    /// Who asked for which budget, and until when to wait: mono ms.
    budgets: Vec<(CallId, u64, u64)>,
}

enum Wish {
    Pin(PostId, bool),
    Storage(usize),
    Explain(PostId),
    Budget(u64),
}

fn kept_view(archive: &Archive, file: &StoredFile, now: Now, rank: Option<usize>) -> KeptView {
    let candidate = file.keep.and_then(|keep| archive.order.get(keep));
    let facts = candidate.map(|candidate| candidate.facts((now.wall_ms / 1000) as u32));
    KeptView {
        post: file.row.id,
        author: file.row.author,
        bytes: file.disk_bytes(),
        worth: facts.map(|facts| (facts, facts.priority())),
        rank,
        missing_bytes: archive.missing_bytes(file),
        author_is_equivocal: archive
            .author(&file.row.author)
            .is_some_and(|author| author.is_equivocal),
    }
}

fn explain(archive: &Archive, id: &PostId, now: Now) -> Result<KeptView, CallError> {
    let file = archive
        .get(id)
        .ok_or(CallError::NotFound("that post is not stored here"))?;
    let mut rank = None;
    if file.keep.is_some() {
        let mut before = 0;
        archive.order.least_worth(|_, candidate| {
            if candidate.id == *id {
                rank = Some(before);
            }
            before += 1;
            rank.is_none()
        });
    }
    Ok(kept_view(archive, file, now, rank))
}

fn overview(
    archive: &Archive,
    identity: &Identity,
    storage: &Storage,
    now: Now,
    preview: usize,
) -> StorageView {
    let mut view = StorageView {
        usage: storage.usage,
        own_max: storage.own_bytes_max(),
        files: archive.index.len(),
        authors: archive
            .kept
            .iter()
            .filter(|author| author.is_kept())
            .count(),
        ..StorageView::default()
    };
    let mut tally = Tally::default();
    view.own = archive.count_own(&mut tally);
    for (id, _) in archive.index.iter() {
        let file = archive.get(&id);
        let Some(file) = file.filter(|file| file.row.author != identity.node_id()) else {
            continue;
        };
        let author = archive.author(&file.row.author);
        let share = if file.row.is_pinned {
            &mut view.pinned_bytes
        } else if author.is_some_and(Author::is_followed) {
            &mut view.followed_bytes
        } else {
            &mut view.hosted_bytes
        };
        *share += tally.count(&file.row, &archive.blobs);
    }
    archive.order.least_worth(|_, candidate| {
        let rank = view.next_to_go.len();
        if rank < preview {
            let file = archive.get(&candidate.id);
            view.next_to_go
                .extend(file.map(|file| kept_view(archive, file, now, Some(rank))));
        }
        view.next_to_go.len() < preview
    });
    view
}

/// Whether everything may take so many bytes from now on. A larger budget is the way out for whoever has too much of their own.
fn check_budget(bytes: u64, archive: &Archive, storage: &Storage) -> Result<(), CallError> {
    if bytes < limits::BUDGET_BYTES_MIN {
        return Err(CallError::Refused("the least budget is 64 MB"));
    }
    if bytes > limits::BUDGET_BYTES_MAX {
        return Err(CallError::Refused("the largest budget is 16 TB"));
    }
    if bytes > storage.usage.budget_bytes {
        return Ok(());
    }
    let (own, most) = (archive.own_bytes(), OwnBytes::max_of(bytes));
    if own.all > most.all {
        return Err(CallError::Refused(
            "own posts may take a quarter of the budget, and yours take more than that: delete some first, or choose a larger one",
        ));
    }
    if own.rows > most.rows {
        return Err(CallError::Refused(
            "texts of own posts may take a sixth of the budget, and yours take more than that: delete some first, or choose a larger one",
        ));
    }
    Ok(())
}

fn answer(
    now: Res<Now>,
    identity: Res<Identity>,
    storage: Res<Storage>,
    mut inbox: ResMut<Inbox>,
    mut waiting: ResMut<Waiting>,
    mut archive: Archive,
    mut outbox: ResMut<Outbox>,
) {
    let wishes = inbox.take_calls(|call| match call {
        Call::Pin { post, is_pinned } => Some(Wish::Pin(*post, *is_pinned)),
        Call::Storage { preview } => Some(Wish::Storage(*preview)),
        Call::ExplainPost(post) => Some(Wish::Explain(*post)),
        Call::SetBudget(bytes) => Some(Wish::Budget(*bytes)),
        _ => None,
    });
    for (call, wish) in wishes {
        let reply = match wish {
            Wish::Pin(post, is_pinned) if archive.index.contains(&post) => {
                let batch = outbox.store_durable(vec![Write::Pin { post, is_pinned }]);
                waiting.pins.insert(batch, (call, post, is_pinned));
                continue;
            }
            Wish::Pin(..) => Err(CallError::NotFound("that post is not stored here")),
            Wish::Storage(preview) => {
                archive.order.turn((now.wall_ms / 1000) as u32);
                let view = overview(&archive, &identity, &storage, *now, preview);
                Ok(Reply::Storage(Box::new(view)))
            }
            Wish::Explain(post) => {
                archive.order.turn((now.wall_ms / 1000) as u32);
                explain(&archive, &post, *now).map(Reply::Kept)
            }
            Wish::Budget(bytes) if bytes == storage.usage.budget_bytes => Ok(Reply::Done),
            Wish::Budget(bytes) => match check_budget(bytes, &archive, &storage) {
                Err(refused) => Err(refused),
                Ok(()) => {
                    outbox.push(Effect::Budget { bytes });
                    let until_ms = now.after(BUDGET_ANSWER_MS);
                    waiting.budgets.push((call, bytes, until_ms));
                    continue;
                }
            },
        };
        outbox.reply(call, reply);
    }
}

fn settle(
    now: Res<Now>,
    storage: Res<Storage>,
    mut inbox: ResMut<Inbox>,
    mut waiting: ResMut<Waiting>,
    mut archive: Archive,
    mut outbox: ResMut<Outbox>,
) {
    let pins = &mut waiting.pins;
    for ((call, post, is_pinned), result) in inbox.take_batches(|batch| pins.remove(&batch)) {
        let reply = match result {
            Err(trouble) => Err(CallError::Storage(trouble)),
            Ok(()) if !archive.index.contains(&post) => Err(CallError::NotFound(
                "that post had to go for lack of room just now",
            )),
            Ok(()) => {
                archive.judge_file(&post, Some(is_pinned));
                Ok(Reply::Done)
            }
        };
        outbox.reply(call, reply);
    }
    waiting.budgets.retain(|(call, bytes, until_ms)| {
        let is_set = *bytes == storage.usage.budget_bytes;
        if is_set {
            outbox.reply(*call, Ok(Reply::Done));
        } else if *until_ms <= now.mono_ms {
            let failed = CallError::Storage(StorageTrouble::Failed);
            outbox.reply(*call, Err(failed));
        } else {
            outbox.wake_at(*until_ms);
            return true;
        }
        false
    });
}

/// What the person sees and wants of what is kept.
pub(crate) fn install(frame: &mut Installer<'_>) {
    frame.world.insert_resource(Waiting::default());
    frame.on_or_due(
        Occasions::BATCH,
        |glance| at_once_if(!glance.at::<Waiting>().budgets.is_empty()),
        Phase::Ingest,
        settle,
    );
    frame.on(Occasions::CALL, Phase::Judge, answer);
}
