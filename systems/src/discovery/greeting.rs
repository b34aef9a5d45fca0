//! PROTOCOL section 5: a connection is up when both Hellos have been seen, and of two connections between the same
//! nodes one stays.
//!
//! Whoever dialled says Hello first; whoever accepted answers with Hello if there is a slot and with Goodbye if there is
//! none, so that nobody counts as up for a moment only.

use super::addresses::{observe, record_for};
use super::slots::{Challenger, say_goodbye, take_seat, worth_of};
use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::{Address, AddressRecord, NodeId, Prefix, Scope, check_time};
use distsoc_engine::entropy::Entropy;
use distsoc_engine::io::{LinkId, Notice, Origin, Slot};
use distsoc_engine::limits;
use distsoc_engine::profile::NodeProfile;
use distsoc_engine::refusal::{Refusal, RefusalCounts};
use distsoc_engine::schedule::Phase;
use distsoc_engine::wire::{
    BootstrapSampleRequest, Goodbye, GoodbyeReason, Hello, PostNotification, ProfileUpdate,
    PullSyncRequest, Purpose,
};
use distsoc_engine::world::addresses::OwnAddresses;
use distsoc_engine::world::candidates::{Candidates, CoolOffs, Dialling};
use distsoc_engine::world::identity::Identity;
use distsoc_engine::world::inbox::{Arrival, Arrivals, Inbox, LinkEvent};
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::{
    Greeting, Link, Offences, Peer, PeerChange, PeerChanges, Peers, proved_address,
};
use std::net::SocketAddr;

/// Two connections between the same nodes cross if they began within this time; further apart, the newer one stays,
/// since the older may be dead on the other side.
const CROSSING_MS: u64 = 10_000;

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
    if record.expiry_ms <= now.wall_ms {
        return Err(Refusal::Stale);
    }
    if !record
        .addresses
        .iter()
        .all(|address| address.fits_scope_of(remote.ip()))
    {
        return Err(Refusal::BadAddress);
    }
    Ok(record)
}

fn follow_links(world: &mut World) {
    if world.resource::<Inbox>().links.is_empty() {
        return;
    }
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
    if matches!(origin, Origin::Dialled(_)) {
        say_hello(world, link, remote, purpose);
    }
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
    let is_stranger =
        |node: &NodeId| worth_of(world, node, None, now.mono_ms) == super::slots::Worth::Anybody;
    let strangers = inbound.iter().filter(|node| is_stranger(node)).count();
    (is_stranger(&node) && strangers >= limits::STRANGERS_PER_PREFIX_MAX)
        .then_some(Refusal::AcceptLimit)
}

