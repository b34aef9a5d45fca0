//! PROTOCOL section 6: the nearest ids on the ring, found by one lookup beside the own id, and fingers at harmonically drawn
//! distances. One search at a time, by few requests: soon again while it brings somebody new, and ever more rarely when not.

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::domain::{AddressRecord, NodeId, estimated_count, finger_bits};
use distsoc_engine::entropy::Entropy;
use distsoc_engine::io::{DialTarget, Slot, WideRole};
use distsoc_engine::limits;
use distsoc_engine::profile::NodeProfile;
use distsoc_engine::schedule::{AT_ONCE, Phase, at_once_if};
use distsoc_engine::wire::Purpose;
use distsoc_engine::world::knowledge::Knowledge;
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::{PeerChange, PeerChanges, Peers, peers_changed};
use distsoc_engine::world::searches::{Errand, Errands, SearchId, WormSearch, WormSearches};
use distsoc_engine::world::wide::WidePlan;
use std::collections::BTreeMap;

/// The network's size is judged by how close the so many closest ids to a random place are.
const SIZE_RANK: usize = 4;

/// What a search is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aim {
    Ring,
    Finger(NodeId),
}

/// The search for neighbours and fingers.
#[derive(Resource, Debug)]
struct Neighbours {
    looking: Option<(SearchId, Aim)>,
    /// The next search is due: mono ms; `None` while nobody is up.
    next_ms: Option<u64>,
    pause_ms: u64,
    /// The last search was for the ring.
    ring_was_last: bool,
    /// How many were missing before the last search.
    missing: usize,
    /// Who was dialled, and until when they are not dialled again: they may be full, or gone.
    dialled: BTreeMap<NodeId, u64>,
}

impl Default for Neighbours {
    fn default() -> Self {
        Self {
            looking: None,
            next_ms: None,
            pause_ms: limits::RING_PAUSE_MS_MIN,
            ring_was_last: false,
            missing: usize::MAX,
            dialled: BTreeMap::new(),
        }
    }
}

/// Own slots of a role that are dialled and empty.
fn missing(knowledge: &Knowledge<'_, '_>, role: WideRole, slots: usize) -> usize {
    let dialled = knowledge
        .peers()
        .filter(|(link, peer)| peer.role == Some(role) && link.dialled())
        .count();
    slots.div_ceil(2).saturating_sub(dialled)
}

fn errand(record: &AddressRecord, purpose: Purpose) -> Errand {
    Errand {
        target: DialTarget::Addresses(record.addresses.to_vec()),
        purpose,
    }
}

/// Whom to dial of those that a search named: for the ring those among the nearest of all that are known, for a finger the nearest.
fn chosen(
    aim: Aim,
    own: NodeId,
    near: &[AddressRecord],
    connected: &[NodeId],
    ring_slots: usize,
) -> Vec<NodeId> {
    let target = match aim {
        Aim::Ring => own,
        Aim::Finger(target) => target,
    };
    let mut all: Vec<NodeId> = near.iter().map(|record| record.node_id).collect();
    all.extend(connected);
    all.retain(|node| *node != own);
    all.sort_unstable_by_key(|node| target.distance(node));
    all.dedup();
    all.truncate(match aim {
        Aim::Ring => ring_slots,
        Aim::Finger(_) => 1,
    });
    all.retain(|node| !connected.contains(node));
    all.truncate(ring_slots.div_ceil(2));
    all
}

fn take_ends(
    now: Res<Now>,
    profile: Res<NodeProfile>,
    mut neighbours: ResMut<Neighbours>,
    mut searches: ResMut<WormSearches>,
    mut plan: ResMut<WidePlan>,
    mut errands: ResMut<Errands>,
    mut entropy: ResMut<Entropy>,
    knowledge: Knowledge<'_, '_>,
) {
    let looking = neighbours.looking;
    let ends = searches.take_ended(|id| looking.filter(|(of, _)| *of == id));
    for ((_, aim), ended) in ends {
        neighbours.looking = None;
        if let Aim::Finger(target) = aim {
            let mut distances: Vec<_> = ended
                .near
                .iter()
                .map(|record| target.distance(&record.node_id))
                .collect();
            distances.sort_unstable();
            if let Some(distance) = distances.get(SIZE_RANK - 1) {
                plan.note_size(estimated_count(SIZE_RANK, distance));
            }
        }
        let connected: Vec<NodeId> = knowledge
            .peers()
            .filter(|(_, peer)| peer.slot != Slot::Visit)
            .map(|(link, _)| link.node)
            .collect();
        let own = knowledge.own();
        let nodes = chosen(aim, own, &ended.near, &connected, profile.wide_ring_slots);
        let purpose = match aim {
            Aim::Ring => Purpose::Ring,
            Aim::Finger(_) => Purpose::Finger,
        };
        neighbours
            .dialled
            .retain(|_, until_ms| now.mono_ms < *until_ms);
        for record in &ended.near {
            let node = record.node_id;
            let is_new = nodes.contains(&node) && !neighbours.dialled.contains_key(&node);
            if is_new && errands.want(node, errand(record, purpose)) {
                neighbours
                    .dialled
                    .insert(node, now.after(limits::RING_TRIED_MS));
            }
        }
        neighbours.next_ms = Some(now.after(entropy.jittered(neighbours.pause_ms)));
    }
}

