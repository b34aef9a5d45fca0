//! The promises of PROTOCOL section 12, one by one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod shelf;

use distsoc_engine::crypto::Secret;
use distsoc_engine::domain::{
    Bio, Event, EventKind, Name, NodeId, ProfileBody, RecentPosts, Signed, SignedPost,
};
use distsoc_engine::io::{
    BatchId, Durability, GoodPeer, Input, MapRow, ReadId, ReadQuery, ReadResult, Restored,
    StorageTrouble, Write,
};
use distsoc_engine::wire::codec::Bounded;
use distsoc_persistence::{Fault, IdPrefix};
use shelf::{PATIENCE, follow, open, open_with, own, persist, post, write_post};

#[test]
fn everything_comes_back_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (secret, friend) = (own(), Secret::from_seed(&[2; 32]));
    let (mine, theirs) = (post(&secret, "mine", 1000), post(&friend, "theirs", 2000));
    let event = |post: &SignedPost| Event {
        id: post.id(),
        created_at_s: 1,
        kind: EventKind::Public,
    };
    let own_list = RecentPosts::append(None, event(&mine), 7, 1, &secret);
    let list = RecentPosts::append(None, event(&theirs), 7, 1, &friend);
    let profile = Signed::sign(
        ProfileBody {
            author: secret.node_id(),
            seq: 1,
            name: Name::new("Ada").unwrap(),
            bio: Bio::new("").unwrap(),
            avatar: None,
            anchors: Bounded::default(),
        },
        &secret,
    );
    let peer = GoodPeer {
        node: friend.node_id(),
        addresses: Vec::new(),
        is_anchor: true,
        last_up_ms: 3,
    };
    let (store, restored, receive) = open(dir.path()).unwrap();
    let usage = restored.usage;
    let empty = Restored {
        usage,
        ..Restored::default()
    };
    assert_eq!(restored, empty);
    assert!(usage.file_bytes > 0 && usage.row_room_bytes > usage.row_bytes && !usage.is_shrinking);
    let list_write = |list: &RecentPosts| Write::RecentPosts {
        head: list.head().clone(),
        list: list.list().clone(),
    };
    let writes = vec![
        write_post(&mine),
        write_post(&theirs),
        list_write(&own_list),
        list_write(&list),
        Write::Checked {
            author: friend.node_id(),
            checked_at_ms: 77,
        },
        Write::Profile(profile.clone()),
        follow(friend.node_id()),
        Write::GoodPeer(peer.clone()),
    ];
    persist(&store, &receive, 1, writes).unwrap();
    store.close();
    drop(store);

    let (store, restored, receive) = open(dir.path()).unwrap();
    assert_eq!(restored.files.len(), 2);
    assert_eq!(restored.authors, [(list.head().clone(), 77)]);
    assert_eq!(restored.own_list.as_ref().unwrap().list, *own_list.list());
    assert_eq!(restored.own_profile, Some(profile));
    assert_eq!(restored.relationships[0].0, friend.node_id());
    assert_eq!(restored.good_peers, [peer]);
    let page = store.view().feed(None, 10).unwrap();
    let ids: Vec<_> = page.entries.iter().map(|entry| entry.id).collect();
    assert_eq!(ids, [theirs.id(), mine.id()]);
    assert_eq!(page.entries[1].author_name.as_deref(), Some("Ada"));

    let gone = vec![
        Write::Relationship {
            node: friend.node_id(),
            relationship: None,
        },
        Write::ForgetPeer(friend.node_id()),
    ];
    persist(&store, &receive, 2, gone).unwrap();
    assert_eq!(
        store.view().feed(None, 10).unwrap().entries.len(),
        1,
        "unfollowed posts leave the feed"
    );
    assert!(
        store.view().post(theirs.id()).unwrap().is_some(),
        "and stay stored"
    );
}

