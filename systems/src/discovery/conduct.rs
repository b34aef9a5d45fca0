//! PROTOCOL section 5: what a peer sends wrongly is dropped and counted, and a peer that goes on is disconnected and
//! cooled off.

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::refusal::{Refusal, RefusalCounts};
use distsoc_engine::schedule::{Occasions, Phase};
use distsoc_engine::wire::{
    AddressAnnounce, AddressRequest, BootstrapSampleRequest, DirectoryGet, DirectoryPut,
    GoodbyeReason, MapReconcile, OuterMapRequest, PostNotification, ProfileUpdate, PullSyncRequest,
    RoutingDiff, WideProbe, WormAnswer, WormQuery, WormRequest, name_of,
};
use distsoc_engine::world::candidates::CoolOffs;
use distsoc_engine::world::inbox::{Arrivals, Inbox, LinkEvent};
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::{Link, Offences, Partings, Peer, Peers};

/// Nothing but Hello and Goodbye is taken before a connection is up.
fn only_from_the_up<P: Send + Sync + 'static>(world: &mut World, what: &'static str) {
    if world.resource::<Arrivals<P>>().is_empty() {
        return;
    }
    let now = *world.resource::<Now>();
    let mut arrivals = world.resource_mut::<Arrivals<P>>().take();
    arrivals.retain(|arrival| {
        let entity = world.resource::<Peers>().up_behind(arrival.link);
        if let Some(mut peer) = entity.and_then(|entity| world.get_mut::<Peer>(entity)) {
            peer.heard_ms = now.mono_ms;
            return true;
        }
        let mut offences = world.resource_mut::<Offences>();
        offences.note(arrival.link, Refusal::BeforeHello, what);
        if let Some(stream) = arrival.stream {
            world.resource_mut::<Outbox>().respond(stream, None);
        }
        false
    });
    world.resource_mut::<Arrivals<P>>().put_back(arrivals);
}

fn take_from_the_up(world: &mut World) {
    only_from_the_up::<PostNotification>(world, "PostNotification");
    only_from_the_up::<ProfileUpdate>(world, "ProfileUpdate");
    only_from_the_up::<PullSyncRequest>(world, "PullSyncRequest");
    only_from_the_up::<BootstrapSampleRequest>(world, "BootstrapSampleRequest");
    only_from_the_up::<MapReconcile>(world, "MapReconcile");
    only_from_the_up::<RoutingDiff>(world, "RoutingDiff");
    only_from_the_up::<AddressRequest>(world, "AddressRequest");
    only_from_the_up::<WormRequest>(world, "WormRequest");
    only_from_the_up::<WormQuery>(world, "WormQuery");
    only_from_the_up::<WormAnswer>(world, "WormAnswer");
    only_from_the_up::<AddressAnnounce>(world, "AddressAnnounce");
    only_from_the_up::<DirectoryPut>(world, "DirectoryPut");
    only_from_the_up::<DirectoryGet>(world, "DirectoryGet");
    only_from_the_up::<WideProbe>(world, "WideProbe");
    only_from_the_up::<OuterMapRequest>(world, "OuterMapRequest");
}

/// What the transport dropped before it was a packet.
fn note_refused(mut inbox: ResMut<Inbox>, mut offences: ResMut<Offences>) {
    inbox.links.retain(|event| match event {
        LinkEvent::Refused {
            link,
            code,
            refusal,
            count,
        } => {
            offences.note_many(*link, *refusal, name_of(*code), *count);
            false
        }
        _ => true,
    });
}

fn judge(
    now: Res<Now>,
    peers: Res<Peers>,
    mut offences: ResMut<Offences>,
    mut counts: ResMut<RefusalCounts>,
    mut cool_offs: ResMut<CoolOffs>,
    mut partings: ResMut<Partings>,
    mut links: Query<&mut Link>,
) {
    for offence in offences.take() {
        counts.count_many(offence.refusal, offence.what, u64::from(offence.count));
        let Some(mut link) = peers
            .by_link(offence.link)
            .and_then(|entity| links.get_mut(entity).ok())
        else {
            continue;
        };
        let already = link.too_far();
        if link.charge(offence.refusal, offence.count, now.mono_ms) && !already {
            cool_offs.drop_peer(link.node, now.mono_ms);
            partings.from(link.id, GoodbyeReason::Misconduct);
        }
    }
}

/// Takes in what the transport refused.
pub(crate) fn install(frame: &mut Installer<'_>) {
    frame.on(Occasions::LINK, Phase::Ingest, note_refused);
    frame.on(Occasions::PACKET, Phase::Ingest, take_from_the_up);
}

/// Judges what every feature refused in this frame.
pub(crate) fn install_last(frame: &mut Installer<'_>) {
    frame.add(Phase::Emit, judge);
}
