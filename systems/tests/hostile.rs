//! What a peer can try, and what it gets for it: refused, counted, bounded, and nobody else notices (PROTOCOL section 13).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod table;

use distsoc_engine::crypto::Secret;
use distsoc_engine::domain::{
    Address, AddressBody, Content, Event, EventKind, EventList, NodeId, PostBody, PostText,
    PublicContent, RecentPosts, Signed, SignedPost,
};
use distsoc_engine::io::{Call, Effect, Input, LinkId, ReadQuery, Reply};
use distsoc_engine::limits;
use distsoc_engine::profile::ProfileKind::{self, Anchor, Desktop, Mobile};
use distsoc_engine::refusal::Refusal;
use distsoc_engine::wire::codec::Bounded;
use distsoc_engine::wire::{
    BootstrapSampleRequest, Expected, Goodbye, GoodbyeReason, Hello, Hint, Packet,
    PostNotification, PullSyncRequest, Purpose, Want,
};
use table::{START_MS, Table, secret};

fn attacker() -> Secret {
    Secret::from_seed(&[200; 32])
}

fn hello() -> Vec<u8> {
    Packet::from(Hello::new(
        ProfileKind::Desktop,
        Purpose::Social,
        false,
        false,
        None,
        None,
    ))
    .encode()
    .to_vec()
}

/// A table of two friends and an attacker who is up at the first of them.
fn besieged() -> (Table, LinkId) {
    let mut table = Table::new(&[Anchor, Desktop], &[0]);
    table.pass(2_000);
    table.follow(0, 1);
    let link = table.stranger(0, attacker().node_id(), "127.0.0.1:9999".parse().unwrap());
    table.deliver(0, link, &hello(), Expected::Notification);
    table.settle();
    assert_eq!(table.peers(0).len(), 2);
    (table, link)
}

/// Whatever happened, the friend's posts still arrive.
fn still_serves(table: &mut Table) {
    let id = table.post(1, "still here");
    assert!(
        table.seats[0].posts.contains_key(&id),
        "service to others goes on"
    );
}

fn post_by(author: &Secret, text: &str, created_at_ms: u64) -> (SignedPost, Event) {
    let body = PostBody {
        author: author.node_id(),
        created_at_ms,
        content: Content::Public(PublicContent {
            text: PostText::new(text).unwrap(),
            parent: None,
            descriptions: Bounded::default(),
        }),
        blobs: Bounded::default(),
    };
    let post = SignedPost::sign(body, author).unwrap();
    let event = Event {
        id: post.id(),
        created_at_s: (created_at_ms / 1000) as u32,
        kind: EventKind::Public,
    };
    (post, event)
}

#[test]
fn garbage_costs_the_connection_and_a_cool_off() {
    let (mut table, link) = besieged();
    for _ in 0..30 {
        table.deliver(0, link, &[0x35, 0xff, 0xff], Expected::Notification);
    }
    table.settle();
    assert_eq!(table.refused(0, Refusal::Malformed), 30);
    assert_eq!(table.peers(0).len(), 1, "the attacker is gone");
    let again = table.stranger(0, attacker().node_id(), "127.0.0.1:9999".parse().unwrap());
    table.deliver(0, again, &hello(), Expected::Notification);
    table.settle();
    assert_eq!(table.peers(0).len(), 1, "and not taken back");
    assert_eq!(table.refused(0, Refusal::CoolingOff), 1);
    still_serves(&mut table);
}

#[test]
fn forged_signatures_are_refused() {
    let (mut table, link) = besieged();
    let (post, event) = post_by(&secret(1), "not by her", START_MS);
    let list = RecentPosts::append(None, event, 1, START_MS, &secret(1));
    let honest = PostNotification {
        head: list.head().clone(),
        newest: list.list().clone(),
        post: Some(post),
    };
    let mut forged = Packet::from(honest).encode().to_vec();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    table.deliver(0, link, &forged, Expected::Notification);
    table.settle();
    assert_eq!(table.refused(0, Refusal::BadSignature), 1);
    assert!(table.seats[0].posts.is_empty());
    still_serves(&mut table);
}

#[test]
fn posts_of_strangers_are_not_kept_however_many() {
    let (mut table, link) = besieged();
    let mut list = None;
    for number in 0..200 {
        let (post, event) = post_by(&attacker(), &format!("spam {number}"), START_MS);
        let next = RecentPosts::append(list.as_ref(), event, 1, START_MS, &attacker());
        let packet = PostNotification {
            head: next.head().clone(),
            newest: next.list().newest(1),
            post: Some(post),
        };
        table.deliver(
            0,
            link,
            &Packet::from(packet).encode(),
            Expected::Notification,
        );
        list = Some(next);
    }
    table.settle();
    assert!(table.seats[0].posts.is_empty() && table.seats[0].lists.is_empty());
    assert!(table.refused(0, Refusal::NotKept) >= 200);
    still_serves(&mut table);
}

