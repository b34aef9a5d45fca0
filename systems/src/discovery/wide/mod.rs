//! PROTOCOL section 6, wide peers: neighbours in the order of ids and fingers, by which greedy routing finds anybody; and peers that
//! report what no other does, tried by sample before one takes the place of another.

mod neighbours;
mod trial;

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::domain::{IdPrefix, NodeId, is_sampled};
use distsoc_engine::limits;
use distsoc_engine::schedule::{Occasions, Phase};
use distsoc_engine::wire::codec::{Bounded, ByteVec};
use distsoc_engine::wire::{WideProbe, WideSample, prefixes_in};
use distsoc_engine::world::gossip::Reported;
use distsoc_engine::world::inbox::Arrivals;
use distsoc_engine::world::map::{MapView, ReportedHop, SetHash};
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::Peers;
use std::collections::BTreeSet;

/// What is told of the ids that this node reports at its hop 2.
fn answer(probe: &WideProbe, reported: impl Iterator<Item = NodeId>) -> WideSample {
    let hash = SetHash::new(probe.salt);
    let sampled = reported.filter(|node| is_sampled(hash.of(ReportedHop::Two, node), probe.bits));
    if probe.whose.0.is_empty() {
        let prefixes: BTreeSet<IdPrefix> = sampled.map(|node| node.prefix()).collect();
        let told: Vec<IdPrefix> = prefixes.into_iter().take(limits::WIDE_SAMPLE_MAX).collect();
        return WideSample {
            prefixes: ByteVec(told.concat()),
            members: Bounded::default(),
        };
    }
    let whose: BTreeSet<IdPrefix> = prefixes_in(&probe.whose).into_iter().collect();
    let members = sampled.filter(|node| whose.contains(&node.prefix()));
    WideSample {
        prefixes: ByteVec::default(),
        members: Bounded::truncated(members.collect()),
    }
}

fn serve(
    mut arrivals: ResMut<Arrivals<WideProbe>>,
    peers: Res<Peers>,
    reported: Res<Reported>,
    map: MapView,
    mut outbox: ResMut<Outbox>,
) {
    for arrival in arrivals.take() {
        let Some(stream) = arrival.stream else {
            continue;
        };
        let sample = peers.up_behind(arrival.link).map(|_| {
            let ids = reported.hop_2.iter();
            let ids = ids.map(|row| map.entries()[row as usize].node);
            answer(&arrival.packet, ids).into()
        });
        outbox.respond(stream, sample.as_ref());
    }
}

/// Who is looked for, tried and kept.
pub(crate) fn install(frame: &mut Installer<'_>) {
    frame.on(Occasions::packet(&WideProbe::SPEC), Phase::Judge, serve);
    neighbours::install(frame);
    trial::install(frame);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_names_a_sixteenth_and_its_members() {
        let node =
            |number: u32| NodeId::from_bytes(distsoc_engine::crypto::hash(&number.to_be_bytes()));
        let probe = |whose: Vec<IdPrefix>| WideProbe {
            salt: 5,
            bits: 4,
            whose: ByteVec(whose.concat()),
        };
        let sample = answer(&probe(Vec::new()), (0..7_000).map(node));
        let prefixes = prefixes_in(&sample.prefixes);
        assert!((350..530).contains(&prefixes.len()), "{}", prefixes.len());
        let asked = prefixes[..8].to_vec();
        let members = answer(&probe(asked.clone()), (0..7_000).map(node)).members;
        let named: BTreeSet<IdPrefix> = members.iter().map(NodeId::prefix).collect();
        assert_eq!(named, asked.into_iter().collect());
        let other = WideProbe {
            salt: 6,
            ..probe(prefixes[..8].to_vec())
        };
        assert!(answer(&other, (0..7_000).map(node)).members.len() < 8);
        let many = answer(&probe(Vec::new()), (0..40_000).map(node));
        assert_eq!(prefixes_in(&many.prefixes).len(), limits::WIDE_SAMPLE_MAX);
    }
}
