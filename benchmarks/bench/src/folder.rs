//! Data folders made by hand, as nodes find them at their start.

use distsoc_engine::crypto::Secret;
use distsoc_engine::domain::{
    BlobRef, Content, Event, EventKind, NodeId, PostBody, PostText, PublicContent, RecentPosts,
    SignedPost, Verified,
};
use distsoc_engine::io::{BatchId, Durability, Input, Relationship, Write};
use distsoc_engine::profile::{NodeProfile, ProfileKind};
use distsoc_engine::wire::codec::Bounded;
use distsoc_host::{Host, HostConfig};
use distsoc_persistence::{Store, StoreConfig};
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_millis() as u64
}

/// A key by number.
pub(crate) fn secret(number: u16) -> Secret {
    let mut seed = [77; 32];
    seed[..2].copy_from_slice(&number.to_be_bytes());
    Secret::from_seed(&seed)
}

pub(crate) fn post(
    secret: &Secret,
    created_at_ms: u64,
    text: &str,
    blobs: &[BlobRef],
) -> SignedPost {
    let public = PublicContent {
        text: PostText::new(text).expect("a text"),
        parent: None,
        descriptions: Bounded::truncated(Vec::new()),
    };
    let body = PostBody {
        author: secret.node_id(),
        created_at_ms,
        content: Content::Public(public),
        blobs: Bounded::truncated(blobs.to_vec()),
    };
    SignedPost::sign(body, secret).expect("a post")
}

/// The author's list of these posts, which come in the order of their times.
pub(crate) fn list(secret: &Secret, posts: &[SignedPost]) -> Verified<RecentPosts> {
    let mut list = None;
    for post in posts {
        let at_ms = post.body().created_at_ms;
        let event = Event {
            id: post.id(),
            created_at_s: (at_ms / 1000) as u32,
            kind: EventKind::Public,
        };
        let begun_s = (posts[0].body().created_at_ms / 1000) as u32;
        let next = RecentPosts::append(list.as_ref(), event, begun_s, at_ms, secret);
        list = Some(next);
    }
    list.expect("at least one post")
}

pub(crate) fn follow(node: NodeId) -> Write {
    Write::Relationship {
        node,
        relationship: Some(Relationship {
            followed_since_ms: Some(wall_ms()),
            ..Relationship::default()
        }),
    }
}

pub(crate) fn store_list(list: &RecentPosts) -> [Write; 2] {
    [
        Write::RecentPosts {
            head: list.head().clone(),
            list: list.list().clone(),
        },
        Write::Checked {
            author: list.head().author,
            checked_at_ms: wall_ms(),
        },
    ]
}

pub(crate) fn store_post(post: &SignedPost) -> Write {
    Write::Post {
        post: Box::new(post.clone()),
        arrived_ms: wall_ms(),
    }
}

/// Makes the folder of a node and stores batches in it, durably.
pub(crate) fn make(dir: &Path, own: &Secret, batches: Vec<Vec<Write>>) {
    let (told, tell) = channel();
    let config = StoreConfig {
        dir: dir.into(),
        own: own.node_id(),
        budget_bytes: NodeProfile::of(ProfileKind::Desktop).file_budget_bytes,
    };
    distsoc_persistence::secret::create(dir, &own.seed()).expect("a new folder");
    let deliver = move |input| drop(told.send(input));
    let (store, _) = Store::open(config, deliver).expect("a new folder");
    let count = batches.len();
    for (number, writes) in batches.into_iter().enumerate() {
        store.persist(BatchId(number as u64), writes, Durability::Durable);
    }
    let mut done = 0;
    while done < count {
        match tell.recv().expect("the store answers") {
            Input::Persisted(_) => done += 1,
            Input::PersistFailed(_, trouble) => panic!("a new disk has room: {trouble}"),
            _ => {}
        }
    }
    store.close();
}

/// Starts a node on a folder.
pub(crate) fn start(dir: &Path, kind: ProfileKind) -> Host {
    Host::start(HostConfig {
        dir: dir.into(),
        kind,
        listen: ([127, 0, 0, 1], 0).into(),
        anchors: Vec::new(),
        name: None,
        identity_seed: None,
    })
    .expect("a node starts on its folder")
}
