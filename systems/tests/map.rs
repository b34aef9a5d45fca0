//! A chain of nodes, each connected to the next: who is at which hop, how far news travels, and who can be found by which step
//! (PROTOCOL section 6).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod table;

use distsoc_engine::domain::NodeId;
use distsoc_engine::io::{Call, CallError, FoundBy, MapView, Reply};
use distsoc_engine::limits;
use distsoc_engine::profile::NodeProfile;
use distsoc_engine::profile::ProfileKind::Desktop;
use distsoc_engine::refusal::Refusal;
use distsoc_engine::wire::InitialMapSync;
use std::collections::BTreeSet;
use table::{Table, address, connect_string, secret};

/// Five nodes in a row, after the diffs of ten minutes.
fn chain() -> Table {
    let mut table = Table::new(&[Desktop; 5], &[]);
    table.roads = Some((0..4).map(|seat| (seat, seat + 1)).collect());
    for seat in 0..4 {
        let next = Call::Connect(connect_string(seat + 1));
        assert!(matches!(table.call(seat, next), Ok(Reply::Connected(_))));
    }
    table.pass(600_000);
    table
}

fn id(seat: usize) -> NodeId {
    secret(seat).node_id()
}

fn hops(table: &mut Table, seat: usize) -> [usize; 3] {
    let map = table.status(seat).map;
    [map.hop1, map.hop2, map.hop3]
}

#[test]
fn a_chain_knows_three_hops_each_way() {
    let mut table = chain();
    let all: Vec<[usize; 3]> = (0..5).map(|seat| hops(&mut table, seat)).collect();
    assert_eq!(all, [[1, 1, 1], [2, 1, 1], [2, 2, 0], [2, 1, 1], [1, 1, 1]]);
    let Ok(Reply::Map(MapView::Entry { hop, reporters, .. })) =
        table.call(0, Call::Map(Some(id(3))))
    else {
        panic!("it is on the map");
    };
    assert_eq!((hop, reporters), (3, vec![id(1)]));
}

/// The newcomer's only peer has one peer of its own, whom the newcomer cannot reach; whom it could reach is at that peer's hop 3.
#[test]
fn a_newcomer_hears_of_those_beyond_the_samples() {
    let mut profile = NodeProfile::of(Desktop);
    // Nobody is found by id.
    (profile.wide_ring_slots, profile.wide_finger_slots) = (0, 0);
    let mut table = Table::with_profiles(&vec![profile; 6], &[]);
    let newcomer = 5;
    let chain = (0..4).map(|seat| (seat, seat + 1));
    table.roads = Some(chain.chain([(0, newcomer), (3, newcomer)]).collect());
    for seat in 0..4 {
        table
            .call(seat, Call::Connect(connect_string(seat + 1)))
            .unwrap();
    }
    // The others are no newcomers any more.
    table.pass(limits::BOOTSTRAP_MS_MAX + 60_000);
    table
        .call(newcomer, Call::Connect(connect_string(0)))
        .unwrap();
    table.requests.clear();
    table.pass(180_000);
    let peers = table.peers(newcomer).into_iter().map(|peer| peer.node_id);
    let peers: Vec<NodeId> = peers.collect();
    assert!(peers.contains(&id(3)), "{peers:?}");
    let asked = table.requests.get(&0x08).copied().unwrap_or_default();
    assert!((1..=7).contains(&asked), "twice a minute at most: {asked}");
    // It is no newcomer any more, even where it has few peers.
    table.pass(limits::BOOTSTRAP_MS_MAX);
    table.requests.clear();
    table.pass(limits::BOOTSTRAP_MS_MAX);
    assert_eq!(table.requests.get(&0x08), None);
}

#[test]
fn each_step_finds_those_of_its_hop() {
    let mut table = chain();
    for (target, found_by, jumps) in [
        (1, FoundBy::Direct, 0),
        (2, FoundBy::Reporter, 1),
        (3, FoundBy::Closer, 2),
    ] {
        let Ok(Reply::Found(found)) = table.call(0, Call::Find(id(target))) else {
            panic!("node {target} is within three hops");
        };
        assert_eq!(
            (found.found_by, found.jumps),
            (found_by, jumps),
            "node {target}"
        );
        assert_eq!(
            (found.node_id, found.address),
            (id(target), address(target))
        );
    }
    // Beyond the map, a worm.
    let Ok(Reply::Found(found)) = table.call(0, Call::Find(id(4))) else {
        panic!("a worm reaches node 4");
    };
    assert_eq!((found.found_by, found.address), (FoundBy::Worm, address(4)));
    let nobody = secret(77).node_id();
    let far = table.call(0, Call::Find(nobody));
    assert!(matches!(far, Err(CallError::NotFound(_))), "{far:?}");
    let own = table.call(0, Call::Find(id(0)));
    assert!(matches!(own, Err(CallError::Refused(_))), "{own:?}");
}

