//! PROTOCOL section 6, the map: hop 1 is the connected peers. Visits make no entry; the own id never enters.

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::io::Slot;
use distsoc_engine::schedule::Phase;
use distsoc_engine::world::map::{MapEdit, PeerFacts};
use distsoc_engine::world::peers::{Peer, PeerChange, PeerChanges, Peers, peers_changed};

fn keep_hop_1(changes: Res<PeerChanges>, peers: Res<Peers>, mut map: MapEdit, up: Query<&Peer>) {
    let (map, entries) = map.parts();
    for change in &changes.0 {
        let (PeerChange::Up { node, .. } | PeerChange::Down { node, .. }) = *change;
        // What counts is who is up at the end of the changes, not the way there.
        let peer = peers
            .by_node(&node)
            .and_then(|entity| up.get(entity).ok())
            .filter(|peer| peer.slot != Slot::Visit);
        match peer {
            Some(peer) => {
                let facts = PeerFacts {
                    is_anchor: peer.is_anchor(),
                    is_wide: peer.slot == Slot::Wide,
                };
                map.connect(node, facts, entries)
                    .expect("fewer peers than vacant rows, and nobody connects to itself");
            }
            None => map.disconnect(&node, entries),
        }
    }
}

/// The map, hop 1.
pub(crate) fn install(frame: &mut Installer<'_>) {
    frame.due(peers_changed, Phase::Judge, keep_hop_1);
}
