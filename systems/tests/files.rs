//! PROTOCOL section 7 by whole nodes: hosting, blobs, hearts, deletions, the chain.

mod table;

use distsoc_engine::domain::{
    BlobRef, Content, Cut, Event, EventKind, PostBody, PostId, PostText, PublicContent,
    RecentPosts, SignedPost, Verified,
};
use distsoc_engine::io::{Call, CallError, Notice, Reply, StorageTrouble};
use distsoc_engine::limits;
use distsoc_engine::profile::NodeProfile;
use distsoc_engine::profile::ProfileKind::{Anchor, Desktop};
use distsoc_engine::refusal::Refusal;
use distsoc_engine::wire::codec::Bounded;
use distsoc_engine::wire::{
    AuthorUpdatePush, Expected, FileRequest, Hello, ListDigest, Packet, PostNotification,
    PullSyncRequest, Purpose,
};
use distsoc_engine::world::authors::{Author, AuthorIndex};
use std::collections::BTreeSet;
use table::files::{holds_whole, picture, post_with, profile, stage, town};
use table::{Table, connect_string, secret};

#[test]
fn pictures_come_with_posts_whole_and_once() {
    let mut table = town(0, 4);
    table.follow(1, 2);
    table.follow(3, 2);
    let bytes = picture(2_000_000, 1);
    let blob = stage(&mut table, 2, &bytes);
    let id = post_with(&mut table, 2, blob).expect("it is staged");
    table.pass(60_000);
    for seat in [1, 3] {
        assert!(table.seats[seat].posts.contains_key(&id));
        assert!(holds_whole(&table, seat, &bytes), "seat {seat}");
    }
}

#[test]
fn a_picture_that_is_not_here_is_in_no_post() {
    let mut table = town(0, 2);
    let bytes = picture(1_000, 1);
    let blob = Cut::new(&bytes).expect("a length within bounds").blob();
    assert!(matches!(
        post_with(&mut table, 1, blob),
        Err(CallError::NotFound(_))
    ));
}

#[test]
fn whoever_is_heard_of_is_kept_for_others_and_never_shown() {
    let mut table = town(16, 4);
    for round in 0..20 {
        table.post(2, &format!("post {round}"));
        table.pass(30_000);
    }
    let last = table.post(2, "the last");
    table.pass(60_000);
    for seat in [1, 3] {
        assert!(table.seats[seat].posts.contains_key(&last), "seat {seat}");
        let shown = |notice: &Notice| matches!(notice, Notice::Post { .. });
        assert!(!table.seats[seat].notices.iter().any(shown));
        assert!(table.status(seat).follows == 0);
    }
}

/// What the disk was to be told of an author waits for no follow that then fails.
#[test]
fn a_follow_that_failed_leaves_its_author_kept_for_others() {
    let mut table = town(16, 3);
    table.post(2, "hello");
    table.pass(10 * 60_000);
    let node = secret(2).node_id();
    let hosted = table.seats[1].relationships.remove(&node);
    assert!(hosted.is_some_and(|hosted| hosted.hosted_since_ms.is_some()));
    table.seats[1].disk_trouble = Some(StorageTrouble::Failed);
    let failed = Err(CallError::Storage(StorageTrouble::Failed));
    assert_eq!(table.call(1, Call::Follow { node, place: None }), failed);
    table.seats[1].disk_trouble = None;
    table.pass(60_000);
    let hosted = table.seats[1].relationships.get(&node);
    assert!(hosted.is_some_and(|hosted| hosted.hosted_since_ms.is_some()));
}

#[test]
fn hearts_reach_those_who_keep_the_post_and_are_taken_back() {
    let mut table = town(0, 4);
    table.follow(1, 2);
    table.follow(3, 2);
    let id = table.post(2, "like me");
    let person = secret(1).node_id();
    let heart = |given| Call::Heart { post: id, given };
    assert_eq!(table.call(1, heart(true)), Ok(Reply::Done));
    assert_eq!(table.call(1, heart(true)), Ok(Reply::Done));
    table.pass(10_000);
    let given = |table: &Table, seat: usize| table.seats[seat].hearts[&(id, person)].is_given();
    assert!(given(&table, 2) && given(&table, 3));
    assert_eq!(table.call(1, heart(false)), Ok(Reply::Done));
    table.pass(10_000);
    assert!(!given(&table, 2) && !given(&table, 3));
    let unknown = Call::Heart {
        post: PostId::from_bytes([1; 32]),
        given: true,
    };
    assert!(matches!(
        table.call(1, unknown),
        Err(CallError::NotFound(_))
    ));
}

