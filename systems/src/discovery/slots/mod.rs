//! PROTOCOL section 6, connection slots: who gets one, and whose place a better peer takes (open question 1). Of two
//! connections between the same nodes one stays (section 5).

mod seat;
#[cfg(test)]
mod tests;

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::{Network, NodeId};
use distsoc_engine::entropy::Entropy;
use distsoc_engine::io::{CallError, LinkId, Notice, Slot, WideRole};
use distsoc_engine::limits;
use distsoc_engine::profile::{NodeProfile, ProfileKind};
use distsoc_engine::refusal::{Refusal, RefusalCounts};
use distsoc_engine::schedule::{Phase, at_once_if};
use distsoc_engine::wire::{GoodbyeReason, Purpose};
use distsoc_engine::world::addresses::OwnAddresses;
use distsoc_engine::world::candidates::{Candidates, CoolOffs, Dialling, Lost, cool_off_ms};
use distsoc_engine::world::identity::Identity;
use distsoc_engine::world::map::{DiscoveryMap, entries_of};
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::{
    Link, Partings, Peer, PeerChange, PeerChanges, Peers, proved_address, take_down,
};
use distsoc_engine::world::slots::{SeatRequest, SeatRequests, Worth, worth_of};
use distsoc_engine::world::wide::WidePlan;
use seat::{Challenger, Incumbent, Place, Rules, Seat};

/// When the last swap was.
#[derive(Resource, Debug, Default)]
struct Swaps {
    last_ms: Option<u64>,
    /// A wide peer that had dialled in gave way: mono ms.
    yielded_ms: Option<u64>,
}

impl Swaps {
    fn allowed(&self, now_ms: u64) -> bool {
        self.last_ms
            .is_none_or(|last| now_ms >= last + limits::SWAP_PAUSE_MS)
    }
}

/// The least diverse of the wide peers that dialled in and are safe no more, if the last that gave way did so long enough ago.
fn yields(world: &World, incumbents: &[Incumbent], now_ms: u64) -> Option<NodeId> {
    let pause_ms = world.resource::<NodeProfile>().wide_evaluation_ms;
    let yielded_ms = world.resource::<Swaps>().yielded_ms;
    if yielded_ms.is_some_and(|at_ms| now_ms < at_ms + pause_ms) {
        return None;
    }
    let (map, entries) = (world.resource::<DiscoveryMap>(), entries_of(world));
    let may_go = |one: &&Incumbent| {
        one.place.role == Some(WideRole::Diverse)
            && one.is_stranger
            && now_ms >= one.up_since_ms + limits::INCUMBENT_SAFE_MS
    };
    incumbents
        .iter()
        .filter(may_go)
        .map(|one| one.node)
        .min_by_key(|node| (map.sole_rows(node, entries).count(), *node))
}

/// Everybody who has a slot, in the order of their ids.
fn incumbents(world: &World, now_ms: u64) -> Vec<Incumbent> {
    let up: Vec<(NodeId, Entity)> = world.resource::<Peers>().up().collect();
    up.into_iter()
        .filter_map(|(node, entity)| {
            let (link, peer) = (world.get::<Link>(entity)?, world.get::<Peer>(entity)?);
            let worth = worth_of(world, &node, peer.synced_ms, now_ms);
            Some(Incumbent {
                node,
                link: link.id,
                place: Place {
                    slot: peer.slot,
                    role: peer.role,
                },
                worth,
                is_anchor: peer.is_anchor(),
                dialled: link.dialled(),
                network: Network::of(link.remote.ip()),
                is_stranger: !link.dialled() && worth == Worth::Anybody,
                up_since_ms: peer.up_since_ms,
            })
        })
        .collect()
}

