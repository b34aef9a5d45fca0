//! The life of a public post: stored, told, pulled, from the author and from holders (PROTOCOL sections 7, 8, 10.1).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod table;

use distsoc_engine::crypto::Secret;
use distsoc_engine::domain::{
    Content, Event, EventKind, PostBody, PostText, PublicContent, RecentPosts, SignedPost,
};
use distsoc_engine::io::{
    Call, CallError, Notice, Relationship, Reply, Restored, StorageTrouble, StoredFileRow,
    StoredList,
};
use distsoc_engine::profile::ProfileKind::{Anchor, Desktop};
use distsoc_engine::refusal::Refusal;
use distsoc_engine::wire::PullSyncRequest;
use distsoc_engine::wire::codec::Bounded;
use table::{START_MS, Table, connect_string, secret};

fn three() -> Table {
    let mut table = Table::new(&[Anchor, Desktop, Desktop], &[0]);
    table.pass(5_000);
    table
}

#[test]
fn everybody_finds_everybody_through_the_anchor() {
    let mut table = Table::new(&[Anchor, Desktop, Desktop, Desktop, Desktop, Desktop], &[0]);
    table.pass(60_000);
    for seat in 0..6 {
        let status = table.status(seat);
        assert_eq!(
            status.peers_social + status.peers_wide,
            5,
            "node {seat}: {status:?}"
        );
        assert_eq!(status.map.hop1, 5);
    }
}

#[test]
fn a_post_reaches_connected_followers_and_nobody_else_keeps_it() {
    let mut table = three();
    table.follow(1, 2);
    let id = table.post(2, "hello");
    assert!(table.seats[1].posts.contains_key(&id));
    assert!(
        !table.seats[0].posts.contains_key(&id),
        "the anchor does not keep the author"
    );
    assert!(table.refused(0, Refusal::NotKept) > 0);
    let seen = |notice: &&Notice| matches!(notice, Notice::Post { id: seen, .. } if *seen == id);
    assert_eq!(table.seats[1].notices.iter().filter(seen).count(), 1);
}

#[test]
fn what_was_posted_before_the_follow_is_pulled() {
    let mut table = three();
    let ids: Vec<_> = (0..300)
        .map(|number| table.post(2, &format!("post {number}")))
        .collect();
    table.follow(1, 2);
    table.pass(1_000);
    assert!(ids.iter().all(|id| table.seats[1].posts.contains_key(id)));
    assert_eq!(table.status(1).posts_wanted, 0);
}

/// More authors than one request names, more posts than one asks for, and one peer who has them: whoever has to wait has the next
/// turn, and no pause.
#[test]
fn hundreds_of_authors_come_from_one_holder_at_once() {
    const AUTHORS: usize = 250;
    let mut table = three();
    let (mut follows, mut holder) = (Restored::default(), Restored::default());
    for number in 0..AUTHORS {
        let mut seed = [9; 32];
        seed[..2].copy_from_slice(&(number as u16).to_be_bytes());
        let secret = Secret::from_seed(&seed);
        let mut list = None;
        for turn in 0..4 {
            let at_ms = START_MS - 1_000_000 + turn * 1_000 + number as u64;
            let post = public_post(&secret, at_ms, &format!("{turn} of {number}"));
            let event = Event {
                id: post.id(),
                created_at_s: (at_ms / 1_000) as u32,
                kind: EventKind::Public,
            };
            list = Some(RecentPosts::append(list.as_ref(), event, 7, at_ms, &secret));
            table.seats[2].posts.insert(post.id(), post.bytes().clone());
            holder.files.push(StoredFileRow::of(&post));
        }
        let list = list.unwrap();
        let relationship = Relationship {
            followed_since_ms: Some(1),
            ..Relationship::default()
        };
        follows.relationships.push((secret.node_id(), relationship));
        holder.authors.push((list.head().clone(), START_MS));
        let stored = StoredList {
            head: list.head().clone(),
            list: list.list().clone(),
        };
        table.seats[2].lists.insert(secret.node_id(), stored);
    }
    holder.relationships = follows.relationships.clone();
    table.restart_with(2, Desktop, holder);
    table.restart_with(1, Desktop, follows);
    table.call(1, Call::Connect(connect_string(2))).unwrap();
    table.pass(1_000);
    assert_eq!(table.seats[1].posts.len(), 4 * AUTHORS);
    // Lists in four requests, posts in four of 256, to nobody else: the anchor keeps none of these authors.
    let requests = table.requests[&PullSyncRequest::SPEC.code];
    assert!((8..40).contains(&requests), "{requests} requests");
}