#[test]
fn what_its_author_took_back_is_gone_everywhere_and_stays_so() {
    let mut table = town(0, 4);
    table.follow(1, 2);
    table.follow(3, 2);
    let bytes = picture(300_000, 3);
    let blob = stage(&mut table, 2, &bytes);
    let id = post_with(&mut table, 2, blob).expect("it is staged");
    let kept = table.post(2, "this stays");
    table.pass(60_000);
    assert!(matches!(
        table.call(1, Call::Delete(id)),
        Err(CallError::Refused(_))
    ));
    assert_eq!(table.call(2, Call::Delete(id)), Ok(Reply::Done));
    assert!(matches!(
        table.call(2, Call::Delete(id)),
        Err(CallError::NotFound(_))
    ));
    table.pass(3 * 60 * 60_000);
    for seat in 1..4 {
        let seat = &table.seats[seat];
        assert!(!seat.posts.contains_key(&id));
        assert!(seat.posts.contains_key(&kept));
        assert!(seat.slices.is_empty());
        assert!(seat.deletions.contains_key(&(id, secret(2).node_id())));
    }
}

/// Keepers who are no peers of each other: news goes by calls, from link to link, and no further connection stays.
#[test]
fn news_reaches_keepers_who_are_no_peers_by_their_swarm_links() {
    const FOLLOWERS: std::ops::Range<usize> = 2..12;
    let mut profiles = vec![profile(Anchor, 0)];
    let lonely = NodeProfile {
        social_slots: 0,
        wide_slots: 1,
        wide_ring_slots: 0,
        wide_finger_slots: 0,
        ..profile(Desktop, 0)
    };
    profiles.extend((1..FOLLOWERS.end).map(|_| lonely.clone()));
    let mut table = Table::with_profiles(&profiles, &[0]);
    table.pass(60_000);
    let first = table.post(1, "the first");
    for seat in FOLLOWERS {
        table.follow(seat, 1);
    }
    table.pass(3 * 60 * 60_000);
    for seat in FOLLOWERS {
        assert!(table.seats[seat].posts.contains_key(&first), "seat {seat}");
        let peers = table.peers(seat);
        assert!(peers.iter().all(|peer| peer.node_id == secret(0).node_id()));
    }
    let news = table.post(1, "the news");
    table.pass(2 * 60_000);
    for seat in FOLLOWERS {
        assert!(table.seats[seat].posts.contains_key(&news), "seat {seat}");
    }
}

/// What was missing when a node was killed is wanted again after its start, without any news of the author.
#[test]
fn posts_that_a_kill_left_missing_come_after_the_start() {
    let mut table = town(0, 3);
    table.follow(1, 2);
    let ids: Vec<PostId> = (0..20)
        .map(|number| table.post(2, &format!("post {number}")))
        .collect();
    table.pass(60_000);
    for id in &ids[..9] {
        let seat = &mut table.seats[1];
        assert!(seat.posts.remove(id).is_some());
        seat.files.remove(id);
    }
    table.restart_with_files(1, profile(Desktop, 0), &[0]);
    table.pass(2 * 60_000);
    let posts = &table.seats[1].posts;
    assert!(ids.iter().all(|id| posts.contains_key(id)));
}

/// A list of another's key as somebody else would make it.
fn list_of(number: usize, generation: u32, events: &[(u8, u32)]) -> Verified<RecentPosts> {
    let mut list = None;
    for (id, at_s) in events {
        let event = Event {
            id: PostId::from_bytes([*id; 32]),
            created_at_s: *at_s,
            kind: EventKind::Public,
        };
        let (known, key) = (list.as_ref(), secret(number));
        let now_ms = table::START_MS;
        list = Some(RecentPosts::append(known, event, generation, now_ms, &key));
    }
    list.expect("there are events")
}

fn notify(table: &mut Table, seat: usize, list: &RecentPosts) {
    notify_with(table, seat, list, None);
}

fn notify_with(table: &mut Table, seat: usize, list: &RecentPosts, post: Option<&SignedPost>) {
    let stranger = secret(60).node_id();
    let remote = "127.0.0.1:9999".parse().expect("a literal");
    let link = table.stranger(seat, stranger, remote);
    let hello = Hello::new(Desktop, Purpose::Visit, false, false, None, None);
    let hello = Packet::from(hello).encode();
    table.deliver(seat, link, &hello, Expected::Notification);
    let packet = PostNotification {
        head: list.head().clone(),
        newest: list.list().clone(),
        post: post.cloned(),
    };
    let bytes = Packet::from(packet).encode();
    table.deliver(seat, link, &bytes, Expected::Notification);
    table.settle();
}

