//! Posts with their blobs, hearts, deletions and pins: what is stored comes back after a restart, what is forgotten does not.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod shelf;

use distsoc_engine::crypto::Secret;
use distsoc_engine::domain::{
    Bio, BlobRef, Cut, Deletion, DeletionBody, Event, EventKind, EventList, Heart, HeartBody, Name,
    NodeId, PostId, ProfileBody, RecentPosts, RecentPostsBody, Seq, Signed, SignedPost,
};
use distsoc_engine::io::{
    BatchId, Durability, Input, ReadId, ReadQuery, ReadResult, StorageTrouble, StoredFileRow, Write,
};
use distsoc_engine::limits;
use distsoc_engine::wire::Want;
use distsoc_engine::wire::codec::Bounded;
use distsoc_persistence::{Store, StoreConfig};
use shelf::{
    PATIENCE, blob_bytes, open, open_with, own, persist, post, post_with, slices, usage_where,
    write_post, write_slices,
};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

fn heart(person: &Secret, post: &SignedPost, seq: u64, given: u8) -> Heart {
    let body = HeartBody {
        person: person.node_id(),
        author: post.body().author,
        post: post.id(),
        seq,
        given,
    };
    Signed::sign(body, person)
}

fn deletion(author: &Secret, post: PostId) -> Deletion {
    let body = DeletionBody {
        author: author.node_id(),
        post,
        seq: 1,
    };
    Signed::sign(body, author)
}

fn answer(store: &Store, receive: &Receiver<Input>, query: ReadQuery) -> ReadResult {
    store.read(ReadId(7), query);
    loop {
        if let Input::Read { result, .. } = receive.recv_timeout(PATIENCE).unwrap() {
            return result.unwrap();
        }
    }
}

fn pinned(post: &SignedPost) -> StoredFileRow {
    StoredFileRow {
        is_pinned: true,
        ..StoredFileRow::of(post)
    }
}

fn sorted<T: Ord>(all: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut all: Vec<T> = all.into_iter().collect();
    all.sort();
    all
}

/// A friend, their posts, one of them with a blob, and who gave them a heart.
struct Scene {
    friend: Secret,
    posts: [SignedPost; 2],
    blob: Vec<u8>,
    blob_ref: BlobRef,
}

fn scene() -> Scene {
    let friend = Secret::from_seed(&[2; 32]);
    let blob = blob_bytes(1_500_000, 1);
    let blob_ref = Cut::new(&blob).unwrap().blob();
    let posts = [
        post_with(&friend, "with a picture", &[blob_ref]),
        post(&friend, "without", 2_000),
    ];
    Scene {
        friend,
        posts,
        blob,
        blob_ref,
    }
}

fn store_scene(scene: &Scene, store: &Store, receive: &Receiver<Input>) {
    let fan = Secret::from_seed(&[3; 32]);
    let mut parts = slices(&scene.blob);
    parts.remove(3);
    persist(store, receive, 1, write_slices(&parts)).unwrap();
    let event = Event {
        id: scene.posts[0].id(),
        created_at_s: 1,
        kind: EventKind::Public,
    };
    let list = RecentPosts::append(None, event, 7, 1, &scene.friend);
    let profile = ProfileBody {
        author: scene.friend.node_id(),
        seq: 1,
        name: Name::new("Ada").unwrap(),
        bio: Bio::new("").unwrap(),
        avatar: None,
        anchors: Bounded::default(),
    };
    let writes = vec![
        write_post(&scene.posts[0]),
        write_post(&scene.posts[1]),
        Write::Pin {
            post: scene.posts[0].id(),
            is_pinned: true,
        },
        Write::Heart(heart(&fan, &scene.posts[0], 5, 1)),
        Write::Heart(heart(&own(), &scene.posts[0], 6, 1)),
        Write::Heart(heart(&own(), &scene.posts[0], 7, 0)),
        Write::Heart(heart(&own(), &scene.posts[1], 8, 1)),
        Write::Deletion(deletion(&scene.friend, PostId::from_bytes([9; 32]))),
        Write::RecentPosts {
            head: list.head().clone(),
            list: list.list().clone(),
        },
        Write::Checked {
            author: scene.friend.node_id(),
            checked_at_ms: 5,
        },
        Write::Profile(Signed::sign(profile, &scene.friend)),
    ];
    persist(store, receive, 2, writes).unwrap();
}

