//! PROTOCOL section 5: connections as the transport reports them, from the handshake that proves a key to their end.

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::{NodeId, Prefix, Scope};
use distsoc_engine::io::{LinkId, Origin};
use distsoc_engine::limits;
use distsoc_engine::refusal::{Refusal, RefusalCounts};
use distsoc_engine::schedule::{Occasions, Phase};
use distsoc_engine::wire::{GoodbyeReason, Purpose};
use distsoc_engine::world::candidates::{Candidates, CoolOffs, Dialling};
use distsoc_engine::world::identity::Identity;
use distsoc_engine::world::inbox::{Inbox, LinkEvent};
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::{Greeting, Link, Peers, failed_to_greet, take_down};
use std::net::SocketAddr;

fn follow_links(world: &mut World) {
    let events = std::mem::take(&mut world.resource_mut::<Inbox>().links);
    let mut others = Vec::new();
    for event in events {
        match event {
            LinkEvent::Up {
                link,
                node,
                remote,
                origin,
            } => begin(world, link, node, remote, origin),
            LinkEvent::Down { link, .. } => end(world, link),
            other => others.push(other),
        }
    }
    world.resource_mut::<Inbox>().links = others;
}

/// A handshake proved who is there.
fn begin(world: &mut World, link: LinkId, node: NodeId, remote: SocketAddr, origin: Origin) {
    let now = *world.resource::<Now>();
    let attempt = match origin {
        Origin::Dialled(dial) => world.resource_mut::<Dialling>().finish(dial),
        Origin::Accepted => None,
    };
    let refused = match origin {
        Origin::Accepted => refuse_stranger(world, node, remote, now),
        Origin::Dialled(_) => None,
    };
    if let Some(refusal) = refused {
        world
            .resource_mut::<RefusalCounts>()
            .count(refusal, "connection");
        world
            .resource_mut::<Outbox>()
            .close(link, GoodbyeReason::Full);
        return;
    }
    let purpose = attempt.map_or(Purpose::Social, |attempt| attempt.purpose);
    let entity = world
        .spawn((
            Link::new(link, node, remote, origin, now.mono_ms),
            Greeting {
                deadline_ms: now.after(limits::HELLO_TIMEOUT_MS),
                purpose,
            },
        ))
        .id();
    world
        .resource_mut::<Peers>()
        .insert_link(link, node, entity);
}

/// Why somebody who dialled in is not even greeted.
fn refuse_stranger(
    world: &mut World,
    node: NodeId,
    remote: SocketAddr,
    now: Now,
) -> Option<Refusal> {
    if node == world.resource::<Identity>().node_id() {
        return Some(Refusal::WrongAuthor);
    }
    if world
        .resource_mut::<CoolOffs>()
        .is_cooling(&node, now.mono_ms)
    {
        return Some(Refusal::CoolingOff);
    }
    let peers = world.resource::<Peers>();
    if peers.link_count() - peers.up_count().min(peers.link_count()) >= limits::GREETINGS_MAX {
        return Some(Refusal::Full);
    }
    if Scope::of(remote.ip()).is_local() {
        return None;
    }
    let prefix = Prefix::of(remote.ip());
    let mut links = world.query::<&Link>();
    let inbound: Vec<NodeId> = links
        .iter(world)
        .filter(|link| !link.dialled() && Prefix::of(link.remote.ip()) == prefix)
        .map(|link| link.node)
        .collect();
    // Who was up before is none. Whom one follows is: else whoever comes twice from one network, under other names and then their own,
    // would be told.
    let candidates = world.resource::<Candidates>();
    let is_stranger = |node: &NodeId| {
        let known = candidates.get(node);
        known.is_none_or(|one| one.proved_ms.is_none())
    };
    let strangers = inbound.iter().filter(|node| is_stranger(node)).count();
    (is_stranger(&node) && strangers >= limits::STRANGERS_PER_PREFIX_MAX)
        .then_some(Refusal::AcceptLimit)
}

/// A connection is no more.
fn end(world: &mut World, link: LinkId) {
    let Some(entity) = world.resource::<Peers>().by_link(link) else {
        return;
    };
    let node = world.get::<Link>(entity).map(|link| link.node);
    let was_up = node.filter(|node| world.resource::<Peers>().by_node(node) == Some(entity));
    match (was_up, node) {
        (Some(node), _) => take_down(world, node),
        (None, Some(node)) if world.get::<Greeting>(entity).is_some() => {
            failed_to_greet(world, entity, node)
        }
        _ => {}
    }
    world.resource_mut::<Peers>().remove_link(link);
    world.despawn(entity);
}

/// Connections.
pub(crate) fn install(frame: &mut Installer<'_>) {
    frame.on(Occasions::LINK, Phase::Ingest, follow_links);
}