/// Another machine writes under the own key: who keeps the author knows, and here nothing more is written.
#[test]
fn a_newer_list_of_the_own_key_stops_writing() {
    let mut table = town(0, 4);
    table.follow(1, 2);
    table.post(2, "the first machine");
    table.pass(60_000);
    let generation = (table::START_MS / 1000) as u32 + 100_000;
    notify(&mut table, 1, &list_of(2, generation, &[(9, 5)]));
    table.pass(4 * 60 * 60_000);
    let post = Call::Post {
        text: PostText::new("the first machine again").expect("a text"),
        parent: None,
        media: Vec::new(),
    };
    let refused = table.call(2, post);
    assert!(matches!(refused, Err(CallError::Refused(why)) if why.contains("another machine")));
    // Others write as before.
    table.post(1, "somebody else");
}

/// One number, two lists, both signed: remembered, and over a restart.
#[test]
fn two_lists_with_one_number_are_remembered() {
    let mut table = town(0, 3);
    table.follow(1, 2);
    let author = secret(2).node_id();
    let generation = 7;
    notify(&mut table, 1, &list_of(2, generation, &[(1, 5)]));
    let is_known = |table: &Table| {
        let world = table.seats[1].node.world();
        let entity = world.resource::<AuthorIndex>().get(&author);
        let known = entity.and_then(|entity| world.get::<Author>(entity));
        known.is_some_and(|author| author.is_equivocal)
    };
    assert!(!is_known(&table));
    notify(&mut table, 1, &list_of(2, generation, &[(2, 5)]));
    assert!(is_known(&table));
    assert!(table.seats[1].equivocal.contains(&author));
    table.restart_with_files(1, profile(Desktop, 0), &[0]);
    assert!(is_known(&table));
}

/// How long a request may go unanswered: the transport's limit.
const STALL_MS: u64 = limits::REQUEST_TIMEOUT_MS;

/// Somebody (1) follows an author (2) who is gone, and knows of one holder (3) alone; another (4) has everything too and
/// is not in reach yet. The pictures of the author's posts.
fn orphaned(count: u8, length: usize) -> (Table, Vec<Vec<u8>>) {
    let mut table = town(0, 5);
    table.follow(3, 2);
    table.follow(4, 2);
    let pictures: Vec<Vec<u8>> = (0..count).map(|seed| picture(length, seed)).collect();
    for bytes in &pictures {
        let blob = stage(&mut table, 2, bytes);
        post_with(&mut table, 2, blob).expect("it is staged");
        table.pass(10_000);
    }
    for seat in [3, 4] {
        assert!(
            pictures
                .iter()
                .all(|bytes| holds_whole(&table, seat, bytes))
        );
    }
    table.unreachable.push(2);
    for seat in [0, 1, 3, 4] {
        table.cut(seat, 2);
    }
    table.roads = Some(BTreeSet::from([(0, 1), (0, 3), (0, 4), (1, 3), (3, 4)]));
    table.cut(1, 4);
    (table, pictures)
}

/// The road to the other holder is open.
fn reach(table: &mut Table) {
    table.roads = None;
    let connected = table.call(1, Call::Connect(connect_string(4)));
    assert!(
        matches!(connected, Ok(Reply::Connected(_))),
        "{connected:?}"
    );
}

fn whole(table: &Table, pictures: &[Vec<u8>]) -> usize {
    let is_whole = |bytes: &&Vec<u8>| holds_whole(table, 1, bytes);
    pictures.iter().filter(is_whole).count()
}

#[test]
fn a_holder_that_stalls_is_left_alone_and_another_gives_everything() {
    let (mut table, pictures) = orphaned(24, 70_000);
    table.stalling.insert(3);
    table.follow(1, 2);
    table.pass(STALL_MS / 2);
    assert_eq!(table.seats[1].posts.len(), pictures.len(), "posts come");
    assert_eq!(whole(&table, &pictures), 0);
    assert!(!table.asked_in_vain.is_empty(), "it is asked");
    reach(&mut table);
    table.pass(2 * STALL_MS);
    assert_eq!(whole(&table, &pictures), pictures.len());
    let asked = table.asked_in_vain.len();
    assert!(asked <= limits::FETCHES_PER_PEER_MAX, "asked {asked} times");
}

