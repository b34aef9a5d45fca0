//! PROTOCOL section 7, the file chain: who keeps an author tells those with a swarm link within seconds that something is new: peers at
//! once, others by a call. A digest proves nothing: it allows one question to whoever sent it.

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::NodeId;
use distsoc_engine::entropy::Entropy;
use distsoc_engine::limits;
use distsoc_engine::refusal::Refusal;
use distsoc_engine::schedule::{AT_ONCE, Occasions, Phase};
use distsoc_engine::wire::codec::Bounded;
use distsoc_engine::wire::{AuthorUpdatePush, ListDigest, SwarmLink, SwarmWish};
use distsoc_engine::world::authors::{KeptLists, ListHints};
use distsoc_engine::world::identity::Identity;
use distsoc_engine::world::inbox::Arrivals;
use distsoc_engine::world::keepers::{Keepers, ListNews, SwarmCalls};
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::{Neighbours, Offences, tellable_record};
use std::collections::{BTreeMap, BTreeSet};

/// Links that are said to be none any more in answer to one packet.
const ENDS_PER_PUSH: usize = 4;

/// What is to be told.
#[derive(Resource, Debug, Default)]
struct Chain {
    /// Author → who need not be told, having told.
    news: BTreeMap<NodeId, BTreeSet<NodeId>>,
    /// When: mono ms.
    due_ms: Option<u64>,
}

fn take_pushes(
    now: Res<Now>,
    mut arrivals: ResMut<Arrivals<AuthorUpdatePush>>,
    lists: KeptLists,
    neighbours: Neighbours,
    mut chain: ResMut<Chain>,
    mut keepers: ResMut<Keepers>,
    mut hints: ListHints,
    mut outbox: ResMut<Outbox>,
    mut offences: ResMut<Offences>,
) {
    for arrival in arrivals.take() {
        let Some((link, peer)) = neighbours.behind(arrival.link) else {
            continue;
        };
        let mut ends = 0;
        for digest in arrival.packet.digests.iter() {
            let author = digest.author;
            if !lists.keeps(&author) {
                // Whoever tells has a link that is none any more.
                ends += 1;
                if ends <= ENDS_PER_PUSH {
                    let end = SwarmLink::new(*digest, SwarmWish::End);
                    outbox.send(arrival.link, &end.into());
                }
                offences.note(arrival.link, Refusal::NotKept, "AuthorUpdatePush");
                continue;
            }
            keepers.saw(author, link.node);
            let head = lists.head(&author);
            let has_the_same = head.is_some_and(|head| ListDigest::of(head) == *digest);
            let record = tellable_record(link, peer, link.remote, *now);
            if let Some(record) = record.filter(|_| has_the_same) {
                // The sender has a link to here, which a restart may have forgotten.
                keepers.learn_place(record);
                keepers.link(author, link.node, link.remote.ip());
            }
            let (known, from) = (lists.author(&author), (link.id, link.node));
            let is_newer = hints.hear(author, known, digest.seq, from);
            if let Some(told) = chain.news.get_mut(&author).filter(|_| !is_newer) {
                told.insert(link.node);
            }
        }
    }
}

fn tell(
    now: Res<Now>,
    identity: Res<Identity>,
    lists: KeptLists,
    neighbours: Neighbours,
    keepers: Res<Keepers>,
    mut news: ResMut<ListNews>,
    mut chain: ResMut<Chain>,
    mut calls: ResMut<SwarmCalls>,
    mut entropy: ResMut<Entropy>,
    mut outbox: ResMut<Outbox>,
) {
    for (author, from) in std::mem::take(&mut news.0) {
        chain.news.entry(author).or_default().extend(from);
    }
    let due_ms = *chain
        .due_ms
        .get_or_insert_with(|| now.after(entropy.below(limits::CHAIN_DELAY_MS)));
    if now.mono_ms < due_ms {
        outbox.wake_at(due_ms);
        return;
    }
    chain.due_ms = None;
    let mut by_peer: BTreeMap<NodeId, Vec<ListDigest>> = BTreeMap::new();
    for (author, told) in std::mem::take(&mut chain.news) {
        let Some(head) = lists.head(&author) else {
            continue;
        };
        // Once: whoever hears it tells it on.
        for node in keepers.links(&author) {
            if told.contains(&node) || node == author {
                continue;
            }
            match neighbours.by_node(&node) {
                // Peers have the notification of an own post.
                Some(_) if author == identity.node_id() => {}
                Some(_) => by_peer.entry(node).or_default().push(ListDigest::of(head)),
                None => calls.tell(node, author),
            }
        }
    }
    for (node, digests) in by_peer {
        let Some((link, _)) = neighbours.by_node(&node) else {
            continue;
        };
        for some in digests.chunks(limits::PUSH_AUTHORS_MAX) {
            let digests = Bounded::truncated(some.to_vec());
            outbox.send(link.id, &AuthorUpdatePush { digests }.into());
        }
    }
}

/// News of authors from keeper to keeper.
pub(crate) fn install(frame: &mut Installer<'_>) {
    frame.world.insert_resource(Chain::default());
    frame.on(
        Occasions::packet(&AuthorUpdatePush::SPEC),
        Phase::Judge,
        take_pushes,
    );
    frame.due(
        |glance| {
            let chain = glance.at::<Chain>();
            match chain.due_ms {
                _ if !glance.at::<ListNews>().0.is_empty() => Some(AT_ONCE),
                _ if chain.news.is_empty() => None,
                due_ms => due_ms.or(Some(AT_ONCE)),
            }
        },
        Phase::Plan,
        tell,
    );
}
