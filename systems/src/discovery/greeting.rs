//! PROTOCOL section 5: the peer's Hello. Whoever has said it asks for a slot; whoever does not in time is closed.

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::{AddressRecord, NodeId, check_time};
use distsoc_engine::refusal::{Refusal, RefusalCounts};
use distsoc_engine::schedule::{Occasions, Phase, at_once_if};
use distsoc_engine::wire::{GoodbyeReason, Hello};
use distsoc_engine::world::inbox::Arrivals;
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::{Greeting, Link, Offences, Peers};
use distsoc_engine::world::slots::{SeatRequest, SeatRequests};
use std::net::SocketAddr;

/// What of a Hello's record may be believed: the peer's own, of our scope, neither from the future nor expired.
fn believable(
    record: AddressRecord,
    node: NodeId,
    remote: SocketAddr,
    now: Now,
) -> Result<AddressRecord, Refusal> {
    if record.node_id != node {
        return Err(Refusal::WrongAuthor);
    }
    check_time(record.seq, now)?;
    if !record.is_current(now) {
        return Err(Refusal::Stale);
    }
    if !record.addresses.is_empty() && !record.fits(remote) {
        return Err(Refusal::BadAddress);
    }
    Ok(record)
}

fn greet(
    now: Res<Now>,
    peers: Res<Peers>,
    mut arrivals: ResMut<Arrivals<Hello>>,
    mut requests: ResMut<SeatRequests>,
    mut offences: ResMut<Offences>,
    mut commands: Commands,
    mut greetings: Query<(&Link, Option<&Greeting>)>,
) {
    for arrival in arrivals.take() {
        let link = arrival.link;
        let Some(entity) = peers.by_link(link) else {
            continue;
        };
        let asked = requests.0.iter().any(|request| request.link == link);
        let Ok((facts, Some(greeting))) = greetings.get_mut(entity) else {
            offences.note(link, Refusal::SecondHello, "Hello");
            continue;
        };
        if asked {
            offences.note(link, Refusal::SecondHello, "Hello");
            continue;
        }
        commands.entity(entity).remove::<Greeting>();
        let mut hello = arrival.packet;
        let record = hello.record.take();
        let record = match record.map(|record| believable(record, facts.node, facts.remote, *now)) {
            Some(Ok(record)) => Some(record),
            Some(Err(refusal)) => {
                offences.note(link, refusal, "AddressRecord");
                None
            }
            None => None,
        };
        requests.0.push(SeatRequest {
            link,
            entity,
            purpose: greeting.purpose,
            hello,
            record,
        });
    }
}

fn time_out(
    now: Res<Now>,
    mut outbox: ResMut<Outbox>,
    mut counts: ResMut<RefusalCounts>,
    mut greetings: Query<(&Link, &mut Greeting)>,
) {
    for (link, mut greeting) in &mut greetings {
        if greeting.deadline_ms <= now.mono_ms {
            counts.count(Refusal::BeforeHello, "connection");
            outbox.close(link.id, GoodbyeReason::Misconduct);
            // Closed once; the driver's LinkDown removes it.
            greeting.deadline_ms = u64::MAX;
        } else if greeting.deadline_ms != u64::MAX {
            outbox.wake_at(greeting.deadline_ms);
        }
    }
}

/// The peer's Hello.
pub(crate) fn install(frame: &mut Installer<'_>) {
    frame.on(Occasions::packet(&Hello::SPEC), Phase::Ingest, greet);
    // Whoever is up has said Hello.
    frame.due(
        |glance| {
            let peers = glance.at::<Peers>();
            at_once_if(peers.link_count() > peers.up_count())
        },
        Phase::Plan,
        time_out,
    );
}