#[test]
fn whoever_had_no_room_for_an_answer_is_asked_again() {
    let (mut table, pictures) = orphaned(3, 700_000);
    table.crowded.insert((FileRequest::SPEC.code, 3), 3);
    table.follow(1, 2);
    table.pass(limits::CROWDED_PAUSE_MS / 2);
    assert_eq!(table.asked_in_vain, [3]);
    assert_eq!(whole(&table, &pictures), 0);
    // Within seconds, though nobody else has anything.
    table.pass(7 * limits::CROWDED_PAUSE_MS);
    assert_eq!(table.asked_in_vain, [3; 3]);
    assert_eq!(whole(&table, &pictures), pictures.len());
    let charged = Refusal::ALL.iter().filter(|refusal| refusal.points() > 0);
    let charged: u64 = charged.map(|refusal| table.refused(1, *refusal)).sum();
    assert_eq!(charged, 0, "having no room is no offence");
}

/// Whoever has no room for ever, and says again and again that it has something new, keeps nobody else from being asked.
#[test]
fn whoever_never_has_room_is_no_reason_to_wait_for_it() {
    for (resets_after_ms, within_ms) in [(0, 1_000), (9_000, 22_000)] {
        let (mut table, pictures) = orphaned(3, 70_000);
        table.resets_after_ms = resets_after_ms;
        for code in [PullSyncRequest::SPEC.code, FileRequest::SPEC.code] {
            table.crowded.insert((code, 3), usize::MAX);
        }
        table.follow(1, 2);
        table.pass(5_000);
        reach(&mut table);
        for number in 0..within_ms / 500 {
            let digest = ListDigest {
                author: secret(2).node_id(),
                seq: u64::MAX - 10_000 + number,
                root: 1,
            };
            let digests = Bounded::truncated(vec![digest]);
            let push = Packet::from(AuthorUpdatePush { digests });
            let link = table.link_from(1, 3);
            table.deliver(1, link, &push.encode(), Expected::Notification);
            table.pass(500);
        }
        assert_eq!(table.seats[1].posts.len(), pictures.len());
        assert_eq!(whole(&table, &pictures), pictures.len());
    }
}

#[test]
fn whoever_had_no_room_for_a_list_is_asked_again() {
    let (mut table, pictures) = orphaned(3, 70_000);
    table.crowded.insert((PullSyncRequest::SPEC.code, 3), 3);
    table.follow(1, 2);
    table.pass(5 * limits::CROWDED_PAUSE_MS);
    assert_eq!(table.asked_in_vain, [3; 3]);
    assert_eq!(table.seats[1].posts.len(), 0);
    table.pass(4 * limits::CROWDED_PAUSE_MS);
    assert_eq!(table.seats[1].posts.len(), pictures.len());
}

/// Who follows later has missed the push of a deletion: holders answer with the author's record, so that nothing stays wanted.
#[test]
fn whoever_follows_after_a_deletion_gets_its_record() {
    let mut table = town(0, 4);
    table.follow(3, 2);
    let mistake = table.post(2, "a mistake");
    table.post(2, "this stays");
    table.pass(60_000);
    assert_eq!(table.call(2, Call::Delete(mistake)), Ok(Reply::Done));
    table.pass(60_000);
    table.follow(1, 2);
    table.pass(60_000);
    let key = (mistake, secret(2).node_id());
    assert!(table.seats[1].deletions.contains_key(&key));
    assert_eq!(table.status(1).posts_wanted, 0);
}

/// A deletion of which only the author's list came is known after a start too: nothing that is older brings the post back.
#[test]
fn a_deletion_that_only_the_list_names_holds_over_a_start() {
    let mut table = town(0, 3);
    table.follow(1, 2);
    let mistake = table.post(2, "a mistake");
    table.pass(60_000);
    let author = secret(2).node_id();
    let older = table.seats[1].lists[&author].clone();
    let older = RecentPosts::verify(older.head, older.list).expect("it was stored");
    let post = table.seats[1].posts[&mistake].clone();
    let post = post.authenticate(|_| Some(author)).expect("it was stored");
    assert_eq!(table.call(2, Call::Delete(mistake)), Ok(Reply::Done));
    table.pass(60_000);
    table.roads = Some(BTreeSet::from([(0, 1)]));
    for seat in [0, 1] {
        table.cut(seat, 2);
    }
    assert!(
        table.seats[1]
            .deletions
            .remove(&(mistake, author))
            .is_some()
    );
    table.restart_with_files(1, profile(Desktop, 0), &[0]);
    table.pass(60_000);
    let world = table.seats[1].node.world();
    let entity = world.resource::<AuthorIndex>().get(&author);
    let known = entity.and_then(|entity| world.get::<Author>(entity));
    let missing: Vec<PostId> = known
        .expect("it is followed")
        .missing
        .iter()
        .map(|one| one.id)
        .collect();
    assert_eq!(missing, [mistake], "the record alone is wanted");
    notify_with(&mut table, 1, &older, Some(&post));
    assert!(!table.seats[1].posts.contains_key(&mistake));
    assert!(table.refused(1, Refusal::Deleted) > 0);
}