fn public_post(secret: &Secret, created_at_ms: u64, text: &str) -> SignedPost {
    let body = PostBody {
        author: secret.node_id(),
        created_at_ms,
        content: Content::Public(PublicContent {
            text: PostText::new(text).unwrap(),
            parent: None,
            descriptions: Bounded::default(),
        }),
        blobs: Bounded::default(),
    };
    SignedPost::sign(body, secret).unwrap()
}

#[test]
fn what_was_missed_while_apart_comes_after_the_reunion() {
    let mut table = three();
    table.follow(1, 2);
    table.post(2, "first");
    table.unreachable = vec![1, 2];
    table.cut(1, 2);
    table.settle();
    let missed: Vec<_> = (0..5)
        .map(|number| table.post(2, &format!("missed {number}")))
        .collect();
    assert!(!table.seats[1].posts.contains_key(&missed[0]));
    table.unreachable.clear();
    table.pass(20 * 60_000);
    assert!(
        missed
            .iter()
            .all(|id| table.seats[1].posts.contains_key(id))
    );
}

/// What arrived before the end of a connection counts, even where the driver tells both at once.
#[test]
fn the_last_words_of_a_connection_are_heard() {
    let mut table = three();
    table.follow(1, 2);
    let id = table.post_and_cut(2, "last words", 1);
    assert!(table.seats[1].posts.contains_key(&id));
}

#[test]
fn a_holder_answers_when_the_author_is_gone() {
    let mut table = three();
    table.follow(0, 2);
    let ids: Vec<_> = (0..20)
        .map(|number| table.post(2, &format!("post {number}")))
        .collect();
    table.unreachable = vec![2];
    table.cut(0, 2);
    table.cut(1, 2);
    table.settle();
    table.follow(1, 2);
    table.pass(60_000);
    assert!(
        ids.iter().all(|id| table.seats[1].posts.contains_key(id)),
        "the anchor holds them"
    );
}

#[test]
fn names_travel_with_profiles() {
    let mut table = three();
    let name = Some(distsoc_engine::domain::Name::new("Ada").unwrap());
    let set = Call::SetProfile {
        name,
        bio: None,
        anchors: None,
    };
    assert_eq!(table.call(2, set), Ok(Reply::Done));
    let names: Vec<_> = table
        .peers(1)
        .into_iter()
        .filter_map(|peer| peer.name)
        .collect();
    assert_eq!(names, ["Ada"]);
    table.follow(1, 2);
    assert!(
        table.seats[1].profiles.contains_key(&secret(2).node_id()),
        "stored with the follow"
    );
}

#[test]
fn a_post_that_is_not_durable_is_not_told() {
    let mut table = three();
    table.follow(1, 2);
    table.seats[2].disk_trouble = Some(StorageTrouble::Full);
    let text = distsoc_engine::domain::PostText::new("lost").unwrap();
    let result = table.call(
        2,
        Call::Post {
            text,
            parent: None,
            media: Vec::new(),
        },
    );
    assert_eq!(result, Err(CallError::Storage(StorageTrouble::Full)));
    assert!(table.seats[1].posts.is_empty());
    table.seats[2].disk_trouble = None;
    let id = table.post(2, "kept");
    assert!(table.seats[1].posts.contains_key(&id));
    assert_eq!(table.seats[1].posts.len(), 1);
}

#[test]
fn a_full_disk_takes_nothing_in_and_catches_up_later() {
    let mut table = three();
    table.follow(1, 2);
    table.post(2, "before");
    table.seats[1].disk_trouble = Some(StorageTrouble::Full);
    let ids: Vec<_> = (0..30)
        .map(|number| table.post(2, &format!("post {number}")))
        .collect();
    assert_eq!(table.status(1).storage_trouble, Some(StorageTrouble::Full));
    table.seats[1].disk_trouble = None;
    table.pass(3 * 60 * 60_000);
    assert!(ids.iter().all(|id| table.seats[1].posts.contains_key(id)));
}

