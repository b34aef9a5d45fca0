//! PROTOCOL section 6, the map: hop 1 is the connected peers. Visits make no entry; the own id never enters.

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::io::Slot;
use distsoc_engine::schedule::Phase;
use distsoc_engine::world::map::{MapEntry, MapIndex};
use distsoc_engine::world::peers::{Peer, PeerChange, PeerChanges, Peers};

fn flags_of(peer: &Peer) -> u8 {
    let anchor = if peer.is_anchor() {
        MapEntry::ANCHOR
    } else {
        0
    };
    let wide = if peer.slot == Slot::Wide {
        MapEntry::WIDE
    } else {
        0
    };
    anchor | wide
}

fn keep_hop_1(
    changes: Res<PeerChanges>,
    peers: Res<Peers>,
    mut index: ResMut<MapIndex>,
    mut commands: Commands,
    up: Query<&Peer>,
) {
    for change in &changes.0 {
        let (PeerChange::Up { node, .. } | PeerChange::Down { node, .. }) = *change;
        // What counts is who is up at the end of the changes, not the way there.
        let peer = peers
            .by_node(&node)
            .and_then(|entity| up.get(entity).ok())
            .filter(|peer| peer.slot != Slot::Visit);
        match (peer, index.get(&node)) {
            (Some(peer), None) => {
                let flags = flags_of(peer);
                let entity = commands
                    .spawn(MapEntry {
                        node,
                        hop: 1,
                        flags,
                    })
                    .id();
                index.insert(node, entity);
            }
            (None, Some(entity)) => {
                commands.entity(entity).despawn();
                index.remove(&node);
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
    }
}

/// The map, hop 1.
pub(crate) fn install(frame: &mut Installer<'_>) {
    frame.add(Phase::Judge, keep_hop_1);
}