#[test]
fn files_come_back_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let scene = scene();
    let (store, _, receive) = open(dir.path()).unwrap();
    store_scene(&scene, &store, &receive);
    store.close();
    drop(store);

    let (store, restored, _) = open(dir.path()).unwrap();
    let [first, second] = &scene.posts;
    let mut files = vec![pinned(first), StoredFileRow::of(second)];
    files.sort_by_key(|file| file.id);
    assert_eq!(restored.files, files);
    assert_eq!(restored.blobs.len(), 1);
    assert_eq!(restored.blobs[0].hash, scene.blob_ref.hash);
    assert_eq!(restored.blobs[0].slices, vec![0..3, 4..23]);
    let hearts = restored
        .hearts
        .iter()
        .map(|(heart, _)| (heart.seq, heart.given));
    assert_eq!(sorted(hearts), [(5, 1), (7, 0), (8, 1)]);
    let gone = (scene.friend.node_id(), PostId::from_bytes([9; 32]));
    assert_eq!(restored.deletions, [gone]);
    assert!(restored.usage.blob_bytes > 1_400_000);
    let view = store.view();
    let hearts = |post: &SignedPost| view.hearts_of(post.id()).unwrap();
    assert_eq!((hearts(first), hearts(second)), (1, 1));
}

#[test]
fn what_is_forgotten_is_gone_and_nothing_else_is() {
    let dir = tempfile::tempdir().unwrap();
    let scene = scene();
    let (store, _, receive) = open(dir.path()).unwrap();
    store_scene(&scene, &store, &receive);
    let [first, second] = &scene.posts;
    let writes = vec![
        Write::ForgetBlob(scene.blob_ref.hash),
        Write::ForgetPost(first.id()),
        Write::Pin {
            post: second.id(),
            is_pinned: true,
        },
    ];
    persist(&store, &receive, 3, writes).unwrap();
    assert_eq!(store.view().hearts_of(first.id()).unwrap(), 0);
    assert!(store.view().post(first.id()).unwrap().is_none());
    store.close();
    drop(store);

    let (store, restored, receive) = open(dir.path()).unwrap();
    assert_eq!(restored.files, [pinned(second)]);
    assert_eq!((restored.blobs.len(), restored.usage.blob_bytes), (0, 0));
    assert_eq!(restored.hearts.len(), 1);
    assert_eq!(restored.authors.len(), 1);
    assert_eq!(restored.deletions.len(), 1);
    assert_eq!(store.view().feed(None, 10).unwrap().entries, []);
    let writes = vec![
        Write::ForgetAuthor(scene.friend.node_id()),
        Write::Pin {
            post: second.id(),
            is_pinned: false,
        },
        Write::Deletion(deletion(&own(), first.id())),
    ];
    persist(&store, &receive, 4, writes).unwrap();
    store.close();
    drop(store);

    let (_store, restored, _) = open(dir.path()).unwrap();
    assert_eq!(restored.files, [StoredFileRow::of(second)]);
    assert_eq!((restored.authors.len(), restored.profiles.len()), (0, 0));
    assert_eq!(restored.deletions, [(own().node_id(), first.id())]);
}

#[test]
fn a_blob_that_comes_again_after_it_was_forgotten_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _, receive) = open(dir.path()).unwrap();
    let parts = slices(&blob_bytes(300_000, 1));
    let hash = parts[0].blob().hash;
    // All of it waits for the same commit.
    for (batch, writes) in [
        write_slices(&parts),
        vec![Write::ForgetBlob(hash)],
        write_slices(&parts[..2]),
    ]
    .into_iter()
    .enumerate()
    {
        store.persist(BatchId(batch as u64), writes, Durability::WriteBehind);
    }
    persist(&store, &receive, 9, Vec::new()).unwrap();
    store.close();
    drop(store);
    let (_store, restored, _) = open(dir.path()).unwrap();
    assert_eq!(
        restored.blobs[0].slices,
        std::iter::once(0..2).collect::<Vec<_>>()
    );
}

