//! Nodes on a ring of ids with a few long ways across it: worms find anybody, also past those who say nothing, and cost no more
//! than their budget (PROTOCOL section 6).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod table;

use distsoc_engine::crypto::hash;
use distsoc_engine::domain::{NodeId, PostId, finger_bits};
use distsoc_engine::io::{Call, CallError, Found, FoundBy, Reply};
use distsoc_engine::limits;
use distsoc_engine::profile::NodeProfile;
use distsoc_engine::profile::ProfileKind::{Anchor, Desktop};
use distsoc_engine::refusal::Refusal;
use distsoc_engine::wire::codec::Bounded;
use distsoc_engine::wire::{
    AddressRequest, Expected, Hello, Packet, Purpose, WormAnswer, WormQuery, WormRequest,
    WormTarget,
};
use std::collections::BTreeSet;
use table::{Table, address, connect_string, secret};

const NODES: usize = 160;

fn id(seat: usize) -> NodeId {
    secret(seat).node_id()
}

/// Every node has the next and the previous one in the order of ids, and dials a finger.
fn ring() -> Table {
    let roads = ring_roads();
    // Who is where on the ring is given, so nobody looks for neighbours.
    let profile = |seat: usize| {
        let mut profile = NodeProfile::of(Desktop);
        (profile.wide_ring_slots, profile.wide_finger_slots) = (0, 0);
        if seat == 0 {
            // It has as many peers as it takes.
            let own = roads.iter().filter(|(a, b)| *a == 0 || *b == 0).count();
            (profile.social_slots, profile.wide_slots) = (own, 0);
        }
        profile
    };
    let profiles: Vec<NodeProfile> = (0..NODES).map(profile).collect();
    let mut table = Table::with_profiles(&profiles, &[]);
    table.roads = Some(roads.clone());
    for (a, b) in roads {
        assert!(matches!(
            table.call(a, Call::Connect(connect_string(b))),
            Ok(Reply::Connected(_))
        ));
    }
    table.pass(600_000);
    table
}

fn ring_roads() -> BTreeSet<(usize, usize)> {
    let mut order: Vec<usize> = (0..NODES).collect();
    order.sort_by_key(|seat| id(*seat));
    let mut roads = BTreeSet::new();
    for (rank, seat) in order.iter().enumerate() {
        let random = hash(id(*seat).as_bytes());
        let draw = u32::from_be_bytes(random[..4].try_into().unwrap());
        let aim = id(*seat).sibling(finger_bits(NODES as f64, draw), &random);
        let others = (0..NODES).filter(|other| other != seat);
        let finger = others.min_by_key(|other| aim.distance(&id(*other)));
        for other in [order[(rank + 1) % NODES], finger.unwrap()] {
            roads.insert((*seat.min(&other), *seat.max(&other)));
        }
    }
    roads
}

fn find(table: &mut Table, seat: usize, target: usize) -> Option<Found> {
    table.requests.clear();
    match table.try_call(seat, Call::Find(id(target)), 30_000) {
        Ok(Reply::Found(found)) => Some(found),
        Err(CallError::NotFound(_)) => None,
        other => panic!("{other:?}"),
    }
}

fn worm_requests(table: &Table) -> usize {
    let of = |code: u8| table.requests.get(&code).copied().unwrap_or_default();
    of(WormRequest::SPEC.code) + of(WormQuery::SPEC.code)
}

#[test]
fn everybody_is_found_within_the_budget() {
    let mut table = ring();
    let mut by_worm = 0;
    for target in (1..NODES).step_by(3) {
        let found = find(&mut table, 0, target);
        let found = found.unwrap_or_else(|| panic!("node {target} is not found"));
        assert_eq!(
            (found.node_id, found.address),
            (id(target), address(target))
        );
        by_worm += usize::from(found.found_by == FoundBy::Worm);
        let cost = worm_requests(&table);
        assert!(cost <= usize::from(limits::WORM_BUDGET), "{cost}");
        // The rate of worms that a peer takes.
        table.pass(7_000);
    }
    assert!(by_worm >= NODES / 9, "{by_worm} lie beyond three hops");
}