/// Seats a challenger, sending away whoever has to go; `None` where there is no place.
fn take_seat(world: &mut World, challenger: Challenger) -> Option<Place> {
    let now = *world.resource::<Now>();
    let incumbents = incumbents(world, now.mono_ms);
    let chooses_us = challenger.purpose == Purpose::Wide && !challenger.dialled;
    let yields = match chooses_us {
        true => yields(world, &incumbents, now.mono_ms),
        false => None,
    };
    let plan = world.resource::<WidePlan>();
    let rules = Rules {
        own: world.resource::<Identity>().node_id(),
        profile: world.resource::<NodeProfile>(),
        swap_allowed: world.resource::<Swaps>().allowed(now.mono_ms),
        swap: plan.swap,
        yields,
        size: plan.size(world.resource::<DiscoveryMap>().counts().total()),
        now_ms: now.mono_ms,
    };
    match rules.seat(challenger, &incumbents) {
        Seat::Free(place) => Some(place),
        Seat::Full => None,
        Seat::InsteadOf(incumbent) => {
            if incumbent.place.slot == Slot::Social {
                world.resource_mut::<Swaps>().last_ms = Some(now.mono_ms);
            } else if yields == Some(incumbent.node) {
                world.resource_mut::<Swaps>().yielded_ms = Some(now.mono_ms);
            }
            world
                .resource_mut::<CoolOffs>()
                .drop_peer(incumbent.node, now.mono_ms);
            world
                .resource_mut::<Partings>()
                .from(incumbent.link, GoodbyeReason::Swapped);
            take_down(world, incumbent.node);
            Some(incumbent.place)
        }
    }
}

/// Two connections between the same nodes cross if they began within this time; further apart, the newer one stays,
/// since the older may be dead on the other side.
const CROSSING_MS: u64 = 5_000;

/// A connection between two nodes, for deciding which of two stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rival {
    dialled: bool,
    since_ms: u64,
}

/// PROTOCOL section 5: of two that cross, the one dialled by the smaller NodeId stays; a newer one by the same dialler
/// replaces the older.
fn newer_stays(own: &NodeId, peer: &NodeId, older: Rival, newer: Rival) -> bool {
    let crossing = older.dialled != newer.dialled && newer.since_ms < older.since_ms + CROSSING_MS;
    if !crossing {
        return true;
    }
    newer.dialled == (own < peer)
}

fn give_seats(world: &mut World) {
    for request in std::mem::take(&mut world.resource_mut::<SeatRequests>().0) {
        give_seat(world, request);
    }
}

fn give_seat(world: &mut World, request: SeatRequest) {
    let now = *world.resource::<Now>();
    let entity = request.entity;
    let link = world
        .get::<Link>(entity)
        .expect("an entity in Peers has its Link");
    let (node, dialled) = (link.node, link.dialled());
    let network = Network::of(link.remote.ip());
    let newer = Rival {
        dialled,
        since_ms: link.since_ms,
    };
    let Some((Place { slot, role }, up_since_ms)) =
        find_seat(world, node, network, newer, &request)
    else {
        refuse_seat(world, entity, request.link, node, dialled);
        return;
    };
    let SeatRequest {
        link,
        hello,
        record,
        ..
    } = request;
    world.entity_mut(entity).insert(Peer {
        slot,
        role,
        profile: hello.profile(),
        behind_nat: hello.behind_nat(),
        unlisted: hello.unlisted(),
        record,
        person: None,
        up_since_ms: up_since_ms.unwrap_or(now.mono_ms),
        heard_ms: now.mono_ms,
        spoke_ms: now.mono_ms,
        synced_ms: None,
    });
    world
        .resource_mut::<OwnAddresses>()
        .observe(node, hello.observed);
    world.resource_mut::<Peers>().insert_up(node, entity);
    remember(world, node, entity, now);
    world
        .resource_mut::<PeerChanges>()
        .0
        .push(PeerChange::Up { node, link, slot });
    if up_since_ms.is_none() {
        world
            .resource_mut::<Outbox>()
            .notify(Notice::PeerUp { node, slot });
    }
}