#[test]
fn a_peer_is_given_the_newest_hearts_of_each_post_and_the_deletions_of_what_is_not_here() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _, receive) = open(dir.path()).unwrap();
    let friend = Secret::from_seed(&[2; 32]);
    let posts = [post(&friend, "loved", 1), post(&friend, "liked", 2)];
    let fans: Vec<Secret> = (0..limits::PULL_HEARTS_MAX as u32 + 20)
        .map(|number| {
            let mut seed = [5; 32];
            seed[..4].copy_from_slice(&number.to_be_bytes());
            Secret::from_seed(&seed)
        })
        .collect();
    let mut writes: Vec<Write> = posts.iter().map(write_post).collect();
    for (fan, seq) in fans.iter().zip(0..) {
        writes.push(Write::Heart(heart(fan, &posts[0], seq, 1)));
    }
    for fan in &fans[..3] {
        writes.push(Write::Heart(heart(fan, &posts[1], 1, 1)));
    }
    let gone: Vec<PostId> = (0..limits::PULL_DELETIONS_MAX as u8 + 6)
        .map(|number| PostId::from_bytes([number; 32]))
        .collect();
    for id in &gone {
        writes.push(Write::Deletion(deletion(&friend, *id)));
    }
    writes.push(Write::Deletion(deletion(&own(), gone[0])));
    persist(&store, &receive, 1, writes).unwrap();
    let ask = |authors: Vec<NodeId>, posts: Vec<PostId>| {
        let wants = authors.into_iter().map(|author| Want { author, seq: 0 });
        let query = ReadQuery::ForPeer {
            wants: wants.collect(),
            posts,
            bytes_max: 1 << 20,
        };
        let ReadResult::ForPeer {
            posts,
            hearts,
            deletions,
            ..
        } = answer(&store, &receive, query)
        else {
            panic!("not what was asked");
        };
        (posts.len(), hearts, deletions)
    };
    let ids = vec![posts[0].id(), posts[1].id(), gone[5]];
    let (found, hearts, deletions) = ask(vec![own().node_id(), friend.node_id()], ids);
    assert_eq!((found, hearts.len()), (2, limits::PULL_HEARTS_MAX));
    let of = |post: &SignedPost| {
        let of_post = hearts.iter().filter(|heart| heart.post == post.id());
        of_post.map(|heart| heart.seq).collect::<Vec<_>>()
    };
    assert_eq!(of(&posts[1]).len(), 3);
    let newest = (0..fans.len() as u64).rev();
    let newest: Vec<u64> = newest.take(limits::PULL_HEARTS_MAX - 3).collect();
    assert_eq!(of(&posts[0]), newest);
    let deleted: Vec<_> = deletions.iter().map(|one| (one.author, one.post)).collect();
    assert_eq!(deleted, [(friend.node_id(), gone[5])]);

    let (_, hearts, deletions) = ask(vec![friend.node_id()], gone.clone());
    let most = limits::PULL_DELETIONS_MAX;
    assert_eq!((hearts.len(), deletions.len()), (0, most));
    let (_, _, deletions) = ask(vec![fans[0].node_id()], gone);
    assert_eq!(deletions, []);
}