#[test]
fn news_travels_a_hop_in_two_minutes() {
    let mut table = chain();
    table.unreachable = vec![3, 4];
    table.cut(3, 4);
    table.pass(30_000);
    // The other neighbour reports it still.
    assert_eq!(hops(&mut table, 3), [1, 1, 2]);
    table.pass(120_000);
    assert_eq!(hops(&mut table, 2), [2, 1, 0]);
    table.pass(125_000);
    assert_eq!(hops(&mut table, 1), [2, 1, 0]);
}

#[test]
fn records_are_renewed_on_connections_that_last() {
    let mut table = chain();
    table.pass(3 * limits::ADDRESS_RECORD_TTL_MS / 2);
    let Ok(Reply::Found(found)) = table.call(0, Call::Find(id(2))) else {
        panic!("its neighbour has a record that is good still");
    };
    assert_eq!(found.found_by, FoundBy::Reporter);
}

#[test]
fn the_map_is_there_from_the_first_frame_after_a_restart_and_ages_out() {
    let mut table = chain();
    assert!(!table.seats[2].map.is_empty(), "stored within ten minutes");
    table.roads.as_mut().unwrap().clear();
    table.restart_with_map(2, Desktop);
    // Nodes 1 and 3 are no peers yet: they stand where the other of them reported them.
    assert_eq!(hops(&mut table, 2), [0, 2, 2]);
    table.pass(limits::REMEMBERED_MS - 60_000);
    assert_eq!(hops(&mut table, 2), [0, 2, 2]);
    table.pass(180_000);
    assert_eq!(hops(&mut table, 2), [0, 0, 0], "nobody came back");
    // With nobody to report, what lies on the disk stays as it is.
    table.restart_with_map(2, Desktop);
    assert_eq!(hops(&mut table, 2), [0, 2, 2]);
}

#[test]
fn a_reporter_that_comes_back_after_a_restart_is_reconciled() {
    let mut table = chain();
    table.restart_with_map(2, Desktop);
    table.pass(300_000);
    // Whoever was connected dials again.
    assert_eq!(hops(&mut table, 2), [2, 2, 0]);
    table.pass(2 * limits::REMEMBERED_MS);
    assert_eq!(hops(&mut table, 2), [2, 2, 0]);
    assert_eq!(hops(&mut table, 0), [1, 1, 1]);
}

/// A star of many nodes whose middle goes away for an hour: who comes back is asked for what has changed alone.
#[test]
fn a_reporter_that_comes_back_after_an_hour_is_not_dumped_again() {
    const LEAVES: usize = 90;
    let mut profile = NodeProfile::of(Desktop);
    (profile.wide_ring_slots, profile.wide_finger_slots) = (0, 0);
    let mut table = Table::with_profiles(&vec![profile; LEAVES + 2], &[]);
    let mut roads: BTreeSet<(usize, usize)> = (2..LEAVES + 2).map(|leaf| (1, leaf)).collect();
    roads.insert((0, 1));
    table.roads = Some(roads.clone());
    for (a, b) in roads.clone() {
        let connected = table.call(a, Call::Connect(connect_string(b)));
        assert!(
            matches!(connected, Ok(Reply::Connected(_))),
            "{connected:?}"
        );
    }
    let synced = |table: &mut Table| {
        let bytes = table.answered_bytes.get(&InitialMapSync::SPEC.code);
        bytes.copied().unwrap_or_default()
    };
    table.pass(300_000);
    assert_eq!(hops(&mut table, 0), [1, LEAVES, 0]);
    table.roads.as_mut().unwrap().remove(&(0, 1));
    table.cut(0, 1);
    table.pass(60 * 60_000);
    assert_eq!(hops(&mut table, 0), [0, 0, 0]);
    table.roads = Some(roads);
    table.answered_bytes.clear();
    let connected = table.call(0, Call::Connect(connect_string(1)));
    assert!(
        matches!(connected, Ok(Reply::Connected(_))),
        "{connected:?}"
    );
    table.pass(10_000);
    assert_eq!(hops(&mut table, 0), [1, LEAVES, 0]);
    let bytes = synced(&mut table);
    assert!(
        0 < bytes && bytes < LEAVES * 32 / 4,
        "{bytes} bytes for {LEAVES} ids that were known"
    );
}

#[test]
fn damage_to_the_stored_map_is_counted_and_costs_the_map_alone() {
    let mut table = chain();
    for row in table.seats[2].map.values_mut() {
        let mut bytes = row.bytes.to_vec();
        bytes.reverse();
        row.bytes = bytes.into();
    }
    table.restart_with_map(2, Desktop);
    assert_eq!(hops(&mut table, 2), [0, 0, 0]);
    assert_eq!(table.refused(2, Refusal::ListMismatch), 1);
    table.pass(600_000);
    assert_eq!(hops(&mut table, 2), [2, 2, 0]);
    table.unreachable = vec![1, 3];
    table.restart_with_map(2, Desktop);
    assert_eq!(hops(&mut table, 2), [0, 2, 2], "stored anew");
}
