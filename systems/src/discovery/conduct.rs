//! PROTOCOL section 5: what a peer sends wrongly is dropped and counted, and a peer that goes on is disconnected and
//! cooled off.

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::refusal::{Refusal, RefusalCounts};
use distsoc_engine::schedule::{Occasions, Phase, at_once_if};
use distsoc_engine::wire::{self, GoodbyeReason, Layer, name_of};
use distsoc_engine::world::candidates::CoolOffs;
use distsoc_engine::world::inbox::{Inbox, LinkEvent};
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::{Link, Offences, Partings, Peer, Peers};

/// Nothing but what makes and ends connections is taken before one is up.
fn take_from_the_up(world: &mut World) {
    let now = *world.resource::<Now>();
    wire::retain_arrivals(world, |world, link, stream, spec| {
        if spec.layer == Layer::Connection {
            return true;
        }
        let entity = world.resource::<Peers>().up_behind(link);
        if let Some(mut peer) = entity.and_then(|entity| world.get_mut::<Peer>(entity)) {
            peer.heard_ms = now.mono_ms;
            return true;
        }
        let mut offences = world.resource_mut::<Offences>();
        offences.note(link, Refusal::BeforeHello, spec.name);
        if let Some(stream) = stream {
            world.resource_mut::<Outbox>().respond(stream, None);
        }
        false
    });
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
    frame.due(
        |glance| at_once_if(!glance.at::<Offences>().is_empty()),
        Phase::Emit,
        judge,
    );
}