/// Of long lists no more is read than is sent, whatever the asker says it has; what it has already leaves room for the rest.
#[test]
fn of_lists_a_peer_is_read_what_it_lacks_as_far_as_it_fits() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _, receive) = open(dir.path()).unwrap();
    let list = EventList::from_bytes(vec![0; limits::EVENTS_MAX * limits::EVENT_BYTES]).unwrap();
    let seq = Seq::new(7, limits::EVENTS_MAX as u32);
    let authors: Vec<Secret> = (2..10).map(|seed| Secret::from_seed(&[seed; 32])).collect();
    let head = |author: &Secret| {
        let body = RecentPostsBody {
            author: author.node_id(),
            seq,
            count: limits::EVENTS_MAX as u32,
            root: list.root(),
            updated_at_ms: 1,
        };
        Signed::sign(body, author)
    };
    let post = post(&authors[0], &"x".repeat(8_000), 1);
    let lists = authors.iter().map(|author| Write::RecentPosts {
        head: head(author),
        list: list.clone(),
    });
    let writes = lists.chain([write_post(&post)]).collect();
    persist(&store, &receive, 1, writes).unwrap();
    // How many events each of the authors' lists has that the asker lacks; which of them come, and how many posts.
    let ask = |lacking: &[u64], bytes_max: usize| {
        let wants = authors.iter().zip(lacking).map(|(author, lacking)| Want {
            author: author.node_id(),
            seq: seq.to_u64() - lacking,
        });
        let query = ReadQuery::ForPeer {
            wants: wants.collect(),
            posts: vec![post.id()],
            bytes_max,
        };
        let ReadResult::ForPeer { lists, posts, .. } = answer(&store, &receive, query) else {
            panic!("not what was asked");
        };
        let parts = lists.iter().map(|part| part.newest.len() as u64);
        (parts.collect::<Vec<_>>(), posts.len())
    };
    let (all, most) = (limits::EVENTS_MAX as u64, limits::PULL_RESPONSE_BYTES_MAX);
    assert_eq!(ask(&[all; 8], most), (vec![all], 1), "one fits, and a post");
    assert_eq!(ask(&[0; 8], most), (vec![0; 8], 1));
    assert_eq!(ask(&[100; 8], most), (vec![100; 8], 1));
    let some = ask(&[all, all, 100, 0], most);
    assert_eq!(some, (vec![all, 100, 0], 1));
    let room = 200 * limits::EVENT_BYTES;
    assert_eq!(ask(&[100; 8], room), (vec![100; 2], 0));
    assert_eq!(ask(&[0; 8], room + 1_000), (vec![0; 8], 1));
}

#[test]
fn slices_are_read_up_to_the_first_that_is_not_here() {
    let dir = tempfile::tempdir().unwrap();
    let scene = scene();
    let (store, _, receive) = open(dir.path()).unwrap();
    store_scene(&scene, &store, &receive);
    let parts = slices(&scene.blob);
    let ask = |first, count| {
        let query = ReadQuery::Slices {
            blob: scene.blob_ref.hash,
            first,
            count,
        };
        let ReadResult::Slices(found) = answer(&store, &receive, query) else {
            panic!("not what was asked");
        };
        found
    };
    assert_eq!(ask(0, 8).len(), 3);
    assert_eq!(ask(3, 8).len(), 0);
    let stored = parts[4..12].iter().map(|slice| slice.bytes());
    assert!(stored.eq(&ask(4, 8)));
    assert_eq!(ask(20, 8).len(), 3);
    assert_eq!(ask(u32::MAX, 8).len(), 0);

    let view = store.view();
    let part = |range: std::ops::Range<u64>| view.blob_part(scene.blob_ref, range).unwrap();
    assert_eq!(part(0..10).as_deref(), Some(&scene.blob[..10]));
    assert_eq!(
        part(60_000..150_000).as_deref(),
        Some(&scene.blob[60_000..150_000])
    );
    assert_eq!(
        part(1_400_000..9_000_000).as_deref(),
        Some(&scene.blob[1_400_000..])
    );
    assert_eq!(part(100_000..200_000), None);
    assert_eq!(part(9_000_000..9_000_001).as_deref(), Some(&[][..]));
    let unknown = Cut::new(&[1; 500]).unwrap().blob();
    let longer = BlobRef {
        length: scene.blob_ref.length * 3,
        ..scene.blob_ref
    };
    for blob in [unknown, longer] {
        assert_eq!(view.blob_part(blob, 0..500).unwrap(), None);
    }
}

