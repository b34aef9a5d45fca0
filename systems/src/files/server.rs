//! PROTOCOL sections 7 and 8: any holder answers for what it keeps, newest first, within bounds.

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::{NodeId, PostId};
use distsoc_engine::io::{LinkId, ReadId, ReadQuery, ReadResult, StreamToken};
use distsoc_engine::limits;
use distsoc_engine::refusal::Refusal;
use distsoc_engine::schedule::{Occasions, Phase};
use distsoc_engine::wire::codec::Bounded;
use distsoc_engine::wire::{PullSyncRequest, PullSyncResponse};
use distsoc_engine::world::authors::AuthorIndex;
use distsoc_engine::world::deletions::Deletions;
use distsoc_engine::world::files::FileIndex;
use distsoc_engine::world::identity::Identity;
use distsoc_engine::world::inbox::{Arrivals, Inbox};
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::{Offences, Peer, Peers};
use std::collections::{BTreeMap, BTreeSet};

/// Answers that wait for the disk, at most [`limits::READS_FOR_PEERS_MAX`].
#[derive(Resource, Debug, Default)]
struct Answering(BTreeMap<ReadId, (LinkId, StreamToken)>);

fn look_up(
    identity: Res<Identity>,
    authors: Res<AuthorIndex>,
    files: Res<FileIndex>,
    deletions: Res<Deletions>,
    mut arrivals: ResMut<Arrivals<PullSyncRequest>>,
    mut answering: ResMut<Answering>,
    mut outbox: ResMut<Outbox>,
    mut offences: ResMut<Offences>,
) {
    for arrival in arrivals.take() {
        let Some(stream) = arrival.stream else {
            continue;
        };
        if answering.0.len() >= limits::READS_FOR_PEERS_MAX {
            offences.note(arrival.link, Refusal::Full, "PullSyncRequest");
            outbox.respond(stream, None);
            continue;
        }
        let PullSyncRequest {
            authors: wants,
            posts,
        } = arrival.packet;
        let held = |node: &NodeId| *node == identity.node_id() || authors.get(node).is_some();
        // What is named again is not read again.
        let mut named = BTreeSet::new();
        let wants = wants
            .into_vec()
            .into_iter()
            .filter(|want| held(&want.author) && named.insert(want.author))
            .collect();
        // What was taken back is answered by its author's record.
        let mut unknown = limits::PULL_DELETIONS_MAX;
        let is_deleted = |id: &PostId, unknown: &mut usize| {
            let may_look = *unknown > 0;
            *unknown = unknown.saturating_sub(1);
            may_look && deletions.has_any_record(id)
        };
        let mut named = BTreeSet::new();
        let posts = posts
            .into_vec()
            .into_iter()
            .filter(|id| named.insert(*id))
            .filter(|id| files.contains(id) || is_deleted(id, &mut unknown))
            .collect();
        let read = outbox.read(ReadQuery::ForPeer {
            wants,
            posts,
            bytes_max: limits::PULL_RESPONSE_BYTES_MAX,
        });
        answering.0.insert(read, (arrival.link, stream));
    }
}

fn answer(
    now: Res<Now>,
    peers: Res<Peers>,
    mut inbox: ResMut<Inbox>,
    mut answering: ResMut<Answering>,
    mut outbox: ResMut<Outbox>,
    mut up: Query<&mut Peer>,
) {
    for ((link, stream), result) in inbox.take_reads(|read| answering.0.remove(&read)) {
        match result {
            Ok(ReadResult::ForPeer {
                lists,
                posts,
                hearts,
                deletions,
            }) => {
                let response = PullSyncResponse {
                    lists: Bounded::truncated(lists),
                    posts: Bounded::truncated(posts),
                    hearts: Bounded::truncated(hearts),
                    deletions: Bounded::truncated(deletions),
                };
                outbox.respond(stream, Some(&response.into()));
                if let Some(mut peer) = peers
                    .up_behind(link)
                    .and_then(|entity| up.get_mut(entity).ok())
                {
                    peer.synced_ms = Some(now.mono_ms);
                    peer.spoke_ms = now.mono_ms;
                }
            }
            Ok(ReadResult::RecentPosts(_) | ReadResult::Slices(_)) | Err(_) => {
                outbox.respond(stream, None)
            }
        }
    }
}

/// Answers for what is kept here.
pub(crate) fn install(frame: &mut Installer<'_>) {
    frame.world.insert_resource(Answering::default());
    frame.on(Occasions::READ, Phase::Ingest, answer);
    frame.on(
        Occasions::packet(&PullSyncRequest::SPEC),
        Phase::Judge,
        look_up,
    );
}
