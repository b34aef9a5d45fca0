//! PROTOCOL section 6, RoutingDiff: what changed on the own map, every two minutes at a random phase. Built once; for each peer
//! only the names of the ids differ.

use crate::Installer;
use bevy_ecs::prelude::*;
use distsoc_engine::clock::Now;
use distsoc_engine::entropy::Entropy;
use distsoc_engine::limits;
use distsoc_engine::schedule::{AT_ONCE, Phase};
use distsoc_engine::wire::{MapChanges, MapItem, RoutingDiff};
use distsoc_engine::world::gossip::{MapListener, Reported};
use distsoc_engine::world::map::{
    DiscoveryMap, MapEdit, MapEntry, MapView, ReportedHop, Row, RowChanges,
};
use distsoc_engine::world::outbox::Outbox;
use distsoc_engine::world::peers::{Link, Peer, PeerChange, PeerChanges, Peers, peers_changed};
use roaring::RoaringBitmap;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// PROTOCOL section 6: a peer that has just gone may be back at once; until then it is reported still.
fn is_reported_still(gone_ms: Option<&u64>, now_ms: u64) -> bool {
    gone_ms.is_some_and(|gone_ms| now_ms < gone_ms + limits::REMOVAL_DEBOUNCE_MS)
}

/// Somebody who is reported has gone: the peers hear of it sooner than in two minutes.
fn hurry(reported: &mut Reported, row: Row, now: Now, entropy: &mut Entropy) {
    if reported.hop_1.contains(row) {
        let early_ms = now
            .after(limits::REMOVAL_DEBOUNCE_MS)
            .max(reported.last_ms + limits::EARLY_DIFF_MS);
        // Whoever had the same peer hears of it at the same time, and is not to speak at the same time ever after.
        let early_ms = early_ms + entropy.below(limits::EARLY_DIFF_SPREAD_MS);
        reported.next_ms = reported.next_ms.map(|next_ms| next_ms.min(early_ms));
    }
}

fn note_partings(
    now: Res<Now>,
    changes: Res<PeerChanges>,
    map: MapView,
    mut reported: ResMut<Reported>,
    mut entropy: ResMut<Entropy>,
) {
    for change in &changes.0 {
        let (PeerChange::Up { node, .. } | PeerChange::Down { node, .. }) = change;
        if let Some(row) = map.map.find(node, map.entries()) {
            match change {
                PeerChange::Down { .. } => {
                    reported.gone_ms.insert(row, now.mono_ms);
                    hurry(&mut reported, row, *now, &mut entropy);
                }
                PeerChange::Up { .. } => drop(reported.gone_ms.remove(&row)),
            }
        }
    }
}

/// Hop 1 as it is told: links that neither end wants unlisted, and where each peer is seen.
fn hop_1_to_tell(
    map: &DiscoveryMap,
    entries: &[MapEntry],
    peers: &Peers,
    up: &Query<(&Peer, &Link)>,
) -> BTreeMap<Row, SocketAddr> {
    let listed = |row: Row| {
        let entity = peers.by_node(&entries[row as usize].node)?;
        let (peer, link) = up.get(entity).ok()?;
        (!peer.unlisted).then_some((row, link.remote))
    };
    map.hop_1().iter().filter_map(listed).collect()
}

fn build_diff(
    now: Res<Now>,
    peers: Res<Peers>,
    mut reported: ResMut<Reported>,
    mut map: MapEdit,
    mut entropy: ResMut<Entropy>,
    mut outbox: ResMut<Outbox>,
    up: Query<(&Peer, &Link)>,
    mut listeners: Query<(&Link, &mut MapListener)>,
) {
    let reported = &mut *reported;
    let first_ms = *reported
        .next_ms
        .get_or_insert_with(|| now.after(entropy.below(limits::ROUTING_DIFF_MS)));
    if now.mono_ms < first_ms {
        outbox.wake_at(first_ms);
        return;
    }
    let next_ms = now.after(limits::ROUTING_DIFF_MS);
    (reported.next_ms, reported.last_ms) = (Some(next_ms), now.mono_ms);
    let (map, entries) = map.parts();

    let addresses = hop_1_to_tell(map, entries, &peers, &up);
    let mut hop_1: RoaringBitmap = addresses.keys().copied().collect();
    reported
        .gone_ms
        .retain(|_, gone_ms| is_reported_still(Some(gone_ms), now.mono_ms));
    let lingering = reported
        .gone_ms
        .keys()
        .filter(|row| reported.hop_1.contains(**row));
    let lingering: Vec<Row> = lingering.copied().collect();
    for row in lingering {
        hop_1.insert(row);
        hurry(reported, row, *now, &mut entropy);
    }
    outbox.wake_at(reported.next_ms.unwrap_or(next_ms));
    let hop_2 = map.hop_2() - &hop_1;
    let mut changes = RowChanges::between([&reported.hop_1, &reported.hop_2], [&hop_1, &hop_2]);
    let moved = addresses.iter().filter(|(row, address)| {
        reported
            .addresses
            .get(row)
            .is_some_and(|before| before != *address)
    });
    changes.moved = moved.map(|(row, _)| *row).collect();

    for row in changes.removed.iter().flatten() {
        if hop_1.contains(row) || hop_2.contains(row) {
            continue;
        }
        if let Some(number) = reported.book.rest(row) {
            listeners
                .iter_mut()
                .for_each(|(_, mut listener)| listener.told.forget(number));
        }
    }
    for row in changes.added.iter().flatten() {
        if let Some(number) = reported.book.assign(row) {
            listeners
                .iter_mut()
                .for_each(|(_, mut listener)| listener.told.forget(number));
        }
    }
    reported.seq += 1;
    (reported.hop_1, reported.hop_2, reported.addresses) = (hop_1, hop_2, addresses);
    for (link, mut listener) in &mut listeners {
        let changes = changes_for(&mut listener, &changes, entries, reported);
        let diff = RoutingDiff {
            seq: reported.seq,
            digest: listener.digest,
            changes,
        };
        outbox.send(link.id, &diff.into());
    }
    map.sweep(entries, |row| {
        reported.book.holds(row) || reported.hop_1.contains(row) || reported.hop_2.contains(row)
    });
}