fn say_hello(world: &mut World, link: LinkId, remote: SocketAddr, purpose: Purpose) {
    let now = *world.resource::<Now>();
    let profile = world.resource::<NodeProfile>().clone();
    let (record, behind_nat) = world.resource_scope(|world, mut own: Mut<OwnAddresses>| {
        let own = own.bypass_change_detection();
        let record = record_for(
            own,
            world.resource::<Identity>(),
            &profile,
            remote.ip(),
            now,
        );
        (record, own.behind_nat)
    });
    let observed = Address::new(remote).ok();
    let hello = Hello::new(profile.kind, purpose, behind_nat, false, record, observed);
    world.resource_mut::<Outbox>().send(link, &hello.into());
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

fn failed_to_greet(world: &mut World, entity: Entity, node: NodeId) {
    // Of two that cross, one goes before the other is up: that is no failure.
    let mut links = world.query::<(Entity, &Link)>();
    if links
        .iter(world)
        .any(|(other, link)| other != entity && link.node == node)
    {
        return;
    }
    let now_ms = world.resource::<Now>().mono_ms;
    world.resource_mut::<Dialling>().lost.push(node);
    world.resource_scope(|world, mut candidates: Mut<Candidates>| {
        candidates.failed(&node, now_ms, &mut world.resource_mut::<Entropy>());
    });
}

/// The peer is not up any more; its connection may still be closing.
pub(super) fn take_down(world: &mut World, node: NodeId) {
    let Some(entity) = world.resource_mut::<Peers>().remove_up(node) else {
        return;
    };
    let Some(peer) = world.entity_mut(entity).take::<Peer>() else {
        return;
    };
    let now_ms = world.resource::<Now>().mono_ms;
    world.resource_mut::<OwnAddresses>().observed.remove(&node);
    world.resource_scope(|world, mut candidates: Mut<Candidates>| {
        candidates.failed(&node, now_ms, &mut world.resource_mut::<Entropy>());
    });
    world
        .resource_mut::<PeerChanges>()
        .0
        .push(PeerChange::Down {
            node,
            slot: peer.slot,
        });
    world
        .resource_mut::<Outbox>()
        .notify(Notice::PeerDown { node });
}

fn greet(world: &mut World) {
    let arrivals = world.resource_mut::<Arrivals<Hello>>().take();
    for arrival in arrivals {
        welcome(world, arrival);
    }
}

fn welcome(world: &mut World, arrival: Arrival<Hello>) {
    let Some(entity) = world.resource::<Peers>().by_link(arrival.link) else {
        return;
    };
    let Some(greeting) = world.entity_mut(entity).take::<Greeting>() else {
        world
            .resource_mut::<Offences>()
            .note(arrival.link, Refusal::SecondHello, "Hello");
        return;
    };
    let now = *world.resource::<Now>();
    let link = world
        .get::<Link>(entity)
        .expect("an entity in Peers has its Link");
    let (node, remote, dialled) = (link.node, link.remote, link.dialled());
    let newer = Rival {
        dialled,
        since_ms: link.since_ms,
    };
    let mut hello = arrival.packet;
    let record = match hello
        .record
        .take()
        .map(|record| believable(record, node, remote, now))
    {
        Some(Ok(record)) => Some(record),
        Some(Err(refusal)) => {
            world
                .resource_mut::<Offences>()
                .note(arrival.link, refusal, "AddressRecord");
            None
        }
        None => None,
    };
    let Some((slot, up_since_ms)) = find_seat(world, node, newer, &greeting, &hello) else {
        refuse_seat(world, entity, arrival.link, node, dialled);
        return;
    };
    if !dialled {
        say_hello(world, arrival.link, remote, purpose_of(slot));
    }
    let person = None;
    world.entity_mut(entity).insert(Peer {
        slot,
        profile: hello.profile(),
        behind_nat: hello.behind_nat(),
        unlisted: hello.unlisted(),
        record,
        person,
        up_since_ms: up_since_ms.unwrap_or(now.mono_ms),
        heard_ms: now.mono_ms,
        spoke_ms: now.mono_ms,
        synced_ms: None,
    });
    observe(
        &mut world.resource_mut::<OwnAddresses>(),
        node,
        hello.observed,
    );
    world.resource_mut::<Peers>().insert_up(node, entity);
    remember(world, node, entity, now);
    world.resource_mut::<PeerChanges>().0.push(PeerChange::Up {
        node,
        link: arrival.link,
        slot,
    });
    if up_since_ms.is_none() {
        world
            .resource_mut::<Outbox>()
            .notify(Notice::PeerUp { node, slot });
    }
}

fn purpose_of(slot: Slot) -> Purpose {
    match slot {
        Slot::Social => Purpose::Social,
        Slot::Wide => Purpose::Wide,
        Slot::Visit => Purpose::Visit,
    }
}

/// The slot for a connection whose Hello came, and since when the peer is up if this one replaces another.
fn find_seat(
    world: &mut World,
    node: NodeId,
    newer: Rival,
    greeting: &Greeting,
    hello: &Hello,
) -> Option<(Slot, Option<u64>)> {
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
        return Some((replaced.slot, Some(replaced.up_since_ms)));
    }
    let wants = match (newer.dialled, hello.purpose()) {
        (_, Purpose::Visit) => Purpose::Visit,
        (true, _) => greeting.purpose,
        (false, purpose) => purpose,
    };
    let challenger = Challenger {
        purpose: wants,
        worth: worth_of(world, &node, None, now.mono_ms),
        is_anchor: hello.profile() == distsoc_engine::profile::ProfileKind::Anchor,
    };
    take_seat(world, challenger).map(|slot| (slot, None))
}

fn refuse_seat(world: &mut World, entity: Entity, link: LinkId, node: NodeId, dialled: bool) {
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
        let until_ms = world.resource::<Now>().after(limits::COOL_OFF_MS_MIN);
        world.resource_mut::<Candidates>().postpone(&node, until_ms);
    } else {
        world
            .resource_mut::<RefusalCounts>()
            .count(Refusal::Full, "connection");
    }
    say_goodbye(world, link, GoodbyeReason::Full);
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

