//! PROTOCOL section 9: what a person sees of the network, computed when they ask.

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::NodeId;
use distsoc_engine::io::{
    Call, CallError, Counter, MapCounts, MapView, PeerView, Reply, Slot, Status,
};
use distsoc_engine::profile::NodeProfile;
use distsoc_engine::refusal::RefusalCounts;
use distsoc_engine::schedule::{Occasions, Phase};
use distsoc_engine::world::addresses::OwnAddresses;
use distsoc_engine::world::authors::{Author, AuthorIndex, Succession};
use distsoc_engine::world::candidates::CurrentStanding;
use distsoc_engine::world::files::{FileIndex, Wanted};
use distsoc_engine::world::identity::{Anchors, Identity};
use distsoc_engine::world::inbox::Inbox;
use distsoc_engine::world::map::{DiscoveryMap, ReportedHop, entries_of};
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::{Link, Peer, Peers};
use distsoc_engine::world::storage::Storage;

/// Memory of one map entry: the entity, its component and its place in the index (measured, see FIGURES).
const MAP_ENTRY_BYTES: usize = 108;

fn answer(world: &mut World) {
    let calls = world.resource_mut::<Inbox>().take_calls(|call| match call {
        Call::Status | Call::Peers | Call::Map(_) | Call::Counters | Call::Follows => {
            Some(call.clone())
        }
        _ => None,
    });
    for (id, call) in calls {
        let result = match call {
            Call::Status => Ok(Reply::Status(status(world))),
            Call::Peers => Ok(Reply::Peers(peers(world))),
            Call::Map(None) => Ok(Reply::Map(MapView::Counts(map_counts(world)))),
            Call::Map(Some(node)) => map_entry(world, node).map(Reply::Map),
            Call::Counters => Ok(Reply::Counters(counters(world))),
            _ => Ok(Reply::Follows(follows(world))),
        };
        world.resource_mut::<Outbox>().reply(id, result);
    }
}

fn seated(world: &World) -> impl Iterator<Item = (&Link, &Peer)> + '_ {
    world
        .resource::<Peers>()
        .up()
        .filter_map(|(_, entity)| Some((world.get::<Link>(entity)?, world.get::<Peer>(entity)?)))
}

fn status(world: &World) -> Status {
    let count = |slot| seated(world).filter(|(_, peer)| peer.slot == slot).count();
    let own = world.resource::<OwnAddresses>();
    Status {
        node_id: world.resource::<Identity>().node_id(),
        profile: world.resource::<NodeProfile>().kind,
        standing: world.resource::<CurrentStanding>().0,
        peers_social: count(Slot::Social),
        peers_wide: count(Slot::Wide),
        visits: count(Slot::Visit),
        map: map_counts(world),
        follows: follows(world).len(),
        posts: world.resource::<FileIndex>().len(),
        posts_wanted: world.resource::<Wanted>().len(),
        addresses: own.local.iter().map(|address| address.socket()).collect(),
        storage_trouble: world.resource::<Storage>().trouble,
        anchors: world.resource::<Anchors>().0.len(),
        is_superseded: world.resource::<Succession>().is_read_only,
    }
}

fn peers(world: &World) -> Vec<PeerView> {
    let now = *world.resource::<Now>();
    let followed = follows(world);
    let mut views: Vec<PeerView> = seated(world)
        .map(|(link, peer)| PeerView {
            node_id: link.node,
            name: peer
                .person
                .as_ref()
                .map(|person| person.name.as_str().to_owned()),
            slot: peer.slot,
            role: peer.role,
            dialled: link.dialled(),
            address: link.remote,
            is_anchor: peer.is_anchor(),
            followed: followed.contains(&link.node),
            up_ms: now.mono_ms - peer.up_since_ms,
            heard_ms_ago: now.mono_ms - peer.heard_ms,
            link: link.id,
        })
        .collect();
    views.sort_by_key(|view| {
        (
            view.slot,
            !view.followed,
            view.name.is_none(),
            view.name.clone(),
            view.node_id,
        )
    });
    views
}

fn map_counts(world: &World) -> MapCounts {
    let map = world.resource::<DiscoveryMap>();
    let counts = map.counts();
    MapCounts {
        hop1: counts.hop_1,
        hop2: counts.hop_2,
        hop3: counts.hop_3,
        bytes: entries_of(world).len() * MAP_ENTRY_BYTES + map.memory_bytes(),
    }
}

fn map_entry(world: &World, node: NodeId) -> Result<MapView, CallError> {
    let (map, entries) = (world.resource::<DiscoveryMap>(), entries_of(world));
    let found = map
        .find(&node, entries)
        .map(|row| (row, entries[row as usize].hop()));
    let Some((row, Some(hop))) = found else {
        return Err(CallError::NotFound("that node is not on the map"));
    };
    let reporters = match hop {
        1 => vec![world.resource::<Identity>().node_id()],
        2 => map.who(ReportedHop::One, row, entries).collect(),
        _ => map.who(ReportedHop::Two, row, entries).collect(),
    };
    Ok(MapView::Entry {
        node_id: node,
        hop,
        reporters,
    })
}

fn follows(world: &World) -> Vec<NodeId> {
    world
        .resource::<AuthorIndex>()
        .iter()
        .filter(|(_, entity)| {
            world
                .get::<Author>(*entity)
                .is_some_and(Author::is_followed)
        })
        .map(|(node, _)| node)
        .collect()
}

fn counters(world: &World) -> Vec<Counter> {
    let status = status(world);
    let gauge = |name, value: usize| Counter {
        name,
        labels: Vec::new(),
        value: value as u64,
    };
    let mut counters = vec![
        gauge("peers_social", status.peers_social),
        gauge("peers_wide", status.peers_wide),
        gauge("visits", status.visits),
        gauge("map_entries", status.map.hop1),
        gauge("follows", status.follows),
        gauge("posts_stored", status.posts),
        gauge("posts_wanted", status.posts_wanted),
        gauge("writes_waiting", world.resource::<Storage>().retry.len()),
    ];
    let refusals = world
        .resource::<RefusalCounts>()
        .iter()
        .map(|(refusal, what, value)| Counter {
            name: "refused_total",
            labels: vec![
                ("reason", refusal.code().to_owned()),
                ("what", what.to_owned()),
            ],
            value,
        });
    counters.extend(refusals);
    counters
}

/// The node at a glance.
pub(crate) fn install(frame: &mut Installer<'_>) {
    frame.on(Occasions::CALL, Phase::Emit, answer);
}
