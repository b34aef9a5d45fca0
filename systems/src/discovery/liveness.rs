//! PROTOCOL section 3: where either side is behind NAT, QUIC keep-alive holds the connection; where neither is, a ping
//! does whenever nothing else was sent for long, which routing diffs forestall. Visits end after 30 s idle.

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::entropy::Entropy;
use distsoc_engine::io::{Effect, LinkId, Slot};
use distsoc_engine::limits;
use distsoc_engine::schedule::{AT_ONCE, Phase};
use distsoc_engine::wire::GoodbyeReason;
use distsoc_engine::world::addresses::OwnAddresses;
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::{
    Link, Partings, Peer, PeerChanges, Peers, peers_changed, take_down,
};

/// When somebody is due for a ping or a good-bye.
#[derive(Resource, Debug, Default)]
struct NextCheck(Option<u64>);

/// When this connection needs attention, if it is not touched before: mono ms.
fn attention_ms(peer: &Peer, kept_alive: bool, phase_ms: u64) -> Option<u64> {
    match (peer.slot, kept_alive) {
        (Slot::Visit, _) => Some(peer.heard_ms.max(peer.up_since_ms) + limits::VISIT_IDLE_MS),
        (_, true) => None,
        (_, false) => Some(peer.spoke_ms + limits::OPEN_PING_MS - phase_ms),
    }
}

fn choose_keep_alive(
    changes: Res<PeerChanges>,
    own: Res<OwnAddresses>,
    peers: Res<Peers>,
    mut next: ResMut<NextCheck>,
    mut outbox: ResMut<Outbox>,
    up: Query<(&Link, &Peer)>,
    mut was_behind_nat: Local<bool>,
) {
    let moved = own.behind_nat != *was_behind_nat;
    *was_behind_nat = own.behind_nat;
    if moved {
        for (link, peer) in &up {
            outbox.push(Effect::KeepAlive {
                link: link.id,
                on: own.behind_nat || peer.behind_nat,
            });
        }
        next.0 = Some(0);
        return;
    }
    for (node, link, _) in changes.came_up() {
        let Some((_, peer)) = peers.by_node(&node).and_then(|entity| up.get(entity).ok()) else {
            continue;
        };
        let on = own.behind_nat || peer.behind_nat;
        outbox.push(Effect::KeepAlive { link, on });
        next.0 = Some(0);
    }
}

fn tend(
    world: &mut World,
    mut query: Local<Option<QueryState<(&'static Link, &'static mut Peer)>>>,
) {
    let now = *world.resource::<Now>();
    let own_behind_nat = world.resource::<OwnAddresses>().behind_nat;
    let phase_ms = world
        .resource_mut::<Entropy>()
        .below(limits::OPEN_PING_MS / 10);
    let query = query.get_or_insert_with(|| world.query());
    let (mut pings, mut over, mut next): (Vec<LinkId>, Vec<LinkId>, Option<u64>) =
        (Vec::new(), Vec::new(), None);
    for (link, mut peer) in query.iter_mut(world) {
        let Some(mut at_ms) = attention_ms(&peer, own_behind_nat || peer.behind_nat, phase_ms)
        else {
            continue;
        };
        if at_ms <= now.mono_ms {
            if peer.slot == Slot::Visit {
                over.push(link.id);
                continue;
            }
            pings.push(link.id);
            peer.spoke_ms = now.mono_ms;
            at_ms = now.mono_ms + limits::OPEN_PING_MS - phase_ms;
        }
        next = Some(next.map_or(at_ms, |ms: u64| ms.min(at_ms)));
    }
    for link in over {
        if let Some(node) = node_of(world, link) {
            world
                .resource_mut::<Partings>()
                .from(link, GoodbyeReason::VisitOver);
            take_down(world, node);
        }
    }
    let mut outbox = world.resource_mut::<Outbox>();
    for link in pings {
        outbox.push(Effect::Ping { link });
    }
    if let Some(next_ms) = next {
        outbox.wake_at(next_ms);
    }
    world.resource_mut::<NextCheck>().0 = next;
}

fn node_of(world: &World, link: LinkId) -> Option<distsoc_engine::domain::NodeId> {
    let entity = world.resource::<Peers>().by_link(link)?;
    world.get::<Link>(entity).map(|link| link.node)
}

/// Keep-alive, pings, visits.
pub(crate) fn install(frame: &mut Installer<'_>) {
    frame.world.insert_resource(NextCheck::default());
    frame.due(
        |glance| match glance.has_changed::<OwnAddresses>() {
            true => Some(AT_ONCE),
            false => peers_changed(glance),
        },
        Phase::Plan,
        choose_keep_alive,
    );
    frame.due(|glance| glance.at::<NextCheck>().0, Phase::Plan, tend);
}
