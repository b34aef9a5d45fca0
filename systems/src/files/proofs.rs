//! PROTOCOL section 7, peer_copies: a file that is worth much goes for its copies only once two of those who were seen to have it have
//! given a random part of it again. Those who have not do not count any more.

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::{NodeId, PostId};
use distsoc_engine::entropy::Entropy;
use distsoc_engine::io::{RequestFailure, RequestId};
use distsoc_engine::limits;
use distsoc_engine::schedule::{Occasions, Phase};
use distsoc_engine::wire::codec::Bounded;
use distsoc_engine::wire::{FileRequest, Packet, PullSyncRequest};
use distsoc_engine::world::copies::{Copies, Holder};
use distsoc_engine::world::files::Archive;
use distsoc_engine::world::inbox::Inbox;
use distsoc_engine::world::keepers::Keepers;
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::Neighbours;
use std::collections::BTreeMap;

/// What a holder was asked for.
#[derive(Clone, Debug)]
struct Question {
    post: PostId,
    holder: Holder,
    /// Where it is a part of a blob.
    part: Option<FileRequest>,
}

/// Questions under way, and when the next may be put: mono ms.
#[derive(Resource, Debug, Default)]
struct Asking {
    questions: BTreeMap<RequestId, Question>,
    next_ms: u64,
}

/// Whether an answer holds what was asked for. Bytes of blobs are proved by their hash as they come in, those of a post by its id.
fn has_it(question: &Question, author: NodeId, answer: &Packet) -> bool {
    match (&question.part, answer) {
        (Some(part), Packet::FileResponse(response)) => {
            response.blob == part.blob
                && response.first == part.first
                && response.slices.len() == part.count as usize
        }
        (None, Packet::PullSyncResponse(response)) => response.posts.iter().any(|post| {
            let proved = post
                .clone()
                .authenticate(|id| (id == question.post).then_some(author));
            proved.is_ok_and(|post| post.id() == question.post)
        }),
        _ => false,
    }
}

fn take_answers(
    now: Res<Now>,
    mut inbox: ResMut<Inbox>,
    mut asking: ResMut<Asking>,
    mut archive: Archive,
) {
    if asking.questions.is_empty() {
        return;
    }
    let questions = &mut asking.questions;
    for (question, result) in inbox.take_responses(|request| questions.remove(&request)) {
        let Some(author) = archive.get(&question.post).map(|file| file.row.author) else {
            continue;
        };
        let has_it = match &result {
            Ok(answer) => has_it(&question, author, answer),
            Err(RequestFailure::Refused(_)) => false,
            // Whoever is away has not shown that it lacks anything.
            Err(_) => continue,
        };
        let now_s = (now.wall_ms / 1000) as u32;
        let copies = &mut archive.copies;
        if copies.proved(question.post, question.holder, has_it, now_s) {
            archive.judge_file(&question.post, None);
        }
    }
}

/// A random part of a file, or all of it where it is words alone.
fn part_of(archive: &Archive, post: &PostId, entropy: &mut Entropy) -> Option<FileRequest> {
    let blobs = &archive.get(post)?.row.blobs;
    let place = entropy.below(blobs.len().max(1) as u64) as usize;
    let blob = *blobs.get(place)?;
    let first = entropy.below(u64::from(blob.slices())) as u32;
    Some(FileRequest {
        blob,
        first,
        count: 1,
    })
}

fn ask(
    now: Res<Now>,
    neighbours: Neighbours,
    keepers: Res<Keepers>,
    mut asking: ResMut<Asking>,
    mut archive: Archive,
    mut entropy: ResMut<Entropy>,
    mut outbox: ResMut<Outbox>,
) {
    if !archive.copies.has_doubted() {
        return;
    }
    if now.mono_ms < asking.next_ms {
        outbox.wake_at(asking.next_ms);
        return;
    }
    if asking.questions.len() >= limits::PROOFS_IN_FLIGHT_MAX {
        return;
    }
    asking.next_ms = now.after(60 * 60 * 1000 / limits::PROOFS_PER_HOUR);
    outbox.wake_at(asking.next_ms);
    let Some((post, mut holders)) = archive.copies.take_doubted((now.wall_ms / 1000) as u32) else {
        return;
    };
    let Some(author) = archive.get(&post).map(|file| file.row.author) else {
        return;
    };
    entropy.shuffle(&mut holders);
    // Whoever keeps the author may have it too.
    let keeping = keepers.links(&author).chain(keepers.seen(&author));
    for node in keeping {
        if !holders.contains(&node) {
            holders.push(node);
        }
    }
    let connected = holders.iter().filter_map(|node| neighbours.by_node(node));
    let connected = connected.map(|(link, _)| (Holder::of(link.node, link.remote.ip()), link.id));
    for (holder, link) in connected.take(limits::PROOFS_ASKED_MAX) {
        let part = part_of(&archive, &post, &mut entropy);
        let request = match &part {
            Some(part) => outbox.request(link, &part.clone().into()),
            None => {
                let whole = PullSyncRequest {
                    authors: Bounded::default(),
                    posts: Bounded::truncated(vec![post]),
                };
                outbox.request(link, &whole.into())
            }
        };
        let question = Question { post, holder, part };
        asking.questions.insert(request, question);
    }
}

/// Proofs of copies.
pub(crate) fn install(frame: &mut Installer<'_>) {
    frame.world.insert_resource(Asking::default());
    frame.on(Occasions::RESPONSE, Phase::Ingest, take_answers);
    frame.due(
        |glance| {
            let has_doubted = glance.at::<Copies>().has_doubted();
            has_doubted.then_some(glance.at::<Asking>().next_ms)
        },
        Phase::Plan,
        ask,
    );
}