fn look(
    now: Res<Now>,
    profile: Res<NodeProfile>,
    changes: Res<PeerChanges>,
    peers: Res<Peers>,
    plan: Res<WidePlan>,
    mut neighbours: ResMut<Neighbours>,
    mut searches: ResMut<WormSearches>,
    mut entropy: ResMut<Entropy>,
    mut outbox: ResMut<Outbox>,
    knowledge: Knowledge<'_, '_>,
) {
    let slots = profile.wide_ring_slots + profile.wide_finger_slots;
    if slots == 0 || peers.up_count() == 0 || neighbours.looking.is_some() {
        return;
    }
    let went = |change: &PeerChange| {
        matches!(
            change,
            PeerChange::Down {
                slot: Slot::Wide,
                ..
            }
        )
    };
    let first_ms = || now.after(entropy.jittered(limits::RING_FIRST_MS));
    let mut next_ms = *neighbours.next_ms.get_or_insert_with(first_ms);
    if changes.0.iter().any(went) {
        neighbours.pause_ms = limits::RING_PAUSE_MS_MIN;
        next_ms = next_ms.min(now.after(limits::RING_PAUSE_MS_MIN));
        neighbours.next_ms = Some(next_ms);
    }
    if now.mono_ms < next_ms {
        outbox.wake_at(next_ms);
        return;
    }
    let counts = knowledge.counts();
    let ring = missing(&knowledge, WideRole::Ring, profile.wide_ring_slots);
    let fingers = missing(&knowledge, WideRole::Finger, profile.wide_finger_slots);
    // Soon again where the last search closed a gap, ever more rarely where whoever was found had no place.
    neighbours.pause_ms = match ring + fingers {
        0 => neighbours.pause_ms.max(profile.wide_evaluation_ms),
        missing if missing < neighbours.missing => limits::RING_PAUSE_MS_MIN,
        _ => 2 * neighbours.pause_ms,
    };
    neighbours.pause_ms = neighbours.pause_ms.min(limits::WIDE_EVALUATION_MS_MAX);
    neighbours.missing = ring + fingers;
    // Where everybody is connected, there is nobody to look for.
    let is_alone = counts.total() <= counts.hop_1;
    if is_alone {
        let next_ms = now.after(entropy.jittered(neighbours.pause_ms));
        neighbours.next_ms = Some(next_ms);
        outbox.wake_at(next_ms);
        return;
    }
    let own = knowledge.own();
    let aim = match fingers > 0 && neighbours.ring_was_last {
        true => {
            let bits = finger_bits(plan.size(counts.total()), entropy.next_u64() as u32);
            Aim::Finger(own.sibling(bits, &entropy.bytes32()))
        }
        false => Aim::Ring,
    };
    neighbours.ring_was_last = aim == Aim::Ring;
    let target = match aim {
        // Whoever is asked for the own id would answer with its record; beside it lies nobody.
        Aim::Ring => own.sibling(255, &[0; 32]),
        Aim::Finger(target) => target,
    };
    let search = searches.begin(WormSearch::quiet(target));
    neighbours.looking = Some((search, aim));
    outbox.wake_at(now.mono_ms);
}

pub(super) fn install(frame: &mut Installer<'_>) {
    frame.world.insert_resource(Neighbours::default());
    frame.due(
        |glance| at_once_if(glance.at::<WormSearches>().has_ended()),
        Phase::Judge,
        take_ends,
    );
    frame.due(
        |glance| match glance.at::<Neighbours>() {
            neighbours if neighbours.looking.is_some() => None,
            _ if glance.at::<Peers>().up_count() == 0 => None,
            neighbours => peers_changed(glance)
                .or(neighbours.next_ms)
                .or(Some(AT_ONCE)),
        },
        Phase::Plan,
        look,
    );
}