#[test]
fn a_read_sees_what_was_handed_over_before() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _, receive) = open(dir.path()).unwrap();
    let posts: Vec<SignedPost> = (0..50)
        .map(|number| post(&own(), &format!("{number}"), number))
        .collect();
    for (number, post) in posts.iter().enumerate() {
        store.persist(
            BatchId(number as u64),
            vec![write_post(post)],
            Durability::WriteBehind,
        );
    }
    let query = ReadQuery::ForPeer {
        wants: Vec::new(),
        posts: posts.iter().map(SignedPost::id).collect(),
        bytes_max: 1 << 20,
    };
    store.read(ReadId(1), query);
    let (mut found, mut acknowledged) = (0, 0);
    while found == 0 || acknowledged < 50 {
        match receive.recv_timeout(PATIENCE).unwrap() {
            Input::Read { result, .. } => {
                let Ok(ReadResult::ForPeer { posts, .. }) = result else {
                    panic!("not what was asked");
                };
                found = posts.len();
            }
            Input::Persisted(_) => acknowledged += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(found, 50);
}

#[test]
fn a_full_map_refuses_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _, receive) = open_with(dir.path(), 1 << 19).unwrap();
    let mut kept = Vec::new();
    let refused = (0..1000).find_map(|number| {
        let post = post(&own(), &"x".repeat(8_000), number);
        match persist(&store, &receive, number, vec![write_post(&post)]) {
            Ok(()) => {
                kept.push(post.id());
                None
            }
            Err(trouble) => Some(trouble),
        }
    });
    assert_eq!(refused, Some(StorageTrouble::Budget));
    assert!(kept.len() > 5);
    assert!(
        kept.iter()
            .all(|id| store.view().post(*id).unwrap().is_some())
    );
    store.close();
    drop(store);
    let (store, restored, receive) = open_with(dir.path(), 1 << 22).unwrap();
    assert_eq!(restored.files.len(), kept.len());
    let late = post(&own(), "room again", 5000);
    persist(&store, &receive, 5000, vec![write_post(&late)]).unwrap();
}

#[test]
fn pages_are_stable_while_posts_arrive() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _, receive) = open(dir.path()).unwrap();
    let stranger = Secret::from_seed(&[3; 32]);
    let mut expected = Vec::new();
    for number in 0..30u64 {
        let author = if number % 3 == 0 { &stranger } else { &own() };
        let post = post(author, &format!("{number}"), 1000 + number * 10);
        persist(&store, &receive, number, vec![write_post(&post)]).unwrap();
        if number % 3 != 0 {
            expected.push(post.id());
        }
    }
    expected.reverse();
    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let page = store.view().feed(cursor, 7).unwrap();
        seen.extend(page.entries.iter().map(|entry| entry.id));
        let newer = post(
            &own(),
            &format!("newer than page {}", seen.len()),
            99_000 + seen.len() as u64,
        );
        persist(
            &store,
            &receive,
            100 + seen.len() as u64,
            vec![write_post(&newer)],
        )
        .unwrap();
        cursor = page.next.map(|cursor| cursor.to_string().parse().unwrap());
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen, expected);
}

#[test]
fn a_folder_in_use_a_foreign_file_and_a_file_for_a_folder_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let (store, ..) = open(dir.path()).unwrap();
    assert!(matches!(open(dir.path()), Err(Fault::Locked { .. })));
    store.close();
    drop(store);

    let foreign = tempfile::tempdir().unwrap();
    std::fs::create_dir(foreign.path().join("db")).unwrap();
    std::fs::write(foreign.path().join("db/data.mdb"), vec![0x5a; 100_000]).unwrap();
    let result = open(foreign.path());
    assert!(
        matches!(result, Err(Fault::Foreign { .. })),
        "{:?}",
        result.err()
    );

    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    assert!(open(&file).is_err());
}

fn map_row(generation: u32, chunk: u32) -> MapRow {
    MapRow {
        generation,
        chunk,
        bytes: vec![chunk as u8; 1_000].into(),
    }
}