#[test]
fn whoever_is_followed_no_more_is_kept_for_others() {
    let mut table = three();
    table.follow(1, 2);
    let node = secret(2).node_id();
    assert_eq!(table.call(1, Call::Unfollow(node)), Ok(Reply::Done));
    let again = table.call(1, Call::Unfollow(node));
    assert_eq!(
        again,
        Err(CallError::NotFound("you do not follow that node"))
    );
    let id = table.post(2, "unheard");
    assert!(
        table.seats[1].posts.contains_key(&id),
        "nobody else sees a difference"
    );
    let heard = |notice: &Notice| matches!(notice, Notice::Post { id: post, .. } if *post == id);
    assert!(!table.seats[1].notices.iter().any(heard), "the person does");
    let own = secret(1).node_id();
    let follow_own = Call::Follow {
        node: own,
        place: None,
    };
    assert!(matches!(
        table.call(1, follow_own),
        Err(CallError::Refused(_))
    ));
}

/// PROTOCOL section 6: after a change of the own address everybody is back within 5 s, and so are the posts.
#[test]
fn a_node_that_moves_is_back_within_five_seconds() {
    let mut table = Table::new(&[Anchor, Desktop, Desktop, Desktop, Desktop], &[0]);
    table.pass(60_000);
    table.follow(1, 4);
    table.follow(4, 1);
    assert_eq!(table.peers(4).len(), 4);
    table.move_to(4, "127.0.0.1:7777".parse().unwrap());
    let missed = table.post(1, "while you were away");
    assert!(!table.seats[4].posts.contains_key(&missed));
    table.pass(5_000);
    for (peer, others) in [(4, 4), (0, 4), (1, 4), (2, 4), (3, 4)] {
        assert_eq!(table.peers(peer).len(), others, "node {peer}");
    }
    assert!(table.seats[4].posts.contains_key(&missed));
    let next = table.post(4, "here I am");
    assert!(table.seats[1].posts.contains_key(&next));
}

#[test]
fn connecting_by_hand_works_and_says_why_not() {
    let mut table = Table::new(&[Desktop, Desktop], &[]);
    table.pass(1_000);
    let connected = table.call(0, Call::Connect(connect_string(1)));
    assert_eq!(connected, Ok(Reply::Connected(secret(1).node_id())));
    let own = table.call(0, Call::Connect(connect_string(0)));
    assert!(matches!(own, Err(CallError::Refused(_))));
    table.unreachable = vec![1];
    table.cut(0, 1);
    table.settle();
    let failed = table.call(0, Call::Connect(connect_string(1)));
    assert_eq!(
        failed.unwrap_err().to_string(),
        "no distsoc/2 node answers there"
    );
}

#[test]
fn a_full_node_says_so_to_whoever_asks_for_one_more() {
    let mut profiles = [Desktop; 89];
    (profiles[86], profiles[87]) = (Anchor, Anchor);
    let mut table = Table::new(&profiles, &[]);
    table.pass(1_000);
    let own = 88;
    // The social slots and half of the diverse ones; of these, two more are for anchors.
    for other in (0..85).chain([86, 87]) {
        let connected = table.call(own, Call::Connect(connect_string(other)));
        assert_eq!(
            connected,
            Ok(Reply::Connected(secret(other).node_id())),
            "{other}"
        );
    }
    let full = table.call(own, Call::Connect(connect_string(85)));
    assert!(
        matches!(full, Err(CallError::Refused(why)) if why.contains("slots")),
        "{full:?}"
    );
}

/// More at once than a peer takes: it is told of the last, asks for the others, and nobody is charged.
#[test]
fn many_posts_and_deletions_at_once_arrive_and_cost_nobody_their_connection() {
    let mut table = Table::new(&[Anchor, Desktop, Desktop], &[0]);
    table.pass(60_000);
    table.follow(1, 2);
    table.pass(60_000);
    let ids: Vec<_> = (0..300)
        .map(|number| table.post(2, &format!("post {number}")))
        .collect();
    table.pass(2 * 60_000);
    let missing = |table: &Table| {
        let posts = &table.seats[1].posts;
        ids.iter().filter(|id| !posts.contains_key(id)).count()
    };
    assert_eq!(missing(&table), 0);
    for id in &ids {
        assert_eq!(table.call(2, Call::Delete(*id)), Ok(Reply::Done));
    }
    table.pass(10 * 60_000);
    assert_eq!(missing(&table), ids.len());
    for seat in 0..3 {
        assert_eq!(table.refused(seat, Refusal::RateExceeded), 0, "seat {seat}");
        assert_eq!(table.status(seat).posts_wanted, 0, "seat {seat}");
    }
}