/// The writer stands still here for as long as the test likes.
#[test]
fn slices_are_read_while_the_writer_is_busy() {
    let dir = tempfile::tempdir().unwrap();
    let (send, receive) = channel();
    let (release, held) = channel::<()>();
    let held = Arc::new(Mutex::new(held));
    let config = StoreConfig {
        dir: dir.path().into(),
        own: own().node_id(),
        budget_bytes: 64_000_000,
    };
    let deliver = move |input| {
        let is_second = matches!(input, Input::Persisted(BatchId(2)));
        send.send(input).unwrap();
        if is_second {
            held.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        }
    };
    let (store, _) = Store::open(config, deliver).unwrap();
    let parts = slices(&blob_bytes(300_000, 1));
    persist(&store, &receive, 1, write_slices(&parts)).unwrap();
    persist(&store, &receive, 2, Vec::new()).unwrap();
    let query = ReadQuery::Slices {
        blob: parts[0].blob().hash,
        first: 0,
        count: 8,
    };
    let ReadResult::Slices(found) = answer(&store, &receive, query) else {
        panic!("not what was asked");
    };
    assert_eq!(found.len(), parts.len());
    release.send(()).unwrap();
    persist(&store, &receive, 3, Vec::new()).unwrap();
    store.close();
}

#[test]
fn a_batch_of_slices_without_room_is_refused_and_what_was_stored_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (store, restored, receive) = open_with(dir.path(), 16_000_000).unwrap();
    let parts = slices(&blob_bytes(14_000_000, 1));
    let refused = persist(&store, &receive, 1, write_slices(&parts));
    assert_eq!(refused, Err(StorageTrouble::Budget));
    let blob = parts[0].blob();
    let usage = usage_where(&receive, |_| true);
    assert!(usage.blob_bytes > restored.usage.blob_room_bytes * 8 / 10);
    let whole = store.view().blob_part(blob, 0..blob.length).unwrap();
    assert_eq!(whole, None);
    persist(&store, &receive, 2, vec![Write::ForgetBlob(blob.hash)]).unwrap();
    usage_where(&receive, |usage| usage.blob_bytes == 0);
    let parts = slices(&blob_bytes(5_000_000, 2));
    persist(&store, &receive, 3, write_slices(&parts)).unwrap();
}

#[test]
fn how_full_the_disk_is_is_said_after_commits_that_changed_it_and_a_budget_outlives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (store, restored, receive) = open_with(dir.path(), 64_000_000).unwrap();
    assert_eq!(restored.usage.budget_bytes, 64_000_000);
    let parts = slices(&blob_bytes(1_000_000, 1));
    persist(&store, &receive, 1, write_slices(&parts)).unwrap();
    let usage = usage_where(&receive, |_| true);
    assert!(usage.blob_bytes > 1_000_000, "{usage:?}");
    assert!(usage.file_bytes > restored.usage.file_bytes + 1_000_000);
    assert_eq!(usage.file_bytes, store.disk_bytes());
    persist(&store, &receive, 2, Vec::new()).unwrap();
    store.set_budget(128_000_000);
    // What changed nothing was not told.
    let raised = usage_where(&receive, |_| true);
    assert_eq!(raised.budget_bytes, 128_000_000);
    assert!(!raised.is_shrinking);
    assert!(raised.blob_room_bytes > 2 * usage.blob_room_bytes - 1_000_000);
    assert!(raised.row_room_bytes > 2 * usage.row_room_bytes - 1_000_000);
    store.close();
    drop(store);
    let (_store, restored, _) = open_with(dir.path(), 64_000_000).unwrap();
    let there = restored.usage;
    assert_eq!(
        (there.budget_bytes, there.blob_bytes, there.row_bytes),
        (raised.budget_bytes, raised.blob_bytes, raised.row_bytes)
    );
    assert_eq!(
        (there.blob_room_bytes, there.row_room_bytes),
        (raised.blob_room_bytes, raised.row_room_bytes)
    );
}
