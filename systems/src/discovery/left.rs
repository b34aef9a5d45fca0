//! PROTOCOL section 6, "every node leaves its record with its ring slots and 12 nodes of ranks 5-64": the connected peers closest
//! in id get it and pass it on to a few of theirs each.

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::{AddressRecord, NodeId};
use distsoc_engine::io::Slot;
use distsoc_engine::limits;
use distsoc_engine::refusal::Refusal;
use distsoc_engine::schedule::{AT_ONCE, Occasions, Phase};
use distsoc_engine::wire::AddressAnnounce;
use distsoc_engine::world::addresses::OwnAddresses;
use distsoc_engine::world::inbox::Arrivals;
use distsoc_engine::world::knowledge::Knowledge;
use distsoc_engine::world::left_records::LeftRecords;
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::{
    Link, Offences, Peer, PeerChanges, Peers, is_tellable, peers_changed,
};
use std::collections::BTreeMap;

/// Which record each peer has: the seq of it.
#[derive(Resource, Debug, Default)]
struct LeftWith {
    /// Told in Hello or since.
    told: BTreeMap<NodeId, u64>,
    /// Left with, to be passed on.
    neighbours: BTreeMap<NodeId, u64>,
    next_ms: u64,
}

/// How often peers are looked at while nothing has changed: records are signed anew every 12 h.
const LOOK_MS: u64 = 60 * 60 * 1000;
/// After a change, once more peers may have come.
const SETTLE_MS: u64 = 5_000;

/// What passes on: the own record of whoever sent it, at an address where it was seen. One that was seen elsewhere, as behind NAT, is
/// nobody's fault and goes no farther.
fn may_pass_on(announce: &AddressAnnounce, from: &Link) -> Result<bool, Refusal> {
    let record = &announce.record;
    match announce.passes {
        0 => Ok(false),
        _ if record.node_id == from.node => Ok(record
            .addresses
            .iter()
            .any(|address| address.socket() == from.remote)),
        _ => Err(Refusal::WrongAuthor),
    }
}

fn take_records(
    now: Res<Now>,
    mut arrivals: ResMut<Arrivals<AddressAnnounce>>,
    mut left: ParamSet<(Knowledge<'_, '_>, ResMut<LeftRecords>, Query<&mut Peer>)>,
    peers: Res<Peers>,
    mut outbox: ResMut<Outbox>,
    mut offences: ResMut<Offences>,
) {
    for arrival in arrivals.take() {
        let knowledge = left.p0();
        let Some((link, peer)) = knowledge.peer(arrival.link) else {
            continue;
        };
        let (node, announce) = (link.node, arrival.packet);
        let record = &announce.record;
        let fits = is_tellable(record, link.remote, *now);
        let judged = match peer.slot {
            Slot::Visit => Err(Refusal::NotWanted),
            _ if !fits => Err(Refusal::BadAddress),
            _ => may_pass_on(&announce, link),
        };
        let kept = judged.and_then(|passes| {
            if record.node_id == node
                && let Some(entity) = peers.by_node(&node)
                && let Ok(mut peer) = left.p2().get_mut(entity)
                && peer
                    .record
                    .as_ref()
                    .is_none_or(|known| record.supersedes(known).is_ok())
            {
                peer.record = Some(record.clone());
            }
            if passes || record.node_id != node {
                left.p1().leave(record.clone(), node, *now)?;
            }
            Ok(passes)
        });
        match kept {
            Ok(true) => pass_on(record, node, &left.p0(), &mut outbox),
            Ok(false) => {}
            Err(refusal) => offences.note(arrival.link, refusal, "AddressAnnounce"),
        }
    }
}

/// Hands a record to the peers closest to whom it is about that are no peers of its own: those have it.
fn pass_on(
    record: &AddressRecord,
    from: NodeId,
    knowledge: &Knowledge<'_, '_>,
    outbox: &mut Outbox,
) {
    let packet = AddressAnnounce {
        record: record.clone(),
        passes: 0,
    };
    let bytes = distsoc_engine::wire::Packet::from(packet).encode();
    let has_it = |node: &NodeId| *node == from || knowledge.reports(&from, node);
    let nearest = knowledge.closest_peers(&record.node_id, usize::MAX);
    let others = nearest.into_iter().filter(|node| !has_it(node));
    let told = others.filter_map(|node| knowledge.peer_by_node(&node));
    let told = told.filter(|(link, _)| is_tellable(record, link.remote, knowledge.now()));
    for (link, _) in told.take(limits::RECORD_PASSES) {
        outbox.send_bytes(link.id, bytes.clone());
    }
}

fn leave_own(
    now: Res<Now>,
    changes: Res<PeerChanges>,
    mut left_with: ResMut<LeftWith>,
    mut outbox: ResMut<Outbox>,
    knowledge: Knowledge<'_, '_>,
) {
    for (node, link, _) in changes.came_up() {
        let remote = knowledge.peer(link).map(|(link, _)| link.remote);
        let record = remote.and_then(|remote| knowledge.own_record(remote));
        if let Some(record) = record {
            // It stood in Hello.
            left_with.told.insert(node, record.seq);
        }
    }
    if !changes.0.is_empty() || knowledge.own_addresses_changed() {
        let soon_ms = now.after(SETTLE_MS);
        let next_ms = &mut left_with.next_ms;
        *next_ms = if *next_ms > now.mono_ms {
            (*next_ms).min(soon_ms)
        } else {
            soon_ms
        };
    }
    if left_with.next_ms > now.mono_ms {
        outbox.wake_at(left_with.next_ms);
        return;
    }
    if left_with.next_ms == 0 {
        return;
    }
    left_with.next_ms = now.after(LOOK_MS);
    outbox.wake_at(left_with.next_ms);
    let own = knowledge.own();
    let nearest = knowledge.closest_peers(&own, limits::RING_NEIGHBOURS);
    let LeftWith {
        told, neighbours, ..
    } = &mut *left_with;
    neighbours.retain(|node, _| nearest.contains(node));
    told.retain(|node, _| knowledge.peer_by_node(node).is_some());
    for (link, peer) in knowledge.peers() {
        let Some(record) = knowledge.own_record(link.remote) else {
            continue;
        };
        let news = |known: &mut BTreeMap<NodeId, u64>| {
            known.insert(link.node, record.seq) != Some(record.seq)
        };
        let is_news = news(told);
        let passes = u8::from(nearest.contains(&link.node) && news(neighbours));
        if peer.slot != Slot::Visit && (is_news || passes == 1) {
            let record = record.clone();
            outbox.send(link.id, &AddressAnnounce { record, passes }.into());
        }
    }
}

/// Records left with neighbours.
pub(crate) fn install(frame: &mut Installer<'_>) {
    frame.world.insert_resource(LeftWith::default());
    frame.on(
        Occasions::packet(&AddressAnnounce::SPEC),
        Phase::Judge,
        take_records,
    );
    frame.due(
        |glance| {
            let is_changed =
                peers_changed(glance).is_some() || glance.has_changed::<OwnAddresses>();
            match glance.at::<LeftWith>().next_ms {
                _ if is_changed => Some(AT_ONCE),
                0 => None,
                next_ms => Some(next_ms),
            }
        },
        Phase::Plan,
        leave_own,
    );
}