/// The slot for a connection whose Hello came, and since when the peer is up if this one replaces another.
fn find_seat(
    world: &mut World,
    node: NodeId,
    network: Option<Network>,
    newer: Rival,
    request: &SeatRequest,
) -> Option<(Place, Option<u64>)> {
    let now = *world.resource::<Now>();
    let own = world.resource::<Identity>().node_id();
    if let Some(older_entity) = world.resource::<Peers>().by_node(&node) {
        let older_link = world
            .get::<Link>(older_entity)
            .expect("an entity in Peers has its Link");
        let older = Rival {
            dialled: older_link.dialled(),
            since_ms: older_link.since_ms,
        };
        let older_id = older_link.id;
        if !newer_stays(&own, &node, older, newer) {
            return None;
        }
        world
            .resource_mut::<Outbox>()
            .close(older_id, GoodbyeReason::Duplicate);
        world.resource_mut::<Peers>().remove_up(node);
        let replaced = world
            .entity_mut(older_entity)
            .take::<Peer>()
            .expect("a peer that is up");
        let place = Place {
            slot: replaced.slot,
            role: replaced.role,
        };
        return Some((place, Some(replaced.up_since_ms)));
    }
    let wants = match (newer.dialled, request.hello.purpose()) {
        (_, Purpose::Visit) => Purpose::Visit,
        (true, _) => request.purpose,
        (false, purpose) => purpose,
    };
    let challenger = Challenger {
        node,
        dialled: newer.dialled,
        network,
        purpose: wants,
        worth: worth_of(world, &node, None, now.mono_ms),
        is_anchor: request.hello.profile() == ProfileKind::Anchor,
    };
    take_seat(world, challenger).map(|place| (place, None))
}

fn refuse_seat(world: &mut World, entity: Entity, link: LinkId, node: NodeId, dialled: bool) {
    let now_ms = world.resource::<Now>().mono_ms;
    let duplicate = world
        .resource::<Peers>()
        .by_node(&node)
        .is_some_and(|up| up != entity);
    if duplicate {
        world
            .resource_mut::<Outbox>()
            .close(link, GoodbyeReason::Duplicate);
        return;
    }
    if dialled {
        // Where there was no place, there is hardly one soon.
        world.resource_scope(|world, mut candidates: Mut<Candidates>| {
            let mut entropy = world.resource_mut::<Entropy>();
            candidates.failed(&node, now_ms, &mut entropy);
            let failures = candidates.get(&node).map_or(0, |one| one.failures);
            let pause_ms = entropy.jittered(cool_off_ms(failures.saturating_sub(1)));
            candidates.postpone(&node, now_ms + pause_ms);
        });
        let why = CallError::Refused(
            "all connection slots of this node are taken, and nobody in them is worth less",
        );
        let lost = Lost {
            node,
            remote: None,
            why,
        };
        world.resource_mut::<Dialling>().lost.push(lost);
    } else {
        world
            .resource_mut::<RefusalCounts>()
            .count(Refusal::Full, "connection");
    }
    world
        .resource_mut::<Partings>()
        .from(link, GoodbyeReason::Full);
}

/// What a handshake proved is worth remembering: for dialling again, and for telling others.
fn remember(world: &mut World, node: NodeId, entity: Entity, now: Now) {
    let link = world
        .get::<Link>(entity)
        .expect("an entity in Peers has its Link");
    let peer = world.get::<Peer>(entity).expect("a peer that is up");
    let (address, is_anchor) = (proved_address(link, peer), peer.is_anchor());
    world
        .resource_mut::<Candidates>()
        .proved(node, address, is_anchor, now.mono_ms);
}

/// Slots.
pub(crate) fn install(frame: &mut Installer<'_>) {
    frame.world.insert_resource(Swaps::default());
    frame.world.insert_resource(WidePlan::default());
    frame.due(
        |glance| at_once_if(!glance.at::<SeatRequests>().0.is_empty()),
        Phase::Ingest,
        give_seats,
    );
}
