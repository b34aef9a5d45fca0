//! An own list of as many events as there may be goes with each deletion (PROTOCOL section 7, quota): it lies in one run of pages,
//! which must be found where the tables are full.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod shelf;

use distsoc_engine::crypto;
use distsoc_engine::domain::{
    DeletionBody, Event, EventKind, PostId, RecentPosts, Signed, SignedPost, Verified,
};
use distsoc_engine::io::{StorageTrouble, Write};
use distsoc_engine::limits;
use shelf::{bytes_below, open_with, own, persist, post, write_post};

const BUDGET: u64 = 64_000_000;
const DELETIONS: u64 = 40;

fn appended(
    known: Option<&Verified<RecentPosts>>,
    id: PostId,
    kind: EventKind,
) -> Verified<RecentPosts> {
    let event = Event {
        id,
        created_at_s: 1,
        kind,
    };
    RecentPosts::append(known, event, 1, 1, &own())
}

fn write_list(list: &RecentPosts) -> Write {
    Write::RecentPosts {
        head: list.head().clone(),
        list: list.list().clone(),
    }
}

#[test]
fn an_own_list_of_any_length_goes_with_each_deletion_where_the_tables_are_full() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _, receive) = open_with(dir.path(), BUDGET).unwrap();
    let mut batch = 0;
    let mut try_to = |writes: Vec<Write>| {
        batch += 1;
        persist(&store, &receive, batch, writes)
    };
    let own_posts: Vec<SignedPost> = (0..DELETIONS)
        .map(|number| post(&own(), &format!("own {number}"), number))
        .collect();
    let mut list = appended(None, own_posts[0].id(), EventKind::Public);
    let others = (0..limits::EVENTS_MAX as u64 - DELETIONS)
        .map(|number| PostId::from_bytes(crypto::hash(&number.to_be_bytes())));
    for id in own_posts[1..].iter().map(SignedPost::id).chain(others) {
        list = appended(Some(&list), id, EventKind::Public);
    }
    assert_eq!(list.list().len(), limits::EVENTS_MAX);
    try_to(vec![write_list(&list)]).unwrap();
    try_to(own_posts.iter().map(write_post).collect()).unwrap();
    let mut late = 1_000;
    let mut fill = |try_to: &mut dyn FnMut(Vec<Write>) -> Result<(), StorageTrouble>| {
        for letters in [12_000, 5_000, 1_500, 1] {
            loop {
                late += 1;
                let text = format!("{late} {}", "x".repeat(letters));
                let post = post(&own(), &text, late);
                if let Err(trouble) = try_to(vec![write_post(&post)]) {
                    assert_eq!(trouble, StorageTrouble::Budget);
                    break;
                }
            }
        }
    };
    for (number, post) in (1..).zip(&own_posts) {
        fill(&mut try_to);
        list = appended(Some(&list), post.id(), EventKind::Delete);
        let body = DeletionBody {
            author: own().node_id(),
            post: post.id(),
            seq: number,
        };
        let writes = vec![
            Write::Deletion(Signed::sign(body, &own())),
            Write::ForgetPost(post.id()),
            write_list(&list),
        ];
        assert_eq!(try_to(writes), Ok(()), "deletion {number}");
        let bytes = bytes_below(dir.path());
        assert!(bytes <= BUDGET, "{bytes}");
    }
    store.close();
    drop(store);
    let (_store, restored, _) = open_with(dir.path(), BUDGET).unwrap();
    assert_eq!(restored.deletions.len(), own_posts.len());
    let stored = restored.own_list.unwrap();
    assert_eq!(stored.list.as_bytes(), list.list().as_bytes());
}