/// PROTOCOL section 6: a full node answers Goodbye with peers to try, of whom at most 2 are dialled.
fn part(world: &mut World) {
    let arrivals = world.resource_mut::<Arrivals<Goodbye>>().take();
    for Arrival { link, packet, .. } in arrivals {
        let Some(entity) = world.resource::<Peers>().by_link(link) else {
            continue;
        };
        let (node, remote) = {
            let link = world
                .get::<Link>(entity)
                .expect("an entity in Peers has its Link");
            (link.node, link.remote)
        };
        let own = world.resource::<Identity>().node_id();
        let reason = packet.reason();
        let was_up = world.resource::<Peers>().by_node(&node) == Some(entity);
        if was_up {
            take_down(world, node);
        } else if world.entity_mut(entity).take::<Greeting>().is_some() {
            failed_to_greet(world, entity, node);
        }
        let is_anchor = world
            .resource::<Candidates>()
            .get(&node)
            .is_some_and(|candidate| candidate.is_anchor);
        let lonely = world.resource::<Peers>().up_count() == 0;
        let pause_ms = match reason {
            GoodbyeReason::Full if is_anchor && lonely => limits::REDIAL_MS_MIN,
            GoodbyeReason::Full | GoodbyeReason::Swapped | GoodbyeReason::Misconduct => {
                limits::COOL_OFF_MS_MIN
            }
            GoodbyeReason::VisitOver => limits::REDIAL_MS_MAX,
            GoodbyeReason::Stopping | GoodbyeReason::Duplicate => 0,
        };
        let pause_ms = world.resource_mut::<Entropy>().jittered(pause_ms);
        let until_ms = world.resource::<Now>().after(pause_ms);
        let mut hints = packet.try_instead.to_vec();
        world.resource_mut::<Entropy>().shuffle(&mut hints);
        let mut candidates = world.resource_mut::<Candidates>();
        candidates.postpone(&node, until_ms);
        let usable = hints
            .into_iter()
            .filter(|hint| hint.node_id != own && hint.address.fits_scope_of(remote.ip()));
        for hint in usable.take(limits::GOODBYE_HINTS_DIALLED_MAX) {
            candidates.hint(hint.node_id, hint.address);
        }
        world.resource_mut::<Outbox>().close(link, reason);
    }
}

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

/// PROTOCOL section 10: whoever stops says so.
fn stop(inbox: Res<Inbox>, mut outbox: ResMut<Outbox>, links: Query<&Link>) {
    if !inbox.stopping {
        return;
    }
    for link in &links {
        outbox.send(
            link.id,
            &Goodbye::new(GoodbyeReason::Stopping, Vec::new()).into(),
        );
        outbox.close(link.id, GoodbyeReason::Stopping);
    }
}

/// Connections, Hello, who is up.
pub(crate) fn install(frame: &mut Installer<'_>) {
    frame.add(Phase::Ingest, follow_links);
    frame.add(Phase::Ingest, greet);
    frame.add(Phase::Ingest, part);
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
    frame.add(Phase::Plan, time_out);
    frame.add(Phase::Emit, stop);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_that_cross_both_sides_keep_the_same() {
        let (small, large) = (NodeId::from_bytes([1; 32]), NodeId::from_bytes([2; 32]));
        let by_small = |own: &NodeId, since_ms| Rival {
            dialled: own == &small,
            since_ms,
        };
        let by_large = |own: &NodeId, since_ms| Rival {
            dialled: own == &large,
            since_ms,
        };
        for (own, peer) in [(small, large), (large, small)] {
            // Whichever a side sees first, the one dialled by the smaller id stays.
            assert!(newer_stays(
                &own,
                &peer,
                by_large(&own, 0),
                by_small(&own, 5)
            ));
            assert!(!newer_stays(
                &own,
                &peer,
                by_small(&own, 0),
                by_large(&own, 5)
            ));
            // A newer one by the same dialler replaces the older, and so does one that does not cross.
            assert!(newer_stays(
                &own,
                &peer,
                by_small(&own, 0),
                by_small(&own, 5)
            ));
            assert!(newer_stays(
                &own,
                &peer,
                by_large(&own, 0),
                by_large(&own, 5)
            ));
            assert!(newer_stays(
                &own,
                &peer,
                by_small(&own, 0),
                by_large(&own, CROSSING_MS)
            ));
        }
    }
}