/// Whoever finds a target far away dials the searcher, who has signed that it may.
#[test]
fn who_finds_far_away_tells_the_searcher_directly() {
    let mut table = ring();
    table.notified.clear();
    table.travellers = (0..NODES).collect();
    for target in (1..NODES).step_by(3) {
        assert!(find(&mut table, 0, target).is_some(), "node {target}");
        table.pass(7_000);
    }
    let told = table.notified.get(&WormAnswer::SPEC.code).copied();
    assert!(told > Some(0), "{:?}", table.notified);
    // Nobody who was told stays connected for it.
    table.pass(60_000);
    let Ok(Reply::Status(status)) = table.call(0, Call::Status) else {
        panic!("a status");
    };
    assert_eq!(status.visits, 0);
}

/// One in five names an id right beside the target, so that the search is handed to it, and says nothing more.
#[test]
fn liars_who_promise_the_target_do_not_take_the_whole_search() {
    let mut table = ring();
    table.liars = (1..NODES).filter(|seat| seat % 3 == 0).collect();
    let targets: Vec<usize> = (1..NODES).step_by(2).filter(|seat| seat % 3 != 0).collect();
    let mut found = 0;
    for target in &targets {
        found += usize::from(find(&mut table, 0, *target).is_some());
        table.pass(20_000);
    }
    let all = targets.len();
    assert!(found * 100 >= all * 90, "{found} of {all}");
}

#[test]
fn the_silent_are_gone_round() {
    let mut table = ring();
    table.silent = (1..NODES).filter(|seat| seat % 5 == 0).collect();
    let targets: Vec<usize> = (1..NODES).step_by(3).filter(|seat| seat % 5 != 0).collect();
    let mut found = 0;
    for target in &targets {
        found += usize::from(find(&mut table, 0, *target).is_some());
        table.pass(20_000);
    }
    assert!(
        found * 100 >= targets.len() * 90,
        "{found} of {}",
        targets.len()
    );
}

/// Half of the nodes say nothing: hardly any way of three connections is left, but the searcher goes there itself.
#[test]
fn where_half_are_silent_visits_find_whom_worms_do_not() {
    let mut table = ring();
    let is_silent = |seat: &usize| hash(&seat.to_be_bytes())[0].is_multiple_of(2);
    table.silent = (1..NODES).filter(is_silent).collect();
    let targets: Vec<usize> = (1..NODES)
        .filter(|seat| !is_silent(seat))
        .step_by(2)
        .collect();
    let mut found = [0, 0];
    for (found, travels) in found.iter_mut().zip([false, true]) {
        table.travellers = BTreeSet::from_iter(travels.then_some(0));
        for target in &targets {
            table.dials.clear();
            *found += usize::from(find(&mut table, 0, *target).is_some());
            let dials = table.dials.get(&0).copied().unwrap_or_default();
            assert!(dials <= limits::VISITS_PER_SEARCH_MAX as usize, "{dials}");
            table.pass(60_000);
        }
    }
    let [by_others, by_visits] = found;
    let all = targets.len();
    assert!(by_visits * 100 >= all * 90, "{by_visits} of {all}");
    assert!(by_others < by_visits, "{by_others} without visits");
}

#[test]
fn who_is_not_there_is_not_found_and_not_searched_for_again_at_once() {
    let mut table = ring();
    let nobody = id(NODES + 9);
    let call = |table: &mut Table| {
        table.requests.clear();
        let result = table.try_call(0, Call::Find(nobody), 30_000);
        assert!(matches!(result, Err(CallError::NotFound(_))), "{result:?}");
        worm_requests(table)
    };
    let first = call(&mut table);
    assert!(
        0 < first && first <= usize::from(limits::WORM_BUDGET),
        "{first}"
    );
    assert_eq!(call(&mut table), 0);
    table.pass(limits::NOT_FOUND_MS);
    assert!(call(&mut table) > 0);
}

