//! Nodes with few slots among many others: neighbours in the order of ids find each other, fingers reach far, and a wide peer gives
//! way to one that reports more (PROTOCOL section 6, "Wide peers").

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod table;

use distsoc_engine::domain::NodeId;
use distsoc_engine::io::{PeerView, Slot, WideRole};
use distsoc_engine::profile::NodeProfile;
use distsoc_engine::profile::ProfileKind::Desktop;
use std::collections::BTreeSet;
use table::{Table, secret};

const NODES: usize = 60;

fn id(seat: usize) -> NodeId {
    secret(seat).node_id()
}

/// So few slots that nobody knows everybody.
fn narrow() -> NodeProfile {
    NodeProfile {
        social_slots: 5,
        wide_slots: 10,
        wide_ring_slots: 4,
        wide_finger_slots: 4,
        wide_anchor_slots: 0,
        ..NodeProfile::of(Desktop)
    }
}

fn of_role(peers: &[PeerView], role: WideRole) -> usize {
    peers.iter().filter(|peer| peer.role == Some(role)).count()
}

#[test]
fn neighbours_in_the_order_of_ids_find_each_other() {
    let mut table = Table::with_profiles(&vec![narrow(); NODES], &[0, 1]);
    table.pass(40 * 60_000);
    let (mut with_nearest, mut ring, mut fingers) = (0, 0, 0);
    for seat in 0..NODES {
        let peers = table.peers(seat);
        let others = (0..NODES).filter(|other| *other != seat).map(id);
        let nearest = others.min_by_key(|other| id(seat).distance(other)).unwrap();
        with_nearest += usize::from(peers.iter().any(|peer| peer.node_id == nearest));
        ring += of_role(&peers, WideRole::Ring);
        fingers += of_role(&peers, WideRole::Finger);
        let wide = peers.iter().filter(|peer| peer.slot == Slot::Wide).count();
        assert!(
            wide <= 10 && peers.len() <= 15 + 32,
            "{wide} of {}",
            peers.len()
        );
    }
    assert!(
        with_nearest * 100 >= NODES * 95,
        "{with_nearest} of {NODES}"
    );
    assert!(ring >= NODES * 2, "{ring}");
    assert!(fingers >= NODES * 2, "{fingers}");
}

/// Five nodes in six tell whoever tries them of five hundred ids that are nowhere: none gets a place for it.
#[test]
fn invented_ids_win_no_place() {
    let mut profile = narrow();
    (profile.wide_ring_slots, profile.wide_finger_slots) = (0, 0);
    (profile.social_slots, profile.wide_slots) = (4, 2);
    let mut table = Table::with_profiles(&vec![profile; NODES], &[0, 1]);
    table.pass(20 * 60_000);
    let chosen = |table: &mut Table, seat: usize| -> BTreeSet<NodeId> {
        let peers = table.peers(seat).into_iter();
        let wide = peers.filter(|peer| peer.slot == Slot::Wide && peer.dialled);
        wide.map(|peer| peer.node_id).collect()
    };
    let honest: Vec<usize> = (0..NODES).step_by(6).collect();
    table.inventors = (0..NODES).filter(|seat| seat % 6 != 0).collect();
    let before: Vec<_> = honest
        .iter()
        .map(|seat| chosen(&mut table, *seat))
        .collect();
    table.requests.clear();
    table.pass(3 * 60 * 60_000);
    let probes = table.requests.get(&0x06).copied().unwrap_or_default();
    assert!(probes > NODES / 2, "they were tried: {probes}");
    let inventors: BTreeSet<NodeId> = table.inventors.iter().map(|seat| id(*seat)).collect();
    for (seat, before) in honest.iter().zip(before) {
        let after = chosen(&mut table, *seat);
        let won: Vec<&NodeId> = after.difference(&before).collect();
        assert!(
            won.iter().all(|node| !inventors.contains(node)),
            "{seat}: {won:?}"
        );
    }
}

#[test]
fn a_wide_peer_gives_way_to_one_that_reports_more() {
    let mut profile = narrow();
    // Nobody is found by id, so that what is diverse decides alone.
    (profile.wide_ring_slots, profile.wide_finger_slots) = (0, 0);
    (profile.social_slots, profile.wide_slots) = (4, 2);
    let mut table = Table::with_profiles(&vec![profile; NODES], &[0, 1]);
    table.pass(20 * 60_000);
    let wide = |table: &mut Table, seat: usize| -> Vec<NodeId> {
        let peers = table.peers(seat).into_iter();
        let wide = peers.filter(|peer| peer.slot == Slot::Wide);
        wide.map(|peer| peer.node_id).collect()
    };
    let reach = |table: &mut Table| -> usize {
        let maps = (0..NODES).map(|seat| table.status(seat).map);
        maps.map(|map| map.hop1 + map.hop2 + map.hop3).sum()
    };
    let before: Vec<Vec<NodeId>> = (0..NODES).map(|seat| wide(&mut table, seat)).collect();
    let reach_before = reach(&mut table);
    table.requests.clear();
    table.pass(3 * 60 * 60_000);
    let after: Vec<Vec<NodeId>> = (0..NODES).map(|seat| wide(&mut table, seat)).collect();
    let changed = before.iter().zip(&after).filter(|(a, b)| a != b).count();
    let probes = table.requests.get(&0x06).copied().unwrap_or_default();
    let reach_after = reach(&mut table);
    assert!(
        changed > 0 && reach_after > reach_before,
        "{changed} by {probes} probes, {reach_before} → {reach_after}"
    );
    assert!(probes < NODES * 20, "tries become rarer: {probes}");
}