/// The same changes in the names that this peer knows.
fn changes_for(
    listener: &mut MapListener,
    changes: &RowChanges,
    entries: &[MapEntry],
    reported: &Reported,
) -> MapChanges {
    let hash = listener.hash;
    let hops: &[ReportedHop] = match listener.with_hop_2 {
        true => &[ReportedHop::One, ReportedHop::Two],
        false => &[ReportedHop::One],
    };
    let (mut ids_of_hop_1, mut ids) = (changes.moved.len(), changes.moved.len());
    for hop in hops {
        let sum = |rows: &RoaringBitmap| {
            let hashes = rows
                .iter()
                .map(|row| hash.in_digest(*hop, &entries[row as usize].node));
            hashes.fold(0u64, u64::wrapping_add)
        };
        let (added, removed) = (
            &changes.added[*hop as usize],
            &changes.removed[*hop as usize],
        );
        listener.digest = listener
            .digest
            .wrapping_add(sum(added))
            .wrapping_sub(sum(removed));
        ids += (added.len() + removed.len()) as usize;
        if *hop == ReportedHop::One {
            ids_of_hop_1 = ids;
        }
    }
    // Too much for one packet: the digest says that something is missing, and the peer asks; unless it takes only a part of hop 2
    // anyway, and then it still has all of hop 1.
    let fits = |ids: usize| ids * MapItem::BYTES_MAX <= limits::DIFF_ITEMS_BYTES_MAX;
    if !fits(ids_of_hop_1) {
        return MapChanges::default();
    }
    let with_hop_2 = listener.with_hop_2 && fits(ids);
    let mut named = |rows: &mut dyn Iterator<Item = Row>| -> Vec<MapItem> {
        rows.map(|row| listener.name(row, &entries[row as usize], &reported.book))
            .collect()
    };
    let [hop_1_added, hop_2_added] = &changes.added;
    let [hop_1_removed, hop_2_removed] = &changes.removed;
    MapChanges {
        hop_1_added: named(&mut hop_1_added.iter()),
        hop_1_removed: named(&mut hop_1_removed.iter()),
        hop_1_moved: named(&mut changes.moved.iter().copied()),
        hop_2_added: named(&mut hop_2_added.iter().filter(|_| with_hop_2)),
        hop_2_removed: named(&mut hop_2_removed.iter().filter(|_| with_hop_2)),
    }
}

/// What this node tells of its map.
pub(crate) fn install(frame: &mut Installer<'_>) {
    frame.world.insert_resource(Reported::default());
    frame.due(peers_changed, Phase::Judge, note_partings);
    frame.due(
        |glance| glance.at::<Reported>().next_ms.or(Some(AT_ONCE)),
        Phase::Plan,
        build_diff,
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use distsoc_engine::crypto::hash;
    use distsoc_engine::domain::NodeId;

    #[test]
    fn who_takes_a_part_of_hop_2_only_has_all_of_hop_1_however_much_there_is_to_tell() {
        let mut entries = vec![MapEntry::VACANT; 4_000];
        for (number, entry) in (0u32..).zip(&mut entries) {
            entry.node = NodeId::from_bytes(hash(&number.to_be_bytes()));
        }
        let told = |hop_2: std::ops::Range<Row>| {
            let changes = RowChanges {
                added: [(0..5).collect(), hop_2.collect()],
                ..RowChanges::default()
            };
            let mut listener = MapListener::new(7, true);
            let told = changes_for(&mut listener, &changes, &entries, &Reported::default());
            (
                told.hop_1_added.len(),
                told.hop_2_added.len(),
                listener.digest,
            )
        };
        assert_eq!(told(5..100).0, 5);
        assert_eq!(told(5..100).1, 95);
        let (hop_1, hop_2, digest) = told(5..4_000);
        assert_eq!((hop_1, hop_2), (5, 0));
        assert_ne!(digest, told(5..3_999).2, "it counts what was left out");
    }
}