/// A stranger with a connection to many nodes, who asks each of them to search for somebody who is not there.
#[test]
fn a_fan_out_causes_no_more_than_its_budgets() {
    let mut table = ring();
    let attacker = NodeId::from_bytes([250; 32]);
    let links: Vec<_> = (0..100)
        .map(|seat| (seat, table.stranger(seat, attacker, address(200))))
        .collect();
    for (seat, link) in &links {
        let hello = Hello::new(Desktop, Purpose::Social, false, false, None, None);
        table.deliver(
            *seat,
            *link,
            &Packet::from(hello).encode(),
            Expected::Notification,
        );
    }
    table.settle();
    table.requests.clear();
    let mut sent = 0;
    for round in 0..3u8 {
        for (seat, link) in &links {
            let content = WormTarget::Post(PostId::from_bytes([round; 32]));
            let nobody = WormTarget::Node(NodeId::from_bytes([100 + *seat as u8; 32]));
            let request = WormRequest {
                search: u64::from(round) * 1000 + *seat as u64,
                path: round % limits::WORM_PATHS,
                ttl: limits::WORM_TTL_MAX,
                budget: limits::WORM_BUDGET,
                patience_ms: limits::WORM_PATIENCE_MS,
                targets: Bounded::truncated(vec![nobody, content]),
                origin: None,
            };
            table.deliver(
                *seat,
                *link,
                &Packet::from(request).encode(),
                Expected::Request,
            );
            sent += 1;
        }
        table.pass(20_000);
    }
    let caused = worm_requests(&table);
    assert!(caused > sent, "it does cause something: {caused}");
    assert!(
        caused <= sent * usize::from(limits::WORM_BUDGET),
        "{caused} by {sent}"
    );
}

/// A question for an address goes on over three ways twice, and no farther.
#[test]
fn a_question_for_an_address_causes_twelve_more_at_most() {
    let mut table = ring();
    let stranger = NodeId::from_bytes([250; 32]);
    let link = table.stranger(1, stranger, address(200));
    let hello = Hello::new(Desktop, Purpose::Visit, false, false, None, None);
    table.deliver(
        1,
        link,
        &Packet::from(hello).encode(),
        Expected::Notification,
    );
    table.settle();
    let mut most = 0;
    for target in (2..NODES).step_by(7) {
        table.requests.clear();
        let question = AddressRequest {
            target: id(target),
            relays: 2,
        };
        table.deliver(1, link, &Packet::from(question).encode(), Expected::Request);
        table.pass(3_000);
        most = most.max(
            table
                .requests
                .get(&AddressRequest::SPEC.code)
                .copied()
                .unwrap_or(0),
        );
    }
    let ways = limits::ADDRESS_WAYS_MAX;
    assert!(0 < most && most <= ways + ways * ways, "{most}");
}

#[test]
fn anchors_answer_for_who_is_offline() {
    let mut table = Table::new(&[Anchor, Desktop, Desktop], &[0]);
    table.roads = Some(BTreeSet::from([(0, 2)]));
    table.pass(60_000);
    table.roads = Some(BTreeSet::from([(0, 1)]));
    // The anchor has the record as a neighbour too, and would answer a worm.
    table.silent = BTreeSet::from([0]);
    table.cut(0, 2);
    table.pass(600_000);
    let Ok(Reply::Found(found)) = table.try_call(1, Call::Find(id(2)), 30_000) else {
        panic!("the anchor has the record");
    };
    assert_eq!(
        (found.found_by, found.address),
        (FoundBy::Anchor, address(2))
    );
    // The record ends a day after it was signed.
    table.pass(limits::ADDRESS_RECORD_TTL_MS);
    let late = table.try_call(1, Call::Find(id(2)), 30_000);
    assert!(matches!(late, Err(CallError::NotFound(_))), "{late:?}");
}

/// Whoever asks for addresses by the thousand, of a node whose peers do not answer, takes a bounded part of its memory.
#[test]
fn questions_that_are_asked_on_are_bounded() {
    let mut table = ring();
    let attacker = NodeId::from_bytes([250; 32]);
    let link = table.stranger(1, attacker, address(200));
    let hello = Hello::new(Desktop, Purpose::Visit, false, false, None, None);
    table.deliver(
        1,
        link,
        &Packet::from(hello).encode(),
        Expected::Notification,
    );
    table.settle();
    table.silent = (0..NODES).filter(|seat| *seat != 1).collect();
    table.requests.clear();
    for round in 0..4 {
        for target in (2..NODES).filter(|target| target % 4 == round) {
            let question = AddressRequest {
                target: id(target),
                relays: 2,
            };
            let bytes = Packet::from(question).encode();
            for _ in 0..8 {
                table.deliver(1, link, &bytes, Expected::Request);
            }
        }
        table.settle();
    }
    let asked = table.requests.get(&AddressRequest::SPEC.code);
    let asked = asked.copied().unwrap_or_default();
    assert!(0 < asked && asked <= limits::ADDRESS_RELAYS_MAX, "{asked}");
    assert!(table.refused(1, Refusal::Full) > 0);
}