#[test]
fn replayed_notifications_change_nothing() {
    let (mut table, link) = besieged();
    table.post(1, "once");
    let stored = table.seats[0].lists[&secret(1).node_id()].clone();
    let post = table.seats[0]
        .posts
        .values()
        .next()
        .unwrap()
        .clone()
        .verify()
        .unwrap();
    let replay = PostNotification {
        head: stored.head,
        newest: stored.list.newest(1),
        post: Some(post),
    };
    let bytes = Packet::from(replay).encode();
    let notices = table.seats[0].notices.len();
    for _ in 0..50 {
        table.deliver(0, link, &bytes, Expected::Notification);
    }
    table.settle();
    assert_eq!(table.seats[0].posts.len(), 1);
    assert_eq!(
        table.seats[0].notices.len(),
        notices,
        "nobody is told twice"
    );
    assert!(table.refused(0, Refusal::Stale) >= 50);
    still_serves(&mut table);
}

#[test]
fn a_future_timestamp_is_refused() {
    let mut table = Table::new(&[Anchor, Desktop], &[0]);
    table.pass(2_000);
    table.follow(0, 1);
    let link = table.stranger(0, attacker().node_id(), "127.0.0.1:9999".parse().unwrap());
    table.deliver(0, link, &hello(), Expected::Notification);
    let future_ms = table.now.wall_ms + limits::FUTURE_MS_MAX + 60_000;
    let (post, event) = post_by(&secret(1), "tomorrow", future_ms);
    let list = RecentPosts::append(None, event, 1, table.now.wall_ms, &secret(1));
    let packet = PostNotification {
        head: list.head().clone(),
        newest: list.list().clone(),
        post: Some(post),
    };
    table.deliver(
        0,
        link,
        &Packet::from(packet).encode(),
        Expected::Notification,
    );
    table.settle();
    assert!(table.refused(0, Refusal::FutureTimestamp) >= 1);
    assert!(table.seats[0].posts.is_empty());
}

#[test]
fn nobody_speaks_before_hello_and_hello_comes_once() {
    let mut table = Table::new(&[Anchor], &[]);
    table.settle();
    let link = table.stranger(0, attacker().node_id(), "127.0.0.1:9999".parse().unwrap());
    let request = Packet::from(BootstrapSampleRequest { count: 5 }).encode();
    table.deliver(0, link, &request, Expected::Request);
    table.settle();
    assert_eq!(table.refused(0, Refusal::BeforeHello), 1);
    table.deliver(0, link, &hello(), Expected::Notification);
    table.deliver(0, link, &hello(), Expected::Notification);
    table.settle();
    assert_eq!(table.refused(0, Refusal::SecondHello), 1);
    let silent = table.stranger(
        0,
        NodeId::from_bytes([3; 32]),
        "127.0.0.1:9998".parse().unwrap(),
    );
    table.settle();
    table.pass(limits::HELLO_TIMEOUT_MS + 1);
    assert_eq!(
        table.refused(0, Refusal::BeforeHello),
        2,
        "{silent:?} never said hello"
    );
}

#[test]
fn connections_and_greetings_are_bounded() {
    let mut table = Table::new(&[Mobile], &[]);
    table.settle();
    for number in 0..1000u32 {
        let id = NodeId::from_bytes(distsoc_engine::crypto::hash(&number.to_be_bytes()));
        let link = table.stranger(0, id, "127.0.0.1:9999".parse().unwrap());
        if number % 2 == 0 {
            table.deliver(0, link, &hello(), Expected::Notification);
        }
    }
    table.settle();
    let status = table.status(0);
    assert_eq!((status.peers_social, status.peers_wide), (10, 0));
    let peers = table.seats[0]
        .node
        .world()
        .resource::<distsoc_engine::world::peers::Peers>();
    assert!(peers.link_count() <= limits::GREETINGS_MAX + status.peers_social + status.peers_wide);
    assert!(table.refused(0, Refusal::Full) > 0);
}

#[test]
fn only_two_strangers_of_a_prefix_dial_in() {
    let mut table = Table::new(&[Desktop], &[]);
    table.settle();
    for number in 0..20u32 {
        let id = NodeId::from_bytes(distsoc_engine::crypto::hash(&number.to_be_bytes()));
        let remote = format!("8.8.8.{number}:4000").parse().unwrap();
        let link = table.stranger(0, id, remote);
        table.deliver(0, link, &hello(), Expected::Notification);
    }
    table.settle();
    assert_eq!(table.peers(0).len(), limits::STRANGERS_PER_PREFIX_MAX);
    assert_eq!(table.refused(0, Refusal::AcceptLimit), 18);
}

