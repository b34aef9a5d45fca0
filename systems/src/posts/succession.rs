//! PROTOCOL section 7, author_recent_posts: a node that sees a newer list of its own key writes no more, and asks: another machine holds
//! the key, or this one lost what it had said. Those who keep the own posts know.

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::{RecentPostsHead, check_time};
use distsoc_engine::entropy::Entropy;
use distsoc_engine::io::{LinkId, RequestId, Slot, Write};
use distsoc_engine::limits;
use distsoc_engine::schedule::{AT_ONCE, Glance, Occasions, Phase};
use distsoc_engine::wire::codec::Bounded;
use distsoc_engine::wire::{Packet, PullSyncRequest, Want};
use distsoc_engine::world::authors::{OwnHead, Succession};
use distsoc_engine::world::identity::Identity;
use distsoc_engine::world::inbox::Inbox;
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::{Link, Peer, PeerChanges, peers_changed};
use std::collections::BTreeSet;

/// Questions under way, and when the next is put: mono ms.
#[derive(Resource, Debug, Default)]
struct Asking {
    requests: BTreeSet<RequestId>,
    asked: usize,
    next_ms: u64,
}

/// Whether a list found elsewhere outranks the own. Where there is none here, the identity was restored, and its first post begins
/// a generation that outranks all before.
fn outranks(own: Option<&RecentPostsHead>, found: &RecentPostsHead, now: Now) -> bool {
    let is_newer = own.is_some_and(|own| found.author == own.author && found.seq > own.seq);
    is_newer && check_time(found.updated_at_ms, now).is_ok()
}

fn take_answers(
    now: Res<Now>,
    own: Res<OwnHead>,
    mut inbox: ResMut<Inbox>,
    mut asking: ResMut<Asking>,
    mut succession: ResMut<Succession>,
    mut outbox: ResMut<Outbox>,
) {
    if asking.requests.is_empty() {
        return;
    }
    let requests = &mut asking.requests;
    let ends = inbox.take_responses(|request| requests.remove(&request).then_some(()));
    for ((), result) in ends {
        let Ok(Packet::PullSyncResponse(response)) = result else {
            continue;
        };
        for part in response.lists.into_vec() {
            let best = succession.newer.as_ref().or(own.0.as_ref());
            if !outranks(best, &part.head, *now) {
                continue;
            }
            if let Some(own) = own.0.as_ref().filter(|_| !succession.is_read_only) {
                // Remembered over a start.
                let heads = Box::new([own.clone(), part.head.clone()]);
                outbox.store(Write::Equivocation(heads));
            }
            succession.is_read_only = true;
            succession.newer = Some(part.head);
        }
    }
}

/// Whoever comes up may be asked, or says to know better; and then one an hour.
fn ask_due(glance: &Glance<'_>) -> Option<u64> {
    let is_told = !glance.at::<Succession>().hints.is_empty();
    let asking = glance.at::<Asking>();
    match glance.at::<OwnHead>().0 {
        _ if is_told => Some(AT_ONCE),
        None => None,
        Some(_) => peers_changed(glance).or((asking.asked > 0).then_some(asking.next_ms)),
    }
}

fn ask(
    now: Res<Now>,
    identity: Res<Identity>,
    own: Res<OwnHead>,
    changes: Res<PeerChanges>,
    mut asking: ResMut<Asking>,
    mut succession: ResMut<Succession>,
    mut entropy: ResMut<Entropy>,
    mut outbox: ResMut<Outbox>,
    up: Query<(&Link, &Peer)>,
) {
    let Some(head) = &own.0 else {
        succession.hints.clear();
        return;
    };
    // One place is left for those who are asked without having said anything.
    let hints = std::mem::take(&mut succession.hints).into_iter();
    let room = limits::OWN_LIST_PEERS.saturating_sub(asking.requests.len() + 1);
    let mut links: BTreeSet<LinkId> = hints.take(room).collect();
    for (_, link, slot) in changes.came_up() {
        if slot != Slot::Visit && asking.asked < limits::OWN_LIST_PEERS {
            asking.asked += 1;
            asking.next_ms = now.after(entropy.jittered(limits::OWN_LIST_MS));
            links.insert(link);
        }
    }
    if asking.asked > 0 {
        if asking.next_ms <= now.mono_ms {
            asking.next_ms = now.after(entropy.jittered(limits::OWN_LIST_MS));
            let lasting = up.iter().filter(|(_, peer)| peer.slot != Slot::Visit);
            let mut lasting: Vec<LinkId> = lasting.map(|(link, _)| link.id).collect();
            lasting.sort_unstable();
            entropy.shuffle(&mut lasting);
            links.extend(lasting.first());
        }
        outbox.wake_at(asking.next_ms);
    }
    for link in links {
        if asking.requests.len() >= limits::OWN_LIST_PEERS {
            break;
        }
        let want = Want {
            author: identity.node_id(),
            seq: head.seq.to_u64(),
        };
        let request = PullSyncRequest {
            authors: Bounded::truncated(vec![want]),
            posts: Bounded::default(),
        };
        asking
            .requests
            .insert(outbox.request(link, &request.into()));
    }
}

/// The own list, as others know it.
pub(crate) fn install(frame: &mut Installer<'_>) {
    frame.world.insert_resource(Asking::default());
    let own = frame.world.resource::<Identity>().node_id();
    let is_read_only = frame.restored.equivocal.contains(&own);
    frame.world.resource_mut::<Succession>().is_read_only = is_read_only;
    frame.on(Occasions::RESPONSE, Phase::Ingest, take_answers);
    frame.due(ask_due, Phase::Plan, ask);
}