/// A holder whose list is older than ours is no holder of it: others are asked, and it is not asked over and over.
#[test]
fn an_older_list_is_no_answer() {
    let mut table = town(0, 4);
    let author = secret(2).node_id();
    for seat in [1, 3] {
        table.follow(seat, 2);
    }
    table.post(2, "the first");
    table.pass(60_000);
    let older = table.seats[3].lists[&author].clone();
    table.post(2, "the second");
    table.pass(60_000);
    table.unreachable.push(2);
    for seat in [0, 1, 3] {
        table.cut(seat, 2);
    }
    table.seats[3].lists.insert(author, older);
    let before = table.requests[&PullSyncRequest::SPEC.code];
    table.pass(4 * 60 * 60_000);
    let asked = table.requests[&PullSyncRequest::SPEC.code] - before;
    assert!((2..60).contains(&asked), "{asked} requests in four hours");
}

/// A post of somebody who says that another's picture is as long as this.
fn misnaming(number: usize, text: &str, blob: BlobRef) -> (SignedPost, Verified<RecentPosts>) {
    let body = PostBody {
        author: secret(number).node_id(),
        created_at_ms: table::START_MS,
        content: Content::Public(PublicContent {
            text: PostText::new(text).expect("a text"),
            parent: None,
            descriptions: Bounded::default(),
        }),
        blobs: Bounded::truncated(vec![blob]),
    };
    let post = SignedPost::sign(body, &secret(number)).expect("it says something");
    let event = Event {
        id: post.id(),
        created_at_s: (table::START_MS / 1000) as u32,
        kind: EventKind::Public,
    };
    let list = RecentPosts::append(None, event, 1, table::START_MS, &secret(number));
    (post, list)
}

/// A picture of somebody's, named by others with wrong lengths, before it comes, afterwards and over a start: whoever keeps it has
/// it, serves it, and may name it again.
#[test]
fn whoever_says_that_a_picture_is_longer_or_shorter_takes_it_from_nobody() {
    let mut table = town(0, 4);
    let bytes = picture(300_000, 1);
    let right = Cut::new(&bytes).expect("a length within bounds").blob();
    let lengths = [5, right.length - 1, right.length + 1, 5_000_000];
    let wrong = lengths.map(|length| BlobRef { length, ..right });
    for (liar, blob) in (20..).zip(wrong) {
        let (post, list) = misnaming(liar, "before", blob);
        for seat in [1, 2] {
            table.follow(seat, liar);
            notify_with(&mut table, seat, &list, Some(&post));
            assert!(table.seats[seat].posts.contains_key(&post.id()));
        }
    }
    table.follow(1, 2);
    stage(&mut table, 2, &bytes);
    let id = post_with(&mut table, 2, right).expect("it is staged");
    table.pass(2 * 60_000);
    assert!(holds_whole(&table, 1, &bytes));
    // Their ids come before that of the post which is right.
    for (liar, blob) in (30..).zip(wrong) {
        let mut posts = (0..).map(|round| misnaming(liar, &format!("after {round}"), blob));
        let (post, list) = posts.find(|(post, _)| post.id() < id).expect("one of many");
        for seat in [1, 2] {
            table.follow(seat, liar);
            notify_with(&mut table, seat, &list, Some(&post));
            assert!(table.seats[seat].posts.contains_key(&post.id()));
        }
    }
    for seat in [1, 2] {
        table.restart_with_files(seat, profile(Desktop, 0), &[0]);
    }
    table.pass(60_000);
    post_with(&mut table, 2, right).expect("it is here");
    table.unreachable.push(2);
    for seat in [0, 1, 3] {
        table.cut(seat, 2);
    }
    table.follow(3, 2);
    table.pass(5 * 60_000);
    assert!(holds_whole(&table, 3, &bytes), "a holder gives it");
    assert!(holds_whole(&table, 1, &bytes));
}