#[test]
fn records_of_others_and_local_addresses_from_afar_are_not_believed() {
    let mut table = Table::new(&[Desktop], &[]);
    table.settle();
    let record = |signer: &Secret, address: &str| {
        let body = AddressBody {
            node_id: signer.node_id(),
            addresses: Bounded::truncated(vec![Address::new(address.parse().unwrap()).unwrap()]),
            is_anchor: 0,
            seq: START_MS,
            expiry_ms: START_MS + 1000 * 60 * 60,
        };
        Some(Signed::sign(body, signer))
    };
    let cases = [
        (record(&secret(9), "8.8.8.8:4000"), Refusal::WrongAuthor),
        (record(&attacker(), "192.168.0.1:4000"), Refusal::BadAddress),
    ];
    for (number, (record, refusal)) in cases.into_iter().enumerate() {
        let remote = format!("9.9.{number}.9:4000").parse().unwrap();
        let link = table.stranger(0, attacker().node_id(), remote);
        let hello = Hello::new(
            ProfileKind::Desktop,
            Purpose::Social,
            false,
            false,
            record,
            None,
        );
        table.deliver(
            0,
            link,
            &Packet::from(hello).encode(),
            Expected::Notification,
        );
        table.settle();
        assert_eq!(table.refused(0, refusal), 1, "{refusal}");
    }
}

#[test]
fn goodbye_hints_are_dialled_by_two_at_most() {
    let (mut table, link) = besieged();
    let hint = |number: u32| Hint {
        node_id: NodeId::from_bytes(distsoc_engine::crypto::hash(&number.to_be_bytes())),
        address: Address::new(format!("127.0.0.1:{}", 5000 + number).parse().unwrap()).unwrap(),
    };
    let goodbye = Goodbye::new(GoodbyeReason::Full, (0..16).map(hint).collect());
    table.deliver(
        0,
        link,
        &Packet::from(goodbye).encode(),
        Expected::Notification,
    );
    table.settle();
    assert!(table.dials_of(0) <= 1 + limits::GOODBYE_HINTS_DIALLED_MAX);
    still_serves(&mut table);
}

#[test]
fn a_profile_is_told_by_its_owner() {
    let (mut table, link) = besieged();
    let others = Packet::examples()
        .into_iter()
        .find(|packet| matches!(packet, Packet::ProfileUpdate(_)))
        .expect("every packet has an example");
    table.deliver(0, link, &others.encode(), Expected::Notification);
    table.settle();
    assert_eq!(table.refused(0, Refusal::WrongAuthor), 1);
}

#[test]
fn a_wrong_list_makes_nobody_believe_it() {
    let (mut table, link) = besieged();
    table.post(1, "first");
    let known = table.seats[0].lists[&secret(1).node_id()].clone();
    // The signed head of a later version with other events than it names.
    let (_, event) = post_by(&secret(1), "second", START_MS);
    let stored = RecentPosts::verify(known.head.clone(), known.list.clone()).unwrap();
    let later = RecentPosts::append(Some(&stored), event, 1, START_MS, &secret(1));
    let (_, other) = post_by(&attacker(), "something else", START_MS);
    let lie = PostNotification {
        head: later.head().clone(),
        newest: EventList::of(other),
        post: None,
    };
    table.deliver(0, link, &Packet::from(lie).encode(), Expected::Notification);
    table.settle();
    assert_eq!(table.refused(0, Refusal::ListMismatch), 1);
    assert_eq!(table.seats[0].lists[&secret(1).node_id()].head, known.head);
}

#[test]
fn counters_tell_what_was_refused() {
    let (mut table, link) = besieged();
    table.deliver(0, link, &[0x7f, 0], Expected::Notification);
    table.deliver(0, link, &[0x42, 0], Expected::Notification);
    table.settle();
    let Ok(Reply::Counters(counters)) = table.call(0, Call::Counters) else {
        panic!("no counters");
    };
    let reasons: Vec<&str> = counters
        .iter()
        .filter(|counter| counter.name == "refused_total")
        .map(|counter| &*counter.labels[0].1)
        .collect();
    assert!(
        reasons.contains(&"unknown-code") && reasons.contains(&"reserved-code"),
        "{reasons:?}"
    );
    assert_eq!(
        table.peers(0).len(),
        2,
        "unknown codes are skipped, never punished"
    );
}

/// A small request costs the disk no more than it answers: an author or a post that is named over and over is read once.
#[test]
fn what_is_asked_for_many_times_at_once_is_read_once() {
    let (mut table, link) = besieged();
    let post = table.post(1, "read once");
    let author = table.seats[1].id;
    let ask = PullSyncRequest {
        authors: Bounded::truncated(vec![Want { author, seq: 0 }; limits::PULL_AUTHORS_MAX]),
        posts: Bounded::truncated(vec![post; limits::PULL_POSTS_MAX]),
    };
    let ask = Packet::from(ask).encode();
    table.deliver(0, link, &ask, Expected::Request);
    let inputs: Vec<Input> = table.seats[0].inputs.drain(..).collect();
    let outputs = table.seats[0].node.tick(table.now, inputs);
    let reads = outputs
        .effects
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::Read { query, .. } => Some(query),
            _ => None,
        });
    let reads: Vec<ReadQuery> = reads.collect();
    let once = ReadQuery::ForPeer {
        wants: vec![Want { author, seq: 0 }],
        posts: vec![post],
        bytes_max: limits::PULL_RESPONSE_BYTES_MAX,
    };
    assert_eq!(reads, [once]);
}