#[test]
fn the_map_comes_back_value_by_value_and_older_generations_go() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _, receive) = open(dir.path()).unwrap();
    let places = [(0, 0), (0, 1 << 31), (1, 0), (1, 1), (1, 1 << 31)];
    let rows = |from: usize| places[from..].iter().map(|(g, c)| map_row(*g, *c));
    let all = rows(0).map(Write::MapRow).collect();
    persist(&store, &receive, 1, all).unwrap();
    store.close();
    drop(store);

    let (store, restored, receive) = open(dir.path()).unwrap();
    assert_eq!(restored.map, rows(0).collect::<Vec<_>>());
    let only = vec![Write::MapOnly { generation: 1 }];
    persist(&store, &receive, 2, only).unwrap();
    store.close();
    drop(store);

    let (store, restored, receive) = open(dir.path()).unwrap();
    assert_eq!(restored.map, rows(2).collect::<Vec<_>>());
    // More than any map takes: only the newest of it is read.
    let large = |chunk| {
        Write::MapRow(MapRow {
            bytes: vec![7; 8 << 20].into(),
            ..map_row(2, chunk)
        })
    };
    persist(&store, &receive, 3, (0..9).map(large).collect()).unwrap();
    store.close();
    drop(store);
    let (_store, restored, _) = open(dir.path()).unwrap();
    let chunks: Vec<u32> = restored.map.iter().map(|row| row.chunk).collect();
    assert_eq!(chunks, [1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn ids_are_found_by_how_they_begin() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _, receive) = open(dir.path()).unwrap();
    let node = |third: u8, last: u8| {
        let mut id = [0x77; 32];
        (id[2], id[31]) = (third, last);
        NodeId::from_bytes(id)
    };
    let nodes = [node(0x11, 1), node(0x12, 2), node(0x12, 3), node(0x13, 4)];
    let secret = own();
    let mut posts = [post(&secret, "one", 1_000), post(&secret, "two", 2_000)];
    posts.sort_by_key(SignedPost::id);
    let peer = GoodPeer {
        node: nodes[1],
        addresses: Vec::new(),
        is_anchor: false,
        last_up_ms: 3,
    };
    let mut writes: Vec<Write> = nodes.into_iter().map(follow).collect();
    writes.push(Write::GoodPeer(peer));
    writes.extend(posts.iter().map(write_post));
    persist(&store, &receive, 1, writes).unwrap();
    let view = store.view();
    let found = |prefix: &str, limit| {
        let prefix: IdPrefix = prefix.parse().unwrap();
        view.nodes_beginning(&prefix, limit).unwrap()
    };
    assert_eq!(found("777712", 9), nodes[1..3]);
    assert_eq!(found("777712", 1), nodes[1..2]);
    assert_eq!(found("77771277", 9), nodes[1..3]);
    assert_eq!(found(&nodes[3].to_string(), 9), nodes[3..]);
    assert_eq!(found("777714", 9), []);
    assert_eq!(found("ffffff", 9), []);
    for post in &posts {
        let prefix: IdPrefix = post.id().short().parse().unwrap();
        assert_eq!(view.posts_beginning(&prefix, 9).unwrap(), [post.id()]);
        assert_eq!(view.nodes_beginning(&prefix, 9).unwrap(), []);
    }
}

/// A peer that asks while a post of the person's is on its way to the disk hears of it once it is there.
#[test]
fn what_a_person_did_is_read_once_it_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let secret = own();
    let (store, _, receive) = open(dir.path()).unwrap();
    let mut list = None;
    for number in 1..=30u64 {
        let mine = post(&secret, &format!("{number}"), number * 1_000);
        let event = Event {
            id: mine.id(),
            created_at_s: number as u32,
            kind: EventKind::Public,
        };
        let newer = RecentPosts::append(list.as_ref(), event, 7, number, &secret);
        let writes = vec![
            write_post(&mine),
            Write::RecentPosts {
                head: newer.head().clone(),
                list: newer.list().clone(),
            },
        ];
        store.persist(BatchId(number), writes, Durability::Durable);
        store.read(ReadId(number), ReadQuery::RecentPosts(secret.node_id()));
        let mut is_durable = false;
        loop {
            match receive.recv_timeout(PATIENCE).unwrap() {
                Input::Persisted(batch) if batch == BatchId(number) => is_durable = true,
                Input::Read { result, .. } => {
                    let Ok(ReadResult::RecentPosts(Some(stored))) = result else {
                        panic!("{result:?}");
                    };
                    assert_eq!(stored.head, *newer.head());
                    assert!(is_durable, "it was told before");
                    break;
                }
                _ => {}
            }
        }
        list = Some(newer);
    }
}
