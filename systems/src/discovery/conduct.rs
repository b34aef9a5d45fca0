//! PROTOCOL section 5: what a peer sends wrongly is dropped and counted, and a peer that goes on is disconnected and
//! cooled off.

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::refusal::{Refusal, RefusalCounts};
use distsoc_engine::schedule::Phase;
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
fn only_from_the_up<P: Send + Sync + 'static>(
    what: &'static str,
) -> impl FnMut(
    Res<Now>,
    Res<Peers>,
    ResMut<Arrivals<P>>,
    ResMut<Offences>,
    ResMut<Outbox>,
    Query<&mut Peer>,
) {
    move |now, peers, mut arrivals, mut offences, mut outbox, mut up| {
        if arrivals.is_empty() {
            return;
        }
        arrivals.retain(|arrival| {
            let peer = peers
                .up_behind(arrival.link)
                .and_then(|entity| up.get_mut(entity).ok());
            if let Some(mut peer) = peer {
                peer.heard_ms = now.mono_ms;
                return true;
            }
            offences.note(arrival.link, Refusal::BeforeHello, what);
            if let Some(stream) = arrival.stream {
                outbox.respond(stream, None);
            }
            false
        });
    }
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
    frame.add(Phase::Ingest, note_refused);
    frame.add(
        Phase::Ingest,
        only_from_the_up::<PostNotification>("PostNotification"),
    );
    frame.add(
        Phase::Ingest,
        only_from_the_up::<ProfileUpdate>("ProfileUpdate"),
    );
    frame.add(
        Phase::Ingest,
        only_from_the_up::<PullSyncRequest>("PullSyncRequest"),
    );
    frame.add(
        Phase::Ingest,
        only_from_the_up::<BootstrapSampleRequest>("BootstrapSampleRequest"),
    );
    frame.add(
        Phase::Ingest,
        only_from_the_up::<MapReconcile>("MapReconcile"),
    );
    frame.add(
        Phase::Ingest,
        only_from_the_up::<RoutingDiff>("RoutingDiff"),
    );
    frame.add(
        Phase::Ingest,
        only_from_the_up::<AddressRequest>("AddressRequest"),
    );
    frame.add(
        Phase::Ingest,
        only_from_the_up::<WormRequest>("WormRequest"),
    );
    frame.add(Phase::Ingest, only_from_the_up::<WormQuery>("WormQuery"));
    frame.add(Phase::Ingest, only_from_the_up::<WormAnswer>("WormAnswer"));
    frame.add(
        Phase::Ingest,
        only_from_the_up::<AddressAnnounce>("AddressAnnounce"),
    );
    frame.add(
        Phase::Ingest,
        only_from_the_up::<DirectoryPut>("DirectoryPut"),
    );
    frame.add(
        Phase::Ingest,
        only_from_the_up::<DirectoryGet>("DirectoryGet"),
    );
    frame.add(Phase::Ingest, only_from_the_up::<WideProbe>("WideProbe"));
    frame.add(
        Phase::Ingest,
        only_from_the_up::<OuterMapRequest>("OuterMapRequest"),
    );
}

/// Judges what every feature refused in this frame.
pub(crate) fn install_last(frame: &mut Installer<'_>) {
    frame.add(Phase::Emit, judge);
}
